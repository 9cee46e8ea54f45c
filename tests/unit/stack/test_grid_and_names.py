from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spica_stack.science.grid import TanGrid, covering_grid, mean_direction, outline
from spica_stack.science.naming import band, clean, radec_token, stack_name
from spica_stack.science.totals import MemberNumbers, totals

from tests.unit.stack.sky import wcs_at

directions = st.tuples(st.floats(0, 359.999), st.floats(-80, 80))


@given(directions, st.floats(-300, 300), st.floats(-300, 300))
def test_pixels_to_sky_and_back(centre: tuple[float, float], dx: float, dy: float) -> None:
    grid = TanGrid(*centre, 100.5, 90.5, 2.0, 200, 180)
    x, y = grid.sky_to_pixel(*grid.pixel_to_sky(100.5 + dx, 90.5 + dy))
    assert (float(x), float(y)) == pytest.approx((100.5 + dx, 90.5 + dy), abs=1e-6)


@given(directions, st.floats(0, 360), st.booleans(), st.floats(0.2, 3.0))
def test_the_default_grid_covers_all_inputs_and_little_more(
    centre: tuple[float, float], rotation: float, flipped: bool, scale: float
) -> None:
    frames = [wcs_at((80, 100), scale=2.0, rotation=rotation, flipped=flipped, shift=s, centre=centre)
              for s in ((0.0, 0.0), (31.3, -8.0))]  # fmt: skip
    outlines = [outline(wcs, 0, 100, 0, 80) for wcs in frames]
    grid = covering_grid(outlines, scale)
    for ra, dec in outlines:
        x, y = grid.sky_to_pixel(ra, dec)
        assert x.min() >= 0.5 and y.min() >= 0.5
        assert x.max() <= grid.width + 0.5 and y.max() <= grid.height + 0.5
    x, y = grid.sky_to_pixel(*(np.concatenate(part) for part in zip(*outlines, strict=True)))
    assert grid.width - np.ptp(x) < 5 and grid.height - np.ptp(y) < 5


def test_a_centre_and_a_size_asked_for_are_kept() -> None:
    outlines = [outline(wcs_at((80, 100)), 0, 100, 0, 80)]
    grid = covering_grid(outlines, 0.25, (214.0, 52.5), 40, 31)
    assert (grid.width, grid.height, grid.crpix_x, grid.crpix_y) == (40, 31, 20.5, 16.0)
    assert (grid.ra_deg, grid.dec_deg) == (214.0, 52.5)
    around = covering_grid(outlines, 0.25, (214.001, 52.5))
    x, _ = around.sky_to_pixel(*outlines[0])
    assert x.min() > 0.5 and x.max() < around.width + 0.5
    assert around.crpix_x == 0.5 * (around.width + 1)


def test_inputs_all_around_the_sky_have_no_grid() -> None:
    outlines = [outline(wcs_at((9, 9), centre=(ra, 0.0)), 0, 9, 0, 9) for ra in (0.0, 120.0, 240.0)]
    with pytest.raises(ValueError, match="90 degrees"):
        covering_grid(outlines, 1.0)


def test_mean_direction_at_zero_hours() -> None:
    ra, dec = mean_direction(np.array([359.0, 1.0]), np.array([10.0, 10.0]))
    assert min(ra, 360 - ra) == pytest.approx(0, abs=1e-9)
    assert dec == pytest.approx(10.0, abs=0.01)


NUMBERS = MemberNumbers(100.0, 0.01, 1.6, 5.0, 200.0, 60000.0, 53000.0)


def test_gain_and_saturation_of_equal_exposures() -> None:
    one, ten = totals([NUMBERS], "weighted_mean"), totals([NUMBERS] * 10, "clipped_mean")
    assert one.gain == pytest.approx(160.0)
    assert ten.gain == pytest.approx(1600.0)
    assert ten.saturation == pytest.approx(598.0)
    assert totals([NUMBERS] * 10, "median").gain == pytest.approx(1600 * 2 / np.pi * 11.25 / 10)
    assert (ten.exposure_time_s, ten.mjd_obs) == (1000.0, 53000.0)


def test_photon_noise_is_counts_over_gain() -> None:
    """Exposures of unlike depth and scale: the gain says how a source's own photons scatter."""
    rng = np.random.default_rng(0)
    members = [
        MemberNumbers(30, 0.05, 1.5, 4.0, 0, 6e4, None),
        MemberNumbers(300, 0.005, 2.0, 9.0, 0, 6e4, None, priority=0.4),
        MemberNumbers(100, 0.02, 1.0, 6.0, 0, 6e4, None),
    ]
    flux = 80.0
    weights = np.array([m.priority / (m.flux_scale * m.noise_adu) ** 2 for m in members])
    electrons = [rng.poisson(flux / m.flux_scale * m.gain_e_per_adu, 40000) for m in members]
    samples = np.array([e / m.gain_e_per_adu * m.flux_scale for e, m in zip(electrons, members, strict=True)])
    mean = weights @ samples / weights.sum()
    assert np.var(mean) == pytest.approx(flux / totals(members, "weighted_mean").gain, rel=0.03)


@pytest.mark.parametrize(
    ("ra", "dec", "token"),
    [
        (36.495833, -4.494444, "022558-042939"),
        (0.0, 0.0, "000000+000000"),
        (359.99999, -0.5, "235959-003000"),
        (150.0, 2.0, "100000+020000"),
    ],
)
def test_place_in_the_manner_of_terapix(ra: float, dec: float, token: str) -> None:
    assert radec_token(ra, dec) == token


def test_names() -> None:
    assert stack_name({"D 3"}, "r.MP9601", 36.0, -4.5) == "D-3_r_022400-043000"
    assert stack_name({"D3", "D4"}, "Clear", 36.0, -4.5) == "FIELD_Clear_022400-043000"
    assert stack_name(set(), "g", 36.0, 4.5).startswith("FIELD_g_")
    assert band("r.MP9601") == "r"


@given(st.text())
def test_clean_names_are_names(text: str) -> None:
    found = clean(text)
    assert found and not found.startswith(".") and "/" not in found and clean(found) == found
