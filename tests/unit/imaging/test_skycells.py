"""Cells of the sky against an independent HEALPix, and what covers promise."""

from __future__ import annotations

import numpy as np
import pytest
from astropy_healpix import healpix_to_lonlat, lonlat_to_healpix
from hypothesis import example, given, settings
from hypothesis import strategies as st
from spica_imaging.skycells import (
    MAX_ORDER,
    Cover,
    Floats,
    cell_of,
    cell_radius_rad,
    cells_touching,
    cover,
    cover_of_point,
    order_for,
    points_in_cells,
    uniq,
    unit_vectors,
)
from spica_imaging.skyshapes import Box, Cone, Polygon, Shape
from spica_imaging.sphere import quad_distance_rad, separation_rad

from tests.unit.imaging.skies import anywhere, points_in, quads


def everywhere(count: int, seed: int = 1) -> Floats:
    """Directions, many of them close to the poles and to the borders of the polar caps."""
    chance = np.random.default_rng(seed)
    ra, dec = chance.uniform(0, 360, count), np.degrees(np.arcsin(chance.uniform(-1, 1, count)))
    near = 10.0 ** chance.uniform(-9, 1, count)
    return np.concatenate(
        [
            unit_vectors(ra, dec),
            unit_vectors(ra, 90 - near),
            unit_vectors(ra, near - 90),
            unit_vectors(ra, np.degrees(np.arcsin(2 / 3)) + chance.normal(0, 1e-3, count)),
        ]
    )


@pytest.mark.parametrize("order", range(MAX_ORDER + 1))
def test_numbers_are_those_of_healpix(order: int) -> None:
    import astropy.units as u

    vectors = everywhere(3000)
    ra = np.arctan2(vectors[:, 1], vectors[:, 0]) * u.rad
    dec = np.arctan2(vectors[:, 2], np.hypot(vectors[:, 0], vectors[:, 1])) * u.rad
    assert np.array_equal(cell_of(vectors, order), lonlat_to_healpix(ra, dec, 1 << order, order="nested"))
    cells = np.unique(cell_of(vectors, order))
    lon, lat = healpix_to_lonlat(cells, 1 << order, order="nested")
    assert np.abs(points_in_cells(cells, order) - unit_vectors(lon.deg, lat.deg)).max() < 1e-14
    assert np.array_equal(cell_of(points_in_cells(cells, order, 0.01, 0.99), order), cells)


@pytest.mark.parametrize("order", range(MAX_ORDER + 1))
def test_no_point_of_a_cell_is_further_from_its_middle_than_the_radius(order: int) -> None:
    chance = np.random.default_rng(order)
    count = 12 << (2 * order)
    cells = np.arange(count) if count < 5000 else np.unique(chance.integers(0, count, 5000))
    middles, furthest = points_in_cells(cells, order), 0.0
    for along in np.linspace(0, 1, 9):
        for u, v in ((along, 0.0), (along, 1.0), (0.0, along), (1.0, along)):
            furthest = max(furthest, separation_rad(middles, points_in_cells(cells, order, u, v)).max())
    assert furthest <= cell_radius_rad(order)
    assert furthest > 0.99 * cell_radius_rad(order) or count > 5000


def test_children_lie_in_their_parents() -> None:
    vectors = everywhere(2000)
    for order in range(MAX_ORDER):
        assert np.array_equal(cell_of(vectors, order + 1) >> 2, cell_of(vectors, order))


def test_uniq_numbers_of_orders_do_not_meet() -> None:
    assert uniq(np.array([0, 47]), 1).tolist() == [16, 63]
    assert uniq(np.array([0]), 2).tolist() == [64]


@pytest.mark.parametrize(("diameter", "order"), [(0, MAX_ORDER), (1.4, 6), (0.02, 12), (180, 0), (2.2, 5)])
def test_cells_are_about_as_large_as_what_they_hold(diameter: float, order: int) -> None:
    assert order_for(diameter) == order


@settings(max_examples=150, deadline=None)
@given(quads(), st.integers(0, 8), st.integers(0, 2**32 - 1))
def test_any_point_of_a_footprint_lies_in_one_of_its_cells(quad: Floats, order: int, seed: int) -> None:
    cells = cells_touching(
        lambda middles, reach: quad_distance_rad(middles, quad[None])[:, 0] <= reach, order
    )
    points = points_in(quad, 300, seed)
    assert np.isin(cell_of(points, order), cells).all()
    # And it is no wild guess: no cell lies wholly elsewhere.
    nearest = quad_distance_rad(points_in_cells(cells, order), quad[None])[:, 0]
    assert (nearest <= 1.6 * cell_radius_rad(order)).all()


def within(found: Cover, number: int) -> bool:
    return number in found.singles or any(first <= number <= last for first, last in found.ranges)


def shapes() -> st.SearchStrategy[Shape]:
    def box(at: tuple[float, float], wide: float, high: float) -> Box:
        ra, dec = at
        return Box(ra, ra + wide - (360 if ra + wide > 360 else 0), dec, min(90.0, dec + high))

    def triangle(at: tuple[float, float], size: float) -> Polygon:
        ra, dec = at[0], max(-80.0, min(80.0, at[1]))
        return Polygon(((ra, dec), ((ra + size) % 360, dec), (ra, dec + size / 3)))

    return st.one_of(
        st.builds(lambda at, radius: Cone(*at, radius), anywhere(), st.floats(1e-6, 90)),
        st.builds(box, anywhere(), st.floats(0.01, 359), st.floats(0.01, 90)),
        st.builds(triangle, anywhere(), st.floats(0.01, 25)),
    )


@settings(max_examples=150, deadline=None)
@given(shapes(), st.sampled_from([16, 200, 1024]))
@example(Cone(0.0, 90.0, 0.01), 1024)
@example(Box(350, 10, -90, -89.9), 1024)
def test_a_cover_holds_all_cells_of_all_orders_that_points_of_the_shape_lie_in(
    shape: Shape, max_cells: int
) -> None:
    orders = (0, 3, 5, 8, 10)
    found = cover(shape.touches_discs, orders, max_cells)
    chance = np.random.default_rng(3)
    spread = chance.normal(size=(400, 3)) * np.tan(min(1.4, shape.radius_rad)) / 1.5
    points = shape.middle + spread
    points = points / np.linalg.norm(points, axis=1)[:, None]
    for point in points[shape.holds(points)][:60]:
        for order in orders:
            assert within(found, int(uniq(cell_of(point, order), order)))
    assert len(found.singles) <= max_cells * len(orders)


def test_a_point_is_covered_by_one_cell_of_each_order() -> None:
    point = unit_vectors(10.0, 20.0)
    found = cover_of_point(point, (3, 6))
    assert found == Cover(tuple(int(uniq(cell_of(point, order), order)) for order in (3, 6)), ())


def test_without_orders_nothing_is_looked_up() -> None:
    assert cover(Cone(1, 2, 3).touches_discs, ()) == Cover((), ())
