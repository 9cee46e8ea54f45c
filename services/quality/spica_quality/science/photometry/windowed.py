"""Windowed positions and shapes: moments within a circular Gaussian (source-extractor's XWIN_IMAGE and relatives).

The window's sigma is the half-light diameter / 2.35, as source-extractor takes it. The window is the product of a
function of x and one of y: no exponential is taken per pixel.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit
from spica_quality.science.photometry.stamps import LOST, States

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]

WINDOW_SIGMA: Final = 4.0
"""The window ends at this many sigma."""
_MOST_STEPS: Final = 20
_LAST_STEP2_PX2: Final = 1e-8
_LEAST_PACE: Final = 0.4
_MOST_PACE: Final = 2.0


@jit
def _window(centre: float, sigma: float, first: int, last: int, weight: Floats) -> None:
    factor = -0.5 / (sigma * sigma)
    for i in range(first, last + 1):
        weight[i] = np.exp(factor * (i - centre) * (i - centre))


@jit
def _rows(centre: float, reach: float, n: int) -> tuple[int, int]:
    return max(int(np.ceil(centre - reach)), 0), min(int(np.floor(centre + reach)), n - 1)


@jit
def _pace(pace: float, left: float, last: float) -> float:
    """How much of `left` to go next, when going `pace` times `last` has left so much of it."""
    if last == 0.0:
        return pace
    return min(max(pace / max(1.0 - left / last, 0.1), _LEAST_PACE), _MOST_PACE)


@jit
def centre(
    values: Pixels, x_start: float, y_start: float, sigma: float, wx: Floats, wy: Floats
) -> tuple[float, float, bool]:
    """Position at which the windowed first moments vanish: x += 2 sum(w I dx) / sum(w I), again and again.

    The factor 2 is right where the window is as wide as the light; what it should be is learnt from step to step,
    for each axis (secants).

    wx and wy are room for as many numbers as the stamp has columns and rows. Where the iteration leaves the
    window, finds no light or does not end, the start position is returned, and False.
    """
    ny, nx = values.shape
    reach = WINDOW_SIGMA * sigma
    x, y = x_start, y_start
    pace_x, pace_y = 1.0, 1.0
    last_x, last_y = 0.0, 0.0
    for _ in range(_MOST_STEPS):
        x_lo, x_hi = _rows(x, reach, nx)
        y_lo, y_hi = _rows(y, reach, ny)
        _window(x, sigma, x_lo, x_hi, wx)
        _window(y, sigma, y_lo, y_hi, wy)
        total, sx, sy = 0.0, 0.0, 0.0
        for j in range(y_lo, y_hi + 1):
            dy = j - y
            half = np.sqrt(max(reach * reach - dy * dy, 0.0))
            row, row_x = 0.0, 0.0
            for i in range(max(int(np.ceil(x - half)), 0), min(int(np.floor(x + half)), nx - 1) + 1):
                at = np.uint64(i)
                wi = wx[at] * values[j, at]
                row += wi
                row_x += wi * (i - x)
            total += wy[j] * row
            sx += wy[j] * row_x
            sy += wy[j] * dy * row
        if not total > 0.0:
            return x_start, y_start, False
        left_x, left_y = 2.0 * sx / total, 2.0 * sy / total
        pace_x, pace_y = _pace(pace_x, left_x, last_x), _pace(pace_y, left_y, last_y)
        last_x, last_y = left_x, left_y
        step_x, step_y = pace_x * left_x, pace_y * left_y
        x, y = x + step_x, y + step_y
        if not (abs(x - x_start) <= reach and abs(y - y_start) <= reach):
            return x_start, y_start, False
        if step_x * step_x + step_y * step_y < _LAST_STEP2_PX2:
            return x, y, True
    return x_start, y_start, False


@jit
def moments(
    values: Pixels,
    state: States,
    x: float,
    y: float,
    sigma: float,
    noise2: float,
    inverse_gain: float,
    wx: Floats,
    wy: Floats,
) -> tuple[float, float, float, float, float, float, float]:
    """What the window holds at a position; `noise2` is a pixel's variance, and light adds I * inverse_gain.

    Returns xx, yy, xy (second moments, px², of light and window together), the variances of x and y and their
    covariance, 4 sum(w² s² dx²) / sum(w I)², and the signal-to-noise ratio sum(w I) / sqrt(sum(w² s²)).
    All NaN, and 0 for the last, where there is no light.
    """
    ny, nx = values.shape
    reach = WINDOW_SIGMA * sigma
    x_lo, x_hi = _rows(x, reach, nx)
    y_lo, y_hi = _rows(y, reach, ny)
    _window(x, sigma, x_lo, x_hi, wx)
    _window(y, sigma, y_lo, y_hi, wy)
    total, sxx, syy, sxy = 0.0, 0.0, 0.0, 0.0
    e0, exx, eyy, exy = 0.0, 0.0, 0.0, 0.0
    for j in range(y_lo, y_hi + 1):
        dy = j - y
        half = np.sqrt(max(reach * reach - dy * dy, 0.0))
        r0, r1, r2, v0, v1, v2 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(max(int(np.ceil(x - half)), 0), min(int(np.floor(x + half)), nx - 1) + 1):
            at = np.uint64(i)
            value, w, dx = values[j, at], wx[at], i - x
            known = state[j, at] != LOST
            wi = w * value
            r0 += wi
            r1 += wi * dx
            r2 += wi * dx * dx
            variance = w * w * (known * noise2 + max(value, 0.0) * inverse_gain)
            v0 += variance
            v1 += variance * dx
            v2 += variance * dx * dx
        w, w2 = wy[j], wy[j] * wy[j]
        total += w * r0
        sxx += w * r2
        syy += w * dy * dy * r0
        sxy += w * dy * r1
        e0 += w2 * v0
        exx += w2 * v2
        eyy += w2 * dy * dy * v0
        exy += w2 * dy * v1
    if not (total > 0.0 and e0 > 0.0):
        return np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, 0.0
    scale = 4.0 / (total * total)
    return (
        *(sxx / total, syy / total, sxy / total),
        *(scale * exx, scale * eyy, scale * exy),
        total / np.sqrt(e0),
    )
