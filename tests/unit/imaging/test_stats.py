from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from spica_imaging import stats

numbers = st.floats(-1e6, 1e6, allow_subnormal=False)
samples = hnp.arrays(np.float64, st.integers(1, 60), elements=numbers)


def test_normal_distribution_gives_its_own_parameters() -> None:
    sample = np.random.default_rng(3).normal(10.0, 2.0, 40_000)
    centre, sigma = stats.median_sigma(sample)
    assert centre == pytest.approx(10.0, abs=0.05)
    assert sigma == pytest.approx(2.0, rel=0.02)
    assert stats.robust_sigma(sample) == sigma
    assert stats.mode(sample) == pytest.approx(10.0, abs=0.5)


def test_a_third_of_outliers_does_not_move_a_clipped_sample() -> None:
    random = np.random.default_rng(4)
    sample = np.concatenate([random.normal(5.0, 1.0, 2000), random.uniform(50.0, 500.0, 700)])
    clipped = stats.sigma_clip(sample)
    assert clipped.mean == pytest.approx(5.0, abs=0.1)
    assert clipped.sigma == pytest.approx(1.0, rel=0.05)
    assert not clipped.kept[2000:].any()
    assert clipped.n == np.count_nonzero(clipped.kept)


def test_mode_finds_the_narrow_peak_on_a_broad_distribution() -> None:
    random = np.random.default_rng(5)
    sample = np.concatenate([random.normal(2.0, 0.02, 150), random.uniform(1.0, 9.0, 600)])
    assert stats.mode(sample) == pytest.approx(2.0, abs=0.05)
    assert stats.median(sample) > 3.0


@pytest.mark.parametrize("empty", [[], [math.nan], [math.inf, math.nan]])
def test_nothing_gives_nan(empty: list[float]) -> None:
    assert math.isnan(stats.median(empty))
    assert math.isnan(stats.robust_sigma(empty))
    assert math.isnan(stats.mode(empty))
    assert math.isnan(stats.sigma_clip(empty).mean)
    assert math.isnan(stats.weighted_median(empty, [1.0] * len(empty)))


@given(samples)
def test_not_finite_values_change_nothing(sample: np.ndarray) -> None:
    spoiled = np.concatenate([[np.nan], sample, [np.inf, -np.inf]])
    assert stats.median_sigma(spoiled) == stats.median_sigma(sample)
    assert stats.mode(spoiled) == stats.mode(sample)


@given(samples)
def test_equal_weights_give_the_ordinary_median(sample: np.ndarray) -> None:
    found = stats.weighted_median(sample, np.full(sample.shape, 2.5))
    assert found == pytest.approx(float(np.median(sample)), rel=1e-9, abs=1e-6)


@given(samples)
def test_clipping_keeps_the_shape_and_at_least_something(sample: np.ndarray) -> None:
    clipped = stats.sigma_clip(sample)
    assert clipped.kept.shape == sample.shape
    assert clipped.n >= 1
    assert sample.min() <= clipped.median <= sample.max()


def naive_mode(sample: list[float]) -> float:
    """The half-sample mode, spelt out."""
    values = sorted(sample)
    while len(values) > 3:
        half = (len(values) + 1) // 2
        windows = [values[start : start + half] for start in range(len(values) - half + 1)]
        values = min(windows, key=lambda window: window[-1] - window[0])
    if len(values) == 3 and values[1] - values[0] != values[2] - values[1]:
        values = values[:2] if values[1] - values[0] < values[2] - values[1] else values[1:]
    return sum(values) / len(values)


@given(samples)
def test_mode_agrees_with_its_plain_twin(sample: np.ndarray) -> None:
    assert stats.mode(sample) == pytest.approx(naive_mode(list(sample)), rel=1e-9, abs=1e-9)
