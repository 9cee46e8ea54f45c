"""A piece of sky: stars with proper motions and colours, galaxies, and the catalogue others made of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spica_simulator.camera import sky_of_plane

Floats = NDArray[np.float64]

REFERENCE_EPOCH_YEAR = 2016.0
REFERENCE_LIMIT_MAG = 21.0
BRIGHTEST_MAG = 14.0
MAS_PER_DEG = 3.6e6


@dataclass(frozen=True, slots=True)
class Sky:
    """Sources of one field, arrays of equal length. Positions at REFERENCE_EPOCH_YEAR."""

    ra_deg: Floats
    dec_deg: Floats
    pmra_mas_yr: Floats
    """Along the great circle (times cos dec), as catalogues give it."""
    pmdec_mas_yr: Floats
    mags: dict[str, Floats]
    """AB magnitudes by band (g, r, i)."""
    half_light_arcsec: Floats
    """0: a star; else the half-light radius of a galaxy."""
    axis_ratio: Floats
    angle_deg: Floats

    @property
    def is_star(self) -> NDArray[np.bool_]:
        """Which ones are stars."""
        return self.half_light_arcsec == 0

    def at(self, year: float) -> tuple[Floats, Floats]:
        """Positions (ra, dec in deg) at another epoch; linear motion, no parallax."""
        span = (year - REFERENCE_EPOCH_YEAR) / MAS_PER_DEG
        ra = self.ra_deg + self.pmra_mas_yr * span / np.cos(np.radians(self.dec_deg))
        return ra % 360.0, self.dec_deg + self.pmdec_mas_yr * span


def draw_magnitudes(
    n: int,
    brightest: float,
    knee: float,
    faintest: float,
    slopes: tuple[float, float],
    rng: np.random.Generator,
) -> Floats:
    """Magnitudes with cumulative counts log10 N(<m) of slope slopes[0] up to the knee, slopes[1] beyond."""
    grid = np.linspace(brightest, faintest, 400)
    counts = np.where(
        grid < knee,
        10 ** (slopes[0] * (grid - knee)),
        1 + slopes[0] / slopes[1] * (10 ** (slopes[1] * (grid - knee)) - 1),
    )
    return np.interp(rng.uniform(counts[0], counts[-1], n), counts, grid)


def _scatter(
    n: int, centre: tuple[float, float], half_width_deg: tuple[float, float], rng: np.random.Generator
) -> tuple[Floats, Floats]:
    xi = rng.uniform(-half_width_deg[0], half_width_deg[0], n)
    eta = rng.uniform(-half_width_deg[1], half_width_deg[1], n)
    return sky_of_plane(xi, eta, centre)


def make_stars(
    centre: tuple[float, float],
    half_width_deg: tuple[float, float],
    per_deg2: float,
    faintest: float,
    rng: np.random.Generator,
) -> Sky:
    """Stars of a rectangle; `per_deg2` is the density brighter than REFERENCE_LIMIT_MAG in r."""
    trial = draw_magnitudes(20000, BRIGHTEST_MAG, 19.0, faintest, (0.3, 0.15), rng)
    share = float(np.mean(trial < REFERENCE_LIMIT_MAG))
    n = int(rng.poisson(4 * half_width_deg[0] * half_width_deg[1] * per_deg2 / share))
    mag_r = draw_magnitudes(n, BRIGHTEST_MAG, 19.0, faintest, (0.3, 0.15), rng)
    colour = np.clip(
        rng.normal(0.55, 0.12, n) + (rng.uniform(size=n) < 0.5) * rng.normal(0.75, 0.12, n), 0.1, 1.6
    )
    ra, dec = _scatter(n, centre, half_width_deg, rng)
    spread = 12.0 * 10 ** (-0.1 * (mag_r - 15.0))  # fainter ones are farther away and seem to move less
    return Sky(
        ra_deg=ra,
        dec_deg=dec,
        pmra_mas_yr=-2.0 + spread * rng.standard_normal(n),
        pmdec_mas_yr=-3.5 + spread * rng.standard_normal(n),
        mags={
            "g": mag_r + colour,
            "r": mag_r,
            "i": mag_r - 0.42 * colour + 0.04 + 0.01 * rng.standard_normal(n),
        },
        half_light_arcsec=np.zeros(n),
        axis_ratio=np.ones(n),
        angle_deg=np.zeros(n),
    )


def make_galaxies(
    centre: tuple[float, float],
    half_width_deg: tuple[float, float],
    per_deg2: float,
    rng: np.random.Generator,
) -> Sky:
    """Galaxies of a rectangle, r from 18 to 24.5 with counts of slope 0.35; fainter ones are smaller."""
    n = int(rng.poisson(4 * half_width_deg[0] * half_width_deg[1] * per_deg2))
    mag_r = draw_magnitudes(n, 18.0, 22.0, 24.5, (0.4, 0.33), rng)
    colour = np.clip(rng.normal(0.8, 0.3, n), 0.0, 1.8)
    ra, dec = _scatter(n, centre, half_width_deg, rng)
    return Sky(
        ra_deg=ra,
        dec_deg=dec,
        pmra_mas_yr=np.zeros(n),
        pmdec_mas_yr=np.zeros(n),
        mags={"g": mag_r + colour, "r": mag_r, "i": mag_r - 0.4 * colour},
        half_light_arcsec=np.clip(
            0.55 * 10 ** (-0.12 * (mag_r - 22.0)) * rng.lognormal(0.0, 0.3, n), 0.15, 3.0
        ),
        axis_ratio=rng.uniform(0.35, 1.0, n),
        angle_deg=rng.uniform(0.0, 180.0, n),
    )


def join(*skies: Sky) -> Sky:
    """All sources of several skies, in order."""
    first = skies[0]
    columns = {
        name: np.concatenate([getattr(sky, name) for sky in skies])
        for name in (
            "ra_deg",
            "dec_deg",
            "pmra_mas_yr",
            "pmdec_mas_yr",
            "half_light_arcsec",
            "axis_ratio",
            "angle_deg",
        )
    }
    mags = {band: np.concatenate([sky.mags[band] for sky in skies]) for band in first.mags}
    return replace(first, mags=mags, **columns)


def reference_catalogue(sky: Sky, rng: np.random.Generator) -> dict[str, Floats]:
    """What a survey like Gaia would have published: errors as of DR3, and no motion for some faint stars.

    Error of position: 0.02 mas for bright stars to 0.5 mas at 20 and 1.2 mas at 21 (Lindegren et al. 2021,
    A&A 649, A2, table 4); proper motions about as many mas/yr; magnitudes 0.004 to 0.03.
    """
    chosen = np.flatnonzero(sky.is_star & (sky.mags["r"] < REFERENCE_LIMIT_MAG))
    chosen = chosen[np.argsort(sky.dec_deg[chosen], kind="stable")]
    mag = sky.mags["r"][chosen]
    n = len(chosen)
    error = np.maximum(0.02, 0.5 * 10 ** (0.22 * (mag - 20.0) + 0.15 * np.maximum(mag - 20.0, 0.0)))
    dec = sky.dec_deg[chosen]
    pm = [
        sky.pmra_mas_yr[chosen] + error * rng.standard_normal(n),
        sky.pmdec_mas_yr[chosen] + error * rng.standard_normal(n),
    ]
    unknown = (mag > 20.3) & (rng.uniform(size=n) < 0.05)
    for motion in pm:
        motion[unknown] = math.nan
    mag_error = 0.004 + 0.026 * 10 ** (0.35 * (mag - REFERENCE_LIMIT_MAG))
    return {
        "ra_deg": sky.ra_deg[chosen] + error * rng.standard_normal(n) / MAS_PER_DEG / np.cos(np.radians(dec)),
        "dec_deg": dec + error * rng.standard_normal(n) / MAS_PER_DEG,
        "pmra_mas_yr": pm[0],
        "pmdec_mas_yr": pm[1],
        "epoch_year": np.full(n, REFERENCE_EPOCH_YEAR),
        "ra_err_mas": error,
        "dec_err_mas": error,
        **{
            f"mag_{band}": sky.mags[band][chosen] + mag_error * rng.standard_normal(n)
            for band in ("g", "r", "i")
        },
    }
