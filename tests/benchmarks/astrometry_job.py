"""Exposures from catalogue files to `.head` files, as a worker of the calib service solves them; each stage timed.

`python -m tests.benchmarks.astrometry_job JOB.json`: do that job, print what it gave as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from spica_calib.fields import fields_of, read_catalogue
from spica_calib.science.astrometry.problem import Exposure, Options, Zenith
from spica_calib.science.astrometry.solve import solve
from spica_calib.science.matching.geometry import field_centre, field_radius
from spica_calib.science.matching.locate import locate
from spica_calib.science.matching.search import Prior
from spica_calib.science.stars import CcdField, Stars, julian_year
from spica_imaging import references
from spica_imaging.head import format_head
from spica_imaging.profiles import Profile, load_profiles

PRIOR = Prior(shift_arcsec=60.0, rotation_deg=5.0, scale=0.2)
"""What SCAMP's MATCH looks over: POSITION_MAXERR 1 (arcmin), POSANGLE_MAXERR 5 (deg), PIXSCALE_MAXERR 1.2."""
LIMIT_LOG10 = -6.0
_CONTEXT = ("FILTER", "QRUNID")


@dataclass(frozen=True, slots=True)
class Job:
    """What to solve together."""

    catalogues: tuple[str, ...]
    """FITS_LDAC files, one per exposure."""
    reference: str
    heads: str
    """Folder to write to: <exposure>.head."""
    match: bool = True
    """Look for the exposures over the range of the profile; else headers are good to a few pixels."""
    threads: int = 1
    degree: int = 0
    """Highest degree of the distortion; 0: as the profile has it."""
    air: bool = True
    """Tell the solver where the zenith was."""


@dataclass(frozen=True, slots=True)
class Told:
    """What came out of it, in the solver's own words."""

    seconds: dict[str, float] = field(default_factory=dict)
    """By stage."""
    internal_mas: tuple[float, float] = (np.nan, np.nan)
    external_mas: tuple[float, float] = (np.nan, np.nan)
    n_internal: int = 0
    n_external: int = 0
    notes: tuple[str, ...] = ()

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values())


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stage(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now


def zenith_of(header: fits.Header) -> Zenith:
    """Where the zenith was, from the site, the sidereal time and the pointing in a header."""
    latitude, dec = np.radians(header["LATITUDE"]), np.radians(header["CRVAL2"])
    hours, minutes, seconds = map(float, header["LST-OBS"].split(":"))
    hour = np.radians(15.0 * (hours + minutes / 60.0 + seconds / 3600.0) - header["CRVAL1"])
    across = -np.cos(latitude) * np.sin(hour)
    up = np.sin(latitude) * np.cos(dec) - np.cos(latitude) * np.cos(hour) * np.sin(dec)
    along = np.sin(latitude) * np.sin(dec) + np.cos(latitude) * np.cos(hour) * np.cos(dec)
    return Zenith(
        distance_deg=float(np.degrees(np.arctan2(np.hypot(across, up), along))),
        # The hour angle grows to the west: a star past the meridian has the zenith in its east.
        angle_deg=float(np.degrees(np.arctan2(-across, up))),
    )


def read(path: Path, profile: Profile) -> Exposure:
    """An exposure with the WCS of its headers."""
    tables = read_catalogue(path)
    headers = [table.header for table in tables]
    names = [str(header["EXTNAME"]) for header in headers]
    fields = fields_of(tables, profile, names, {}, None, None)
    first = headers[0]
    return Exposure(
        name=path.stem,
        context="|".join(str(first[keyword]) for keyword in _CONTEXT),
        ccds=tuple(fields),
        epoch_year=julian_year(float(first["MJD-OBS"])),
        zenith=zenith_of(first),
    )


def stars_around(reference: Path, fields: Sequence[CcdField], margin_deg: float) -> Stars:
    """Reference stars of the fields and a margin, read anew: nothing is kept from another run."""
    references._area.cache_clear()
    centre = field_centre(fields)
    radius = 1.02 * (field_radius(fields, *centre) + margin_deg)
    return references.stars_in_cone(reference, str(reference.stat().st_mtime_ns), *centre, radius)


def calibrate(job: Job) -> Told:
    """Solve the exposures and write their `.head` files. Raises `NoMatch`."""
    clock, profile = _Clock(), load_profiles(None)["megacam"]
    with ThreadPoolExecutor(job.threads) as pool:
        exposures = list(pool.map(lambda path: read(Path(path), profile), job.catalogues))
        if not job.air:
            exposures = [replace(exposure, zenith=None) for exposure in exposures]
        clock.stage("read")
        margin = (PRIOR.shift_arcsec if job.match else 5.0) / 3600.0
        every = [ccd for exposure in exposures for ccd in exposure.ccds]
        stars = stars_around(Path(job.reference), every, margin)
        clock.stage("reference")
        if job.match:
            exposures = list(pool.map(lambda exposure: _located(exposure, stars), exposures))
        clock.stage("match")
    found = solve(exposures, stars, Options(degree=job.degree or profile.astrometry.distortion_degree))
    clock.stage("solve")
    folder = Path(job.heads)
    folder.mkdir(parents=True, exist_ok=True)
    for exposure, solved in zip(exposures, found.exposures, strict=True):
        text = format_head([wcs.to_header() for wcs in solved.wcs])
        (folder / f"{exposure.name}.head").write_text(text, encoding="ascii")
    clock.stage("write")
    return Told(
        clock.seconds, found.internal_mas, found.external_mas, found.n_internal, found.n_external, found.notes
    )


def _located(exposure: Exposure, stars: Stars) -> Exposure:
    found = locate(
        exposure.ccds, stars.at_epoch(exposure.epoch_year), "r", PRIOR, rigid=True, limit_log10=LIMIT_LOG10
    )
    ccds = zip(exposure.ccds, found.wcs, strict=True)
    return replace(exposure, ccds=tuple(replace(ccd, wcs=wcs) for ccd, wcs in ccds))


def main(arguments: list[str]) -> None:
    job = Job(**json.loads(Path(arguments[0]).read_text()))
    print(json.dumps(asdict(calibrate(job))))


if __name__ == "__main__":
    main(sys.argv[1:])
