from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_quality.science.binning import bin_frame
from spica_quality.science.flags import UNUSABLE, Bit

SIDES = st.integers(1, 40)


def drawn(ny: int, nx: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    data = random.normal(0, 1, (ny, nx)).astype(np.float32)
    flags = random.choice([0, 0, 0, Bit.SATURATED, Bit.COSMIC, Bit.TRAIL], (ny, nx)).astype(np.uint16)
    data[random.random((ny, nx)) < 0.1] = np.nan
    data[random.random((ny, nx)) < 0.1] = np.inf
    return data, flags


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_blocks_are_means_of_what_has_a_value(ny: int, nx: int, factor: int, seed: int) -> None:
    data, flags = drawn(ny, nx, seed)
    found = bin_frame(data, flags, factor)
    assert found.mean.shape == (-(-ny // factor), -(-nx // factor))
    for j in range(found.mean.shape[0]):
        for i in range(found.mean.shape[1]):
            block = np.s_[j * factor : (j + 1) * factor, i * factor : (i + 1) * factor]
            valued = np.isfinite(data[block]) & ((flags[block] & UNUSABLE) == 0)
            assert found.n_valued[j, i] == valued.sum()
            assert found.n_clean[j, i] == (flags[block] == 0).sum()
            assert found.n_pixels[j, i] == flags[block].size
            assert found.reasons[j, i] == np.bitwise_or.reduce(flags[block], axis=None)
            if valued.any():
                assert found.mean[j, i] == pytest.approx(data[block][valued].mean(), abs=1e-5)
            else:
                assert np.isnan(found.mean[j, i])


@settings(max_examples=25, deadline=None)
@given(SIDES, SIDES, st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_binning_twice_is_binning_once(ny: int, nx: int, first: int, second: int, seed: int) -> None:
    data, flags = drawn(ny, nx, seed)
    twice, once = bin_frame(data, flags, first).coarser(second), bin_frame(data, flags, first * second)
    assert twice.factor == once.factor
    np.testing.assert_allclose(twice.mean, once.mean, atol=1e-5)
    for name in ("n_valued", "n_clean", "n_pixels", "reasons"):
        np.testing.assert_array_equal(getattr(twice, name), getattr(once, name))
