"""The bits of the flag map, and the kinds of arrays that go with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]
Flags = NDArray[np.uint16]
Mask = NDArray[np.bool_]


class Bit:
    """Bits of the flag map."""

    OUTSIDE: Final = np.uint16(1)
    """Not sky: overscan, or outside the data section."""
    NO_VALUE: Final = np.uint16(2)
    """NaN, or a value that detectors or earlier steps put where they had none."""
    SATURATED: Final = np.uint16(4)
    DEAD: Final = np.uint16(8)
    """Far below the sky, or of an amplifier that sees nothing: dead or cold pixels, shadows."""
    COLUMN: Final = np.uint16(16)
    """In a column, or a piece of one, that stands out from its neighbours."""
    COSMIC: Final = np.uint16(32)
    """Sharper than any star: cosmic ray or hot pixel."""
    BLEED: Final = np.uint16(64)
    """Charge that ran over from saturated pixels along the columns."""
    TRAIL: Final = np.uint16(128)
    """Trail of a satellite, an aircraft or a meteor."""
    MASKED: Final = np.uint16(256)
    """Bad in the instrument's own mask, or without light in its flat field."""
    CCD_OUT: Final = np.uint16(512)
    """The whole CCD was judged unfit. Only in the written map."""


MEANINGS: Final[tuple[tuple[int, str, str], ...]] = (
    (0, "OUTSIDE", "not sky: overscan"),
    (1, "NO_VALUE", "NaN, or no value"),
    (2, "SATURATED", "saturated, or beside it"),
    (3, "DEAD", "far below the sky"),
    (4, "COLUMN", "bad column"),
    (5, "COSMIC", "cosmic ray, hot pixel"),
    (6, "BLEED", "charge bled along column"),
    (7, "TRAIL", "satellite, aircraft"),
    (8, "MASKED", "instrument mask or flat"),
    (9, "CCD_OUT", "CCD judged unfit"),
)
"""Number of the bit, its name, and what it means in a few words, as headers of flag maps tell it."""

UNUSABLE: Final = (
    Bit.OUTSIDE | Bit.NO_VALUE | Bit.DEAD | Bit.COLUMN | Bit.COSMIC | Bit.BLEED | Bit.TRAIL | Bit.MASKED
)
"""Pixels without a usable value; saturated ones still have a meaning for detection."""

BAND_ROWS = 128
"""Rows that are worked on at a time where something has to be evaluated per pixel."""


class Noise(Protocol):
    """What is asked of a sky: the noise of a pixel, rows at a time."""

    @property
    def median_rms(self) -> float:
        """The frame's typical noise."""

    def rms_rows(self, y0: int, y1: int) -> Pixels:
        """Noise of the rows from y0 to y1, shape (y1 - y0, nx)."""


def bands(ny: int, rows: int = BAND_ROWS) -> Iterator[tuple[int, int]]:
    """Ranges of rows that cover a frame of `ny`."""
    for y0 in range(0, ny, rows):
        yield y0, min(y0 + rows, ny)
