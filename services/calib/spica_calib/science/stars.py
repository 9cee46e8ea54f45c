"""Stars as the reference catalogue knows them, and sources as the image shows them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from spica_imaging.references import Stars, julian_year, separation_deg
from spica_imaging.wcs import TpvWcs

__all__ = ["CcdField", "Sources", "Stars", "julian_year", "separation_deg"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


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
