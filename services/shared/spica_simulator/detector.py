"""What a CCD adds to the light: bleeding, noise, cosmic rays, bad columns; and what crosses the field."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]

GAIN_E_PER_ADU = 1.6
READ_NOISE_E = 5.0
SATURATION_ADU = 60000.0
FULL_WELL_ADU = 60500.0
"""A little above SATURATE, as it should be: a pixel at or above SATURATE is not to be trusted."""
ADC_MAX = 65535


@njit(cache=True, nogil=True)
def bleed(image: Floats, full_well: float) -> None:
    """Charge above the full well runs along the column, half up and half down, until pixels take it in."""
    ny, nx = image.shape
    for i in range(nx):
        for direction in (1, -1):
            carried = 0.0
            for step in range(ny):
                j = step if direction == 1 else ny - 1 - step
                surplus = image[j, i] - full_well
                if surplus > 0.0:
                    # First pass sends half of it up; the second, which finds the rest, all of it down.
                    share = 0.5 * surplus if direction == 1 else surplus
                    image[j, i] -= share
                    carried += share
                elif carried > 0.0:
                    taken = min(carried, -surplus)
                    image[j, i] += taken
                    carried -= taken


def add_cosmics(image: Floats, exposure_time_s: float, rng: np.random.Generator) -> int:
    """Straight tracks of charge, sharp as no star is; 2.5 per minute and megapixel. Returns how many."""
    ny, nx = image.shape
    number = int(rng.poisson(2.5 * exposure_time_s / 60.0 * image.size / 1e6))
    for _ in range(number):
        x, y, angle = rng.uniform(0, nx), rng.uniform(0, ny), rng.uniform(0, 2 * math.pi)
        length = 1.0 + rng.exponential(6.0)
        charge = float(rng.lognormal(6.8, 0.8))
        steps = max(1, int(2 * length))
        along = np.linspace(0.0, length, steps)
        columns = (x + along * math.cos(angle)).astype(int)
        rows = (y + along * math.sin(angle)).astype(int)
        inside = (columns >= 0) & (columns < nx) & (rows >= 0) & (rows < ny)
        np.add.at(image, (rows[inside], columns[inside]), charge / 2)
    return number


def add_trail(image: Floats, a: float, b: float, c: float, brightness_adu: float, fwhm_px: float) -> None:
    """A satellite's trail: a line a·x + b·y = c (a² + b² = 1, zero-based pixels) with a Gaussian section."""
    ny, nx = image.shape
    away = a * np.arange(nx)[None, :] + b * np.arange(ny)[:, None] - c
    near = np.abs(away) < 3 * fwhm_px
    image[near] += brightness_adu * np.exp(-4 * math.log(2) * (away[near] / fwhm_px) ** 2)


def read_out(
    light_adu: Floats,
    bad_columns: tuple[tuple[int, float], ...],
    exposure_time_s: float,
    rng: np.random.Generator,
) -> NDArray[np.uint16]:
    """Turn expected light (adu) into what the converter says: shot noise, cosmics, bleeding, read noise."""
    image = rng.poisson(np.maximum(light_adu, 0.0) * GAIN_E_PER_ADU) / GAIN_E_PER_ADU
    add_cosmics(image, exposure_time_s, rng)
    bleed(image, FULL_WELL_ADU)
    image += rng.normal(0.0, READ_NOISE_E / GAIN_E_PER_ADU, image.shape)
    for column, level in bad_columns:
        image[:, column] = 0.0 if level == 0.0 else image[:, column] + level
    return np.clip(np.rint(image), 0, ADC_MAX).astype(np.uint16)
