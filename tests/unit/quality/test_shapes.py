"""Adaptive moments on segments, against their plain twin and the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_quality.science.detection.segments import Sources
from spica_quality.science.flags import Bit
from spica_quality.science.photometry import shapes

from tests.unit.quality.frames import profile
from tests.unit.quality.placed import segments_of


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


def start_at(*places: tuple[float, float]) -> Sources:
    x, y = np.array(places, np.float64).T
    three, none = np.full(len(x), 3.0), np.zeros(len(x))
    whole = [none.astype(np.int32)] * 7
    return Sources(x, y, three, three, none, none, none, *whole, none, none.astype(np.int16))


def measure(
    data: np.ndarray,
    *places: tuple[float, float],
    flags: np.ndarray | None = None,
    labels: np.ndarray | None = None,
) -> shapes.AdaptiveMoments:
    flags = np.zeros(data.shape, np.uint16) if flags is None else flags
    labels = np.zeros(data.shape, np.int32) if labels is None else labels
    return shapes.adaptive_moments(
        data, flags, start_at(*places), segments_of(labels), np.ones(len(places)), least_sigma_px=1.0
    )


def naive_adaptive(data: np.ndarray, x: float, y: float) -> tuple[float, ...]:
    """The fixed point spelt out: M = 2 S with the weight's own covariance, many small steps."""
    covariance = np.diag([3.0, 3.0])
    j, i = np.mgrid[: data.shape[0], : data.shape[1]]
    for _ in range(200):
        inverse = np.linalg.inv(covariance)
        dx, dy = i - x, j - y
        rho2 = inverse[0, 0] * dx**2 + inverse[1, 1] * dy**2 + 2 * inverse[0, 1] * dx * dy
        weight = np.where(rho2 <= shapes.CUT_SIGMA**2, np.exp(-0.5 * rho2), 0.0) * data
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
@given(st.floats(29, 31), st.floats(29, 31), st.floats(1.0, 4.0), st.floats(0.5, 1.0), st.floats(-1.5, 1.5))
def test_a_gaussian_gives_its_own_covariance(
    x: float, y: float, sigma: float, ratio: float, angle: float
) -> None:
    data, covariance = one_star(x, y, (sigma, max(ratio * sigma, 1.0)), angle)
    found = measure(data, (round(x), round(y)))
    assert (found.x[0], found.y[0]) == pytest.approx((x, y), abs=0.01)
    assert [found.xx[0], found.yy[0], found.xy[0]] == pytest.approx(covariance, abs=0.015 * sigma**2)


@settings(max_examples=10, deadline=None)
@given(st.floats(29, 31), st.floats(29, 31), st.floats(3.0, 6.0), st.floats(0.7, 1.0), st.integers(0, 99))
def test_it_agrees_with_its_plain_twin_on_a_noisy_moffat_star(
    x: float, y: float, fwhm: float, ratio: float, seed: int
) -> None:
    j, i = np.mgrid[:61, :61]
    data = 500.0 * profile(np.hypot(i - x, (j - y) / ratio), fwhm, 2.5)
    data = (data + np.random.default_rng(seed).normal(0, 2.0, data.shape)).astype(np.float32)
    found, twin = measure(data, (30, 30)), naive_adaptive(data.astype(np.float64), 30.0, 30.0)
    assert [found.x[0], found.y[0], found.xx[0], found.yy[0], found.xy[0]] == pytest.approx(
        twin, abs=0.005 * twin[2]
    )


@settings(max_examples=60, deadline=None)
@given(st.floats(-8.0, 0.0))
def test_the_exponential_is_one(t: float) -> None:
    assert shapes._exponential(t) == pytest.approx(math.exp(t), rel=4e-5)


def test_flagged_pixels_and_nan_do_not_count_saturated_ones_included() -> None:
    data, covariance = one_star(30.2, 30.4, (2.0, 2.0), 0.0)
    flags = np.zeros(data.shape, np.uint16)
    flags[33, 28], flags[30, 35], flags[26, 30] = Bit.COSMIC, Bit.COLUMN, Bit.SATURATED
    other = data.copy()
    data[flags != 0], other[flags != 0] = np.nan, 1e9
    found = measure(data, (30, 30), flags=flags)
    assert [found.xx[0], found.yy[0]] == pytest.approx(covariance[:2], rel=0.05)
    again = measure(other, (30, 30), flags=flags)
    assert np.array_equal(found.xx, again.xx)


def test_the_neighbour_s_pixels_are_left_out() -> None:
    alone, covariance = one_star(22.0, 30.0, (2.0, 2.0), 0.0)
    other, _ = one_star(33.0, 31.0, (2.0, 2.0), 0.0)
    data = alone + 5.0 * other
    labels = np.zeros(data.shape, np.int32)
    labels[:, :27], labels[:, 27:] = 1, 2
    found = measure(data, (22.0, 30.0), (33.0, 31.0), labels=labels)
    assert found.sigma == pytest.approx([2.0, 2.0], rel=0.03)
    assert found.x == pytest.approx([22.0, 33.0], abs=0.05)
    assert covariance[0] == pytest.approx(4.0)


@pytest.mark.parametrize("place", [(30.0, 4.0), (5.1, 30.0), (55.5, 55.2)])
def test_stars_at_the_edge_are_measured_from_what_there_is(place: tuple[float, float]) -> None:
    data, _ = one_star(*place, (2.0, 2.0), 0.0)
    assert measure(data, place).sigma[0] == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("place", [(30.0, -0.4), (0.0, 0.0), (70.0, 30.0), (-30.0, -30.0)])
def test_stars_cut_by_the_edge_or_beyond_it_do_no_harm(place: tuple[float, float]) -> None:
    data, _ = one_star(*place, (2.0, 2.0), 0.0)
    sigma = measure(data, place).sigma[0]
    assert math.isnan(sigma) or 0.3 < sigma < 2.1


def test_large_sources_get_larger_stamps() -> None:
    data, _ = one_star(80.0, 81.0, (11.0, 7.0), 0.5, size=161)
    found = measure(data, (80.0, 80.0))
    # From a start of sqrt(3) px it may grow fourfold at most.
    assert math.isnan(found.sigma[0])
    sources = start_at((80.0, 80.0))
    sources.xx[0], sources.yy[0] = 30.0, 30.0
    none = np.zeros(data.shape, np.uint16)
    found = shapes.adaptive_moments(data, none, sources, segments_of(none.astype(np.int32)), np.ones(1))
    assert found.axes[0][0] == pytest.approx(11.0, rel=0.01)
    assert found.axes[1][0] == pytest.approx(7.0, rel=0.01)
    assert found.axes[2][0] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("level", [0.0, -5.0, math.nan])
def test_no_flux_gives_nan_and_no_exception(level: float) -> None:
    found = measure(np.full((31, 31), level, np.float32), (15, 15))
    assert math.isnan(found.sigma[0])


def test_ellipse_axes_and_angle() -> None:
    _, (xx, yy, xy) = one_star(30, 30, (3.0, 1.5), 0.7)
    a, b, theta = shapes.ellipse(np.array([xx]), np.array([yy]), np.array([xy]))
    assert [a[0], b[0], theta[0]] == pytest.approx([3.0, 1.5, 0.7])
