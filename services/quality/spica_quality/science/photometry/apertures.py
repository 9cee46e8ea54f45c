"""Sums of light in circles and ellipses, and the radii that follow from them.

Ellipses are cxx dx² + cyy dy² + cxy dx dy <= r² (source-extractor's CXX_IMAGE, CYY_IMAGE, CXY_IMAGE); a circle has
cxx = cyy = 1, cxy = 0. A pixel on the rim counts by its share inside: each row is divided into thin strips, and
within a strip the share is exact. Areas of circles come out to 0.2 % (rms) at a radius of 2 px, to 0.03 % at 8 px.

Positions are those of the stamp (see `stamps`): its first pixel's centre is 0.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit
from spica_quality.science.photometry.stamps import LOST, MIRRORED, States

Pixels = NDArray[np.float32]

KRON_FACTOR: Final = 2.5
LEAST_KRON: Final = 3.5
"""AUTO apertures are never smaller, in units of A_IMAGE and B_IMAGE (PHOT_AUTOPARAMS 2.5, 3.5)."""
KRON_REACH: Final = 6.0
"""The first moment is taken over the ellipse of this many A_IMAGE, B_IMAGE."""
MOST_KRON: Final = 15.0

_FINE: Final = 8
_COARSE: Final = 4
_FINE_BELOW_PX: Final = 12.0


@jit
def ellipse_area(cxx: float, cyy: float, cxy: float, radius: float) -> float:
    """Area in px²."""
    return 2.0 * np.pi * radius * radius / np.sqrt(4.0 * cxx * cyy - cxy * cxy)


@jit
def ellipse_reach(cxx: float, cyy: float, cxy: float, radius: float) -> tuple[float, float]:
    """How far it goes along x and along y, px."""
    determinant = cxx * cyy - 0.25 * cxy * cxy
    return radius * np.sqrt(cyy / determinant), radius * np.sqrt(cxx / determinant)


@jit
def ellipse_sum(
    values: Pixels, state: States, x: float, y: float, cxx: float, cyy: float, cxy: float, radius: float
) -> tuple[float, float, float]:
    """Sum of the values, area that has a value, and area of those whose value is their mirror pixel's (px²).

    What of the ellipse is beyond the stamp or LOST, is in neither: its area is missing from the first one.
    """
    ny, nx = values.shape
    reach = ellipse_reach(cxx, cyy, cxy, radius)[1]
    strips = _FINE if reach < _FINE_BELOW_PX else _COARSE
    left, right = np.empty(_FINE), np.empty(_FINE)
    flux, area, mirrored = 0.0, 0.0, 0.0
    r2 = radius * radius
    for j in range(max(int(np.floor(y - reach + 0.5)), 0), min(int(np.floor(y + reach + 0.5)), ny - 1) + 1):
        outer_left, inner_left, inner_right, outer_right = 1e30, -1e30, 1e30, -1e30
        for s in range(strips):
            dy = j + (s + 0.5) / strips - 0.5 - y
            root2 = cxy * cxy * dy * dy - 4.0 * cxx * (cyy * dy * dy - r2)
            if root2 <= 0.0:
                left[s], right[s] = 1e30, -1e30
                inner_left, inner_right = 1e30, -1e30
                continue
            middle, half = x - 0.5 * cxy * dy / cxx, 0.5 * np.sqrt(root2) / cxx
            left[s], right[s] = middle - half, middle + half
            outer_left, inner_left = min(outer_left, left[s]), max(inner_left, left[s])
            inner_right, outer_right = min(inner_right, right[s]), max(outer_right, right[s])
        if outer_left > outer_right:
            continue
        first = max(int(np.floor(outer_left + 0.5)), 0)
        last = min(int(np.floor(outer_right + 0.5)), nx - 1)
        # Pixels from `whole` up to `rim` lie inside altogether.
        whole, rim = last + 1, last + 1
        if inner_left < inner_right:
            whole = min(max(int(np.ceil(inner_left + 0.5)), first), last + 1)
            rim = max(min(int(np.floor(inner_right - 0.5)) + 1, last + 1), whole)
        total, n, n_mirrored = 0.0, 0, 0
        for i in range(whole, rim):
            at = np.uint64(i)
            total += values[j, at]
            n += state[j, at] != LOST
            n_mirrored += state[j, at] == MIRRORED
        flux += total
        area += n
        mirrored += n_mirrored
        for part in range(2):
            begin, end = (first, whole) if part == 0 else (rim, last + 1)
            for i in range(begin, end):
                if state[j, i] == LOST:
                    continue
                inside = 0.0
                for s in range(strips):
                    inside += max(min(i + 0.5, right[s]) - max(i - 0.5, left[s]), 0.0)
                inside /= strips
                flux += inside * values[j, i]
                area += inside
                if state[j, i] == MIRRORED:
                    mirrored += inside
    return flux, area, mirrored


@jit
def kron_radius(
    values: Pixels, state: States, x: float, y: float, cxx: float, cyy: float, cxy: float
) -> tuple[float, float]:
    """First moment of the light, sum(r I) / sum(I) within r = 6 (Kron 1980, ApJS 43, 305); 0 where there is none.

    r is in units of A_IMAGE, B_IMAGE along the axes. Also returns the share of the ellipse's pixels that are not
    the source's own: MIRRORED or LOST.
    """
    ny, nx = values.shape
    reach = ellipse_reach(cxx, cyy, cxy, KRON_REACH)[1]
    moment, total, n, n_foreign = 0.0, 0.0, 0, 0
    for j in range(max(int(np.ceil(y - reach)), 0), min(int(np.floor(y + reach)), ny - 1) + 1):
        dy = j - y
        root2 = cxy * cxy * dy * dy - 4.0 * cxx * (cyy * dy * dy - KRON_REACH * KRON_REACH)
        if root2 <= 0.0:
            continue
        middle, half = x - 0.5 * cxy * dy / cxx, 0.5 * np.sqrt(root2) / cxx
        a, b = cyy * dy * dy, cxy * dy
        for i in range(max(int(np.ceil(middle - half)), 0), min(int(np.floor(middle + half)), nx - 1) + 1):
            at = np.uint64(i)
            dx = i - x
            value = values[j, at]
            moment += np.sqrt(max(cxx * dx * dx + b * dx + a, 0.0)) * value
            total += value
            n += 1
            n_foreign += (state[j, at] == LOST) | (state[j, at] == MIRRORED)
    radius = moment / total if total > 0.0 and moment > 0.0 else 0.0
    return min(radius, KRON_REACH), n_foreign / max(n, 1)


@jit
def light_radius(
    values: Pixels, state: States, x: float, y: float, target: float, most: float, start: float
) -> float:
    """Radius (px) of the smallest circle that holds `target`; NaN where none within `most` does.

    Circles grow by a fifth (at least 0.4 px) until one holds enough; between the last two, regula falsi.
    """
    if not target > 0.0:
        return np.nan
    low, high = 0.0, 0.0
    below, above = 0.0, 0.0
    radius = min(start, most)
    while True:
        held = ellipse_sum(values, state, x, y, 1.0, 1.0, 0.0, radius)[0]
        if held >= target:
            high, above = radius, held
            break
        low, below = radius, held
        if radius >= most:
            return np.nan
        radius = min(radius + max(0.2 * radius, 0.4), most)
    side = 0
    for _ in range(30):
        if high - low < 1e-4:
            break
        # Illinois: where one end stays, its weight is halved. The first circle starts from r = 0.
        radius = low + (high - low) * (target - below) / (above - below)
        if not low < radius < high:
            radius = 0.5 * (low + high)
        held = ellipse_sum(values, state, x, y, 1.0, 1.0, 0.0, radius)[0]
        if abs(held - target) < 1e-4 * target:
            return radius
        if held >= target:
            high, above = radius, held
            if side == 1:
                below = target + 0.5 * (below - target)
            side = 1
        else:
            low, below = radius, held
            if side == -1:
                above = target + 0.5 * (above - target)
            side = -1
    return 0.5 * (low + high)
