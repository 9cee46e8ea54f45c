"""Reference catalogues: what their stars are, and reading only the cone that is needed, in one canonical form.

Files are Parquet, FITS (a table, or FITS_LDAC as SCAMP reads it), ECSV or VOTable. Which column means
what follows from their names; the dialects below are known. A file is read again when it changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_MJD_J2000 = 51544.5
_DAYS_PER_YEAR = 365.25
_MAS_PER_DEG = 3.6e6
_TILE_DEG = 0.25
_MAG_COLUMN = re.compile(r"^mag_(?P<band>\w+)$")


class ReferenceFileError(ValueError):
    """A reference catalogue cannot be read, or its columns are not known."""


def julian_year(mjd: float) -> float:
    """Julian epoch of a Modified Julian Date."""
    return 2000.0 + (mjd - _MJD_J2000) / _DAYS_PER_YEAR


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
        )

    def at_epoch(self, year: float) -> Stars:
        """Move every star to one epoch along its proper motion (straight in RA and Dec, fine below 1 as)."""
        years = year - self.epoch_year
        dec = self.dec_deg + years * self.pm_dec_mas_yr / _MAS_PER_DEG
        ra = self.ra_deg + years * self.pm_ra_mas_yr / _MAS_PER_DEG / np.cos(np.radians(self.dec_deg))
        return replace(
            self,
            ra_deg=np.mod(ra, 360.0),
            dec_deg=np.clip(dec, -90.0, 90.0),
            epoch_year=np.full(len(self), year),
        )

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


def separation_deg(ra1: Floats, dec1: Floats, ra2: float, dec2: float) -> Floats:
    """Angle between sky positions (haversine, exact at small angles). Degrees."""
    d1, d2 = np.radians(dec1), np.radians(dec2)
    half = np.sin((d1 - d2) / 2) ** 2 + np.cos(d1) * np.cos(d2) * np.sin(np.radians(ra1 - ra2) / 2) ** 2
    angle: Floats = np.degrees(2 * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0))))
    return angle


@dataclass(frozen=True, slots=True)
class Dialect:
    """Names of the columns in one family of catalogues. RA proper motions include cos(Dec) in all of them."""

    ra: str
    dec: str
    pm_ra: str | None = None
    pm_dec: str | None = None
    epoch: str | None = None
    epoch_default: float = 2000.0
    error_ra: str | None = None
    error_dec: str | None = None
    error_to_mas: float = 1.0
    error_default_mas: float = np.nan
    bands: tuple[tuple[str, str], ...] = ()
    """(column, band); columns named mag_<band> are taken besides."""


DIALECTS: tuple[Dialect, ...] = (
    # Canonical: Spica's own and its simulator's.
    Dialect(
        "ra_deg", "dec_deg", "pmra_mas_yr", "pmdec_mas_yr", "epoch_year",
        error_ra="ra_err_mas", error_dec="dec_err_mas",
    ),
    # Gaia archive (source table).
    Dialect(
        "ra", "dec", "pmra", "pmdec", "ref_epoch", 2016.0, "ra_error", "dec_error",
        bands=(("phot_g_mean_mag", "G"), ("phot_bp_mean_mag", "BP"), ("phot_rp_mean_mag", "RP")),
    ),
    # Gaia DR2 and DR3 at VizieR.
    Dialect(
        "RA_ICRS", "DE_ICRS", "pmRA", "pmDE", "Epoch", 2016.0, "e_RA_ICRS", "e_DE_ICRS",
        bands=(("Gmag", "G"), ("BPmag", "BP"), ("RPmag", "RP")),
    ),
    # Hipparcos and Tycho-2 as one table. Polaris' pmRA of 44 mas/yr shows that cos(Dec) is in it, and 61 Cyg
    # that positions are of the year in epoch_year, rounded to 0.0001 deg (hence the error). A few stars
    # without proper motion in Tycho-2 (Groombridge 1830 is one) are of 1991 all the same: outliers, clipped.
    Dialect(
        "ra_degrees", "dec_degrees", "ra_mas_per_year", "dec_mas_per_year", "epoch_year",
        error_default_mas=150.0, bands=(("magnitude", "V"),),
    ),
    # FITS_LDAC reference catalogues, as SCAMP reads and writes them.
    Dialect(
        "X_WORLD", "Y_WORLD", "PMALPHA_J2000", "PMDELTA_J2000", "OBSDATE",
        error_ra="ERRA_WORLD", error_dec="ERRB_WORLD", error_to_mas=3.6e6, bands=(("MAG", "MAG"),),
    ),
)  # fmt: skip


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
    stars = _stars(columns, path)
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
    wanted = [name for name in _wanted(dialect, names) if name in names]
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
        return {name: np.array(data[name]) for name in _wanted(_dialect(set(names), path), set(names))}


def _read_astropy(path: Path, box: _Box) -> Columns:
    from astropy.table import Table

    formats = {".ecsv": "ascii.ecsv", ".csv": "ascii.csv", ".vot": "votable", ".xml": "votable"}
    table = Table.read(path, format=formats.get(path.suffix, "votable"))
    names = set(table.colnames)
    return {
        name: np.ma.filled(np.ma.asarray(table[name], dtype=np.float64), np.nan)
        for name in _wanted(_dialect(names, path), names)
    }


def _reader(path: Path) -> Reader:
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".pq"):
        return _read_parquet
    if suffix in (".ecsv", ".csv", ".vot", ".xml", ".votable"):
        return _read_astropy
    return _read_fits


def _dialect(names: set[str], path: Path) -> Dialect:
    for dialect in DIALECTS:
        if dialect.ra in names and dialect.dec in names:
            return dialect
    raise ReferenceFileError(
        f"Reference catalogue {path} has columns {sorted(names)[:20]}; expected one of "
        + ", ".join(f"({d.ra}, {d.dec})" for d in DIALECTS),
    )


def _wanted(dialect: Dialect, names: set[str]) -> list[str]:
    """Columns of use, those that the file has."""
    fixed = [
        dialect.ra, dialect.dec, dialect.pm_ra, dialect.pm_dec, dialect.epoch, dialect.error_ra, dialect.error_dec,
        *(column for column, _ in dialect.bands),
    ]  # fmt: skip
    chosen = [name for name in fixed if name is not None and name in names]
    return chosen + sorted(name for name in names if _MAG_COLUMN.match(name) and name not in chosen)


def _stars(columns: Columns, path: Path) -> Stars:
    """Columns of any dialect as `Stars`; rows without a position are dropped."""
    dialect = _dialect(set(columns), path)
    n = len(columns[dialect.ra])

    def column(name: str | None, default: float) -> Floats:
        if name is None or name not in columns:
            return np.full(n, default)
        values = np.asarray(columns[name], dtype=np.float64)
        return np.where(np.isfinite(values), values, default)

    errors = [column(name, np.nan) for name in (dialect.error_ra, dialect.error_dec)]
    error = np.sqrt((errors[0] ** 2 + errors[1] ** 2) / 2.0) * dialect.error_to_mas
    mags = {band: column(name, np.nan) for name, band in dialect.bands if name in columns}
    mags |= {m["band"]: column(m.group(), np.nan) for m in map(_MAG_COLUMN.match, columns) if m}
    stars = Stars(
        ra_deg=np.mod(column(dialect.ra, np.nan), 360.0),
        dec_deg=column(dialect.dec, np.nan),
        error_mas=np.where(error > 0, error, dialect.error_default_mas),
        epoch_year=column(dialect.epoch, dialect.epoch_default),
        pm_ra_mas_yr=column(dialect.pm_ra, 0.0),
        pm_dec_mas_yr=column(dialect.pm_dec, 0.0),
        mags=mags,
    )
    return stars.take(np.isfinite(stars.ra_deg) & np.isfinite(stars.dec_deg))
