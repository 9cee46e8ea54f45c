"""Which detections in different exposures are one source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from spica_calib.science.matching import mutual_nearest
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


def mean_positions(x: Floats, y: Floats, error: Floats, group: Ints) -> Groups:
    """Weighted means of groups; detections more than 4 sigma from their group's mean do not count."""
    n_groups = int(group.max()) + 1 if len(group) else 0
    kept = np.ones(len(x), dtype=bool)
    extra, rms = 0.0, (0.0, 0.0)
    for last in (False, False, True):
        weight = kept / (error**2 + extra**2)
        total = np.maximum(np.bincount(group, weight, n_groups), 1e-300)
        mean_x = np.bincount(group, weight * x, n_groups) / total
        mean_y = np.bincount(group, weight * y, n_groups) / total
        count = np.bincount(group, kept, n_groups).astype(np.int64)
        if last:
            break
        dx, dy = x - mean_x[group], y - mean_y[group]
        # The mean follows its members: blow residuals up to what a left-out one would show.
        share = np.clip(weight / total[group], 0.0, 0.9)
        several = kept & (count[group] >= 2)
        if not several.any():
            continue
        stretch = 1.0 / np.sqrt(1.0 - share[several])
        rms = (
            1.4826 * float(np.median(np.abs(dx[several] * stretch))),
            1.4826 * float(np.median(np.abs(dy[several] * stretch))),
        )
        spread = np.sqrt((rms[0] ** 2 + rms[1] ** 2) / 2.0)
        extra = float(np.sqrt(max(spread**2 - float(np.median(error[several])) ** 2, 0.0)))
        far = np.maximum(np.abs(dx), np.abs(dy)) / np.sqrt(1.0 - share) > _CUT * np.hypot(error, extra)
        kept = ~far | (count[group] < 2)
    return Groups(mean_x, mean_y, np.sqrt(1.0 / total), count, kept, extra, rms)
