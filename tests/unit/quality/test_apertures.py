"""Sums in apertures and radii, against twins that divide every pixel into many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from spica_quality.science.photometry import apertures as ap
from spica_quality.science.photometry.stamps import LOST, MIRRORED, SOUND

N = 41


def naive_share(
    x: float, y: float, ellipse: tuple[float, float, float], radius: float, parts: int = 40
) -> np.ndarray:
    """Share of each pixel inside, by counting points."""
    offsets = (np.arange(parts) + 0.5) / parts - 0.5
    axis = (np.arange(N)[:, None] + offsets).ravel()
    dx, dy = (axis - x)[None, :], (axis - y)[:, None]
    inside = ellipse[0] * dx**2 + ellipse[1] * dy**2 + ellipse[2] * dx * dy <= radius**2
    return inside.reshape(N, parts, N, parts).mean((1, 3))


def ellipse_of(a: float, ratio: float, angle: float) -> tuple[float, float, float]:
    b = a * ratio
    c, s = np.cos(angle), np.sin(angle)
    return c**2 / a**2 + s**2 / b**2, s**2 / a**2 + c**2 / b**2, 2 * c * s * (1 / a**2 - 1 / b**2)


ellipses = st.tuples(st.floats(1.0, 4.0), st.floats(0.25, 1.0), st.floats(-1.6, 1.6))
places = st.floats(-4.0, 44.0)


@settings(max_examples=60, deadline=None)
@given(places, places, ellipses, st.floats(0.7, 4.0), st.integers(0, 2**31))
def test_sums_are_those_of_pixels_divided_finely(
    x: float, y: float, shape: tuple[float, float, float], radius: float, seed: int
) -> None:
    ellipse = ellipse_of(*shape)
    random = np.random.default_rng(seed)
    values = random.normal(1.0, 1.0, (N, N)).astype(np.float32)
    state = random.choice(np.array([SOUND, SOUND, SOUND, LOST, MIRRORED], np.uint8), (N, N))
    values[state == LOST] = 0.0
    share = naive_share(x, y, ellipse, radius)
    flux, area, mirrored = ap.ellipse_sum(values, state, x, y, *ellipse, radius)
    coarse = 0.2 if ap.ellipse_reach(*ellipse, radius)[1] < 12.0 else 0.6
    assert area == pytest.approx(share[state != LOST].sum(), abs=coarse)
    assert mirrored == pytest.approx(share[state == MIRRORED].sum(), abs=coarse)
    assert flux == pytest.approx((share * values).sum(), abs=3 * coarse)


@pytest.mark.parametrize("radius", [1.0, 2.0, 5.0, 8.0, 15.0])
def test_circles_have_their_area(radius: float) -> None:
    state, ones = np.full((N, N), SOUND, np.uint8), np.ones((N, N), np.float32)
    areas = [
        ap.ellipse_sum(ones, state, 20.0 + dx, 20.0 + dy, 1.0, 1.0, 0.0, radius)[1]
        for dx, dy in np.random.default_rng(1).uniform(-0.5, 0.5, (20, 2))
    ]
    assert areas == pytest.approx(20 * [np.pi * radius**2], abs=0.15 if radius < 12 else 0.6)
    assert ap.ellipse_area(1.0, 1.0, 0.0, radius) == pytest.approx(np.pi * radius**2)


@settings(max_examples=30, deadline=None)
@given(ellipses, st.floats(0.5, 5.0))
def test_an_ellipse_reaches_as_far_as_its_points_do(shape: tuple[float, float, float], radius: float) -> None:
    cxx, cyy, cxy = ellipse_of(*shape)
    phi = np.linspace(0, 2 * np.pi, 4001)
    c, s = np.cos(phi), np.sin(phi)
    r = radius / np.sqrt(cxx * c**2 + cyy * s**2 + cxy * c * s)
    assert ap.ellipse_reach(cxx, cyy, cxy, radius) == pytest.approx((np.max(r * c), np.max(r * s)), rel=1e-4)
    area = 0.5 * np.sum(r[1:] ** 2) * (phi[1] - phi[0])
    assert ap.ellipse_area(cxx, cyy, cxy, radius) == pytest.approx(area, rel=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.floats(15.0, 25.0), st.floats(15.0, 25.0), ellipses, st.integers(0, 2**31))
def test_the_kron_radius_is_the_first_moment(
    x: float, y: float, shape: tuple[float, float, float], seed: int
) -> None:
    cxx, cyy, cxy = ellipse_of(*shape)
    random = np.random.default_rng(seed)
    j, i = np.mgrid[:N, :N]
    r = np.sqrt(cxx * (i - x) ** 2 + cyy * (j - y) ** 2 + cxy * (i - x) * (j - y))
    values = (100.0 * np.exp(-0.5 * r**2) + random.normal(0, 0.5, (N, N))).astype(np.float32)
    state = random.choice(np.array([SOUND, SOUND, SOUND, MIRRORED], np.uint8), (N, N))
    assume(np.abs(r - ap.KRON_REACH).min() > 1e-6)
    inside = r <= ap.KRON_REACH
    radius, foreign = ap.kron_radius(values, state, x, y, cxx, cyy, cxy)
    assert radius == pytest.approx((r * values)[inside].sum() / values[inside].sum(), rel=1e-4)
    assert foreign == pytest.approx(np.mean(state[inside] == MIRRORED), abs=1e-9)


@pytest.mark.parametrize("level", [0.0, -1.0])
def test_no_light_has_no_radius(level: float) -> None:
    values, state = np.full((N, N), level, np.float32), np.full((N, N), SOUND, np.uint8)
    assert ap.kron_radius(values, state, 20.0, 20.0, 1.0, 1.0, 0.0)[0] == 0.0
    assert np.isnan(ap.light_radius(values, state, 20.0, 20.0, 1.0, 15.0, 2.0))
    assert np.isnan(ap.light_radius(values, state, 20.0, 20.0, -1.0, 15.0, 2.0))
    assert np.isnan(ap.light_radius(values, state, 20.0, 20.0, np.nan, 15.0, 2.0))


@settings(max_examples=30, deadline=None)
@given(
    st.floats(19.5, 20.5),
    st.floats(19.5, 20.5),
    st.floats(1.2, 4.0),
    st.floats(0.1, 0.9),
    st.floats(0.5, 6.0),
)
def test_the_radius_of_a_share_of_a_gaussian(
    x: float, y: float, sigma: float, share: float, start: float
) -> None:
    """1 - exp(-r² / 2 sigma²), the pixel's own width included."""
    from scipy.special import erf

    edges = np.arange(N + 1) - 0.5
    gx, gy = (np.diff(erf((edges - centre) / (sigma * np.sqrt(2)))) / 2 for centre in (x, y))
    values = (1e4 * gy[:, None] * gx[None, :]).astype(np.float32)
    state = np.full((N, N), SOUND, np.uint8)
    expected = np.sqrt(-2.0 * (sigma**2 + 1 / 12) * np.log(1.0 - share))
    # Within a pixel the light is taken as even: the smallest circles know it least.
    assert ap.light_radius(values, state, x, y, 1e4 * share, 19.0, start) == pytest.approx(expected, rel=0.06)
