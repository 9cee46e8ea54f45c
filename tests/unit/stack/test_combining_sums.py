from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from spica_stack.science.combining import (
    Combined,
    MarginalGain,
    Sums,
    accumulate,
    combine,
    finish,
    marginal_gain,
)


def some(seed: int, n: int, height: int, width: int) -> tuple[NDArray, NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    value = (rng.normal(0, 1, (n, height, width)) * 10 ** rng.uniform(-3, 5, (height, width))).astype(
        np.float32
    )
    weight = rng.uniform(-0.3, 1, value.shape).astype(np.float32)
    value[rng.random(value.shape) < 0.02] = np.nan
    priority = rng.choice(np.array([0, 0.3, 1, 2.7], np.float32), n, p=[0.1, 0.3, 0.3, 0.3])
    return value, weight, priority


def bits(combined: Combined) -> tuple[bytes, bytes, bytes]:
    return combined.value.tobytes(), combined.weight.tobytes(), combined.exposures.tobytes()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 5), st.integers(1, 70), st.data())
def test_adding_later_is_adding_at_once(
    seed: int, n: int, height: int, width: int, data: st.DataObject
) -> None:
    """To the bit: one by one, in two parts, or all together."""
    value, weight, priority = some(seed, n, height, width)
    at_once = bits(combine(value, weight, "weighted_mean", priority=priority))
    one_by_one = Sums.empty((height, width))
    for layer in range(n):
        accumulate(one_by_one, value[layer], weight[layer], priority[layer])
    cut = data.draw(st.integers(0, n))
    two_parts = Sums.empty((height, width))
    accumulate(two_parts, value[:cut], weight[:cut], priority[:cut])
    kept = Sums(*(getattr(two_parts, name).copy() for name in ("total", "share", "square", "exposures")))
    accumulate(kept, value[cut:], weight[cut:], priority[cut:])
    assert bits(finish(one_by_one)) == at_once
    assert bits(finish(kept)) == at_once
    # A stack that another went on from is what it was.
    assert bits(finish(two_parts)) == bits(
        combine(value[:cut], weight[:cut], "weighted_mean", priority=priority[:cut])
    )


def test_single_precision_is_enough() -> None:
    """500 exposures: a bright star is right to 1e-6 of its flux, blank sky to 1e-4 of its noise."""
    rng = np.random.default_rng(0)
    value = (1e4 + rng.standard_normal((500, 20, 50))).astype(np.float32)
    weight = rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
    exact = (value.astype(np.float64) * weight).sum(0) / weight.astype(np.float64).sum(0)
    off = combine(value, weight, "weighted_mean").value - exact
    assert np.std(off) / 1e4 < 1e-6
    faint = (value - np.float32(1e4)).astype(np.float32)
    exact = (faint.astype(np.float64) * weight).sum(0) / weight.astype(np.float64).sum(0)
    assert np.std(combine(faint, weight, "weighted_mean").value - exact) < 1e-4 / np.sqrt(500)


def test_gain_of_equal_exposures() -> None:
    """The fifth exposure of five adds 1.25 log10(5/4) mag; where it alone reaches, coverage."""
    value, weight = np.zeros((5, 40, 100), np.float32), np.ones((5, 40, 100), np.float32)
    weight[:4, :, 80:] = 0
    weight[4, :, :20] = 0
    before, after = (combine(value[:n], weight[:n], "weighted_mean") for n in (4, 5))
    gain = marginal_gain(before, after)
    assert gain.depth_mag == pytest.approx(1.25 * np.log10(5 / 4), abs=1e-4)
    assert gain.newly_covered == pytest.approx(0.2)
    assert (gain.n_new, gain.n_covered) == (800, 4000)


def test_gains_of_tiles_add_up() -> None:
    value, weight, priority = some(3, 6, 60, 80)
    before, after = (combine(value[:n], weight[:n], "weighted_mean", priority=priority[:n]) for n in (5, 6))
    whole = marginal_gain(before, after)

    def rows(part: Combined, box: slice) -> Combined:
        return Combined(part.value[box], part.weight[box], part.exposures[box])

    tiles = [marginal_gain(rows(before, box), rows(after, box)) for box in (slice(0, 13), slice(13, 60))]
    total: MarginalGain = tiles[0] + tiles[1]
    assert total.depth_mag == whole.depth_mag
    assert total.newly_covered == whole.newly_covered
    overlap = (before.weight > 0) & (after.exposures != before.exposures)
    exact = np.median(1.25 * np.log10(after.weight[overlap] / before.weight[overlap]))
    assert whole.depth_mag == pytest.approx(exact, abs=1e-3)


def test_gain_of_nothing_and_of_the_first() -> None:
    value, weight = np.zeros((2, 4, 5), np.float32), np.ones((2, 4, 5), np.float32)
    nothing, first = finish(Sums.empty((4, 5))), combine(value[:1], weight[:1], "weighted_mean")
    gain = marginal_gain(nothing, first)
    assert gain.depth_mag is None
    assert gain.newly_covered == 1
    none = marginal_gain(first, first)
    assert (none.depth_mag, none.newly_covered) == (None, 0)
    assert marginal_gain(nothing, nothing).newly_covered == 0


def test_a_heavier_but_noisier_exposure_costs_depth() -> None:
    """What was given more weight than its noise is worth makes the stack worse, and the gain says so."""
    value, weight = np.zeros((2, 4, 5), np.float32), np.ones((2, 4, 5), np.float32)
    weight[1] = 0.01
    priority = np.array([1, 100], np.float32)
    before = combine(value[:1], weight[:1], "weighted_mean")
    after = combine(value, weight, "weighted_mean", priority=priority)
    expected = 1.25 * np.log10(2**2 / (1 + 100))
    assert marginal_gain(before, after).depth_mag == pytest.approx(expected, abs=2e-4)
