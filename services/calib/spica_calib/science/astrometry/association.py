"""Which detections in different exposures are one source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree
from spica_imaging.stats import SIGMA_PER_MAD

from spica_calib.science.matching.search import mutual_nearest
from spica_calib.science.stars import Bools, Floats, Ints

_CUT = 4.0


def associate(x: Floats, y: Floats, exposure: Ints, radius: float) -> Ints:
    """Number of the group each detection belongs to, shape (n,); at most one per exposure and group.

    Exposure by exposure (in order of their numbers), detections join the group whose mean position is their mutual
    nearest within `radius`; the others begin groups of their own.
    """
    group = np.full(len(x), -1, dtype=np.int64)
    sum_x, sum_y, count = np.empty(0), np.empty(0), np.empty(0)
    for number in np.unique(exposure):
        index = np.flatnonzero(exposure == number)
        if len(count):
            tree = KDTree(np.column_stack((sum_x / count, sum_y / count)))
            i, j = mutual_nearest(x[index], y[index], tree, radius)
            group[index[i]] = j
            sum_x[j] += x[index[i]]
            sum_y[j] += y[index[i]]
            count[j] += 1
        new = index[group[index] < 0]
        group[new] = len(count) + np.arange(len(new))
        sum_x, sum_y = np.append(sum_x, x[new]), np.append(sum_y, y[new])
        count = np.append(count, np.ones(len(new)))
    return group


@dataclass(frozen=True, slots=True)
class Groups:
    """Mean positions of groups and what belongs to them."""

    x: Floats
    y: Floats
    error: Floats
    """Standard error per axis of the mean, shape (groups,)."""
    count: Ints
    """Detections that count, shape (groups,)."""
    kept: Bools
    """Detections that count, shape (n,)."""
    scatter: float
    """Robust standard deviation per axis of one detection about its group, beyond its own error."""
    rms: tuple[float, float]
    """Robust standard deviation of detections about their groups, per axis, own errors included."""


def group_medians(values: Floats, group: Ints, n_groups: int) -> Floats:
    """Median of the values of each group, shape (n_groups,); NaN for groups without any."""
    order = np.lexsort((values, group))
    count = np.bincount(group, minlength=n_groups)
    start = np.cumsum(count) - count
    ranked = np.append(values[order], np.nan)
    low, high = start + np.maximum(count - 1, 0) // 2, start + count // 2
    return np.where(count > 0, (ranked[low] + ranked[np.minimum(high, len(values))]) / 2.0, np.nan)


def mean_positions(x: Floats, y: Floats, error: Floats, group: Ints) -> Groups:
    """Weighted means of groups of detections that agree.

    Detections more than 4 sigma from their group's median do not count; where two that disagree are alone, neither
    counts. Sigma is their own error and the scatter that detections show beyond it.
    """
    n_groups = int(group.max()) + 1 if len(group) else 0
    size = np.bincount(group, minlength=n_groups)
    dx = x - group_medians(x, group, n_groups)[group]
    dy = y - group_medians(y, group, n_groups)[group]
    several = size[group] >= 2
    spread = _spread(dx, dy, _own_share(np.ones(len(x)), group, n_groups), several)
    extra = _beyond(spread, error[several])
    far = np.maximum(np.abs(dx), np.abs(dy)) > _CUT * np.hypot(error, extra)
    kept = ~far | ~several
    rms = spread
    for _ in range(2):
        weight = kept / (error**2 + extra**2)
        total = np.maximum(np.bincount(group, weight, n_groups), 1e-300)
        mean_x = np.bincount(group, weight * x, n_groups) / total
        mean_y = np.bincount(group, weight * y, n_groups) / total
        count = np.bincount(group, kept, n_groups).astype(np.int64)
        several = kept & (count[group] >= 2)
        rms = _spread(x - mean_x[group], y - mean_y[group], _own_share(weight, group, n_groups), several)
        extra = _beyond(rms, error[several])
    return Groups(mean_x, mean_y, np.sqrt(1.0 / total), count, kept, extra, rms)


def _own_share(weight: Floats, group: Ints, n_groups: int) -> Floats:
    """Share of each detection in its group's mean."""
    total = np.maximum(np.bincount(group, weight, n_groups), 1e-300)
    return np.clip(weight / total[group], 0.0, 0.9)


def _spread(dx: Floats, dy: Floats, share: Floats, several: Bools) -> tuple[float, float]:
    """Robust standard deviation per axis; a mean follows its members, which is made up for."""
    if not several.any():
        return 0.0, 0.0
    stretch = SIGMA_PER_MAD / np.sqrt(1.0 - share[several])
    return float(np.median(np.abs(dx[several] * stretch))), float(np.median(np.abs(dy[several] * stretch)))


def _beyond(spread: tuple[float, float], error: Floats) -> float:
    """What the spread has beyond the detections' own errors."""
    if not len(error):
        return 0.0
    return float(np.sqrt(max((spread[0] ** 2 + spread[1] ** 2) / 2.0 - float(np.median(error)) ** 2, 0.0)))
