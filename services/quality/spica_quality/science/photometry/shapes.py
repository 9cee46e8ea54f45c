"""Adaptive moments: sizes and shapes of sources by an elliptical Gaussian that matches each of them.

The Gaussian that matches the source is the weight itself (Bernstein & Jarvis 2002, AJ 123, 583; Hirata & Seljak
2003, MNRAS 343, 459), so neighbours and noise in the wings count little, and for a Gaussian source the result is
its covariance. Pixels of other sources, and such as are not to be trusted (saturated ones among them), are left
out. Coordinates are zero-based.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit
from spica_quality.science.detection.segments import Segments, Sources
from spica_quality.science.flags import Flags
from spica_quality.science.photometry.stamps import (
    SOUND,
    Field,
    States,
    buffers_for,
    cut_stamp,
    field_of,
    room_for,
)

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]

CUT_SIGMA: Final = 4.0
"""The weight is taken as zero beyond this many sigma."""

_MAX_RADIUS_PX: Final = 80.0
_MAX_ITERATIONS: Final = 25
_MIN_VARIANCE_PX2: Final = 0.09
_MIN_WEIGHT_VARIANCE_PX2: Final = 0.7
"""A narrower weight would see too few pixels: sums would depend on where in a pixel the source lies."""

FAILED, CONVERGED, TOO_SMALL = 0, 1, 2
"""How `_adapt` may end; TOO_SMALL: the stamp is."""


@dataclass(frozen=True, slots=True)
class AdaptiveMoments:
    """Best matching elliptical Gaussians. Arrays of shape (n_sources,), float64, zero-based pixels."""

    x: Floats
    y: Floats
    xx: Floats
    """Covariance along x, px²; NaN where the iteration did not come to an end."""
    yy: Floats
    xy: Floats
    snr: Floats
    """Signal-to-noise ratio of the Gaussian-weighted flux, photon noise of the sky only."""

    @property
    def sigma(self) -> Floats:
        """Geometric mean of the axes' standard deviations, px."""
        determinant = np.maximum(self.xx * self.yy - self.xy**2, 0.0)
        return np.asarray(np.sqrt(np.sqrt(determinant)))

    @property
    def axes(self) -> tuple[Floats, Floats, Floats]:
        """Standard deviations along the major and minor axis (px), position angle from +x to +y (rad)."""
        return ellipse(self.xx, self.yy, self.xy)

    @property
    def ellipticity(self) -> tuple[Floats, Floats]:
        """(xx - yy) / (xx + yy) and 2 xy / (xx + yy): 0 for a circle."""
        size = self.xx + self.yy
        return (self.xx - self.yy) / size, 2.0 * self.xy / size


def ellipse(xx: Floats, yy: Floats, xy: Floats) -> tuple[Floats, Floats, Floats]:
    """Major axis, minor axis (standard deviations) and angle in (-pi/2, pi/2] of covariances."""
    mean, half = 0.5 * (xx + yy), 0.5 * (xx - yy)
    root = np.hypot(half, xy)
    return (
        np.sqrt(np.maximum(mean + root, 0.0)),
        np.sqrt(np.maximum(mean - root, 0.0)),
        0.5 * np.arctan2(2.0 * xy, xx - yy),
    )


@jit
def _exponential(t: float) -> float:
    """exp(t) for t in [-8, 0], good to 3e-5, in steps that the compiler does for several pixels at a time.

    The series of exp(t / 16) up to the sixth power, then squared four times.
    """
    s = t * 0.0625
    p = 1.0 + s * (1.0 + s * (0.5 + s * (1 / 6 + s * (1 / 24 + s * (1 / 120 + s * (1 / 720))))))
    p *= p
    p *= p
    p *= p
    return p * p


@jit
def _adapt(  # noqa: PLR0915 - one pass over the pixels, in one piece for the compiler
    values: Pixels,
    state: States,
    start: tuple[float, float],
    now: tuple[float, float, float, float, float],
    limit: float,
    room: tuple[float, float, float, float],
) -> tuple[float, float, float, float, float, float, float, int]:
    """Iterate from `now` (x, y, xx, yy, xy).

    Returns x, y, xx, yy, xy, sum of w I, sum of w², and how it ended. `room`: how far to the
    left, right, bottom and top the weight may go before a larger stamp is needed.
    """
    ny, nx = values.shape
    x, y, xx, yy, xy = now
    flux, weight2 = 0.0, 0.0
    for _ in range(_MAX_ITERATIONS):
        wxx, wyy = max(xx, _MIN_WEIGHT_VARIANCE_PX2), max(yy, _MIN_WEIGHT_VARIANCE_PX2)
        determinant = wxx * wyy - xy * xy
        if not (determinant > 0.0 and xx * yy > xy * xy):
            return x, y, xx, yy, xy, flux, weight2, FAILED
        ixx, iyy, ixy = wyy / determinant, wxx / determinant, -xy / determinant
        rx = min(CUT_SIGMA * np.sqrt(wxx), _MAX_RADIUS_PX)
        ry = min(CUT_SIGMA * np.sqrt(wyy), _MAX_RADIUS_PX)
        if x - rx < room[0] or x + rx > room[1] or y - ry < room[2] or y + ry > room[3]:
            return x, y, xx, yy, xy, flux, weight2, TOO_SMALL
        flux, weight2 = 0.0, 0.0
        sx, sy, sxx, syy, sxy = 0.0, 0.0, 0.0, 0.0, 0.0
        for j in range(max(int(np.ceil(y - ry)), 0), min(int(np.floor(y + ry)), ny - 1) + 1):
            dy = j - y
            # Where the row is within the ellipse ixx dx² + 2 ixy dx dy + iyy dy² <= cut².
            root2 = CUT_SIGMA * CUT_SIGMA * ixx - (ixx * iyy - ixy * ixy) * dy * dy
            if root2 <= 0.0:
                continue
            middle, half = x - ixy * dy / ixx, np.sqrt(root2) / ixx
            left, right = max(middle - half, x - rx), min(middle + half, x + rx)
            a, b, c = -0.5 * ixx, -ixy * dy, -0.5 * iyy * dy * dy
            r0, r1, r2 = 0.0, 0.0, 0.0
            for i in range(max(int(np.ceil(left)), 0), min(int(np.floor(right)), nx - 1) + 1):
                at = np.uint64(i)
                dx = i - x
                w = _exponential(dx * (a * dx + b) + c)
                w = w if state[j, at] == SOUND else 0.0
                weight2 += w * w
                wi = w * values[j, at]
                r0 += wi
                r1 += wi * dx
                r2 += wi * dx * dx
            flux += r0
            sx += r1
            sy += r0 * dy
            sxx += r2
            syy += r0 * dy * dy
            sxy += r1 * dy
        if not flux > 0.0:
            return x, y, xx, yy, xy, flux, weight2, FAILED
        sx, sy, sxx, syy, sxy = sx / flux, sy / flux, sxx / flux, syy / flux, sxy / flux
        # A matched weight halves the covariance and the offset: M = 2 S, step = 2 s. Solving
        # S^-1 = M_source^-1 + M_weight^-1 instead gets a Gaussian right in one step.
        sxx, syy, sxy = sxx - sx * sx, syy - sy * sy, sxy - sx * sy
        s_det = sxx * syy - sxy * sxy
        new_xx, new_yy, new_xy = 2.0 * sxx, 2.0 * syy, 2.0 * sxy
        if s_det > 0.0:
            pxx, pyy, pxy = syy / s_det - ixx, sxx / s_det - iyy, -sxy / s_det - ixy
            p_det = pxx * pyy - pxy * pxy
            if p_det > 0.0 and pxx > 0.0:
                txx, tyy, txy = pyy / p_det, pxx / p_det, -pxy / p_det
                ratio = (txx * tyy - txy * txy) / (xx * yy - xy * xy)
                if 0.1 < ratio < 10.0:
                    new_xx, new_yy, new_xy = txx, tyy, txy
        new_xx, new_yy = max(new_xx, _MIN_VARIANCE_PX2), max(new_yy, _MIN_VARIANCE_PX2)
        change = max(abs(new_xx - xx), abs(new_yy - yy), abs(new_xy - xy)) / (xx + yy)
        x, y = x + 2.0 * sx, y + 2.0 * sy
        xx, yy, xy = new_xx, new_yy, new_xy
        size = np.sqrt(xx + yy)
        if abs(x - start[0]) > 2.0 * size + 1.0 or abs(y - start[1]) > 2.0 * size + 1.0 or size > limit:
            return x, y, xx, yy, xy, flux, weight2, FAILED
        if change < 5e-4 and abs(sx) + abs(sy) < 1e-3:
            return x, y, xx, yy, xy, flux, weight2, CONVERGED
    return x, y, xx, yy, xy, flux, weight2, FAILED


@jit
def _adapt_all(field: Field, start: Floats, rms: Floats, result: Floats) -> None:
    buffers = buffers_for(32)
    most = int(2.0 * _MAX_RADIUS_PX)
    ny, nx = field.data.shape
    for k in range(start.shape[0]):
        x, y, xx, yy, xy = start[k, 0], start[k, 1], start[k, 2], start[k, 3], start[k, 4]
        # What grows fourfold has taken its neighbours in.
        limit = min(4.0 * np.sqrt(xx + yy) + 2.0, _MAX_RADIUS_PX)
        half = min(int(1.3 * CUT_SIGMA * np.sqrt(max(xx, yy))) + 4, most)
        flux, weight2, end = 0.0, 0.0, FAILED
        while True:
            buffers = room_for(half, buffers)
            y0, x0, values, state = cut_stamp(field, k + 1, start[k, 0], start[k, 1], half, buffers)
            sy, sx = values.shape
            # At the frame's edge no larger stamp shows more.
            room = (
                -1e9 if x0 == 0 or half >= most else 0.0,
                1e9 if x0 + sx == nx or half >= most else sx - 1.0,
                -1e9 if y0 == 0 or half >= most else 0.0,
                1e9 if y0 + sy == ny or half >= most else sy - 1.0,
            )
            x, y, xx, yy, xy, flux, weight2, end = _adapt(
                values,
                state,
                (start[k, 0] - x0, start[k, 1] - y0),
                (x - x0, y - y0, xx, yy, xy),
                limit,
                room,
            )
            x, y = x + x0, y + y0
            if end != TOO_SMALL:
                break
            half = min(2 * half, most)
        result[k, 0], result[k, 1] = x, y
        if end == CONVERGED:
            result[k, 2], result[k, 3], result[k, 4] = xx, yy, xy
        result[k, 5] = flux / (rms[k] * np.sqrt(weight2)) if weight2 > 0.0 else 0.0


def adaptive_moments(
    data: Pixels, flags: Flags, sources: Sources, segments: Segments, rms: Floats, least_sigma_px: float = 0.7
) -> AdaptiveMoments:
    """Fit elliptical Gaussians by adaptive moments.

    Args:
        data: background-subtracted pixels, shape (ny, nx). Flagged pixels are not looked at.
        flags: why pixels are not to be trusted, same shape.
        sources: where to start, n of them.
        segments: which pixels belong to which source; source k has label k + 1.
        rms: noise per pixel at each source, shape (n,), in the unit of the data.
        least_sigma_px: isophotal moments are made at least 0.8 of this size squared to start with: a good value
            is the stars' size.

    """
    start = np.stack([sources.x, sources.y, sources.xx, sources.yy, sources.xy], axis=1).astype(np.float64)
    start[:, 2:4] = np.maximum(start[:, 2:4], max(0.8 * least_sigma_px**2, 0.5))
    limit = 0.9 * np.sqrt(start[:, 2] * start[:, 3])
    start[:, 4] = np.clip(start[:, 4], -limit, limit)
    result = np.full((len(start), 6), np.nan)
    _adapt_all(field_of(data, flags, segments), start, np.asarray(rms, np.float64), result)
    return AdaptiveMoments(*result.T.copy())
