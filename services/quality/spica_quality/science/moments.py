"""Sizes, shapes and positions of sources by Gaussian-weighted moments.

Three kernels, one source after the other:

* adaptive moments: the elliptical Gaussian that matches the source is the weight itself (Bernstein
  & Jarvis 2002, AJ 123, 583; Hirata & Seljak 2003, MNRAS 343, 459), so neighbours and noise in the
  wings count little, and for a Gaussian source the result is its covariance;
* windowed centroids with a circular Gaussian of fixed width (source-extractor's XWIN_IMAGE) and
  their errors;
* the radius that holds a fraction of the flux (FLUX_RADIUS).

Pixel coordinates here are zero-based: the first pixel's centre is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Labels = NDArray[np.int32]
Mask = NDArray[np.bool_]

CUT_SIGMA = 4.0
"""The weight is taken as zero beyond this many sigma."""

_MAX_RADIUS_PX = 80.0
_MAX_ITERATIONS = 25
_MIN_VARIANCE_PX2 = 0.09
_MIN_WEIGHT_VARIANCE_PX2 = 0.7
"""A narrower weight would see too few pixels: sums would depend on where in a pixel the source lies."""


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
    """Signal-to-noise ratio of the Gaussian-weighted flux."""

    @property
    def sigma(self) -> Floats:
        """Geometric mean of the axes' standard deviations, px."""
        determinant = np.maximum(self.xx * self.yy - self.xy**2, 0.0)
        return np.asarray(np.sqrt(np.sqrt(determinant)))

    @property
    def axes(self) -> tuple[Floats, Floats, Floats]:
        """Standard deviations along the major and minor axis (px), position angle from +x to +y (rad)."""
        return ellipse(self.xx, self.yy, self.xy)


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
def _adaptive_one(  # noqa: PLR0912, PLR0915 - one pass over the pixels, in one piece for the compiler
    data: Pixels,
    bad: Mask,
    labels: Labels,
    label: int,
    x: float,
    y: float,
    xx: float,
    yy: float,
    xy: float,
) -> tuple[float, float, float, float, float, float, float, bool]:
    """One source; returns x, y, xx, yy, xy, sum of w I, sum of w², and whether it converged."""
    ny, nx = data.shape
    x_start, y_start = x, y
    # What grows fourfold has taken its neighbours in.
    limit = min(4.0 * np.sqrt(xx + yy) + 2.0, _MAX_RADIUS_PX)
    flux, weight2 = 0.0, 0.0
    for _ in range(_MAX_ITERATIONS):
        wxx, wyy = max(xx, _MIN_WEIGHT_VARIANCE_PX2), max(yy, _MIN_WEIGHT_VARIANCE_PX2)
        determinant = wxx * wyy - xy * xy
        if not (determinant > 0.0 and xx * yy > xy * xy):
            return x, y, xx, yy, xy, flux, weight2, False
        ixx, iyy, ixy = wyy / determinant, wxx / determinant, -xy / determinant
        rx = min(CUT_SIGMA * np.sqrt(wxx), _MAX_RADIUS_PX)
        ry = min(CUT_SIGMA * np.sqrt(wyy), _MAX_RADIUS_PX)
        x_lo, x_hi = max(int(np.ceil(x - rx)), 0), min(int(np.floor(x + rx)), nx - 1)
        y_lo, y_hi = max(int(np.ceil(y - ry)), 0), min(int(np.floor(y + ry)), ny - 1)
        flux, weight2 = 0.0, 0.0
        sx, sy, sxx, syy, sxy = 0.0, 0.0, 0.0, 0.0, 0.0
        for j in range(y_lo, y_hi + 1):
            dy = j - y
            for i in range(x_lo, x_hi + 1):
                dx = i - x
                rho2 = ixx * dx * dx + iyy * dy * dy + 2.0 * ixy * dx * dy
                if rho2 > CUT_SIGMA * CUT_SIGMA or bad[j, i]:
                    continue
                other = labels[j, i]
                if other > 0 and other != label:
                    continue
                w = np.exp(-0.5 * rho2)
                weight2 += w * w
                wi = w * data[j, i]
                flux += wi
                sx += wi * dx
                sy += wi * dy
                sxx += wi * dx * dx
                syy += wi * dy * dy
                sxy += wi * dx * dy
        if not flux > 0.0:
            return x, y, xx, yy, xy, flux, weight2, False
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
        if abs(x - x_start) > 2.0 * size + 1.0 or abs(y - y_start) > 2.0 * size + 1.0:
            return x, y, xx, yy, xy, flux, weight2, False
        if size > limit:
            return x, y, xx, yy, xy, flux, weight2, False
        if change < 5e-4 and abs(sx) + abs(sy) < 1e-3:
            return x, y, xx, yy, xy, flux, weight2, True
    return x, y, xx, yy, xy, flux, weight2, False


@jit
def _adaptive_all(
    data: Pixels, bad: Mask, labels: Labels, ids: Labels, start: Floats, rms: Floats, result: Floats
) -> None:
    for k in range(start.shape[0]):
        x, y, xx, yy, xy, flux, weight2, fine = _adaptive_one(
            data, bad, labels, ids[k], start[k, 0], start[k, 1], start[k, 2], start[k, 3], start[k, 4]
        )
        result[k, 0], result[k, 1] = x, y
        if fine:
            result[k, 2], result[k, 3], result[k, 4] = xx, yy, xy
        result[k, 5] = flux / (rms[k] * np.sqrt(weight2)) if weight2 > 0.0 else 0.0


def adaptive_moments(
    data: Pixels,
    bad: Mask,
    labels: Labels,
    ids: Labels,
    x: Floats,
    y: Floats,
    covariance: tuple[Floats, Floats, Floats],
    rms: Floats,
) -> AdaptiveMoments:
    """Fit elliptical Gaussians by adaptive moments.

    Args:
        data: background-subtracted pixels, shape (ny, nx).
        bad: True where a pixel must not be used, shape (ny, nx).
        labels: segmentation map, 0 for sky; pixels of other sources are left out.
        ids: label of each source, shape (n,).
        x: start positions, zero-based, shape (n,).
        y: the same along y.
        covariance: start values of xx, yy, xy in px².
        rms: noise per pixel at each source.

    """
    start = np.stack([x, y, *covariance], axis=1).astype(np.float64)
    start[:, 2:4] = np.maximum(start[:, 2:4], 0.5)
    limit = 0.9 * np.sqrt(start[:, 2] * start[:, 3])
    start[:, 4] = np.clip(start[:, 4], -limit, limit)
    result = np.full((len(x), 6), np.nan)
    _adaptive_all(data, bad, labels, ids.astype(np.int32), start, rms.astype(np.float64), result)
    return AdaptiveMoments(*result.T.copy())


@dataclass(frozen=True, slots=True)
class Windowed:
    """Windowed positions and their errors. Arrays of shape (n_sources,), zero-based pixels."""

    x: Floats
    y: Floats
    error_xx: Floats
    """Variance of x, px²."""
    error_yy: Floats
    error_xy: Floats
    snr: Floats
    converged: Mask


@jit
def _windowed_all(
    data: Pixels,
    bad: Mask,
    start: Floats,
    rms: Floats,
    inverse_gain: float,
    result: Floats,
    converged: Mask,
) -> None:
    ny, nx = data.shape
    for k in range(start.shape[0]):
        x, y, sigma = start[k, 0], start[k, 1], start[k, 2]
        reach = CUT_SIGMA * sigma
        factor = -0.5 / (sigma * sigma)
        noise2 = rms[k] * rms[k]
        moved = 1.0
        for iteration in range(17):
            # The last pass at the final position collects the errors.
            x_lo, x_hi = max(int(np.ceil(x - reach)), 0), min(int(np.floor(x + reach)), nx - 1)
            y_lo, y_hi = max(int(np.ceil(y - reach)), 0), min(int(np.floor(y + reach)), ny - 1)
            total, sx, sy = 0.0, 0.0, 0.0
            exx, eyy, exy, e0 = 0.0, 0.0, 0.0, 0.0
            for j in range(y_lo, y_hi + 1):
                dy = j - y
                for i in range(x_lo, x_hi + 1):
                    dx = i - x
                    r2 = dx * dx + dy * dy
                    if r2 > reach * reach or bad[j, i]:
                        continue
                    value = data[j, i]
                    w = np.exp(factor * r2)
                    variance = w * w * (noise2 + max(value, 0.0) * inverse_gain)
                    total += w * value
                    sx += w * value * dx
                    sy += w * value * dy
                    exx += variance * dx * dx
                    eyy += variance * dy * dy
                    exy += variance * dx * dy
                    e0 += variance
            if not total > 0.0:
                break
            result[k, 2] = 4.0 * exx / (total * total)
            result[k, 3] = 4.0 * eyy / (total * total)
            result[k, 4] = 4.0 * exy / (total * total)
            result[k, 5] = total / np.sqrt(e0)
            if moved < 1e-8:
                converged[k] = True
                break
            if iteration == 16:
                break
            step_x, step_y = 2.0 * sx / total, 2.0 * sy / total
            x, y = x + step_x, y + step_y
            moved = step_x * step_x + step_y * step_y
            if abs(x - start[k, 0]) > reach or abs(y - start[k, 1]) > reach:
                break
        if converged[k]:
            result[k, 0], result[k, 1] = x, y


def windowed_positions(
    data: Pixels, bad: Mask, x: Floats, y: Floats, sigma: Floats, rms: Floats, gain: float
) -> Windowed:
    """Centroids within a circular Gaussian window, and their errors from the pixels' noise.

    Iterates x += 2 sum(w I dx) / sum(w I) as source-extractor does for XWIN_IMAGE; the variance of
    the result is 4 sum(w² s² dx²) / sum(w I)². Where it does not converge, the start position
    stays and the error is at least the window's width over the signal-to-noise ratio.

    Args:
        data: background-subtracted pixels, shape (ny, nx).
        bad: True where a pixel must not be used, same shape.
        x: start positions, zero-based, shape (n,).
        y: the same along y.
        sigma: width of the window in px, shape (n,); source-extractor takes FLUX_RADIUS * 2 / 2.35.
        rms: noise per pixel at each source.
        gain: electrons per unit of `data`; 0 leaves the sources' photon noise out.

    """
    n = len(x)
    start = np.stack([x, y, sigma], axis=1).astype(np.float64)
    result = np.full((n, 6), np.nan)
    result[:, 0], result[:, 1] = x, y
    converged = np.zeros(n, dtype=np.bool_)
    inverse_gain = 1.0 / gain if gain > 0 else 0.0
    _windowed_all(data, bad, start, rms.astype(np.float64), inverse_gain, result, converged)
    lost = ~converged
    snr = np.where(np.isfinite(result[:, 5]), result[:, 5], 0.0)
    floor = (sigma / np.maximum(snr, 1.0)) ** 2
    for column in (2, 3):
        replace = lost | ~np.isfinite(result[:, column])
        result[replace, column] = np.fmax(np.nan_to_num(result[replace, column]), floor[replace])
    result[lost, 4] = 0.0
    x_out, y_out, error_xx, error_yy, error_xy = result[:, :5].T.copy()
    return Windowed(x_out, y_out, error_xx, error_yy, error_xy, snr, converged)


_BINS_PER_PX = 8
_SUBPIXELS = 5


@jit
def _radius_all(
    data: Pixels, bad: Mask, positions: Floats, reach: Floats, target: Floats, result: Floats
) -> None:
    ny, nx = data.shape
    n_bins = int(np.ceil(_MAX_RADIUS_PX * _BINS_PER_PX)) + 2
    growth = np.zeros(n_bins)
    for k in range(positions.shape[0]):
        x, y = positions[k, 0], positions[k, 1]
        r_max = min(reach[k], _MAX_RADIUS_PX)
        used = int(r_max * _BINS_PER_PX) + 1
        growth[: used + 1] = 0.0
        x_lo, x_hi = max(int(np.floor(x - r_max)), 0), min(int(np.ceil(x + r_max)), nx - 1)
        y_lo, y_hi = max(int(np.floor(y - r_max)), 0), min(int(np.ceil(y + r_max)), ny - 1)
        for j in range(y_lo, y_hi + 1):
            for i in range(x_lo, x_hi + 1):
                if bad[j, i]:
                    continue
                dx, dy = i - x, j - y
                r = np.sqrt(dx * dx + dy * dy)
                if r > r_max + 1.0:
                    continue
                # Only near the centre does it matter how a pixel's flux is spread over radii.
                parts = _SUBPIXELS if r < 6.0 else 1
                share = data[j, i] / (parts * parts)
                for b in range(parts):
                    sub_dy = dy + (b + 0.5) / parts - 0.5
                    for a in range(parts):
                        sub_dx = dx + (a + 0.5) / parts - 0.5
                        slot = int(np.sqrt(sub_dx * sub_dx + sub_dy * sub_dy) * _BINS_PER_PX)
                        if slot < used:
                            growth[slot] += share
        total = 0.0
        for slot in range(used):
            previous = total
            total += growth[slot]
            if total >= target[k]:
                inside = (target[k] - previous) / growth[slot]
                result[k] = (slot + inside) / _BINS_PER_PX
                break


def flux_radius(
    data: Pixels, bad: Mask, x: Floats, y: Floats, reach: Floats, flux: Floats, fraction: float = 0.5
) -> Floats:
    """Radius (px) of the circle that holds `fraction` of `flux`; NaN where it is not reached within `reach`.

    Pixels within 6 px of the centre are divided into 5×5 parts; the growth curve is kept in steps
    of 1/8 px and interpolated. Zero-based positions, arrays of shape (n,).
    """
    result = np.full(len(x), np.nan)
    positions = np.stack([x, y], axis=1).astype(np.float64)
    target = np.where(flux > 0, fraction * flux, np.inf).astype(np.float64)
    _radius_all(data, bad, positions, reach.astype(np.float64), target, result)
    return result
