"""The matched filter of detection: a Gaussian of the stars' size, row by row, never as a whole image.

Pixels without a value are left out rather than taken as sky. With the filter k, pixels d and the sums over
usable pixels only, two things are told of a place:

* its significance, sum(k d) / sqrt(sum(k²)), which has the same noise everywhere, whatever is missing;
* its height, sum(k d) / sum(k²), the amplitude of a star that sat there, which is not torn by a bad column.

Both are scaled so that with all pixels present they are the plain convolution with a kernel of sum 1, which is
what source-extractor compares with its threshold. Where less than `LEAST_SEEN` of sum(k²) is left, nothing is told.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from spica_imaging.stats import FWHM_PER_SIGMA

from spica_quality.science._jit import jit
from spica_quality.science.flags import UNUSABLE

Pixels = NDArray[np.float32]
Flags = NDArray[np.uint16]

LEAST_SEEN = 0.1
"""Of the filter's weight squared must lie on usable pixels."""

_MOST_HALF = 5
_UNUSABLE = int(UNUSABLE)


def gaussian_taps(fwhm_px: float) -> Pixels:
    """One axis of the filter: odd-sized, 3 to 11 px, sum 1. The filter is its outer product with itself."""
    sigma = float(np.clip(fwhm_px, 1.2, 6.0)) / FWHM_PER_SIGMA
    half = int(np.clip(np.ceil(2.0 * sigma), 1, _MOST_HALF))
    taps = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    return np.asarray(taps / taps.sum(), dtype=np.float32)


@jit
def load_row(data: Pixels, flags: Flags, y: int, half: int, row: Pixels, missing: Pixels) -> bool:
    """Copy a row between margins of zeros; `missing` becomes 1 where there is no value. True if any is missing."""
    nx = data.shape[1]
    zero, one = np.float32(0.0), np.float32(1.0)
    total = zero
    for x in range(nx):
        value = data[y, x]
        absent = ((flags[y, x] & _UNUSABLE) != 0) | (value - value != zero)
        row[half + x] = zero if absent else value
        gone = one if absent else zero
        missing[half + x] = gone
        total += gone
    return bool(total > zero)


@jit
def across(padded: Pixels, taps: Pixels, result: Pixels) -> None:
    """Convolve a padded row with symmetric taps; `result` is shorter than `padded` by the margins."""
    half = taps.size // 2
    n = result.size
    # Slices, as the compiler makes vectors only of loops whose indices it knows not to be negative.
    middle = padded[half : half + n]
    t = taps[half]
    for x in range(n):
        result[x] = t * middle[x]
    for k in range(1, half + 1):
        left, right = padded[half - k : half - k + n], padded[half + k : half + k + n]
        t = taps[half - k]
        for x in range(n):
            result[x] += t * (left[x] + right[x])


@jit
def down(ring: Pixels, y: int, taps: Pixels, result: Pixels) -> None:
    """Convolve over rows: row j is kept at j % len(taps) of the ring; all of y ± half must be there."""
    size = taps.size
    half = size // 2
    n = result.size
    middle = ring[(y + size) % size]
    t0 = taps[half]
    for x in range(n):
        result[x] = t0 * middle[x]
    for k in range(1, half + 1):
        above, below = ring[(y - k + size) % size], ring[(y + k) % size]
        t = taps[half - k]
        for x in range(n):
            result[x] += t * (above[x] + below[x])


@jit
def correct(significance: Pixels, height: Pixels, lost: Pixels) -> None:
    """Turn sum(k d) into significance and height, where `lost` is the missing share of sum(k²)."""
    zero, one = np.float32(0.0), np.float32(1.0)
    least = np.float32(LEAST_SEEN)
    for x in range(lost.size):
        seen = one - lost[x]
        total = significance[x]
        told = seen >= least
        safe = seen if told else one
        significance[x] = total / np.sqrt(safe) if told else zero
        height[x] = total / safe if told else zero
