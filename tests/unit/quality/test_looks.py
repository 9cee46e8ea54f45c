"""Counting flags, and the pieces of looking at bright stars, against their slow twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage
from spica_quality.science.flags import Bit
from spica_quality.science.masking.marking import saturation_level
from spica_quality.science.masking.tally import tally
from spica_quality.science.metrics.completeness import _log_likelihood
from spica_quality.science.psf.starshapes import _filled, _ring_quartiles

_FLAGS = arrays(
    np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from((0, 0, 0, 1, 4, 5, 512, 65535))
)  # fmt: skip


@settings(deadline=None)
@given(_FLAGS)
def test_flags_are_counted_bit_by_bit(flags: NDArray[np.uint16]) -> None:
    found = tally(flags)
    assert found.n_pixels == flags.size
    assert found.n_clean == np.count_nonzero(flags == 0)
    assert found.by_bit == tuple(np.count_nonzero(flags & (1 << bit)) for bit in range(16))
    assert found.of(Bit.CCD_OUT) == np.count_nonzero(flags & 512)


@settings(deadline=None)
@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_holes_are_filled(mask: NDArray[np.bool_]) -> None:
    assert np.array_equal(_filled(mask), ndimage.binary_fill_holes(mask))


@settings(deadline=None)
@given(
    arrays(np.float32, (9, 11), elements=st.floats(-100.0, 1000.0, width=32)),
    st.floats(3.0, 7.0), st.floats(3.0, 5.0), st.floats(1.0, 2.0),
)  # fmt: skip
def test_rings_have_the_quartiles_of_their_pixels(
    stamp: NDArray[np.float32], x: float, y: float, width: float
) -> None:
    j, i = np.indices(stamp.shape)
    rings = (np.sqrt((i - x) ** 2 + (j - y) ** 2) / width).astype(int)
    expected = [np.percentile(stamp[rings == ring].astype(np.float64), 25) for ring in range(3)]
    assert np.allclose(_ring_quartiles(stamp, x, y, width, 3), expected, rtol=1e-12, atol=1e-12)


def test_the_likelihood_is_that_of_the_curve() -> None:
    random = np.random.default_rng(3)
    m, found = random.uniform(-2.0, 2.0, 200), (random.random(200) < 0.5).astype(np.float64)
    for lapse, a, b in ((0.0, 0.3, 5.0), (0.1, -1.0, 1e4)):
        p = (1.0 - lapse) / (1.0 + np.exp(-np.clip(a - b * m, -30.0, 30.0)))
        p = np.clip(p, 1e-9, 1.0 - 1e-9)
        expected = np.sum(found * np.log(p) + (1.0 - found) * np.log1p(-p))
        assert _log_likelihood(m, found, lapse, a, b) == pytest.approx(expected, rel=1e-12)


def test_the_pile_up_is_the_highest_value_and_neither_nan_nor_infinity_hides_it() -> None:
    data = np.random.default_rng(5).normal(1000.0, 10.0, (60, 70)).astype(np.float32)
    data[3, :12] = 32_700.0
    data[50, 5:9] = np.nan, np.inf, -np.inf, 20_000.0
    assert saturation_level(data, 65_535.0) == 32_700.0
    data[59, 69] = 40_000.0  # one pixel is no pile-up
    assert saturation_level(data, 65_535.0) == 65_535.0
