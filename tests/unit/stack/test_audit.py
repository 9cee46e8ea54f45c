"""Shares of samples in what a pixel became."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from spica_stack.science.audit import Outcome, Seen, contribution, shares_of
from spica_stack.science.combining import examine
from spica_stack.science.parameters import Method

VALUES = hnp.arrays(np.float32, (5, 1, 1), elements=st.floats(-100, 100, width=32))
WEIGHTS = hnp.arrays(np.float32, (5, 1, 1), elements=st.sampled_from([0.0, 0.25, 1.0, 4.0]))


@pytest.mark.parametrize("method", ["weighted_mean", "sigma_clip", "average", "sum", "minimum", "maximum"])
@settings(deadline=None)  # kernels may have to be compiled first
@given(value=VALUES, weight=WEIGHTS)
def test_shares_are_of_what_was_used_and_give_the_outcome(
    method: Method, value: np.ndarray, weight: np.ndarray
) -> None:
    found = examine(value, weight, method, at=(0, 0))
    shares = shares_of(found, method)
    assert all(share is not None and share >= 0 for share in shares)
    assert all(share == 0 for share, sample in zip(shares, found.samples, strict=True) if not sample.used)
    total = sum(share or 0.0 for share in shares)
    if not any(sample.used for sample in found.samples):
        assert total == 0
        return
    assert total == pytest.approx(1.0)
    mean = sum(
        (share or 0.0) * sample.value for share, sample in zip(shares, found.samples, strict=True) if share
    )
    factor = sum(sample.used for sample in found.samples) if method == "sum" else 1
    assert factor * mean == pytest.approx(found.value, rel=1e-4, abs=1e-3)


def test_the_share_of_a_median_cannot_be_told() -> None:
    value, weight = np.array([[[1]], [[2]], [[3]]], np.float32), np.array([[[1]], [[1]], [[0]]], np.float32)
    methods: tuple[Method, ...] = ("median", "weighted_median", "chi2")
    for method in methods:
        found = examine(value, weight, method, at=(0, 0))
        assert shares_of(found, method) == (None, None, 0.0)


def test_what_has_no_sample_has_no_value() -> None:
    value, weight = np.array([[[1]], [[2]]], np.float32), np.array([[[4]], [[0]]], np.float32)
    found = examine(value, weight, "weighted_mean", at=(0, 0))
    first, second = (
        contribution("a", "700p", [Seen("ccd00", 1.5, 2.5)], sample, share)
        for sample, share in zip(found.samples, shares_of(found, "weighted_mean"), strict=True)
    )
    assert (first.value, first.sigma, first.share) == (1.0, 0.5, 1.0)
    assert (second.value, second.sigma, second.share, second.n_sigma) == (None, None, 0.0, None)
    assert second.ccds == (Seen("ccd00", 1.5, 2.5),)


def test_the_same_is_the_same_to_the_last_bit() -> None:
    one = float(np.float32(0.1))
    assert Outcome(one, 1.0).same(Outcome(one, 1.0))
    assert Outcome(0.1, 1.0).same(Outcome(one, 1.0)), "files hold float32"
    assert not Outcome(float(np.nextafter(np.float32(0.1), np.float32(1))), 1.0).same(Outcome(one, 1.0))
    assert not Outcome(one, 1.0).same(Outcome(one, 2.0))
    assert Outcome(float("nan"), 0.0).same(Outcome(float(-np.float32("nan")), 0.0))
    assert not Outcome(0.0, 0.0).same(Outcome(-0.0, 0.0))
