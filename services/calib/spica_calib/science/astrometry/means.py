"""Where a source is, from the detections that agree about it and its reference star.

Every group has a frame: the tangent plane of its first member's exposure. Detections of other exposures are brought
there exactly; how the axes are turned on the way is told for the derivatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spica_calib.science._jit import jit
from spica_calib.science.astrometry.crossid import Groups, StarField
from spica_calib.science.astrometry.kernels import Flags, Index, Singles
from spica_calib.science.astrometry.sky import ARCSEC_PER_RAD
from spica_calib.science.stars import Floats, Ints

_ARCSEC = 1.0 / ARCSEC_PER_RAD
_FEW = 32


@dataclass(frozen=True, slots=True)
class Means:
    """Detections against their group, in the group's frame. Per member (m,) or per group (g,); arcsec."""

    turn: Singles
    """Shape (m, 2): from the axes of the member's exposure to the frame's, as a complex number of size 1."""
    weight: Singles
    """1 / variance; 0: cut."""
    pull: Singles
    """Shape (m, 2): mean of the group, reference star included, minus the detection."""
    inner: Singles
    """Shape (m, 2): mean of the group's detections minus the detection."""
    outer: Floats
    """Shape (g, 2): reference star minus mean of the detections; 0 without a star."""
    star_weight: Floats
    """1 / variance of the star; 0: none, or cut."""
    total: Floats
    """Sum of weights of the detections."""
    mean: Floats
    """Shape (g, 2): mean of the detections in the frame."""
    agreeing: Index
    """Detections that were not cut."""


@jit
def _median(values: Floats, var: Floats, n: int, work: Floats) -> tuple[float, float]:
    """Median, and how well it is known: as the points in the middle are, or by their number where there are many."""
    if n > _FEW:
        density = 0.0
        for k in range(n):
            density += 1.0 / np.sqrt(var[k])
        return np.nanmedian(values[:n]), 1.57 * n / (density * density)
    filled = 0
    for i in range(n):
        if not np.isfinite(values[i]):
            continue
        k = filled
        filled += 1
        while k > 0 and work[k - 1, 0] > values[i]:
            work[k, 0], work[k, 1] = work[k - 1, 0], work[k - 1, 1]
            k -= 1
        work[k, 0], work[k, 1] = values[i], var[i]
    if filled == 0:
        return np.nan, np.nan
    low, high = (filled - 1) // 2, filled // 2
    return 0.5 * (work[low, 0] + work[high, 0]), max(work[low, 1], work[high, 1])


@jit
def _bring(
    members: Index,
    place: Floats,
    exposure: Index,
    frames: Floats,
    variance: Singles,
    x: Floats,
    y: Floats,
    var: Floats,
    turn: Singles,
) -> None:
    """Places of members in the tangent plane of the first one's exposure."""
    first = exposure[members[0]]
    frame = frames[first]
    for k in range(len(members)):
        i = members[k]
        e = exposure[i]
        x[k], y[k], var[k] = place[i, 0], place[i, 1], variance[i]
        turn[k, 0], turn[k, 1] = 1.0, 0.0
        if e == first:
            continue
        own = frames[e]
        depth, east, north, cosine, sine = 0.0, 0.0, 0.0, 0.0, 0.0
        for axis in range(3):
            d = own[0, axis] + _ARCSEC * (x[k] * own[1, axis] + y[k] * own[2, axis])
            depth += d * frame[0, axis]
            east += d * frame[1, axis]
            north += d * frame[2, axis]
            cosine += own[1, axis] * frame[1, axis] + own[2, axis] * frame[2, axis]
            sine += own[1, axis] * frame[2, axis] - own[2, axis] * frame[1, axis]
        x[k], y[k] = east / (_ARCSEC * depth), north / (_ARCSEC * depth)
        size = np.sqrt(cosine * cosine + sine * sine)
        turn[k, 0], turn[k, 1] = cosine / size, sine / size


@jit
def _star_place(vector: Floats, motion: Floats, frame: Floats) -> tuple[float, float, float, float]:
    """Place of a star in a frame, and its motion there per year, arcsec."""
    depth, east, north, d_depth, d_east, d_north = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for axis in range(3):
        depth += vector[axis] * frame[0, axis]
        east += vector[axis] * frame[1, axis]
        north += vector[axis] * frame[2, axis]
        d_depth += motion[axis] * frame[0, axis]
        d_east += motion[axis] * frame[1, axis]
        d_north += motion[axis] * frame[2, axis]
    x, y = east / depth, north / depth
    return (
        x / _ARCSEC,
        y / _ARCSEC,
        (d_east - x * d_depth) / depth / _ARCSEC,
        (d_north - y * d_depth) / depth / _ARCSEC,
    )


@jit
def _cut(n: int, x: Floats, y: Floats, var: Floats, clip: float, agrees: Flags, work: Floats) -> None:
    """Mark points that agree: with their median, then with their mean; of two that disagree neither."""
    for k in range(n):
        agrees[k] = 1 if np.isfinite(x[k]) and np.isfinite(y[k]) and var[k] > 0.0 else 0
    if n == 2:
        far = max(abs(x[0] - x[1]), abs(y[0] - y[1]))
        if not far <= clip * np.sqrt(var[0] + var[1]):
            agrees[0] = agrees[1] = 0
        return
    if n < 2:
        return
    clip2 = clip * clip
    middle_x, var_x = _median(x, var, n, work)
    middle_y, var_y = _median(y, var, n, work)
    for k in range(n):
        # Compared by their squares: roots would be half of the time. What is not a number is not below anything.
        in_x = (x[k] - middle_x) ** 2 <= clip2 * (var[k] + var_x)
        in_y = (y[k] - middle_y) ** 2 <= clip2 * (var[k] + var_y)
        if not (in_x and in_y):
            agrees[k] = 0
    total, sum_x, sum_y = 0.0, 0.0, 0.0
    for k in range(n):
        if agrees[k]:
            w = 1.0 / var[k]
            total += w
            sum_x += w * x[k]
            sum_y += w * y[k]
    if total == 0.0:
        return
    mean_x, mean_y = sum_x / total, sum_y / total
    for k in range(n):
        if agrees[k]:
            far = max((x[k] - mean_x) ** 2, (y[k] - mean_y) ** 2)
            if not far <= clip2 * max(var[k] - 1.0 / total, 0.01 * var[k]):
                agrees[k] = 0


@jit
def _settle(
    offsets: Ints,
    members: Index,
    star: Index,
    place: Floats,
    exposure: Index,
    frames: Floats,
    years: Floats,
    vectors: Floats,
    motion: Floats,
    variance: Singles,
    star_variance: Floats,
    left_out: Flags,
    clip: float,
    turn: Singles,
    weight: Singles,
    pull: Singles,
    inner: Singles,
    outer: Floats,
    star_weight: Floats,
    total: Floats,
    mean: Floats,
    agreeing: Index,
) -> None:
    room = 1
    for g in range(len(star)):
        room = max(room, offsets[g + 1] - offsets[g] + 1)
    x, y, var, work = np.empty(room), np.empty(room), np.empty(room), np.empty((_FEW, 2))
    agrees = np.empty(room, np.uint8)
    for g in range(len(star)):
        start, n = offsets[g], offsets[g + 1] - offsets[g]
        group = members[start : start + n]
        _bring(group, place, exposure, frames, variance, x, y, var, turn[start : start + n])
        points = n
        if star[g] >= 0:
            frame = frames[exposure[group[0]]]
            x[n], y[n], step_x, step_y = _star_place(vectors[star[g]], motion[star[g]], frame)
            var[n] = star_variance[star[g]]
            points = n + 1
            for k in range(n):
                x[k] -= years[exposure[group[k]]] * step_x
                y[k] -= years[exposure[group[k]]] * step_y
        _cut(points, x, y, var, clip, agrees, work)
        kept, sum_w, sum_x, sum_y = 0, 0.0, 0.0, 0.0
        for k in range(n):
            w = agrees[k] / var[k] if not left_out[group[k]] else 0.0
            weight[start + k] = w
            kept += agrees[k]
            if w > 0.0:
                sum_w += w
                sum_x += w * x[k]
                sum_y += w * y[k]
        total[g], agreeing[g] = sum_w, kept
        if sum_w > 0.0:
            mean_x, mean_y = sum_x / sum_w, sum_y / sum_w
        else:
            # Nobody agrees, or all are left out: for the record.
            mean_x, mean_y = _median(x, var, n, work)[0], _median(y, var, n, work)[0]
        mean[g, 0], mean[g, 1] = mean_x, mean_y
        whole_x, whole_y = mean_x, mean_y
        if points > n:
            w = agrees[n] / var[n]
            star_weight[g] = w
            outer[g, 0], outer[g, 1] = x[n] - mean_x, y[n] - mean_y
            if w + sum_w > 0.0:
                whole_x += w / (w + sum_w) * (x[n] - mean_x)
                whole_y += w / (w + sum_w) * (y[n] - mean_y)
        else:
            star_weight[g], outer[g, 0], outer[g, 1] = 0.0, 0.0, 0.0
        for k in range(n):
            pull[start + k, 0], pull[start + k, 1] = whole_x - x[k], whole_y - y[k]
            inner[start + k, 0], inner[start + k, 1] = mean_x - x[k], mean_y - y[k]


def settle(
    groups: Groups,
    stars: StarField,
    place: Floats,
    exposure: Index,
    frames: Floats,
    years: Floats,
    variance: Singles,
    star_variance: Floats,
    clip: float,
    left_out: Flags | None = None,
) -> Means:
    """Robust weighted means of all groups.

    `place`, shape (n, 2): detections in the tangent planes of their exposures, arcsec; `frames`, shape (exposures, 3, 3),
    as `sky.axes` gives them; `years`: epoch of each exposure minus the stars'. Detections that are `left_out` are told
    apart from the mean of the others, but have no weight.

    A detection or star farther from the others than `clip` sigma on either axis does not count; where two that disagree
    are alone, neither does.
    """
    m, g = len(groups.members), len(groups)
    if left_out is None:
        left_out = np.zeros(len(exposure), np.uint8)
    means = Means(
        np.empty((m, 2), np.float32), np.empty(m, np.float32), np.empty((m, 2), np.float32),
        np.empty((m, 2), np.float32),
        np.empty((g, 2)), np.empty(g), np.empty(g), np.empty((g, 2)), np.empty(g, np.int32),
    )  # fmt: skip
    _settle(
        groups.offsets, groups.members, groups.star, place, exposure, frames, years, stars.vectors, stars.motion,
        variance, star_variance, left_out, clip, means.turn, means.weight, means.pull, means.inner, means.outer,
        means.star_weight, means.total, means.mean, means.agreeing,
    )  # fmt: skip
    return means
