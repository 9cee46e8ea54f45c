"""Shares out the pixels of a divided group that lie below its branches.

A pixel goes to the source that gives most light there, each continued as an elliptical Moffat profile through its own
peak and the rim of its branch. (Bertin & Arnouts draw lots by bivariate Gaussians; the wings of stars are no
Gaussians, and lots are not repeatable.) What no profile reaches goes to the neighbouring source.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Ints = NDArray[np.int32]

WING_BETA = 2.5
"""Exponent of the profiles."""

MOST_PEDESTAL = 0.9
"""Of a branch's rim may be the light of brighter neighbours."""

_REACH = 0.1
"""Profiles go as far as they give this share of the threshold."""

_MAX_REACH_PX = 300.0


@jit
def profiles(
    rows: Ints,
    x0: Ints,
    first: Ints,
    local: Ints,
    heights: Pixels,
    n_parts: int,
    core: Ints,
) -> Floats:
    """Per part: position, shape (unit area) and, of its branch, peak, rim, area and the pixel of the peak.

    Columns: x, y, cxx, cyy, cxy, peak, rim, area, pixel, with rho² = cxx dx² + cyy dy² + cxy dx dy.
    """
    found = np.zeros((n_parts, 9))
    sums = np.zeros((n_parts, 6))
    found[:, 6] = np.inf
    x_peak, y_peak = np.zeros(n_parts), np.zeros(n_parts)
    for r in range(rows.size):
        for i in range(local[r], local[r + 1]):
            k = core[i]
            if k < 0:
                continue
            value = heights[first[r] + i - local[r]]
            if value > found[k, 5]:
                found[k, 5], found[k, 8] = value, i
                x_peak[k], y_peak[k] = x0[r] + i - local[r], rows[r]
            found[k, 6] = min(found[k, 6], value)
            found[k, 7] += 1.0
    for r in range(rows.size):
        for i in range(local[r], local[r + 1]):
            k = core[i]
            if k < 0:
                continue
            dx, dy = x0[r] + i - local[r] - x_peak[k], rows[r] - y_peak[k]
            sums[k, 0] += 1.0
            sums[k, 1] += dx
            sums[k, 2] += dy
            sums[k, 3] += dx * dx
            sums[k, 4] += dy * dy
            sums[k, 5] += dx * dy
    for k in range(n_parts):
        count = sums[k, 0]
        mx, my = sums[k, 1] / count, sums[k, 2] / count
        # A pixel has a width of its own.
        xx = sums[k, 3] / count - mx * mx + 1.0 / 12.0
        yy = sums[k, 4] / count - my * my + 1.0 / 12.0
        xy = sums[k, 5] / count - mx * my
        root = np.sqrt(max(xx * yy - xy * xy, 1e-6))
        found[k, 0], found[k, 1] = x_peak[k], y_peak[k]
        found[k, 2], found[k, 3], found[k, 4] = yy / root, xx / root, -2.0 * xy / root
    return found


@jit
def share_out(
    rows: Ints,
    x0: Ints,
    x1: Ints,
    first: Ints,
    local: Ints,
    up: Ints,
    down: Ints,
    floor: float,
    parts: Floats,
    core: Ints,
) -> None:
    """Give every pixel that is in no branch to a part."""
    n_runs, n = rows.size, core.size
    owner = np.full(n, -1, np.int32)
    most_light = np.zeros(n, np.float32)
    y_first, y_last = rows[0], rows[n_runs - 1]
    row_run = np.zeros(y_last - y_first + 2, np.int32)
    for r in range(n_runs):
        row_run[rows[r] - y_first + 1] = r + 1
    # From the highest, so that each is known to stand on the light of those before.
    for k in np.argsort(-parts[:, 5], kind="mergesort"):
        x, y, cxx, cyy, cxy = parts[k, 0], parts[k, 1], parts[k, 2], parts[k, 3], parts[k, 4]
        peak, rim, area = parts[k, 5], parts[k, 6], parts[k, 7]
        below = min(float(most_light[int(parts[k, 8])]), MOST_PEDESTAL * rim)
        peak, rim = peak - below, rim - below
        # Moffat: peak (1 + s rho²)^-beta, with the rim's height at the branch's area.
        ratio = max(peak / rim, 1.05)
        s = (ratio ** (1.0 / WING_BETA) - 1.0) * np.pi / area
        if peak <= _REACH * floor:
            continue
        reach2 = ((peak / (_REACH * floor)) ** (1.0 / WING_BETA) - 1.0) / s
        wide = min(np.sqrt(reach2 * cyy) + 1.0, _MAX_REACH_PX)
        tall = min(np.sqrt(reach2 * cxx) + 1.0, _MAX_REACH_PX)
        for j in range(max(int(y - tall), y_first), min(int(y + tall), y_last) + 1):
            dy = j - y
            for r in range(row_run[j - y_first], row_run[j - y_first + 1]):
                for c in range(max(x0[r], int(x - wide)), min(x1[r], int(x + wide) + 1)):
                    i = local[r] + c - x0[r]
                    dx = c - x
                    rho2 = cxx * dx * dx + cyy * dy * dy + cxy * dx * dy
                    if rho2 > reach2:
                        continue
                    light = peak * (1.0 + s * rho2) ** (-WING_BETA)
                    if light > most_light[i]:
                        most_light[i] = light
                        owner[i] = k
    _flood(x0, x1, local, up, down, owner, core)


@jit
def _flood(x0: Ints, x1: Ints, local: Ints, up: Ints, down: Ints, owner: Ints, core: Ints) -> None:
    """Give each pixel to its owner, and those without one to the source next to them, outwards."""
    n = core.size
    queue, begin, end = np.empty(n, np.int32), 0, 0
    for i in range(n):
        if core[i] < 0:
            core[i] = owner[i]
        if core[i] >= 0:
            queue[end] = i
            end += 1
    if end == n:
        return
    run_of = np.empty(n, np.int32)
    for r in range(x0.size):
        run_of[local[r] : local[r + 1]] = r
    while begin < end:
        i = queue[begin]
        begin += 1
        r = run_of[i]
        x = x0[r] + i - local[r]
        for low, high in ((np.int32(r), np.int32(r + 1)), (up[r, 0], up[r, 1]), (down[r, 0], down[r, 1])):
            for q in range(low, high):
                for column in range(max(x - 1, x0[q]), min(x + 2, x1[q])):
                    other = local[q] + column - x0[q]
                    if core[other] < 0:
                        core[other] = core[i]
                        queue[end] = other
                        end += 1
