"""Kernels of the point spread function against their slow twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from spica_quality.science.detection.segments import Segments
from spica_quality.science.psf.basis import (
    coefficients,
    n_terms,
    powers,
    spline_row,
    spline_weights,
    vandermonde,
)
from spica_quality.science.psf.fit import Problem, make_taps, solve
from spica_quality.science.psf.flux import NoiseModel, begin, refit
from spica_quality.science.psf.model import PsfModel, expand, render, render_gradient
from spica_quality.science.psf.moffat import fit_moffat, moffat_samples, start_parameters
from spica_quality.science.psf.stamps import Stamps, cut_stamps

from tests.unit.quality.psfscenes import gaussian, in_pixels, moffat

Floats = NDArray[np.float64]
offsets = st.floats(-0.5, 0.5)


def slow_weights(position: float, m: int) -> Floats:
    """Values of the m B-splines at a position."""
    spline = BSpline.basis_element(np.arange(-3.0, 4.0), extrapolate=False)
    return np.nan_to_num(spline(position - np.arange(m)))


def slow_render(grid: NDArray[np.float32], step: float, dx: float, dy: float, size: int) -> Floats:
    m, half = len(grid), size // 2
    rows = np.array([slow_weights((j - half - dy) / step + m // 2, m) for j in range(size)])
    columns = np.array([slow_weights((i - half - dx) / step + m // 2, m) for i in range(size)])
    return rows @ grid.astype(np.float64) @ columns.T / step**2


@settings(deadline=None)
@given(st.floats(-9.0, 33.0), st.integers(6, 25))
def test_interpolation_is_by_quintic_splines(position: float, m: int) -> None:
    weight, slope = np.empty(6, np.float32), np.empty(6, np.float32)
    first = spline_row(position, m, weight, slope)
    assert 0 <= first <= m - 6
    found = np.zeros(m)
    found[first : first + 6] = weight
    np.testing.assert_allclose(found, slow_weights(position, m), atol=2e-5)


def test_slopes_of_the_weights_are_their_derivatives() -> None:
    phase, h = np.linspace(0.01, 0.99, 41), 1e-5
    _, slope = spline_weights(phase)
    numeric = (spline_weights(phase + h)[0] - spline_weights(phase - h)[0]) / (2 * h)
    np.testing.assert_allclose(slope, numeric, atol=1e-7)


@settings(deadline=None)
@given(st.integers(7, 31), st.integers(0, 99))
def test_splines_go_through_the_values(m: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(m, m)).astype(np.float32)
    m_odd = m - 1 + m % 2
    values = values[:m_odd, :m_odd]
    seen = np.empty_like(values)
    render(coefficients(values), 1.0, 0.0, 0.0, seen)
    np.testing.assert_allclose(seen, values, atol=1e-4)


@settings(deadline=None)
@given(st.integers(0, 3), st.floats(-1, 1), st.floats(-1, 1))
def test_polynomials_in_psfex_order(degree: int, u: float, v: float) -> None:
    terms = np.empty(n_terms(degree))
    powers(degree, u, v, terms)
    np.testing.assert_allclose(terms, vandermonde(degree, np.array([u]), np.array([v]))[0], atol=1e-12)
    if degree == 2:
        np.testing.assert_allclose(terms, [1, u, u * u, v, u * v, v * v], atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(offsets, offsets, st.floats(0.4, 3.0), st.sampled_from([7, 15, 31]), st.integers(0, 99))
def test_rendering_is_interpolation(dx: float, dy: float, step: float, size: int, seed: int) -> None:
    grid = np.random.default_rng(seed).normal(size=(9, 9)).astype(np.float32)
    stamp = np.empty((size, size), np.float32)
    render(grid, step, dx, dy, stamp)
    expected = slow_render(grid, step, dx, dy, size)
    np.testing.assert_allclose(stamp, expected, atol=2e-4 * np.abs(expected).max())


@settings(max_examples=25, deadline=None)
@given(offsets, offsets, st.integers(-3, 3), st.integers(-3, 3))
def test_a_star_moved_by_whole_pixels_is_the_same_star(dx: float, dy: float, i: int, j: int) -> None:
    grid = in_pixels(gaussian(3.0), 25).astype(np.float32)
    near, far = np.empty((31, 31), np.float32), np.empty((31, 31), np.float32)
    render(grid, 0.9, dx, dy, near)
    render(grid, 0.9, dx + i, dy + j, far)
    np.testing.assert_allclose(np.roll(near, (j, i), (0, 1))[5:-5, 5:-5], far[5:-5, 5:-5], atol=1e-6)


def test_gradients_are_derivatives() -> None:
    grid = in_pixels(moffat(3.5, 3.0), 25).astype(np.float32)
    stamps = [np.empty((21, 21), np.float32) for _ in range(7)]
    value, by_x, by_y, *moved = stamps
    render_gradient(grid, 0.8, 0.21, -0.33, value, by_x, by_y)
    h = 5e-3
    for stamp, (dx, dy) in zip(moved, ((h, 0), (-h, 0), (0, h), (0, -h)), strict=True):
        render(grid, 0.8, 0.21 + dx, -0.33 + dy, stamp)
    np.testing.assert_allclose(by_x, (moved[0] - moved[1]) / (2 * h), atol=2e-3 * np.abs(by_x).max())
    np.testing.assert_allclose(by_y, (moved[2] - moved[3]) / (2 * h), atol=2e-3 * np.abs(by_y).max())
    plain = np.empty_like(value)
    render(grid, 0.8, 0.21, -0.33, plain)
    np.testing.assert_array_equal(value, plain)


def varying(degree: int, m: int = 9, seed: int = 1) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    cube = 0.02 * random.normal(size=(n_terms(degree), m, m)) * in_pixels(gaussian(2.0), m)
    cube[0] = in_pixels(gaussian(2.0), m)
    return cube.astype(np.float32)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_the_model_anywhere_sums_to_one(degree: int) -> None:
    cube, grid = varying(degree), np.empty((9, 9), np.float32)
    for u, v in ((0.0, 0.0), (-0.7, 0.9), (1.0, -1.0)):
        expand(cube, degree, u, v, grid)
        slow = np.tensordot(vandermonde(degree, np.array([u]), np.array([v]))[0], cube.astype(np.float64), 1)
        np.testing.assert_allclose(grid, slow / slow.sum(), atol=1e-6)
        assert grid.sum() == pytest.approx(1.0, abs=1e-5)


def test_the_model_at_a_position() -> None:
    sigma = 2.0
    grid = in_pixels(lambda x, y: gaussian(sigma)(0.8 * x, 0.8 * y), 31)
    model = PsfModel(coefficients(grid.astype(np.float32))[None], 0, (50.0, 60.0), (50.0, 60.0), 0.8, 4.7)
    stamp = model.at(20.3, 30.6, 25)
    assert stamp.shape == (25, 25)
    y, x = np.mgrid[:25, :25]
    assert np.sum(stamp * x) / stamp.sum() == pytest.approx(12.3, abs=2e-3)  # middle pixel: 20
    assert np.sum(stamp * y) / stamp.sum() == pytest.approx(11.6, abs=2e-3)  # middle pixel: 31
    assert model.at(20.3, 30.6).sum() == pytest.approx(1.0, abs=1e-3)
    # The samples are means over 0.8 px here, so that the profile is a little wider than sigma.
    seen2 = sigma**2 + 0.8**2 / 12.0
    assert model.noise_area(20.3, 30.6) == pytest.approx(4 * np.pi * seen2, rel=4e-3)


# ---- the fit ----


def problem(n: int = 7, k: int = 11, m: int = 9, degree: int = 1, seed: int = 3) -> tuple[Problem, Floats]:
    """A problem, and its matrix: rows are pixels times the square root of their weight."""
    random = np.random.default_rng(seed)
    dx, dy = random.uniform(-0.5, 0.5, (2, n))
    terms = vandermonde(degree, *random.uniform(-1, 1, (2, n)))
    step = 0.9
    made = Problem(
        random.normal(1.0, 1.0, (n, k, k)).astype(np.float32),
        random.uniform(0.0, 2.0, (n, k, k)).astype(np.float32),
        random.uniform(1.0, 3.0, n).astype(np.float32),
        terms.astype(np.float32),
        make_taps(dx, dy, k, m, step),
        np.arange(n) != 2,
        step,
    )
    blocks = []
    values = np.linalg.inv(np.array([slow_weights(float(q), m) for q in range(m)]))  # to coefficients
    for s in np.flatnonzero(made.used):
        rows, columns = (
            np.array([slow_weights((q - k // 2 - shift) / step + m // 2, m) / step for q in range(k)])
            for shift in (dy[s], dx[s])
        )
        rows, columns = rows @ values, columns @ values
        light = made.flux[s] * np.kron(
            terms[s], np.einsum("jp,iq->jipq", rows, columns).reshape(k * k, m * m)
        )
        blocks.append(light * np.sqrt(made.weight[s].reshape(-1, 1)))
    return made, np.concatenate(blocks)


def test_operators_are_those_of_the_matrix() -> None:
    made, matrix = problem()
    cube = np.random.default_rng(0).normal(size=(3, 9, 9)).astype(np.float32)
    normal = matrix.T @ matrix
    scale = np.abs(normal).max()
    np.testing.assert_allclose(made.apply(cube).ravel(), normal @ cube.ravel(), atol=2e-4 * scale)
    # The diagonal only preconditions: near is enough.
    ratio = made.diagonal(9)[:, 2:-2, 2:-2] / np.diag(normal).reshape(3, 9, 9)[:, 2:-2, 2:-2]
    assert 0.8 < np.median(ratio) < 1.25
    assert 0.4 < ratio.min() < ratio.max() < 2.5
    data = (made.data * np.sqrt(made.weight))[made.used].ravel()
    expected = matrix.T @ (data - matrix @ cube.ravel())
    np.testing.assert_allclose(made.gradient(cube).ravel(), expected, atol=2e-4 * np.abs(expected).max())


def test_the_solution_is_that_of_the_regularised_equations() -> None:
    made, matrix = problem()
    prior = np.full((3, 9, 9), 0.1, np.float32)
    tau = np.random.default_rng(1).uniform(0.05, 0.5, prior.shape).astype(np.float32)
    found, _ = solve(made, prior, tau, prior, steps=200, tolerance=1e-6)
    inverse = np.diag(tau.ravel() ** -2.0)
    data = (made.data * np.sqrt(made.weight))[made.used].ravel()
    exact = np.linalg.solve(matrix.T @ matrix + inverse, matrix.T @ data + inverse @ prior.ravel())
    np.testing.assert_allclose(found.ravel(), exact, atol=1e-3 * np.abs(exact).max())


# ---- stamps and stars ----


def frame(seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.uint16], Segments]:
    random = np.random.default_rng(seed)
    data = random.normal(size=(40, 50)).astype(np.float32)
    data[5, 6], data[30, 20], data[31, 21] = np.nan, np.inf, -np.inf
    flags = (random.random((40, 50)) < 0.02).astype(np.uint16) * 32
    # Source 1: rows 10 to 12, columns 8 to 11; source 2: row 12, columns 13 to 16.
    start = np.searchsorted([10, 11, 12, 12], np.arange(41)).astype(np.int32)
    runs = (np.array(q, np.int32) for q in ([8, 8, 8, 13], [12, 12, 12, 17], [1, 1, 1, 2]))
    return data, flags, Segments((40, 50), start, *runs)


@settings(deadline=None)
@given(st.floats(-3, 52), st.floats(-3, 43), st.integers(1, 2))
def test_stamps_hold_the_pixels_that_may_be_used(x: float, y: float, label: int) -> None:
    data, flags, segments = frame()
    size = 9
    stamps = cut_stamps(
        data, flags, np.array([x]), np.array([y]), np.ones(1), size, segments, np.array([label], np.int32)
    )
    labels = segments.paint()
    column, row = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
    assert (stamps.column[0], stamps.row[0]) == (column, row)
    for j in range(size):
        for i in range(size):
            yy, xx = row - 4 + j, column - 4 + i
            inside = 0 <= yy < 40 and 0 <= xx < 50
            good = inside and flags[yy, xx] == 0 and np.isfinite(data[yy, xx])
            if good:
                around = labels[max(yy - 1, 0) : yy + 2, max(xx - 1, 0) : xx + 2]
                good = not np.any((around != 0) & (around != label))
            assert stamps.usable[0, j, i] == good
            assert stamps.data[0, j, i] == (data[yy, xx] if good else 0.0)


def star_stamps(scale: float = 1.0) -> tuple[Stamps, NDArray[np.float32], Floats]:
    """Stars of a Moffat profile with noise, one of them with a hot pixel; the profile; their fluxes."""
    random = np.random.default_rng(8)
    n, k, step = 6, 23, 0.9
    grid = moffat_samples(start_parameters(1.0, 3.6), 25, step)
    grid /= grid.sum()
    cube = coefficients(grid.astype(np.float32))[None]
    flux = np.geomspace(3e3, 1e5, n)
    x, y = 100 + random.uniform(-0.4, 0.4, n), 100 + random.uniform(-0.4, 0.4, n)
    data = np.empty((n, k, k), np.float32)
    for s in range(n):
        data[s] = flux[s] * slow_render(cube[0], step, x[s] - 100, y[s] - 100, k)
    data += random.normal(0.0, 5.0, data.shape).astype(np.float32)
    usable = np.ones(data.shape, np.bool_)
    data[0, 3, 4], usable[0, 3, 4] = np.nan, False
    data[1, 4, 4] += 500.0
    middle = np.full(n, 100, np.int32)
    stamps = Stamps(
        data * np.float32(scale), usable, x + 0.2, y - 0.15, middle, middle, np.full(n, 5.0 * scale)
    )
    return stamps, cube, flux * scale


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_fluxes_and_positions_of_the_stars(scale: float) -> None:
    stamps, cube, flux = star_stamps(scale)
    fits, one = begin(stamps), np.ones((6, 1), np.float32)
    for _ in range(4):
        refit(fits, stamps, cube, one, 0.9, NoiseModel(0.0, 0.001), 6.0, clip_sigma=5.0)
    np.testing.assert_allclose(fits.flux, flux, atol=5 * 5.0 * scale * 7)
    np.testing.assert_allclose(fits.dx, stamps.x - 0.2 - 100, atol=0.02)
    np.testing.assert_allclose(fits.dy, stamps.y + 0.15 - 100, atol=0.02)
    assert np.all((fits.reduced > 0.6) & (fits.reduced < 1.5))
    assert fits.weight[0, 3, 4] == 0.0
    assert fits.weight[1, 4, 4] == 0.0  # the hot pixel is clipped
    assert np.count_nonzero(fits.weight[2]) > 400


# ---- Moffat profiles ----


@settings(max_examples=10, deadline=None)
@given(st.floats(1.6, 6.0), st.floats(2.0, 12.0), st.floats(0.0, 0.3), st.floats(-1.5, 1.5), offsets, offsets)
def test_a_moffat_profile_in_pixels_gives_its_figures_back(
    fwhm: float, beta: float, flattening: float, angle: float, dx: float, dy: float
) -> None:
    q = 1.0 - flattening
    a2 = (0.5 * fwhm) ** 2 / (2.0 ** (1.0 / beta) - 1.0)

    def profile(x: Floats, y: Floats) -> Floats:
        u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
        return (1.0 + (q * u**2 + v**2 / q) / a2) ** -beta

    size = 2 * int(3 * fwhm) + 3
    seen = in_pixels(profile, size, dx, dy, points=7).astype(np.float32)
    fit = fit_moffat(seen, 1.0, start_parameters(float(seen.max()), 1.1 * fwhm))
    assert fit.fwhm_px == pytest.approx(fwhm, rel=3e-3)
    assert fit.beta == pytest.approx(beta, rel=0.03)
    assert (fit.x, fit.y) == (pytest.approx(dx, abs=1e-3), pytest.approx(dy, abs=1e-3))
    assert fit.ellipticity == pytest.approx(flattening, abs=3e-3)
    if flattening > 0.05:
        turned = (fit.angle_deg - np.degrees(angle) + 90.0) % 180.0 - 90.0
        assert abs(turned) < 1.0
    # Without the pixel in the fit, the pixel is in the result.
    wider = fit_moffat(seen, 1.0, fit.parameters, pixel_px=0.0)
    assert wider.fwhm_px > fit.fwhm_px


def test_a_fit_to_noise_comes_to_an_end() -> None:
    noise = np.random.default_rng(0).normal(size=(25, 25)).astype(np.float32)
    fit = fit_moffat(noise, 1.0, start_parameters(1.0, 4.0))
    assert np.isfinite([fit.fwhm_px, fit.beta, fit.elongation, fit.angle_deg]).all()


def test_samples_of_a_moffat_profile_are_means_over_pixels() -> None:
    samples = moffat_samples(start_parameters(1.0, 2.0, 3.0), 9, 1.0)
    expected = in_pixels(moffat(2.0, 3.0), 9, points=101)
    np.testing.assert_allclose(samples / samples.sum(), expected, atol=1e-5)
