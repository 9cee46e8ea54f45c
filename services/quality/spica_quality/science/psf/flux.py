"""Each star's own part in the model: its flux, its exact position, and how far its pixels are to be believed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit
from spica_quality.science.psf.model import render_gradient
from spica_quality.science.psf.stamps import Stamps

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Bools = NDArray[np.bool_]

_GROSS = 10.0
_MOST_SHIFT_PX = 0.5


@dataclass(frozen=True, slots=True)
class NoiseModel:
    """What a pixel's variance is made of: sky² + light / gain + (accuracy × light)²."""

    gain_e_per_adu: float
    """0: photon noise is left out."""
    accuracy: float = 0.01
    """How right the model can be, relative to its value; keeps a few bright stars from deciding everything."""


@dataclass(slots=True)
class StarFits:
    """Per star, shape (n,), as the current model has it."""

    flux: Floats
    """Total, adu."""
    dx: Floats
    """Centre, relative to that of the stamp's middle pixel, px."""
    dy: Floats
    weight: Pixels
    """Of each pixel in the fit of the model, 1/adu²; shape (n, k, k)."""
    chi2: Floats
    """Sum over the pixels of the core."""
    dof: Floats
    residual: Floats
    """Sum of |data - model| over the core, less what noise alone would give, over the flux."""

    @property
    def reduced(self) -> Floats:
        """chi² per degree of freedom; infinite where there is none."""
        return np.where(self.dof > 0, self.chi2 / np.maximum(self.dof, 1.0), np.inf)


def begin(stamps: Stamps) -> StarFits:
    """Nothing known but where the stars are."""
    n = len(stamps)
    return StarFits(
        np.zeros(n),
        stamps.x - stamps.column,
        stamps.y - stamps.row,
        np.zeros_like(stamps.data),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n),
    )


def refit(
    fits: StarFits,
    stamps: Stamps,
    cube: Pixels,
    terms: Pixels,
    step_px: float,
    noise: NoiseModel,
    core_px: float,
    *,
    clip_sigma: float = np.inf,
    recentre: bool = True,
) -> None:
    """Bring fluxes, positions, weights and chi² up to date with a model.

    Args:
        fits: overwritten.
        stamps: the stars.
        cube: the model, shape (n_coef, m, m).
        terms: its polynomials at the stars, shape (n, n_coef).
        step_px: distance of its samples.
        noise: how pixels scatter.
        core_px: chi² is summed up to this radius.
        clip_sigma: pixels farther off than this get no weight.
        recentre: fit the positions too; by at most half a pixel a time.

    """
    inverse_gain = 1.0 / noise.gain_e_per_adu if noise.gain_e_per_adu > 0 else 0.0
    _refit_all(
        cube, terms, step_px, stamps.data, stamps.usable, stamps.rms, inverse_gain, noise.accuracy**2,
        clip_sigma, core_px, 1 if recentre else 0,
        fits.flux, fits.dx, fits.dy, fits.weight, fits.chi2, fits.dof, fits.residual,
    )  # fmt: skip


@jit
def _star_samples(cube: Pixels, terms: Pixels, grid: Pixels) -> None:
    """The model at one star, normalised to a sum of 1."""
    n_coef, m, _ = cube.shape
    total = 0.0
    for j in range(m):
        for i in range(m):
            grid[j, i] = terms[0] * cube[0, j, i]
        for c in range(1, n_coef):
            for i in range(m):
                grid[j, i] += terms[c] * cube[c, j, i]
        for i in range(m):
            total += grid[j, i]
    factor = np.float32(1.0 / total)
    for j in range(m):
        for i in range(m):
            grid[j, i] *= factor


@jit
def _newton(
    data: Pixels, usable: Bools, stamp: Pixels, by_x: Pixels, by_y: Pixels, flux: float, sky: float,
    inverse_gain: float, accuracy2: float, move: bool,
) -> tuple[float, float, float]:  # fmt: skip
    """One step of the weighted fit of flux and position."""
    k = data.shape[0]
    a, b = np.zeros((3, 3)), np.zeros(3)
    for j in range(k):
        for i in range(k):
            if not usable[j, i]:
                continue
            p = stamp[j, i]
            light = max(flux * p, 0.0)
            w = 1.0 / (sky + light * inverse_gain + accuracy2 * light * light)
            residual = data[j, i] - flux * p
            if move and residual * residual * w > _GROSS * _GROSS:
                continue
            gx, gy = flux * by_x[j, i], flux * by_y[j, i]
            a[0, 0] += w * p * p
            a[0, 1] += w * p * gx
            a[0, 2] += w * p * gy
            a[1, 1] += w * gx * gx
            a[1, 2] += w * gx * gy
            a[2, 2] += w * gy * gy
            b[0] += w * p * residual
            b[1] += w * gx * residual
            b[2] += w * gy * residual
    if not a[0, 0] > 0.0:
        return 0.0, 0.0, 0.0
    if not (move and a[1, 1] > 0.0 and a[2, 2] > 0.0):
        return b[0] / a[0, 0], 0.0, 0.0
    a[1, 0], a[2, 0], a[2, 1] = a[0, 1], a[0, 2], a[1, 2]
    for q in range(3):
        a[q, q] *= 1.0001
    step = np.linalg.solve(a, b)
    return step[0], step[1], step[2]


@jit
def _judge(
    data: Pixels, usable: Bools, stamp: Pixels, flux: float, dx: float, dy: float, sky: float,
    inverse_gain: float, accuracy2: float, clip: float, reach: float, core: float, weight: Pixels,
) -> tuple[float, float, float]:  # fmt: skip
    """Weights of the pixels; returns chi², degrees of freedom and the excess of |residual| over the core."""
    k = data.shape[0]
    chi2, dof, excess = 0.0, -3.0, 0.0
    for j in range(k):
        for i in range(k):
            weight[j, i] = 0.0
            rx, ry = i - k // 2 - dx, j - k // 2 - dy
            if not usable[j, i] or abs(rx) > reach or abs(ry) > reach:
                continue
            light = max(flux * stamp[j, i], 0.0)
            plain = sky + light * inverse_gain
            w = 1.0 / (plain + accuracy2 * light * light)
            residual = data[j, i] - flux * stamp[j, i]
            if residual * residual * w <= clip * clip:
                weight[j, i] = w
            if rx * rx + ry * ry < core * core:
                chi2 += residual * residual * w
                dof += 1.0
                # sqrt(2 / pi): the mean of |noise| in units of its standard deviation.
                excess += abs(residual) - 0.7978845608028654 * np.sqrt(plain)
    return chi2, dof, excess


@jit
def _refit_all(
    cube: Pixels, terms: Pixels, step: float, data: Pixels, usable: Bools, rms: Floats, inverse_gain: float,
    accuracy2: float, clip: float, core: float, moves: int, flux: Floats, dx: Floats, dy: Floats, weight: Pixels,
    chi2: Floats, dof: Floats, residual: Floats,
) -> None:  # fmt: skip
    n, k, _ = data.shape
    m = cube.shape[1]
    grid = np.empty((m, m), np.float32)
    stamp, by_x, by_y = (
        np.empty((k, k), np.float32),
        np.empty((k, k), np.float32),
        np.empty((k, k), np.float32),
    )
    for s in range(n):
        _star_samples(cube, terms[s], grid)
        sky = rms[s] * rms[s]
        start_x, start_y = dx[s], dy[s]
        for turn in range(1 + moves):
            render_gradient(grid, step, dx[s], dy[s], stamp, by_x, by_y)
            gained, to_x, to_y = _newton(
                data[s], usable[s], stamp, by_x, by_y, flux[s], sky, inverse_gain, accuracy2, turn > 0
            )
            flux[s] += gained
            dx[s] = min(max(dx[s] + to_x, start_x - _MOST_SHIFT_PX), start_x + _MOST_SHIFT_PX)
            dy[s] = min(max(dy[s] + to_y, start_y - _MOST_SHIFT_PX), start_y + _MOST_SHIFT_PX)
        if moves:
            render_gradient(grid, step, dx[s], dy[s], stamp, by_x, by_y)
        chi2[s], dof[s], residual[s] = _judge(
            data[s], usable[s], stamp, flux[s], dx[s], dy[s], sky, inverse_gain, accuracy2, clip,
            (m // 2) * step, core, weight[s],
        )  # fmt: skip
        residual[s] = residual[s] / flux[s] if flux[s] > 0.0 else np.inf
