"""One Moffat profile through the pixels of a few bright stars: what the model begins with.

Common to all are the profile's width, shape and exponent; each star has its own flux and centre. The common part
is found by the Schur complement: each star's own unknowns are eliminated before the stars are summed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit
from spica_quality.science.psf.flux import NoiseModel
from spica_quality.science.psf.moffat import (
    LEAST_B,
    MOST_B,
    Moffat,
    damped_system,
    described,
    moffat_pixel,
    quadrature,
    start_parameters,
)
from spica_quality.science.psf.stamps import Stamps

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Bools = NDArray[np.bool_]

_PIXELS = 8000
_LEAST_STARS, _MOST_STARS = 8, 40
_RADIUS_FWHM = 2.0
_ACCURACY = 0.03
_STEPS = 25


def common_moffat(stamps: Stamps, fwhm_px: float, noise: NoiseModel) -> Moffat:
    """Fit one elliptical Moffat profile, integrated over pixels, to the brightest stars; centred at 0.

    Pixels within two FWHM of the centre count. Beyond one, what is 5 sigma above three times the profile belongs to a
    neighbour and is left out.

    Args:
        stamps: the stars.
        fwhm_px: rough width.
        noise: how pixels scatter.

    """
    radius = min(_RADIUS_FWHM * fwhm_px, 0.5 * stamps.size)
    most = int(np.clip(_PIXELS / (np.pi * radius**2), _LEAST_STARS, _MOST_STARS))
    signal = np.where(stamps.usable, stamps.data, np.float32(0.0)).sum(axis=(1, 2)) / stamps.rms
    few = stamps.select(np.argsort(-signal, kind="stable")[:most])
    p = start_parameters(1.0, 0.95 * fwhm_px, beta=3.0)
    shape = np.array([p[3], p[4], p[5], p[6]])
    own = np.stack([np.zeros(len(few)), few.x - few.column, few.y - few.row], axis=1)
    nodes, weights = quadrature(p, 1.0)
    inverse_gain = 1.0 / noise.gain_e_per_adu if noise.gain_e_per_adu > 0 else 0.0
    accuracy2 = max(noise.accuracy, _ACCURACY) ** 2
    fine = _fit_all(
        few.data,
        few.usable,
        few.rms,
        inverse_gain,
        accuracy2,
        radius,
        fwhm_px,
        nodes,
        weights,
        shape,
        own,
        _STEPS,
    )
    return described(np.array([1.0, 0.0, 0.0, *shape]), bool(fine))


@jit
def _one_star(
    data: Pixels, usable: Bools, sky: float, inverse_gain: float, accuracy2: float, radius: float, inner: float,
    nodes: Floats, weights: Floats, shape: Floats, own: Floats, matrix: Floats, vector: Floats,
) -> float:  # fmt: skip
    """Normal equations of flux, x, y (0 to 2) and the shape (3 to 6); returns chi² of the profile."""
    k = data.shape[0]
    p = np.array([1.0, own[1], own[2], shape[0], shape[1], shape[2], shape[3]])
    slope, g = np.empty(7), np.empty(7)
    matrix[:] = 0.0
    vector[:] = 0.0
    chi2 = 0.0
    for j in range(k):
        for i in range(k):
            x, y = float(i - k // 2), float(j - k // 2)
            r2 = (x - own[1]) ** 2 + (y - own[2]) ** 2
            if not usable[j, i] or r2 > radius * radius:
                continue
            value = moffat_pixel(p, x, y, 1.0, nodes, weights, slope)
            light = max(own[0] * value, 0.0)
            if r2 > inner * inner and data[j, i] > 3.0 * light + 5.0 * np.sqrt(sky):
                continue
            w = 1.0 / (sky + light * inverse_gain + accuracy2 * light * light)
            residual = data[j, i] - own[0] * value
            chi2 += w * residual * residual
            g[0] = value
            for a in range(1, 7):
                g[a] = own[0] * slope[a]
            for a in range(7):
                vector[a] += w * g[a] * residual
                for e in range(7):
                    matrix[a, e] += w * g[a] * g[e]
    return chi2


@jit
def _flux(
    data: Pixels, usable: Bools, radius: float, nodes: Floats, weights: Floats, shape: Floats, own: Floats
) -> float:
    """Plain least-squares flux of the profile, to begin with."""
    k = data.shape[0]
    p = np.array([1.0, own[1], own[2], shape[0], shape[1], shape[2], shape[3]])
    slope = np.empty(7)
    above, below = 0.0, 0.0
    for j in range(k):
        for i in range(k):
            x, y = float(i - k // 2), float(j - k // 2)
            if usable[j, i] and (x - own[1]) ** 2 + (y - own[2]) ** 2 <= radius * radius:
                value = moffat_pixel(p, x, y, 1.0, nodes, weights, slope)
                above += value * data[j, i]
                below += value * value
    return above / below if below > 0.0 else 0.0


@jit
def _fit_all(
    data: Pixels, usable: Bools, rms: Floats, inverse_gain: float, accuracy2: float, radius: float, inner: float,
    nodes: Floats, weights: Floats, shape: Floats, own: Floats, most: int,
) -> bool:  # fmt: skip
    """Gauss-Newton with damping; `shape` and `own` are overwritten. Weights follow the model from step to step."""
    n = data.shape[0]
    matrix, vector = np.empty((n, 7, 7)), np.empty((n, 7))
    for s in range(n):
        own[s, 0] = _flux(data[s], usable[s], inner, nodes, weights, shape, own[s])
    best, damping = np.inf, 1e-3
    kept_shape, kept_own = shape.copy(), own.copy()
    kept_matrix, kept_vector = matrix.copy(), vector.copy()
    for _ in range(most):
        chi2 = 0.0
        for s in range(n):
            if own[s, 0] > 0.0:
                chi2 += _one_star(
                    data[s], usable[s], rms[s] * rms[s], inverse_gain, accuracy2, radius, inner, nodes, weights,
                    shape, own[s], matrix[s], vector[s],
                )  # fmt: skip
        if chi2 <= best * (1.0 + 1e-3):
            done = best - chi2 < 1e-4 * chi2
            best = chi2
            kept_shape[:], kept_own[:] = shape, own
            kept_matrix[:], kept_vector[:] = matrix, vector
            damping = max(0.1 * damping, 1e-6)
            if done:
                return True
        else:
            damping *= 10.0
            if damping > 1e6:
                break
        shape[:], own[:] = kept_shape, kept_own
        _step(kept_matrix, kept_vector, damping, shape, own)
    shape[:], own[:] = kept_shape, kept_own
    return False


@jit
def _step(matrix: Floats, vector: Floats, damping: float, shape: Floats, own: Floats) -> None:
    """One damped step of all unknowns, the shape kept to sound values."""
    common, right = np.zeros((4, 4)), np.zeros(4)
    inverses = np.zeros((len(own), 3, 3))
    for s in range(len(own)):
        if not own[s, 0] > 0.0:
            continue
        block = matrix[s, :3, :3].copy()
        for a in range(3):
            block[a, a] = block[a, a] * (1.0 + damping) + 1e-300
        inverses[s] = np.linalg.inv(block)
        cross = np.ascontiguousarray(matrix[s, 3:, :3])
        through = cross @ inverses[s]
        common += matrix[s, 3:, 3:] - through @ np.ascontiguousarray(cross.T)
        right += vector[s, 3:] - through @ np.ascontiguousarray(vector[s, :3])
    change = np.linalg.solve(*damped_system(common, right, damping, 3, shape[3]))
    # Not more than halving or doubling the square of the width at a time.
    scale = 1.0
    trace = shape[0] + shape[1]
    while scale > 1e-3:
        a, b, c = shape[0] + scale * change[0], shape[1] + scale * change[1], shape[2] + scale * change[2]
        if 0.5 * trace < a + b < 2.0 * trace and a > 0.0 and b > 0.0 and a * b > 1.02 * c * c:
            break
        scale *= 0.5
    shape[:3] += scale * change[:3]
    shape[3] = min(max(shape[3] + scale * change[3], LEAST_B), MOST_B)
    for s in range(len(own)):
        if own[s, 0] > 0.0:
            left = vector[s, :3] - np.ascontiguousarray(matrix[s, :3, 3:]) @ (scale * change)
            move = inverses[s] @ left
            own[s, 0] += scale * move[0]
            own[s, 1] += min(max(scale * move[1], -0.5), 0.5)
            own[s, 2] += min(max(scale * move[2], -0.5), 0.5)
