"""What a stack will be like, from what is known of its members: depth, seeing, exposure time, coverage.

Squared signal-to-noise of a point source: sᵢ ∝ 10^(0.8 mᵢ) of one exposure with 5 σ limiting magnitude mᵢ; with PSF
area Aᵢ its pixels have inverse variance wᵢ = sᵢ Aᵢ. A mean with weights Wᵢ has variance Σ Wᵢ²/wᵢ / (Σ Wᵢ)² and the PSF
Σ Wᵢ Pᵢ / Σ Wᵢ, of noise-equivalent area 1 / ∫P², where ∫ Pᵢ Pⱼ = 2 / (Aᵢ + Aⱼ) for Gaussians. Against Σ sᵢ, which
nothing can surpass, that gives its efficiency; medians lose besides. Outliers that are clipped are taken to be few.

Priorities and the efficiency of medians are those of `science.combining`, to which tests hold them; they are written here
once more, since that package brings a compiler along, which a command that only looks has no use for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spica_stack.science.choosing.table import Footprints
from spica_stack.science.coverage import Coverage, cover
from spica_stack.science.grid import Grid
from spica_stack.science.parameters import Method

Floats = NDArray[np.float64]

MOFFAT_BETA = 3.0
_NEAR_EVEN, _NEAR_ODD = 1.25, 0.48
_CLASSES = 48
"""Of PSF areas, when those of many exposures are compared pair by pair."""
_BY_WEIGHT = ("clipped_mean", "sigma_clip", "weighted_mean", "weighted_median")
_MEDIANS = ("median", "weighted_median")
_NO_DEPTH = ("minimum", "maximum", "chi2")
"""What comes out of these is no measurement of flux with a depth."""


@dataclass(frozen=True, slots=True)
class Exposures:
    """What is known of the members; NaN: not known. Shapes: (n,)."""

    limiting_mag: Floats
    fwhm_arcsec: Floats
    ellipticity: Floats
    exposure_time_s: Floats
    factor: Floats
    """On their weights, as the request asks."""


@dataclass(frozen=True)
class Prediction:
    """What the stack will be like. None: nothing is known to tell it from."""

    n_exposures: int
    exposure_time_s: float
    """Sum over the members."""
    depth_mag: float | None
    """AB, 5 sigma, point source: median over the area that is covered."""
    deepest_mag: float | None
    """Where it is deepest."""
    fwhm_arcsec: float | None
    """Of the mean of the members' PSFs, weighted as they will be."""
    n_depth_unknown: int
    """Members that are not in the depth, since none is known of them."""
    covered: float
    """Share of the grid's area with any exposure."""
    exposures_median: float
    """Over the area that is covered."""
    exposures_most: int
    coverage: Coverage
    depth_map_mag: Floats
    """In the cells of `coverage`; NaN where not covered or not known."""


def predict(
    grid: Grid, footprints: Footprints, exposures: Exposures, method: Method, psf_weight_power: float
) -> Prediction:
    """Predict a stack of these exposures on this grid."""
    depth = exposures.limiting_mag
    known = np.isfinite(depth) & (exposures.factor > 0)
    deepest = float(np.max(depth, where=known, initial=-np.inf))
    squared = (
        np.where(known, 10 ** (0.8 * (np.where(known, depth, deepest) - deepest)), 0.0)
        if known.any()
        else 0 * depth
    )
    coverage = cover(grid, footprints, squared)
    weights = weights_of(exposures, method, psf_weight_power)
    loss_mag = 1.25 * np.log10(efficiency(exposures, squared, weights)) if known.any() else 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        # What is left of sums that went back to nothing is rounding.
        total = np.where(coverage.covered & (coverage.sums[0] > 1e-9), coverage.sums[0], np.nan)
        depth_map = deepest + 1.25 * np.log10(total) + loss_mag
        if method in _MEDIANS:
            depth_map = depth_map + 1.25 * np.log10(median_efficiency(coverage.exposures))
    if method in _NO_DEPTH:
        depth_map = np.full_like(depth_map, np.nan)
    counts = coverage.exposures[coverage.covered]
    depths = depth_map[np.isfinite(depth_map)]
    return Prediction(
        n_exposures=len(depth),
        exposure_time_s=float(exposures.exposure_time_s.sum()),
        depth_mag=float(np.median(depths)) if len(depths) else None,
        deepest_mag=float(depths.max()) if len(depths) else None,
        fwhm_arcsec=mean_fwhm(exposures.fwhm_arcsec, weights),
        n_depth_unknown=int(np.sum(~np.isfinite(depth))),
        covered=float(coverage.covered.mean()),
        exposures_median=float(np.median(counts)) if len(counts) else 0.0,
        exposures_most=int(counts.max(initial=0)),
        coverage=coverage,
        depth_map_mag=depth_map,
    )


def areas_of(exposures: Exposures) -> Floats:
    """Areas of the PSFs, up to a common factor; the typical one where not known."""
    area = exposures.fwhm_arcsec**2
    usual = np.isfinite(area) & (area > 0)
    return np.where(usual, area, np.median(area[usual]) if usual.any() else 1.0)


def weights_of(exposures: Exposures, method: Method, psf_weight_power: float) -> Floats:
    """Weights in the mean, up to a common factor. Exposures of which no depth is known count as the typical one."""
    if method not in _BY_WEIGHT:
        return (exposures.factor > 0).astype(np.float64)
    depth = exposures.limiting_mag
    known = np.isfinite(depth)
    usual = float(np.median(depth[known])) if known.any() else 0.0
    inverse_variance = 10 ** (0.8 * (np.where(known, depth, usual) - usual)) * areas_of(exposures)
    return np.asarray(inverse_variance * priorities(exposures, psf_weight_power) * exposures.factor)


def priorities(exposures: Exposures, power: float) -> Floats:
    """Factor on the weight of each exposure by its seeing along the worse axis, as `combining.seeing_priorities`."""
    ellipticity = np.clip(np.nan_to_num(exposures.ellipticity, nan=0.0), 0.0, 0.95)
    area = exposures.fwhm_arcsec**2 / (1.0 - ellipticity)
    known = np.isfinite(area) & (area > 0)
    usual = float(np.median(area[known])) if known.any() else 1.0
    return np.asarray(np.clip((usual / np.where(known, area, usual)) ** power, 1e-2, 1e2))


def median_efficiency(n: NDArray[np.int32]) -> Floats:
    """Variance of the mean over that of the median of n samples, as `combining.median_efficiency`."""
    m = np.maximum(n, 1).astype(np.float64)
    near = np.where(m % 2 == 0, _NEAR_EVEN, _NEAR_ODD)
    return np.where(m <= 2, 1.0, 2.0 / np.pi * (m + near) / m)


def efficiency(exposures: Exposures, squared_sn: Floats, weights: Floats) -> float:
    """Squared signal-to-noise of the mean with these weights, over the sum of the exposures'; 1 at best."""
    used = (squared_sn > 0) & (weights > 0)
    if not used.any():
        return 1.0
    area, squared = areas_of(exposures)[used], squared_sn[used]
    share = weights[used] / weights[used].sum()
    variance = np.sum(share**2 / (squared * area))
    # Pair by pair, in classes of area: thousands of exposures have millions of pairs.
    edges = np.geomspace(area.min() * 0.999999, area.max() * 1.000001, _CLASSES + 1)
    which = np.clip(np.searchsorted(edges, area) - 1, 0, _CLASSES - 1)
    in_class = np.bincount(which, share, _CLASSES)
    mean_area = np.bincount(which, share * area, _CLASSES) / np.where(in_class > 0, in_class, 1.0)
    filled = in_class > 0
    overlap = 2.0 / (mean_area[filled, None] + mean_area[None, filled])
    squared_psf = float(in_class[filled] @ overlap @ in_class[filled])
    return float(squared_psf / variance / squared.sum())


def mean_fwhm(fwhm: Floats, weights: Floats) -> float | None:
    """FWHM of the weighted mean of PSFs of these widths: Moffat profiles with one exponent. None: no width is known."""
    used = np.isfinite(fwhm) & (fwhm > 0) & (weights > 0)
    if not used.any():
        return None
    width, weight = fwhm[used], weights[used] / fwhm[used] ** 2
    steepness = 4.0 * (2.0 ** (1.0 / MOFFAT_BETA) - 1.0)

    def height(diameter: float) -> float:
        return float(np.sum(weight * (1.0 + steepness * (0.5 * diameter / width) ** 2) ** -MOFFAT_BETA))

    low, high, half = float(width.min()), float(width.max()), 0.5 * height(0.0)
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if height(middle) > half else (low, middle)
    return 0.5 * (low + high)
