"""Points, arcs and quadrilaterals on the sphere.

A CCD is a quadrilateral whose edges are great circles: shape (4, 3), corners as unit vectors in order, either way
round. Angles are in radians.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from spica_imaging.skycells import Floats

Flags = NDArray[np.bool_]

EDGE = 1e-12
"""What is on an edge is inside: 0.2 µas."""
MAX_OUTLINE_RADIUS_DEG = 30.0
_SINGLE_RAD = 6e-4
"""How far an angle is off at worst that was taken from a cosine in single precision."""


def separation_rad(first: Floats, second: Floats) -> Floats:
    """Angle between unit vectors along the last axis; good at all distances."""
    half = np.linalg.norm(first - second, axis=-1) / 2.0
    return np.asarray(2.0 * np.arcsin(np.minimum(1.0, half)))


def separations_rad(first: Floats, second: Floats) -> Floats:
    """Angle of each of (m, 3) from each of (n, 3); good at all distances. Shape: (m, n)."""
    cosines = first @ second.T
    angles = np.arccos(np.clip(cosines, -1.0, 1.0))
    # Where the cosine tells little: a thousandth of a radian and less.
    m, n = np.nonzero(cosines > 1 - 5e-7)
    angles[m, n] = separation_rad(first[m], second[n])
    return np.asarray(angles)


def cross(first: Floats, second: Floats) -> Floats:
    """Vector product along the last axis, of 3: numpy's takes ten times as long for a few vectors."""
    ax, ay, az = first[..., 0], first[..., 1], first[..., 2]
    bx, by, bz = second[..., 0], second[..., 1], second[..., 2]
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


class Arcs:
    """Arcs of great circles, each shorter than half a circle, from `starts` to `ends` (n, 3)."""

    def __init__(self, starts: Floats, ends: Floats) -> None:
        normals = cross(starts, ends)
        length = np.linalg.norm(normals, axis=-1, keepdims=True)
        self._normals = np.divide(normals, length, where=length > 0, out=np.zeros_like(normals))
        self._after, self._before = cross(self._normals, starts), cross(self._normals, ends)
        self._starts, self._ends = starts, ends
        self._is_one = length[:, 0] > 0

    def distance_rad(self, points: Floats) -> Floats:
        """Distance of points (m, 3) from each. Shape: (m, n)."""
        beside = (points @ self._after.T >= 0) & (points @ self._before.T <= 0) & self._is_one
        across = np.arcsin(np.clip(np.abs(points @ self._normals.T), 0.0, 1.0))
        to_ends = np.minimum(separations_rad(points, self._starts), separations_rad(points, self._ends))
        return np.where(beside, across, to_ends)


def points_in_quads(points: Floats, quads: Floats) -> Flags:
    """Which points (m, 3) lie in which convex quadrilaterals (n, 4, 3), edges included. Shape: (m, n)."""
    normals = cross(quads, np.roll(quads, -1, axis=1))
    middles = quads.sum(axis=1)
    turn = np.sign((normals * middles[:, None]).sum(axis=(1, 2)))
    sides = (points @ (normals * turn[:, None, None]).reshape(-1, 3).T).reshape(len(points), len(quads), 4)
    return np.asarray((sides >= -EDGE).all(axis=2) & (points @ middles.T > 0) & (turn != 0))


def quads_near(quads: NDArray[np.floating], middle: Floats, radius_rad: float) -> Flags:
    """Which convex quadrilaterals (n, 4, 3) may come within this radius of a direction; never False by mistake.

    Shape: (n,). Corners in single precision will do.
    """
    if not len(quads):
        return np.zeros(0, dtype=bool)
    # Two triangles make a quadrilateral, and no point of one is further from its nearest corner than its longest side
    # divided by the square root of three; a little more on the sphere.
    pairs = ((0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (1, 3))
    apart = min(float(np.einsum("ij,ij->i", quads[:, a], quads[:, b]).min()) for a, b in pairs)
    longest = math.acos(max(-1.0, min(1.0, apart))) + _SINGLE_RAD
    reach = radius_rad + (0.6 * longest if longest < 0.5 else longest) + _SINGLE_RAD
    nearest = (quads @ middle.astype(quads.dtype)).max(axis=1)
    return np.asarray(nearest >= math.cos(min(math.pi, reach)))


def quad_distance_rad(points: Floats, quads: Floats) -> Floats:
    """Distance of points (m, 3) from quadrilaterals (n, 4, 3); 0 inside. Shape: (m, n)."""
    starts, ends = quads.reshape(-1, 3), np.roll(quads, -1, axis=1).reshape(-1, 3)
    edges = Arcs(starts, ends).distance_rad(points).reshape(len(points), len(quads), 4).min(axis=2)
    return np.where(points_in_quads(points, quads), 0.0, edges)


def axes_at(middle: Floats) -> Floats:
    """Two directions at right angles to this one and to each other. Shape: (2, 3)."""
    pole = np.array([0.0, 0.0, 1.0]) if abs(middle[2]) < 0.9 else np.array([1.0, 0.0, 0.0])
    first = cross(pole, middle)
    first /= np.linalg.norm(first)
    return np.stack([first, cross(middle, first)])


def outline(quads: Floats) -> Floats | None:
    """Corners (ra, dec in degrees) of the smallest convex polygon around quadrilaterals (n, 4, 3), counterclockwise.

    None where they reach further than `MAX_OUTLINE_RADIUS_DEG` from their middle: nothing flat shows that well.
    """
    points = quads.reshape(-1, 3)
    middle = points.mean(axis=0)
    length = float(np.linalg.norm(middle))
    if (
        length == 0
        or not (points @ (middle / length) >= math.cos(math.radians(MAX_OUTLINE_RADIUS_DEG))).all()
    ):
        return None
    middle = middle / length
    axes = axes_at(middle)
    flat = (points @ axes.T) / (points @ middle)[:, None]
    hull = np.array(_hull(flat.tolist()))
    vectors = middle + hull @ axes
    ra = np.mod(np.degrees(np.arctan2(vectors[:, 1], vectors[:, 0])), 360.0)
    dec = np.degrees(np.arctan2(vectors[:, 2], np.hypot(vectors[:, 0], vectors[:, 1])))
    return np.stack([np.where(ra >= 360.0, 0.0, ra), dec], axis=-1)


def _hull(places: list[list[float]]) -> list[list[float]]:
    """Convex hull of places on a plane (Andrew's monotone chain)."""
    ordered = sorted(set(map(tuple, places)))
    chains: list[list[tuple[float, ...]]] = []
    for run in (ordered, ordered[::-1]):
        chain: list[tuple[float, ...]] = []
        for place in run:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], place) <= 0:
                chain.pop()
            chain.append(place)
        chains.append(chain[:-1])
    return [list(place) for place in (chains[0] + chains[1] or ordered)]


def _turn(a: tuple[float, ...], b: tuple[float, ...], c: tuple[float, ...]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
