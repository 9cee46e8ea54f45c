"""Where an exposure lies, as search needs it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_imaging.skycells import Floats, cell_of, uniq, unit_vectors
from spica_imaging.skyshapes import Cone
from spica_imaging.sphere import points_in_quads, separation_rad
from spica_ingest.science.place import MAS_PER_DEG, Place, place_of, rough_place, rough_radius_deg

from tests.unit.imaging.skies import anywhere, points_in, quad_at, quads


def degrees(quad: Floats) -> list[float]:
    """ra, dec, ra, dec … as footprints of CCDs have them."""
    ra = np.degrees(np.arctan2(quad[:, 1], quad[:, 0])) % 360
    dec = np.degrees(np.arctan2(quad[:, 2], np.hypot(quad[:, 0], quad[:, 1])))
    return np.stack([ra, dec], axis=-1).ravel().tolist()


def stored(place: Place) -> Floats:
    assert place.corners is not None
    corners = np.frombuffer(place.corners, dtype="<i4").reshape(-1, 4, 2) / MAS_PER_DEG
    return unit_vectors(corners[..., 0], corners[..., 1])


def orders(place: Place) -> set[int]:
    return {int(math.log2(cell // 4)) // 2 for cell in place.cells}


def holds(place: Place, points: Floats) -> bool:
    (order,) = orders(place)
    return bool(np.isin(uniq(cell_of(points, order), order), place.cells).all())


@settings(deadline=None, max_examples=150)
@given(st.lists(quads(), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_any_point_of_any_ccd_is_found_by_cell_circle_and_rectangle(several: list[Floats], seed: int) -> None:
    place = place_of([degrees(quad) for quad in several])
    points = np.concatenate([points_in(quad, 100, seed) for quad in several])
    assert holds(place, points)
    kept = stored(place)
    assert separation_rad(kept.reshape(-1, 3), np.concatenate(several)).max() < 1e-8  # two mas
    centre = np.array(place.centre)
    if place.radius_rad < math.pi / 2:
        assert separation_rad(points, centre).max() <= place.radius_rad
    # As the search does it in SQL, at the poles too.
    across = math.hypot(centre[0], centre[1])
    east = np.abs(centre[0] * points[:, 1] - centre[1] * points[:, 0])
    north = np.abs(across**2 * points[:, 2] - centre[2] * (points[:, :2] @ centre[:2]))
    if place.radius_rad < 1.0:
        assert (east <= (place.reach[0] + 1e-8) * across + 1e-15).all()
        assert (north <= (place.reach[1] + 1e-8) * across + 1e-15).all()


def test_a_mosaic_across_right_ascension_zero() -> None:
    place = place_of([degrees(quad_at(ra, 0.0, 0.2, 0.2)) for ra in (359.8, 0.0, 0.2)])
    assert place.centre == pytest.approx((1.0, 0.0, 0.0), abs=1e-9)
    assert math.degrees(place.radius_rad) == pytest.approx(math.hypot(0.3, 0.1), rel=1e-3)
    assert place.footprint is not None and len(place.footprint) >= 8
    assert math.degrees(math.asin(place.reach[0])) == pytest.approx(0.3, rel=1e-3)
    assert math.degrees(math.asin(place.reach[1])) == pytest.approx(0.1, rel=1e-2)


def test_a_mosaic_around_the_pole() -> None:
    place = place_of([degrees(quad_at(0.0, 90.0, 0.5, 0.5))])
    assert place.centre[2] == pytest.approx(1.0)
    assert place.reach == (1.0, 1.0)
    assert holds(place, unit_vectors(np.linspace(0, 360, 50), np.full(50, 89.9)))


def test_right_ascension_of_360_degrees_fits_its_integer() -> None:
    place = place_of([[359.9999999999, 0.0, 0.1, 0.0, 0.1, 0.1, 360.0, 0.1]])
    assert points_in_quads(unit_vectors(0.05, 0.05)[None], stored(place)).all()


def test_cells_are_few() -> None:
    ccds = [degrees(quad_at(10 + 0.11 * x, 20 + 0.24 * y, 0.105, 0.236)) for x in range(9) for y in range(4)]
    assert 3 <= len(place_of(ccds).cells) <= 12


@settings(deadline=None)
@given(anywhere(), st.floats(0.001, 20), st.floats(0, 360))
def test_all_that_a_rough_pointing_may_see_is_found(
    at: tuple[float, float], radius: float, angle: float
) -> None:
    place = rough_place(*at, radius)
    assert place.corners is None and place.footprint is None
    frame = quad_at(*at, 1.0, 1.0, angle)
    middle = frame.sum(axis=0) / np.linalg.norm(frame.sum(axis=0))
    along = frame[0] - middle * (frame[0] @ middle)
    edge = middle * math.cos(math.radians(radius)) + along / np.linalg.norm(along) * math.sin(
        math.radians(radius)
    )
    assert Cone(*at, radius).holds(edge[None]).all()
    assert holds(place, np.array([middle, edge]))


def test_how_far_an_exposure_without_wcs_may_reach() -> None:
    one = rough_radius_deg([(600, 800)], 3.6, 0.5)
    assert one == pytest.approx(500 * 3.6 / 3600 + 0.5)
    mosaic = rough_radius_deg([(4644, 2112)] * 36, 0.186, 0.0)
    assert 0.69 < mosaic < 1.0
