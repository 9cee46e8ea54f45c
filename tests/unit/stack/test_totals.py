from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from spica_stack.science.combining import combine
from spica_stack.science.parameters import Method
from spica_stack.science.totals import MemberNumbers, deepest_overlap, totals

METHODS: tuple[Method, ...] = get_args(Method)
ONE = MemberNumbers(100.0, 0.01, 1.6, 5.0, 200.0, 60000.0, 53000.0)
UNLIKE = [
    MemberNumbers(30, 0.05, 1.5, 4.0, 100, 6e4, 53000.0),
    MemberNumbers(300, 0.005, 2.0, 9.0, 300, 6e4, 53002.0, priority=0.4),
    MemberNumbers(100, 0.02, 1.0, 6.0, 200, 4e4, None, priority=1.5),
    MemberNumbers(100, 0.02, 1.2, 5.0, 200, 6e4, 53004.0),
]


def photons(
    rng: np.random.Generator, members: list[MemberNumbers], flux: float, n: int
) -> NDArray[np.float32]:
    """A source seen by each exposure n times, in the stack's unit, with the noise of its own photons alone."""
    seen = [
        rng.poisson(flux / m.flux_scale * m.gain_e_per_adu, n) / m.gain_e_per_adu * m.flux_scale
        for m in members
    ]
    return np.array(seen, np.float32)[:, None]


@pytest.mark.parametrize("method", ["weighted_mean", "clipped_mean", "sigma_clip", "average", "sum"])
@pytest.mark.parametrize(
    "members", [[ONE], [ONE] * 2, UNLIKE, [*UNLIKE, *UNLIKE, UNLIKE[0]]], ids=["1", "2", "4", "9"]
)
def test_photon_noise_is_flux_over_gain(method: Method, members: list[MemberNumbers]) -> None:
    """Combined with weights by the sky's noise, as pixels are, the photons scatter as the gain says."""
    rng = np.random.default_rng(len(members))
    value = photons(rng, members, 400.0, 60000)
    sky = np.array([m.flux_scale * m.noise_adu for m in members], np.float32)
    weight = np.broadcast_to((1 / sky**2)[:, None, None], value.shape).astype(np.float32)
    priority = np.array([m.priority for m in members], np.float32)
    # Photons scatter more than the sky that outliers are told by; nothing is to be clipped here.
    name: Method = "weighted_mean" if method in ("clipped_mean", "sigma_clip") else method
    out = combine(value, weight, name, priority=priority).value
    gain = totals(members, method).gain
    assert np.var(out, dtype=np.float64) == pytest.approx(float(np.mean(out)) / gain, rel=0.04)


@pytest.mark.parametrize("method", ["median", "weighted_median"])
def test_gain_of_a_median_of_many(method: Method) -> None:
    rng = np.random.default_rng(9)
    members = [replace(ONE, flux_scale=0.01 + 0.0002 * k, priority=0.8 + 0.01 * k) for k in range(61)]
    value = photons(rng, members, 400.0, 20000)
    sky = np.array([m.flux_scale * m.noise_adu for m in members], np.float32)
    weight = np.broadcast_to((1 / sky**2)[:, None, None], value.shape).astype(np.float32)
    out = combine(value, weight, method, priority=np.array([m.priority for m in members], np.float32)).value
    assert np.var(out, dtype=np.float64) == pytest.approx(400.0 / totals(members, method).gain, rel=0.05)
    assert totals([ONE] * 2, method).gain == pytest.approx(totals([ONE] * 2, "average").gain)


@pytest.mark.parametrize("n", [3, 4, 7, 10])
def test_gain_of_a_median_of_few(n: int) -> None:
    """Of few exposures a median throws less away than of many."""
    out = combine(
        photons(np.random.default_rng(n), [ONE] * n, 4000.0, 100_000),
        np.ones((n, 1, 100_000), np.float32),
        "median",
    ).value
    assert np.var(out, dtype=np.float64) == pytest.approx(4000.0 / totals([ONE] * n, "median").gain, rel=0.02)


def test_gain_of_one_exposure_is_its_own_by_every_method() -> None:
    for method in METHODS:
        gain = totals([ONE], method).gain
        assert gain == (0.0 if method == "chi2" else pytest.approx(160.0))


def test_extremes_and_sums_have_the_gain_of_one() -> None:
    for method in ("minimum", "maximum", "sum"):
        assert totals([ONE] * 10, method).gain == pytest.approx(160.0)


def test_saturation_is_the_lowest_and_of_a_sum_as_many_times_that() -> None:
    levels = [(m.saturation_adu - m.background_adu) * m.flux_scale for m in UNLIKE]
    for method in METHODS:
        found, factor = totals(UNLIKE, method), 4 if method == "sum" else 1
        assert found.saturation == pytest.approx(factor * min(levels))
        assert found.highest_saturation == pytest.approx(factor * max(levels))


def test_a_pixel_of_the_stack_has_the_flux_of_its_area() -> None:
    """Two cameras that give the same sky noise per area: pixels of one are four times as large as the other's."""
    fine = replace(ONE, pixel_area=4.0)
    coarse = replace(ONE, noise_adu=10.0, background_adu=800.0)
    assert totals([fine], "average").saturation == pytest.approx(4 * totals([ONE], "average").saturation)
    both = totals([fine, coarse], "weighted_mean")
    assert both.saturation == pytest.approx((60000 - 800) * 0.01)
    assert both.highest_saturation == pytest.approx((60000 - 200) * 0.01 * 4)
    # Of equal noise they count alike: the mean loses nothing, and has the gain of two.
    assert totals([fine, coarse], "average").effective_exposure_s == pytest.approx(200.0)
    assert both.gain == pytest.approx(320.0)


@pytest.mark.parametrize("method", METHODS)
def test_effective_exposure_is_what_the_weights_say(method: Method) -> None:
    """Beside the best that can be made of the same exposures."""
    found = totals(UNLIKE, method)
    assert found.exposure_time_s == 530
    sky = np.array([m.flux_scale * m.noise_adu for m in UNLIKE], np.float32)
    weight = (1 / sky**2)[:, None, None]
    priority = np.array([m.priority for m in UNLIKE], np.float32)
    if method in ("chi2", "minimum", "maximum"):
        share = 1.0 if method == "chi2" else 0.25
    else:
        # The lowest noise for a sum is its signal-to-noise's: that of the average.
        name: Method = "average" if method == "sum" else method
        out = combine(np.zeros((4, 1, 1), np.float32), weight, name, priority=priority)
        share = float(out.weight[0, 0]) / float(weight.sum())
    assert found.effective_exposure_s == pytest.approx(530 * share, rel=1e-5)


def test_left_out_members_count_nowhere() -> None:
    noisy = replace(ONE, priority=0.0, saturation_adu=300.0, mjd_obs=60000.0)
    for method in METHODS:
        assert totals([ONE, noisy, ONE], method) == totals([ONE, ONE], method)
    with pytest.raises(ValueError, match="members"):
        totals([noisy], "average")


def test_what_is_not_known_is_taken_for_typical() -> None:
    for method in METHODS:
        known = totals([ONE] * 3, method)
        assert totals([ONE, replace(ONE, gain_e_per_adu=0.0), ONE], method).gain == pytest.approx(known.gain)
        assert totals([ONE, ONE, replace(ONE, noise_adu=np.nan)], method).gain == pytest.approx(known.gain)
        assert totals([replace(ONE, gain_e_per_adu=np.nan)], method).gain == 0
    assert totals([replace(ONE, mjd_obs=None)], "average").mjd_obs is None
    assert totals(UNLIKE, "average").mjd_obs == pytest.approx(53002.0)


def test_only_what_lies_together_adds_up() -> None:
    """A mosaic of two fields of three exposures is as deep as three."""
    boxes = [(0, 10, 0, 10), (1, 11, 2, 12), (2, 12, 0, 10), (12, 22, 0, 10), (13, 23, 1, 11), (11, 20, 0, 9)]
    together = deepest_overlap(boxes)
    assert together == (0, 1, 2)
    found = totals([ONE] * 6, "weighted_mean", together)
    assert (found.exposure_time_s, found.gain) == (300.0, pytest.approx(480.0))


boxes = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 8), st.integers(0, 12), st.integers(1, 8)).map(
        lambda b: (b[0], b[0] + b[1], b[2], b[2] + b[3])
    ),
    max_size=12,
)


@settings(deadline=None)
@given(boxes)
def test_the_deepest_place_is_the_deepest(given_boxes: list[tuple[int, int, int, int]]) -> None:
    depth = np.zeros((24, 24), int)
    for x0, x1, y0, y1 in given_boxes:
        depth[y0:y1, x0:x1] += 1
    together = deepest_overlap(given_boxes)
    assert len(together) == depth.max()
    if together:
        x0, x1, y0, y1 = np.array([given_boxes[i] for i in together]).T
        assert x0.max() < x1.min() and y0.max() < y1.min()


def test_thousands_of_boxes() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 20000, 6000), rng.integers(0, 20000, 6000)
    many = [(int(a), int(a) + 2000, int(b), int(b) + 4600) for a, b in zip(x, y, strict=True)]
    assert len(deepest_overlap(many)) > 150
