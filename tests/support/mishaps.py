"""Exposures on which something went wrong: guiding lost, two images, out of focus, half in the dark, no sky at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from tests.support.ccdsim import Exposure, Recipe, simulate

Pixels = NDArray[np.float32]

_FINE = 5
"""Kernels are drawn on parts of a pixel."""


def smear(length_px: float, angle_deg: float) -> Pixels:
    """Kernel of an exposure during which the telescope drifted along a line at constant speed."""
    along = (np.arange(2001) / 2000.0 - 0.5) * length_px
    return _kernel(along * np.cos(np.radians(angle_deg)), along * np.sin(np.radians(angle_deg)))


def jump(dx_px: float, dy_px: float, second: float) -> Pixels:
    """Kernel of an exposure that spent a part of its time elsewhere; `second`: flux there relative to the first."""
    return _kernel(np.array([0.0, dx_px]), np.array([0.0, dy_px]), np.array([1.0, second]))


def annulus(outer_px: float, inner_share: float = 0.4) -> Pixels:
    """Kernel of an obstructed telescope out of focus."""
    half = int(np.ceil(outer_px)) + 1
    n = (2 * half + 1) * _FINE
    axis = (np.arange(n) - (n - 1) / 2.0) / _FINE
    radius = np.hypot(axis[:, None], axis[None, :])
    ring = ((radius <= outer_px) & (radius >= inner_share * outer_px)).astype(np.float64)
    kernel = ring.reshape(2 * half + 1, _FINE, 2 * half + 1, _FINE).sum(axis=(1, 3))
    return (kernel / kernel.sum()).astype(np.float32)


def _kernel(
    x: NDArray[np.float64], y: NDArray[np.float64], weight: NDArray[np.float64] | None = None
) -> Pixels:
    half = int(np.ceil(max(np.abs(x).max(), np.abs(y).max()))) + 1
    edges = np.arange(-half - 0.5, half + 1.0)
    kernel = np.zeros((2 * half + 1, 2 * half + 1))
    weight = np.ones_like(x) if weight is None else weight
    # Shared linearly among four pixels: positions between pixels count.
    for sx in (0, 1):
        for sy in (0, 1):
            fx, fy = x - np.floor(x), y - np.floor(y)
            share = (fx if sx else 1.0 - fx) * (fy if sy else 1.0 - fy) * weight
            part, _, _ = np.histogram2d(
                np.floor(y) + sy, np.floor(x) + sx, bins=(edges, edges), weights=share
            )
            kernel += part
    return (kernel / kernel.sum()).astype(np.float32)


def spoil(
    exposure: Exposure,
    kernel: Pixels | None = None,
    lit: Pixels | None = None,
    clouds: float = 1.0,
    seed: int = 1,
) -> Pixels:
    """The exposure's pixels once more, with its light smeared, hidden in part, or dimmed by clouds; new noise.

    `lit`: share of light (stars and sky) that reaches each pixel. `clouds`: share of the stars' light that
    passes; the sky stays as bright.
    """
    recipe = exposure.recipe
    random = np.random.default_rng(seed)
    light = exposure.light_adu * np.float32(clouds)
    if kernel is not None:
        light = np.maximum(signal.fftconvolve(light, kernel, mode="same"), 0.0).astype(np.float32)
    total = light + np.float32(recipe.sky_adu)
    if lit is not None:
        total *= lit
    return _exposed(recipe, total, exposure.cosmic_adu, random)


def dark(recipe: Recipe, seed: int = 1, n_hot: int = 1500, n_cosmics: int = 300) -> Pixels:
    """A closed shutter: read noise, hot pixels of all brightnesses, cosmic rays."""
    random = np.random.default_rng(seed)
    ny, nx = recipe.shape
    empty = simulate(
        replace(recipe, n_stars=0, n_galaxies=0, sky_adu=0.0, n_cosmics=n_cosmics, trails=0), seed
    )
    current = np.zeros(recipe.shape, np.float32)
    heat = (10.0 ** random.uniform(1.0, 4.0, n_hot)).astype(np.float32)
    current[random.integers(0, ny, n_hot), random.integers(0, nx, n_hot)] = heat
    return _exposed(recipe, current, empty.cosmic_adu, random)


def _exposed(recipe: Recipe, light: Pixels, cosmic: Pixels, random: np.random.Generator) -> Pixels:
    gain = recipe.gain_e_per_adu
    data = (random.poisson(light * gain) / gain).astype(np.float32)
    data += random.standard_normal(recipe.shape, np.float32) * np.float32(recipe.read_noise_e / gain)
    data += cosmic
    return np.rint(np.minimum(data, np.float32(recipe.saturation_adu)))
