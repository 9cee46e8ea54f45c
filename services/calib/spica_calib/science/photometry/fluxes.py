"""Relative flux scales of exposures from the sources they share, anchored to their own zero points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, diags_array

from spica_calib.science.stars import Floats, Ints

NOMINAL_ZEROPOINT_MAG = 25.0
"""Stands in where no member has a zero point: the scale is then relative only."""
_ERROR_FLOOR_MAG = 0.005
_HUBER, _CUT = 2.0, 5.0


@dataclass(frozen=True, slots=True)
class FluxSolution:
    """Zero points of exposures on one scale."""

    zeropoint_mag: Floats
    """Shape (exposures,): magnitude of 1 adu/s."""
    scatter_mag: float | None
    """Robust standard deviation of bright sources about their means; None without common sources."""
    anchored: bool
    """Whether the scale stands on reference magnitudes."""


def solve_fluxes(
    mag: Floats, error: Floats, exposure: Ints, group: Ints, zero: Floats, zero_error: Floats
) -> FluxSolution:
    """Minimise the scatter of each source's magnitude over the exposures that see it.

    `mag`: instrumental (of adu/s) of detections in groups, shape (n,), `error` theirs; `zero`, `zero_error`: each
    exposure's own zero point, NaN where it has none, shape (exposures,). The sources' magnitudes are
    eliminated; exposures' own zero points come in with their errors, which anchors the scale and ties
    parts of the sky that do not overlap.
    """
    n_exposures = len(zero)
    known = np.isfinite(zero)
    centre = float(np.median(zero[known])) if known.any() else NOMINAL_ZEROPOINT_MAG
    prior = np.where(known, zero, centre)
    prior_weight = np.where(known, 1.0 / np.maximum(np.nan_to_num(zero_error, nan=0.05), 0.003) ** 2, 4.0)
    solution, factor = prior.copy(), np.ones(len(mag))
    scatter: float | None = None
    if len(mag) == 0:
        return FluxSolution(solution, None, bool(known.any()))
    numbers = np.unique(group, return_inverse=True)[1]
    n_groups = int(numbers.max()) + 1
    noise = np.hypot(error, _ERROR_FLOOR_MAG)
    extra = 0.0
    for _ in range(8):
        weight = factor / (noise**2 + extra**2)
        total = np.maximum(np.bincount(numbers, weight, n_groups), 1e-300)
        shared = csr_array((weight, (numbers, exposure)), shape=(n_groups, n_exposures))
        scaled = diags_array(1.0 / total) @ shared
        normal = np.diag(np.bincount(exposure, weight, n_exposures)) - (shared.T @ scaled).toarray()
        mean = np.bincount(numbers, weight * mag, n_groups) / total
        right = -np.bincount(exposure, weight * (mag - mean[numbers]), n_exposures)
        solution = np.linalg.solve(normal + np.diag(prior_weight), right + prior_weight * prior)
        calibrated = mag + solution[exposure]
        mean = np.bincount(numbers, weight * calibrated, n_groups) / total
        residual = calibrated - mean[numbers]
        share = np.clip(weight / total[numbers], 0.0, 0.9)
        residual = residual / np.sqrt(1.0 - share)
        bright = error <= max(0.02, float(np.percentile(error, 20)))
        scatter = 1.4826 * float(np.median(np.abs(residual[bright])))
        extra = float(np.sqrt(max(scatter**2 - float(np.median(noise[bright])) ** 2, 0.0)))
        ratio = np.abs(residual) / np.hypot(noise, extra)
        factor = np.where(ratio <= _HUBER, 1.0, _HUBER / np.maximum(ratio, _HUBER))
        factor[ratio > _CUT] = 1e-6
    if not known.any():
        solution += NOMINAL_ZEROPOINT_MAG - float(solution.mean())
    return FluxSolution(solution, scatter, bool(known.any()))
