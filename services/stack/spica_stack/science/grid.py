"""The pixel grid of a stack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from spica_imaging.wcs import tan_deproject, tan_project

from spica_stack.science.projections import (
    ZENITHAL,
    Frame,
    Projection,
    angles_of,
    from_plane,
    to_plane,
    vectors_of,
)

Floats = NDArray[np.float64]


class Wcs(Protocol):
    """What is needed of a CCD's world coordinates (`spica_imaging.wcs.TpvWcs` has it)."""

    def pixel_to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
        """RA, Dec (deg) of FITS pixel positions."""

    def sky_to_pixel(self, ra_deg: ArrayLike, dec_deg: ArrayLike) -> tuple[Floats, Floats]:
        """FITS pixel positions of RA, Dec (deg)."""


@dataclass(frozen=True, slots=True)
class Grid:
    """FITS WCS paper II. Pixel positions are FITS (first centre = 1)."""

    ra_deg: float
    """Of the reference point (CRVAL)."""
    dec_deg: float
    crpix_x: float
    crpix_y: float
    scale_arcsec: float
    width: int
    height: int
    rotation_deg: float = 0.0
    """Position angle of the +y axis, east of north, at the reference point."""
    mirrored: bool = False
    """East to the right of north."""
    projection: Projection = "TAN"

    @property
    def _axes(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Unit vectors of +x and +y, as (east, north)."""
        turn = self.rotation_deg % 360.0
        # Quarter turns are exact: their zeros are zeros.
        sine, cosine = _QUARTERS.get(turn) or (math.sin(math.radians(turn)), math.cos(math.radians(turn)))
        # Sums with zero: no number is to be written as -0.
        along_x = (cosine + 0.0, -sine + 0.0) if self.mirrored else (-cosine + 0.0, sine + 0.0)
        return along_x, (sine + 0.0, cosine + 0.0)

    @property
    def cd(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Degrees per pixel: ((east along x, east along y), (north along x, north along y))."""
        step = self.scale_arcsec / 3600.0
        (east_x, north_x), (east_y, north_y) = self._axes
        return (east_x * step, east_y * step), (north_x * step, north_y * step)

    def pixel_to_plane(self, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
        """Coordinates (deg) of the projection's plane: towards east and north at the reference point."""
        dx = np.asarray(x, dtype=np.float64) - self.crpix_x
        dy = np.asarray(y, dtype=np.float64) - self.crpix_y
        (a, b), (c, d) = self.cd
        return a * dx + b * dy, c * dx + d * dy

    def plane_to_pixel(self, xi: ArrayLike, eta: ArrayLike) -> tuple[Floats, Floats]:
        """Inverse of `pixel_to_plane`."""
        step = self.scale_arcsec / 3600.0
        first, second = np.asarray(xi, dtype=np.float64) / step, np.asarray(eta, dtype=np.float64) / step
        (east_x, north_x), (east_y, north_y) = self._axes
        return (
            self.crpix_x + (east_x * first + north_x * second),
            self.crpix_y + (east_y * first + north_y * second),
        )

    def directions(self, x: ArrayLike, y: ArrayLike) -> Floats:
        """Equatorial vectors (of any length) of pixel positions, shape (3, ...); NaN where the plane is empty."""
        plane = np.broadcast_arrays(*self.pixel_to_plane(x, y))
        return Frame.at(self.ra_deg, self.dec_deg).out_of(from_plane(self.projection, *plane))

    def pixel_to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
        """RA and Dec (deg) of pixel positions; NaN where the projection's plane is empty."""
        if self.projection == "TAN":
            return tan_deproject(*self.pixel_to_plane(x, y), self.ra_deg, self.dec_deg)
        return angles_of(self.directions(x, y))

    def sky_to_pixel(self, ra_deg: ArrayLike, dec_deg: ArrayLike) -> tuple[Floats, Floats]:
        """Pixel positions of RA and Dec (deg); NaN where the projection has none (TAN: the far half of the sky)."""
        if self.projection == "TAN":
            return self.plane_to_pixel(*tan_project(ra_deg, dec_deg, self.ra_deg, self.dec_deg))
        ra, dec = np.broadcast_arrays(np.asarray(ra_deg, np.float64), np.asarray(dec_deg, np.float64))
        vectors = Frame.at(self.ra_deg, self.dec_deg).into(vectors_of(ra, dec))
        return self.plane_to_pixel(*to_plane(self.projection, vectors))

    def wcs_cards(self) -> list[tuple[str, float | int | str | bool, str]]:
        """Keyword, value and comment of the cards that say this grid, for a stack's header.

        The reference point at a pole, and other projections than TAN, are said with LONPOLE and LATPOLE: their
        defaults (paper II, section 2.4) mean another orientation, or depend on the sign of the declination.
        """
        (a, b), (c, d) = self.cd
        # With a pole in native (0, 0), paper II lets the native pole lie at CRVAL1 and not opposite to it.
        turned = self.projection not in ZENITHAL and self.dec_deg >= 90.0
        ra = (self.ra_deg + 180.0) % 360.0 if turned else self.ra_deg
        name, up = _NAMES[self.projection], not self.rotation_deg % 360.0
        cards: list[tuple[str, float | int | str | bool, str]] = [
            ("EQUINOX", 2000.0, "Mean equinox (years)"),
            ("RADESYS", "ICRS", "Celestial reference system"),
            ("CTYPE1", f"RA---{self.projection}", name),
            ("CTYPE2", f"DEC--{self.projection}", name),
            ("CUNIT1", "deg", "Axis unit"),
            ("CUNIT2", "deg", "Axis unit"),
            ("CRVAL1", ra, f"[deg] Right ascension of the {self._reference}"),
            ("CRVAL2", self.dec_deg, f"[deg] Declination of the {self._reference}"),
            ("CRPIX1", self.crpix_x, "Its column (first pixel centre = 1)"),
            ("CRPIX2", self.crpix_y, "Its row"),
            ("CD1_1", a, f"[deg/pixel]{f' East is {self._east}' if up else ''}"),
            ("CD1_2", b, ""),
            ("CD2_1", c, ""),
            ("CD2_2", d, f"[deg/pixel]{' North is up' if up else ''}"),
        ]
        if self.projection in ZENITHAL:
            if self.projection != "TAN" or abs(self.dec_deg) >= 90.0:
                cards += [("LONPOLE", 180.0, "[deg] Native longitude of the north pole")]
        else:
            cards += [
                (
                    "LONPOLE",
                    0.0 if self.dec_deg >= 0.0 else 180.0,
                    "[deg] Native longitude of the north pole",
                ),
                ("LATPOLE", 90.0 - abs(self.dec_deg), "[deg] Native latitude of the north pole"),
            ]
        return [*cards, ("PIXSCAL1", self.scale_arcsec, "[arcsec/pixel]")]

    @property
    def _reference(self) -> str:
        return "tangent point" if self.projection in ZENITHAL else "reference point"

    @property
    def _east(self) -> str:
        return "right" if self.mirrored else "left"


TanGrid = Grid
"""The name that it had while it knew one projection only."""

_QUARTERS = {0.0: (0.0, 1.0), 90.0: (1.0, 0.0), 180.0: (0.0, -1.0), 270.0: (-1.0, 0.0)}
"""Sine and cosine."""

_NAMES: dict[Projection, str] = {
    "TAN": "Gnomonic projection",
    "STG": "Stereographic projection",
    "SIN": "Orthographic projection",
    "ZEA": "Zenithal equal area projection",
    "ARC": "Zenithal equidistant projection",
    "CAR": "Plate carree projection",
    "CEA": "Cylindrical equal area projection",
    "SFL": "Sanson-Flamsteed projection",
    "AIT": "Hammer-Aitoff projection",
    "MOL": "Mollweide projection",
}


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
    *,
    rotation_deg: float = 0.0,
    mirrored: bool = False,
    projection: Projection = "TAN",
) -> Grid:
    """Smallest grid that covers all outlines (RA, Dec in deg), or one of the size asked for.

    The reference point is `centre`, which then is the image's centre too; without it, the mean
    direction of the inputs rounded to 1e-6 deg, and the image is centred on what it covers.
    Raises ValueError where the projection does not have all of the inputs.
    """
    ra = np.concatenate([part[0] for part in outlines])
    dec = np.concatenate([part[1] for part in outlines])
    if centre is None:
        # Rounded, so that the header says exactly what was computed with.
        found = mean_direction(ra, dec)
        ra0, dec0 = round(found[0], 6) % 360.0, round(found[1], 6)
    else:
        ra0, dec0 = centre
    probe = Grid(ra0, dec0, 0.0, 0.0, scale_arcsec, 1, 1, rotation_deg, mirrored, projection)
    x, y = probe.sky_to_pixel(ra, dec)
    if not (np.all(np.isfinite(x)) and np.all(np.isfinite(y))):
        if projection == "TAN":
            raise ValueError(
                "The inputs reach 90 degrees or more from the centre: no tangent plane covers them."
            )
        raise ValueError(f"The {projection} projection around {ra0}, {dec0} does not have all of the inputs.")
    sizes = []
    for low, high, wanted in ((x.min(), x.max(), width), (y.min(), y.max(), height)):
        middle = 0.0 if centre is not None else 0.5 * (low + high)
        reach = max(high - middle, middle - low)
        # A pixel of margin: outlines are sampled, and edges between samples may bulge a little.
        size = wanted if wanted is not None else 2 * int(np.ceil(reach)) + 2
        sizes.append((size, round(float(0.5 * (size + 1) - middle), 1)))
    (width, crpix_x), (height, crpix_y) = sizes
    return replace(probe, crpix_x=crpix_x, crpix_y=crpix_y, width=width, height=height)
