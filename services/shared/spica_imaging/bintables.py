"""Plain binary tables of FITS files, read from their bytes: for catalogues of many small tables.

A general reader spends a millisecond per card and column on what these tables do not have: scaled columns, heaps,
strings of variable length. What is met of those is refused here, and left to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_BLOCK, _CARD = 2880, 80
_FORMAT = re.compile(r"^(\d*)([LBIJKEDA])$")
_TYPES = {"L": "u1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
_MOST_HEADER_BLOCKS = 4000


class NotPlainError(ValueError):
    """The file, or one of its tables, is more than this reader knows."""


@dataclass(frozen=True, slots=True)
class PlainTable:
    """One binary table: its name and its rows, still in the file's byte order."""

    name: str
    rows: NDArray[Any]
    """Structured, shape (n,); fields of type 'A' are bytes."""

    def columns(self, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, NDArray[Any]]:
        """Columns in native byte order, owned; those of `wanted` names only."""
        return {
            name: np.ascontiguousarray(self.rows[name].astype(self.rows[name].dtype.newbyteorder("=")))
            for name in self.rows.dtype.names or ()
            if wanted(name)
        }


def plain_tables(path: Path) -> Iterator[PlainTable]:
    """All extensions of a FITS file, which must be binary tables. Raises `NotPlainError`, `OSError`."""
    with path.open("rb") as file:
        cards = _cards(file)
        if cards is None or _number(cards, "NAXIS") != 0:
            raise NotPlainError("its primary array is not empty")
        while (cards := _cards(file)) is not None:
            yield _table(cards, file)


def _cards(file: BinaryIO) -> dict[str, str] | None:
    """Keywords and unparsed values of the next header; None at the end of the file."""
    cards: dict[str, str] = {}
    for number in range(_MOST_HEADER_BLOCKS):
        block = file.read(_BLOCK)
        if not block and number == 0:
            return None
        if len(block) < _BLOCK:
            raise NotPlainError("it ends within a header")
        for start in range(0, _BLOCK, _CARD):
            card = block[start : start + _CARD]
            if card[8:10] == b"= ":
                cards[card[:8].decode("latin-1").rstrip()] = card[10:].decode("latin-1")
            elif card.rstrip() == b"END":
                return cards
    raise NotPlainError("a header has no end")


def _number(cards: dict[str, str], keyword: str) -> int:
    try:
        return int(cards[keyword].split("/", 1)[0])
    except (KeyError, ValueError) as error:
        raise NotPlainError(f"{keyword} is not there or no number") from error


def _text(cards: dict[str, str], keyword: str) -> str:
    value = cards.get(keyword, "").lstrip()
    end = value.find("'", 1)
    if not value.startswith("'") or end < 0 or value[end : end + 2] == "''":
        raise NotPlainError(f"{keyword} is not there or not plain")
    return value[1:end].rstrip()


def _table(cards: dict[str, str], file: BinaryIO) -> PlainTable:
    if _text(cards, "XTENSION") != "BINTABLE" or _number(cards, "PCOUNT") != 0:
        raise NotPlainError("an extension is no plain binary table")
    width, n = _number(cards, "NAXIS1"), _number(cards, "NAXIS2")
    kind = np.dtype([_field(cards, number) for number in range(1, _number(cards, "TFIELDS") + 1)])
    if kind.itemsize != width:
        raise NotPlainError("its columns do not fill its rows")
    content = file.read(width * n)
    if len(content) < width * n:
        raise NotPlainError("it ends within a table")
    file.seek(-(width * n) % _BLOCK, 1)
    return PlainTable(_text(cards, "EXTNAME"), np.frombuffer(content, kind, n))


def _field(cards: dict[str, str], number: int) -> tuple[str, str, tuple[int, ...]]:
    if any(f"{keyword}{number}" in cards for keyword in ("TSCAL", "TZERO", "TNULL")):
        raise NotPlainError("a column is scaled")
    name, found = _text(cards, f"TTYPE{number}"), _FORMAT.match(_text(cards, f"TFORM{number}"))
    if found is None:
        raise NotPlainError(f"column {name} is of another kind")
    count, letter = int(found[1] or 1), found[2]
    if letter == "A":
        return name, f"S{count}", ()
    if letter == "L":
        raise NotPlainError(f"column {name} is logical")
    return name, _TYPES[letter], _shape(cards, number, count)


def _shape(cards: dict[str, str], number: int, count: int) -> tuple[int, ...]:
    if f"TDIM{number}" not in cards:
        return () if count == 1 else (count,)
    try:
        axes = tuple(int(size) for size in _text(cards, f"TDIM{number}").strip("()").split(","))
    except ValueError as error:
        raise NotPlainError(f"TDIM{number} is not plain") from error
    if np.prod(axes) != count:
        raise NotPlainError(f"TDIM{number} does not fit")
    return axes[::-1]
