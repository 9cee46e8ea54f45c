"""Made-up surveys as catalogues: what source-extractor would have told of exposures whose truth is known.

Headers are raw: a linear TAN, drawn focal plane, off by pointing, rotation and scale; neither they nor any other file
holds the truth, which stays in memory. Everything comes from a seed: the same recipe gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.time import Time
from numpy.typing import NDArray
from spica_imaging.ldac import LdacTable, write_ldac
from spica_imaging.wcs import tan_deproject

from tests.support.skycat_optics import (
    LATITUDE_DEG,
    SCALE_ARCSEC,
    Aim,
    Air,
    Camera,
    Floats,
    Shape,
    angles,
    camera,
    hour_angle,
    vector,
)
from tests.support.skycat_sources import (
    GAIA_EPOCH,
    STAR,
    Reference,
    Sky,
    Truth,
    detect,
    make_sky,
    reference_of,
)

__all__ = ["LATITUDE_DEG", "Exposure", "Recipe", "Survey", "make_survey"]

_MJD = 57190.3
_LONGITUDE_DEG = -155.4717
_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to make."""

    seed: int = 1
    layout: Literal["four", "megacam", "small"] = "four"
    n_exposures: int = 5
    shape: Shape = "polynomial"
    dec_deg: float = LATITUDE_DEG
    airmass: tuple[float, float] = (1.0, 1.0)
    """Between these; at 1 the air only changes the scale a little."""
    star_density: float = 6000.0
    """Per square degree, to magnitude 21."""
    galaxy_density: float = 40000.0
    """Per square degree, to magnitude 24."""
    dither_arcsec: float = 90.0
    pointing_error_arcsec: float = 50.0
    rotation_error_deg: float = 4.0
    scale_error: float = 0.02
    edge_arcsec: float = 4.0
    spurious: float = 0.05
    contexts: int = 1
    """Observing runs, each with a camera put together anew."""

    @property
    def name(self) -> str:
        return f"{self.layout}-{self.n_exposures}-{self.shape}-{self.airmass[1]:.1f}-{self.seed}"


@dataclass(frozen=True)
class Exposure:
    """One exposure: what is told of it, and the truth."""

    name: str
    context: int
    headers: tuple[fits.Header, ...]
    """Raw, per CCD."""
    columns: tuple[dict[str, NDArray[Any]], ...]
    truth: tuple[Truth, ...]
    aim: Aim
    epoch_year: float
    zeropoint_mag: float
    """True: of 1 adu/s."""
    airmass: float
    zenith: tuple[float, float]
    """True distance, and position angle east of north, of the zenith (deg): headers tell these by time and place."""

    def good_headers(self, rng: np.random.Generator, off_px: float = 3.0) -> tuple[fits.Header, ...]:
        """Headers as a model of the focal plane to first order leaves them: good to a few pixels, still linear.

        Each CCD has the place and the slopes that it truly has, the exposure is off by about `off_px`.
        """
        camera, scale = self.aim.camera, self.aim.scale_arcsec / 3600.0
        off = rng.normal(0.0, off_px / np.sqrt(2) * scale, 2)
        pointing = tan_deproject(off[0], off[1], *self.aim.axis)
        turn = self.aim.turn() @ (np.eye(2) + 1e-4 * rng.standard_normal((2, 2)))
        made = []
        for header, place in zip(self.headers, camera.places, strict=True):
            crpix, slopes = camera.first_order(place)
            good = header.copy()
            good["CRVAL1"], good["CRVAL2"] = float(pointing[0]), float(pointing[1])
            good["CRPIX1"], good["CRPIX2"] = float(crpix[0]), float(crpix[1])
            for i, j in np.ndindex(2, 2):
                good[f"CD{i + 1}_{j + 1}"] = float((turn @ slopes)[i, j])
            made.append(good)
        return tuple(made)


@dataclass(frozen=True)
class Survey:
    """All exposures of a recipe."""

    recipe: Recipe
    sky: Sky
    reference: Reference
    exposures: tuple[Exposure, ...]

    def write(self, folder: Path, headers: Sequence[Sequence[fits.Header]] | None = None) -> list[Path]:
        """One FITS_LDAC catalogue per exposure, with raw headers or those given."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for number, exposure in enumerate(self.exposures):
            told = exposure.headers if headers is None else headers[number]
            paths.append(folder / f"{exposure.name}.ldac")
            write_ldac(paths[-1], map(LdacTable, told, exposure.columns))
        return paths

    def write_reference(self, folder: Path, reference: Reference | None = None) -> tuple[Path, Path]:
        """The reference stars as FITS_LDAC (for SCAMP) and as Parquet (ours).

        SCAMP 2.10 leaves proper motions of a catalogue file alone: its file has them applied, to the exposures' mean epoch.
        """
        folder.mkdir(parents=True, exist_ok=True)
        r = reference or self.reference
        epoch = float(np.mean([exposure.epoch_year for exposure in self.exposures]))
        ra, dec = r.at(epoch)
        ldac, parquet = folder / "reference.cat", folder / "reference.parquet"
        n = len(r.ra_deg)
        header = fits.Header([("OBJECT", "reference stars"), ("EQUINOX", 2000.0), ("EPOCH", epoch)])
        columns: dict[str, NDArray[Any]] = {
            "X_WORLD": ra,
            "Y_WORLD": dec,
            "ERRA_WORLD": r.error_at(epoch) / 3.6e6,
            "ERRB_WORLD": r.error_at(epoch) / 3.6e6,
            "ERRTHETA_WORLD": np.zeros(n),
            "MAG": r.mag_r,
            "MAGERR": r.mag_error,
            "OBSDATE": np.full(n, epoch),
        }
        write_ldac(ldac, [LdacTable(header, columns)])
        table = {
            "ra_deg": r.ra_deg,
            "dec_deg": r.dec_deg,
            "ra_err_mas": r.error_mas,
            "dec_err_mas": r.error_mas,
            "pmra_mas_yr": r.pm_ra_mas_yr,
            "pmdec_mas_yr": r.pm_dec_mas_yr,
            "pmra_err_mas_yr": r.pm_error_mas_yr,
            "pmdec_err_mas_yr": r.pm_error_mas_yr,
            "epoch_year": np.full(n, GAIA_EPOCH),
            "mag_r": r.mag_r,
            "mag_g": r.mag_g,
            "magerr_r": r.mag_error,
            "magerr_g": r.mag_error,
        }
        pq.write_table(pa.table(table), parquet)
        return ldac, parquet

    def shuffled_reference(self, rng: np.random.Generator) -> Reference:
        """As dense and as bright, but another sky: RA and Dec are paired anew."""
        return replace(self.reference, dec_deg=rng.permutation(self.reference.dec_deg))

    @cached_property
    def n_detections(self) -> int:
        return sum(len(truth.x) for exposure in self.exposures for truth in exposure.truth)


def _raw_header(recipe: Recipe, exposure: dict[str, Any], optics: Camera, number: int) -> fits.Header:
    """What the camera would write: the drawn focal plane, scaled and turned as it believes."""
    place = optics.places[number]
    angle, scale = np.radians(exposure["rotation"]), exposure["scale"] / 3600.0
    turn = scale * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    sign = -1.0 if place.turned else 1.0
    cd = sign * turn
    header = fits.Header([("NAXIS1", place.nx), ("NAXIS2", place.ny), ("EXTNAME", place.name)])
    values = {
        "OBJECT": "field", "TELESCOP": "CFHT 3.6m", "INSTRUME": "MegaPrime", "DETECTOR": "MegaCam",
        "FILTER": "r.MP9601", "QRUNID": f"15A{exposure['context']:02d}", "EXPTIME": _SECONDS,
        "MJD-OBS": exposure["mjd"], "DATE-OBS": Time(exposure["mjd"], format="mjd").isot,
        "AIRMASS": round(exposure["airmass"], 3), "LATITUDE": LATITUDE_DEG, "LONGITUD": _LONGITUDE_DEG,
        "LST-OBS": exposure["lst"], "GAIN": 1.6, "PHOT_C": 26.0, "PHOT_K": -0.1, "EQUINOX": 2000.0,
        "RADESYS": "ICRS", "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN",
        "CRVAL1": exposure["pointing"][0], "CRVAL2": exposure["pointing"][1],
        "CRPIX1": place.centre[0] - sign * place.drawn[0], "CRPIX2": place.centre[1] - sign * place.drawn[1],
        "CD1_1": cd[0, 0], "CD1_2": cd[0, 1], "CD2_1": cd[1, 0], "CD2_2": cd[1, 1],
        "CUNIT1": "deg", "CUNIT2": "deg",
    }  # fmt: skip
    for keyword, value in values.items():
        header[keyword] = float(value) if isinstance(value, np.floating) else value
    return header


def _sexagesimal(hours: float) -> str:
    seconds = round(hours % 24.0 * 3600.0, 2)
    return f"{int(seconds // 3600):02d}:{int(seconds % 3600 // 60):02d}:{seconds % 60:05.2f}"


def zenith_of(pointing: tuple[float, float], hour_angle_deg: float) -> tuple[Floats, float, float]:
    """Unit vector of the zenith; its distance and its position angle (east of north) from the pointing, deg."""
    zenith = vector(np.array([pointing[0] + hour_angle_deg]), np.array([LATITUDE_DEG]))[:, 0]
    here = vector(np.array([pointing[0]]), np.array([pointing[1]]))[:, 0]
    ra, dec = np.radians(pointing)
    east = np.array([-np.sin(ra), np.cos(ra), 0.0])
    north = np.array([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)])
    distance = np.degrees(np.arctan2(np.hypot(zenith @ east, zenith @ north), zenith @ here))
    return zenith, float(distance), float(np.degrees(np.arctan2(zenith @ east, zenith @ north)))


def _expose(
    rng: np.random.Generator,
    recipe: Recipe,
    optics: Camera,
    sky: Sky,
    field: tuple[float, float],
    number: int,
) -> Exposure:
    dither = rng.uniform(-1, 1, 2) * recipe.dither_arcsec / 3600.0
    ra0, dec0 = tan_deproject(dither[0], dither[1], *field)
    pointing = float(ra0), float(dec0)
    airmass = float(rng.uniform(*recipe.airmass))
    hour = hour_angle(airmass, pointing[1]) * float(rng.choice([-1.0, 1.0]))
    zenith, distance, angle = zenith_of(pointing, hour)
    air = Air(zenith)
    mjd = _MJD + 0.004 * number + 20.0 * (number % recipe.contexts)
    seen = angles(air.apparent(vector(np.array([pointing[0]]), np.array([pointing[1]]))))
    aim = Aim(
        optics,
        (float(seen[0][0]), float(seen[1][0])),
        float(rng.normal(0.0, 0.3)),
        SCALE_ARCSEC * (1.0 + 2e-5 * float(rng.standard_normal())),
        air,
    )
    epoch = 2000.0 + (mjd - 51544.5) / 365.25
    ra, dec = sky.at(epoch)
    p0, q0 = aim.undistorted(ra, dec)
    zeropoint = 26.0 - 0.1 * (airmass - 1.0) + float(rng.normal(0.0, 0.05))
    columns, truth = [], []
    for ccd, place in enumerate(optics.places):
        rows = aim.falls_on(ccd, p0, q0)
        x, y = optics.to_pixel(place, p0[rows], q0[rows])
        made = detect(
            rng, sky, rows, x, y, (ra, dec), (place.nx, place.ny), zeropoint, _SECONDS, recipe.spurious
        )
        columns.append(made[0])
        truth.append(made[1])
    # By how much the telescope is wrong about itself.
    off = recipe.pointing_error_arcsec / 3600.0 * np.sqrt(rng.random())
    way = rng.uniform(0, 2 * np.pi)
    told: dict[str, Any] = {
        "pointing": [float(c) for c in tan_deproject(off * np.cos(way), off * np.sin(way), *pointing)],
        "rotation": aim.rotation_deg + float(rng.uniform(-1, 1)) * recipe.rotation_error_deg,
        "scale": aim.scale_arcsec * (1.0 + float(rng.uniform(-1, 1)) * recipe.scale_error),
        "airmass": airmass,
        "mjd": mjd,
        "lst": _sexagesimal((pointing[0] + hour) / 15.0),
        "context": number % recipe.contexts,
    }
    return Exposure(
        f"exp{number:04d}",
        number % recipe.contexts,
        tuple(_raw_header(recipe, told, optics, ccd) for ccd in range(len(optics.places))),
        tuple(columns),
        tuple(truth),
        aim,
        epoch,
        zeropoint,
        airmass,
        (distance, angle),
    )


def make_survey(recipe: Recipe) -> Survey:
    """The survey of a recipe."""
    rng = np.random.default_rng(recipe.seed)
    cameras = [
        camera(rng, recipe.layout, edge_arcsec=recipe.edge_arcsec, shape=recipe.shape)
        for _ in range(recipe.contexts)
    ]
    field = (float(rng.uniform(20.0, 340.0)), recipe.dec_deg)
    margin = (2.5 * recipe.dither_arcsec + 2.0 * recipe.pointing_error_arcsec + 60.0) / 3600.0
    places = cameras[0].places
    turn = np.radians(1.5)  # exposures are turned a little against north
    wide, high = (
        max(abs(place.drawn[axis]) + side / 2 for place, side in ((p, (p.nx, p.ny)[axis]) for p in places))
        for axis in (0, 1)
    )
    half = tuple(
        SCALE_ARCSEC / 3600.0 * (a * np.cos(turn) + b * np.sin(turn)) + margin
        for a, b in ((wide, high), (high, wide))
    )
    sky = make_sky(rng, field, (half[0], half[1]), recipe.star_density, recipe.galaxy_density)
    reference = reference_of(rng, sky)
    exposures = tuple(
        _expose(rng, recipe, cameras[number % recipe.contexts], sky, field, number)
        for number in range(recipe.n_exposures)
    )
    return Survey(recipe, sky, reference, exposures)


def bright_stars(truth: Truth, columns: dict[str, NDArray[Any]], snr: float = 50.0) -> NDArray[np.bool_]:
    """Detections that are stars, well measured and unflagged: to judge positions by."""
    return np.asarray((truth.kind == STAR) & (truth.snr > snr) & (columns["FLAGS"] == 0))
