"""How far detections scatter beyond their errors: what turbulence, the model and optimism leave unsaid."""

from __future__ import annotations

import numpy as np

from spica_calib.science.astrometry.crossid import Groups
from spica_calib.science.astrometry.kernels import Index, Singles
from spica_calib.science.astrometry.means import Means
from spica_calib.science.stars import Floats

_HALF_CHI2 = 2.0 * np.log(2.0)
"""Median of chi² with two degrees of freedom."""
_ENOUGH = 30
_MOST = 20_000
"""Detections that are looked at."""


def _extra_variance(square: Floats, variance: Floats) -> float:
    """Variance per axis that squared distances show beyond what they should: from those best known."""
    best = variance <= np.median(variance)
    return max(float(np.median(square[best])) / _HALF_CHI2 - float(np.median(variance[best])), 0.0)


def unit_scatter(
    groups: Groups,
    means: Means,
    error: Singles,
    exposure: Index,
    star_variance: Floats,
    before: Floats,
    coarse: bool,
) -> Floats:
    """Scatter per axis and exposure beyond errors, arcsec: about the mean of the group, else about stars.

    `error`, `exposure`: of members; `before`: what stands for exposures that nothing is known of. Exposures with few
    detections get what all have. `coarse`: detections that were cut count too, for nobody knows yet who is right.
    """
    stride = max(1, len(error) // max(_MOST, 200 * len(before)))
    pick = np.arange(0, len(error), stride)
    group = np.repeat(np.arange(len(groups)), groups.count)[pick]
    weight, own, e = means.weight[pick], error[pick].astype(np.float64) ** 2, exposure[pick]
    share = weight / np.maximum(means.total[group], 1e-300)
    inner = ((weight > 0) & (means.agreeing[group] >= 2)) | (coarse & (groups.count[group] >= 2))
    inner &= share < 0.9
    square = (means.inner[pick] ** 2).sum(axis=1) / np.maximum(1.0 - share, 0.1)
    outer = ((weight > 0) & (means.star_weight[group] > 0)) | (coarse & (groups.star[group] >= 0))
    star = np.where(
        groups.star[group] >= 0, star_variance[groups.star[group]] if len(star_variance) else 0.0, 0.0
    )
    direct = ((means.inner[pick] + means.outer[group]) ** 2).sum(axis=1)
    found = np.full(len(before), np.nan)
    order = np.argsort(e, kind="stable")
    ends = np.searchsorted(e[order], np.arange(len(before) + 1))
    for number in range(len(before)):
        mine = order[ends[number] : ends[number + 1]]
        tied, known = mine[inner[mine]], mine[outer[mine]]
        if len(tied) >= _ENOUGH:
            found[number] = _extra_variance(square[tied], own[tied])
        elif len(known) >= _ENOUGH:
            found[number] = _extra_variance(direct[known], (own + star)[known])
    if np.isnan(found).any():
        if np.count_nonzero(inner) >= _ENOUGH:
            common = _extra_variance(square[inner], own[inner])
        elif np.count_nonzero(outer) >= 5:
            common = _extra_variance(direct[outer], (own + star)[outer])
        else:
            common = float(np.median(before**2)) if len(before) else 0.0
        found = np.where(np.isnan(found), common, found)
    return np.sqrt(found)


def star_scatter(groups: Groups, means: Means, star_error: Floats, coarse: bool) -> float:
    """Scatter per axis of reference stars about means of two detections or more, beyond the errors of both."""
    good = ((means.star_weight > 0) | (coarse & (groups.star >= 0))) & (means.agreeing >= 2)
    good &= means.total > 0
    if np.count_nonzero(good) < _ENOUGH:
        return 0.0
    square = (means.outer[good] ** 2).sum(axis=1)
    return float(
        np.sqrt(_extra_variance(square, star_error[groups.star[good]] ** 2 + 1.0 / means.total[good]))
    )
