"""The pixel grid of a stack: TAN projection, north up, east left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from spica_imaging.wcs import tan_deproject, tan_project

Floats = NDArray[np.float64]


class Wcs(Protocol):
    """What is needed of a CCD's world coordinates (`spica_imaging.wcs.TpvWcs` has it)."""

    def pixel_to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
        """RA, Dec (deg) of FITS pixel positions."""

    def sky_to_pixel(self, ra_deg: ArrayLike, dec_deg: ArrayLike) -> tuple[Floats, Floats]:
        """FITS pixel positions of RA, Dec (deg)."""


@dataclass(frozen=True, slots=True)
class TanGrid:
    """FITS WCS paper II, TAN with CD = diag(-s, s). Pixel positions are FITS (first centre = 1)."""

    ra_deg: float
    dec_deg: float
    crpix_x: float
    crpix_y: float
    scale_arcsec: float
    width: int
    height: int

    def pixel_to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
        """RA and Dec (deg) of pixel positions."""
        step = self.scale_arcsec / 3600.0
        xi = (self.crpix_x - np.asarray(x, dtype=np.float64)) * step
        eta = (np.asarray(y, dtype=np.float64) - self.crpix_y) * step
        return tan_deproject(xi, eta, self.ra_deg, self.dec_deg)

    def sky_to_pixel(self, ra_deg: ArrayLike, dec_deg: ArrayLike) -> tuple[Floats, Floats]:
        """Pixel positions of RA and Dec (deg); NaN for the far half of the sky."""
        xi, eta = tan_project(ra_deg, dec_deg, self.ra_deg, self.dec_deg)
        step = self.scale_arcsec / 3600.0
        return self.crpix_x - xi / step, self.crpix_y + eta / step


def outline(wcs: Wcs, x0: int, x1: int, y0: int, y1: int, per_side: int = 9) -> tuple[Floats, Floats]:
    """RA and Dec (deg) of points along the outer edge of pixels [x0, x1) × [y0, y1) (zero-based)."""
    along_x = np.linspace(x0 + 0.5, x1 + 0.5, per_side)
    along_y = np.linspace(y0 + 0.5, y1 + 0.5, per_side)
    x = np.concatenate([along_x, along_x, np.full(per_side, along_x[0]), np.full(per_side, along_x[-1])])
    y = np.concatenate([np.full(per_side, along_y[0]), np.full(per_side, along_y[-1]), along_y, along_y])
    return wcs.pixel_to_sky(x, y)


def mean_direction(ra_deg: Floats, dec_deg: Floats) -> tuple[float, float]:
    """RA and Dec (deg) of the mean of unit vectors: no trouble at 0h or at the poles."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    vector = np.array(
        [np.mean(np.cos(dec) * np.cos(ra)), np.mean(np.cos(dec) * np.sin(ra)), np.mean(np.sin(dec))]
    )
    return (
        float(np.degrees(np.arctan2(vector[1], vector[0])) % 360.0),
        float(np.degrees(np.arctan2(vector[2], np.hypot(vector[0], vector[1])))),
    )


def covering_grid(
    outlines: Sequence[tuple[Floats, Floats]],
    scale_arcsec: float,
    centre: tuple[float, float] | None = None,
    width: int | None = None,
    height: int | None = None,
) -> TanGrid:
    """Smallest grid that covers all outlines (RA, Dec in deg), or one of the size asked for.

    The tangent point is `centre`, which then is the image's centre too; without it, the mean
    direction of the inputs rounded to 1e-6 deg, and the image is centred on what it covers.
    """
    ra = np.concatenate([part[0] for part in outlines])
    dec = np.concatenate([part[1] for part in outlines])
    if centre is None:
        # Rounded, so that the header says exactly what was computed with.
        found = mean_direction(ra, dec)
        ra0, dec0 = round(found[0], 6) % 360.0, round(found[1], 6)
    else:
        ra0, dec0 = centre
    probe = TanGrid(ra0, dec0, 0.0, 0.0, scale_arcsec, 1, 1)
    x, y = probe.sky_to_pixel(ra, dec)
    if not (np.all(np.isfinite(x)) and np.all(np.isfinite(y))):
        raise ValueError("The inputs reach 90 degrees or more from the centre: no tangent plane covers them.")
    sizes = []
    for low, high, wanted in ((x.min(), x.max(), width), (y.min(), y.max(), height)):
        middle = 0.0 if centre is not None else 0.5 * (low + high)
        reach = max(high - middle, middle - low)
        # A pixel of margin: outlines are sampled, and edges between samples may bulge a little.
        size = wanted if wanted is not None else 2 * int(np.ceil(reach)) + 2
        sizes.append((size, round(float(0.5 * (size + 1) - middle), 1)))
    return TanGrid(ra0, dec0, sizes[0][1], sizes[1][1], scale_arcsec, sizes[0][0], sizes[1][0])
