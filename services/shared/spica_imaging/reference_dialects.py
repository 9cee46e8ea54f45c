"""How families of reference catalogues name their columns, and in which units."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

_MAG_COLUMN = re.compile(r"^mag_(?P<band>\w+)$")


@dataclass(frozen=True, slots=True)
class Band:
    """One magnitude of a catalogue."""

    name: str
    mag: str
    error: str | None = None
    error_is: Literal["mag", "snr"] = "mag"
    """What the error's column holds: magnitudes, or flux over its error."""


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
    error_default_mas: float = float("nan")
    bands: tuple[Band, ...] = ()
    """Columns named mag_<band>, with magerr_<band>, are taken besides."""
    pm_error_ra: str | None = None
    pm_error_dec: str | None = None
    epoch_is_mjd: bool = False
    mark: str | None = None
    """A column that must be there too: it tells this family from others with the same positions."""

    def fits(self, names: set[str]) -> bool:
        """Whether a table with these columns is of this family."""
        return {self.ra, self.dec, self.mark or self.ra} <= names

    def all_bands(self, names: Iterable[str]) -> tuple[Band, ...]:
        """Magnitudes that a table with these columns has."""
        given = set(names)
        own = [
            Band(match["band"], match.group(), f"magerr_{match['band']}")
            for match in map(_MAG_COLUMN.match, sorted(given))
            if match
        ]
        return tuple(band for band in (*self.bands, *own) if band.mag in given)

    def columns(self, names: Iterable[str]) -> list[str]:
        """Columns of use among these, each once."""
        given = set(names)
        wanted = [
            self.ra, self.dec, self.pm_ra, self.pm_dec, self.epoch, self.error_ra, self.error_dec,
            self.pm_error_ra, self.pm_error_dec,
        ]  # fmt: skip
        for band in self.all_bands(given):
            wanted += [band.mag, band.error]
        return list(dict.fromkeys(name for name in wanted if name is not None and name in given))


def _same(bands: str) -> tuple[Band, ...]:
    """As VizieR names them: gmag and e_gmag."""
    return tuple(Band(band, f"{band}mag", f"e_{band}mag") for band in bands.split())


DIALECTS: tuple[Dialect, ...] = (
    # Canonical: Spica's own, its cache's and its simulator's.
    Dialect(
        "ra_deg", "dec_deg", "pmra_mas_yr", "pmdec_mas_yr", "epoch_year",
        error_ra="ra_err_mas", error_dec="dec_err_mas",
        pm_error_ra="pmra_err_mas_yr", pm_error_dec="pmdec_err_mas_yr",
    ),
    # Gaia archive (source table).
    Dialect(
        "ra", "dec", "pmra", "pmdec", "ref_epoch", 2016.0, "ra_error", "dec_error",
        bands=(
            Band("G", "phot_g_mean_mag", "phot_g_mean_flux_over_error", "snr"),
            Band("BP", "phot_bp_mean_mag", "phot_bp_mean_flux_over_error", "snr"),
            Band("RP", "phot_rp_mean_mag", "phot_rp_mean_flux_over_error", "snr"),
        ),
        pm_error_ra="pmra_error", pm_error_dec="pmdec_error",
    ),
    # ATLAS REFCAT2 at VizieR: positions of Gaia DR2.
    Dialect(
        "RA_ICRS", "DE_ICRS", "pmRA", "pmDE", None, 2015.5, bands=_same("G BP RP g r i z J H K"),
        pm_error_ra="e_pmRA", pm_error_dec="e_pmDE", mark="dupvar",
    ),
    # Gaia DR2 and DR3 at VizieR.
    Dialect(
        "RA_ICRS", "DE_ICRS", "pmRA", "pmDE", "Epoch", 2016.0, "e_RA_ICRS", "e_DE_ICRS",
        bands=_same("G BP RP"), pm_error_ra="e_pmRA", pm_error_dec="e_pmDE",
    ),
    # Pan-STARRS at VizieR: epochs as MJD, errors in arcseconds.
    Dialect(
        "RAJ2000", "DEJ2000", None, None, "Epoch", 2013.0, "e_RAJ2000", "e_DEJ2000", 1000.0,
        bands=_same("g r i z y"), epoch_is_mjd=True, mark="ymag",
    ),
    # Hipparcos and Tycho-2 as one table. Polaris' pmRA of 44 mas/yr shows that cos(Dec) is in it, and 61 Cyg
    # that positions are of the year in epoch_year, rounded to 0.0001 deg (hence the error). A few stars
    # without proper motion in Tycho-2 (Groombridge 1830 is one) are of 1991 all the same: outliers, clipped.
    Dialect(
        "ra_degrees", "dec_degrees", "ra_mas_per_year", "dec_mas_per_year", "epoch_year",
        error_default_mas=150.0, bands=(Band("V", "magnitude"),),
    ),
    # FITS_LDAC reference catalogues, as SCAMP reads and writes them.
    Dialect(
        "X_WORLD", "Y_WORLD", "PMALPHA_J2000", "PMDELTA_J2000", "OBSDATE",
        error_ra="ERRA_WORLD", error_dec="ERRB_WORLD", error_to_mas=3.6e6,
        bands=(Band("MAG", "MAG", "MAGERR"),),
        pm_error_ra="PMALPHAERR_J2000", pm_error_dec="PMDELTAERR_J2000",
    ),
)  # fmt: skip
