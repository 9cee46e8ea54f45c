from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from spica_stack.science.lanczos import taps


def definition(fraction: float) -> np.ndarray:
    """Lanczos-3 as it is written in the literature, divided by its sum."""
    x = fraction - np.arange(-2, 4)
    weights = np.sinc(x) * np.sinc(x / 3)
    return weights / weights.sum()


@given(st.floats(0, 1))
def test_polynomials_follow_the_definition(fraction: float) -> None:
    found = np.array(taps(np.float32(fraction)), dtype=np.float64)
    np.testing.assert_allclose(found, definition(float(np.float32(fraction))), atol=4e-7)


@given(st.floats(0, 1))
def test_a_constant_stays_a_constant(fraction: float) -> None:
    assert abs(sum(float(tap) for tap in taps(np.float32(fraction))) - 1) < 5e-7


def test_on_a_pixel_it_is_that_pixel() -> None:
    np.testing.assert_allclose(taps(np.float32(0)), [0, 0, 1, 0, 0, 0], atol=2e-7)
    np.testing.assert_allclose(taps(np.float32(1)), [0, 0, 0, 1, 0, 0], atol=2e-7)
