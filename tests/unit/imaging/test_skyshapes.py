"""Shapes on the sky against their slow twins: many points, one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from spica_imaging.skycells import Floats, unit_vectors
from spica_imaging.skyshapes import Box, Cone, Polygon, ShapeError
from spica_imaging.sphere import (
    Arcs,
    outline,
    points_in_quads,
    quad_distance_rad,
    quads_near,
    separation_rad,
    separations_rad,
)

from tests.unit.imaging.skies import anywhere, points_in, quad_at, quads


@given(anywhere(), anywhere())
def test_angles_are_those_of_vincenty(first: tuple[float, float], second: tuple[float, float]) -> None:
    (ra1, dec1), (ra2, dec2) = first, second
    delta, phi1, phi2 = math.radians(ra2 - ra1), math.radians(dec1), math.radians(dec2)
    expected = math.atan2(
        math.hypot(
            math.cos(phi2) * math.sin(delta),
            math.cos(phi1) * math.sin(phi2) - math.sin(phi1) * math.cos(phi2) * math.cos(delta),
        ),
        math.sin(phi1) * math.sin(phi2) + math.cos(phi1) * math.cos(phi2) * math.cos(delta),
    )
    a, b = unit_vectors(ra1, dec1), unit_vectors(ra2, dec2)
    tolerance = 1e-12 if expected < 3 else 1e-7
    assert float(separation_rad(a, b)) == pytest.approx(expected, abs=tolerance)
    assert separations_rad(a[None], b[None])[0, 0] == pytest.approx(expected, abs=max(tolerance, 1e-9))


@settings(deadline=None)
@given(quads(), st.integers(0, 2**32 - 1))
@example(quad_at(0.0, 90.0, 1.0, 1.0), 1)
@example(quad_at(359.999, 0.0, 1.0, 1.0), 1)
def test_points_of_a_quad_are_in_it_and_points_beyond_its_edges_are_not(quad: Floats, seed: int) -> None:
    inside = points_in(quad, 100, seed)
    assert points_in_quads(inside, quad[None]).all()
    middle = quad.sum(axis=0) / np.linalg.norm(quad.sum(axis=0))
    edge_middles = quad + np.roll(quad, -1, axis=0)
    outside = middle + 1.02 * (edge_middles / np.linalg.norm(edge_middles, axis=1)[:, None] - middle)
    outside /= np.linalg.norm(outside, axis=1)[:, None]
    assert not points_in_quads(outside, quad[None]).any()
    assert not points_in_quads(-inside, quad[None]).any()


@settings(deadline=None)
@given(quads(), anywhere(), st.integers(0, 2**32 - 1))
def test_the_distance_from_a_quad_is_the_least_to_any_of_its_points(
    quad: Floats, at: tuple[float, float], seed: int
) -> None:
    point = unit_vectors(*at)
    found = float(quad_distance_rad(point[None], quad[None])[0, 0])
    along = np.linspace(0, 1, 400)[:, None]
    edges = np.concatenate([(1 - along) * quad[i] + along * quad[(i + 1) % 4] for i in range(4)])
    edges /= np.linalg.norm(edges, axis=1)[:, None]
    sampled = separation_rad(edges, point)
    step = float(separation_rad(quad, np.roll(quad, -1, axis=0)).max()) / 399
    if points_in_quads(point[None], quad[None])[0, 0]:
        assert found == 0
    else:
        assert found <= sampled.min() + 1e-9
        assert found >= sampled.min() - step - 1e-9


def test_an_arc_without_length_is_a_point() -> None:
    point = unit_vectors(10.0, 10.0)[None]
    assert Arcs(point, point).distance_rad(unit_vectors(10.0, 11.0)[None]) == pytest.approx(math.radians(1))


def surely(shape: Cone | Box | Polygon, quad: Floats, seed: int) -> bool:
    """Whether some of many points of the quadrilateral lie in the shape."""
    return bool(shape.holds(points_in(quad, 2000, seed)).any())


def check(shape: Cone | Box | Polygon, quad: Floats, seed: int) -> None:
    touches = bool(shape.touches_quads(quad[None])[0])
    near = quads_near(quad[None].astype(np.float32), shape.middle, shape.radius_rad)[0]
    if surely(shape, quad, seed):
        assert touches
    if touches:
        assert near
        # So it is touched by discs around points that lie closely all over it, wherever the shape touches it.
        points = points_in(quad, 4000, seed)
        reach = 2.5 * float(separation_rad(quad[0], quad[2])) / math.sqrt(1000) + 1e-9
        assert shape.touches_discs(points, reach).any()


@settings(max_examples=200, deadline=None)
@given(
    quads(),
    anywhere(),
    st.one_of(st.just(0.0), st.floats(0, 3), st.floats(0, 180)),
    st.integers(0, 2**32 - 1),
)
def test_cones(quad: Floats, at: tuple[float, float], radius: float, seed: int) -> None:
    check(Cone(*at, radius), quad, seed)


@settings(max_examples=200, deadline=None)
@given(quads(), st.floats(0, 4), st.floats(0, 360), st.floats(0, 3), st.integers(0, 2**32 - 1))
def test_cones_beside_a_quad(quad: Floats, away: float, angle: float, radius: float, seed: int) -> None:
    middle = quad.sum(axis=0) / np.linalg.norm(quad.sum(axis=0))
    corner = quad[seed % 4]
    towards = corner * math.cos(math.radians(angle)) + np.cross(middle, corner) * math.sin(
        math.radians(angle)
    )
    place = middle + towards * math.tan(math.radians(away) / 2)
    x, y, z = place / np.linalg.norm(place)
    check(Cone(math.degrees(math.atan2(y, x)) % 360, math.degrees(math.asin(z)), radius), quad, seed)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    ra, dec = draw(anywhere())
    width = draw(st.one_of(st.floats(0, 3), st.floats(0, 359.9), st.just(360.0)))
    height = draw(st.one_of(st.floats(0, 3), st.floats(0, 180)))
    east = ra + width if width == 360.0 else (ra + width) % 360
    return Box(ra if width < 360 else 0.0, east if width < 360 else 360.0, dec, min(90.0, dec + height))


@settings(max_examples=300, deadline=None)
@given(quads(), boxes(), st.integers(0, 2**32 - 1))
@example(quad_at(0.0, 89.9, 1.0, 1.0), Box(10, 10.5, 89.95, 90), 1)
@example(quad_at(10.0, 90.0, 4.0, 4.0), Box(0, 360, 89.9, 90), 1)
@example(quad_at(0.0, 0.0, 2.0, 2.0), Box(359.99, 0.01, -0.01, 0.01), 1)
def test_boxes(quad: Floats, box: Box, seed: int) -> None:
    check(box, quad, seed)


@settings(max_examples=200, deadline=None)
@given(
    quads(),
    st.floats(-1.5, 1.5),
    st.floats(-1.5, 1.5),
    st.floats(0, 2),
    st.floats(0, 2),
    st.integers(0, 2**32 - 1),
)
def test_boxes_beside_a_quad(quad: Floats, east: float, north: float, w: float, h: float, seed: int) -> None:
    x, y, z = quad[seed % 4]
    ra = (math.degrees(math.atan2(y, x)) + east) % 360
    dec = max(-90.0, min(90.0, math.degrees(math.asin(max(-1.0, min(1.0, z)))) + north))
    check(Box(ra, (ra + w) % 360, dec, min(90.0, dec + h)), quad, seed)


@st.composite
def polygons(draw: st.DrawFn, at: st.SearchStrategy[tuple[float, float]]) -> Polygon:
    """Stars of three to seven points around a place: mostly not convex."""
    ra, dec = draw(at)
    count = draw(st.integers(3, 7))
    size = draw(st.floats(0.01, 20))
    frame = quad_at(ra, dec, 1.0, 1.0)
    east, north = frame[1] - frame[0], frame[3] - frame[0]
    middle = frame.sum(axis=0) / np.linalg.norm(frame.sum(axis=0))
    corners = []
    for number in range(count):
        angle = 2 * math.pi * number / count
        reach = math.tan(math.radians(size * draw(st.floats(0.2, 1)))) / math.radians(1.0)
        x, y, z = middle + reach * (east * math.cos(angle) + north * math.sin(angle))
        corners.append((math.degrees(math.atan2(y, x)) % 360, math.degrees(math.atan2(z, math.hypot(x, y)))))
    return Polygon(tuple(corners))


@settings(max_examples=200, deadline=None)
@given(st.data(), quads(), st.integers(0, 2**32 - 1))
def test_polygons(data: st.DataObject, quad: Floats, seed: int) -> None:
    x, y, z = quad[seed % 4]
    beside = st.just((math.degrees(math.atan2(y, x)) % 360, math.degrees(math.atan2(z, math.hypot(x, y)))))
    check(data.draw(polygons(st.one_of(beside, anywhere()))), quad, seed)


def test_a_polygon_that_is_not_convex_has_no_inside_in_its_notch() -> None:
    arrow = Polygon(((0, 0), (4, 0), (2, 1), (2, 4)))
    assert arrow.holds(unit_vectors(np.array([2.0, 1.0, 3.0]), np.array([0.5, 2.5, 3.0]))).tolist() == [
        True,
        False,
        False,
    ]
    assert not arrow.touches_quads(quad_at(3.0, 2.0, 0.2, 0.2)[None])[0]
    assert arrow.touches_quads(quad_at(3.0, 0.2, 0.2, 0.2)[None])[0]


def test_a_box_around_the_pole_and_across_right_ascension_zero() -> None:
    cap = Box(0, 360, 89, 90)
    assert cap.width_deg == 360
    assert cap.touches_quads(quad_at(123.0, 90.0, 0.1, 0.1)[None])[0]
    wedge = Box(350, 10, -5, 5)
    assert wedge.width_deg == 20
    places = unit_vectors(np.array([355.0, 5.0, 0.0, 15.0, 345.0]), np.zeros(5))
    assert wedge.holds(places).tolist() == [True, True, True, False, False]
    assert wedge.touches_quads(quad_at(0.0, 0.0, 60.0, 60.0)[None])[0]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Cone(400.0, 0.0), "0 to 360, not 400"),
        (lambda: Cone(0.0, 91.0), "-90 to 90, not 91"),
        (lambda: Cone(0.0, 0.0, -1.0), "0 to 180 deg, not -1"),
        (lambda: Cone(float("nan"), 0.0), "not nan"),
        (lambda: Box(0, 10, 5, -5), "southern edge"),
        (lambda: Polygon(((0, 0), (1, 1))), "three corners"),
        (lambda: Polygon(((0, 0), (120, 0), (240, 0))), "at most 60 deg"),
        (lambda: Polygon(((0, 90), (0, -90), (90, 0))), "at most 60 deg"),
    ],
)
def test_what_is_no_region_is_refused_with_what_was_found(make: object, says: str) -> None:
    with pytest.raises(ShapeError, match=says):
        make()  # type: ignore[operator]


@settings(deadline=None)
@given(st.lists(quads(), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_an_outline_holds_all_points_of_its_quads(several: list[Floats], seed: int) -> None:
    edge = outline(np.array(several))
    if edge is None:
        spread = separation_rad(np.concatenate(several), several[0][0])
        assert spread.max() > math.radians(29)
        return
    hull = Polygon(tuple(map(tuple, edge.tolist())))
    points = np.concatenate([points_in(quad, 50, seed) for quad in several])
    assert hull.touches_discs(points, 1e-7).all()
    assert (edge[:, 0] >= 0).all() and (edge[:, 0] < 360).all()


def test_an_outline_of_one_ccd_is_its_corners_however_they_are_ordered() -> None:
    for mirrored in (False, True):
        edge = outline(quad_at(359.99, 45.0, 0.5, 0.25, 30.0, mirrored)[None])
        assert edge is not None and edge.shape == (4, 2)
        assert np.allclose(
            sorted(edge[:, 1]), sorted(np.degrees(np.arcsin(quad_at(359.99, 45, 0.5, 0.25, 30)[:, 2])))
        )
