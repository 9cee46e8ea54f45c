"""Reference catalogues: what their stars are, and reading only the cone that is needed, in one canonical form.

Files are Parquet, FITS (a table, or FITS_LDAC as SCAMP reads it), ECSV or VOTable. Which column means
what follows from their names; the dialects below are known. A file is read again when it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spica_imaging.reference_dialects import DIALECTS, Dialect

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_MJD_J2000 = 51544.5
_DAYS_PER_YEAR = 365.25
_MAS_PER_DEG = 3.6e6
_TILE_DEG = 0.25
_MAG_PER_RELATIVE_FLUX = 2.5 / np.log(10.0)


class ReferenceFileError(ValueError):
    """A reference catalogue cannot be read, or its columns are not known."""


def julian_year(mjd: float) -> float:
    """Julian epoch of a Modified Julian Date."""
    return 2000.0 + (mjd - _MJD_J2000) / _DAYS_PER_YEAR


UNKNOWN_PM_MAS_YR = 5.0
"""Proper motion per axis that a star has as a rule of which none is known: what its position is uncertain by every year."""


@dataclass(frozen=True, slots=True)
class Stars:
    """Reference stars, ICRS. All arrays have shape (n,)."""

    ra_deg: Floats
    dec_deg: Floats
    error_mas: Floats
    """Standard error per axis at `epoch_year`; NaN where the catalogue does not say."""
    epoch_year: Floats
    """Epoch of the positions."""
    pm_ra_mas_yr: Floats
    """Proper motion along RA, cos(Dec) included; 0 where not known."""
    pm_dec_mas_yr: Floats
    mags: Mapping[str, Floats] = field(default_factory=dict)
    """Magnitudes per band; NaN where not measured."""
    mag_errors: Mapping[str, Floats] = field(default_factory=dict)
    """Standard errors of `mags`, for bands whose errors the catalogue has; NaN where it does not say."""
    pm_error_mas_yr: Floats | None = None
    """Standard error of the proper motion per axis: `UNKNOWN_PM_MAS_YR` where no proper motion is known, NaN where
    one is, but not its error. None: of none of them anything is known."""

    def __len__(self) -> int:
        return len(self.ra_deg)

    @property
    def error_arcsec(self) -> Floats:
        """Standard errors for fits: 20 mas where the catalogue does not say."""
        return np.where(np.isfinite(self.error_mas), self.error_mas, 20.0) / 1000.0

    def take(self, index: NDArray[np.intp] | Bools) -> Stars:
        """Keep the stars of this index or mask."""
        return Stars(
            self.ra_deg[index],
            self.dec_deg[index],
            self.error_mas[index],
            self.epoch_year[index],
            self.pm_ra_mas_yr[index],
            self.pm_dec_mas_yr[index],
            {band: values[index] for band, values in self.mags.items()},
            {band: values[index] for band, values in self.mag_errors.items()},
            None if self.pm_error_mas_yr is None else self.pm_error_mas_yr[index],
        )

    def at_epoch(self, year: float) -> Stars:
        """Move every star to one epoch along its proper motion; errors grow with the years.

        Uniform motion in space without radial velocity and parallax: u + μ·t, made a unit vector again (ESA 1997,
        The Hipparcos Catalogue, vol. 1, eq. 1.5.18 ff.), so that it holds at the poles too, where the
        components of the proper motion turn. Errors: σ² + (t·σ_μ)². To be called on stars as the catalogue has them: a
        second step adds its growth to the first's.
        """
        years = year - self.epoch_year
        east, north, away = _local_frame(self.ra_deg, self.dec_deg)
        motion = np.radians(self.pm_ra_mas_yr / _MAS_PER_DEG) * east
        motion += np.radians(self.pm_dec_mas_yr / _MAS_PER_DEG) * north
        moved = away + years * motion
        length = np.sqrt((moved**2).sum(axis=0))
        moved /= length
        # 1 - z² is taken from x and y, which are exact at the poles.
        ra = np.mod(np.degrees(np.arctan2(moved[1], moved[0])), 360.0)
        dec = np.degrees(np.arctan2(moved[2], np.hypot(moved[0], moved[1])))
        east, north, _ = _local_frame(ra, dec)
        still = (self.pm_ra_mas_yr == 0) & (self.pm_dec_mas_yr == 0)
        return replace(
            self,
            ra_deg=np.where(still, np.mod(self.ra_deg, 360.0), ra),
            dec_deg=np.where(still, self.dec_deg, dec),
            error_mas=self._grown_error_mas(years),
            epoch_year=np.full(len(self), year),
            pm_ra_mas_yr=np.degrees((motion * east).sum(axis=0) / length) * _MAS_PER_DEG,
            pm_dec_mas_yr=np.degrees((motion * north).sum(axis=0) / length) * _MAS_PER_DEG,
        )

    def _grown_error_mas(self, years: Floats) -> Floats:
        if self.pm_error_mas_yr is None:
            return self.error_mas
        grown: Floats = np.hypot(self.error_mas, years * np.nan_to_num(self.pm_error_mas_yr))
        return grown

    def colour(self, blue: str, red: str) -> Floats:
        """Difference of two bands, such as BP - RP; NaN where one of them is not measured or not in the catalogue."""
        nothing = np.full(len(self), np.nan)
        return np.asarray(self.mags.get(blue, nothing) - self.mags.get(red, nothing))

    def within(self, ra_deg: float, dec_deg: float, radius_deg: float) -> Stars:
        """Keep those of a cone."""
        return self.take(separation_deg(self.ra_deg, self.dec_deg, ra_deg, dec_deg) <= radius_deg)

    def brightness(self, band: str | None) -> Floats:
        """Magnitudes to sort by: the band asked for, else the one most stars have; zeros without any."""
        if band is not None and band in self.mags:
            return self.mags[band]
        if not self.mags:
            return np.zeros(len(self))
        return max(self.mags.values(), key=lambda mag: int(np.isfinite(mag).sum()))


def _local_frame(ra_deg: Floats, dec_deg: Floats) -> tuple[Floats, Floats, Floats]:
    """Unit vectors to the east, to the north and towards each direction, each of shape (3, n)."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    sin_ra, cos_ra, sin_dec, cos_dec = np.sin(ra), np.cos(ra), np.sin(dec), np.cos(dec)
    return (
        np.stack([-sin_ra, cos_ra, np.zeros_like(ra)]),
        np.stack([-sin_dec * cos_ra, -sin_dec * sin_ra, cos_dec]),
        np.stack([cos_dec * cos_ra, cos_dec * sin_ra, sin_dec]),
    )


def separation_deg(ra1: Floats, dec1: Floats, ra2: float, dec2: float) -> Floats:
    """Angle between sky positions (haversine, exact at small angles). Degrees."""
    d1, d2 = np.radians(dec1), np.radians(dec2)
    half = np.sin((d1 - d2) / 2) ** 2 + np.cos(d1) * np.cos(d2) * np.sin(np.radians(ra1 - ra2) / 2) ** 2
    angle: Floats = np.degrees(2 * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0))))
    return angle


def stars_in_cone(path: Path, version: str, ra_deg: float, dec_deg: float, radius_deg: float) -> Stars:
    """Stars of a cone, at the catalogue's own epoch, in the catalogue's order.

    A somewhat larger area is read and kept per process: exposures of one night share fields. `version`
    is anything that changes with the file, such as its checksum: it is then read again.
    Raises `ReferenceFileError` when the file cannot be read or its columns are not known.
    """
    dec = round(dec_deg / _TILE_DEG) * _TILE_DEG
    step = _TILE_DEG / max(np.cos(np.radians(dec)), 0.05)
    ra = round(ra_deg / step) * step % 360.0
    radius = np.ceil(radius_deg / _TILE_DEG + 1.0) * _TILE_DEG
    area = _area(path, version, float(ra), float(np.clip(dec, -90, 90)), float(radius))
    return area.within(ra_deg, dec_deg, radius_deg)


@lru_cache(maxsize=16)
def _area(path: Path, version: str, ra_deg: float, dec_deg: float, radius_deg: float) -> Stars:
    try:
        columns = _reader(path)(path, _Box.around(ra_deg, dec_deg, radius_deg))
    except ReferenceFileError:
        raise
    except Exception as error:
        raise ReferenceFileError(f"Reference catalogue {path} cannot be read: {error}") from error
    stars = stars_from_columns(columns, path)
    return stars.take(separation_deg(stars.ra_deg, stars.dec_deg, ra_deg, dec_deg) <= radius_deg)


@dataclass(frozen=True, slots=True)
class _Box:
    """A range in Dec, and in RA where the cone is away from the poles: at most two intervals."""

    dec_low: float
    dec_high: float
    ra_ranges: tuple[tuple[float, float], ...]

    @classmethod
    def around(cls, ra: float, dec: float, radius: float) -> _Box:
        """Box that holds a cone."""
        low, high = dec - radius, dec + radius
        if low <= -89.9 or high >= 89.9:
            return cls(low, high, ())
        # Widest extent in RA of a small circle (not reached at its centre's Dec).
        half = float(np.degrees(np.arcsin(min(1.0, np.sin(np.radians(radius)) / np.cos(np.radians(dec))))))
        start, stop = (ra - half) % 360.0, (ra + half) % 360.0
        ranges = ((start, stop),) if start <= stop else ((start, 360.0), (0.0, stop))
        return cls(low, high, () if half >= 90.0 else ranges)


Columns = dict[str, NDArray[Any]]
Reader = Callable[[Path, _Box], Columns]


def _read_parquet(path: Path, box: _Box) -> Columns:
    import pyarrow.parquet as pq

    names = set(pq.read_schema(path).names)
    dialect = _dialect(names, path)
    wanted = dialect.columns(names)
    between = [(dialect.dec, ">=", box.dec_low), (dialect.dec, "<=", box.dec_high)]
    filters = [
        [*between, (dialect.ra, ">=", low), (dialect.ra, "<=", high)] for low, high in box.ra_ranges
    ] or [between]
    table = pq.read_table(path, columns=wanted, filters=filters)
    return {name: table[name].to_numpy() for name in wanted}


def _read_fits(path: Path, box: _Box) -> Columns:
    from astropy.io import fits

    with fits.open(path) as hdus:
        tables = [
            h for h in hdus if isinstance(h, fits.BinTableHDU | fits.TableHDU) and h.name != "LDAC_IMHEAD"
        ]
        if not tables:
            raise ValueError("it holds no table")
        data = tables[0].data
        names = list(data.names)
        return {name: np.array(data[name]) for name in _dialect(set(names), path).columns(names)}


def _read_astropy(path: Path, box: _Box) -> Columns:
    from astropy.table import Table

    formats = {".ecsv": "ascii.ecsv", ".csv": "ascii.csv", ".vot": "votable", ".xml": "votable"}
    table = Table.read(path, format=formats.get(path.suffix, "votable"))
    names = set(table.colnames)
    return {
        name: np.ma.filled(np.ma.asarray(table[name], dtype=np.float64), np.nan)
        for name in _dialect(names, path).columns(names)
    }


def _reader(path: Path) -> Reader:
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".pq"):
        return _read_parquet
    if suffix in (".ecsv", ".csv", ".vot", ".xml", ".votable"):
        return _read_astropy
    return _read_fits


def _dialect(names: set[str], path: Path | str) -> Dialect:
    for dialect in DIALECTS:
        if dialect.fits(names):
            return dialect
    raise ReferenceFileError(
        f"Reference catalogue {path} has columns {sorted(names)[:20]}; expected one of "
        + ", ".join(f"({d.ra}, {d.dec})" for d in DIALECTS),
    )


def stars_from_columns(columns: Columns, path: Path | str) -> Stars:
    """Columns of any dialect as `Stars`; rows without a position are dropped. `path`: for messages.

    Raises `ReferenceFileError` when the columns are not known.
    """
    dialect = _dialect(set(columns), path)
    n = len(columns[dialect.ra])

    def column(name: str | None, default: float) -> Floats:
        if name is None or name not in columns:
            return np.full(n, default)
        values = np.asarray(columns[name], dtype=np.float64)
        return np.where(np.isfinite(values), values, default)

    pm_ra, pm_dec = column(dialect.pm_ra, np.nan), column(dialect.pm_dec, np.nan)
    moving = np.isfinite(pm_ra) & np.isfinite(pm_dec)
    pm_error = _per_axis(column(dialect.pm_error_ra, np.nan), column(dialect.pm_error_dec, np.nan))
    error = _per_axis(column(dialect.error_ra, np.nan), column(dialect.error_dec, np.nan))
    error = error * dialect.error_to_mas
    bands = dialect.all_bands(columns)
    stars = Stars(
        ra_deg=np.mod(column(dialect.ra, np.nan), 360.0),
        dec_deg=column(dialect.dec, np.nan),
        error_mas=np.where(error > 0, error, dialect.error_default_mas),
        epoch_year=_epochs(column(dialect.epoch, np.nan), dialect),
        pm_ra_mas_yr=np.where(moving, pm_ra, 0.0),
        pm_dec_mas_yr=np.where(moving, pm_dec, 0.0),
        mags={band.name: column(band.mag, np.nan) for band in bands},
        mag_errors={
            band.name: _mag_error(column(band.error, np.nan), band.error_is)
            for band in bands
            if band.error in columns
        },
        pm_error_mas_yr=np.where(moving, pm_error, UNKNOWN_PM_MAS_YR),
    )
    return stars.take(np.isfinite(stars.ra_deg) & np.isfinite(stars.dec_deg))


def _per_axis(ra: Floats, dec: Floats) -> Floats:
    return np.sqrt((ra**2 + dec**2) / 2.0)


def _epochs(values: Floats, dialect: Dialect) -> Floats:
    years = 2000.0 + (values - _MJD_J2000) / _DAYS_PER_YEAR if dialect.epoch_is_mjd else values
    return np.where(np.isfinite(years), years, dialect.epoch_default)


def _mag_error(values: Floats, kind: str) -> Floats:
    positive = np.where(values > 0, values, np.nan)
    return _MAG_PER_RELATIVE_FLUX / positive if kind == "snr" else positive
