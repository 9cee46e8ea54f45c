"""The table behind a tile-compressed image: where each tile's bytes stand (FITS standard 4.0, sections 7.3 and 10.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_FIELDS = 999

_WIDTHS = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
TYPES = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
_FORM = re.compile(r"\s*(\d*)([A-Z])")
_VARIABLE = re.compile(r"\s*[01]?[PQ]([A-Z])")


class TileError(ValueError):
    """A tile, or what the table says of the tiles, cannot be decoded."""


@dataclass(frozen=True, slots=True)
class Column:
    """A variable-length column: where each row's bytes stand in the data unit."""

    letter: str
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    """In bytes."""


class Table:
    """The columns of a binary table, by name."""

    def __init__(self, header: Mapping[str, Any], data: NDArray[np.uint8], rows: int) -> None:
        self._header, self._data, self._rows = header, data, rows
        self._width = whole_number(header, "NAXIS1")
        self._heap = whole_number(header, "THEAP", self._width * rows)
        if self._width * rows > len(data):
            raise TileError("the table is longer than its data")
        self._places: dict[str, tuple[int, str]] = {}
        place, fields = 0, whole_number(header, "TFIELDS")
        if fields > MAX_FIELDS:
            raise TileError(f"TFIELDS is {fields}")
        for number in range(1, fields + 1):
            form = str(header.get(f"TFORM{number}", ""))
            found = _FORM.match(form)
            if found is None or (found[2] not in _WIDTHS and found[2] != "X"):
                raise TileError(f"TFORM{number} is {form!r}")
            repeat = int(found[1] or 1)
            self._places[str(header.get(f"TTYPE{number}", "")).strip().upper()] = (place, form)
            place += -(-repeat // 8) if found[2] == "X" else repeat * _WIDTHS[found[2]]
        if place != self._width:
            raise TileError(f"columns of {place} bytes do not make up rows of {self._width}")

    def _view(self, place: int, kind: str, count: int) -> NDArray[Any]:
        size = np.dtype(kind).itemsize
        shape = (self._rows, count)
        return np.ndarray(shape, kind, self._data, place, (self._width, size))

    def variable(self, name: str) -> Column | None:
        """Find a variable-length column; its parts must lie within the data."""
        if name not in self._places:
            return None
        place, form = self._places[name]
        found = _VARIABLE.match(form)
        if found is None or found[1] not in TYPES:
            raise TileError(f"column {name} has format {form!r}")
        words = self._view(place, ">i8" if "Q" in form else ">i4", 2).astype(np.int64)
        size = np.dtype(TYPES[found[1]]).itemsize
        lengths, starts = words[:, 0], words[:, 1]
        room = len(self._data) - self._heap
        outside = (lengths < 0) | (starts < 0) | (lengths > room // size) | (starts > room - lengths * size)
        if outside.any():
            raise TileError(f"tile {int(np.flatnonzero(outside)[0]) + 1} lies outside of the data")
        return Column(found[1], np.ascontiguousarray(starts + self._heap), lengths * size)

    def numbers(self, name: str) -> NDArray[np.float64] | None:
        """Numbers per tile from a column, or the same for all from a keyword."""
        if name in self._places:
            place, form = self._places[name]
            found = _FORM.match(form)
            if found is None or found[2] not in TYPES:
                raise TileError(f"column {name} has format {form!r}")
            return self._view(place, TYPES[found[2]], 1)[:, 0].astype(np.float64)
        value = self._header.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TileError(f"{name} is {value!r}")
        return np.full(self._rows, float(value))

    def blanks(self) -> NDArray[np.int64]:
        """What means no value, per tile."""
        found = self.numbers("ZBLANK")
        if found is None:
            return np.full(self._rows, np.iinfo(np.int32).min, np.int64)
        # As 32-bit integers, which quantized pixels are; anything else is no pixel's value.
        found = np.where(abs(found) <= 2.0**31, found, 2.0**32)
        return found.astype(np.int64)


def whole_number(header: Mapping[str, Any], keyword: str, default: int | None = None) -> int:
    """Value of a keyword that must be a whole number, not below zero. Raises `TileError`."""
    value = header.get(keyword, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TileError(f"{keyword} is {value}")
    return value
