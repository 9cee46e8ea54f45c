"""Level and noise of boxes of pixels, from clipped histograms.

The method is source-extractor's (Bertin & Arnouts 1996, A&AS 117, 393, section 3): in each box the histogram is clipped
at ±3 σ about its median until that changes nothing more; the level is the mode, estimated as 2.5 median - 1.5 mean, or
the median where the two differ by more than 0.3 σ, as in a box that a galaxy fills. The histogram starts from a median
and a quantile, and whole numbers get bins of whole numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spica_imaging._jit import fast_kernel as jit

Pixels = NDArray[np.float32]
Flags = NDArray[np.uint16]
Ints = NDArray[np.int32]

LEAST_SHARE = 0.25
"""Of a box's pixels must be usable; else the box is filled from its neighbours."""

CLIP_SIGMA = 3.0

_BINS = 512
_HALF_RANGE = 6.0
_SAMPLE = 300


@jit
def measure_boxes(
    data: Pixels,
    flags: Flags,
    edges_y: NDArray[np.int64],
    edges_x: NDArray[np.int64],
    level: Pixels,
    rms: Pixels,
    least_share: float = LEAST_SHARE,
) -> None:
    """Level and noise of all boxes between the edges, NaN where fewer than `least_share` of the pixels are usable."""
    sample = np.empty(4 * _SAMPLE, np.float32)
    histogram = np.empty(_BINS + 2, np.int32)
    places = np.empty(data.shape[1], np.int32)
    for j in range(level.shape[0]):
        for i in range(level.shape[1]):
            level[j, i], rms[j, i] = _measure_box(
                data,
                flags,
                (edges_y[j], edges_y[j + 1], edges_x[i], edges_x[i + 1]),
                least_share,
                sample,
                places,
                histogram,
            )


@jit
def _measure_box(
    data: Pixels,
    flags: Flags,
    box: tuple[int, int, int, int],
    least_share: float,
    sample: Pixels,
    places: Ints,
    histogram: Ints,
) -> tuple[float, float]:
    """Level and noise of one box (y0, y1, x0, x1); NaN where too few pixels are usable."""
    y0, y1, x0, x1 = box
    ny, nx = y1 - y0, x1 - x0
    # A first look at some of the pixels tells where the histogram has to be.
    step = max(1, int(np.sqrt(ny * nx / _SAMPLE)))
    n = 0
    whole = True
    for j in range(step // 2, ny, step):
        # Shifted from row to row, so that no column is seen always or never.
        for i in range(j // step % step, nx, step):
            value = data[y0 + j, x0 + i]
            if flags[y0 + j, x0 + i] == 0 and value - value == 0.0 and n < sample.size:
                sample[n] = value
                n += 1
                whole = whole and value == np.rint(value)
    if n == 0:
        return np.nan, np.nan
    ordered = np.sort(sample[:n])
    middle = float(ordered[n // 2])
    # The lower side has no stars in it.
    sigma = middle - float(ordered[int(0.1587 * n)])
    if not sigma > 0.0:
        sigma = max(float(ordered[int(0.8413 * n)]) - middle, 1e-6 * abs(middle), 1e-30)
    result = np.nan, np.nan
    for _ in range(4):
        width = 2.0 * _HALF_RANGE * sigma / _BINS
        if whole and sigma < 1e6:
            width = max(1.0, np.ceil(width))
            start = np.floor(middle - 0.5 * _BINS * width) - 0.5
        else:
            start = middle - 0.5 * _BINS * width
        good = _histogram(data, flags, box, start, 1.0 / width, places, histogram)
        if good < max(least_share * ny * nx, 1.0):
            return np.nan, np.nan
        median, mean, spread = _clip(histogram)
        centre = start + width * median
        level = centre
        if abs(mean - median) < 0.3 * spread:
            level = start + width * (2.5 * median - 1.5 * mean)
        result = level, width * spread
        # Bins much too wide for what was found, or found at the rim: once more, there.
        off = abs(centre - middle) > 0.5 * _HALF_RANGE * sigma
        if spread * width > 0.3 * sigma and not off:
            break
        if width * spread <= 0.0 or (whole and width <= 1.0 and not off):
            break
        middle, sigma = centre, max(1.5 * spread * width, 2.0 * width)
    return result


@jit
def _histogram(
    data: Pixels,
    flags: Flags,
    box: tuple[int, int, int, int],
    start: float,
    per_width: float,
    places: Ints,
    histogram: Ints,
) -> int:
    """Count values into bins; returns how many pixels are usable, within the bins or not."""
    y0, y1, x0, x1 = box
    # Two more bins: for usable pixels beyond the range, and for all others.
    unusable = np.int32(_BINS + 1)
    histogram[:] = 0
    scale, offset = np.float32(per_width), np.float32(-start * per_width)
    low, high = np.float32(0.0), np.float32(_BINS)
    for j in range(y0, y1):
        # In two loops, as the first of them runs on vectors.
        for i in range(x0, x1):
            value = data[j, i]
            place = value * scale + offset
            inside = (place >= low) & (place < high)
            found = np.int32(place if inside else high)
            usable = (flags[j, i] == 0) & (value - value == low)
            places[i - x0] = found if usable else unusable
        for i in range(x1 - x0):
            histogram[places[i]] += 1
    return (y1 - y0) * (x1 - x0) - histogram[unusable]


@jit
def _clip(histogram: Ints) -> tuple[float, float, float]:
    """Median, mean and standard deviation in bins, after clipping until nothing more is clipped."""
    low, high = 0, _BINS
    median, mean, sigma = 0.0, 0.0, 0.0
    for _ in range(50):
        total, first, second = 0, 0.0, 0.0
        for k in range(low, high):
            count = histogram[k]
            place = k + 0.5
            total += count
            first += count * place
            second += count * place * place
        if total == 0:
            break
        mean = first / total
        sigma = np.sqrt(max(second / total - mean * mean, 0.0))
        half, below, k = 0.5 * total, 0, low
        while below + histogram[k] < half:
            below += histogram[k]
            k += 1
        median = k + (half - below) / histogram[k]
        new_low = max(low, int(np.floor(median - CLIP_SIGMA * sigma)))
        new_high = min(high, int(np.ceil(median + CLIP_SIGMA * sigma)))
        if new_low == low and new_high == high:
            break
        low, high = new_low, new_high
    return median, mean, sigma
