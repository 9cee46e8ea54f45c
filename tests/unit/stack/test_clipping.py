"""What the clipped mean leaves out, and what it leaves whole."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from spica_stack.science.combining import combine, seeing_shares
from spica_stack.science.parameters import Clipping

from tests.unit.stack.sky import Stars, grid_of, render, scattered_stars

SIDE = 160


def trail(rng: np.random.Generator, peak: float, fwhm: float) -> NDArray[np.float64]:
    """A satellite's, across the image."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    angle, offset = rng.uniform(0, np.pi), rng.uniform(-SIDE / 4, SIDE / 4)
    across = x * np.sin(angle) - y * np.cos(angle) + offset
    profile: NDArray[np.float64] = peak * np.exp(-0.5 * (across / (fwhm / 2.3548)) ** 2)
    return profile


@pytest.mark.parametrize("n", [5, 10, 20])
def test_trails_are_gone(n: int) -> None:
    """One exposure in five has a trail, from 20 to 300 σ bright: what is left of them is below half a σ of the stack."""
    rng = np.random.default_rng(n)
    value = rng.standard_normal((n, SIDE, SIDE), np.float32)
    trails = [trail(rng, rng.uniform(20, 300), 4.0) for _ in range(n // 5)]
    for layer, light in enumerate(trails):
        value[layer] += light.astype(np.float32)
    weight = np.ones_like(value)
    combined = combine(value, weight, "clipped_mean", want_rejected=True)
    sigma = 1 / np.sqrt(n)
    for layer, light in enumerate(trails):
        core = light > 8
        assert core.sum() > 300
        assert abs(np.mean(combined.value[core])) < 0.5 * sigma
        assert combined.rejected is not None
        hit = combined.rejected.layer == layer
        found = np.zeros((SIDE, SIDE), bool)
        found[combined.rejected.y[hit], combined.rejected.x[hit]] = True
        assert found[core].mean() > 0.99
        assert (combined.rejected.n_sigma[hit] > 0).mean() > 0.99
        plain = combine(value, weight, "weighted_mean").value
        assert np.mean(plain[core]) > 3 * sigma
    # The rest of the image knows nothing of it.
    clean = sum(trails) < 0.05
    assert np.std(combined.value[clean] * np.sqrt(combined.weight[clean])) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("n", [5, 10, 20])
def test_cosmic_rays_are_gone_with_their_wings(n: int) -> None:
    rng = np.random.default_rng(100 + n)
    value = rng.standard_normal((n, SIDE, SIDE), np.float32)
    struck = np.zeros(value.shape, bool)
    for index, (y, x) in enumerate((y, x) for y in range(4, SIDE - 4, 8) for x in range(4, SIDE - 4, 8)):
        # As Lanczos-3 spreads one bright pixel that falls between four.
        taps = np.array([0.03, -0.13, 0.6, 0.6, -0.13, 0.03])
        light = rng.uniform(30, 3000) * np.outer(taps, taps)
        at = np.s_[index % n, y - 3 : y + 3, x - 3 : x + 3]
        value[at] += light.astype(np.float32)
        struck[at] |= np.abs(light) > 5
    weight = np.ones_like(value)
    combined = combine(value, weight, "clipped_mean")
    pixels = struck.any(axis=0)
    sigma = 1 / np.sqrt(n)
    assert abs(np.mean(combined.value[pixels])) < 0.5 * sigma
    assert np.abs(combined.value * np.sqrt(combined.weight)).max() < 5.5
    assert np.abs(combine(value, weight, "weighted_mean").value).max() > 20


def test_of_two_exposures_the_fainter_is_believed() -> None:
    rng = np.random.default_rng(4)
    value = rng.standard_normal((2, 60, 60), np.float32)
    value[1, 10:50:8, 10:50:8] += 200
    combined = combine(value, np.ones_like(value), "clipped_mean")
    assert combined.value.max() < 4
    assert (combined.exposures[10:50:8, 10:50:8] == 1).all()


def flux_in(image: NDArray[np.float32], x: float, y: float) -> float:
    box = np.s_[round(y) - 12 : round(y) + 13, round(x) - 12 : round(x) + 13]
    return float(image[box].sum(dtype=np.float64))


@pytest.mark.parametrize("n", [2, 3, 5, 12, 20])
def test_star_cores_are_left_whole_when_the_seeing_differs_by_30_percent(n: int) -> None:
    """Bright stars, seeing from 0.85 to 1.15 times the mean: clipped mean and truth agree on their flux to 0.1 %."""
    rng = np.random.default_rng(n)
    grid = grid_of(120)
    stars = scattered_stars(rng, 9, 45, flux=(3e5, 3e6))
    fwhm = np.linspace(0.85, 1.15, n) * 4.5
    layers = np.array([render((120, 120), grid, stars, seeing) for seeing in fwhm])
    value = (layers + rng.normal(0, 2, layers.shape)).astype(np.float32)
    weight = np.full(value.shape, 0.25, np.float32)
    shares = seeing_shares(fwhm, 0.3)
    clipped = combine(value, weight, "clipped_mean", share=shares)
    plain = combine(value, weight, "weighted_mean")
    x, y = grid.sky_to_pixel(stars.ra, stars.dec)
    for cx, cy, flux in zip(x - 1, y - 1, stars.flux, strict=True):
        ours, all_in = flux_in(clipped.value, cx, cy), flux_in(plain.value, cx, cy)
        assert abs(ours - all_in) < max(1e-3 * flux, 3 * 25 * 2 / np.sqrt(n))
        # The core itself: no exposure is missing in the brightest pixels.
        assert (clipped.exposures[round(cy) - 1 : round(cy) + 2, round(cx) - 1 : round(cx) + 2] == n).all()
    # Without the allowance for flux, the very same stars would be torn apart.
    strict = combine(value, weight, "clipped_mean", clipping=Clipping(flux_share=0.0))
    assert strict.n_rejected > 20 * max(clipped.n_rejected, 1)


def test_rays_beside_stars_are_still_rejected() -> None:
    rng = np.random.default_rng(1)
    grid = grid_of(90)
    stars = scattered_stars(rng, 4, 30, flux=(1e4, 1e5))
    fwhm = np.full(6, 4.0)
    images = np.array([render((90, 90), grid, stars, f) for f in fwhm])
    value = (images + rng.normal(0, 2, (6, 90, 90))).astype(np.float32)
    value[3, 45, 20:70] += 3000
    weight = np.full(value.shape, 0.25, np.float32)
    combined = combine(value, weight, "clipped_mean", share=seeing_shares(fwhm, 0.3))
    assert (combined.exposures[45, 20:70] == 5).mean() > 0.8


@pytest.mark.parametrize("method", ["clipped_mean", "weighted_mean", "median", "sigma_clip"])
def test_saturated_cores_are_taken_from_unsaturated_exposures(method: str) -> None:
    """Long exposures saturate in a star's core, where they have no weight: a short one shows it whole."""
    rng = np.random.default_rng(2)
    grid = grid_of(90)
    ra, dec = grid.pixel_to_sky(np.array([45.0]), np.array([45.0]))
    stars = Stars(ra, dec, np.array([1e7]))
    truth = render((90, 90), grid, stars, 4.5)
    noise = np.array([1.0, 1.0, 1.0, 10.0])
    value = (truth + rng.standard_normal((4, 90, 90)) * noise[:, None, None]).astype(np.float32)
    weight = np.broadcast_to((1 / noise**2)[:, None, None], value.shape).astype(np.float32)
    level = 2e5
    saturated = truth > level
    assert 5 < saturated.sum() < 200
    for layer in range(3):
        value[layer][saturated] = level
        weight[layer][saturated] = 0
    combined = combine(value, weight, method)  # type: ignore[arg-type]
    assert (combined.exposures[saturated] == 1).all()
    np.testing.assert_allclose(combined.value[saturated], value[3][saturated], rtol=2e-7)
    assert (combined.exposures[~saturated] == 4).mean() > 0.98
    assert flux_in(combined.value, 44, 44) == pytest.approx(1e7, rel=1e-3)


def test_sigma_clipping_goes_on_until_nothing_is_left_to_clip() -> None:
    """A sample hidden by worse ones, whose weight kept the median's noise small, is found when they are gone."""
    value = np.array([0.0, 0.1, -0.1, 0.05, 7.0, 900.0, 800.0], np.float32)[:, None, None]
    found = combine(value, np.ones_like(value), "sigma_clip", want_rejected=True)
    assert found.rejected is not None
    assert found.rejected.layer.tolist() == [4, 5, 6]
    assert (found.rejected.n_sigma > 4).all()
    assert float(found.value[0, 0]) == pytest.approx(0.0125)
    # Stars of unlike seeing have no allowance here.
    assert combine(value, np.ones_like(value), "sigma_clip", share=np.full(7, 9, np.float32)).n_rejected == 3


def test_the_sign_says_whether_a_sample_was_too_bright() -> None:
    value = np.zeros((5, 9, 9), np.float32)
    value[1, 4, 4], value[3, 4, 4] = 50, -50
    for method in ("clipped_mean", "sigma_clip"):
        found = combine(value, np.ones_like(value), method, want_rejected=True).rejected
        assert found is not None
        sigma = np.sqrt(1 + np.pi / 2 / 5)
        assert found.layer.tolist() == [1, 3]
        np.testing.assert_allclose(found.n_sigma, [50 / sigma, -50 / sigma], rtol=1e-6)
        assert (found.x.tolist(), found.y.tolist()) == ([4, 4], [4, 4])
