"""The sky's level on a mesh: true on simulated skies, no worse than a peer's, and the same wherever it is evaluated."""

from __future__ import annotations

import numpy as np
import pytest
import sep
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from spica_stack.science.background import Background, BoxMeter, box_edges, trend_of

from tests.unit.stack.sky import grid_of, render, scattered_stars

SIDE, NOISE = 768, 30.0

SKIES = {
    "flat": lambda x, y: 800.0 + 0 * x,
    "slope": lambda x, y: 800.0 + 0.2 * x + 0.1 * y,
    "wave": lambda x, y: 800.0 + 20 * np.sin(x / 300) * np.cos(y / 280),
}


def measured(data: NDArray, mesh_px: int = 128) -> Background:
    """All of a frame in memory, measured band by band."""
    edges_y, edges_x = box_edges((data.shape[0], data.shape[1]), mesh_px)
    meter = BoxMeter(edges_y, edges_x)
    for row in range(len(edges_y) - 1):
        meter.measure(row, np.ascontiguousarray(data[edges_y[row] : edges_y[row + 1]], np.float32))
    found = meter.background()
    assert found is not None
    return found


def frame(sky: str, stars: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    truth = SKIES[sky](x, y)
    data = truth + rng.normal(0, NOISE, truth.shape)
    if stars:
        field = scattered_stars(rng, stars, SIDE / 2 - 20, flux=(300, 1e5))
        data += render(truth.shape, grid_of(SIDE), field, 4)
    return data.astype(np.float32), truth


@pytest.mark.parametrize("sky", SKIES)
@pytest.mark.parametrize("stars", [0, 350])
def test_the_level_is_true_and_no_worse_than_the_peers(sky: str, stars: int) -> None:
    """350 stars are about as many as a MegaCam CCD has on this area."""
    ours, peers = [], []
    for seed in range(3):
        data, truth = frame(sky, stars, seed)
        ours.append((measured(data).rows(0, SIDE) - truth) / NOISE)
        peers.append((sep.Background(data, bw=128, bh=128, fw=3, fh=3).back() - truth) / NOISE)
    bias, peers_bias = float(np.mean(ours)), float(np.mean(peers))
    assert abs(bias) < (0.02 if stars else 0.01)
    assert abs(bias) < abs(peers_bias) + 0.004
    # Of slopes and waves a median over 3×3 boxes takes the ends and the tops off.
    assert np.std(ours) < {"flat": 1.3, "slope": 0.8, "wave": 0.8}[sky] * np.std(peers)
    assert np.std(ours) < {"flat": 0.015, "slope": 0.015, "wave": 0.04}[sky]


def test_pixels_that_are_not_to_be_used_do_not_count() -> None:
    data, truth = frame("flat", 0, 5)
    bad = np.random.default_rng(6).random(data.shape) < 0.3
    bad[200:500, 100:400] = True
    data[bad] = np.nan
    residual = (measured(data).rows(0, SIDE) - truth) / NOISE
    assert abs(residual[~bad].mean()) < 0.01 and np.abs(residual[~bad]).max() < 0.1


def test_a_box_full_of_galaxy_is_filtered_out() -> None:
    data, truth = frame("flat", 0, 7)
    y, x = np.mgrid[:SIDE, :SIDE]
    data += (2000 * np.exp(-np.hypot(x - 320, y - 320) / 12)).astype(np.float32)
    residual = (measured(data).rows(0, SIDE) - truth) / NOISE
    assert np.abs(residual).max() < 0.15


def test_galaxies_on_a_slope_bias_it_less_than_the_peers() -> None:
    ours, peers = [], []
    for seed in range(3):
        data, truth = frame("slope", 0, seed)
        y, x = np.mgrid[:SIDE, :SIDE]
        for at_y, at_x in np.random.default_rng(seed).uniform(0, SIDE, (5, 2)):
            data += (1000 * np.exp(-np.hypot(x - at_x, y - at_y) / 15)).astype(np.float32)
        ours.append((measured(data).rows(0, SIDE) - truth) / NOISE)
        peers.append((sep.Background(data, bw=128, bh=128, fw=3, fh=3).back() - truth) / NOISE)
    assert 0 < np.mean(ours) < np.mean(peers) and np.std(ours) < np.std(peers)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**31), st.floats(0, 1))
def test_a_trend_goes_through_what_is_smooth(my: int, mx: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    y, x = (np.arange(my) + 0.5) / my, (np.arange(mx) + 0.5) / mx
    degrees = [min(2, (n - 1) // 2) for n in (my, mx)]
    level = 1000 + sum(
        rng.normal(0, 30) * np.multiply.outer(y**a, x**b)
        for a in range(degrees[0] + 1) for b in range(min(degrees[1], 2 - a) + 1)
    )  # fmt: skip
    level = level.astype(np.float32)
    np.testing.assert_allclose(trend_of(level), level, rtol=1e-5)
    holes = rng.random(level.shape) < share
    level[holes] = np.nan
    if not holes.all():
        trend = trend_of(level)
        assert np.isfinite(trend).all()
        assert trend.min() > np.nanmin(level) - 200 and trend.max() < np.nanmax(level) + 200


def test_outliers_do_not_pull_a_trend() -> None:
    y, x = np.mgrid[:36, :16].astype(np.float32)
    truth = 1000 + 0.3 * x - 0.02 * (y - 18) ** 2
    level = truth.copy()
    level[np.random.default_rng(0).random(level.shape) < 0.1] += 500
    assert np.abs(trend_of(level) - truth).max() < 2


def test_nothing_usable_has_no_level() -> None:
    edges_y, edges_x = box_edges((64, 64), 32)
    meter = BoxMeter(edges_y, edges_x)
    for row in range(len(edges_y) - 1):
        meter.measure(row, np.full((int(np.diff(edges_y)[row]), 64), np.nan, np.float32))
    assert meter.background() is None


@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 300))
def test_boxes_divide_a_frame_evenly(ny: int, nx: int, mesh_px: int) -> None:
    for edges, size in zip(box_edges((ny, nx), mesh_px), (ny, nx), strict=True):
        sides = np.diff(edges)
        assert edges[0] == 0 and edges[-1] == size and sides.min() >= 1 and np.ptp(sides) <= 1


# ---- the surface ----


def slow_surface(level: NDArray, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Natural splines along y, then along x; straight lines beyond the outermost nodes."""

    def along(values: NDArray, size: int) -> NDArray:
        n = values.shape[0]
        if n == 1:
            return np.repeat(values, size, 0)
        nodes = np.arange(n)
        spline = CubicSpline(nodes, values, axis=0, bc_type="natural")
        at = (np.arange(size) + 0.5) * n / size - 0.5
        found = spline(at)
        for end, beyond in ((0, at < 0), (n - 1, at > n - 1)):
            found[beyond] = values[end] + np.multiply.outer(at[beyond] - end, spline(end, 1))
        return found

    return along(along(level.astype(np.float64), shape[0]).T, shape[1]).T


MESHES = st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**31))


@settings(max_examples=60, deadline=None)
@given(MESHES, st.integers(8, 90), st.integers(8, 90))
def test_the_surface_is_the_slow_twins(mesh: tuple[int, int, int], ny: int, nx: int) -> None:
    level = np.random.default_rng(mesh[2]).normal(1000, 50, mesh[:2]).astype(np.float32)
    found = Background.through(level, (ny, nx)).rows(0, ny)
    np.testing.assert_allclose(found, slow_surface(level, (ny, nx)), rtol=2e-6)


@settings(max_examples=100, deadline=None)
@given(MESHES, st.integers(8, 200), st.integers(8, 200), st.data())
def test_any_part_of_it_has_the_same_bits(
    mesh: tuple[int, int, int], ny: int, nx: int, data: st.DataObject
) -> None:
    level = np.random.default_rng(mesh[2]).normal(1000, 50, mesh[:2]).astype(np.float32)
    surface = Background.through(level, (ny, nx))
    y0, y1 = sorted(data.draw(st.tuples(st.integers(0, ny), st.integers(0, ny))))
    x0, x1 = sorted(data.draw(st.tuples(st.integers(0, nx), st.integers(0, nx))))
    np.testing.assert_array_equal(surface.rows(y0, y1, x0, x1), surface.rows(0, ny)[y0:y1, x0:x1])
