"""Rectangles of pixels, and how headers name them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SECTION = re.compile(r"\[\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*\]")


@dataclass(frozen=True, slots=True)
class Section:
    """A rectangle of pixels, zero-based and half-open."""

    x0: int
    x1: int
    y0: int
    y1: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index into an array of shape (ny, nx)."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)


def parse_section(text: str, nx: int, ny: int) -> Section | None:
    """Read an IRAF section such as ``[33:2080,1:4612]`` (one-based, inclusive); None if it does not fit."""
    found = _SECTION.fullmatch(text.strip())
    if found is None:
        return None
    x_first, x_last, y_first, y_last = (int(number) for number in found.groups())
    if not (1 <= x_first <= x_last <= nx and 1 <= y_first <= y_last <= ny):
        return None
    return Section(x_first - 1, x_last, y_first - 1, y_last)
