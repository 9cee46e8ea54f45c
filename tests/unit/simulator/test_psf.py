"""Stars: their flux, their place, their shape; against GalSim and against a slow twin."""

from __future__ import annotations

import math

import galsim
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_simulator.psf import MOFFAT_BETA, RadialProfile, add_stars, donut, moffat, stamp_radius

PROFILE = moffat()


def one_star(
    x: float,
    y: float,
    *,
    flux: float = 1.0,
    fwhm: float = 4.0,
    e: tuple[float, float] = (0.0, 0.0),
    size: int = 101,
    radius: int = 60,
    profile: RadialProfile = PROFILE,
) -> np.ndarray:
    image = np.zeros((size, size))
    columns = [np.array([value]) for value in (x, y, flux, fwhm, *e)]
    add_stars(image, *columns, np.array([radius]), profile.values, profile.step)
    return image


def slow_star(
    x: float, y: float, fwhm: float, e: tuple[float, float], size: int, fine: int = 11
) -> np.ndarray:
    """The Moffat formula itself, summed over many points per pixel."""
    core = fwhm / (2 * math.sqrt(2 ** (1 / MOFFAT_BETA) - 1))
    places = (np.arange(size * fine) + 0.5) / fine - 0.5
    dx, dy = np.meshgrid(places - (x - 1), places - (y - 1))
    norm = 1 / math.sqrt(1 - e[0] ** 2 - e[1] ** 2)
    u = norm * ((1 - e[0]) * dx - e[1] * dy)
    v = norm * (-e[1] * dx + (1 + e[0]) * dy)
    light = (MOFFAT_BETA - 1) / (math.pi * core**2) * (1 + (u**2 + v**2) / core**2) ** -MOFFAT_BETA
    return light.reshape(size, fine, size, fine).mean(axis=(1, 3))


@settings(max_examples=12, deadline=None)
@given(st.floats(15, 18), st.floats(15, 18), st.floats(2.5, 6), st.floats(-0.2, 0.2), st.floats(-0.2, 0.2))
def test_the_fast_kernel_agrees_with_its_slow_twin(
    x: float, y: float, fwhm: float, e1: float, e2: float
) -> None:
    fast = one_star(x, y, fwhm=fwhm, e=(e1, e2), size=32, radius=40)
    slow = slow_star(x, y, fwhm, (e1, e2), 32)
    assert np.abs(fast - slow).max() < 1e-3 * slow.max()
    assert fast.sum() == pytest.approx(slow.sum(), rel=5e-4)


def test_it_draws_what_galsim_draws() -> None:
    peer = galsim.Moffat(beta=MOFFAT_BETA, fwhm=3.7).shear(g1=0.05, g2=-0.03)
    theirs = galsim.ImageD(64, 64)
    peer.drawImage(theirs, scale=1.0, center=galsim.PositionD(30.3, 34.8))
    ours = one_star(30.3, 34.8, fwhm=3.7, e=(0.05, -0.03), size=64, radius=60)
    assert np.abs(ours - theirs.array).max() < 1e-3 * ours.max()


def test_flux_is_kept_and_the_centre_is_where_it_should_be() -> None:
    image = one_star(51.3, 48.6, flux=1000.0)
    rows, columns = np.indices(image.shape) + 1
    assert image.sum() == pytest.approx(1000.0, rel=2e-3)
    assert (image * columns).sum() / image.sum() == pytest.approx(51.3, abs=2e-3)
    assert (image * rows).sum() / image.sum() == pytest.approx(48.6, abs=2e-3)


def test_half_of_the_maximum_is_one_fwhm_wide() -> None:
    image = one_star(51.0, 51.0, fwhm=20.0, radius=100)
    assert (image[50] > image.max() / 2).sum() == pytest.approx(20, abs=1)


@pytest.mark.parametrize("profile", [moffat(), donut()])
def test_profiles_hold_one_unit_of_flux(profile: RadialProfile) -> None:
    radii = profile.step * np.arange(len(profile.values))
    assert 2 * math.pi * np.trapezoid(profile.values * radii, radii) == pytest.approx(1.0, abs=2e-3)


def test_a_donut_is_dark_in_the_middle() -> None:
    image = one_star(51.0, 51.0, fwhm=27.0, radius=60, profile=donut())
    assert image[50, 50] < 0.2 * image.max()
    assert image.sum() == pytest.approx(1.0, rel=5e-3)


def test_stars_beyond_the_edge_leave_their_wings_only() -> None:
    image = one_star(-3.0, 50.0)
    assert 0 < image.sum() < 0.1
    assert image[:, 30:].max() < 1e-5
    assert one_star(-500.0, 50.0).sum() == 0


def test_stamps_reach_to_where_stars_vanish_in_the_noise() -> None:
    flux, fwhm = np.array([1e2, 1e4, 1e6]), np.full(3, 4.0)
    radius = stamp_radius(flux, fwhm, 10.0, PROFILE)
    assert radius[0] < radius[1] < radius[2] <= 200
    edge = one_star(51.0, 51.0, flux=1e4, radius=50)[50, 50 + radius[1] - 1]
    assert edge < 0.05 * 10.0
