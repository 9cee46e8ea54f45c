"""The sky's level and noise on a mesh."""

from __future__ import annotations

import numpy as np
import pytest
import sep
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from spica_quality.science.background.sky import measure_sky, subtract, with_weight
from spica_quality.science.flags import Bit

from tests.support.ccdsim import Exposure, simulate, small

Pixels = NDArray[np.float32]
Flags = NDArray[np.uint16]


def clean(data: Pixels) -> Flags:
    return np.zeros(data.shape, np.uint16)


def noise(shape: tuple[int, int], level: float = 1000.0, sigma: float = 20.0, seed: int = 1) -> Pixels:
    return np.random.default_rng(seed).normal(level, sigma, shape).astype(np.float32)


@pytest.fixture(scope="module")
def exposure() -> Exposure:
    return simulate(small(sky_gradient=(0.02, -0.03)), 5)


def test_as_the_peer_on_a_field_of_stars_and_galaxies(exposure: Exposure) -> None:
    sky = measure_sky(exposure.data, clean(exposure.data))
    peer = sep.Background(exposure.data, bw=128, bh=128, fw=3, fh=3)
    sigma = exposure.noise_adu
    # At the rim the peer's median filter flattens slopes.
    inner = np.s_[192:-192, 192:-192]
    difference = (sky.level_rows(0, 1024) - peer.back())[inner]
    assert abs(np.mean(difference)) < 0.01 * sigma
    assert np.std(difference) < 0.03 * sigma
    assert np.median(sky.rms_rows(0, 1024) / peer.rms()) == pytest.approx(1.0, abs=0.01)
    assert sky.median_rms == pytest.approx(peer.globalrms, rel=0.01)


def test_follows_a_gradient_to_the_edges(exposure: Exposure) -> None:
    sky = measure_sky(exposure.data, clean(exposure.data))
    v, u = (2.0 * (np.arange(1024) + 0.5) / 1024 - 1.0 for _ in range(2))
    true = 1500.0 * (1.0 + 0.02 * u[None, :] - 0.03 * v[:, None])
    # A corner is the slope of a few boxes, and faint galaxies' light is in all of them.
    assert np.max(np.abs(sky.level_rows(0, 1024) - true)) < 0.35 * exposure.noise_adu


def test_plain_noise() -> None:
    sky = measure_sky(noise((600, 800)), np.zeros((600, 800), np.uint16))
    assert sky.median_level == pytest.approx(1000.0, abs=0.3)
    # What is left within 3 sigma has 1.5 % less spread.
    assert sky.median_rms == pytest.approx(0.985 * 20.0, rel=0.01)


@pytest.mark.parametrize("sigma", [0.6, 1.0, 3.0, 300.0])
def test_whole_numbers_do_not_pull_the_level(sigma: float) -> None:
    data = np.rint(noise((512, 512), 100.3, sigma))
    sky = measure_sky(data, clean(data))
    assert sky.median_level == pytest.approx(100.3, abs=0.15 if sigma < 1.0 else 0.05 * sigma)
    assert sky.median_rms == pytest.approx(np.hypot(0.985 * sigma, 0.29), rel=0.05)


def test_a_bright_galaxy_is_not_sky() -> None:
    data = noise((1024, 1024))
    y, x = np.mgrid[:1024, :1024]
    data += (3000.0 * np.exp(-np.hypot(x - 500, y - 530) / 25.0)).astype(np.float32)
    sky = measure_sky(data, clean(data))
    assert float(sky.level_at(500, 530)) == pytest.approx(1000.0, abs=20.0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -3e38]))
def test_flagged_pixels_never_matter(seed: int, value: float) -> None:
    random = np.random.default_rng(seed)
    data = noise((96, 130), seed=seed)
    flags = np.where(random.random(data.shape) < 0.3, Bit.COSMIC, 0).astype(np.uint16)
    spoiled = np.where(flags, np.float32(value), data)
    plain, other = measure_sky(data, flags, 32), measure_sky(spoiled, flags, 32)
    np.testing.assert_array_equal(plain.level_mesh, other.level_mesh)
    np.testing.assert_array_equal(plain.rms_mesh, other.rms_mesh)
    subtract(data, flags, plain)
    subtract(spoiled, flags, other)
    np.testing.assert_array_equal(data, spoiled)
    assert not data[flags != 0].any()


def test_saturated_pixels_keep_their_value_but_are_no_sky() -> None:
    data = noise((256, 256))
    flags = clean(data)
    data[:100], flags[:100] = 60_000.0, Bit.SATURATED
    sky = measure_sky(data, flags)
    assert sky.median_level == pytest.approx(1000.0, abs=2.0)
    subtract(data, flags, sky)
    assert data[0, 0] == pytest.approx(59_000.0, abs=10.0)


def test_a_dead_half_is_filled_from_the_other() -> None:
    data = noise((512, 512))
    flags = clean(data)
    data[:, :300], flags[:, :300] = np.nan, Bit.NO_VALUE
    sky = measure_sky(data, flags)
    assert np.all(np.abs(sky.level_rows(0, 512) - 1000.0) < 5.0)
    assert np.all(np.abs(sky.rms_rows(0, 512) / 20.0 - 1.0) < 0.1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 7), (17, 33)])
def test_frames_of_any_shape(shape: tuple[int, int]) -> None:
    data = noise(shape)
    sky = measure_sky(data, clean(data))
    rows = sky.level_rows(0, shape[0])
    assert rows.shape == shape
    assert np.all(np.abs(rows - 1000.0) < 100.0)
    assert np.isfinite(sky.rms_rows(0, shape[0])).all()


@pytest.mark.parametrize("value", [0.0, 7.0, -1e5])
def test_one_single_value_has_no_noise(value: float) -> None:
    data = np.full((200, 200), value, np.float32)
    sky = measure_sky(data, clean(data))
    assert sky.median_level == pytest.approx(value)
    assert sky.median_rms == pytest.approx(0.0, abs=0.5)


def test_no_usable_pixel_at_all() -> None:
    data = np.full((64, 64), np.nan, np.float32)
    sky = measure_sky(data, np.full((64, 64), Bit.NO_VALUE, np.uint16))
    assert (sky.median_level, sky.median_rms) == (0.0, 0.0)
    # Few usable pixels are better than none: too few for any box, but not for the whole frame.
    data, flags = noise((64, 64)), np.full((64, 64), Bit.MASKED, np.uint16)
    flags[::8, ::8] = 0
    sky = measure_sky(data, flags)
    assert sky.median_level == pytest.approx(1000.0, abs=15.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(40, 300), st.integers(40, 300), st.integers(0, 2**32 - 1))
def test_rows_and_positions_are_a_bicubic_natural_spline(ny: int, nx: int, seed: int) -> None:
    data = noise((ny, nx), seed=seed) + np.linspace(0, 300, nx, dtype=np.float32)
    sky = measure_sky(data, clean(data), 16)
    rows = sky.level_rows(0, ny)
    my, mx = sky.level_mesh.shape
    nodes_y, nodes_x = ((np.arange(m) + 0.5) * n / m - 0.5 for m, n in ((my, ny), (mx, nx)))

    def spline(
        nodes: NDArray[np.float64], values: NDArray[np.float64], at: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        curve = CubicSpline(nodes, values, bc_type="natural")
        inside = curve(np.clip(at, nodes[0], nodes[-1]))
        slopes = curve(nodes[[0, -1]], 1)
        below, beyond = np.minimum(at - nodes[0], 0), np.maximum(at - nodes[-1], 0)
        return np.asarray(inside + below[:, None] * slopes[0] + beyond[:, None] * slopes[1])

    along_y = spline(nodes_y, sky.level_mesh.astype(np.float64), np.arange(ny))
    twin = spline(nodes_x, along_y.T, np.arange(nx)).T
    np.testing.assert_allclose(rows, twin, rtol=1e-5)
    x, y = np.arange(nx, dtype=float)[::3], np.arange(ny, dtype=float)[::7]
    np.testing.assert_allclose(sky.level_at(x[None, :], y[:, None]), rows[::7, ::3], rtol=1e-5)
    np.testing.assert_array_equal(sky.level_rows(3, 9), rows[3:9])


def test_noise_from_a_weight() -> None:
    random = np.random.default_rng(3)
    weight = np.ones((512, 512), np.float32)
    weight[:, 256:] = 4.0
    weight[200:230] = 0.0
    data = (random.standard_normal((512, 512)) * 20.0 / np.sqrt(np.maximum(weight, 0.1))).astype(np.float32)
    flags = np.where(weight > 0, 0, Bit.NO_VALUE).astype(np.uint16)
    sky = with_weight(measure_sky(data, flags), weight, flags)
    assert sky.weight is weight
    rms = sky.rms_rows(0, 512)
    assert rms[0, 0] == pytest.approx(20.0, rel=0.04)
    assert rms[0, 511] == pytest.approx(10.0, rel=0.04)
    np.testing.assert_allclose(sky.rms_at([3, 300], [5, 400]), rms[[5, 400], [3, 300]], rtol=1e-6)
    assert np.isfinite(rms).all()
