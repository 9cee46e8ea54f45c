"""Charge that ran over from saturated pixels along the readout direction.

A full pixel gives its charge to those before and behind it in its column. What is filled to the brim shows as a
streak of saturated pixels, longer than the star is wide; where the streak ends, the last pixels are less than
full. Anti-blooming gates and slow readout leave streaks below saturation, too.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit
from spica_quality.science.flags import Bit

Pixels = NDArray[np.float32]
Flags = NDArray[np.uint16]
Readout = Literal["columns", "rows"]

LONGER = 1.5
"""Saturated pixels further from the middle of their star than this times its half width along the rows have bled."""

_SIGMA = 8.0
_LEAST_SHARE = 0.5
_GAP_PX = 2
_REFERENCE_PX = 3


def mark_bleeding(
    data: Pixels, flags: Flags, level: float, noise: float, *, readout: Readout = "columns"
) -> int:
    """Mark bled charge BLEED, with one pixel more to either side. Returns how many pixels have bled, without those.

    Two kinds: saturated pixels that lie further along the column than a round star reaches; and pixels that go on from a
    streak's end, below saturation, as long as they stand out from the columns three pixels to the left and to the
    right by 8 sigma and half their own height.

    Args:
        data: pixels in adu, with or without the sky, shape (ny, nx).
        flags: flag map, with `mark_saturated` done.
        level: saturation level in the same units.
        noise: noise of a pixel of sky.
        readout: which way charge is moved on the detector.

    """
    if readout == "rows":
        data, flags = data.T, flags.T
    if not noise > 0:
        return 0
    return int(
        _mark_bleeding(
            data, flags, float(np.float32(level)), _SIGMA * noise, int(Bit.BLEED), int(Bit.OUTSIDE)
        )
    )


@jit
def _half_width(data: Pixels, y: int, x: int, level: float) -> int:
    """Half the length of the run of saturated pixels along the row through (y, x)."""
    nx = data.shape[1]
    left, right = x, x
    while left > 0 and data[y, left - 1] >= level:
        left -= 1
    while right < nx - 1 and data[y, right + 1] >= level:
        right += 1
    return (right - left + 2) // 2


@jit
def _mark(flags: Flags, y: int, x: int, bit: int, outside: int) -> int:
    """Mark a pixel and those beside it; 1 if the pixel itself is new."""
    nx = flags.shape[1]
    new = 0 if flags[y, x] & (bit | outside) else 1
    for i in range(max(x - 1, 0), min(x + 2, nx)):
        if not flags[y, i] & outside:
            flags[y, i] |= bit
    return new


@jit
def _stands_out(data: Pixels, y: int, x: int, limit: float) -> bool:
    """Whether a pixel stands out from both sides: by the limit, and by half its height above the sky."""
    nx = data.shape[1]
    left, right = max(x - _REFERENCE_PX, 0), min(x + _REFERENCE_PX, nx - 1)
    a, b, p = data[y, left], data[y, right], data[y, x]
    if not (np.isfinite(a) and np.isfinite(b) and np.isfinite(p)):
        return False
    beside = max(a, b)
    return bool(p - beside > limit and p - beside > _LEAST_SHARE * abs(beside))


@jit
def _middle_and_reach(data: Pixels, first: int, last: int, x: int, level: float) -> tuple[float, float]:
    """Of a run of full pixels along a column: the row where its star is widest, and how far a round star would reach."""
    widest, begin, end = 0, first, first
    for row in range(first, last):
        half = _half_width(data, row, x, level)
        if half > widest:
            widest, begin = half, row
        if half == widest:
            end = row
    return 0.5 * (begin + end), LONGER * widest + 1.0


@jit
def _mark_onwards(
    data: Pixels, flags: Flags, row: int, x: int, step: int, limit: float, bit: int, outside: int
) -> int:
    """Mark what goes on from the end of a streak, below saturation."""
    ny = data.shape[0]
    count, gap = 0, 0
    while 0 <= row < ny and gap <= _GAP_PX:
        gap += 1
        if not flags[row, x] & outside and _stands_out(data, row, x, limit):
            count += _mark(flags, row, x, bit, outside)
            gap = 0
        row += step
    return count


@jit
def _mark_column(
    data: Pixels, flags: Flags, x: int, level: float, limit: float, bit: int, outside: int
) -> int:
    ny = data.shape[0]
    count, y = 0, 0
    while y < ny:
        first = y
        while y < ny and data[y, x] >= level and not flags[y, x] & outside:
            y += 1
        if y == first:
            y += 1
            continue
        middle, reach = _middle_and_reach(data, first, y, x, level)
        if y - first <= 2.0 * reach + 1.0:
            # As long as wide: a saturated star that has kept its charge.
            continue
        for row in range(first, y):
            if abs(row - middle) > reach:
                count += _mark(flags, row, x, bit, outside)
        count += _mark_onwards(data, flags, first - 1, x, -1, limit, bit, outside)
        count += _mark_onwards(data, flags, y, x, 1, limit, bit, outside)
    return count


@jit
def _mark_bleeding(data: Pixels, flags: Flags, level: float, limit: float, bit: int, outside: int) -> int:
    ny, nx = data.shape
    # Columns are long ways through memory: only those are gone along that have something.
    full = np.zeros(nx, np.bool_)
    for y in range(ny):
        for x in range(nx):
            full[x] |= data[y, x] >= level
    count = 0
    for x in range(nx):
        if full[x]:
            count += _mark_column(data, flags, x, level, limit, bit, outside)
    return count
