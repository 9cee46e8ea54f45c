"""What the CCD adds: charge that runs over, noise of the right size, blemishes."""

from __future__ import annotations

import numpy as np
import pytest
from spica_simulator.detector import (
    FULL_WELL_ADU,
    GAIN_E_PER_ADU,
    READ_NOISE_E,
    SATURATION_ADU,
    add_cosmics,
    add_trail,
    bleed,
    read_out,
)


def test_bleeding_moves_charge_along_columns_and_loses_none() -> None:
    image = np.full((200, 5), 100.0)
    image[100, 2] = 5e5
    before = image.sum(axis=0)
    bleed(image, FULL_WELL_ADU)
    assert image.sum(axis=0) == pytest.approx(before)
    assert image.max() <= FULL_WELL_ADU
    full = np.flatnonzero(image[:, 2] > SATURATION_ADU)
    assert len(full) in (7, 8)
    assert full.min() < 100 < full.max()
    assert (image[:, [0, 1, 3, 4]] == 100.0).all()


def test_noise_is_that_of_photons_and_of_the_amplifier() -> None:
    pixels = read_out(np.full((400, 400), 300.0), (), 0.0, np.random.default_rng(3)).astype(float)
    expected = np.sqrt(300.0 / GAIN_E_PER_ADU + (READ_NOISE_E / GAIN_E_PER_ADU) ** 2 + 1 / 12)
    assert pixels.mean() == pytest.approx(300.0, abs=4 * expected / 400)
    assert pixels.std() == pytest.approx(expected, rel=0.01)


def test_bad_columns_are_dead_or_hot() -> None:
    pixels = read_out(np.full((50, 50), 200.0), ((7, 0.0), (9, 500.0)), 0.0, np.random.default_rng(1))
    assert (pixels[:, 7] == 0).all()
    assert pixels[:, 9].mean() == pytest.approx(700, abs=20)
    assert pixels[:, 8].mean() == pytest.approx(200, abs=20)


def test_cosmic_rays_are_as_many_as_they_should_be_and_sharp() -> None:
    image = np.zeros((1000, 1000))
    number = add_cosmics(image, 2400.0, np.random.default_rng(2))
    assert number == pytest.approx(100, abs=35)
    assert number <= (image > 0).sum() < 30 * number


def test_a_trail_crosses_and_falls_off() -> None:
    image = np.zeros((60, 60))
    add_trail(image, 0.0, 1.0, 30.0, 100.0, 4.0)
    assert image[30] == pytest.approx(np.full(60, 100.0))
    assert image[32, 5] == pytest.approx(50.0)
    assert image[50].max() == 0
