"""An exposure's sources and the stars around, ready to be laid over each other in any tangent plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from spica_imaging.wcs import tan_project

from spica_calib.science.matching.geometry import Direction, Motion, ccd_centre, polygon, unit_vectors
from spica_calib.science.matching.search import Frame, PlanePoints
from spica_calib.science.stars import CcdField, Floats, Stars

Index = NDArray[np.intp]

MAX_SOURCES = 2000
"""Per CCD and per frame, the brightest."""
MAX_UNRANKED = 200_000
"""Where no brightness is known."""
_ARCSEC = 3600.0


def brightest_first(faintness: Floats) -> Index:
    """Order by brightness, what has none last; equals in an order that has nothing to do with that of the catalogue.

    Catalogues run along rows: the first of many equals would be those of one edge.
    """
    n = len(faintness)
    # Multiples of the golden ratio, modulo 1, fall evenly (Weyl 1916): a fixed shuffle.
    shuffle = np.modf(np.arange(1, n + 1) * 0.6180339887498949)[0]
    return np.lexsort((shuffle, np.where(np.isfinite(faintness), faintness, np.inf)))


@dataclass(frozen=True)
class StarSky:
    """Reference stars, brightest first."""

    ra_deg: Floats
    dec_deg: Floats
    vectors: Floats
    """Shape (n, 3)."""

    @classmethod
    def of(cls, stars: Stars, band: str | None) -> StarSky:
        """Stars with a position, sorted by a band; None or unknown: the one most stars have."""
        order = brightest_first(np.asarray(stars.brightness(band), dtype=np.float64))
        order = order[np.isfinite(stars.ra_deg[order]) & np.isfinite(stars.dec_deg[order])]
        ra, dec = stars.ra_deg[order], stars.dec_deg[order]
        return cls(ra, dec, unit_vectors(ra, dec))

    def __len__(self) -> int:
        return len(self.ra_deg)

    def around(self, centre: Direction, radius_arcsec: float) -> PlanePoints:
        """Stars within a radius of a centre, in the tangent plane there."""
        middle = unit_vectors(np.array([centre[0]]), np.array([centre[1]]))[0]
        radius = min(np.radians(radius_arcsec / _ARCSEC), 1.4)
        # On the unit sphere the chord, not the cosine, is exact for small angles.
        chord2 = ((self.vectors - middle) ** 2).sum(axis=1)
        near = np.flatnonzero(chord2 <= (2.0 * np.sin(0.5 * radius)) ** 2)
        xi, eta = tan_project(self.ra_deg[near], self.dec_deg[near], *centre)
        return PlanePoints(xi * _ARCSEC, eta * _ARCSEC)


@dataclass(frozen=True)
class Footprint:
    """One CCD: its brightest sources on the assumed sky."""

    field: CcdField
    centre: Direction
    """Where its middle is thought to point."""
    ra_deg: Floats
    dec_deg: Floats
    flux: Floats
    pixel_arcsec: float
    half_px: tuple[float, float]
    """How far from its centre it reaches."""

    @classmethod
    def of(cls, field: CcdField, within_px: float = np.inf) -> Footprint:
        """Take the brightest sources of a CCD, or of its middle."""
        s, (cx, cy) = field.sources, field.centre
        half = min(within_px, field.nx / 2), min(within_px, field.ny / 2)
        good = np.isfinite(s.x) & np.isfinite(s.y)
        if half[0] < field.nx / 2 or half[1] < field.ny / 2:
            good &= (np.abs(s.x - cx) <= half[0]) & (np.abs(s.y - cy) <= half[1])
        rows = np.flatnonzero(good)
        most = MAX_SOURCES if len(rows) and np.ptp(s.flux_adu[rows]) > 0 else MAX_UNRANKED
        rows = rows[brightest_first(-s.flux_adu[rows])[:most]]
        ra, dec = field.wcs.pixel_to_sky(s.x[rows], s.y[rows])
        pixel = field.wcs.scale_at(*field.centre)
        return cls(field, ccd_centre(field), ra, dec, s.flux_adu[rows], pixel, half)

    def __len__(self) -> int:
        return len(self.ra_deg)

    @property
    def ranked(self) -> bool:
        """Whether brightness tells one source from another."""
        return len(self) < 2 or bool(np.ptp(self.flux) > 0)

    def points(self, centre: Direction) -> PlanePoints:
        """Sources in a tangent plane."""
        xi, eta = tan_project(self.ra_deg, self.dec_deg, *centre)
        return PlanePoints(xi * _ARCSEC, eta * _ARCSEC)

    def frame(self, centre: Direction) -> Frame:
        """What the CCD covers of a tangent plane."""
        return Frame(polygon(self.field, self.half_px, centre)[None], self.pixel_arcsec)


def whole_points(footprints: Sequence[Footprint], centre: Direction) -> tuple[PlanePoints, Frame]:
    """All CCDs as one frame in a tangent plane: the brightest sources of all, and what they cover."""
    ra = np.concatenate([f.ra_deg for f in footprints])
    dec = np.concatenate([f.dec_deg for f in footprints])
    order = brightest_first(-np.concatenate([f.flux for f in footprints]))[:MAX_SOURCES]
    xi, eta = tan_project(ra[order], dec[order], *centre)
    corners = np.stack([polygon(f.field, f.half_px, centre) for f in footprints])
    pixel = float(np.median([f.pixel_arcsec for f in footprints]))
    return PlanePoints(xi * _ARCSEC, eta * _ARCSEC), Frame(corners, pixel)


def motion_of(centre: Direction, matrix: Floats, offset: Floats) -> Motion:
    """The motion that a match in the tangent plane at a centre stands for."""
    return Motion.still(centre).then(matrix, offset)
