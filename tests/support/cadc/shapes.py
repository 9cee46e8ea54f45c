"""ADQL's geometry for SQLite: shapes are text as CAOM writes them, `circle ra dec radius`, in degrees."""

from __future__ import annotations

import math
import sqlite3

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


def install(connection: sqlite3.Connection) -> None:
    """Make POINT, CIRCLE, POLYGON, CONTAINS, INTERSECTS, DISTANCE, COORD1, COORD2 known."""
    for name, function in (
        ("POINT", lambda *parts: _shape("point", parts)),
        ("CIRCLE", lambda *parts: _shape("circle", parts)),
        ("POLYGON", lambda *parts: _shape("polygon", parts)),
        ("CONTAINS", lambda a, b: _both(_contains, a, b)),
        ("INTERSECTS", lambda a, b: _both(_intersects, a, b)),
        ("DISTANCE", lambda *parts: _distance(parts)),
        ("COORD1", lambda point: None if point is None else _numbers(point)[1][0]),
        ("COORD2", lambda point: None if point is None else _numbers(point)[1][1]),
    ):
        connection.create_function(name, -1, function, deterministic=True)


def circle_text(ra_deg: float, dec_deg: float, radius_deg: float) -> str:
    """As it stands in position_bounds."""
    return _shape("circle", (ra_deg, dec_deg, radius_deg)) or ""


def polygon_text(*corners_deg: tuple[float, float]) -> str:
    """As it stands in position_bounds."""
    return _shape("polygon", tuple(value for corner in corners_deg for value in corner)) or ""


def _shape(name: str, parts: tuple[object, ...]) -> str | None:
    if parts and isinstance(parts[0], str):
        if parts[0].upper() not in ("", "ICRS", "ICRS GEOCENTER"):
            raise ValueError(f"coordinate system {parts[0]!r}")
        parts = parts[1:]
    if any(part is None for part in parts):
        return None
    count = {"point": 2, "circle": 3}.get(name)
    if len(parts) != count and (name != "polygon" or len(parts) < 6 or len(parts) % 2):
        raise ValueError(f"{name} of {len(parts)} numbers")
    return " ".join([name, *(repr(float(part)) for part in parts)])  # type: ignore[arg-type]


def _numbers(text: str) -> tuple[str, list[float]]:
    name, *numbers = text.split()
    return name, [float(number) for number in numbers]


def _vector(ra_deg: float, dec_deg: float) -> Vector:
    ra, dec = math.radians(ra_deg), math.radians(dec_deg)
    return np.array([math.cos(dec) * math.cos(ra), math.cos(dec) * math.sin(ra), math.sin(dec)])


def _corners(numbers: list[float]) -> list[Vector]:
    return [_vector(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]


def _apart_deg(a: Vector, b: Vector) -> float:
    return math.degrees(math.atan2(float(np.linalg.norm(np.cross(a, b))), float(a @ b)))


def _both(test: object, a: str | None, b: str | None) -> int | None:
    return None if a is None or b is None else int(test(a, b))  # type: ignore[operator]


def _distance(parts: tuple[object, ...]) -> float | None:
    if any(part is None for part in parts):
        return None
    if len(parts) == 2:
        (_, a), (_, b) = _numbers(str(parts[0])), _numbers(str(parts[1]))
        return _apart_deg(_vector(*a), _vector(*b))
    ra1, dec1, ra2, dec2 = (float(part) for part in parts)  # type: ignore[arg-type]
    return _apart_deg(_vector(ra1, dec1), _vector(ra2, dec2))


def _contains(inner: str, outer: str) -> bool:
    """Whether the first lies in the second: points in anything, circles in circles, polygons in convex shapes."""
    (kind, numbers), (around, bounds) = _numbers(inner), _numbers(outer)
    if kind == "circle" and around == "circle":
        return _apart_deg(_vector(*numbers[:2]), _vector(*bounds[:2])) + numbers[2] <= bounds[2]
    if kind == "circle":
        centre = _vector(*numbers[:2])
        return _in_polygon(centre, _corners(bounds)) and _to_edges_deg(centre, _corners(bounds)) >= numbers[2]
    points = _corners(numbers)
    if around == "circle":
        return all(_apart_deg(point, _vector(*bounds[:2])) <= bounds[2] for point in points)
    return all(_in_polygon(point, _corners(bounds)) for point in points)


def _intersects(one: str, other: str) -> bool:
    (a, numbers_a), (b, numbers_b) = sorted((_numbers(one), _numbers(other)))
    if a == b == "circle":
        apart = _apart_deg(_vector(*numbers_a[:2]), _vector(*numbers_b[:2]))
        return apart <= numbers_a[2] + numbers_b[2]
    if a == "circle" and b == "polygon":
        centre, corners = _vector(*numbers_a[:2]), _corners(numbers_b)
        return _in_polygon(centre, corners) or _to_edges_deg(centre, corners) <= numbers_a[2]
    if b == "point":
        return _contains(" ".join(("point", *map(repr, numbers_b))), " ".join((a, *map(repr, numbers_a))))
    if a == "point":
        return _contains(" ".join(("point", *map(repr, numbers_a))), " ".join((b, *map(repr, numbers_b))))
    first, second = _corners(numbers_a), _corners(numbers_b)
    return (
        any(_in_polygon(corner, second) for corner in first)
        or any(_in_polygon(corner, first) for corner in second)
        or any(_cross(*edge, *facing) for edge in _edges(first) for facing in _edges(second))
    )


def _edges(corners: list[Vector]) -> list[tuple[Vector, Vector]]:
    return list(zip(corners, corners[1:] + corners[:1], strict=True))


def _in_polygon(point: Vector, corners: list[Vector]) -> bool:
    """By turning once around: good for polygons, convex or not, smaller than a hemisphere around the point."""
    if any(float(point @ corner) <= 0 for corner in corners):
        return False
    turn = 0.0
    for a, b in _edges(corners):
        to_a, to_b = a - (a @ point) * point, b - (b @ point) * point
        turn += math.atan2(float(np.cross(to_a, to_b) @ point), float(to_a @ to_b))
    return abs(turn) > math.pi


def _to_edges_deg(point: Vector, corners: list[Vector]) -> float:
    """Distance to the nearest edge."""
    nearest = min(_apart_deg(point, corner) for corner in corners)
    for a, b in _edges(corners):
        pole = np.cross(a, b)
        pole = pole / np.linalg.norm(pole)
        foot = point - (point @ pole) * pole
        if np.cross(a, foot) @ pole >= 0 and np.cross(foot, b) @ pole >= 0:
            nearest = min(nearest, abs(math.degrees(math.asin(max(-1.0, min(1.0, float(point @ pole)))))))
    return nearest


def _cross(a: Vector, b: Vector, c: Vector, d: Vector) -> bool:
    one, other = np.cross(a, b), np.cross(c, d)
    sides = (float(one @ c) * float(one @ d), float(other @ a) * float(other @ b))
    return sides[0] < 0 and sides[1] < 0 and float((a + b) @ (c + d)) > 0
