"""How seconds and memory of the solver grow with the number of exposures: arrays straight into it, no files.

`python -m tests.benchmarks.astrometry_scaling N`: N exposures of 36 CCDs with 300 stars each, ten of a field; prints
seconds of making and of solving, and the most memory that was resident before and after (MB), as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
from spica_calib.science.astrometry.problem import Exposure, Options
from spica_calib.science.stars import CcdField, Sources, Stars
from spica_imaging.wcs import TpvWcs, tan_deproject

from tests.benchmarks.astrometry_frames import peak_mb
from tests.support.skycat import zenith_of
from tests.support.skycat_optics import SCALE_ARCSEC, Aim, Air, Camera, Floats, camera
from tests.support.skycat_sources import FLOOR_PX, gaia_errors_mas

STARS_PER_CCD = 300
PER_FIELD = 10
_REFERENCE_MAG = 20.5
_EPOCH = 2015.5


@dataclass(frozen=True, slots=True)
class Scaling:
    """What one size took."""

    n_exposures: int
    n_detections: int
    make_s: float
    solve_s: float
    before_mb: float
    """Most memory resident before the solution: interpreter, libraries, and its input."""
    peak_mb: float
    p68_mas: float
    """Of the map from pixels to the sky, against truth, over a sample of exposures."""


def _field(rng: np.random.Generator, number: int, optics: Camera) -> tuple[tuple[float, float], Stars]:
    """A field's centre and its stars: at one epoch, without proper motions."""
    centre = (5.0 * (number % 70), -20.0 + 6.0 * (number // 70))
    area = len(optics.places) * 2048 * 4612
    half = np.array([9600.0, 9900.0]) + 800.0
    n = int(STARS_PER_CCD * len(optics.places) * 4 * half.prod() / area)
    side = half * SCALE_ARCSEC / 3600.0
    ra, dec = tan_deproject(rng.uniform(-side[0], side[0], n), rng.uniform(-side[1], side[1], n), *centre)
    mag = 21.5 + np.log10(rng.random(n) * (1 - 10 ** (-0.24 * 5.5)) + 10 ** (-0.24 * 5.5)) / 0.24
    error, _ = gaia_errors_mas(mag)
    return centre, Stars(ra, dec, error, np.full(n, _EPOCH), np.zeros(n), np.zeros(n), {"r": mag})


def _ccd(
    rng: np.random.Generator, aim: Aim, number: int, guess: TpvWcs, x: Floats, y: Floats, mag: Floats
) -> CcdField:
    place = aim.camera.places[number]
    k = np.flatnonzero((x > 3) & (x < place.nx - 2) & (y > 3) & (y < place.ny - 2))
    flux = 120.0 * 10 ** (0.4 * (26.0 - mag[k]))
    noise = np.sqrt(flux / 1.6 + 16000.0)
    error = 1.7 * noise / flux
    off = rng.standard_normal((2, len(k))) * np.hypot(error, FLOOR_PX)
    every = np.ones(len(k), bool)
    sources = Sources(x[k] + off[0], y[k] + off[1], error, flux, flux, noise, every, every, every)
    return CcdField(number, place.name, place.nx, place.ny, sources, guess)


def _exposure(
    rng: np.random.Generator, name: str, optics: Camera, centre: tuple[float, float], stars: Stars
) -> tuple[Exposure, Aim]:
    dither = rng.uniform(-60.0, 60.0, 2) / 3600.0
    ra, dec = (float(c) for c in tan_deproject(dither[0], dither[1], *centre))
    zenith, _, _ = zenith_of((ra, dec), 0.0)
    air = Air(zenith, 0.0, 0.0)
    aim = Aim(optics, (ra, dec), float(rng.normal(0.0, 0.2)), SCALE_ARCSEC, air)
    p0, q0 = aim.undistorted(stars.ra_deg, stars.dec_deg)
    off = rng.normal(0.0, 2.0, 2) * SCALE_ARCSEC / 3600.0
    crval = tan_deproject(off[0], off[1], ra, dec)
    turn = aim.turn() @ (np.eye(2) + 5e-5 * rng.standard_normal((2, 2)))
    ccds = []
    for number, place in enumerate(optics.places):
        crpix, slopes = optics.first_order(place)
        cd = turn @ slopes
        guess = TpvWcs(
            (float(crval[0]), float(crval[1])), (float(crpix[0]), float(crpix[1])),
            ((float(cd[0, 0]), float(cd[0, 1])), (float(cd[1, 0]), float(cd[1, 1]))),
        )  # fmt: skip
        near = aim.falls_on(number, p0, q0)
        x, y = optics.to_pixel(place, p0[near], q0[near])
        ccds.append(_ccd(rng, aim, number, guess, x, y, stars.mags["r"][near]))
    return Exposure(name, "run", tuple(ccds), _EPOCH), aim


def _reference(rng: np.random.Generator, stars: Stars) -> Stars:
    """What a catalogue knows of them."""
    known = stars.take(stars.mags["r"] < _REFERENCE_MAG)
    off = rng.standard_normal((2, len(known))) * known.error_mas / 3.6e6
    cos = np.cos(np.radians(known.dec_deg))
    return replace(known, ra_deg=known.ra_deg + off[0] / cos, dec_deg=known.dec_deg + off[1])


def _joined(parts: list[Stars]) -> Stars:
    def every(name: str) -> Floats:
        return np.concatenate([getattr(part, name) for part in parts])

    return Stars(
        every("ra_deg"), every("dec_deg"), every("error_mas"), every("epoch_year"), every("pm_ra_mas_yr"),
        every("pm_dec_mas_yr"), mags={"r": np.concatenate([part.mags["r"] for part in parts])},
    )  # fmt: skip


def make(n_exposures: int, seed: int = 1) -> tuple[list[Exposure], Stars, list[Aim]]:
    """Exposures with WCS good to a few pixels, reference stars, and the truth."""
    rng = np.random.default_rng(seed)
    optics = camera(rng, "megacam")
    exposures: list[Exposure] = []
    aims: list[Aim] = []
    references: list[Stars] = []
    for number in range(-(-n_exposures // PER_FIELD)):
        centre, stars = _field(rng, number, optics)
        references.append(_reference(rng, stars))
        for _ in range(min(PER_FIELD, n_exposures - len(exposures))):
            exposure, aim = _exposure(rng, f"exp{len(exposures):04d}", optics, centre, stars)
            exposures.append(exposure)
            aims.append(aim)
    return exposures, _joined(references), aims


def _distances(aim: Aim, solved: tuple[TpvWcs, ...]) -> Iterator[Floats]:
    """Of a grid on each CCD, mas."""
    for number, (place, wcs) in enumerate(zip(aim.camera.places, solved, strict=True)):
        x, y = (
            a.ravel()
            for a in np.meshgrid(np.linspace(50, place.nx - 50, 6), np.linspace(50, place.ny - 50, 12))
        )
        (ra, dec), (ra0, dec0) = wcs.pixel_to_sky(x, y), aim.pixel_to_sky(number, x, y)
        yield 3.6e6 * np.hypot(
            (np.mod(ra - ra0 + 180.0, 360.0) - 180.0) * np.cos(np.radians(dec0)), dec - dec0
        )


def measure(n_exposures: int) -> Scaling:
    """Make and solve. The kernels are compiled on ten exposures of another seed first."""
    from spica_calib.science.astrometry.solve import solve

    warm, stars, _ = make(2, seed=2)
    solve(warm, stars, Options())
    begun = time.perf_counter()
    exposures, stars, aims = make(n_exposures)
    made, before = time.perf_counter(), peak_mb()
    solution = solve(exposures, stars, Options())
    solved = time.perf_counter()
    peak = peak_mb()
    chosen = np.unique(np.linspace(0, n_exposures - 1, 20).astype(int))
    distance = np.concatenate([d for k in chosen for d in _distances(aims[k], solution.exposures[k].wcs)])
    return Scaling(
        n_exposures,
        sum(len(ccd.sources) for exposure in exposures for ccd in exposure.ccds),
        made - begun,
        solved - made,
        before,
        peak,
        float(np.percentile(distance, 68)),
    )


if __name__ == "__main__":
    print(json.dumps(asdict(measure(int(sys.argv[1])))))
