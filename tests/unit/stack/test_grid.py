"""Grids of all projections, turned and mirrored; astropy (wcslib) is what they are held against."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from astropy.coordinates import angular_separation
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_imaging.head import add_cards
from spica_proto import stacks
from spica_stack.science.grid import Grid, TanGrid, covering_grid, outline
from spica_stack.science.projections import Projection

from tests.unit.stack.sky import wcs_at

PROJECTIONS: tuple[Projection, ...] = get_args(Projection)

directions = st.one_of(
    st.tuples(st.floats(0, 359.999), st.floats(-89, 89)),
    st.sampled_from([(0.0, 0.0), (359.9999, 0.0), (50.0, 90.0), (50.0, -90.0), (0.0, 89.9999)]),
)
rotations = st.one_of(st.floats(-360, 360), st.sampled_from([0.0, 90.0, 180.0, 270.0, -90.0]))
grids = st.builds(
    lambda centre, scale, rotation, mirrored, projection: Grid(
        *centre, 200.5, 151.25, scale, 400, 300, rotation, mirrored, projection
    ),
    directions,
    st.floats(0.1, 200),
    rotations,
    st.booleans(),
    st.sampled_from(PROJECTIONS),
)
pixels = st.tuples(st.floats(0.5, 400.5), st.floats(0.5, 300.5))


def as_astropy(grid: Grid) -> WCS:
    return WCS(add_cards(fits.Header(), grid.wcs_cards()))


def test_the_projections_are_those_of_the_contract() -> None:
    assert set(PROJECTIONS) == set(get_args(stacks.Projection))


@settings(deadline=None)
@given(grids, pixels)
def test_the_cards_say_what_the_grid_computes(grid: Grid, pixel: tuple[float, float]) -> None:
    ra, dec = as_astropy(grid).all_pix2world(*pixel, 1)
    mine = grid.pixel_to_sky(*pixel)
    apart = np.degrees(angular_separation(*np.radians([ra, dec, *mine])))
    assert apart * 3600 < 1e-5 * grid.scale_arcsec + 1e-9


@settings(deadline=None)
@given(grids, pixels)
def test_pixels_to_sky_and_back(grid: Grid, pixel: tuple[float, float]) -> None:
    x, y = grid.sky_to_pixel(*grid.pixel_to_sky(*pixel))
    # An arcosine's worth of rounding, where latitudes are found from their sine.
    assert (float(x), float(y)) == pytest.approx(pixel, abs=1e-4 / grid.scale_arcsec + 1e-7)


@settings(deadline=None)
@given(grids, pixels)
def test_directions_are_those_of_the_sky(grid: Grid, pixel: tuple[float, float]) -> None:
    vector = grid.directions(*pixel)
    ra, dec = np.radians(grid.pixel_to_sky(*pixel))
    expected = [np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)]
    np.testing.assert_allclose(vector / np.linalg.norm(vector), expected, atol=1e-12)


# Mollweide's scale at its centre is not the same in both directions.
@given(st.floats(-180, 180), st.booleans(), st.sampled_from([p for p in PROJECTIONS if p != "MOL"]))
def test_rotation_is_the_position_angle_of_y(rotation: float, mirrored: bool, projection: Projection) -> None:
    grid = Grid(120.0, 30.0, 10.0, 10.0, 1.0, 20, 20, rotation, mirrored, projection)
    up, right = grid.pixel_to_sky(10.0, 11.0), grid.pixel_to_sky(11.0, 10.0)
    east, north = (up[0] - 120.0) * np.cos(np.radians(30.0)), up[1] - 30.0
    assert np.hypot(east, north) * 3600 == pytest.approx(1, rel=1e-4)
    turn = np.degrees(np.arctan2(east, north)) - rotation
    assert (turn + 180) % 360 - 180 == pytest.approx(0, abs=0.01)
    # East lies a quarter turn to the left of north, or to its right.
    handed = east * (right[1] - 30.0) - north * (right[0] - 120.0) * np.cos(np.radians(30.0))
    assert (handed > 0) != mirrored


def test_a_plain_grid_has_the_cards_it_always_had() -> None:
    cards = TanGrid(34.5, -4.5, 100.5, 80.5, 0.186, 200, 160).wcs_cards()
    step = 0.186 / 3600
    assert [card[:2] for card in cards] == [
        ("EQUINOX", 2000.0), ("RADESYS", "ICRS"), ("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN"), ("CUNIT1", "deg"),
        ("CUNIT2", "deg"), ("CRVAL1", 34.5), ("CRVAL2", -4.5), ("CRPIX1", 100.5), ("CRPIX2", 80.5), ("CD1_1", -step),
        ("CD1_2", 0.0), ("CD2_1", 0.0), ("CD2_2", step), ("PIXSCAL1", 0.186),
    ]  # fmt: skip
    assert str({card[0]: card[1] for card in cards}["CD1_2"]) == "0.0"
    assert cards[10][2] == "[deg/pixel] East is left"


@pytest.mark.parametrize("turn", [0.0, 90.0, 180.0, 270.0, 360.0, -90.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_quarter_turns_are_exact(turn: float, mirrored: bool) -> None:
    grid = Grid(1.0, 2.0, 5.0, 5.0, 3600.0, 9, 9, turn, mirrored)
    numbers = [value for row in grid.cd for value in row]
    assert sorted(np.abs(numbers)) == [0.0, 0.0, 1.0, 1.0]
    assert not any(np.signbit(value) and value == 0 for value in numbers)


def test_what_a_projection_does_not_have_is_nan() -> None:
    # The point opposite, and one at 150 degrees.
    opposite, far = (180.0, -30.0), (180.0, 0.0)
    for projection in ("TAN", "SIN", "STG", "ZEA", "ARC"):
        grid = Grid(0.0, 30.0, 0.0, 0.0, 3600.0, 1, 1, projection=projection)  # type: ignore[arg-type]
        if projection != "ARC":  # a circle, on which rounding finds some point
            assert np.isnan(grid.sky_to_pixel(*opposite)).all(), projection
        assert np.isnan(grid.sky_to_pixel(*far)).all() == (projection in ("TAN", "SIN"))
    for projection in ("SIN", "ZEA", "ARC", "SFL", "AIT", "MOL"):
        grid = Grid(0.0, 0.0, 0.0, 0.0, 3600.0, 1, 1, projection=projection)  # type: ignore[arg-type]
        assert np.isnan(grid.pixel_to_sky(185.0, 80.0)[0]), projection
        assert np.isnan(grid.directions(185.0, 80.0)).all(), projection


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.floats(0, 359.999), st.floats(-80, 80)),
    st.floats(0, 360),
    st.booleans(),
    st.floats(0.5, 3.0),
    rotations,
    st.booleans(),
    st.sampled_from(PROJECTIONS),
)
def test_the_default_grid_covers_all_inputs_and_little_more(
    centre: tuple[float, float],
    angle: float,
    flipped: bool,
    scale: float,
    rotation: float,
    mirrored: bool,
    projection: Projection,
) -> None:
    frames = [wcs_at((80, 100), scale=2.0, rotation=angle, flipped=flipped, shift=s, centre=centre)
              for s in ((0.0, 0.0), (31.3, -8.0))]  # fmt: skip
    outlines = [outline(wcs, 0, 100, 0, 80) for wcs in frames]
    grid = covering_grid(outlines, scale, rotation_deg=rotation, mirrored=mirrored, projection=projection)
    assert (grid.rotation_deg, grid.mirrored, grid.projection) == (rotation, mirrored, projection)
    ra, dec = (np.concatenate(part) for part in zip(*outlines, strict=True))
    x, y = grid.sky_to_pixel(ra, dec)
    assert x.min() >= 0.5 and y.min() >= 0.5
    assert x.max() <= grid.width + 0.5 and y.max() <= grid.height + 0.5
    assert grid.width - np.ptp(x) < 5 and grid.height - np.ptp(y) < 5


@pytest.mark.parametrize("centre", [(0.0, 3.0), (217.0, 90.0), (12.0, -90.0), (359.9999, -60.0)])
def test_a_grid_over_a_pole_or_zero_hours(centre: tuple[float, float]) -> None:
    outlines = [outline(wcs_at((800, 900), scale=2.0, centre=centre, shift=(40.3, -8.0)), 0, 900, 0, 800)]
    grid = covering_grid(outlines, 2.0)
    # At a pole, north at the frame's middle is another direction than north at its reference point.
    longest = 904 if abs(centre[1]) < 80 else np.hypot(904, 804)
    assert 900 <= grid.width <= longest and 800 <= grid.height <= longest


@pytest.mark.parametrize("projection", ["TAN", "SIN"])
def test_inputs_that_no_plane_has_are_an_error(projection: Projection) -> None:
    outlines = [outline(wcs_at((9, 9), centre=(ra, 0.0)), 0, 9, 0, 9) for ra in (0.0, 120.0, 240.0)]
    with pytest.raises(ValueError, match=r"90 degrees|does not have"):
        covering_grid(outlines, 1.0, projection=projection)
