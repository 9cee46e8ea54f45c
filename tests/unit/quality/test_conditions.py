"""Frames on which something went wrong are known by name; sound ones are not accused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from spica_quality.science.background.sky import measure_sky, subtract
from spica_quality.science.detection.segmentation import detect
from spica_quality.science.flags import Bit
from spica_quality.science.metrics.conditions import (
    CCD_CONDITIONS,
    FRAME_CONDITIONS,
    Circumstances,
    Condition,
    among_others,
    ccd_condition,
    frame_condition,
    lit_fraction,
    missing_ccds,
)
from spica_quality.science.metrics.figures import Figures, number, row
from spica_quality.science.metrics.gradients import ccd_gradient
from spica_quality.science.metrics.summary import summarise
from spica_quality.science.psf.starshapes import star_shapes

from tests.support import mishaps
from tests.support.ccdsim import Exposure, PsfField, Recipe, simulate, small

Pixels = NDArray[np.float32]

GAIN, READ_NOISE, SATURATION = 1.62, 5.0, 64_000.0
SHAPE = (700, 700)
FIELD = small(Recipe(), SHAPE, n_stars=150, n_galaxies=100, n_cosmics=60, psf=PsfField(fwhm_px=3.5))


@pytest.fixture(scope="module")
def field() -> Exposure:
    return simulate(FIELD, seed=3)


def measured(data: Pixels) -> Figures:
    """The figures that conditions are told from."""
    pixels = data.copy()
    flags = np.zeros(pixels.shape, np.uint16)
    flags[~np.isfinite(pixels)] = Bit.NO_VALUE
    flags[pixels >= SATURATION] = Bit.SATURATED
    sky = measure_sky(pixels, flags)
    values: dict[str, Any] = {
        "n_pixels": pixels.size,
        "n_usable": np.count_nonzero(flags == 0),
        "usable_fraction": np.mean(flags == 0),
        "n_saturated": np.count_nonzero(flags == Bit.SATURATED),
        "saturation_adu": SATURATION,
        "pixel_scale_arcsec": 0.187,
        "background_adu": sky.median_level,
        "background_rms_adu": sky.median_rms,
        "lit_fraction": lit_fraction(sky.level_mesh, sky.rms_mesh),
        **ccd_gradient(sky.level_mesh, pixels.shape).figures(),
    }
    if sky.median_rms > 0:
        subtract(pixels, flags, sky)
        found, _ = detect(pixels, flags, sky, fwhm_px=3.0, threshold_sigma=6.0, deblend=False)
        shapes = star_shapes(
            pixels, flags, found.x_peak.astype(float), found.y_peak.astype(float), found.peak,
            noise_adu=sky.median_rms, ceiling_adu=0.9 * (SATURATION - sky.median_level),
        )  # fmt: skip
        values |= {**shapes.figures(), "n_sources": len(found), "n_stars": shapes.n_alike}
    values |= ccd_condition(values).figures()
    return row(values)


def condition(data: Pixels, **changes: float) -> Condition:
    """Of an image of one CCD."""
    image = summarise([measured(data)])
    return frame_condition({**image, **changes}, Circumstances(GAIN, READ_NOISE))


# ---- sound frames ----


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"psf": PsfField(fwhm_px=1.7, beta=5.0)},
        {"psf": PsfField(fwhm_px=8.0, beta=2.5)},
        {"psf": PsfField(fwhm_px=3.5, e1=(0.06, 0.03, 0.0), fwhm_slope=(0.1, -0.05))},
        {"n_stars": 2500, "n_galaxies": 0},
        {"n_stars": 25, "n_galaxies": 30, "n_cosmics": 0},
        {"sky_adu": 10.0},
        {"sky_adu": 12_000.0, "sky_gradient": (0.3, 0.1)},
        {"trails": 2, "bad_columns": (100, 101, 350), "n_cosmics": 400},
    ],
    ids=lambda changes: ",".join(changes) or "plain",
)
def test_a_sound_frame_is_ok(changes: dict[str, Any]) -> None:
    found = condition(simulate(replace(FIELD, **changes), seed=11).data)
    assert found == Condition("ok", "")


def test_thin_clouds_are_no_condition_without_expected_counts(field: Exposure) -> None:
    assert condition(mishaps.spoil(field, clouds=0.2)).name == "ok"


# ---- what can go wrong ----


@pytest.mark.parametrize(("length", "angle"), [(9.0, 20.0), (15.0, -60.0), (30.0, 90.0)])
def test_lost_guiding(field: Exposure, length: float, angle: float) -> None:
    values = measured(mishaps.spoil(field, mishaps.smear(length, angle)))
    found = frame_condition(summarise([values]))
    assert found.name == "trailed"
    assert number(values, "trail_length_px") == pytest.approx(length, rel=0.12)
    apart = (number(values, "trail_angle_deg") - angle + 90.0) % 180.0 - 90.0
    assert apart == pytest.approx(0.0, abs=6.0)
    assert "px long" in found.reason


@pytest.mark.parametrize(("dx", "dy", "second"), [(5.0, 2.0, 0.6), (-4.0, 8.0, 0.2), (16.0, 12.0, 1.0)])
def test_two_images_of_every_star(field: Exposure, dx: float, dy: float, second: float) -> None:
    values = measured(mishaps.spoil(field, mishaps.jump(dx, dy, second)))
    found = frame_condition(summarise([values]))
    assert found.name == "doubled"
    assert number(values, "doubling_px") == pytest.approx(np.hypot(dx, dy), abs=0.6)
    assert number(values, "doubling") == pytest.approx(second, abs=0.35 if second > 0.9 else 0.12)


@pytest.mark.parametrize("outer", [8.0, 14.0, 26.0])
def test_out_of_focus(field: Exposure, outer: float) -> None:
    assert condition(mishaps.spoil(field, mishaps.annulus(outer))).name == "out_of_focus"


def test_a_dark_is_dark_whatever_hot_pixels_and_cosmic_rays_are_on_it() -> None:
    for n_hot, n_cosmics in ((900, 100), (20, 350)):
        frame = mishaps.dark(FIELD, 5, n_hot=n_hot, n_cosmics=n_cosmics)
        values = measured(frame)
        assert number(values, "n_sources") > 100, (
            "a test that could fail: there is plenty to be taken for stars"
        )
        assert frame_condition(summarise([values]), Circumstances(GAIN, READ_NOISE)).name == "dark"
        assert values["condition"] == "no_stars"


def test_behind_thick_clouds_there_is_light_but_no_star(field: Exposure) -> None:
    hidden = mishaps.spoil(field, clouds=0.001)
    assert condition(hidden).name == "no_stars"
    assert condition(hidden, counts_ratio_stars=0.0, counts_mag=22.0).name == "clouded"


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("width", [0.003, 0.05])
def test_half_of_the_light(field: Exposure, axis: int, width: float) -> None:
    along = np.linspace(0.0, 1.0, SHAPE[axis])
    edge = 1.0 / (1.0 + np.exp(-(along - 0.5) / width))
    lit = np.broadcast_to(edge[:, None] if axis == 0 else edge[None, :], SHAPE).astype(np.float32)
    values = measured(mishaps.spoil(field, lit=lit))
    assert values["condition"] == "half_dead"
    assert number(values, "lit_fraction") == pytest.approx(0.5, abs=0.2)
    assert frame_condition(summarise([values]), Circumstances(GAIN, READ_NOISE)).name == "half_empty"


def test_half_without_values(field: Exposure) -> None:
    half = field.data.copy()
    half[:, : SHAPE[1] // 2] = np.nan
    assert condition(half).name == "half_empty"


def test_twilight_and_saturation(field: Exposure) -> None:
    assert condition(field.data + np.float32(30_000.0)).name == "twilight"
    assert condition(np.minimum(field.data * np.float32(100.0), np.float32(SATURATION))).name == "saturated"


def test_with_a_zero_point_the_sky_tells_twilight(field: Exposure) -> None:
    # 1,500 adu in 0.035 square arcsec: 33 - 11.6 = 21.4 mag per square arcsec; 27.5 makes it 15.9.
    assert condition(field.data, zeropoint_mag=33.0).name == "ok"
    assert condition(field.data, zeropoint_mag=27.5).name == "twilight"


@pytest.mark.parametrize("value", [0.0, 300.0, np.nan])
def test_a_blank_frame(value: float) -> None:
    values = measured(np.full((300, 300), value, np.float32))
    assert values["condition"] == "blank"
    assert frame_condition(summarise([values])).name == "blank"


# ---- from figures alone ----


SOUND: dict[str, Any] = {
    "n_ccds": 36, "n_ccds_blank": 0, "n_ccds_missing": 0, "background_adu": 800.0, "background_rms_adu": 25.0,
    "saturation_adu": 60_000.0, "saturated_fraction": 0.001, "usable_fraction": 0.98, "lit_fraction": 1.0,
    "n_stars": 3000, "n_sources": 50_000, "n_bright": 2000, "star_share": 0.7, "n_star_like": 1400,
    "star_width_px": 4.0, "star_length_px": 4.3, "doubling": 0.0, "central_dip": 0.0, "pixel_scale_arcsec": 0.187,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "ok"),
        ({"n_ccds": 0}, "no_pixels"),
        ({"n_ccds": 0, "background_rms_adu": None}, "no_pixels"),
        ({"background_rms_adu": None}, "blank"),
        ({"saturated_fraction": 0.6}, "saturated"),
        ({"background_adu": 58_000.0}, "saturated"),
        ({"background_adu": 30_000.0}, "twilight"),
        ({"background_adu": 30_000.0, "zeropoint_mag": 33.0}, "ok"),
        ({"n_stars": 0, "n_bright": 3}, "no_stars"),
        ({"n_star_like": 100}, "no_stars"),
        ({"n_star_like": 200}, "ok"),
        ({"n_star_like": 0, "n_bright": 14, "n_stars": 2}, "ok"),
        ({"n_star_like": 1, "n_bright": 15}, "no_stars"),
        ({"n_star_like": 100, "background_rms_adu": 3.5}, "dark"),
        ({"n_star_like": 1400, "background_rms_adu": 3.5}, "ok"),
        ({"central_dip": 0.4}, "out_of_focus"),
        ({"star_width_px": 30.0, "star_length_px": 31.0}, "out_of_focus"),
        ({"star_width_px": 14.0, "star_length_px": 15.0, "pixel_scale_arcsec": 0.05}, "ok"),
        ({"star_width_px": 14.0, "star_length_px": 15.0, "pixel_scale_arcsec": None}, "out_of_focus"),
        ({"doubling": 0.3, "doubling_px": 7.0}, "doubled"),
        ({"star_length_px": 9.0, "trail_length_px": 8.0}, "trailed"),
        ({"star_length_px": 9.0, "trail_length_px": 3.0}, "ok"),
        ({"n_ccds_blank": 1, "n_ccds_missing": 2}, "ok"),
        ({"n_ccds_blank": 5}, "missing_ccds"),
        ({"lit_fraction": 0.5}, "half_empty"),
        ({"usable_fraction": 0.4}, "half_empty"),
        ({"counts_ratio_stars": 0.1, "counts_mag": 22.0}, "clouded"),
        ({"counts_ratio_stars": 0.1, "counts_ratio_galaxies": 0.9, "counts_mag": 22.0}, "ok"),
        ({"counts_ratio_stars": 0.5, "counts_mag": 22.0}, "ok"),
        ({"counts_ratio_stars": 3.0, "counts_ratio_galaxies": 9.0, "counts_mag": 22.0}, "wrong_counts"),
    ],
)
def test_limits(changes: dict[str, Any], name: str) -> None:
    found = frame_condition({**SOUND, **changes}, Circumstances(GAIN, READ_NOISE))
    assert found.name == name
    assert (found.reason == "") == (name == "ok")
    assert name == "ok" or name in FRAME_CONDITIONS


def test_a_stack_is_not_measured_by_the_detector() -> None:
    changes = {"background_adu": 0.0, "background_rms_adu": 0.5, "usable_fraction": 0.3, "lit_fraction": None}
    assert frame_condition({**SOUND, **changes}, Circumstances(is_stack=True)).name == "ok"


def test_nothing_known_is_no_accusation_but_of_stars() -> None:
    assert frame_condition({"n_ccds": 1, "background_rms_adu": 3.0}).name == "no_stars"
    assert frame_condition({"n_ccds": 1, "background_rms_adu": 3.0, "n_stars": 5}).name == "ok"
    assert frame_condition({}).name == "no_pixels"


def ccd(level: float, noise: float, n_stars: int = 50) -> Figures:
    values: dict[str, Any] = {
        "background_adu": level, "background_rms_adu": noise, "n_stars": n_stars, "n_sources": 200, "n_bright": 40,
        "n_star_like": 24 if n_stars else 0, "usable_fraction": 1.0, "lit_fraction": 1.0,
    }  # fmt: skip
    return row({**values, **ccd_condition(values).figures()})


def test_a_ccd_without_light_among_others_with_it_is_dead() -> None:
    rows = among_others([ccd(800, 25), ccd(790, 24), ccd(3, 3.2, 0), ccd(810, 26), ccd(700, 23, 0)])
    assert [one["condition"] for one in rows] == ["ok", "ok", "dead", "ok", "no_stars"]
    assert "790" in str(rows[2]["condition_reason"])


def test_in_a_dark_no_ccd_is_dead() -> None:
    rows = among_others([ccd(level, 3.1, 0) for level in (0.1, -0.2, 0.3, 0.0)])
    assert {one["condition"] for one in rows} == {"no_stars"}


def test_a_ccd_with_stars_is_not_dead_however_low_its_sky() -> None:
    assert among_others([ccd(800, 25), ccd(790, 24), ccd(3, 3.2, 40)])[2]["condition"] == "ok"


def test_conditions_of_ccds_have_names() -> None:
    assert ccd_condition({"background_rms_adu": None}).name in CCD_CONDITIONS
    assert ccd_condition({**ccd(800, 25), "usable_fraction": 0.5}).name == "half_dead"
    assert ccd_condition({**ccd(800, 25), "lit_fraction": 0.5}).name == "half_dead"
    assert ccd_condition(ccd(800, 25)).figures() == {"condition": "ok", "condition_reason": None}


@pytest.mark.parametrize(
    ("level", "noise", "share"),
    [
        (np.full((8, 8), 1000.0), np.full((8, 8), 25.0), 1.0),
        (np.r_[np.full((4, 8), 1000.0), np.full((4, 8), 10.0)], np.full((8, 8), 25.0), 0.5),
        (
            np.r_[np.full((4, 8), 1500.0), np.full((4, 8), 1000.0)],
            np.r_[np.full((4, 8), 25.0), np.full((4, 8), 4.0)],
            0.5,
        ),
        (np.random.default_rng(1).normal(0.0, 0.5, (8, 8)), np.full((8, 8), 1.0), 1.0),
    ],
    ids=["even", "no pedestal", "pedestal", "sky subtracted"],
)
def test_light_is_told_by_level_or_noise(level: Any, noise: Any, share: float) -> None:
    assert lit_fraction(level.astype(np.float32), noise.astype(np.float32)) == share


def test_a_large_galaxy_leaves_the_rest_of_the_frame_lit() -> None:
    y, x = np.mgrid[:12, :16]
    noise = (0.031 + 3.0 * np.exp(-np.hypot(y - 7, x) / 1.5)).astype(np.float32)
    assert lit_fraction(noise, noise) == 1.0


def test_boxes_without_a_value_do_not_count_as_dark() -> None:
    level, noise = np.full((8, 8), 1000.0, np.float32), np.full((8, 8), 25.0, np.float32)
    level[0], noise[1], noise[2] = np.nan, np.inf, 0.0
    assert lit_fraction(level, noise) == 1.0
    assert np.isnan(lit_fraction(level[:1], noise[:1]))


def test_ccds_are_missing_where_the_next_larger_number_is_allowed() -> None:
    assert missing_ccds(36, (36, 40, 72)) == 0
    assert missing_ccds(35, (36, 40, 72)) == 1
    assert missing_ccds(38, (36, 40, 72)) == 2
    assert missing_ccds(80, (36, 40, 72)) == 0
    assert missing_ccds(1, ()) == 0
