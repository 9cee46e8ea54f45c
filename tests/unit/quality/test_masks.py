from __future__ import annotations

import numpy as np
import pytest
from spica_imaging.frame import Section
from spica_quality.science import masks
from spica_quality.science.cosmics import MARGIN, cosmic_mask
from spica_quality.science.masks import Bit

from tests.unit.quality.frames import draw


def flat(shape: tuple[int, int] = (300, 320), sky: float = 200.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(sky, 5.0, shape).astype(np.float32)


def whole(data: np.ndarray) -> Section:
    return Section(0, data.shape[1], 0, data.shape[0])


def test_outside_the_section_and_without_value() -> None:
    data = flat()
    data[10, 60], data[11, 61] = np.nan, np.inf
    flags = masks.initial_flags(data, Section(32, 300, 4, 290))
    assert (flags[:4] == Bit.OUTSIDE).all()
    assert (flags[:, :32] == Bit.OUTSIDE).all()
    assert flags[10, 60] == flags[11, 61] == Bit.NO_VALUE
    assert np.count_nonzero(flags == 0) == 268 * 286 - 2


@pytest.mark.parametrize(("sky", "masked"), [(200.0, True), (0.0, False)])
def test_zeros_are_no_value_only_where_the_sky_is_far_from_zero(sky: float, masked: bool) -> None:
    data = flat(sky=sky)
    data[50:80, 100:140] = 0.0
    flags = masks.initial_flags(data, whole(data))
    assert (flags[50:80, 100:140] == Bit.NO_VALUE).all() == masked


def test_an_external_mask_counts() -> None:
    data = flat()
    external = np.zeros(data.shape, bool)
    external[5, 5] = True
    assert masks.initial_flags(data, whole(data), external)[5, 5] == Bit.NO_VALUE


def test_saturation_shows_where_the_header_is_wrong() -> None:
    data = flat()
    assert masks.saturation_level(data, 60_000.0) == 60_000.0
    data[100:104, 100:105] = 32_700.0
    assert masks.saturation_level(data, 60_000.0) == 32_700.0
    assert masks.saturation_level(np.full((50, 50), 7.0, np.float32), 60_000.0) == 60_000.0


def test_saturated_pixels_are_counted_without_their_neighbours() -> None:
    data = flat()
    data[100, 100] = 61_000.0
    mask, count = masks.saturated(data, 60_000.0, whole(data))
    assert count == 1
    assert np.count_nonzero(mask) == 9
    assert masks.saturated(data, 60_000.0, Section(0, 50, 0, 50))[1] == 0


def test_dead_pixels_but_no_noise() -> None:
    data = flat() - np.float32(200.0)
    data[5, 6] = -60.0
    found = masks.dead(data, np.full(data.shape, 5.0, np.float32))
    assert np.argwhere(found).tolist() == [[5, 6]]


def test_columns_that_stand_out_and_no_others() -> None:
    data = flat((1024, 400)) - np.float32(200.0)
    data[:, 50] += 15.0
    data[256:512, 200:202] -= 20.0
    data[:, 390] = np.nan
    flags = masks.initial_flags(data, whole(data))
    found = masks.bad_columns(data, flags, 5.0)
    assert found[:, 50].all()
    assert found[256:512, 200:202].all()
    assert np.count_nonzero(found) == 1024 + 512


def test_a_bright_star_makes_no_bad_column() -> None:
    sky = draw(n=4, fwhm=30.0, flux=(3e7, 6e7), shape=(512, 512))
    data = sky.data - np.float32(300.0)
    assert not masks.bad_columns(data, masks.initial_flags(data, whole(data)), sky.noise).any()


def test_weight_is_zero_where_flagged_else_one_over_variance() -> None:
    rms = np.full((4, 5), 2.0, np.float32)
    flags = np.zeros((4, 5), np.uint16)
    flags[1, 2], flags[2, 2] = Bit.SATURATED, Bit.COSMIC
    weight = masks.weight_map(rms, flags)
    assert weight[1, 2] == weight[2, 2] == 0.0
    assert np.count_nonzero(weight == 0.25) == 18


# ---- cosmic rays ----


def naive_sharpness(data: np.ndarray, j: int, i: int, sigma: float, noise: float) -> float:
    """The test for one pixel without photon noise, spelt out."""
    best = -np.inf
    for step in (1, 2) if sigma > 1.2 else (1,):
        for dj, di in ((0, 1), (1, 0), (1, 1), (1, -1)):
            distance2 = step**2 * (dj**2 + di**2)
            ratio = MARGIN * np.exp(-distance2 / (2 * sigma**2))
            beside = 0.5 * (data[j + step * dj, i + step * di] + data[j - step * dj, i - step * di])
            best = max(best, (ratio * data[j, i] - beside) / (noise * np.sqrt(ratio**2 + 0.5)))
    ratio = 0.5 * MARGIN * (np.exp(-1 / (2 * sigma**2)) + np.exp(-2 / (2 * sigma**2)))
    ring = (data[j - 1 : j + 2, i - 1 : i + 2].sum() - data[j, i]) / 8
    return max(best, (ratio * data[j, i] - ring) / (noise * np.sqrt(ratio**2 + 0.125)))


def test_the_kernel_agrees_with_its_plain_twin() -> None:
    random = np.random.default_rng(6)
    data = random.normal(0.0, 5.0, (60, 60)).astype(np.float32)
    spots = random.integers(5, 55, (60, 2))
    data[spots[:, 0], spots[:, 1]] += random.uniform(20, 400, 60).astype(np.float32)
    rms = np.full(data.shape, 5.0, np.float32)
    found = cosmic_mask(data, np.zeros(data.shape, bool), rms, 1.7, 0.0, grow_limit=1e9)
    for j in range(3, 57):
        for i in range(3, 57):
            expected = data[j, i] > 20.0 and naive_sharpness(data, j, i, 1.7, 5.0) > 5.0
            assert found[j, i] == expected, (j, i)


@pytest.mark.parametrize(("fwhm", "beta"), [(2.0, None), (2.2, 3.3), (4.0, 3.3), (4.0, None), (7.0, 2.5)])
def test_stars_are_no_cosmics(fwhm: float, beta: float | None) -> None:
    sky = draw(fwhm=fwhm, beta=beta, n=200, flux=(500, 4e5))
    rms = np.full(sky.data.shape, sky.noise, np.float32)
    none = np.zeros(sky.data.shape, bool)
    found = cosmic_mask(sky.data - np.float32(300.0), none, rms, fwhm / 2.355, sky.gain)
    assert np.count_nonzero(found) <= 2


@pytest.mark.parametrize("fwhm", [2.2, 4.0])
def test_cosmics_and_hot_pixels_are_found(fwhm: float) -> None:
    sky = draw(fwhm=fwhm, n=80)
    data = sky.data - np.float32(300.0)
    random = np.random.default_rng(5)
    rows, columns = random.integers(10, 590, 200), random.integers(10, 690, 200)
    far = np.min(np.hypot(columns[:, None] - sky.x, rows[:, None] - sky.y), axis=1) > 8 * fwhm
    rows, columns = rows[far], columns[far]
    data[rows, columns] += 25.0 * sky.noise
    track = [(300 + k, 400 + k // 3) for k in range(20)]
    for j, i in track:
        data[j, i] += 40.0 * sky.noise
    rms = np.full(data.shape, sky.noise, np.float32)
    found = cosmic_mask(data, np.zeros(data.shape, bool), rms, fwhm / 2.355, sky.gain)
    assert found[rows, columns].mean() > 0.98
    assert np.mean([found[j, i] for j, i in track]) > 0.9


def test_stars_beside_pixels_without_value_are_no_cosmics() -> None:
    sky = draw(fwhm=3.4, n=200, flux=(2e3, 4e5), seed=7)
    data = sky.data - np.float32(300.0)
    bad = np.zeros(data.shape, bool)
    bad[:, np.rint(sky.x).astype(int) + 1] = True
    data[bad] = 0.0
    found = cosmic_mask(data, bad, np.full(data.shape, sky.noise, np.float32), 3.4 / 2.355, sky.gain)
    assert np.count_nonzero(found) <= 2


def test_pixels_without_value_are_never_marked() -> None:
    data = flat() - np.float32(200.0)
    data[50:60] = np.nan
    data[100, 100] = 1e6
    bad = ~np.isfinite(data)
    bad[100, 100] = True
    found = cosmic_mask(data, bad, np.full(data.shape, 5.0, np.float32), 1.7, 1.6)
    assert not found.any()
