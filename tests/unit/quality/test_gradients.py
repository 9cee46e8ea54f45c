"""Planes through the sky."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_quality.science.metrics.figures import Value, row
from spica_quality.science.metrics.gradients import UNKNOWN, ccd_gradient, fit_plane, focal_plane_gradient


@settings(max_examples=50, deadline=None)
@given(st.floats(-50.0, 50.0), st.floats(-50.0, 50.0), st.integers(0, 2**31))
def test_a_plane_is_found_whatever_a_few_boxes_say(rise_x: float, rise_y: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:12, :8].astype(np.float64)
    level = 1000.0 + rise_x * (x - 3.5) / 8.0 + rise_y * (y - 5.5) / 12.0 + random.normal(0.0, 0.2, x.shape)
    level[3, 2], level[5, 5] = 3000.0, np.nan
    found = ccd_gradient(level.astype(np.float32), (2400, 1600))
    assert found.rise == pytest.approx(abs(rise_x) + abs(rise_y), abs=1.0)
    assert found.residual == pytest.approx(0.2, abs=0.12)


@pytest.mark.parametrize(("dx", "dy", "angle"), [(1, 0, 0.0), (0, 1, 90.0), (-1, 0, 180.0), (0, -1, -90.0)])
def test_the_angle_says_where_it_rises(dx: int, dy: int, angle: float) -> None:
    y, x = np.mgrid[:6, :6].astype(np.float64)
    found = fit_plane(x.ravel(), y.ravel(), (dx * x + dy * y).ravel(), (6.0, 6.0))
    assert np.cos(np.radians(found.angle_deg - angle)) == pytest.approx(1.0)
    assert found.figures()["background_gradient_adu"] == 6.0


def test_over_the_focal_plane_the_angle_counts_from_north_to_east() -> None:
    centres = [(ra % 360.0, dec) for ra in (359.8, 0.0, 0.2) for dec in (59.8, 60.0, 60.2)]
    east = [row({"background_adu": 100.0 + 50.0 * ((ra + 180.0) % 360.0 - 180.0)}) for ra, _ in centres]
    found = focal_plane_gradient(east, centres)
    assert found.angle_deg == pytest.approx(90.0, abs=2.0)
    assert found.rise == pytest.approx(20.0, rel=0.03)
    north = [row({"background_adu": 10.0 * dec}) for _, dec in centres]
    assert focal_plane_gradient(north, centres).angle_deg == pytest.approx(0.0, abs=2.0)


def test_ccds_without_sky_or_place_are_left_out() -> None:
    centres = [(ra, dec) for ra in (10.0, 10.1, 10.2) for dec in (0.0, 0.1)]
    rows = [row({"background_adu": 100.0}) for _ in centres]
    rows[0] = row({})
    centres[1] = (float("nan"), 0.0)
    assert focal_plane_gradient(rows, centres).rise == pytest.approx(0.0, abs=1e-6)


def test_too_few_points_or_points_in_a_line_know_no_plane() -> None:
    one = np.arange(3.0)
    assert fit_plane(one, one**2, one, (1.0, 1.0)) is UNKNOWN
    line = np.arange(9.0)
    assert fit_plane(line, np.zeros(9), line, (9.0, 1.0)) is UNKNOWN
    assert focal_plane_gradient([row({"background_adu": 1.0})], [(0.0, 0.0)]) is UNKNOWN
    assert UNKNOWN.figures()["background_gradient_adu"] is None


def test_ccds_without_signal_do_not_tilt_the_sky() -> None:
    centres = [(10.0 + 0.2 * i, 5.0 + 0.3 * j) for j in range(2) for i in range(3)]
    rows: list[dict[str, Value]] = [{"background_adu": 900.0 + at % 3, "condition": "ok"} for at in range(6)]
    sound = focal_plane_gradient(rows, centres)
    rows[0] = {"background_adu": 3.0, "condition": "dead"}
    without = focal_plane_gradient(rows, centres)
    assert without.rise == pytest.approx(sound.rise, abs=0.1)
