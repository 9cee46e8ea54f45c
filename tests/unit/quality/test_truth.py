"""The engine from raw pixels to figures, against what was drawn."""

from __future__ import annotations

import numpy as np
import pytest
from spica_imaging.sections import Section
from spica_quality.science.engine import Frame, measure
from spica_quality.science.metrics.completeness import generator_for
from spica_quality.science.metrics.conditions import Circumstances, frame_condition
from spica_quality.science.metrics.depth import limiting_flux
from spica_quality.science.metrics.figures import Figures, number
from spica_quality.science.metrics.summary import summarise

from tests.support import mishaps
from tests.support.ccdsim import Exposure, PsfField, Recipe, _draw_stars, simulate, small

GAIN, READ_NOISE, ZERO = 1.62, 5.0, 33.0
ARCSEC_PER_PX = 0.187


def figures_of(data: np.ndarray) -> Figures:
    ny, nx = data.shape
    frame = Frame(
        data.copy(),
        Section(0, nx, 0, ny),
        GAIN,
        64_000.0,
        pixel_scale_arcsec=ARCSEC_PER_PX,
        zeropoint_mag=ZERO,
    )
    return measure(frame, random=generator_for("truth")).figures


def true_limit_mag(exposure: Exposure, fwhm: float) -> float:
    """Of an optimal fit of the profile that was drawn, in the noise that was drawn."""
    half, one = int(6 * fwhm) + 2, np.ones(1)
    stamp = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    _draw_stars(stamp, half * one, half * one, 1e6 * one, fwhm * one, 0 * one, 0 * one, 3.3, 1e-3)
    return ZERO - 2.5 * float(np.log10(limiting_flux(stamp / np.float32(1e6), exposure.noise_adu, GAIN)))


@pytest.mark.parametrize("seeing_arcsec", [0.5, 0.8, 1.5])
def test_seeing_and_depth_are_those_drawn(seeing_arcsec: float) -> None:
    fwhm = seeing_arcsec / ARCSEC_PER_PX
    recipe = small(Recipe(), (700, 700), n_stars=150, n_cosmics=30, psf=PsfField(fwhm_px=fwhm))
    exposure = simulate(recipe, seed=3)
    found = figures_of(exposure.data)
    assert found["condition"] == "ok"
    assert number(found, "fwhm_arcsec") == pytest.approx(seeing_arcsec, rel=0.02)
    assert number(found, "limiting_mag") == pytest.approx(true_limit_mag(exposure, fwhm), abs=0.05)
    assert number(found, "completeness50_error_mag") < 0.06


@pytest.fixture(scope="module")
def field() -> Exposure:
    recipe = small(Recipe(), (700, 700), n_stars=120, n_galaxies=80, n_cosmics=30, psf=PsfField(fwhm_px=3.5))
    return simulate(recipe, seed=3)


def condition(data: np.ndarray) -> str:
    return frame_condition(summarise([figures_of(data)]), Circumstances(GAIN, READ_NOISE)).name


def test_conditions_survive_the_whole_way(field: Exposure) -> None:
    dark_half = np.ones(field.data.shape, np.float32)
    dark_half[:, :350] = 0.0
    frames = {
        "ok": field.data,
        "trailed": mishaps.spoil(field, mishaps.smear(14.0, 30.0)),
        "doubled": mishaps.spoil(field, mishaps.jump(7.0, 4.0, 0.5)),
        "dark": mishaps.dark(field.recipe, 1),
        "half_empty": mishaps.spoil(field, lit=dark_half),
        "no_stars": mishaps.spoil(field, clouds=0.001),
        "blank": np.zeros((300, 300), np.float32),
    }
    assert {name: condition(data) for name, data in frames.items()} == {name: name for name in frames}


@pytest.mark.parametrize("outer_px", [8.0, 16.0, 28.0])
def test_rings_survive_the_whole_way(field: Exposure, outer_px: float) -> None:
    assert condition(mishaps.spoil(field, mishaps.annulus(outer_px))) == "out_of_focus"
