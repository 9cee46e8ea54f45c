"""What one header says: its values as plain Python, the size of its data, and what the HDU is."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

from astropy.io import fits

from spica_ingest.science.facts import Finding, HduFacts
from spica_ingest.science.values import as_text

CARD = 80
_COMMENTARY = ("", "COMMENT", "HISTORY", "END", "CONTINUE")
_PLAIN = (str, bool, int, float)
_BITPIX = (8, 16, 32, 64, -32, -64)
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


def header_values(header_bytes: bytes) -> tuple[dict[str, Any], list[str]]:
    """Values of a header (80-byte cards) by keyword, and the keywords of cards that cannot be read.

    Of repeated keywords the first counts, as astropy has it. Commentary is left out.
    """
    values: dict[str, Any] = {}
    unreadable: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for image in _card_images(header_bytes):
            keyword = image[:8].strip()
            # astropy raises this or that on a card that is none; all of it means the same.
            try:
                card = fits.Card.fromstring(image)
                keyword, value = card.keyword, card.value
            except Exception:
                unreadable.append(as_text(keyword) or "?")
                continue
            if keyword not in _COMMENTARY and keyword not in values and isinstance(value, _PLAIN):
                values[keyword] = value
    return values, unreadable


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
