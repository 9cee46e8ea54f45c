"""Frames drawn with known truth: stars of given profile, noise, hot pixels, cosmic rays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from spica_imaging.sections import Section
from spica_quality.science.engine import Frame, Measurement

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sky:
    """A drawn frame and what was drawn. Positions zero-based, fluxes in adu."""

    data: NDArray[np.float32]
    x: Floats
    y: Floats
    flux: Floats
    gain: float
    noise: float

    def frame(self, saturation_adu: float = 60_000.0) -> Frame:
        """A copy, as frames are worked on in place."""
        ny, nx = self.data.shape
        return Frame(self.data.copy(), Section(0, nx, 0, ny), self.gain, saturation_adu)


def profile(radius: Floats, fwhm: float, beta: float | None) -> Floats:
    """Gaussian (beta None) or Moffat with this full width at half maximum; 1 at the centre."""
    if beta is None:
        return np.exp(-4.0 * np.log(2.0) * (radius / fwhm) ** 2)
    alpha = 0.5 * fwhm / np.sqrt(2.0 ** (1.0 / beta) - 1.0)
    return (1.0 + (radius / alpha) ** 2) ** -beta


def ring(radius: Floats, outer: float) -> Floats:
    """Out of focus: a disc with a hole, softened."""
    return 1.0 / (1.0 + np.exp((radius - outer) / 0.8)) / (1.0 + np.exp((0.45 * outer - radius) / 0.8))


def draw(
    *,
    fwhm: float = 4.0,
    beta: float | None = 3.3,
    ellipticity: float = 0.0,
    angle_rad: float = 0.4,
    n: int = 120,
    shape: tuple[int, int] = (600, 700),
    flux: tuple[float, float] = (3e3, 2e5),
    sky: float = 300.0,
    gain: float = 1.6,
    read_noise: float = 5.0,
    seed: int = 1,
    defocus: float | None = None,
) -> Sky:
    """Draw stars at random places on a jittered grid, so that few of them touch."""
    random = np.random.default_rng(seed)
    ny, nx = shape
    columns = int(np.ceil(np.sqrt(n * nx / ny)))
    rows = -(-n // columns)
    cell_x, cell_y = nx / columns, ny / rows
    index = np.arange(n)
    x = (index % columns + random.uniform(0.25, 0.75, n)) * cell_x
    y = (index // columns + random.uniform(0.25, 0.75, n)) * cell_y
    fluxes = np.exp(random.uniform(*np.log(flux), n))
    image = np.zeros(shape)
    reach = int(6 * fwhm) + 10 if defocus is None else int(2 * defocus) + 6
    ratio = 1.0 - ellipticity
    for x0, y0, f in zip(x, y, fluxes, strict=True):
        j, i = np.mgrid[
            max(0, int(y0) - reach) : min(ny, int(y0) + reach + 1),
            max(0, int(x0) - reach) : min(nx, int(x0) + reach + 1),
        ]
        dx, dy = i - x0, j - y0
        u = dx * np.cos(angle_rad) + dy * np.sin(angle_rad)
        v = -dx * np.sin(angle_rad) + dy * np.cos(angle_rad)
        radius = np.sqrt(ratio * u**2 + v**2 / ratio)
        stamp = profile(radius, fwhm, beta) if defocus is None else ring(radius, defocus)
        image[j, i] += f * stamp / stamp.sum()
    noisy = random.poisson((image + sky) * gain) / gain + random.normal(0.0, read_noise / gain, shape)
    noise = float(np.sqrt(sky / gain + (read_noise / gain) ** 2))
    return Sky(noisy.astype(np.float32), x, y, fluxes, gain, noise)


def weight_of(found: Measurement) -> NDArray[np.float32]:
    """1 / rms² where the pixel is usable, else 0."""
    if found.sky is None:
        return np.zeros(found.data.shape, np.float32)
    rms = found.sky.rms_rows(0, found.data.shape[0])
    return np.where(found.flags == 0, 1.0 / rms**2, 0.0).astype(np.float32)


def nearest(x: Floats, y: Floats, x0: Floats, y0: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Index of, and distance to, the nearest of (x, y) for each (x0, y0)."""
    distance = np.hypot(x[None, :] - x0[:, None], y[None, :] - y0[:, None])
    index = np.argmin(distance, axis=1)
    return index, distance[np.arange(len(x0)), index]
