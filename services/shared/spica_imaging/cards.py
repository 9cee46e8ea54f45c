"""Headers read card by card, when a card is asked for.

A mosaic has thousands of cards, of which a reader of pixels wants twenty; parsing them all takes longer than reading
the pixels. Here a header stays the bytes that it is, a keyword is looked up in them, and only that card is parsed.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from astropy.io import fits

CARD, BLOCK = 80, 2880

_END = b"END".ljust(CARD)
_TEXT = re.compile(r"\s*'((?:[^']|'')*)'\s*(?:/.*)?$")
_WHOLE = re.compile(r"\s*([+-]?\d+)\s*(?:/.*)?$")
_REAL = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[EeDd][+-]?\d+)?)\s*(?:/.*)?$")
_LOGICAL = re.compile(r"\s*([TF])\s*(?:/.*)?$")
_LONG = 8

_SOME = 12
"""Keywords that are looked up before it is worth knowing where all of them are."""

_NOT_INHERITED = frozenset(
    {"SIMPLE", "EXTEND", "NEXTEND", "CHECKSUM", "DATASUM", "INHERIT", "COMMENT", "HISTORY", ""}
)


def end_of_header(content: bytes) -> int:
    """Where the END card of a header that begins with `content` stands; -1 where it is not there yet."""
    place = content.find(_END)
    while place >= 0 and place % CARD:
        place = content.find(_END, place + 1)
    return place


class Cards(Mapping[str, Any]):
    """The cards of one header: values of the types that astropy gives them, the first card of a keyword counts.

    Cards whose keyword does not stand in the first eight columns, followed by ``= ``, are not seen, save HIERARCH
    ones; a card that no reader understands is as if it were not there.
    """

    __slots__ = ("_asked", "_content", "_index", "_long")

    def __init__(self, content: bytes) -> None:
        """Take cards of 80 bytes each, one behind the other, without END."""
        self._content = content
        self._long: fits.Header | None = None
        self._index: dict[bytes, list[int]] | None = None
        self._asked = 0

    def __getitem__(self, keyword: str) -> Any:
        found, value = self.find(keyword)
        if not found:
            raise KeyError(keyword)
        return value

    def find(self, keyword: str, *, last: bool = False) -> tuple[bool, Any]:
        """Whether a keyword is there, and the value of its first (or last) card that can be understood."""
        if len(keyword) > _LONG or " " in keyword:
            return self._find_long(keyword)
        for place in self._places(keyword, last=last):
            understood, value = _parse(self._content, place)
            if understood:
                return True, value
        return False, None

    def _places(self, keyword: str, *, last: bool) -> Iterable[int]:
        """Where the cards of a keyword stand."""
        if self._index is None:
            self._asked += 1
            if self._asked <= _SOME:
                return _searched(self._content, f"{keyword:<8}= ".encode(), last=last)
            self._index = _indexed(self._content)
        places = self._index.get(f"{keyword:<8}".encode(), ())
        return reversed(places) if last else places

    def _find_long(self, keyword: str) -> tuple[bool, Any]:
        if self._long is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", fits.verify.VerifyWarning)
                self._long = fits.Header.fromstring(self._content)
        try:
            return True, self._long[keyword]
        except (KeyError, fits.VerifyError):
            return False, None

    def __iter__(self) -> Iterator[str]:
        seen: set[str] = set()
        for place in range(0, len(self._content), CARD):
            card = self._content[place : place + CARD]
            keyword = card[:8].decode("latin-1").rstrip()
            if card[8:10] == b"= " and keyword not in seen:
                seen.add(keyword)
                yield keyword

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def content(self) -> bytes:
        """The cards as they stand in the file."""
        return self._content

    def to_header(self) -> fits.Header:
        """The same as astropy's header; takes its time."""
        return fits.Header.fromstring(self._content)


def _searched(content: bytes, start: bytes, *, last: bool) -> Iterator[int]:
    """Places of the cards that start like this, found by looking through all of the bytes."""
    place = content.rfind(start) if last else content.find(start)
    while place >= 0:
        if place % CARD == 0:
            yield place
        place = content.rfind(start, 0, place + len(start) - 1) if last else content.find(start, place + 1)


def _indexed(content: bytes) -> dict[bytes, list[int]]:
    """Places of all cards that have a value, by the eight bytes of their keyword."""
    index: dict[bytes, list[int]] = {}
    for place in range(0, len(content), CARD):
        if content[place + 8 : place + 10] == b"= ":
            index.setdefault(content[place : place + 8], []).append(place)
    return index


def _parse(content: bytes, place: int) -> tuple[bool, Any]:
    """Whether a card is understood, and its value."""
    text = content[place + 10 : place + CARD].decode("latin-1")
    if found := _REAL.match(text):
        if whole := _WHOLE.match(text):
            return True, int(whole[1])
        return True, float(found[1].replace("D", "E").replace("d", "e"))
    if found := _LOGICAL.match(text):
        return True, found[1] == "T"
    found = _TEXT.match(text)
    if found and not found[1].rstrip().endswith("&"):
        return True, found[1].replace("''", "'").rstrip()
    return _parse_rare(content, place)


def _parse_rare(content: bytes, place: int) -> tuple[bool, Any]:
    """Long strings, complex numbers, no value, what is not as it should be: as astropy has it."""
    end = place + CARD
    while content[end : end + 8] == b"CONTINUE":
        end += CARD
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", fits.verify.VerifyWarning)
            value = fits.Card.fromstring(content[place:end]).value
            return True, None if isinstance(value, fits.card.Undefined) else value
    except (fits.VerifyError, ValueError):
        return False, None


class CompressedCards(Mapping[str, Any]):
    """Cards of a tile-compressed image as those of the image: what the table needs for itself is not seen."""

    __slots__ = ("table",)

    def __init__(self, table: Cards) -> None:
        self.table = table

    def __getitem__(self, keyword: str) -> Any:
        found, value = self.find(keyword)
        if not found:
            raise KeyError(keyword)
        return value

    def find(self, keyword: str, *, last: bool = False) -> tuple[bool, Any]:
        """See `Cards.find`."""
        if keyword == "BITPIX" or keyword.startswith("NAXIS"):
            keyword = f"Z{keyword}"
        found, value = self.table.find(keyword, last=last)
        if keyword == "EXTNAME" and value == "COMPRESSED_IMAGE":
            return False, None
        return found, value

    def __iter__(self) -> Iterator[str]:
        return iter(self.table)

    def __len__(self) -> int:
        return len(self.table)


class MergedCards(Mapping[str, Any]):
    """Cards of the primary header, overridden by those of the extension: `frame.merged_header`, read lazily."""

    __slots__ = ("_extension", "_primary")

    def __init__(self, primary: Cards | CompressedCards, extension: Cards | CompressedCards) -> None:
        self._primary, self._extension = primary, extension

    def __getitem__(self, keyword: str) -> Any:
        if keyword in _NOT_INHERITED:
            raise KeyError(keyword)
        # The last card of a keyword counts here: each replaces the one before when headers are merged.
        found, value = self._extension.find(keyword, last=True)
        if not found and not keyword.startswith(("NAXIS", "BITPIX")):
            found, value = self._primary.find(keyword, last=True)
        if not found:
            raise KeyError(keyword)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(k for k in (*self._primary, *self._extension) if k in self))

    def __len__(self) -> int:
        return sum(1 for _ in self)
