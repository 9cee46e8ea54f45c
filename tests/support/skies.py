"""Made-up skies and exposures for tests of calibration: everything known, nothing rendered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spica_calib.science.stars import CcdField, Sources, Stars
from spica_imaging.polynomial import tpv_from_polynomials
from spica_imaging.wcs import TpvWcs, tan_deproject

Floats = NDArray[np.float64]
ZEROPOINT = 25.5


def make_stars(
    rng: np.random.Generator, n: int, centre: tuple[float, float], half_deg: float, error_mas: float = 1.0
) -> Stars:
    """Stars over a square, magnitudes 14 to 20 as counts rise (slope 0.3)."""
    ra, dec = tan_deproject(rng.uniform(-half_deg, half_deg, n), rng.uniform(-half_deg, half_deg, n), *centre)
    mag = 14.0 + np.log10(1.0 + rng.uniform(0, 1, n) * (10 ** (0.3 * 6.0) - 1.0)) / 0.3
    return Stars(
        ra,
        dec,
        np.full(n, error_mas),
        np.full(n, 2016.0),
        np.zeros(n),
        np.zeros(n),
        {"r": mag, "g": mag + 0.5},
    )


def distorted_wcs(
    centre: tuple[float, float],
    nx: int = 1024,
    ny: int = 1024,
    scale_arcsec: float = 0.2,
    rotation_deg: float = 1.0,
    bend_px: float = 3.0,
    mirrored: bool = False,
) -> TpvWcs:
    """A cubic radial distortion that moves the CCD's edge by `bend_px`."""
    angle, scale = np.radians(rotation_deg), scale_arcsec / 3600.0
    sign = 1.0 if mirrored else -1.0
    half = max(nx, ny) / 2.0
    linear = (
        scale
        * half
        * np.array([[sign * np.cos(angle), np.sin(angle)], [-sign * np.sin(angle), np.cos(angle)]])
    )
    pixel = np.zeros((2, 4, 4))
    pixel[0, 1, 0] = pixel[1, 0, 1] = 1.0
    bend = bend_px / half
    pixel[0, 3, 0] = pixel[0, 1, 2] = pixel[1, 0, 3] = pixel[1, 2, 1] = bend
    xi, eta = np.einsum("ij,jkl->ikl", linear, pixel)
    return tpv_from_polynomials(centre, ((nx + 1) / 2, (ny + 1) / 2), xi, eta, half)


@dataclass(frozen=True)
class Scene:
    """One CCD's exposure of some stars."""

    field: CcdField
    true_wcs: TpvWcs
    star: NDArray[np.int64]
    """Which star each source is; -1 for sources that are none."""
    exposure_time_s: float


def observe(
    rng: np.random.Generator,
    stars: Stars,
    true_wcs: TpvWcs,
    assumed: TpvWcs,
    *,
    shape: tuple[int, int] = (1024, 1024),
    noise_px: float = 0.03,
    strangers: int = 50,
    lost: float = 0.1,
    exposure_time_s: float = 60.0,
    zeropoint: float = ZEROPOINT,
    name: str = "ccd00",
) -> Scene:
    """Detect the stars that fall on a CCD, but for a share `lost`, and some sources that are no stars."""
    ny, nx = shape
    x, y = true_wcs.sky_to_pixel(stars.ra_deg, stars.dec_deg)
    seen = np.flatnonzero((x > 1) & (x < nx) & (y > 1) & (y < ny) & (rng.uniform(size=len(x)) > lost))
    n = len(seen) + strangers
    flux = np.concatenate(
        (
            exposure_time_s * 10 ** (0.4 * (zeropoint - stars.mags["r"][seen])),
            exposure_time_s * 10 ** (0.4 * (zeropoint - rng.uniform(17, 20, strangers))),
        )
    )
    error = 0.005 * flux
    flux = flux + error * rng.standard_normal(n)
    px = np.concatenate((x[seen], rng.uniform(1, nx, strangers))) + noise_px * rng.standard_normal(n)
    py = np.concatenate((y[seen], rng.uniform(1, ny, strangers))) + noise_px * rng.standard_normal(n)
    order = rng.permutation(n)
    every = np.ones(n, dtype=bool)
    sources = Sources(px, py, np.full(n, noise_px), flux, flux, error, every, every, every).take(order)
    star = np.concatenate((seen, np.full(strangers, -1)))[order]
    return Scene(CcdField(0, name, nx, ny, sources, assumed), true_wcs, star, exposure_time_s)


def columns_of(scene: Scene) -> dict[str, NDArray[Any]]:
    """The sources as columns of an LDAC catalogue."""
    s = scene.field.sources
    n = len(s)
    return {
        "X_IMAGE": s.x,
        "Y_IMAGE": s.y,
        "XWIN_IMAGE": s.x,
        "YWIN_IMAGE": s.y,
        "ERRAWIN_IMAGE": s.error_px,
        "ERRBWIN_IMAGE": s.error_px,
        "FLUX_AUTO": s.flux_adu,
        "FLUXERR_AUTO": s.star_flux_error_adu,
        "FLUX_APER": s.flux_adu,
        "FLUXERR_APER": s.star_flux_error_adu,
        "FLUX_RADIUS": np.full(n, 2.0),
        "FWHM_IMAGE": np.full(n, 4.0),
        "ELLIPTICITY": np.full(n, 0.05),
        "FLAGS": np.zeros(n, dtype=np.int16),
        "CLASS_STAR": np.full(n, 0.98),
    }


def shuffled(rng: np.random.Generator, stars: Stars) -> Stars:
    """The same numbers, RA and Dec paired anew: as dense and as bright, but another sky."""
    return replace(stars, dec_deg=stars.dec_deg[rng.permutation(len(stars))])


def deviation_mas(wcs: TpvWcs, truth: TpvWcs, ra: Floats, dec: Floats) -> Floats:
    """Where a solution puts what is truly at (ra, dec): too far east and north by this, shape (2, n), mas."""
    found_ra, found_dec = wcs.pixel_to_sky(*truth.sky_to_pixel(ra, dec))
    return 3.6e6 * np.array([(found_ra - ra) * np.cos(np.radians(dec)), found_dec - dec])


def separation_mas(wcs: TpvWcs, truth: TpvWcs, nx: int = 1024, ny: int = 1024) -> float:
    """Largest distance between two solutions over a CCD, mas."""
    x, y = (c.ravel() for c in np.meshgrid(np.linspace(1, nx, 15), np.linspace(1, ny, 15)))
    return float(np.hypot(*deviation_mas(wcs, truth, *truth.pixel_to_sky(x, y))).max())
