"""Flags of pixels: without value, saturated, bled, dead, in bad columns; amplifiers that see nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_imaging.sections import Section
from spica_quality.science.flags import MEANINGS, UNUSABLE, Bit
from spica_quality.science.masking import marking as masks
from spica_quality.science.masking.bleeding import mark_bleeding
from spica_quality.science.masking.detector import look_at, split

from tests.support.ccdsim import PsfField, Recipe, simulate, small
from tests.unit.quality.frames import draw


class Even:
    """The same noise everywhere."""

    def __init__(self, shape: tuple[int, int], rms: float) -> None:
        self.median_rms, self._nx = rms, shape[1]

    def rms_rows(self, y0: int, y1: int) -> np.ndarray:
        return np.full((y1 - y0, self._nx), self.median_rms, np.float32)


def flat(shape: tuple[int, int] = (300, 320), sky: float = 200.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(sky, 5.0, shape).astype(np.float32)


def whole(data: np.ndarray) -> Section:
    return Section(0, data.shape[1], 0, data.shape[0])


def unflagged(data: np.ndarray) -> np.ndarray:
    return np.zeros(data.shape, np.uint16)


def test_meanings_tell_every_bit_there_is() -> None:
    bits = {name: int(value) for name, value in vars(Bit).items() if name.isupper()}
    assert {name: 1 << bit for bit, name, _ in MEANINGS} == bits
    # A FITS card has 80 columns.
    assert max(len(meaning) for _, _, meaning in MEANINGS) <= 45


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
    data[0, 0] = np.nan
    assert masks.saturation_level(data, 60_000.0) == 60_000.0
    data[100:104, 100:105] = 32_700.0
    assert masks.saturation_level(data, 60_000.0) == 32_700.0
    data[0, 1] = np.inf
    assert masks.saturation_level(data, 60_000.0) == 32_700.0
    assert masks.saturation_level(np.full((50, 50), 7.0, np.float32), 60_000.0) == 60_000.0
    assert masks.saturation_level(np.full((50, 50), np.nan, np.float32), 60_000.0) == 60_000.0


def test_saturated_pixels_are_counted_without_their_neighbours() -> None:
    data = flat()
    data[100, 100] = data[0, 0] = 61_000.0
    flags = unflagged(data)
    flags[99, 99] = Bit.DEAD
    assert masks.mark_saturated(data, flags, 60_000.0) == 2
    assert np.count_nonzero(flags == Bit.SATURATED) == 8 + 4
    assert flags[99, 99] == Bit.DEAD
    outside = np.full(data.shape, Bit.OUTSIDE, np.uint16)
    assert masks.mark_saturated(data, outside, 60_000.0) == 0
    assert (outside == Bit.OUTSIDE).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_saturation_marks_as_its_plain_twin(seed: int) -> None:
    random = np.random.default_rng(seed)
    data = random.choice(
        np.array([1.0, 9.0, np.nan, np.inf], np.float32), (12, 9), p=[0.85, 0.08, 0.05, 0.02]
    )
    before = random.choice(np.array([0, 1, 8], np.uint16), data.shape, p=[0.8, 0.1, 0.1])
    flags = before.copy()
    masks.mark_saturated(data, flags, 9.0)
    for j in range(12):
        for i in range(9):
            near = data[max(j - 1, 0) : j + 2, max(i - 1, 0) : i + 2]
            touched = bool((near >= 9.0).any()) and before[j, i] == 0
            assert flags[j, i] == (Bit.SATURATED if touched else before[j, i])


def test_dead_pixels_but_no_noise() -> None:
    data = flat() - np.float32(200.0)
    data[5, 6], data[7, 8], data[9, 9] = -60.0, np.nan, -np.inf
    flags = unflagged(data)
    flags[9, 9] = Bit.NO_VALUE
    assert masks.mark_dead(data, flags, Even(data.shape, 5.0)) == 1
    assert np.argwhere(flags & Bit.DEAD).tolist() == [[5, 6]]


# ---- columns ----


def test_columns_that_stand_out_and_no_others() -> None:
    data = flat((1024, 400)) - np.float32(200.0)
    data[:, 50] += 15.0
    data[256:512, 200:202] -= 20.0
    data[900:, 300] += 500.0
    data[:, 390] = np.nan
    flags = masks.initial_flags(data, whole(data))
    n = masks.mark_bad_columns(data, flags, 5.0)
    found = (flags & Bit.COLUMN) != 0
    assert found[:, 50].all()
    assert found[256:512, 200:202].all()
    assert found[900:, 300].all()
    assert np.count_nonzero(found) == n == 1024 + 512 + 128


def test_a_column_that_is_off_by_little_shows_by_its_length() -> None:
    data = flat((4096, 128)) - np.float32(200.0)
    data[:, 40] += 1.5  # 0.3 sigma
    flags = unflagged(data)
    assert masks.mark_bad_columns(data, flags, 5.0) > 0
    assert np.unique(np.nonzero(flags)[1]).tolist() == [40]
    assert np.count_nonzero(flags[:, 40]) > 3500


def test_a_bright_star_makes_no_bad_column() -> None:
    sky = draw(n=4, fwhm=30.0, flux=(3e7, 6e7), shape=(512, 512))
    data = sky.data - np.float32(300.0)
    assert masks.mark_bad_columns(data, masks.initial_flags(data, whole(data)), sky.noise) == 0


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e4))
def test_noise_has_no_bad_columns_whatever_its_unit(seed: int, scale: float) -> None:
    data = (np.random.default_rng(seed).normal(0.0, scale, (256, 200))).astype(np.float32)
    assert masks.mark_bad_columns(data, unflagged(data), scale) == 0


# ---- bleeding ----


@pytest.fixture(scope="module")
def bled() -> dict[str, np.ndarray | float]:
    recipe = small(
        Recipe(psf=PsfField(fwhm_px=4.0)), (512, 512), star_mags=(14.0, 20.0), n_stars=120, n_galaxies=0
    )
    drawn = simulate(recipe, 3)
    return {"data": drawn.data, "bled": drawn.bleeding, "noise": drawn.noise_adu}


def test_charge_that_ran_along_columns_is_found_and_little_else(bled: dict[str, np.ndarray]) -> None:
    data, truth = bled["data"], bled["bled"]
    flags = masks.initial_flags(data, whole(data))
    masks.mark_saturated(data, flags, 64_000.0)
    n = mark_bleeding(data, flags, 64_000.0, float(bled["noise"]))
    found = (flags & Bit.BLEED) != 0
    assert n > 100
    assert ((flags & (Bit.BLEED | Bit.SATURATED)) != 0)[truth].all()
    beside = truth | np.roll(truth, 1, axis=1) | np.roll(truth, -1, axis=1)
    assert np.count_nonzero(found & ~beside) <= 0.06 * np.count_nonzero(found)
    # What is left to SATURATED lies within the star itself.
    assert np.count_nonzero(found & truth) > 0.5 * np.count_nonzero(truth)


def test_along_rows_it_is_the_same_turned_over(bled: dict[str, np.ndarray]) -> None:
    data = bled["data"]
    upright, turned = unflagged(data), unflagged(data.T)
    assert mark_bleeding(data, upright, 64_000.0, 30.0) == mark_bleeding(
        np.ascontiguousarray(data.T), turned, 64_000.0, 30.0, readout="rows"
    )
    np.testing.assert_array_equal(upright, turned.T)


def test_a_streak_that_ends_below_saturation_is_followed_to_its_end() -> None:
    data = flat()
    y, x = np.mgrid[:300, :320]
    data += (3e5 * np.exp(-((x - 160) ** 2 + (y - 150) ** 2) / 8.0)).astype(np.float32)
    data[100:200, 160] = 70_000.0
    data[200:230, 160] += np.linspace(20_000, 300, 30, dtype=np.float32)
    np.minimum(data, np.float32(60_000.0), out=data)
    flags = unflagged(data)
    mark_bleeding(data, flags, 60_000.0, 5.0)
    assert ((flags[200:228, 160] & Bit.BLEED) != 0).all()
    assert not flags[235:, 160].any()
    assert not flags[150, 170]


def test_a_saturated_star_that_kept_its_charge_has_not_bled() -> None:
    data = flat()
    y, x = np.mgrid[:300, :320]
    data[np.hypot(x - 100, y - 100) < 12] = 60_000.0
    assert mark_bleeding(data, unflagged(data), 60_000.0, 5.0) == 0


# ---- amplifiers ----


def test_amplifiers_share_the_section() -> None:
    assert split(Section(32, 2080, 0, 4612), 2, 1) == (
        Section(32, 1056, 0, 4612),
        Section(1056, 2080, 0, 4612),
    )
    assert len(split(Section(0, 10, 0, 10), 2, 2)) == 4


def seen(change: object) -> tuple[object, np.ndarray]:
    data = flat((200, 400), sky=1500.0)
    change(data)  # type: ignore[operator]
    flags = masks.initial_flags(data, whole(data))
    return look_at(data, flags, split(whole(data), 2, 1)), flags


@pytest.mark.parametrize(
    ("what", "left", "state"),
    [
        ("constant", lambda part: np.full_like(part, 230.0), "dead"),
        ("no light", lambda part: part * 0.02, "dead"),
        ("bias and read noise", lambda part: 1100.0 + 0.3 * (part - 1500.0), "dead"),
        ("nan", lambda part: np.full_like(part, np.nan), "dead"),
        ("noisy", lambda part: 1500.0 + 6.0 * (part - 1500.0), "noisy"),
    ],
)
def test_one_amplifier_that_is_not_well_is_a_half_dead_ccd(what: str, left: object, state: str) -> None:
    def change(data: np.ndarray) -> None:
        data[:, :200] = left(data[:, :200])  # type: ignore[operator]

    health, flags = seen(change)
    assert health.condition == "half_dead", what
    assert [amplifier.state for amplifier in health.amplifiers] == [state, "ok"]
    assert ((flags[:, :200] & UNUSABLE) != 0).all()
    assert not flags[:, 200:].any()


def test_a_sound_ccd_and_what_makes_it_look_ill() -> None:
    health, flags = seen(lambda data: None)
    assert health.condition == "ok"
    assert abs(health.step_adu) < 1.0
    assert not flags.any()

    def gains(data: np.ndarray) -> None:
        data[:, :200] *= 1.06  # two gains, and a galaxy over half of one
        data[50:150, 20:150] += 3000.0

    health, flags = seen(gains)
    assert health.condition == "ok"
    assert not flags.any()


def test_a_ccd_that_is_blank_or_dead_as_a_whole() -> None:
    assert seen(lambda data: data.fill(7.0))[0].condition == "blank"
    assert seen(lambda data: data.fill(np.nan))[0].condition == "blank"
