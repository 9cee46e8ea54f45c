"""What is on a made-up sky, and how a CCD's catalogue comes out of it: no pixels are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from spica_imaging.wcs import tan_deproject

from tests.support.skycat_optics import Floats

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

STAR, GALAXY, SPURIOUS = 0, 1, 2
GAIA_EPOCH = 2016.0
_GAIN = 1.6
_SATURATION_ADU = 60000.0
_FWHM_PX = 4.0
_SKY_ADU_PER_S = 4.0
_READ_NOISE_E = 5.0
_CORE_PX = _FWHM_PX / 2.3548
_APERTURE_PX = 4.0 * np.pi * _CORE_PX**2
"""Pixels whose noise a point source's measurement takes in."""
FLOOR_PX = 0.01
_BLEND_PX = 8.0
_LOST_PX = 3.0


@dataclass(frozen=True, slots=True)
class Sky:
    """Stars and galaxies, true. Shapes (n,)."""

    kind: Ints
    ra_deg: Floats
    """At epoch 2016."""
    dec_deg: Floats
    pm_ra_mas_yr: Floats
    pm_dec_mas_yr: Floats
    mag_r: Floats
    mag_g: Floats
    size_px: Floats
    """rms of the light, PSF left out; 0 for stars."""

    def at(self, year: float) -> tuple[Floats, Floats]:
        """RA and Dec at an epoch."""
        t = (year - GAIA_EPOCH) / 3.6e6
        dec = self.dec_deg + t * self.pm_dec_mas_yr
        return self.ra_deg + t * self.pm_ra_mas_yr / np.cos(np.radians(self.dec_deg)), dec


def _magnitudes(rng: np.random.Generator, n: int, bright: float, faint: float, slope: float) -> Floats:
    """Magnitudes whose counts rise as 10**(slope m)."""
    low, high = 10 ** (slope * bright), 10 ** (slope * faint)
    return np.asarray(np.log10(low + rng.random(n) * (high - low)) / slope)


def make_sky(
    rng: np.random.Generator,
    centre: tuple[float, float],
    half_deg: tuple[float, float],
    star_density: float,
    galaxy_density: float,
) -> Sky:
    """Over a rectangle; densities per square degree: of stars to magnitude 21, of galaxies to 24."""
    area = 4.0 * half_deg[0] * half_deg[1]
    bright, faint = rng.poisson(star_density * area), rng.poisson(1.2 * star_density * area)
    galaxies = rng.poisson(galaxy_density * area)
    mag = np.concatenate(
        (
            _magnitudes(rng, bright, 12.0, 21.0, 0.24),
            _magnitudes(rng, faint, 21.0, 24.5, 0.12),
            _magnitudes(rng, galaxies, 17.0, 24.0, 0.34),
        )
    )
    kind = np.repeat([STAR, GALAXY], [bright + faint, galaxies])
    n, is_star = len(mag), kind == STAR
    xi, eta = rng.uniform(-half_deg[0], half_deg[0], n), rng.uniform(-half_deg[1], half_deg[1], n)
    ra, dec = tan_deproject(xi, eta, *centre)
    # Brighter stars are nearer: a wide core of motions for them, and a drift that all share.
    spread = np.clip(12.0 * 10 ** (-0.08 * (mag - 16.0)), 1.5, 40.0)
    tail = np.where(rng.random(n) < 0.03, 8.0, 1.0)
    pm = is_star * (spread * tail * rng.standard_normal((2, n)) + np.array([[-2.0], [-4.0]]))
    size = np.where(is_star, 0.0, np.clip(rng.lognormal(0.7 - 0.12 * (mag - 22.0), 0.5, n), 0.3, 12.0))
    return Sky(kind, ra, dec, pm[0], pm[1], mag, mag + rng.normal(0.8, 0.35, n), size)


@dataclass(frozen=True, slots=True)
class Reference:
    """What an astrometric catalogue tells of the stars. Shapes (n,)."""

    ra_deg: Floats
    dec_deg: Floats
    error_mas: Floats
    pm_ra_mas_yr: Floats
    pm_dec_mas_yr: Floats
    pm_error_mas_yr: Floats
    mag_r: Floats
    mag_g: Floats
    mag_error: Floats
    sky: Ints
    """Row of the true sky."""

    def at(self, year: float) -> tuple[Floats, Floats]:
        """RA and Dec moved to an epoch."""
        t = (year - GAIA_EPOCH) / 3.6e6
        return (
            self.ra_deg + t * self.pm_ra_mas_yr / np.cos(np.radians(self.dec_deg)),
            self.dec_deg + t * self.pm_dec_mas_yr,
        )

    def error_at(self, year: float) -> Floats:
        """Standard error of these positions, mas per axis."""
        return np.asarray(np.hypot(self.error_mas, (year - GAIA_EPOCH) * self.pm_error_mas_yr))


def gaia_errors_mas(mag: Floats) -> tuple[Floats, Floats]:
    """Position error at epoch 2016 and error of proper motion (per year) as Gaia DR3 has them, per axis.

    Errors of parallaxes as the mission's performance page gives them, and its factors 0.8 and 1.03.
    """
    z = np.maximum(10 ** (0.4 * (13.0 - 15.0)), 10 ** (0.4 * (mag - 15.0)))
    parallax = np.sqrt(40.0 + 800.0 * z + 30.0 * z**2) / 1000.0
    return 0.8 * parallax, 1.03 * parallax


def reference_of(rng: np.random.Generator, sky: Sky, faint_mag: float = 21.0) -> Reference:
    """Nearly all stars down to a magnitude, in random order."""
    known = (sky.kind == STAR) & (sky.mag_r < faint_mag) & (rng.random(len(sky.kind)) < 0.97)
    k = rng.permutation(np.flatnonzero(known))
    error, pm_error = gaia_errors_mas(sky.mag_r[k])
    by = rng.standard_normal((4, len(k)))
    dec = sky.dec_deg[k] + by[1] * error / 3.6e6
    mag_error = 0.003 + 0.03 * 10 ** (0.4 * (sky.mag_r[k] - 21.0))
    noise = rng.standard_normal((2, len(k))) * mag_error
    return Reference(
        sky.ra_deg[k] + by[0] * error / 3.6e6 / np.cos(np.radians(dec)),
        dec,
        error,
        sky.pm_ra_mas_yr[k] + by[2] * pm_error,
        sky.pm_dec_mas_yr[k] + by[3] * pm_error,
        pm_error,
        sky.mag_r[k] + noise[0],
        sky.mag_g[k] + noise[1],
        mag_error,
        k,
    )


@dataclass(frozen=True, slots=True)
class Truth:
    """What each detection of a CCD truly is. Shapes (n,)."""

    kind: Ints
    sky: Ints
    """Row of the sky; -1 for spurious ones."""
    x: Floats
    """Where it truly is, FITS pixels; NaN for spurious ones."""
    y: Floats
    ra_deg: Floats
    """True position at the exposure's epoch; NaN for spurious ones."""
    dec_deg: Floats
    mag_r: Floats
    snr: Floats


def _blended(x: Floats, y: Floats, flux: Floats) -> tuple[Bools, Bools, Floats]:
    """Which sources have a close neighbour, which are lost in one, and how far neighbours pull, shape (2, n)."""
    n = len(x)
    near, lost, pull = np.zeros(n, bool), np.zeros(n, bool), np.zeros((2, n))
    if n < 2:
        return near, lost, pull
    pairs: Ints = KDTree(np.column_stack((x, y))).query_pairs(_BLEND_PX, output_type="ndarray")
    faint = np.where(flux[pairs[:, 0]] < flux[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    bright = pairs.sum(axis=1) - faint
    near[pairs.ravel()] = True
    gap = np.array([x[faint] - x[bright], y[faint] - y[bright]])
    distance = np.hypot(*gap)
    lost[faint[distance < _LOST_PX]] = True
    # A window of the PSF's width takes in the neighbour's light, less of it the farther it is.
    share = np.exp(-(distance**2) / (2 * 3.0**2))
    np.add.at(pull.T, bright, (gap * share * flux[faint] / flux[bright]).T)
    np.add.at(pull.T, faint, (-0.3 * gap * share).T)
    return near, lost, np.clip(pull, -2.0, 2.0)


@dataclass(frozen=True, slots=True)
class Light:
    """What falls on a CCD and is found there. Shapes (n,)."""

    row: Ints
    """Of the sky; -1 for spurious ones."""
    kind: Ints
    x: Floats
    y: Floats
    flux: Floats
    wide: Floats
    """Width over that of a point source."""
    noise: Floats
    """Of the flux, adu, in an aperture that fits the source."""
    blended: Bools
    pull: Floats
    """Shape (n, 2): by how much neighbours draw the position, px."""

    def take(self, index: NDArray[Any]) -> Light:
        return Light(*(getattr(self, name)[index] for name in self.__slots__))

    def __add__(self, other: Light) -> Light:
        return Light(
            *(np.concatenate((getattr(self, name), getattr(other, name))) for name in self.__slots__)
        )


def _background(seconds: float) -> float:
    """Variance per pixel, adu²."""
    return _SKY_ADU_PER_S * seconds / _GAIN + (_READ_NOISE_E / _GAIN) ** 2


def _light(
    rng: np.random.Generator, sky: Sky, rows: Ints, x: Floats, y: Floats, size: tuple[int, int],
    zeropoint_mag: float, seconds: float,
) -> Light:  # fmt: skip
    """Sources of the sky that are found: at the faint end not all, of two that are one on the CCD the brighter."""
    flux = seconds * 10 ** (0.4 * (zeropoint_mag - sky.mag_r[rows]))
    wide = np.hypot(1.0, sky.size_px[rows] / _CORE_PX)
    noise = np.sqrt(flux / _GAIN + _APERTURE_PX * wide**2 * _background(seconds))
    inside = (x > 3) & (x < size[0] - 2) & (y > 3) & (y < size[1] - 2)
    seen = inside & (rng.random(len(x)) < 1.0 / (1.0 + np.exp(-(flux / noise - 6.0) / 0.7)))
    blended, lost, pull = _blended(x[seen], y[seen], flux[seen])
    k = np.flatnonzero(seen)
    light = Light(rows[k], sky.kind[rows[k]], x[k], y[k], flux[k], wide[k], noise[k], blended, pull.T)
    return light.take(~lost)


def _spurious(rng: np.random.Generator, n: int, size: tuple[int, int], seconds: float) -> Light:
    """Peaks of noise, and a few cosmic rays and spikes as bright as stars."""
    snr = np.where(rng.random(n) < 0.15, rng.uniform(20, 300, n), rng.uniform(5, 9, n))
    noise = np.full(n, np.sqrt(_APERTURE_PX * _background(seconds)))
    x, y = rng.uniform(3, size[0] - 2, n), rng.uniform(3, size[1] - 2, n)
    none = np.full(n, -1, np.int64), np.full(n, SPURIOUS, np.int64)
    return Light(
        *none, x, y, snr * noise, rng.uniform(0.5, 1.2, n), noise, np.zeros(n, bool), np.zeros((n, 2))
    )


def _columns(
    rng: np.random.Generator, light: Light, size: tuple[int, int], seconds: float
) -> dict[str, NDArray[Any]]:
    """What is measured of them."""
    n, snr, wide = len(light.x), light.flux / light.noise, light.wide
    peak = light.flux / (2 * np.pi * (_CORE_PX * wide) ** 2) + _SKY_ADU_PER_S * seconds
    saturated = (peak > _SATURATION_ADU) & (light.kind != SPURIOUS)
    error = _CORE_PX * wide / snr
    floor = np.where(light.kind == GALAXY, 0.03 * wide, FLOOR_PX) + 0.2 * saturated
    off = rng.standard_normal((2, n)) * np.hypot(error, floor) + light.pull.T
    x, y = light.x + off[0], light.y + off[1]
    edge = (x < 10) | (x > size[0] - 9) | (y < 10) | (y > size[1] - 9)
    axes = error * rng.uniform(0.9, 1.1, (2, n))
    kron = 1.6 * light.noise
    auto = np.maximum(light.flux * 0.97 + kron * rng.standard_normal(n), 0.1 * light.flux)
    round_ = np.abs(rng.normal(0.03, 0.02, n)) + 0.3 / snr
    flat = np.clip(np.where(light.kind == GALAXY, rng.uniform(0, 0.6, n), round_), 0, 0.9)
    unsure = (np.where(wide < 1.15, 0.4, 0.0) + 3.0 / snr) * rng.standard_normal(n)
    plain = {
        "ERRAWIN_IMAGE": axes.max(axis=0), "ERRBWIN_IMAGE": axes.min(axis=0),
        "ERRTHETAWIN_IMAGE": rng.uniform(-90, 90, n),
        "FLUX_AUTO": auto, "FLUXERR_AUTO": kron,
        "MAG_AUTO": -2.5 * np.log10(auto), "MAGERR_AUTO": 1.0857 * kron / auto,
        "FLUX_APER": light.flux + light.noise * rng.standard_normal(n), "FLUXERR_APER": light.noise,
        "FLUX_RADIUS": 0.5 * _FWHM_PX * wide * (1 + 0.02 * rng.standard_normal(n)),
        "FWHM_IMAGE": _FWHM_PX * wide * (1 + 0.03 * rng.standard_normal(n)),
        "ELLIPTICITY": flat, "ELONGATION": 1.0 / (1.0 - flat),
        "CLASS_STAR": np.clip((light.kind == STAR) + unsure, 0.0, 1.0),
    }  # fmt: skip
    return {
        "NUMBER": np.arange(1, n + 1, dtype=np.int32),
        "X_IMAGE": x + 0.5 * error * rng.standard_normal(n),
        "Y_IMAGE": y + 0.5 * error * rng.standard_normal(n),
        "XWIN_IMAGE": x,
        "YWIN_IMAGE": y,
        **{name: values.astype(np.float32) for name, values in plain.items()},
        "FLAGS": (2 * light.blended + 4 * saturated + 8 * edge).astype(np.int16),
    }


def detect(
    rng: np.random.Generator,
    sky: Sky,
    rows: Ints,
    x: Floats,
    y: Floats,
    position: tuple[Floats, Floats],
    size: tuple[int, int],
    zeropoint_mag: float,
    seconds: float,
    spurious: float = 0.05,
) -> tuple[dict[str, NDArray[Any]], Truth]:
    """Catalogue of a CCD (columns as source-extractor names them) from true pixel positions of `rows` of the sky.

    `zeropoint_mag`: magnitude of 1 adu/s. `position`: true RA and Dec of all of the sky at the exposure's epoch.
    """
    light = _light(rng, sky, rows, x, y, size, zeropoint_mag, seconds)
    light += _spurious(rng, int(rng.poisson(spurious * len(light.x))), size, seconds)
    light = light.take(rng.permutation(len(light.x)))
    real = light.row >= 0
    ra, dec, mag, x_true, y_true = (
        np.where(real, a, np.nan)
        for a in (*(p[light.row] for p in position), sky.mag_r[light.row], light.x, light.y)
    )
    truth = Truth(light.kind, light.row, x_true, y_true, ra, dec, mag, light.flux / light.noise)
    return _columns(rng, light, size, seconds), truth
