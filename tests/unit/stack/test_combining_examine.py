from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_stack.science.combining import combine, examine, halo_px
from spica_stack.science.parameters import Clipping, Method

METHODS: tuple[Method, ...] = get_args(Method)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_it_agrees_with_what_was_combined(method: Method, data: st.DataObject) -> None:
    n, height, width = (data.draw(st.integers(1, top)) for top in (8, 14, 14))
    clipping = Clipping(radius_px=data.draw(st.integers(0, 3)), flux_share=0.05)
    halo = data.draw(st.integers(0, halo_px(method, clipping)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    shape = (n, height + 2 * halo, width + 2 * halo)
    value = rng.normal(0, 1, shape).astype(np.float32)
    value[rng.random(shape) < 0.1] += 6
    value[rng.random(shape) < 0.03] += 60
    weight = rng.uniform(-0.2, 1.5, shape).astype(np.float32)
    priority = rng.choice(np.array([0, 0.5, 1, 2], np.float32), n, p=[0.1, 0.3, 0.3, 0.3])
    share = rng.uniform(0, 0.2, n).astype(np.float32)
    tile = combine(
        value,
        weight,
        method,
        halo=halo,
        share=share,
        priority=priority,
        clipping=clipping,
        want_rejected=True,
    )
    assert tile.rejected is not None
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    seen = examine(
        value, weight, method, at=(x, y), halo=halo, share=share, priority=priority, clipping=clipping
    )
    assert (
        np.array([seen.value, seen.weight], np.float32).tobytes()
        == np.array([tile.value[y, x], tile.weight[y, x]]).tobytes()
    )
    assert seen.exposures == tile.exposures[y, x] == sum(sample.used for sample in seen.samples)
    here = (tile.rejected.x == x) & (tile.rejected.y == y)
    left_out = {sample.layer: sample for sample in seen.samples if sample.clipped}
    assert sorted(left_out) == tile.rejected.layer[here].tolist()
    for layer, n_sigma in zip(tile.rejected.layer[here], tile.rejected.n_sigma[here], strict=True):
        assert left_out[int(layer)].n_sigma == n_sigma
    assert [sample.layer for sample in seen.samples] == list(range(n))
    for sample in seen.samples:
        given_value, given_weight = (
            value[sample.layer, y + halo, x + halo],
            weight[sample.layer, y + halo, x + halo],
        )
        if sample.weight > 0:
            assert (sample.value, sample.weight) == (given_value, given_weight)
        else:
            assert not sample.used and np.isnan(sample.value) and np.isnan(sample.n_sigma)
        limit = clipping.n_sigma_grown if sample.beside_outlier else clipping.n_sigma
        if sample.clipped:
            assert abs(sample.n_sigma) > limit * (1 - 1e-6)
        elif sample.used and method in ("clipped_mean", "sigma_clip") and seen.exposures > 1:
            assert abs(sample.n_sigma) < clipping.n_sigma * (1 + 1e-6)


def test_what_is_told_of_a_cosmic_ray_and_of_its_neighbour() -> None:
    value = np.zeros((5, 9, 9), np.float32)
    value[2, 4, 4], value[2, 4, 5], value[3, 4, 6] = 100, 4, 4
    weight = np.ones_like(value)
    sigma = np.sqrt(1 + np.pi / 2 / 5)
    hit, beside, alone = (examine(value, weight, "clipped_mean", at=(x, 4)) for x in (4, 5, 6))
    assert hit.samples[2].n_sigma == pytest.approx(100 / sigma, rel=1e-6)
    assert (hit.samples[2].clipped, hit.samples[2].beside_outlier) == (True, False)
    assert (beside.samples[2].clipped, beside.samples[2].beside_outlier) == (True, True)
    # As far off as the neighbour, but no outlier near it in its exposure.
    assert (alone.samples[3].clipped, alone.samples[3].used) == (False, True)
    assert alone.samples[3].n_sigma == pytest.approx(4 / sigma, rel=1e-6)
    assert (hit.exposures, hit.value, hit.median) == (4, 0.0, 0.0)


def test_the_allowance_for_stars_is_told_apart_from_the_deviation() -> None:
    value = np.full((3, 9, 9), 1000, np.float32)
    value[1] += 200
    seen = examine(value, np.ones_like(value), "clipped_mean", at=(4, 4))
    sigma = np.sqrt(1 + np.pi / 2 / 3)
    assert (seen.local_flux, seen.median) == (1000.0, 1000.0)
    assert seen.samples[1].off_sigma == pytest.approx(200 / sigma, rel=1e-6)
    assert (seen.samples[1].n_sigma, seen.samples[1].clipped) == (0.0, False)


@pytest.mark.parametrize("method", METHODS)
def test_where_nothing_is_there_is_nothing_to_tell(method: Method) -> None:
    none = np.zeros((0, 9, 9), np.float32)
    seen = examine(none, none, method, at=(1, 1), halo=3)
    assert (seen.weight, seen.exposures, seen.local_flux, seen.samples) == (0.0, 0, 0.0, ())
    assert np.isnan([seen.value, seen.median]).all()


@pytest.mark.parametrize("at", [(-1, 0), (0, -1), (5, 0), (0, 4)])
def test_a_place_outside_is_an_error(at: tuple[int, int]) -> None:
    value = np.zeros((2, 8, 9), np.float32)
    with pytest.raises(IndexError):
        examine(value, value, "median", at=at, halo=2)
