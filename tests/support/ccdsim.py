"""Exposures of one CCD with everything known: stars, galaxies, noise, cosmic rays, trails, bad columns, saturation.

Stars are Moffat profiles integrated over the pixels. Galaxies are made of photons: drawn from an exponential
or de Vaucouleurs profile, each displaced by the point spread function, so that no approximation is in them.
Positions are zero-based, fluxes in adu.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
MEGACAM_SHAPE = (4612, 2048)
MEGACAM_SCALE_ARCSEC = 0.187


@dataclass(frozen=True)
class PsfField:
    """A Moffat profile whose width and shape go linearly over the frame; u, v run from -1 to 1."""

    fwhm_px: float = 4.0
    beta: float = 3.3
    e1: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """(1 - q) / (1 + q) cos 2θ at the centre, and its slopes along u and v."""
    e2: tuple[float, float, float] = (0.0, 0.0, 0.0)
    fwhm_slope: tuple[float, float] = (0.0, 0.0)
    """Relative change of the width from the centre to the edge, along u and v."""

    def at(self, u: Floats, v: Floats) -> tuple[Floats, Floats, Floats]:
        """FWHM in px (geometric mean of the axes), e1, e2."""
        width = self.fwhm_px * (1.0 + self.fwhm_slope[0] * u + self.fwhm_slope[1] * v)
        e1 = self.e1[0] + self.e1[1] * u + self.e1[2] * v
        e2 = self.e2[0] + self.e2[1] * u + self.e2[2] * v
        return width, e1, e2


VARYING = PsfField(e1=(0.02, 0.02, -0.01), e2=(-0.01, 0.01, 0.02), fwhm_slope=(0.03, -0.02))
"""As over a CCD at the edge of a wide field."""


@dataclass(frozen=True)
class Recipe:
    """What is drawn. The defaults are a deep r exposure with MegaCam."""

    shape: tuple[int, int] = MEGACAM_SHAPE
    psf: PsfField = PsfField()
    n_stars: int = 1_000
    n_galaxies: int = 14_000
    zeropoint_mag: float = 33.0
    """Magnitude of 1 adu in this exposure."""
    star_mags: tuple[float, float] = (16.5, 26.0)
    star_slope: float = 0.15
    """d log10(counts) / d mag."""
    galaxy_mags: tuple[float, float] = (18.0, 26.5)
    galaxy_slope: float = 0.33
    sky_adu: float = 1500.0
    sky_gradient: tuple[float, float] = (0.0, 0.0)
    """Relative change of the sky from the centre to the edge, along u and v."""
    gain_e_per_adu: float = 1.62
    read_noise_e: float = 5.0
    saturation_adu: float = 64_000.0
    n_cosmics: int = 0
    bad_columns: tuple[int, ...] = ()
    trails: int = 0
    trail_peak_sigma: float = 3.0
    """Height of a trail in the pixels, in units of the sky's noise."""
    bleed: bool = True


@dataclass(frozen=True)
class Truth:
    """What was drawn, brightest first. Arrays of shape (n,)."""

    x: Floats
    y: Floats
    flux: Floats
    mag: Floats
    is_star: NDArray[np.bool_]
    half_light_px: Floats
    """Of galaxies before the point spread function; 0 for stars."""
    fwhm_px: Floats
    """Of the point spread function there, without the pixel's own width."""


@dataclass(frozen=True)
class Exposure:
    """One simulated CCD."""

    recipe: Recipe
    data: Pixels
    truth: Truth
    noise_adu: float
    """Of a pixel of sky at the centre."""
    cosmic_adu: Pixels
    """What cosmic rays left, shape of data."""
    trail_adu: Pixels
    saturated: NDArray[np.bool_]
    """At the saturation level, bleeding included."""
    bleeding: NDArray[np.bool_]
    """What charge ran over to along the columns."""
    light_adu: Pixels = field(repr=False, default_factory=lambda: np.empty((0, 0), np.float32))
    """Stars and galaxies without sky and noise (galaxies with their photon noise)."""


@numba.njit(cache=True)
def _draw_stars(
    image: Pixels,
    x: Floats,
    y: Floats,
    flux: Floats,
    fwhm: Floats,
    e1: Floats,
    e2: Floats,
    beta: float,
    faint: float,
) -> None:
    ny, nx = image.shape
    nodes = np.array([-0.3872983346207417, 0.0, 0.3872983346207417])  # Gauss-Legendre on a pixel
    weights = np.array([5.0 / 18.0, 8.0 / 18.0, 5.0 / 18.0])
    for k in range(x.size):
        e = np.hypot(e1[k], e2[k])
        q = (1.0 - e) / (1.0 + e)
        theta = 0.5 * np.arctan2(e2[k], e1[k])
        c, s = np.cos(theta), np.sin(theta)
        a2 = (0.5 * fwhm[k]) ** 2 / (2.0 ** (1.0 / beta) - 1.0)
        peak = flux[k] * (beta - 1.0) / (np.pi * a2)
        reach2 = max(a2 * ((peak / faint) ** (1.0 / beta) - 1.0), 9.0 * a2)
        reach = min(int(np.sqrt(reach2 / q)) + 2, 1500)
        for j in range(max(0, int(y[k]) - reach), min(ny, int(y[k]) + reach + 1)):
            for i in range(max(0, int(x[k]) - reach), min(nx, int(x[k]) + reach + 1)):
                value = 0.0
                for p in range(3):
                    dy = j + nodes[p] - y[k]
                    for r in range(3):
                        dx = i + nodes[r] - x[k]
                        u, v = c * dx + s * dy, -s * dx + c * dy
                        rho2 = q * u * u + v * v / q
                        value += weights[p] * weights[r] * (1.0 + rho2 / a2) ** (-beta)
                image[j, i] += peak * value


@numba.njit(cache=True)
def _draw_galaxies(
    image: Pixels, x: Floats, y: Floats, electrons: Floats, half_light: Floats, q: Floats, angle: Floats,
    bulge: NDArray[np.bool_], fwhm: Floats, e1: Floats, e2: Floats, beta: float, gain: float, seed: int,
) -> None:  # fmt: skip
    np.random.seed(seed)
    ny, nx = image.shape
    for k in range(x.size):
        e = np.hypot(e1[k], e2[k])
        ratio = (1.0 - e) / (1.0 + e)
        theta = 0.5 * np.arctan2(e2[k], e1[k])
        ct, st = np.cos(theta), np.sin(theta)
        alpha = 0.5 * fwhm[k] / np.sqrt(2.0 ** (1.0 / beta) - 1.0)
        ca, sa = np.cos(angle[k]), np.sin(angle[k])
        for _ in range(np.random.poisson(electrons[k])):
            # r of an exponential disc: sum of two exponential deviates times the scale length (half light at 1.678).
            # de Vaucouleurs: (r / re)^(1/4) * 7.669 is gamma distributed with shape 8.
            if bulge[k]:
                r = half_light[k] * (np.random.gamma(8.0, 1.0) / 7.669) ** 4
            else:
                r = half_light[k] / 1.678 * np.random.gamma(2.0, 1.0)
            phi = 2.0 * np.pi * np.random.random()
            gx, gy = r * np.cos(phi) / np.sqrt(q[k]), r * np.sin(phi) * np.sqrt(q[k])
            px, py = ca * gx - sa * gy, sa * gx + ca * gy
            rho = alpha * np.sqrt((1.0 - np.random.random()) ** (-1.0 / (beta - 1.0)) - 1.0)
            phi = 2.0 * np.pi * np.random.random()
            sx, sy = rho * np.cos(phi) / np.sqrt(ratio), rho * np.sin(phi) * np.sqrt(ratio)
            i = int(np.floor(x[k] + px + ct * sx - st * sy + 0.5))
            j = int(np.floor(y[k] + py + st * sx + ct * sy + 0.5))
            if 0 <= i < nx and 0 <= j < ny:
                image[j, i] += 1.0 / gain


def _magnitudes(random: np.random.Generator, n: int, limits: tuple[float, float], slope: float) -> Floats:
    low, high = (10.0 ** (slope * limit) for limit in limits)
    return np.log10(random.uniform(low, high, n)) / slope


def _cosmics(random: np.random.Generator, shape: tuple[int, int], n: int, gain: float) -> Pixels:
    """Straight tracks of 1 to some 40 px (some curl), sharp to a fraction of a pixel, 300 to 5,000 e per pixel."""
    ny, nx = shape
    hit = np.zeros(shape, np.float32)
    for _ in range(n):
        length = min(random.exponential(6.0), 60.0)
        angle, curl = random.uniform(0, 2 * np.pi), random.normal(0.0, 0.03)
        steps = max(int(length * 12), 12)
        t = np.arange(steps) / 12.0
        bend = angle + curl * t
        px = random.uniform(0, nx) + np.cumsum(np.cos(bend)) / 12.0 + random.normal(0, 0.25, steps)
        py = random.uniform(0, ny) + np.cumsum(np.sin(bend)) / 12.0 + random.normal(0, 0.25, steps)
        per_px = np.exp(random.uniform(np.log(300.0), np.log(5000.0)))
        i, j = np.floor(px + 0.5).astype(int), np.floor(py + 0.5).astype(int)
        inside = (i >= 0) & (i < nx) & (j >= 0) & (j < ny)
        np.add.at(hit, (j[inside], i[inside]), np.float32(per_px / 12.0 / gain))
    return hit


def _trails(
    random: np.random.Generator, shape: tuple[int, int], n: int, height: float, fwhm: float
) -> Pixels:
    ny, nx = shape
    total = np.zeros(shape, np.float32)
    y, x = np.ogrid[:ny, :nx]
    for _ in range(n):
        angle = random.uniform(0, np.pi)
        x0, y0 = random.uniform(0.2, 0.8) * nx, random.uniform(0.2, 0.8) * ny
        across = (x - x0) * np.sin(angle) - (y - y0) * np.cos(angle)
        sigma = fwhm / 2.3548
        total += (height * np.exp(-0.5 * (across / sigma) ** 2)).astype(np.float32)
    return total


def _bleed(data: Pixels, full: float) -> NDArray[np.bool_]:
    """Charge above the full well runs along its column, half up and half down; returns where it went."""
    touched = np.zeros(data.shape, np.bool_)
    for column in np.flatnonzero((data > full).any(axis=0)):
        values = data[:, column]
        for start in np.flatnonzero((values > full) & ~np.r_[False, values[:-1] > full]):
            stop = start
            while stop < values.size and values[stop] > full:
                stop += 1
            excess = float((values[start:stop] - full).sum())
            values[start:stop] = full
            for step, first in ((1, stop), (-1, start - 1)):
                left, row = 0.5 * excess, first
                while left > 0 and 0 <= row < values.size:
                    room = max(full - float(values[row]), 0.0)
                    put = min(room, left)
                    values[row] += put
                    left -= put
                    touched[row, column] = put > 0
                    row += step
    return touched


def simulate(recipe: Recipe = Recipe(), seed: int = 1) -> Exposure:
    """Draw one CCD. The same recipe and seed give the same pixels. A MegaCam CCD takes some seconds."""
    random = np.random.default_rng(seed)
    ny, nx = recipe.shape
    n_stars, n = recipe.n_stars, recipe.n_stars + recipe.n_galaxies
    is_star = np.arange(n) < n_stars
    x, y = random.uniform(-0.5, nx - 0.5, n), random.uniform(-0.5, ny - 0.5, n)
    mag = np.r_[
        _magnitudes(random, n_stars, recipe.star_mags, recipe.star_slope),
        _magnitudes(random, recipe.n_galaxies, recipe.galaxy_mags, recipe.galaxy_slope),
    ]
    flux = 10.0 ** (-0.4 * (mag - recipe.zeropoint_mag))
    half_light = np.exp(random.normal(np.log(2.4) - 0.17 * (mag - 22.0), 0.35))
    half_light[:n_stars] = 0.0
    fwhm, e1, e2 = recipe.psf.at(2.0 * (x + 0.5) / nx - 1.0, 2.0 * (y + 0.5) / ny - 1.0)
    gain = recipe.gain_e_per_adu
    light = np.zeros(recipe.shape, np.float32)
    some = ~is_star
    _draw_galaxies(
        light, x[some], y[some], flux[some] * gain, half_light[some], random.uniform(0.3, 1.0, some.sum()),
        random.uniform(0, np.pi, some.sum()), random.random(some.sum()) < 0.25, fwhm[some], e1[some], e2[some],
        recipe.psf.beta, gain, seed,
    )  # fmt: skip
    stars = np.zeros(recipe.shape, np.float32)
    noise = float(np.sqrt(recipe.sky_adu / gain + (recipe.read_noise_e / gain) ** 2))
    _draw_stars(
        stars, x[is_star], y[is_star], flux[is_star], fwhm[is_star], e1[is_star], e2[is_star], recipe.psf.beta,
        0.01 * noise,
    )  # fmt: skip
    v, u = (2.0 * (np.arange(size) + 0.5) / size - 1.0 for size in (ny, nx))
    slope = recipe.sky_gradient
    sky = (recipe.sky_adu * (1.0 + slope[0] * u[None, :] + slope[1] * v[:, None])).astype(np.float32)
    trail = _trails(random, recipe.shape, recipe.trails, recipe.trail_peak_sigma * noise, recipe.psf.fwhm_px)
    data = (light + random.poisson((stars + sky + trail) * gain) / np.float32(gain)).astype(np.float32)
    data += random.standard_normal(recipe.shape, np.float32) * np.float32(recipe.read_noise_e / gain)
    cosmic = _cosmics(random, recipe.shape, recipe.n_cosmics, gain)
    data += cosmic
    for column in recipe.bad_columns:
        data[:, column] *= np.float32(0.3)
    bleeding = _bleed(data, recipe.saturation_adu) if recipe.bleed else np.zeros(recipe.shape, np.bool_)
    np.minimum(data, np.float32(recipe.saturation_adu), out=data)
    order = np.argsort(-flux, kind="stable")
    truth = Truth(x[order], y[order], flux[order], mag[order], is_star[order], half_light[order], fwhm[order])
    full = data >= np.float32(recipe.saturation_adu)
    return Exposure(recipe, np.rint(data), truth, noise, cosmic, trail, full, bleeding, light + stars)


def small(recipe: Recipe = Recipe(), shape: tuple[int, int] = (1024, 1024), **changes: object) -> Recipe:
    """The same sky on a smaller frame, as densely populated."""
    share = shape[0] * shape[1] / (recipe.shape[0] * recipe.shape[1])
    counts = {
        "n_stars": round(recipe.n_stars * share),
        "n_galaxies": round(recipe.n_galaxies * share),
        "n_cosmics": round(recipe.n_cosmics * share),
    }
    return replace(recipe, shape=shape, **{**counts, **changes})  # type: ignore[arg-type]
