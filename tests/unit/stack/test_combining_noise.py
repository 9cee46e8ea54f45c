"""What the weights say of the noise, against realisations."""

from __future__ import annotations

import numpy as np
import pytest
from spica_stack.science.combining import combine, seeing_priorities, seeing_shares
from spica_stack.science.parameters import Method

from tests.unit.stack.sky import grid_of, render, scattered_stars

AVERAGING: tuple[Method, ...] = (
    "weighted_mean",
    "average",
    "sum",
    "median",
    "weighted_median",
    "clipped_mean",
    "sigma_clip",
)
REALISATIONS, SIDE = 400, 16


@pytest.mark.parametrize("method", AVERAGING)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 11, 20, 50])
def test_the_scatter_of_realisations_is_what_the_weight_says(method: Method, n: int) -> None:
    """Exposures up to twice as noisy as others, weights that change over the image, gaps: σ right to 2 %."""
    rng = np.random.default_rng(1000 + n)
    sigma = rng.uniform(1, 2, (n, 1, 1)) * rng.uniform(0.9, 1.1, (n, SIDE, SIDE))
    weight = (1 / sigma**2).astype(np.float32)
    weight[1:][rng.random((n - 1, SIDE, SIDE)) < 0.05] = 0
    priority = rng.uniform(0.7, 1.4, n).astype(np.float32)
    # Realisations lie one above the other; nothing of one depends on another where there is no signal.
    weights = np.tile(weight, (1, REALISATIONS, 1))
    noise = rng.standard_normal((n, REALISATIONS, SIDE, SIDE), np.float32) * sigma[:, None].astype(np.float32)
    combined = combine(noise.reshape(n, -1, SIDE), weights, method, priority=priority)
    value = combined.value.reshape(REALISATIONS, SIDE, SIDE).astype(np.float64)
    predicted = combined.weight.reshape(REALISATIONS, SIDE, SIDE)
    pull = value * np.sqrt(predicted)
    assert np.std(pull) == pytest.approx(1, abs=0.02)
    # An even number's lower median would be biased; no method may be, in σ of one sample.
    assert abs(np.mean(pull)) < 5 / np.sqrt(pull.size)
    if method in ("clipped_mean", "sigma_clip"):
        assert combined.n_rejected < 3e-4 * noise.size + 3


@pytest.mark.parametrize("n", [1, 2, 3, 10, 30])
def test_chi_is_centred_and_of_unit_variance_on_blank_sky(n: int) -> None:
    rng = np.random.default_rng(n)
    sigma = rng.uniform(1, 4, (n, 1, 1)).astype(np.float32)
    value = rng.standard_normal((n, 300, 300), np.float32) * sigma
    weight = np.broadcast_to(1 / sigma**2, value.shape)
    combined = combine(value, weight, "chi2")
    assert np.std(combined.value) == pytest.approx(1, abs=0.015)
    assert abs(np.mean(combined.value)) < 0.015
    assert (combined.weight == 1).all()


def test_an_extreme_has_the_weight_of_the_exposure_it_comes_from() -> None:
    rng = np.random.default_rng(4)
    value = rng.normal(size=(4, 30, 30)).astype(np.float32)
    weight = np.broadcast_to(np.array([1, 2, 3, 4], np.float32)[:, None, None], value.shape)
    for method, pick in (("minimum", np.argmin), ("maximum", np.argmax)):
        combined = combine(value, weight, method)
        np.testing.assert_array_equal(combined.weight, pick(value, axis=0) + 1)


def test_depth_grows_with_the_number_of_exposures() -> None:
    rng = np.random.default_rng(6)
    for method in AVERAGING:
        scatter = {}
        for n in (5, 10, 20, 40):
            value = rng.standard_normal((n, 120, 120), np.float32)
            combined = combine(value, np.ones_like(value), method)
            scatter[n] = float(np.std(combined.value)) / (n if method == "sum" else 1)
        for n in (10, 20, 40):
            assert scatter[5] / scatter[n] == pytest.approx(np.sqrt(n / 5), rel=0.1)


def test_the_allowance_grows_with_the_distance_from_the_median_seeing() -> None:
    shares = seeing_shares(np.array([0.7, 1.0, 1.0, np.nan, 1.3]), 0.3)
    np.testing.assert_allclose(shares, [0.3 + 1 / 0.49 - 1, 0.3, 0.3, 0.3, 0.3 + 1 - 1 / 1.69], rtol=1e-5)
    np.testing.assert_allclose(seeing_shares(np.array([np.nan, np.nan]), 0.2), 0.2)
    np.testing.assert_allclose(seeing_shares(np.array([0.8, 1.0]), 0.0), [1 / 0.64 - 1, 1 - 0.64], rtol=1e-5)


def test_sharp_and_round_exposures_count_more() -> None:
    fwhm = np.array([0.8, 1.0, 1.0, 1.0, np.nan])
    ellipticity = np.array([0.0, 0.0, 0.0, 0.5, 0.0])
    np.testing.assert_allclose(seeing_priorities(fwhm, ellipticity, 1.0), [1 / 0.64, 1, 1, 0.5, 1], rtol=1e-6)
    np.testing.assert_allclose(seeing_priorities(fwhm, ellipticity, 2.0)[3], 0.25, rtol=1e-6)
    np.testing.assert_array_equal(seeing_priorities(fwhm, ellipticity, 0.0), 1)
    np.testing.assert_array_equal(seeing_priorities(np.array([np.nan]), np.array([np.nan]), 1.0), 1)


@pytest.mark.parametrize("method", ["weighted_mean", "weighted_median", "clipped_mean"])
def test_priorities_make_point_sources_deeper(method: Method) -> None:
    """Signal-to-noise of a star in its best filter: better with power 1 than by the noise alone."""
    grid = grid_of(60)
    stars = scattered_stars(np.random.default_rng(0), 1, 4, flux=(1e4, 1e4))
    fwhm = np.array([3.0, 3.3, 4.0, 5.5, 7.0])
    value = np.array([render((60, 60), grid, stars, f) for f in fwhm]).astype(np.float32)
    weight = np.ones_like(value)
    share = seeing_shares(fwhm, 0.3)

    def depth(power: float) -> float:
        priority = seeing_priorities(fwhm, np.zeros(5), power)
        combined = combine(value, weight, method, priority=priority, share=share)
        return float(np.sqrt((combined.value.astype(np.float64) ** 2 * combined.weight).sum()))

    assert depth(1.0) > (1.02 if method == "weighted_median" else 1.03) * depth(0.0)
    # Half way to what is only sharper: with seeing as unlike as this, about as deep as by the noise alone.
    assert depth(1.5) > 0.99 * depth(0.0)
