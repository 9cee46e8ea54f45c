from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_stack.science.lanczos import taps


def lanczos3(fraction: float) -> np.ndarray:
    """The taps as they are written in the literature."""
    x = fraction - np.arange(-2, 4)
    return np.sinc(x) * np.sinc(x / 3)


def definition(fraction: float) -> np.ndarray:
    """The taps closest to Lanczos-3's that reproduce 1, x, x², x³: a projection."""
    raw = lanczos3(fraction)
    powers = (fraction - np.arange(-2, 4.0)) ** np.arange(4)[:, None]
    return raw + powers.T @ np.linalg.solve(powers @ powers.T, np.eye(4)[0] - powers @ raw)


@settings(deadline=None)  # the first call compiles
@given(st.floats(0, 1))
def test_polynomials_follow_the_definition(fraction: float) -> None:
    found = np.array(taps(np.float32(fraction)), dtype=np.float64)
    np.testing.assert_allclose(found, definition(float(np.float32(fraction))), atol=4e-7)


@settings(deadline=None)  # the first call compiles
@given(st.floats(0, 1))
def test_cubic_polynomials_are_reproduced(fraction: float) -> None:
    weights = np.array(taps(np.float32(fraction)), dtype=np.float64)
    x = np.arange(-2, 4) - float(np.float32(fraction))
    for power in range(4):
        assert weights @ x**power == pytest.approx(float(power == 0), abs=1e-5)


@settings(deadline=None)  # the first call compiles
@given(st.floats(0, 1))
def test_they_stay_close_to_lanczos_3(fraction: float) -> None:
    assert np.abs(np.array(taps(np.float32(fraction))) - lanczos3(fraction)).max() < 0.012


def test_on_a_pixel_it_is_that_pixel() -> None:
    np.testing.assert_allclose(taps(np.float32(0)), [0, 0, 1, 0, 0, 0], atol=2e-7)
    np.testing.assert_allclose(taps(np.float32(1)), [0, 0, 0, 1, 0, 0], atol=2e-7)
