"""Robust statistics of samples: what outliers, stars and cosmic rays cannot spoil.

All functions look at finite values only and take arrays of any shape. An empty sample gives NaN,
never a warning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

SIGMA_PER_MAD = 1.482602218505602
"""Standard deviation of a normal distribution over its median absolute deviation."""

FWHM_PER_SIGMA = 2.3548200450309493
"""Full width at half maximum of a normal distribution over its standard deviation, 2 sqrt(2 ln 2)."""


def finite(values: ArrayLike) -> NDArray[np.float64]:
    """The finite values, as one flat float64 array."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    return flat[np.isfinite(flat)]


def median(values: ArrayLike) -> float:
    """Median of the finite values; NaN where there is none."""
    sample = finite(values)
    return float(np.median(sample)) if sample.size else float("nan")


def robust_sigma(values: ArrayLike) -> float:
    """Standard deviation estimated from the median absolute deviation; 0 for one value."""
    return median_sigma(values)[1]


def median_sigma(values: ArrayLike) -> tuple[float, float]:
    """Median, and standard deviation estimated from the median absolute deviation."""
    sample = finite(values)
    if not sample.size:
        return float("nan"), float("nan")
    centre = float(np.median(sample))
    return centre, SIGMA_PER_MAD * float(np.median(np.abs(sample - centre)))


@dataclass(frozen=True, slots=True)
class Clipped:
    """A sample after clipping."""

    mean: float
    median: float
    sigma: float
    """Standard deviation of what was kept (not corrected for the clipped tails)."""
    kept: NDArray[np.bool_]
    """Same shape as the sample; False for clipped and for non-finite values."""

    @property
    def n(self) -> int:
        """How many values were kept."""
        return int(np.count_nonzero(self.kept))


def sigma_clip(values: ArrayLike, n_sigma: float = 3.0, max_iterations: int = 20) -> Clipped:
    """Drop values farther than `n_sigma` from the median until none is left to drop.

    The first pass uses the median absolute deviation, so that up to half of the sample may be
    outliers; later passes use the standard deviation of what is kept.
    """
    sample = np.asarray(values, dtype=np.float64)
    kept = np.isfinite(sample)
    centre, sigma = median_sigma(sample)
    for _ in range(max_iterations):
        inside = kept & (np.abs(sample - centre) <= n_sigma * sigma)
        if not inside.any() or np.array_equal(inside, kept):
            break
        kept = inside
        centre, sigma = float(np.median(sample[kept])), float(np.std(sample[kept]))
    if not kept.any():
        return Clipped(float("nan"), float("nan"), float("nan"), kept)
    return Clipped(float(np.mean(sample[kept])), centre, float(np.std(sample[kept])), kept)


def mode(values: ArrayLike) -> float:
    """Most likely value of a continuous sample: the half-sample mode.

    The half of the sorted sample that spans the least is halved again, until at most three values
    are left (Bickel & Frühwirth 2006, Comput. Stat. Data Anal. 50, 3500). It finds a narrow peak on
    a broad distribution, where mean and median follow the broad part.
    """
    sample = np.sort(finite(values))
    while sample.size > 3:
        half = (sample.size + 1) // 2
        spans = sample[half - 1 :] - sample[: sample.size - half + 1]
        start = int(np.argmin(spans))
        sample = sample[start : start + half]
    if not sample.size:
        return float("nan")
    if sample.size == 3:
        left, right = sample[1] - sample[0], sample[2] - sample[1]
        if left != right:
            sample = sample[:2] if left < right else sample[1:]
    return float(np.mean(sample))


def weighted_median(values: ArrayLike, weights: ArrayLike) -> float:
    """Value at which half of the weight is reached; entries without finite value or weight are left out."""
    sample = np.asarray(values, dtype=np.float64).ravel()
    weight = np.asarray(weights, dtype=np.float64).ravel()
    usable: NDArray[Any] = np.isfinite(sample) & np.isfinite(weight) & (weight > 0)
    if not usable.any():
        return float("nan")
    order = np.argsort(sample[usable], kind="stable")
    sample, weight = sample[usable][order], weight[usable][order]
    # The middle of each value's own weight: for equal weights this is the ordinary median.
    reached = (np.cumsum(weight) - 0.5 * weight) / np.sum(weight)
    return float(np.interp(0.5, reached, sample))
