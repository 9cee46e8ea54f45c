"""Marking of pixels that are not to be trusted: one bit per reason.

All marking is done in place, in the flag map, by kernels that look at some rows at a time: no map of the frame's
size is made besides the flags. The order matters: `initial_flags`, the instrument's mask, `mark_saturated`,
`bleeding.mark_bleeding`, `detector.look_at`; then, on pixels less the sky, `mark_dead`, `mark_bad_columns`,
`cosmics.mark_cosmics`, `trails.mark_trails`.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy import ndimage
from spica_imaging.sections import Section

from spica_quality.science._jit import jit
from spica_quality.science.flags import UNUSABLE, Bit, Flags, Mask, Noise, Pixels, bands

DEAD_SIGMA = 8.0
_ABSURD = np.float32(1e20)
_MANY_PIXELS = 2_000_000
_COLUMN_BLOCK_ROWS = 64
_COLUMN_CLIP = 2.5
_LEAST_COLUMN_PIXELS = 16
_COLUMN_SIGMA = 8.0
_COLUMN_MEDIAN_OVER = 9
_COLUMN_WINDOWS = (4, 8, 16, 32)


def initial_flags(data: Pixels, section: Section, external_bad: Mask | None = None) -> Flags:
    """OUTSIDE and NO_VALUE: NaN, infinities, what `external_bad` says, and zeros that are no sky.

    Exactly zero is a value like any other where the sky is near zero (subtracted or coadded
    images). Where the sky is far from zero it is what pipelines write over masked pixels.
    """
    flags = np.full(data.shape, Bit.OUTSIDE, dtype=np.uint16)
    flags[section.slices] = 0
    if external_bad is not None:
        flags[external_bad] |= Bit.NO_VALUE
    if _mark_without_value(data, flags, int(Bit.NO_VALUE)):
        step = 3 if data.size < _MANY_PIXELS else 7
        part, seen = data[::step, ::step], flags[::step, ::step] == 0
        rest = part[seen & (part != 0.0)]
        if rest.size:
            low, middle = np.percentile(rest, [2.0, 50.0])
            if low > 0.25 * middle > 0:
                _mark_zeros(data, flags, int(Bit.NO_VALUE))
    return flags


@jit
def _mark_without_value(data: Pixels, flags: Flags, bit: int) -> bool:
    """Mark NaN and numbers that no detector counts to, which would drown all sums; whether there are unmarked zeros."""
    zeros = False
    for j in range(data.shape[0]):
        # First a look that the compiler makes vectors of: most rows have none.
        absurd = zero = 0
        for i in range(data.shape[1]):
            absurd += 0 if abs(data[j, i]) < _ABSURD else 1
            zero += 1 if (data[j, i] == np.float32(0.0)) & (flags[j, i] == 0) else 0
        zeros |= zero > 0
        if absurd:
            for i in range(data.shape[1]):
                if not abs(data[j, i]) < _ABSURD:
                    flags[j, i] |= bit
    return zeros


@jit
def _mark_zeros(data: Pixels, flags: Flags, bit: int) -> None:
    for j in range(data.shape[0]):
        for i in range(data.shape[1]):
            if data[j, i] == 0.0:
                flags[j, i] |= bit


# ---- saturation ----


def saturation_level(data: Pixels, nominal: float, least_pixels: int = 10) -> float:
    """The level at which pixels saturate: the nominal one, or a lower one that shows in the data.

    Headers state levels that detectors do not reach (65535 where the pile-up is at 32,700). Many
    pixels of exactly the highest value, far above the sky, are such a pile-up.
    """
    highest, piled = _highest(data)
    if not np.isfinite(highest) or highest >= nominal:
        return nominal
    # On a blank frame all pixels are highest; that is no pile-up above anything.
    if least_pixels <= piled < 0.2 * data.size and highest > float(np.nanmedian(data[::5, ::5])) + 100.0:
        return highest
    return nominal


@jit
def _highest(data: Pixels) -> tuple[float, int]:
    """Highest finite value, and how many pixels have it; minus infinity where there is none."""
    highest, piled = np.float32(-np.inf), 0
    for j in range(data.shape[0]):
        reach = 0
        for i in range(data.shape[1]):
            reach += 1 if data[j, i] >= highest else 0
        if not reach:
            continue
        for i in range(data.shape[1]):
            value = data[j, i]
            if value < highest or not np.isfinite(value):
                continue
            if value > highest:
                highest, piled = value, 0
            piled += 1
    return float(highest), piled


def mark_saturated(data: Pixels, flags: Flags, level: float) -> int:
    """Mark pixels at or above `level`, and their eight neighbours: charge spills over.

    Pixels that have another flag already keep it alone. Returns how many pixels are at the level, without
    neighbours, and within the frame's section.
    """
    return int(_mark_saturated(data, flags, float(np.float32(level)), int(Bit.SATURATED), int(Bit.OUTSIDE)))


@jit
def _mark_saturated(data: Pixels, flags: Flags, level: float, bit: int, outside: int) -> int:
    ny, nx = data.shape
    count, least = 0, np.float32(level)
    for j in range(ny):
        reach = 0
        for i in range(nx):
            reach += 1 if data[j, i] >= least else 0
        if not reach:
            continue
        for i in range(nx):
            if not data[j, i] >= least:
                continue
            if not flags[j, i] & outside:
                count += 1
            for jj in range(max(j - 1, 0), min(j + 2, ny)):
                for ii in range(max(i - 1, 0), min(i + 2, nx)):
                    if flags[jj, ii] == 0:
                        flags[jj, ii] = bit
    return count


# ---- pixels and columns that stand out, on pixels less the sky ----


def mark_dead(data: Pixels, flags: Flags, sky: Noise) -> int:
    """Mark pixels far below the sky; noise alone does this once in 10^15. Returns how many.

    `data`: less the sky, shape (ny, nx).
    """
    count = 0
    for y0, y1 in bands(data.shape[0]):
        count += _mark_dead(data[y0:y1], flags[y0:y1], sky.rms_rows(y0, y1), int(Bit.DEAD), int(UNUSABLE))
    return count


@jit
def _mark_dead(data: Pixels, flags: Flags, rms: Pixels, bit: int, unusable: int) -> int:
    limit, count = np.float32(-DEAD_SIGMA), 0
    for j in range(data.shape[0]):
        low = 0
        for i in range(data.shape[1]):
            low += 1 if data[j, i] < limit * rms[j, i] else 0
        if not low:
            continue
        for i in range(data.shape[1]):
            if data[j, i] < limit * rms[j, i] and not flags[j, i] & unusable:
                flags[j, i] |= bit
                count += 1
    return count


def mark_bad_columns(data: Pixels, flags: Flags, typical_rms: float) -> int:
    """Mark columns, or pieces of columns, that are off as a whole from the columns beside them.

    The frame is cut into blocks of 64 rows; in each, the mean of every column, of pixels clipped to ±2.5 sigma so that
    stars do not matter, is compared with the median of these means in the nine columns around it. Limit: 8
    standard errors, which is one sigma of a pixel for one block. Columns that are off by less, but all
    along, show in the medians over 4 to 32 and over all blocks: down to 0.15 sigma over 4,600 rows. Errors
    are taken from the column's own spread where that is larger: columns through a bright star's halo
    differ for good reason. Blocks at the ends of a marked piece are marked with it if they are off the same way by
    half the limit.

    `data`: less the sky, shape (ny, nx). Returns how many pixels were marked.
    """
    ny, nx = data.shape
    if not typical_rms > 0 or nx < 2 * _COLUMN_MEDIAN_OVER:
        return 0
    starts = np.arange(0, ny, _COLUMN_BLOCK_ROWS)
    if len(starts) > 1 and ny - starts[-1] < _COLUMN_BLOCK_ROWS // 2:
        starts = starts[:-1]
    edges = np.append(starts, ny)
    offset = np.empty((len(starts), nx), np.float32)
    error = np.empty_like(offset)
    for block, (y0, y1) in enumerate(pairwise(edges)):
        _column_means(data[y0:y1], flags[y0:y1], 1.0 / typical_rms, offset[block], error[block])
        offset[block] -= _running_median(offset[block])
    bad = _bad_blocks(offset, error)
    count = 0
    for block, column in np.argwhere(bad):
        piece = flags[edges[block] : edges[block + 1], column]
        count += int(np.count_nonzero((piece & UNUSABLE) == 0))
        piece |= Bit.COLUMN
    return count


def _running_median(values: Pixels) -> Pixels:
    filled = np.where(np.isfinite(values), values, np.float32(0.0))
    return np.asarray(ndimage.median_filter(filled, size=_COLUMN_MEDIAN_OVER, mode="nearest"))


@jit
def _column_means(data: Pixels, flags: Flags, per_sigma: float, mean: Pixels, error: Pixels) -> None:
    """Mean of each column's clipped pixels in sigma, and its error; NaN where fewer than 16 pixels are usable."""
    ny, nx = data.shape
    scale, clip, zero, one = np.float32(per_sigma), np.float32(_COLUMN_CLIP), np.float32(0), np.float32(1)
    total, squares, n = np.zeros(nx, np.float32), np.zeros(nx, np.float32), np.zeros(nx, np.float32)
    for j in range(ny):
        for i in range(nx):
            value = min(max(data[j, i] * scale, -clip), clip)
            good = one if flags[j, i] == 0 and not np.isnan(value) else zero
            value = value if good > zero else zero
            total[i] += value
            squares[i] += value * value
            n[i] += good
    for i in range(nx):
        if n[i] < _LEAST_COLUMN_PIXELS:
            mean[i] = error[i] = np.nan
            continue
        mean[i] = total[i] / n[i]
        error[i] = np.sqrt(max(squares[i] / n[i] - mean[i] * mean[i], one) / n[i])


def _bad_blocks(offset: Pixels, error: Pixels) -> Mask:
    """Blocks of columns that are off: alone, or together with those above and below. Shape (blocks, columns)."""
    n = len(offset)
    with np.errstate(invalid="ignore"):
        bad = np.abs(offset) > _COLUMN_SIGMA * error
        for height in {*(size for size in _COLUMN_WINDOWS if size < n), n} - {1, 2, 3}:
            for first in sorted({*range(0, n - height + 1, max(height // 2, 1)), n - height}):
                rows = slice(first, first + height)
                bad[rows] |= _off_together(offset[rows], error[rows])
        near = np.abs(offset) > 0.5 * _COLUMN_SIGMA * error
        for _ in range(2):
            for here, beside in ((np.s_[1:], np.s_[:-1]), (np.s_[:-1], np.s_[1:])):
                bad[here] |= bad[beside] & near[here] & (np.sign(offset[here]) == np.sign(offset[beside]))
    return np.asarray(bad)


def _off_together(offset: Pixels, error: Pixels) -> Mask:
    """Columns that are off in most of these blocks, in the same way; shape (columns,)."""
    known = np.isfinite(offset)
    n = known.sum(axis=0)
    filled = np.where(known, offset, np.float32(np.inf))
    ordered = np.sort(filled, axis=0)
    last = np.maximum(n - 1, 0)
    across = np.arange(offset.shape[1])
    middle, low, high = (ordered[(share * last).astype(np.intp), across] for share in (0.5, 0.1587, 0.8413))
    expected = np.nanmedian(np.where(known, error, np.inf), axis=0)
    with np.errstate(invalid="ignore"):
        limit = _COLUMN_SIGMA * 1.2533 * np.maximum(expected, 0.5 * (high - low)) / np.sqrt(np.maximum(n, 1))
        return np.asarray((n >= max(4, 0.5 * len(offset))) & (np.abs(middle) > limit) & (low * high > 0))
