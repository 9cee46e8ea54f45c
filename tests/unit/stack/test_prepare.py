from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from spica_stack.science.prepare import NoUsablePixels, fill_unusable, prepare_ccd

from tests.unit.stack.sky import grid_of, render, scattered_stars


def slow_fill(data: NDArray, good: NDArray) -> NDArray:
    out = data.astype(np.float64)
    ny, nx = data.shape
    for y in range(ny):
        for x in range(nx):
            if good[y, x]:
                continue
            total = norm = 0.0
            for j in range(max(y - 3, 0), min(y + 4, ny)):
                for i in range(max(x - 3, 0), min(x + 4, nx)):
                    if good[j, i]:
                        weight = np.exp(-0.5 * ((j - y) ** 2 + (i - x) ** 2))
                        total, norm = total + weight * data[j, i], norm + weight
            out[y, x] = total / norm if norm > 0 else 0.0
    return out


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1))
def test_holes_are_filled_as_the_slow_twin_fills_them(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    data = rng.normal(10, 3, (17, 13)).astype(np.float32)
    good = rng.random(data.shape) >= share
    data[~good] = rng.choice([np.nan, np.inf, 1e9], np.count_nonzero(~good))
    found = fill_unusable(data, good)
    np.testing.assert_allclose(found, slow_fill(data, good), rtol=1e-4)
    np.testing.assert_array_equal(found[good], data[good])


def frame(rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Sky that is not flat, stars, noise of 7 adu; and where there are no stars."""
    y, x = np.mgrid[:300, :256]
    stars = render((300, 256), grid_of(256), scattered_stars(rng, 25, 100, flux=(500, 2e4)), 4)
    sky = 800 + 0.3 * x + 60 * np.sin(y / 120)
    return (sky + stars + rng.normal(0, 7, (300, 256))).astype(np.float32), stars < 0.1


def test_the_sky_goes_and_weights_become_absolute() -> None:
    data, blank = frame(np.random.default_rng(0))
    weight = np.full(data.shape, 1000.0, np.float32)
    ready = prepare_ccd(data, weight, 64)
    assert abs(np.median(ready.data[blank])) < 0.6
    columns = [np.median(ready.data[:, k : k + 64][blank[:, k : k + 64]]) for k in range(0, 256, 64)]
    assert np.ptp(columns) < 1.5
    assert 1 / np.sqrt(np.median(ready.weight)) == pytest.approx(7, rel=0.05)
    assert ready.noise_adu == pytest.approx(7, rel=0.05)
    assert ready.background_adu == pytest.approx(np.median(data), rel=0.03)


def test_unusable_pixels_neither_spoil_the_sky_nor_keep_weight() -> None:
    data, blank = frame(np.random.default_rng(1))
    weight = np.ones(data.shape, np.float32)
    bad = np.random.default_rng(2).random(data.shape) < 0.02
    bad[100:140, 90:130] = True
    data[bad] = 60000
    data[5, 5], weight[6, 6] = np.nan, np.nan
    weight[bad] = 0
    ready = prepare_ccd(data, weight, 64)
    assert np.isfinite(ready.data).all() and np.isfinite(ready.weight).all()
    assert (ready.weight[bad] == 0).all() and ready.weight[5, 5] == 0 and ready.weight[6, 6] == 0
    assert abs(np.median(ready.data[~bad & blank])) < 0.6
    assert np.abs(ready.data[bad]).max() < 5000


def test_relative_weights_are_kept() -> None:
    rng = np.random.default_rng(3)
    data = rng.normal(0, 1, (200, 200)).astype(np.float32)
    data[:, :100] *= 2
    weight = np.ones(data.shape, np.float32)
    weight[:, :100] = 0.25
    ready = prepare_ccd(data + 100, weight * 37, 64)
    assert np.median(ready.weight[:, 100:]) == pytest.approx(1, rel=0.06)
    assert np.median(ready.weight[:, :100]) == pytest.approx(0.25, rel=0.06)


@pytest.mark.parametrize("what", ["no weight", "no scatter"])
def test_a_ccd_without_sky_is_refused(what: str) -> None:
    data = np.full((64, 64), 5, np.float32)
    weight = np.full((64, 64), 0 if what == "no weight" else 1, np.float32)
    with pytest.raises(NoUsablePixels):
        prepare_ccd(data, weight, 32)


def test_a_tiny_frame_works_too() -> None:
    data = np.random.default_rng(0).normal(50, 2, (40, 30)).astype(np.float32)
    assert abs(np.median(prepare_ccd(data, np.ones_like(data), 128).data)) < 0.5
