"""What one header says: its values as plain Python, the size of its data, and what the HDU is."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from astropy.io import fits

from spica_ingest.science.cards import COMMENTARY, Card, breaks_type, out_of_place, read_card
from spica_ingest.science.facts import Finding, HduFacts
from spica_ingest.science.values import as_text

CARD = 80
_PLAIN = (str, bool, int, float)
_BITPIX = (8, 16, 32, 64, -32, -64)
_EXTENSIONS = ("IMAGE", "TABLE", "BINTABLE", "IUEIMAGE", "A3DTABLE", "FOREIGN", "DUMP")
_TABLE_ONLY = ("XTENSION", "BITPIX", "PCOUNT", "GCOUNT", "TFIELDS", "THEAP", "ZIMAGE", "ZTENSION", "ZBITPIX")
_TABLE_PREFIXES = (
    "NAXIS",
    "TTYPE",
    "TFORM",
    "TUNIT",
    "ZNAXIS",
    "ZTILE",
    "ZCMPTYPE",
    "ZNAME",
    "ZVAL",
    "ZPCOUNT",
    "ZGCOUNT",
)


class Fault(Exception):
    """Reading cannot go on."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


@dataclass(slots=True)
class Header:
    """One header as it was read."""

    values: dict[str, Any] = field(default_factory=dict)
    """Of repeated keywords the first counts, as astropy has it. Commentary is left out."""
    cards: list[Card | None] = field(default_factory=list)
    """The cards that begin it, as they stand; None for one that does not follow the standard."""
    unreadable: list[str] = field(default_factory=list)
    """Keywords of cards that cannot be read at all: left out."""
    nonstandard: list[tuple[str, str]] = field(default_factory=list)
    """Keywords of cards that can be read though they do not follow the standard, and what is wrong."""


def header_values(header_bytes: bytes) -> tuple[dict[str, Any], list[str]]:
    """Values of a header (80-byte cards) by keyword, and the keywords of cards that cannot be read."""
    header = read_header(header_bytes)
    return header.values, header.unreadable


def read_header(header_bytes: bytes) -> Header:
    """Read a header's 80-byte cards up to END."""
    header = Header()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for image in _card_images(header_bytes):
            card = read_card(image) if len(image) == CARD else _lenient(image)
            if isinstance(card, str):
                problem, card = card, _lenient(image)
                keyword = as_text(image[:8]) or "?"
                if card is None:
                    header.unreadable.append(keyword)
                else:
                    header.nonstandard.append((keyword, problem))
                header.cards.append(None)
            else:
                header.cards.append(card)
                if card is None:
                    header.unreadable.append(as_text(image[:8]) or "?")
            if card is not None and card.keyword not in COMMENTARY and isinstance(card.value, _PLAIN):
                header.values.setdefault(card.keyword, card.value)
    return header


def _lenient(image: str) -> Card | None:
    """A card as astropy understands it; None where it does not."""
    # astropy raises this or that on a card that is none; all of it means the same.
    try:
        card = fits.Card.fromstring(image)
        return Card(card.keyword, card.value)
    except Exception:
        return None


def _card_images(header_bytes: bytes) -> Iterator[str]:
    """Cards as text up to END, a card and its CONTINUE cards together."""
    text, image = header_bytes.decode("latin-1"), ""
    for start in range(0, len(text), CARD):
        chunk = text[start : start + CARD]
        if chunk.startswith("CONTINUE"):
            image += chunk
            continue
        if image.strip():
            yield image
        image = chunk
        if chunk.rstrip() == "END":
            return
    if image.strip():
        yield image


def departures(header: Header, index: int) -> list[Finding]:
    """Where a header departs from the standard without harm: one finding for each kind."""
    values = header.values
    table = "TFIELDS" in values
    odd = list(header.nonstandard)
    seen = set()
    for place, card in enumerate(header.cards):
        if card is None or card.keyword in COMMENTARY:
            continue
        keyword = card.keyword
        if expected := breaks_type(card):
            odd.append((keyword, f"should be {expected}"))
        elif out_of_place(
            keyword,
            primary=index == 0,
            table=table,
            compressed=values.get("ZIMAGE") is True,
            groups=values.get("GROUPS") is True,
        ):
            odd.append((keyword, "is not allowed in such an HDU"))
        elif place < 3 and not card.fixed:
            odd.append((keyword, "is not in fixed format"))
        elif keyword in seen and keyword.startswith(("NAXIS", "BITPIX", "XTENSION", "SIMPLE", "TFORM")):
            odd.append((keyword, "is there more than once"))
        seen.add(keyword)
    if table:
        fields = values["TFIELDS"]
        if isinstance(fields, int) and 0 <= fields <= 999:
            odd += [(f"TFORM{n}", "is missing") for n in range(1, fields + 1) if f"TFORM{n}" not in values]
    if values.get("BITPIX") in (-32, -64) and "BLANK" in values:
        odd.append(("BLANK", "means nothing for floating-point pixels"))
    findings = []
    if header.unreadable:
        findings.append(_cards_finding("unreadable_cards", index, [(key, "") for key in header.unreadable]))
    if odd:
        findings.append(_cards_finding("nonstandard_cards", index, odd))
    return findings


def _cards_finding(code: str, index: int, odd: list[tuple[str, str]]) -> Finding:
    message = (
        "Some header cards do not follow the FITS standard and were left out."
        if code == "unreadable_cards"
        else f"Some header cards do not follow the FITS standard: {odd[0][0]} {odd[0][1]}."
    )
    return Finding(
        code,
        message,
        hdu=index,
        keyword=odd[0][0],
        found=", ".join(keyword for keyword, _ in odd[:8]),
        expected="KEYWORD = value / comment",
    )


def check_mandatory(header: Header, index: int) -> None:
    """Compare the keywords that tell the layout with the standard (section 4.4.1): there, and in their order.

    Raises `Fault` (`bad_structure`): readers differ in what they make of anything else.
    """
    axes = header.values.get("NAXIS")
    expected = ["SIMPLE" if index == 0 else "XTENSION", "BITPIX", "NAXIS"]
    if isinstance(axes, int) and not isinstance(axes, bool):
        expected += [f"NAXIS{number}" for number in range(1, min(axes, 999) + 1)]
    if index > 0:
        expected += ["PCOUNT", "GCOUNT"]
    found = [card.keyword if card else "?" for card in header.cards[: len(expected)]]
    for place, keyword in enumerate(expected):
        if place < len(found) and found[place] == keyword:
            continue
        if keyword in ("PCOUNT", "GCOUNT") and {"PCOUNT", "GCOUNT"} <= header.values.keys():
            continue
        if place < len(found) and found[place] == "?" and keyword in header.values:
            continue  # there, though not as the standard writes it: noted elsewhere
        raise Fault(
            Finding(
                "bad_structure",
                f"{keyword} is not where the standard demands it."
                if keyword in header.values
                else f"The mandatory keyword {keyword} is missing.",
                index,
                keyword,
                found[place] if place < len(found) else "the end of the header",
                f"{keyword} as card {place + 1}",
            )
        )
    first = header.values.get(expected[0])
    good = first is True if index == 0 else str(first).strip() in _EXTENSIONS
    if not good:
        wanted = "T" if index == 0 else "IMAGE, BINTABLE or TABLE"
        raise Fault(
            Finding(
                "bad_structure", "This HDU is of no standard kind.", index, expected[0], str(first), wanted
            )
        )


def _integer(values: dict[str, Any], keyword: str, index: int, default: int | None = None) -> int:
    value = values.get(keyword, default)
    if isinstance(value, bool) or not isinstance(value, int) or (value < 0 and keyword != "BITPIX"):
        raise Fault(
            Finding(
                "bad_structure",
                f"{keyword} does not tell the size of the data.",
                hdu=index,
                keyword=keyword,
                found="nothing" if value is None else str(value),
                expected="a whole number",
            )
        )
    return value


def _axes(values: dict[str, Any], index: int, prefix: str = "") -> tuple[int, ...]:
    """Sizes of the axes as FITS orders them, the fastest first."""
    number = _integer(values, f"{prefix}NAXIS", index)
    if number > 999:
        raise Fault(Finding("bad_structure", "NAXIS is above 999.", index, "NAXIS", str(number), "0 to 999"))
    return tuple(_integer(values, f"{prefix}NAXIS{axis + 1}", index) for axis in range(number))


def data_size(values: dict[str, Any], index: int) -> int:
    """Bytes of the data unit without padding (FITS standard 4.0, equations 1, 2 and 4)."""
    bitpix = _integer(values, "BITPIX", index)
    if bitpix not in _BITPIX:
        raise Fault(
            Finding(
                "bad_structure",
                "BITPIX is not one of the standard's.",
                index,
                "BITPIX",
                str(bitpix),
                ", ".join(map(str, _BITPIX)),
            )
        )
    axes = _axes(values, index)
    if axes and axes[0] == 0 and values.get("GROUPS") is True:
        axes = axes[1:]
    elements = math.prod(axes) if axes else 0
    groups, parameters = _integer(values, "GCOUNT", index, 1), _integer(values, "PCOUNT", index, 0)
    return abs(bitpix) // 8 * groups * (parameters + elements)


def describe_hdu(values: dict[str, Any], index: int) -> HduFacts:
    """What this HDU is; a tile-compressed image counts as the image that it holds."""
    compressed = values.get("ZIMAGE") is True
    axes = _axes(values, index, "Z" if compressed else "")
    image = compressed or index == 0 or str(values.get("XTENSION", "")).strip() in ("IMAGE", "IUEIMAGE")
    image = image and values.get("GROUPS") is not True
    shape = tuple(reversed(axes))
    header = values
    if compressed:
        header = {
            keyword: value
            for keyword, value in values.items()
            if keyword not in _TABLE_ONLY and not keyword.startswith(_TABLE_PREFIXES)
        }
        header |= {"BITPIX": values.get("ZBITPIX"), "NAXIS": len(axes)}
        header |= {f"NAXIS{number}": size for number, size in enumerate(axes, start=1)}
    return HduFacts(index, header, image and len(shape) == 2 and min(shape) > 0, shape)
