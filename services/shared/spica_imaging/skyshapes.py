"""Regions of the sky that people ask for, and what CCDs have in common with them; exact at the poles and across RA 0.

Angles are in radians inside, in degrees where people give them. CCDs are quadrilaterals, see `sphere`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from spica_imaging.skycells import Cover, Floats, cover, cover_of_point, unit_vectors
from spica_imaging.sphere import (
    EDGE,
    Arcs,
    Flags,
    axes_at,
    cross,
    points_in_quads,
    quad_distance_rad,
    separation_rad,
)

MAX_POLYGON_RADIUS_DEG = 60.0


class ShapeError(ValueError):
    """These numbers are no region of the sky; the message says why."""


class Shape(Protocol):
    """A region that images are looked for in."""

    @property
    def middle(self) -> Floats:
        """Direction (3,) from which `radius_rad` reaches all of it."""
        ...

    @property
    def radius_rad(self) -> float:
        """No point of it is further from its middle."""
        ...

    def holds(self, points: Floats) -> Flags:
        """Which of these directions (n, 3) lie in it. Shape: (n,)."""
        ...

    def touches_quads(self, quads: Floats) -> Flags:
        """Which of these quadrilaterals (n, 4, 3) have a point in common with it. Shape: (n,)."""
        ...

    def touches_discs(self, centres: Floats, radii_rad: Floats | float) -> Flags:
        """Which of these discs (n, 3) it touches; may be True, but never False, by mistake. Shape: (n,)."""
        ...

    def cover(self, orders: Sequence[int]) -> Cover:
        """Cells of these orders that it touches."""
        ...


@dataclass(frozen=True)
class Cone:
    """All within `radius_deg` of a point; of radius 0, the point itself."""

    ra_deg: float
    dec_deg: float
    radius_deg: float = 0.0

    def __post_init__(self) -> None:
        _check_place(self.ra_deg, self.dec_deg)
        if not 0 <= self.radius_deg <= 180:
            raise ShapeError(f"A radius is 0 to 180 deg, not {self.radius_deg:g}.")

    @cached_property
    def middle(self) -> Floats:
        """The point."""
        return unit_vectors(self.ra_deg, self.dec_deg)

    @property
    def radius_rad(self) -> float:
        """The radius."""
        return math.radians(self.radius_deg)

    def holds(self, points: Floats) -> Flags:
        """Those within the radius."""
        return np.asarray(separation_rad(points, self.middle) <= self.radius_rad + EDGE)

    def touches_quads(self, quads: Floats) -> Flags:
        """Those that come as near as the radius."""
        point = self.middle[None]
        if self.radius_deg == 0:
            return np.asarray(points_in_quads(point, quads)[0])
        touched: Flags = np.asarray(self.holds(quads).any(axis=1))
        rest = np.flatnonzero(~touched)
        touched[rest] = quad_distance_rad(point, quads[rest])[0] <= self.radius_rad + EDGE
        return touched

    def touches_discs(self, centres: Floats, radii_rad: Floats | float) -> Flags:
        """Those whose centre is not further than both radii together."""
        return np.asarray(separation_rad(centres, self.middle) <= self.radius_rad + radii_rad + EDGE)

    def cover(self, orders: Sequence[int]) -> Cover:
        """One cell of each order for a point; those that it touches for a cone."""
        if self.radius_deg == 0:
            return cover_of_point(self.middle, orders)
        return cover(self.touches_discs, orders)


@dataclass(frozen=True)
class Box:
    """Between two meridians and two parallels: from `ra_min_deg` eastward to `ra_max_deg`, across RA 0 if need be."""

    ra_min_deg: float
    ra_max_deg: float
    dec_min_deg: float
    dec_max_deg: float

    def __post_init__(self) -> None:
        for ra in (self.ra_min_deg, self.ra_max_deg):
            _check_place(ra, self.dec_min_deg)
        _check_place(self.ra_min_deg, self.dec_max_deg)
        if self.dec_min_deg > self.dec_max_deg:
            raise ShapeError(
                f"The southern edge ({self.dec_min_deg:g}) lies north of the northern one ({self.dec_max_deg:g})."
            )

    @property
    def width_deg(self) -> float:
        """From 0 (one meridian) to 360 (all around)."""
        wide = self.ra_max_deg - self.ra_min_deg
        return 360.0 if abs(wide) >= 360 else wide % 360

    @cached_property
    def middle(self) -> Floats:
        """Middle of the box, or the nearer pole where it goes far around."""
        if self.width_deg >= 180:
            return np.array([0.0, 0.0, 1.0 if self.dec_min_deg + self.dec_max_deg >= 0 else -1.0])
        return unit_vectors(self.ra_min_deg + self.width_deg / 2, (self.dec_min_deg + self.dec_max_deg) / 2)

    @cached_property
    def radius_rad(self) -> float:
        """As far as its corners, and the middles of its parallels, are from its middle."""
        if self.width_deg >= 180:
            north = self.middle[2] > 0
            return math.radians(90 - self.dec_min_deg if north else 90 + self.dec_max_deg)
        ra = self.ra_min_deg + np.array([0.0, 0.5, 1.0]) * self.width_deg
        edge = np.concatenate(
            [unit_vectors(ra, dec + 0 * ra) for dec in (self.dec_min_deg, self.dec_max_deg)]
        )
        return float(separation_rad(edge, self.middle).max()) + EDGE

    def holds(self, points: Floats) -> Flags:
        """Those between its meridians and its parallels."""
        return self._holds_ra(points) & self._holds_dec(points)

    def _holds_ra(self, vectors: Floats) -> Flags:
        ra = np.degrees(np.arctan2(vectors[..., 1], vectors[..., 0]))
        from_west = np.mod(ra - self.ra_min_deg + 1e-10, 360.0)
        return np.asarray(from_west <= self.width_deg + 2e-10)

    def _holds_dec(self, vectors: Floats) -> Flags:
        dec = np.degrees(np.arctan2(vectors[..., 2], np.hypot(vectors[..., 0], vectors[..., 1])))
        return np.asarray((dec >= self.dec_min_deg - 1e-10) & (dec <= self.dec_max_deg + 1e-10))

    def touches_quads(self, quads: Floats) -> Flags:
        """Those with a corner in the box, around a corner of the box, or with an edge across one of its edges."""
        fractions = np.array([0.0, 0.5, 1.0])
        ra = self.ra_min_deg + fractions * self.width_deg
        own = [unit_vectors(ra, dec + 0 * ra) for dec in (self.dec_min_deg, self.dec_max_deg)]
        own.append(unit_vectors(ra, (self.dec_min_deg + self.dec_max_deg) / 2 + 0 * ra))
        touched: Flags = np.asarray(
            self.holds(quads).any(axis=1) | points_in_quads(np.concatenate(own), quads).any(axis=0)
        )
        rest = np.flatnonzero(~touched)
        if len(rest):
            touched[rest] = self._crossed(quads[rest])
        return touched

    def _crossed(self, quads: Floats) -> Flags:
        """Whose edges cross a parallel within the box's meridians, or a meridian within its parallels."""
        starts, ends = quads, np.roll(quads, -1, axis=1)
        lengths = separation_rad(starts, ends)
        normals = cross(starts, ends)
        size = np.linalg.norm(normals, axis=-1, keepdims=True)
        normals = np.divide(normals, size, where=size > 0, out=np.zeros_like(normals))
        onward = cross(normals, starts)

        def at(angles: Floats) -> Floats:
            return np.asarray(np.cos(angles)[..., None] * starts + np.sin(angles)[..., None] * onward)

        crossed = np.zeros(len(quads), dtype=bool)
        reach = np.hypot(starts[..., 2], onward[..., 2])
        top = np.arctan2(onward[..., 2], starts[..., 2])
        for dec in (self.dec_min_deg, self.dec_max_deg):
            sine = math.sin(math.radians(dec))
            away = np.arccos(
                np.clip(np.divide(sine, reach, where=reach > 0, out=np.full_like(reach, 2.0)), -1, 1)
            )
            for angle in (np.mod(top + away, 2 * np.pi), np.mod(top - away, 2 * np.pi)):
                crossed |= ((np.abs(sine) <= reach) & (angle <= lengths) & self._holds_ra(at(angle))).any(
                    axis=1
                )
        for ra in (self.ra_min_deg, self.ra_min_deg + self.width_deg) if self.width_deg < 360 else ():
            east = math.radians(ra)
            across = np.array([-math.sin(east), math.cos(east), 0.0])
            towards = np.array([math.cos(east), math.sin(east), 0.0])
            first = np.mod(np.arctan2(-(starts @ across), onward @ across), np.pi)
            place = at(first)
            crossed |= ((first <= lengths) & (place @ towards >= 0) & self._holds_dec(place)).any(axis=1)
        return crossed

    def touches_discs(self, centres: Floats, radii_rad: Floats | float) -> Flags:
        """Those that are not certainly further than their radius from its parallels or its meridians."""
        dec = np.arctan2(centres[..., 2], np.hypot(centres[..., 0], centres[..., 1]))
        low, high = math.radians(self.dec_min_deg), math.radians(self.dec_max_deg)
        beyond = np.maximum(np.maximum(low - dec, dec - high), 0.0)
        ra = np.degrees(np.arctan2(centres[..., 1], centres[..., 0]))
        from_west = np.mod(ra - self.ra_min_deg, 360.0)
        outside = np.where(
            from_west <= self.width_deg, 0.0, np.minimum(from_west - self.width_deg, 360.0 - from_west)
        )
        turn = np.radians(np.minimum(outside, 90.0))
        # From a meridian: by the great circle through it, and beyond a quarter turn by the pole.
        beside = np.arcsin(np.clip(np.cos(dec) * np.sin(turn), 0.0, 1.0))
        return np.asarray(np.maximum(beyond, beside) <= np.asarray(radii_rad) + 1e-11)

    def cover(self, orders: Sequence[int]) -> Cover:
        """Cells that it touches."""
        return cover(self.touches_discs, orders)


@dataclass(frozen=True)
class Polygon:
    """Corners (RA, Dec in degrees) joined by great circles, either way round; it need not be convex."""

    corners: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if len(self.corners) < 3:
            raise ShapeError(f"A polygon has three corners or more, not {len(self.corners)}.")
        for ra, dec in self.corners:
            _check_place(ra, dec)
        if not self.radius_rad <= math.radians(MAX_POLYGON_RADIUS_DEG):
            raise ShapeError(f"A polygon reaches at most {MAX_POLYGON_RADIUS_DEG:g} deg from its middle.")

    @cached_property
    def _vectors(self) -> Floats:
        ra, dec = np.array(self.corners, dtype=np.float64).T
        return unit_vectors(ra, dec)

    @cached_property
    def _edges(self) -> Arcs:
        return Arcs(self._vectors, np.roll(self._vectors, -1, axis=0))

    @cached_property
    def _plane(self) -> Floats:
        return axes_at(self.middle)

    @cached_property
    def _outline(self) -> Floats:
        return self._flat(self._vectors)[0]

    @cached_property
    def middle(self) -> Floats:
        """Mean direction of the corners."""
        mean = self._vectors.mean(axis=0)
        length = float(np.linalg.norm(mean))
        return np.asarray(mean / length if length > 1e-9 else -self._vectors[0])

    @cached_property
    def radius_rad(self) -> float:
        """As far as the furthest corner: great circles bulge less than that."""
        return float(separation_rad(self._vectors, self.middle).max()) + EDGE

    def _flat(self, vectors: Floats) -> tuple[Floats, Flags]:
        """On the plane that touches the sky in the middle, where great circles are lines; and what lies on this side."""
        depth = vectors @ self.middle
        near = depth > 0.05
        return (vectors @ self._plane.T) / np.where(near, depth, 1.0)[..., None], np.asarray(near)

    def _holds(self, places: Floats) -> Flags:
        """Which flat places (…, 2) lie inside: a ray from there crosses an odd number of edges."""
        x, y = places[..., 0, None], places[..., 1, None]
        flat = self._outline
        (ax, ay), (bx, by) = flat.T, np.roll(flat, -1, axis=0).T
        straddles = (ay > y) != (by > y)
        rise = np.where(by == ay, 1.0, by - ay)
        return np.asarray((straddles & (x < ax + (y - ay) * (bx - ax) / rise)).sum(axis=-1) % 2 == 1)

    def holds(self, points: Floats) -> Flags:
        """Those inside."""
        places, near = self._flat(points)
        return self._holds(places) & near

    def touches_quads(self, quads: Floats) -> Flags:
        """Those with a corner inside, around a corner of it, or with an edge across one of its edges."""
        places, near = self._flat(quads)
        touched = self._holds(places).any(axis=1) | points_in_quads(self._vectors, quads).any(axis=0)
        own = self._outline
        a, b = places[:, :, None], np.roll(places, -1, axis=1)[:, :, None]
        c, d = own[None, None], np.roll(own, -1, axis=0)[None, None]
        crossing = (_side(a, b, c) * _side(a, b, d) <= 0) & (_side(c, d, a) * _side(c, d, b) <= 0)
        return np.asarray((touched | crossing.any(axis=(1, 2))) & near.all(axis=1))

    def touches_discs(self, centres: Floats, radii_rad: Floats | float) -> Flags:
        """Those with their centre inside, or an edge within their radius."""
        close = separation_rad(centres, self.middle) <= self.radius_rad + np.asarray(radii_rad) + EDGE
        if not close.all():
            radii = np.broadcast_to(radii_rad, close.shape)
            close[close] = self.touches_discs(centres[close], radii[close])
            return close
        if not len(centres) or np.min(radii_rad) > self.radius_rad:
            return close  # seen from so large a disc, a circle is as good
        near = self._edges.distance_rad(centres).min(axis=1) <= np.asarray(radii_rad) + EDGE
        near[~near] = self.holds(centres[~near])
        return np.asarray(near)

    def cover(self, orders: Sequence[int]) -> Cover:
        """Cells that it touches."""
        return cover(self.touches_discs, orders)


def _side(start: Floats, end: Floats, point: Floats) -> Floats:
    """On which side of a line a point lies (planar cross product)."""
    along, to = end - start, point - start
    return np.asarray(along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0])


def _check_place(ra_deg: float, dec_deg: float) -> None:
    if not (math.isfinite(ra_deg) and -360 <= ra_deg <= 360):
        raise ShapeError(f"Right ascension is in degrees, 0 to 360, not {ra_deg:g}.")
    if not -90 <= dec_deg <= 90:
        raise ShapeError(f"Declination is in degrees, -90 to 90, not {dec_deg:g}.")
