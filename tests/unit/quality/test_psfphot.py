"""Fits of the point spread function: truth, plain twins, errors against the scatter of noisy copies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_quality.science.photometry import psfphot
from spica_quality.science.photometry.likeness import class_star, star_likeness
from spica_quality.science.photometry.stamps import LOST, PILED, SOUND

from tests.support.ccdsim import VARYING, PsfField
from tests.unit.quality.placed import true_psf

N = 31
SHAPE = (1000, 1000)
MODEL = true_psf(VARYING, SHAPE)
ARRAYS = psfphot.psf_arrays(MODEL)
ROOM = psfphot.psf_room(ARRAYS)


def fit(
    values: np.ndarray,
    state: np.ndarray | None = None,
    start: tuple[float, float] = (15.0, 15.0),
    *,
    noise: float = 1.0,
    gain: float = 0.0,
    flux: float = 0.0,
) -> np.void:
    state = np.full(values.shape, SOUND, np.uint8) if state is None else state
    result = np.zeros(1, psfphot.PSF_FIT)
    for name in psfphot.PSF_FIT.names or ():
        if name != "steps":
            result[name] = np.nan
    psfphot.place_psf(ARRAYS, 500.0, 500.0, ROOM)
    inverse_gain = 1.0 / gain if gain else 0.0
    psfphot.fit_psf(values, state, *start, noise**2, inverse_gain, flux, ARRAYS, ROOM, result[0])
    return result[0]


def star(x: float, y: float, flux: float) -> np.ndarray:
    """As the model says at (500, 500), at (x, y) of a stamp of N px."""
    from spica_quality.science.psf.model import render

    stamp = np.empty((N, N), np.float32)
    render(MODEL.grid(500.0, 500.0), MODEL.step_px, x - N // 2, y - N // 2, stamp)
    return np.asarray(flux * stamp)


@settings(max_examples=40, deadline=None)
@given(
    st.floats(13.5, 16.5), st.floats(13.5, 16.5), st.floats(50.0, 1e6), st.floats(-0.9, 0.9), st.floats(-0.9, 0.9),
    st.sampled_from([0.0, 1.5]), st.floats(0.2, 3.0),
)  # fmt: skip
def test_a_star_without_noise_gives_its_flux_and_place(
    x: float, y: float, flux: float, dx: float, dy: float, gain: float, guess: float
) -> None:
    found = fit(star(x, y, flux), start=(x + dx, y + dy), gain=gain, flux=guess * flux)
    # What is taken off for the free position is known, and added again.
    assert found["flux"] + found["flux_variance"] / flux == pytest.approx(flux, rel=2e-3)
    assert (found["x"], found["y"]) == pytest.approx((x, y), abs=0.01)
    assert found["spread"] == pytest.approx(0.0, abs=2e-4)
    assert found["steps"] > 0


def test_errors_are_the_scatter_and_faint_fluxes_are_not_biased() -> None:
    random = np.random.default_rng(2)
    for flux, copies in ((400.0, 1500), (20_000.0, 400)):
        clean, noise, gain = np.maximum(star(15.2, 14.9, flux), 0.0), 6.0, 1.6
        found = np.array(
            [
                fit((random.poisson(clean * gain) / gain + random.normal(0, noise, clean.shape)).astype(np.float32),
                    noise=noise, gain=gain, flux=flux)
                for _ in range(copies)
            ]
        )  # fmt: skip
        error = np.sqrt(np.median(found["flux_variance"]))
        assert np.std(found["flux"]) == pytest.approx(error, rel=0.1)
        assert np.mean(found["flux"]) == pytest.approx(flux, abs=3.0 * error / np.sqrt(copies))
        if flux > 10 * error:
            assert np.std(found["x"]) == pytest.approx(np.sqrt(np.median(found["xx"])), rel=0.1)
            assert np.std(found["y"]) == pytest.approx(np.sqrt(np.median(found["yy"])), rel=0.1)
            assert np.mean([found["x"], found["y"]], axis=1) == pytest.approx([15.2, 14.9], abs=0.005)
            assert np.mean(found["chi2"]) == pytest.approx(1.0, abs=0.03)
        assert np.std(found["spread"]) == pytest.approx(
            np.sqrt(np.median(found["spread_variance"])), rel=0.15
        )


def test_the_disc_makes_the_profile_wider_by_its_own_moments() -> None:
    """Second moments add up: those of exp(-r / h) / (2 pi h²) are 3 h² along each axis."""
    m, h = 41, 1.7
    axis = np.arange(m) - m // 2
    gauss = np.exp(-0.5 * (axis[:, None] ** 2 + axis[None, :] ** 2) / 2.5**2)
    cube = np.stack([gauss / gauss.sum(), 0.1 * gauss]).astype(np.float32)
    wide = psfphot.with_disc(cube, h).astype(np.float64)
    assert wide.shape == cube.shape
    assert wide[0].sum() == pytest.approx(1.0, abs=0.002)
    second = [(plane * axis[None, :] ** 2).sum() / plane.sum() for plane in (cube[0], wide[0])]
    assert second[1] - second[0] == pytest.approx(3 * h**2, rel=0.03)
    # A disc much smaller than a sample changes next to nothing.
    assert psfphot.with_disc(cube, 0.01) == pytest.approx(cube, abs=2e-5)
    # The plain way: the profile times the disc, point by point on a finer grid.
    r = np.hypot(axis[:, None], axis[None, :])
    fine = np.arange(-60, 61) / 4.0
    disc = np.exp(-np.hypot(fine[:, None], fine[None, :]) / h) / (2 * np.pi * h**2) / 16.0
    near = [(0, 0), (2, 0), (3, -4)]
    for dy, dx in near:
        shifted = np.exp(-0.5 * ((dy - fine[:, None]) ** 2 + (dx - fine[None, :]) ** 2) / 2.5**2)
        expected = (disc * shifted).sum() / gauss.sum()
        assert wide[0][m // 2 + dy, m // 2 + dx] == pytest.approx(expected, rel=0.01)
    assert r.shape == (m, m)


def test_spread_model_is_above_zero_for_wide_sources_and_below_for_sharp_ones() -> None:
    wide = sum(star(15 + dx, 15 + dy, 1000.0) for dx in (-1.6, 0.0, 1.6) for dy in (-1.6, 0.0, 1.6))
    sharp = np.zeros((N, N), np.float32)
    sharp[15, 15] = 5000.0
    assert fit(np.asarray(wide, np.float32))["spread"] > 0.005
    assert fit(sharp)["spread"] < -0.005


def test_pixels_that_are_not_sound_do_not_count() -> None:
    values, state = star(15.2, 14.8, 1e5), np.full((N, N), SOUND, np.uint8)
    state[13:17, 14:17], state[10, 12], state[20:, :] = PILED, LOST, LOST
    clean = fit(values, state)
    assert clean["flux"] == pytest.approx(1e5, rel=3e-3)
    assert (clean["x"], clean["y"]) == pytest.approx((15.2, 14.8), abs=0.02)
    values[state != SOUND] = 1e7
    assert fit(values, state)["flux"] == pytest.approx(float(clean["flux"]))
    state[:] = LOST
    assert np.isnan(fit(values, state)["flux"])


@pytest.mark.parametrize("level", [0.0, -4.0])
def test_where_there_is_no_star_the_flux_alone_is_fitted(level: float) -> None:
    found = fit(np.full((N, N), level, np.float32))
    assert found["steps"] == 0
    assert (found["x"], found["y"]) == (15.0, 15.0)
    assert found["flux"] <= 0.0
    assert np.isnan(found["xx"])


def test_a_start_far_off_comes_back_to_its_start() -> None:
    found = fit(star(20.0, 15.0, 1e5), start=(15.0, 15.0))
    assert found["steps"] == 0
    assert (found["x"], found["y"]) == (15.0, 15.0)


def test_the_disc_s_width_goes_with_the_stars() -> None:
    narrow = psfphot.psf_arrays(true_psf(PsfField(fwhm_px=3.0), SHAPE))
    assert narrow.disc.shape == narrow.cube.shape
    assert narrow.disc[0].max() < narrow.cube[0].max()
    assert narrow.disc[0].sum() == pytest.approx(narrow.cube[0].sum(), abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.floats(-1.0, 1.0), st.floats(1e-5, 1.0), st.floats(1e-3, 0.5))
def test_likeness_is_a_probability_and_agrees_with_plain_integration(
    excess: float, error: float, scale: float
) -> None:
    (found,) = star_likeness(np.array([excess]), np.array([error]), scale)
    assert 0.0 <= found <= 1.0
    s = np.linspace(0.0, 40.0 * scale, 200_001)
    if not 1e-3 * scale < error:
        return
    prior = s * np.exp(-s / scale) / scale**2
    step = s[1] - s[0]

    def normal(z: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * (z / error) ** 2) / np.sqrt(2 * np.pi) / error

    star, larger = float(normal(np.array(excess))), float((prior * normal(excess - s)).sum() * step)
    sharper = 0.1 * float((prior * normal(excess + s)).sum() * step)
    if star + larger + sharper > 1e-250:
        assert found == pytest.approx(star / (star + larger + sharper), abs=2e-3)


def test_class_star_takes_the_size_where_there_is_no_spread_and_zero_without_either() -> None:
    nan = np.nan
    found = class_star(
        np.array([0.0, 0.02, nan, nan, nan, -0.03]),
        np.array([5e-4, 5e-4, nan, nan, nan, 5e-4]),
        np.array([2.0, 0.0, 0.0, 1.0, nan, 0.0]),
        np.array([0.1, 0.1, 0.01, 0.01, nan, 0.1]),
    )
    assert found.dtype == np.float32
    assert found[0] > 0.9
    assert found[1] < 0.01
    assert found[2] > 0.8
    assert found[3] < 0.01
    assert found[4] == 0.0
    assert found[5] < 0.01
    # Nothing known: neither likely nor unlikely.
    assert class_star(*(np.array([v]) for v in (0.0, 1.0, nan, nan)))[0] == pytest.approx(0.48, abs=0.05)
