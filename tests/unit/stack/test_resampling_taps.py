from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from spica_stack.science.resampling.simd import LANES, load, merge, spread
from spica_stack.science.resampling.taps import OUTERMOST, REPRODUCED, definition, fitted, lanczos, taps

Floats = NDArray[np.float64]


def _table(n_taps: int) -> object:
    """A kernel that writes the taps of eight fractions: it can be looked at from here."""
    kind = (0,) * n_taps

    @numba.njit
    def table(fractions: Floats, out: Floats, weights: Floats) -> None:
        found = taps(kind, load(fractions, 0))
        for k in numba.literal_unroll(found):
            merge(out, weights, 0, LANES, k, spread(np.float32(1)))
            out = out[LANES:]
            weights = weights[LANES:]

    return table


TABLES = {n: _table(n) for n in (2, 4, 6, 8)}


def found(n_taps: int, fraction: float) -> Floats:
    fractions = np.full(LANES, fraction, np.float32)
    out, weights = np.zeros(LANES * n_taps, np.float32), np.zeros(LANES * n_taps, np.float32)
    TABLES[n_taps](fractions, out, weights)  # type: ignore[operator]
    lanes = out.reshape(n_taps, LANES)
    np.testing.assert_array_equal(lanes, lanes[:, :1].repeat(LANES, 1))
    return lanes[:, 0].astype(np.float64)


lanczos_sizes = st.sampled_from([2, 3, 4])
fractions = st.floats(0, 1, width=32)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_coefficients_are_those_that_the_fit_finds(n: int) -> None:
    for kept, derived in zip(OUTERMOST[n], fitted(n), strict=True):
        np.testing.assert_allclose(kept, derived, rtol=2e-8, atol=1e-12)


@settings(deadline=None)  # the first call compiles
@given(lanczos_sizes, fractions)
def test_polynomials_follow_the_definition(n: int, fraction: float) -> None:
    np.testing.assert_allclose(found(2 * n, fraction), definition(n, fraction), atol=1.3e-6)


@settings(deadline=None)
@given(lanczos_sizes, fractions)
def test_polynomials_up_to_their_degree_are_reproduced(n: int, fraction: float) -> None:
    weights, x = found(2 * n, fraction), np.arange(1 - n, n + 1) - fraction
    for power in range(REPRODUCED[n] + 1):
        # Rounding of the taps to float32, times the largest term.
        assert weights @ x**power == pytest.approx(float(power == 0), abs=4e-7 * n**power)


@settings(deadline=None)
@given(lanczos_sizes, fractions)
def test_they_stay_close_to_lanczos(n: int, fraction: float) -> None:
    limit = {2: 0.058, 3: 0.009, 4: 0.013}[n]
    assert np.abs(found(2 * n, fraction) - lanczos(n, fraction)).max() < limit


@pytest.mark.parametrize("n_taps", [2, 4, 6, 8])
def test_on_a_pixel_it_is_that_pixel(n_taps: int) -> None:
    for end in (0, 1):
        expected = np.zeros(n_taps)
        expected[n_taps // 2 - 1 + end] = 1
        np.testing.assert_allclose(found(n_taps, float(end)), expected, atol=1.3e-6)


def test_bilinear_taps_are_the_shares() -> None:
    np.testing.assert_allclose(found(2, 0.25), [0.75, 0.25])
