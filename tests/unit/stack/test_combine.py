from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from spica_stack.science.combine import (
    Clipping,
    Method,
    combine,
    median_efficiency,
    seeing_priorities,
    seeing_shares,
)

from tests.unit.stack.sky import grid_of, render, scattered_stars

Floats = NDArray[np.float64]


def slow_twin(  # noqa: PLR0912 (plain loops are the point)
    value: NDArray, weight: NDArray, method: Method, share: NDArray, priority: NDArray, clipping: Clipping
) -> tuple[Floats, Floats, NDArray, int]:
    """Pixel by pixel, in plain loops and double precision."""
    n, height, width = value.shape
    out, out_weight = np.full((height, width), np.nan), np.zeros((height, width))
    count, rejected = np.zeros((height, width), int), 0
    middle, total = np.full((height, width), np.nan), np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            samples = sorted(float(value[i, y, x]) for i in range(n) if weight[i, y, x] > 0)
            total[y, x] = sum(float(weight[i, y, x]) for i in range(n) if weight[i, y, x] > 0)
            if samples:
                middle[y, x] = samples[(len(samples) - 1) // 2]
            if method == "median" and samples:
                out[y, x] = np.median(samples)
                count[y, x] = len(samples)
    if method == "median":
        return out, total * median_efficiency(count.astype(np.int16)), count, 0
    mark = np.zeros(value.shape, int)
    radius = clipping.radius_px
    for i, y, x in np.ndindex(n, height, width):
        w = float(weight[i, y, x])
        if method != "clipped_mean" or not w > 0 or w >= np.float32(total[y, x]):
            continue
        box = middle[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1]
        brightest = max([0.0, *box[np.isfinite(box)]])
        off = abs(float(value[i, y, x]) - middle[y, x]) - float(share[i]) * brightest
        sigma = np.sqrt(1 / w + np.pi / 2 / total[y, x])
        mark[i, y, x] = 2 if off > clipping.n_sigma * sigma else int(off > clipping.n_sigma_grown * sigma)
    for y in range(height):
        for x in range(width):
            sum_w = sum_wv = sum_ww = 0.0
            for i in range(n):
                w = float(weight[i, y, x])
                if not w > 0:
                    continue
                around = mark[i, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                if mark[i, y, x] == 2 or (mark[i, y, x] == 1 and (around == 2).any()):
                    rejected += 1
                    continue
                u = w * float(priority[i])
                sum_w, sum_wv, sum_ww = sum_w + u, sum_wv + u * float(value[i, y, x]), sum_ww + u * u / w
                count[y, x] += 1
            if sum_w > 0:
                out[y, x], out_weight[y, x] = sum_wv / sum_w, sum_w**2 / sum_ww
    return out, out_weight, count, rejected


METHODS: tuple[Method, ...] = ("clipped_mean", "weighted_mean", "median")

# Values on a coarse lattice: comparisons near a threshold then fall alike in single and double precision.
layers = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6),
    elements=st.sampled_from([-3.0, -1.0, 0.0, 0.5, 1.0, 2.0, 7.0, 40.0, 900.0]),
)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=60, deadline=None)
@given(layers, st.integers(0, 2**31))
def test_it_does_what_its_slow_twin_does(method: Method, value: NDArray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.choice(np.array([0, 0.5, 1, 3], np.float32), value.shape)
    value = np.where(weight > 0, value, rng.choice(np.array([np.nan, np.inf, 0], np.float32), value.shape))
    share = rng.choice(np.array([0, 0.3, 1.1], np.float32), len(value))
    priority = rng.choice(np.array([0.25, 1, 2], np.float32), len(value))
    clipping = Clipping(radius_px=1)
    found = combine(value, weight, method, share=share, priority=priority, clipping=clipping)
    out, out_weight, count, rejected = slow_twin(value, weight, method, share, priority, clipping)
    np.testing.assert_allclose(found.value, out, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(found.weight, out_weight, rtol=2e-6)
    np.testing.assert_array_equal(found.exposures, count)
    assert found.rejected == rejected


@pytest.mark.parametrize("method", METHODS)
def test_what_was_infinite_or_nan_with_weight_does_not_hang_or_hide(method: Method) -> None:
    value = np.zeros((3, 4, 4), np.float32)
    value[0, 1, 1], value[1, 2, 2] = np.inf, np.nan
    combined = combine(value, np.ones_like(value), method)
    assert combined.value.shape == (4, 4)
    assert np.count_nonzero(combined.value != 0) <= 18


@pytest.mark.parametrize("method", METHODS)
def test_no_sample_is_nan_and_never_zero(method: Method) -> None:
    combined = combine(np.zeros((2, 3, 3), np.float32), np.zeros((2, 3, 3), np.float32), method)
    assert np.isnan(combined.value).all()
    assert (combined.weight == 0).all() and (combined.exposures == 0).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 10, 25])
def test_weights_tell_the_noise(method: Method, n: int) -> None:
    rng = np.random.default_rng(n)
    sigma = rng.uniform(1, 1.05 if method == "median" else 4, n).astype(np.float32)
    value = (rng.normal(size=(n, 200, 200)) * sigma[:, None, None]).astype(np.float32)
    weight = np.broadcast_to(1 / sigma[:, None, None] ** 2, value.shape).astype(np.float32)
    priority = rng.uniform(0.3, 3, n).astype(np.float32)
    combined = combine(value, weight, method, priority=priority)
    assert np.std(combined.value * np.sqrt(combined.weight)) == pytest.approx(1, abs=0.02)
    assert abs(np.mean(combined.value * np.sqrt(combined.weight))) < 0.02
    assert combined.rejected < 1e-3 * value.size


def test_cosmic_rays_are_rejected_from_few_and_from_many() -> None:
    rng = np.random.default_rng(4)
    for n in (2, 3, 6):
        value = rng.normal(0, 1, (n, 60, 60)).astype(np.float32)
        rays = rng.permutation([(y, x) for y in range(4, 57, 8) for x in range(4, 57, 8)])
        for index, (y, x) in enumerate(rays):
            # With the wings that interpolation gives them.
            value[index % n, y, x] += 200
            value[index % n, y, x + 1] += 30
            value[index % n, y - 1, x] -= 12
        combined = combine(value, np.ones_like(value), "clipped_mean")
        assert combined.rejected >= 2 * len(rays)
        assert combined.value.max() < 6
        # Of two samples the fainter is believed: there the negative wing of a ray stays.
        assert combined.value.min() > (-18 if n == 2 else -6)
        assert np.abs(combine(value, np.ones_like(value), "weighted_mean").value).max() > 25


def test_satellite_trails_are_rejected() -> None:
    rng = np.random.default_rng(8)
    value = rng.normal(0, 1, (5, 120, 120)).astype(np.float32)
    y, x = np.mgrid[:120, :120]
    trail = 60 * np.exp(-0.5 * ((y - 0.7 * x - 11) / 1.2) ** 2)
    value[2] += trail.astype(np.float32)
    combined = combine(value, np.ones_like(value), "clipped_mean")
    on_trail = trail > 6
    assert on_trail.sum() > 300
    assert np.mean(combined.value[on_trail]) < 0.1
    assert np.mean(combine(value, np.ones_like(value), "weighted_mean").value[on_trail]) > 3


@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_star_cores_are_left_whole_when_the_seeing_differs_by_30_percent(n: int) -> None:
    """Bright stars, seeing from 0.85 to 1.15 times the mean: clipped and plain mean agree on the stars."""
    rng = np.random.default_rng(n)
    grid = grid_of(120)
    stars = scattered_stars(rng, 9, 45, flux=(1e3, 3e6))
    fwhm = np.linspace(0.85, 1.15, n) * 4.5
    layers = np.array([render((120, 120), grid, stars, seeing) for seeing in fwhm])
    value = (layers + rng.normal(0, 2, layers.shape)).astype(np.float32)
    weight = np.full(value.shape, 0.25, np.float32)
    clipped = combine(value, weight, "clipped_mean", share=seeing_shares(fwhm, 0.3))
    plain = combine(value, weight, "weighted_mean")
    x, y = grid.sky_to_pixel(stars.ra, stars.dec)
    for cx, cy, flux in zip(x - 1, y - 1, stars.flux, strict=True):
        box = np.s_[round(cy) - 12 : round(cy) + 13, round(cx) - 12 : round(cx) + 13]
        lost = abs(float(clipped.value[box].sum()) - float(plain.value[box].sum()))
        assert lost < max(1e-3 * flux, 3 * 25 * 2 / np.sqrt(n))
    # Without the allowance for flux, the very same stars would be torn apart.
    strict = combine(value, weight, "clipped_mean", clipping=Clipping(flux_share=0.0))
    assert strict.rejected > 20 * max(clipped.rejected, 1)


def test_rays_beside_stars_are_still_rejected() -> None:
    rng = np.random.default_rng(1)
    grid = grid_of(90)
    stars = scattered_stars(rng, 4, 30, flux=(1e4, 1e5))
    fwhm = np.full(6, 4.0)
    value = (
        np.array([render((90, 90), grid, stars, f) for f in fwhm]) + rng.normal(0, 2, (6, 90, 90))
    ).astype(np.float32)
    value[3, 45, 20:70] += 3000
    combined = combine(
        value, np.full(value.shape, 0.25, np.float32), "clipped_mean", share=seeing_shares(fwhm, 0.3)
    )
    assert (combined.exposures[45, 20:70] == 5).mean() > 0.8


def test_halos_make_tiles_invisible() -> None:
    rng = np.random.default_rng(2)
    value = rng.normal(0, 1, (6, 96, 80)).astype(np.float32)
    value[rng.random(value.shape) < 0.01] += 50
    weight = rng.uniform(0, 1, value.shape).astype(np.float32)
    clipping = Clipping(radius_px=3)
    whole = combine(value, weight, "clipped_mean", clipping=clipping)
    halo = clipping.halo_px
    box = np.s_[30:62, 17:49]
    outer = np.s_[:, 30 - halo : 62 + halo, 17 - halo : 49 + halo]
    tile = combine(value[outer], weight[outer], "clipped_mean", halo=halo, clipping=clipping)
    np.testing.assert_array_equal(tile.value, whole.value[box])
    np.testing.assert_array_equal(tile.weight, whole.weight[box])
    np.testing.assert_array_equal(tile.exposures, whole.exposures[box])


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


def test_priorities_make_point_sources_deeper() -> None:
    """Signal-to-noise of a star in its best filter: better with power 1 than by the noise alone."""
    grid = grid_of(60)
    stars = scattered_stars(np.random.default_rng(0), 1, 4, flux=(1e4, 1e4))
    fwhm = np.array([3.0, 3.3, 4.0, 5.5, 7.0])
    value = np.array([render((60, 60), grid, stars, f) for f in fwhm]).astype(np.float32)
    weight = np.ones_like(value)

    def depth(power: float) -> float:
        priority = seeing_priorities(fwhm, np.zeros(5), power)
        combined = combine(value, weight, "weighted_mean", priority=priority)
        return float(np.sqrt((combined.value.astype(np.float64) ** 2 * combined.weight).sum()))

    assert depth(1.0) > 1.03 * depth(0.0)
    # Half way to what is only sharper: with seeing as unlike as this, as deep as by the noise alone.
    assert depth(1.5) > 0.99 * depth(0.0)
