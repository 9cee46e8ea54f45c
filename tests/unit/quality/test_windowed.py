"""Windowed positions and shapes, against a plain twin and against many noisy copies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_quality.science.photometry import windowed
from spica_quality.science.photometry.stamps import LOST, SOUND

N = 41


def room() -> tuple[np.ndarray, np.ndarray]:
    return np.empty(N), np.empty(N)


def star(x: float, y: float, sigma: float = 1.8, flux: float = 1e4, q: float = 0.8) -> np.ndarray:
    j, i = np.mgrid[:N, :N]
    image = np.exp(-0.5 * ((i - x) ** 2 / sigma**2 + (j - y) ** 2 / (q * sigma) ** 2))
    return (flux * image / image.sum()).astype(np.float32)


def weights(x: float, y: float, sigma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    j, i = np.mgrid[:N, :N]
    r2 = (i - x) ** 2 + (j - y) ** 2
    return (
        np.where(r2 <= (windowed.WINDOW_SIGMA * sigma) ** 2, np.exp(-0.5 * r2 / sigma**2), 0.0),
        i - x,
        j - y,
    )


@settings(max_examples=40, deadline=None)
@given(st.floats(18, 22), st.floats(18, 22), st.floats(1.0, 3.0), st.integers(0, 2**31))
def test_first_moments_vanish_at_the_windowed_position(x: float, y: float, sigma: float, seed: int) -> None:
    values = star(x, y) + np.random.default_rng(seed).normal(0, 2.0, (N, N)).astype(np.float32)
    xw, yw, found = windowed.centre(values, round(x), round(y), sigma, *room())
    assert found
    w, dx, dy = weights(xw, yw, sigma)
    assert (w * values * dx).sum() / (w * values).sum() == pytest.approx(0.0, abs=1e-4)
    assert (w * values * dy).sum() / (w * values).sum() == pytest.approx(0.0, abs=1e-4)
    assert (xw, yw) == pytest.approx((x, y), abs=0.3)


@settings(max_examples=30, deadline=None)
@given(st.floats(15, 25), st.floats(-2, 43), st.floats(0.9, 4.0), st.integers(0, 2**31))
def test_moments_are_plain_sums(x: float, y: float, sigma: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    values = (star(x, y) + random.normal(0, 2.0, (N, N))).astype(np.float32)
    state = random.choice(np.array([SOUND] * 9 + [LOST], np.uint8), (N, N))
    values[state == LOST] = 0.0
    found = windowed.moments(values, state, x, y, sigma, 4.0, 0.5, *room())
    w, dx, dy = weights(x, y, sigma)
    total = (w * values).sum()
    variance = np.where(state == LOST, 0.0, 4.0) + 0.5 * np.maximum(values, 0.0)
    if not total > 0:
        assert found[-1] == 0.0
        return
    expected = [
        *((w * values * a * b).sum() / total for a, b in ((dx, dx), (dy, dy), (dx, dy))),
        *(4.0 * (w**2 * variance * a * b).sum() / total**2 for a, b in ((dx, dx), (dy, dy), (dx, dy))),
        total / np.sqrt((w**2 * variance).sum()),
    ]
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_errors_are_the_scatter_of_noisy_copies() -> None:
    random = np.random.default_rng(4)
    clean, noise, gain = star(20.3, 19.8, sigma=1.7, q=1.0), 6.0, 2.0
    state = np.full((N, N), SOUND, np.uint8)
    places, told = [], []
    for _ in range(400):
        noisy = random.poisson(clean * gain) / gain + random.normal(0, noise, (N, N))
        x, y, found = windowed.centre(noisy.astype(np.float32), 20.0, 20.0, 1.7, *room())
        assert found
        places.append((x, y))
        told.append(
            windowed.moments(noisy.astype(np.float32), state, x, y, 1.7, noise**2, 1 / gain, *room())[3:5]
        )
    assert np.mean(places, axis=0) == pytest.approx([20.3, 19.8], abs=0.006)
    assert np.std(places, axis=0) == pytest.approx(np.sqrt(np.mean(told, axis=0)), rel=0.1)


@pytest.mark.parametrize("level", [0.0, -3.0, np.nan])
def test_without_light_the_start_stays(level: float) -> None:
    values = np.full((N, N), level, np.float32)
    assert windowed.centre(values, 20.2, 19.1, 1.7, *room()) == (20.2, 19.1, False)
    state = np.full((N, N), SOUND, np.uint8)
    assert windowed.moments(values, state, 20.2, 19.1, 1.7, 1.0, 0.5, *room())[-1] == 0.0


def test_a_start_in_the_wings_of_something_brighter_does_not_wander_there() -> None:
    values = star(33.0, 20.0, flux=1e6) + star(20.0, 20.0, flux=1.0)
    x, y, found = windowed.centre(values, 20.0, 20.0, 1.7, *room())
    assert abs(x - 20.0) <= windowed.WINDOW_SIGMA * 1.7
    assert found or (x, y) == (20.0, 20.0)
