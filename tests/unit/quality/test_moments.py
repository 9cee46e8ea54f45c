"""Kernels against their slow twins, and against sep."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sep
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_quality.science import moments as mom

from tests.unit.quality.frames import draw, profile


def one_star(
    x: float, y: float, sigma: tuple[float, float], angle: float, size: int = 61
) -> tuple[np.ndarray, tuple[float, float, float]]:
    """An elliptical Gaussian and its covariance (xx, yy, xy)."""
    cos, sin = math.cos(angle), math.sin(angle)
    a2, b2 = sigma[0] ** 2, sigma[1] ** 2
    xx, yy, xy = cos**2 * a2 + sin**2 * b2, sin**2 * a2 + cos**2 * b2, sin * cos * (a2 - b2)
    j, i = np.mgrid[:size, :size]
    dx, dy = i - x, j - y
    rho2 = (yy * dx**2 + xx * dy**2 - 2 * xy * dx * dy) / (xx * yy - xy**2)
    return (1000.0 * np.exp(-0.5 * rho2)).astype(np.float32), (xx, yy, xy)


def measure(data: np.ndarray, x: float, y: float, bad: np.ndarray | None = None) -> mom.AdaptiveMoments:
    bad = np.zeros(data.shape, bool) if bad is None else bad
    start = tuple(np.array([value]) for value in (3.0, 3.0, 0.0))
    return mom.adaptive_moments(
        data,
        bad,
        np.zeros(data.shape, np.int32),
        np.array([1]),
        np.array([x]),
        np.array([y]),
        (start[0], start[1], start[2]),
        np.array([1.0]),
    )


def naive_adaptive(data: np.ndarray, x: float, y: float) -> tuple[float, ...]:
    """The fixed point spelt out: M = 2 S with the weight's own covariance, many small steps."""
    covariance = np.diag([3.0, 3.0])
    j, i = np.mgrid[: data.shape[0], : data.shape[1]]
    for _ in range(200):
        inverse = np.linalg.inv(covariance)
        dx, dy = i - x, j - y
        rho2 = inverse[0, 0] * dx**2 + inverse[1, 1] * dy**2 + 2 * inverse[0, 1] * dx * dy
        weight = np.where(rho2 <= mom.CUT_SIGMA**2, np.exp(-0.5 * rho2), 0.0) * data
        total = weight.sum()
        mx, my = (weight * dx).sum() / total, (weight * dy).sum() / total
        second = np.array(
            [
                [(weight * dx * dx).sum() / total - mx * mx, (weight * dx * dy).sum() / total - mx * my],
                [(weight * dx * dy).sum() / total - mx * my, (weight * dy * dy).sum() / total - my * my],
            ]
        )
        covariance, x, y = 2.0 * second, x + 2 * mx, y + 2 * my
    return x, y, covariance[0, 0], covariance[1, 1], covariance[0, 1]


@settings(max_examples=40, deadline=None)
@given(
    st.floats(29, 31),
    st.floats(29, 31),
    st.floats(1.0, 4.0),
    st.floats(0.5, 1.0),
    st.floats(-1.5, 1.5),
)
def test_a_gaussian_gives_its_own_covariance(
    x: float, y: float, sigma: float, ratio: float, angle: float
) -> None:
    data, covariance = one_star(x, y, (sigma, max(ratio * sigma, 1.0)), angle)
    found = measure(data, round(x), round(y))
    assert found.x[0] == pytest.approx(x, abs=0.01)
    assert found.y[0] == pytest.approx(y, abs=0.01)
    assert [found.xx[0], found.yy[0], found.xy[0]] == pytest.approx(covariance, abs=0.015 * sigma**2)


def test_it_agrees_with_its_plain_twin_on_a_moffat_star() -> None:
    j, i = np.mgrid[:61, :61]
    data = (500.0 * profile(np.hypot(i - 30.3, 1.2 * (j - 29.6)), 5.0, 2.5)).astype(np.float32)
    found, twin = measure(data, 30, 30), naive_adaptive(data.astype(np.float64), 30.0, 30.0)
    assert [found.x[0], found.y[0], found.xx[0], found.yy[0], found.xy[0]] == pytest.approx(
        twin, abs=0.005 * twin[2]
    )


def test_bad_pixels_and_nan_under_the_mask_do_not_count() -> None:
    data, covariance = one_star(30.2, 30.4, (2.0, 2.0), 0.0)
    bad = np.zeros(data.shape, bool)
    bad[33, 28], bad[30, 35] = True, True
    data[bad] = np.nan
    found = measure(data, 30, 30, bad)
    assert [found.xx[0], found.yy[0]] == pytest.approx(covariance[:2], rel=0.03)


@pytest.mark.parametrize("level", [0.0, -5.0, math.nan])
def test_no_flux_gives_nan_and_no_exception(level: float) -> None:
    found = measure(np.full((31, 31), level, np.float32), 15, 15)
    assert math.isnan(found.sigma[0])


def test_ellipse_axes_and_angle() -> None:
    _, (xx, yy, xy) = one_star(30, 30, (3.0, 1.5), 0.7)
    a, b, theta = mom.ellipse(np.array([xx]), np.array([yy]), np.array([xy]))
    assert [a[0], b[0], theta[0]] == pytest.approx([3.0, 1.5, 0.7])


def test_windowed_positions_are_those_of_sep() -> None:
    sky = draw(n=60, fwhm=4.0, seed=2)
    data = sky.data - np.float32(300.0)
    n = len(sky.x)
    x, y = np.rint(sky.x), np.rint(sky.y)
    sigma = np.full(n, 1.7)
    none = np.zeros(data.shape, bool)
    found = mom.windowed_positions(data, none, x, y, sigma, np.full(n, sky.noise), sky.gain)
    theirs_x, theirs_y, _ = sep.winpos(data, x, y, sigma)
    assert found.converged.all()
    assert np.max(np.abs(found.x - theirs_x)) < 0.02
    assert np.max(np.abs(found.y - theirs_y)) < 0.02


def test_errors_of_windowed_positions_are_what_positions_scatter_by() -> None:
    pulls = []
    for seed in range(4):
        sky = draw(n=150, fwhm=4.0, seed=10 + seed, flux=(2e3, 5e4))
        data = sky.data - np.float32(300.0)
        n = len(sky.x)
        none = np.zeros(data.shape, bool)
        found = mom.windowed_positions(
            data, none, sky.x, sky.y, np.full(n, 1.7), np.full(n, sky.noise), sky.gain
        )
        assert np.all(found.error_xx > 0)
        assert np.all(found.error_yy > 0)
        pulls += list((found.x - sky.x) / np.sqrt(found.error_xx))
        pulls += list((found.y - sky.y) / np.sqrt(found.error_yy))
    spread = 1.4826 * np.median(np.abs(pulls))
    assert abs(np.median(pulls)) < 0.15
    assert spread == pytest.approx(1.0, abs=0.15)


def test_a_position_that_does_not_converge_keeps_its_start_and_a_large_error() -> None:
    data = np.full((40, 40), -1.0, np.float32)
    found = mom.windowed_positions(
        data, np.zeros(data.shape, bool), np.array([20.0]), np.array([12.0]), np.array([2.0]), np.ones(1), 1.6
    )
    assert not found.converged[0]
    assert (found.x[0], found.y[0]) == (20.0, 12.0)
    assert found.error_xx[0] >= 4.0


def naive_radius(data: np.ndarray, x: float, y: float, target: float) -> float:
    """Grow a circle in small steps over finely divided pixels."""
    parts = 15
    offsets = (np.arange(parts) + 0.5) / parts - 0.5
    j, i = np.mgrid[: data.shape[0], : data.shape[1]]
    radius = np.hypot(
        i[..., None, None] + offsets[None, None, None, :] - x,
        j[..., None, None] + offsets[None, None, :, None] - y,
    ).ravel()
    share = np.repeat(data.ravel() / parts**2, parts**2)
    order = np.argsort(radius)
    return float(np.interp(target, np.cumsum(share[order]), radius[order]))


@settings(max_examples=20, deadline=None)
@given(st.floats(19, 21), st.floats(19, 21), st.floats(1.0, 3.0))
def test_flux_radius_agrees_with_its_plain_twin(x: float, y: float, sigma: float) -> None:
    data, _ = one_star(x, y, (sigma, sigma), 0.0, size=41)
    total = np.array([float(data.sum())])
    none = np.zeros(data.shape, bool)
    found = mom.flux_radius(data, none, np.array([x]), np.array([y]), np.array([18.0]), total)
    assert found[0] == pytest.approx(naive_radius(data, x, y, 0.5 * total[0]), abs=0.04)
    # Half of a Gaussian's light lies within half of its FWHM.
    assert found[0] == pytest.approx(sigma * math.sqrt(2 * math.log(2)), abs=0.15)


def test_a_flux_that_is_never_reached_gives_nan() -> None:
    data, _ = one_star(20, 20, (2, 2), 0.0, size=41)
    none = np.zeros(data.shape, bool)
    arguments = (np.array([20.0, 20.0]), np.array([20.0, 20.0]), np.array([3.0, 18.0]))
    found = mom.flux_radius(data, none, *arguments, np.array([4.0 * data.sum(), -5.0]))
    assert np.isnan(found).all()
