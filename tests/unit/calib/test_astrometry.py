"""Polynomial solutions: as much as the matches bear, and no more."""

from __future__ import annotations

import numpy as np
import pytest
from spica_calib.science.astrometry.ccd import (
    fit_polynomial,
    residual_statistics,
    solve_ccd,
    wcs_through,
)
from spica_calib.science.astrometry.least_squares import robust_lstsq
from spica_imaging.polynomial import design

from tests.support.skies import distorted_wcs, make_stars, observe, separation_mas

CENTRE = (10.0, -30.0)


def test_least_squares_without_outliers_is_the_ordinary_one() -> None:
    rng = np.random.default_rng(1)
    basis = design(*rng.uniform(-1, 1, (2, 60)), 2)
    truth = rng.normal(size=(6, 2))
    targets = basis @ truth + 0.01 * rng.uniform(-1, 1, (60, 2))
    fit = robust_lstsq(basis, targets, np.full(60, 1.0))
    assert np.allclose(fit.solution, np.linalg.lstsq(basis, targets, rcond=None)[0])
    # Left-out residuals by hand: fit again without the point.
    for k in (0, 17):
        others = np.arange(60) != k
        again = np.linalg.lstsq(basis[others], targets[others], rcond=None)[0]
        assert np.allclose(fit.left_out[k], targets[k] - basis[k] @ again, atol=1e-9)


def test_a_fifth_of_outliers_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    basis = design(*rng.uniform(-1, 1, (2, 200)), 1)
    truth = rng.normal(size=(3, 2))
    targets = basis @ truth + 0.01 * rng.standard_normal((200, 2))
    targets[:40] += rng.uniform(0.5, 3.0, (40, 2))
    fit = robust_lstsq(basis, targets, np.full(200, 0.005))
    assert np.abs(fit.solution - truth).max() < 0.005
    assert (fit.weight[:40] == 0).all()
    assert fit.scatter == pytest.approx(0.01, rel=0.2)


def test_corner_errors_come_out_as_by_trial() -> None:
    rng = np.random.default_rng(3)
    u, v = rng.uniform(-1, 1, (2, 40))
    at_corner = []
    for _ in range(300):
        targets = 0.1 * rng.standard_normal((40, 2))
        fit = fit_polynomial(u, v, targets, np.full(40, 0.1), 2)
        at_corner.append(design(np.array([1.0]), np.array([1.0]), 2) @ fit.fit.solution)
    predicted = fit_polynomial(u, v, 0.1 * rng.standard_normal((40, 2)), np.full(40, 0.1), 2)
    spread = float(np.std(np.concatenate(at_corner)))
    error = float(predicted.fit.model_error(design(np.array([1.0]), np.array([1.0]), 2))[0])
    assert error == pytest.approx(spread, rel=0.3)
    assert predicted.corner_error >= error


def test_distortion_is_recovered() -> None:
    rng = np.random.default_rng(4)
    stars = make_stars(rng, 250, CENTRE, 0.04)
    truth = distorted_wcs(CENTRE, bend_px=8.0)
    guess = distorted_wcs(CENTRE, bend_px=0.0)
    scene = observe(rng, stars, truth, guess)
    solution = solve_ccd(scene.field, stars, guess, 1.0, 3)
    assert solution is not None
    assert solution.degree == 3
    assert separation_mas(solution.wcs, truth) < 12
    stats = residual_statistics([solution])
    # 0.03 px of 0.2 arcsec are 6 mas.
    assert stats.rms_ra == pytest.approx(6.0, rel=0.25)
    assert stats.median_dec == pytest.approx(6.0 * 0.6745, rel=0.3)
    assert stats.n > 100
    wrong = scene.star[solution.source[solution.weight > 0]] != solution.star[solution.weight > 0]
    assert wrong.mean() < 0.02


def test_few_noisy_stars_get_a_linear_solution() -> None:
    rng = np.random.default_rng(5)
    truth = distorted_wcs(CENTRE, bend_px=0.0)
    for _ in range(5):
        stars = make_stars(rng, 45, CENTRE, 0.03)
        scene = observe(rng, stars, truth, truth, noise_px=0.3, strangers=10)
        solution = solve_ccd(scene.field, stars, truth, 1.0, 5)
        assert solution is not None
        assert solution.degree <= 2
        assert separation_mas(solution.wcs, truth) < 150


def test_stars_in_one_corner_do_not_carry_a_polynomial() -> None:
    rng = np.random.default_rng(6)
    stars = make_stars(rng, 900, CENTRE, 0.04)
    truth = distorted_wcs(CENTRE, bend_px=0.5)
    x, y = truth.sky_to_pixel(stars.ra_deg, stars.dec_deg)
    stars = stars.take((x < 300) & (y < 300))
    scene = observe(rng, stars, truth, truth, noise_px=0.2)
    solution = solve_ccd(scene.field, stars, truth, 1.0, 3)
    assert solution is not None
    assert solution.degree == 1


def test_nothing_to_match_is_no_solution() -> None:
    rng = np.random.default_rng(7)
    stars = make_stars(rng, 3, CENTRE, 0.02)
    truth = distorted_wcs(CENTRE)
    assert solve_ccd(observe(rng, stars, truth, truth).field, stars, truth, 1.0, 3) is None
    stats = residual_statistics([])
    assert stats.n == 0
    assert np.isnan(stats.rms_ra)


def test_a_wcs_is_put_through_any_smooth_map() -> None:
    rng = np.random.default_rng(8)
    truth = distorted_wcs((200.0, 80.0), bend_px=6.0, rotation_deg=40.0)
    field = observe(rng, make_stars(rng, 10, CENTRE, 0.1), truth, truth).field
    through = wcs_through(field, truth.pixel_to_sky, 3)
    assert separation_mas(through, truth) < 0.01
