"""Stars as the reference catalogue knows them, and sources as the image shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from spica_imaging.wcs import TpvWcs

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_MJD_J2000 = 51544.5
_DAYS_PER_YEAR = 365.25
_MAS_PER_DEG = 3.6e6


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
class Sources:
    """Sources of one CCD. All arrays have shape (n,); positions in FITS pixels."""

    x: Floats
    y: Floats
    error_px: Floats
    """Standard error per axis, as measured (photon noise)."""
    flux_adu: Floats
    """Whatever the source: to sort by."""
    star_flux_adu: Floats
    """Total flux if it is a point source: to measure by."""
    star_flux_error_adu: Floats
    starlike: Bools
    clean: Bools
    """Neither saturated, nor blended, nor cut off, nor sharper than a star can be."""
    usable: Bools
    """Clean, or saturated or blended but with a position worth something."""

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: NDArray[np.intp] | Bools) -> Sources:
        """Keep the sources of this index or mask."""
        return Sources(*(getattr(self, name)[index] for name in self.__slots__))

    @property
    def weight_error_px(self) -> Floats:
        """Position errors for fits: those of sources that are not clean count three times."""
        return np.where(self.clean, self.error_px, 3.0 * self.error_px + 0.3)


@dataclass(frozen=True, slots=True)
class CcdField:
    """One CCD: its size, what was detected on it, and where it is thought to point."""

    hdu: int
    name: str
    nx: int
    ny: int
    sources: Sources
    wcs: TpvWcs

    @property
    def centre(self) -> tuple[float, float]:
        """FITS pixel of the CCD's centre."""
        return (self.nx + 1) / 2, (self.ny + 1) / 2
