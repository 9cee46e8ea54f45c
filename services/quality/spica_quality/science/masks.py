"""Which pixels are not to be trusted, and why: one bit per reason."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from spica_imaging.frame import Section
from spica_imaging.stats import robust_sigma

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
    """Far below the sky: dead or cold pixels, shadows."""
    COLUMN: Final = np.uint16(16)
    """In a column that stands out from its neighbours."""
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


UNUSABLE: Final = (
    Bit.OUTSIDE | Bit.NO_VALUE | Bit.DEAD | Bit.COLUMN | Bit.COSMIC | Bit.BLEED | Bit.TRAIL | Bit.MASKED
)
"""Pixels without a usable value; saturated ones still have a meaning for detection."""

DEAD_SIGMA = 8.0
_ABSURD = 1e20
_COLUMN_BLOCK_ROWS = 256
_COLUMN_ROW_STEP = 4
_COLUMN_SIGMA = 8.0


def initial_flags(data: Pixels, section: Section, external_bad: Mask | None = None) -> Flags:
    """OUTSIDE and NO_VALUE: NaN, infinities, what `external_bad` says, and zeros that are no sky.

    Exactly zero is a value like any other where the sky is near zero (subtracted or coadded
    images). Where the sky is far from zero it is what pipelines write over masked pixels.
    """
    flags = np.full(data.shape, Bit.OUTSIDE, dtype=np.uint16)
    flags[section.slices] = 0
    # No detector counts this far; such numbers would drown all sums.
    with np.errstate(invalid="ignore"):
        flags[~(np.abs(data) < _ABSURD)] |= Bit.NO_VALUE
    if external_bad is not None:
        flags[external_bad] |= Bit.NO_VALUE
    zero = data == 0.0
    if zero.any():
        rest = data[::3, ::3][(flags[::3, ::3] == 0) & ~zero[::3, ::3]]
        if rest.size:
            low, middle = np.percentile(rest, [2.0, 50.0])
            if low > 0.25 * middle > 0:
                flags[zero] |= Bit.NO_VALUE
    return flags


def saturation_level(data: Pixels, nominal: float, least_pixels: int = 10) -> float:
    """The level at which pixels saturate: the nominal one, or a lower one that shows in the data.

    Headers state levels that detectors do not reach (65535 where the pile-up is at 32,700). Many
    pixels of exactly the highest value, far above the sky, are such a pile-up.
    """
    highest = float(np.max(data, initial=-np.inf, where=np.isfinite(data)))
    if not np.isfinite(highest) or highest >= nominal:
        return nominal
    sky = float(np.nanmedian(data[::5, ::5]))
    piled = int(np.count_nonzero(data == highest))
    # On a blank frame all pixels are highest; that is no pile-up above anything.
    if piled >= least_pixels and highest > sky + 100.0 and piled < 0.2 * data.size:
        return highest
    return nominal


def saturated(data: Pixels, level: float, section: Section, grow_px: int = 1) -> tuple[Mask, int]:
    """Pixels at or above `level` with their neighbours (charge spills over); and how many without, in `section`."""
    with np.errstate(invalid="ignore"):
        core = data >= level
    count = int(np.count_nonzero(core[section.slices]))
    if grow_px and core.any():
        core = ndimage.binary_dilation(core, iterations=grow_px, structure=np.ones((3, 3), bool))
    return core, count


def dead(subtracted: Pixels, rms: Pixels) -> Mask:
    """Pixels far below the sky. Noise alone does this once in 10^15."""
    with np.errstate(invalid="ignore"):
        return np.asarray(subtracted < -DEAD_SIGMA * rms)


def bad_columns(subtracted: Pixels, flags: Flags, typical_rms: float) -> Mask:
    """Pieces of columns whose median differs from that of the columns beside them.

    The frame is cut into blocks of rows; in each, the median of every column (every fourth row) is
    compared with the median of the nine columns around it. Limit: 8 standard errors of the median,
    which is 1.25 sigma of a pixel for full blocks. The error is taken from the column's own spread
    where that is larger: columns through a bright star's halo differ for good reason.
    """
    ny, nx = subtracted.shape
    mask = np.zeros((ny, nx), dtype=np.bool_)
    if typical_rms <= 0 or nx < 16:
        return mask
    sky = np.where(flags & (Bit.OUTSIDE | Bit.NO_VALUE), np.float32(np.nan), subtracted)
    for top in range(0, ny, _COLUMN_BLOCK_ROWS):
        rows = slice(top, min(top + _COLUMN_BLOCK_ROWS, ny))
        sample = sky[rows][::_COLUMN_ROW_STEP]
        if sample.shape[0] < 16:
            continue
        medians = _column_medians(sample)
        around = ndimage.median_filter(medians, size=9, mode="nearest")
        limit = _COLUMN_SIGMA * 1.2533 / np.sqrt(sample.shape[0])
        with np.errstate(invalid="ignore"):
            suspects = np.flatnonzero(np.abs(medians - around) > limit * typical_rms)
        for column in suspects:
            spread = max(robust_sigma(sample[:, column]), typical_rms)
            if abs(float(medians[column] - around[column])) > limit * spread:
                mask[rows, column] = True
    return mask


def _column_medians(sample: Pixels) -> NDArray[np.float32]:
    empty = ~np.isfinite(sample).any(axis=0)
    if not np.isnan(sample).any():
        return np.asarray(np.median(sample, axis=0))
    filled = np.where(empty, np.float32(0), sample)
    medians: NDArray[np.float32] = np.nanmedian(filled, axis=0)
    return medians


def weight_map(rms: Pixels, flags: Flags) -> Pixels:
    """1 / rms² where the pixel is usable, else 0; in units of 1 / (unit of rms)²."""
    usable = (flags == 0) & (rms > 0)
    return np.divide(np.float32(1.0), rms * rms, out=np.zeros_like(rms), where=usable)
