"""Combining the layers of a stack: weighted mean, median, clipped mean.

The clipped mean follows Gruen, Seitz & Bernstein 2014 (PASP 126, 158): a sample is an outlier when
it differs from the pixel's median by more than n sigma of the noise *plus* a share of the flux, so
that stars, which differ between exposures because the seeing does, are left whole while cosmic rays
and trails are not. Departures from the paper:

* the share is taken of the brightest median within a seeing disc, not of the pixel's own: on the
  flank of a star a change of seeing moves the flux by a share of the core's;
* the share of each exposure grows with how far its seeing is known to be from the others';
* the median is the lower one for an even number, since outliers are mostly too bright: of two
  samples, the fainter is believed;
* neighbours of an outlier in the same exposure are held to a stricter limit (the wings that
  interpolation gives to a cosmic ray).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import prange
from numpy.typing import NDArray

from spica_stack.science._jit import kernel, parallel_kernel

Image = NDArray[np.float32]
Layers = NDArray[np.float32]

Method = Literal["clipped_mean", "weighted_mean", "median"]

NEAR_EVEN, NEAR_ODD = 1.25, 0.48
"""Var(median of n) = pi / 2 / (n + c) for unit Gaussian noise, to 1 %: c for even and odd n > 2
(from the exact variances of order statistics)."""


@dataclass(frozen=True, slots=True)
class Clipping:
    """Limits of the clipped mean."""

    n_sigma: float = 4.0
    n_sigma_grown: float = 2.5
    """For neighbours of an outlier."""
    flux_share: float = 0.3
    """Share of the local flux by which samples may differ (Gruen et al.: A = 0.3)."""
    radius_px: int = 2
    """Half size of the box in which the local flux is looked up: about half the FWHM."""

    @property
    def halo_px(self) -> int:
        """Pixels around a tile that the tile's result depends on."""
        return self.radius_px + 1


@dataclass(frozen=True, slots=True)
class Combined:
    """One tile of the stack. All of the tile's shape."""

    value: Image
    """NaN where no layer has weight."""
    weight: Image
    """1 / variance; 0 where there is no value."""
    exposures: NDArray[np.int16]
    """How many layers went into the pixel."""
    rejected: int
    """Samples left out as outliers."""


def seeing_shares(fwhm: NDArray[np.float64], base: float) -> NDArray[np.float32]:
    """Share of the local flux by which each layer may differ, from its seeing (any unit; NaN: not known).

    A star's peak goes with 1 / FWHM²: a layer whose seeing differs from the median one may differ
    by as much more. Of an even number, both middle ones are the median (with two layers, each is
    compared with the other).
    """
    known = np.sort(fwhm[np.isfinite(fwhm) & (fwhm > 0)])
    if not len(known):
        return np.full(len(fwhm), base, dtype=np.float32)
    own = np.where(np.isfinite(fwhm) & (fwhm > 0), fwhm, np.nan)
    middle = known[[(len(known) - 1) // 2, len(known) // 2]]
    extra = np.max(np.abs((middle[:, None] / own) ** 2 - 1.0), axis=0)
    return (base + np.nan_to_num(extra, nan=0.0)).astype(np.float32)


def seeing_priorities(
    fwhm: NDArray[np.float64], ellipticity: NDArray[np.float64], power: float
) -> NDArray[np.float32]:
    """Factor on each layer's weight, from its seeing along the worse axis; 1 for the typical one.

    The signal-to-noise of a point source goes with 1 / (noise² × area of the PSF), so a sum in
    which sharp exposures count more is deeper than one weighted by the noise alone. Taken is the
    width along the major axis, FWHM² / (1 - e), so that a trailed exposure counts less than a round
    one of the same area. power 0: by the noise alone; 1: about deepest for point sources; 2:
    about as deep as 0 where the seeing does not differ by more than a third, but sharper and
    rounder. NaN (not known) counts as typical.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        area = fwhm**2 / (1.0 - np.clip(np.nan_to_num(ellipticity, nan=0.0), 0.0, 0.95))
        area = np.where(np.isfinite(area) & (area > 0), area, np.nan)
    if not np.any(np.isfinite(area)):
        return np.ones(len(fwhm), dtype=np.float32)
    ratio = np.nan_to_num(np.nanmedian(area) / area, nan=1.0)
    return np.clip(ratio**power, 1e-2, 1e2).astype(np.float32)


@kernel
def _select(values: NDArray[np.float32], n: int, k: int) -> np.float32:
    """k-th smallest (from 0) of the first n values; reorders them (Hoare's quickselect)."""
    low, high = 0, n - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            break
    return values[k]


@parallel_kernel
def _weighted_mean(
    value: Layers,
    weight: Layers,
    priority: NDArray[np.float32],
    out: Image,
    out_weight: Image,
    count: NDArray[np.int16],
) -> None:
    n, height, width = value.shape
    for row in prange(height):
        total = np.zeros(width, dtype=np.float32)
        share = np.zeros(width, dtype=np.float32)
        square = np.zeros(width, dtype=np.float32)
        for layer in range(n):
            p = priority[layer]
            for column in range(width):
                w = p * weight[layer, row, column]
                if w > 0:
                    total[column] += w * value[layer, row, column]
                    share[column] += w
                    square[column] += p * w
                    count[row, column] += 1
        for column in range(width):
            w = share[column]
            out[row, column] = total[column] / w if w > 0 else np.nan
            out_weight[row, column] = w * (w / square[column]) if w > 0 else np.float32(0.0)


@parallel_kernel
def _median(
    value: Layers, weight: Layers, lower: bool, out: Image, out_weight: Image, count: NDArray[np.int16]
) -> None:
    """Median of samples with weight; `lower`: the lower of the two middle ones. `out_weight`: sum of weights."""
    n, height, width = value.shape
    for row in prange(height):
        samples = np.empty(n, dtype=np.float32)
        for column in range(width):
            m = 0
            total = np.float32(0.0)
            for layer in range(n):
                w = weight[layer, row, column]
                if w > 0:
                    samples[m] = value[layer, row, column]
                    total += w
                    m += 1
            out_weight[row, column] = total
            count[row, column] = m
            if m == 0:
                out[row, column] = np.nan
                continue
            middle = _select(samples, m, (m - 1) // 2)
            if m % 2 == 0 and not lower:
                # After selection, what stands behind is not smaller: its least is the upper middle.
                upper = samples[m // 2]
                for k in range(m // 2 + 1, m):
                    upper = min(upper, samples[k])
                middle = np.float32(0.5) * (middle + upper)
            out[row, column] = middle


@parallel_kernel
def _local_maximum(image: Image, radius: int, out: Image) -> None:
    """Largest value within a box of half size `radius`; NaN counts as 0 and so do negative values."""
    height, width = image.shape
    along = np.empty((height, width), dtype=np.float32)
    for row in prange(height):
        for column in range(width):
            best = np.float32(0.0)
            for k in range(max(column - radius, 0), min(column + radius + 1, width)):
                if image[row, k] > best:  # noqa: PLR1730 (NaN must lose)
                    best = image[row, k]
            along[row, column] = best
    for row in prange(height):
        for column in range(width):
            best = np.float32(0.0)
            for k in range(max(row - radius, 0), min(row + radius + 1, height)):
                if along[k, column] > best:  # noqa: PLR1730
                    best = along[k, column]
            out[row, column] = best


@parallel_kernel
def _mark_outliers(
    value: Layers,
    weight: Layers,
    middle: Image,
    total_weight: Image,
    brightest: Image,
    share: NDArray[np.float32],
    n_sigma: float,
    n_sigma_grown: float,
    mark: NDArray[np.uint8],
) -> None:
    """Per sample: 0 not an outlier, 1 outlier only beside another outlier, 2 outlier."""
    n, height, width = value.shape
    for row in prange(height):
        for layer in range(n):
            for column in range(width):
                w = weight[layer, row, column]
                if w <= 0 or w >= total_weight[row, column]:
                    continue  # no sample, or the only one
                off = abs(value[layer, row, column] - middle[row, column])
                off -= share[layer] * brightest[row, column]
                # The median's own variance is about pi/2 over the sum of weights.
                sigma = np.sqrt(1.0 / w + 0.5 * np.pi / total_weight[row, column])
                if off > n_sigma * sigma:
                    mark[layer, row, column] = 2
                elif off > n_sigma_grown * sigma:
                    mark[layer, row, column] = 1


@parallel_kernel
def _mean_of_unmarked(
    value: Layers,
    weight: Layers,
    priority: NDArray[np.float32],
    mark: NDArray[np.uint8],
    halo: int,
    out: Image,
    out_weight: Image,
    count: NDArray[np.int16],
    rejected: NDArray[np.int64],
) -> None:
    """Weighted mean within the halo; a sample marked 1 goes too when it touches one marked 2."""
    n = value.shape[0]
    height, width = out.shape
    for row in prange(height):
        total = np.zeros(width, dtype=np.float32)
        share = np.zeros(width, dtype=np.float32)
        square = np.zeros(width, dtype=np.float32)
        y = row + halo
        for layer in range(n):
            p = priority[layer]
            for column in range(width):
                x = column + halo
                w = p * weight[layer, y, x]
                if w <= 0:
                    continue
                bad = mark[layer, y, x]
                if bad == 1:
                    bad = 0
                    for j in range(max(y - 1, 0), min(y + 2, value.shape[1])):
                        for i in range(max(x - 1, 0), min(x + 2, value.shape[2])):
                            if mark[layer, j, i] == 2:
                                bad = 1
                if bad > 0:
                    rejected[row] += 1
                    continue
                total[column] += w * value[layer, y, x]
                share[column] += w
                square[column] += p * w
                count[row, column] += 1
        for column in range(width):
            w = share[column]
            out[row, column] = total[column] / w if w > 0 else np.nan
            out_weight[row, column] = w * (w / square[column]) if w > 0 else np.float32(0.0)


def median_efficiency(n: NDArray[np.int16]) -> NDArray[np.float32]:
    """Variance of the mean over that of the median of n samples of equal Gaussian noise.

    One and two samples: 1 (the median is the mean); many: 2/π. 1 where n is 0.
    """
    m = np.maximum(n, 1).astype(np.float64)
    extra = np.where(m % 2 == 0, NEAR_EVEN, NEAR_ODD)
    return np.where(m <= 2, 1.0, 2.0 / np.pi * (m + extra) / m).astype(np.float32)


def combine(
    value: Layers,
    weight: Layers,
    method: Method,
    *,
    halo: int = 0,
    share: NDArray[np.float32] | None = None,
    priority: NDArray[np.float32] | None = None,
    clipping: Clipping | None = None,
) -> Combined:
    """Combine layers pixel by pixel.

    * value, weight: float32, shape (n, height + 2 halo, width + 2 halo): samples and their
      1 / variance. Samples with weight 0 are not looked at (they may be NaN).
    * halo: pixels around the tile that are given for its neighbourhood's sake and not returned.
    * share: per layer, share of the local flux by which it may differ; default `clipping.flux_share`.
    * priority: per layer, factor on its weight in a mean, as for better seeing; default 1. The weight
      given back stays 1 / variance of what comes out: (Σ p w)² / Σ p² w. A median knows no priority.

    The result does not depend on how the image is cut into tiles if `halo` is at least
    `clipping.halo_px` (or the edge of the image is reached).
    """
    clipping = clipping or Clipping()
    n, full_height, full_width = value.shape
    inner = (slice(None), slice(halo, full_height - halo), slice(halo, full_width - halo))
    shape = (full_height - 2 * halo, full_width - 2 * halo)
    out, out_weight = np.empty(shape, np.float32), np.zeros(shape, np.float32)
    count = np.zeros(shape, np.int16)
    if priority is None:
        priority = np.ones(n, np.float32)
    if method == "weighted_mean":
        _weighted_mean(value[inner], weight[inner], priority, out, out_weight, count)
        return Combined(out, out_weight, count, 0)
    if method == "median":
        _median(value[inner], weight[inner], False, out, out_weight, count)
        return Combined(out, out_weight * median_efficiency(count), count, 0)
    middle, total = np.empty(value.shape[1:], np.float32), np.empty(value.shape[1:], np.float32)
    brightest = np.empty_like(middle)
    _median(value, weight, True, middle, total, np.zeros(value.shape[1:], np.int16))
    _local_maximum(middle, clipping.radius_px, brightest)
    if share is None:
        share = np.full(n, clipping.flux_share, np.float32)
    mark = np.zeros(value.shape, np.uint8)
    _mark_outliers(
        value, weight, middle, total, brightest, share, clipping.n_sigma, clipping.n_sigma_grown, mark
    )
    rejected = np.zeros(shape[0], np.int64)
    _mean_of_unmarked(value, weight, priority, mark, halo, out, out_weight, count, rejected)
    return Combined(out, out_weight, count, int(rejected.sum()))
