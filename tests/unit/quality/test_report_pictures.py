"""Pictures of the report: where things are, what is marked, that nothing measured is no reason to fall over."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from spica_imaging.sections import Section
from spica_imaging.wcs import TpvWcs
from spica_quality.report.diagrams import Everything, all_sources, saturation_mag
from spica_quality.report.encoding import stretch
from spica_quality.report.focal import width_slope
from spica_quality.report.gathering import SATURATED, STAR, CcdPictures, gather
from spica_quality.report.layout import lay_out
from spica_quality.report.mosaics import (
    deviation_mosaic,
    image_mosaic,
    level_mosaic,
    mask_mosaic,
    weight_mosaic,
)
from spica_quality.report.outliers import outlying
from spica_quality.report.preview import Caption, draw_preview
from spica_quality.report.remarks import Seen, marks, remarks
from spica_quality.science.psf.typicalstar import moffat_psf, typical_star
from spica_reporting.colours import diverging, paint, sequential
from spica_reporting.svg import tick_text, ticks

from tests.support import reporting

CAPTION = Caption("900001p", ("MegaSim   filter r",), "B", ("B: FWHM 1.12″ > 1.00″",))


@pytest.fixture(scope="module")
def exposure() -> reporting.Exposure:
    return reporting.exposure()


def seen(exposure: reporting.Exposure) -> Seen:
    layout = lay_out(exposure.ccds)
    sources = all_sources(exposure.ccds, exposure.rows, exposure.image)
    return Seen(exposure.image, exposure.rows, exposure.ccds, layout, sources, 300.0)


# ---- where things are ----


def test_north_is_up_and_east_is_left(exposure: reporting.Exposure) -> None:
    layout = lay_out(exposure.ccds)
    assert layout.on_sky
    middles = [layout.corners(index).mean(axis=0) for index in range(9)]
    # The support's CCDs: column 2 is east of column 0, line 0 north of line 2.
    assert middles[2][0] < middles[1][0] < middles[0][0]
    assert middles[0][1] < middles[3][1] < middles[6][1]
    assert layout.arcsec == pytest.approx(3.1 * 160 * 0.2 / 1.25, rel=0.3)


@pytest.mark.parametrize("index", [0, 5])
def test_a_place_on_a_ccd_is_found_again(exposure: reporting.Exposure, index: int) -> None:
    layout = lay_out(exposure.ccds)
    rows, columns, x, y = layout.pixels(index, 400)
    place = layout.place(index, np.array([30.0]), np.array([100.0]))[0] * 400
    row, column = int(place[1]) - rows.start, int(place[0]) - columns.start
    step = 1.0 / (400 * np.hypot(*layout.matrices[index][:, 0]))
    assert abs(x[row, column] - 30.0) <= step
    assert abs(y[row, column] - 100.0) <= step


def test_without_a_wcs_ccds_lie_side_by_side_right_way_up() -> None:
    pictures = [reporting.ccd(index, on_sky=False, n_ccds=2)[1] for index in (0, 1)]
    layout = lay_out(pictures)
    assert not layout.on_sky
    first, second = layout.corners(0), layout.corners(1)
    assert first[:, 0].max() < second[:, 0].min()
    bottom, top = layout.place(0, np.array([0.0, 0.0]), np.array([0.0, 159.0]))
    assert bottom[1] > top[1]


def test_mosaics_put_each_ccd_at_its_place(exposure: reporting.Exposure) -> None:
    layout = lay_out(exposure.ccds)
    level = level_mosaic(exposure.ccds, layout, 300)
    for index in range(9):
        column, row = (layout.corners(index).mean(axis=0) * 300).astype(int)
        if index == 4:
            assert np.isnan(level[row, column])
        else:
            assert 1000 + index <= level[row, column] <= 1004 + index
    weight = weight_mosaic(exposure.ccds, layout, 300)
    column, row = (layout.corners(4).mean(axis=0) * 300).astype(int)
    assert weight[row, column] == 0
    assert np.nanmedian(weight) == pytest.approx(1.0, abs=0.05)
    assert image_mosaic(exposure.ccds, layout, 300).shape == (round(300 * layout.height), 300)
    assert mask_mosaic(exposure.ccds, layout, 300)[row, column] != 0


def test_the_plane_and_offsets_of_ccds_are_taken_off(exposure: reporting.Exposure) -> None:
    # The support's sky has an offset per CCD and the same rise along x: on the sky it changes sign with the CCD,
    # so only those that stand the same way are compared.
    some = exposure.ccds[:3]
    deviation = deviation_mosaic(some, lay_out(some), 300)
    assert np.nanmax(np.abs(deviation)) < 1e-2


def test_the_preview_is_the_same_every_time_and_fits(exposure: reporting.Exposure) -> None:
    first = draw_preview(exposure.ccds, CAPTION)
    assert first == draw_preview(exposure.ccds, CAPTION)
    with Image.open(io.BytesIO(first)) as picture:
        assert picture.width == 900
    with Image.open(io.BytesIO(draw_preview([], Caption("x" * 500, ("y" * 500,), "D")))) as picture:
        assert picture.width == 900


@pytest.mark.parametrize(
    ("cd", "left", "top"),
    [
        (((-1e-4, 0), (0, 1e-4)), 0.2, 0.2),  # x towards west, y towards north: the last row is up
        (((1e-4, 0), (0, -1e-4)), 0.8, 0.8),  # turned by 180 degrees
        (((0, 1e-4), (1e-4, 0)), 0.2, 0.8),  # y towards east, x towards north
    ],
)
def test_a_bright_corner_is_where_it_is_on_the_sky(
    cd: tuple[tuple[float, float], tuple[float, float]], left: float, top: float
) -> None:
    data = np.random.default_rng(1).normal(0, 1, (60, 60)).astype(np.float32)
    data[45:51, 9:15] = 1000.0  # upper left, as FITS viewers show it
    wcs = TpvWcs((150.0, 2.0), (30.5, 30.5), cd)
    flags = np.zeros((60, 60), np.uint16)
    pictures = gather(data, flags, None, {}, {"name": "a"}, section=Section(0, 60, 0, 60), wcs=wcs)
    mosaic = image_mosaic([pictures], lay_out([pictures]), 300)
    rows, columns = np.nonzero(mosaic > 200)
    assert columns.mean() / mosaic.shape[1] == pytest.approx(left, abs=0.02)
    assert rows.mean() / mosaic.shape[0] == pytest.approx(top, abs=0.02)


# ---- scales and colours ----


def test_the_stretch_rises_and_shows_the_noise() -> None:
    levels = stretch(np.array([-100.0, -1.0, 0.0, 1.0, 10.0, 1e6, np.nan], np.float32), 0.0, 1.0).astype(int)
    assert levels[0] == 0
    assert list(levels[:6]) == sorted(levels[:6])
    assert 4 <= levels[3] - levels[2] <= 15
    assert levels[5] == 255


def test_lightness_of_colours_rises_evenly() -> None:
    grey = sequential().astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(grey) > -1.0).all()
    assert grey[-1] - grey[0] > 150
    middle = diverging()[128].astype(int)
    assert np.ptp(middle) < 12
    assert tuple(paint(np.array([np.nan]), 0, 1, sequential())[0]) == (44, 47, 58)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.2, 7.9), (1e-6, 2e-6), (1e5, 1.2e5)])
def test_ticks_are_round_and_within(low: float, high: float) -> None:
    marks_ = ticks(low, high)
    assert 2 <= len(marks_) <= 12
    assert all(low - 1e-12 <= mark <= high + 1e-12 for mark in marks_)
    words = [tick_text(mark, marks_[1] - marks_[0]) for mark in marks_]
    assert len(set(words)) == len(words)


# ---- what is wrong ----


def test_ccds_that_stand_out_are_found(exposure: reporting.Exposure) -> None:
    levels = outlying(exposure.rows, "fwhm_px")
    assert [index for index, level in enumerate(levels) if level] == [7]
    assert outlying(exposure.rows[:4], "fwhm_px") == [0, 0, 0, 0]
    assert outlying(exposure.rows, "ellipticity") == [0] * 9


def test_remarks_tell_what_is_wrong_and_where(exposure: reporting.Exposure) -> None:
    found = remarks(seen(exposure))
    words = "\n".join(remark.words for remark in found)
    assert "Dead: ccd04" in words
    assert "Trail of a satellite or aircraft on ccd02" in words
    assert "FWHM stands out on ccd07: 1.10″ (typical: 0.71″)" in words
    assert "8 saturated sources" in words
    marked = marks(found, [4])
    assert marked[4] == (2, "not used, dead")
    assert marked[2] == (1, "trail")
    assert marked[7] == (1, "FWHM")
    assert 0 not in marked


def test_a_rise_of_the_width_is_told_with_its_direction() -> None:
    pictures = [reporting.ccd(index, fwhm_px=3.0 + 0.4 * (2 - index // 3), n_ccds=9) for index in range(9)]
    rows, ccds = [one[0] for one in pictures], [one[1] for one in pictures]
    layout = lay_out(ccds)
    slope = width_slope(ccds, layout, rows)
    assert slope is not None
    # Line 0 is the northern one.
    assert slope[0] == pytest.approx(0.25, abs=0.1)
    assert slope[1] < 20 or slope[1] > 340
    exposure = reporting.Exposure(rows, ccds)
    assert any("towards north" in remark.words for remark in remarks(seen(exposure)))


def test_the_magnitude_of_saturation_parts_the_stars() -> None:
    mag = np.linspace(14, 24, 101)
    kind = np.where(mag < 16.05, SATURATED, STAR).astype(np.uint8)
    sources = Everything(mag, np.ones(101), kind, True, True)
    assert saturation_mag(sources) == pytest.approx(16.0, abs=0.1)
    scattered = np.where(np.arange(101) % 9 == 0, SATURATED, STAR).astype(np.uint8)
    assert np.isnan(saturation_mag(Everything(mag, np.ones(101), scattered, True, True)))
    none = Everything(mag, np.ones(101), np.full(101, STAR, np.uint8), True, True)
    assert np.isnan(saturation_mag(none))


def test_what_is_kept_of_a_ccd_is_small(exposure: reporting.Exposure) -> None:
    pictures: CcdPictures = exposure.ccds[2]
    assert pictures.overlay is not None
    with (
        Image.open(io.BytesIO(pictures.overlay)) as overlay,
        Image.open(io.BytesIO(pictures.thumbnail)) as shown,
    ):
        assert overlay.size == shown.size == pictures.thumbnail_px == (120, 160)
        # The trail goes up to the right; the picture's first row is the top one.
        colours = np.asarray(overlay.convert("RGBA"))
    assert tuple(colours[160 - 1 - 80, 100]) == (245, 228, 66, 225)


# ---- the typical star ----


def test_the_right_model_leaves_no_residual_and_a_wrong_one_does() -> None:
    psf = moffat_psf(3.5, 3.0, 0.1, 30.0)
    assert psf is not None
    random = np.random.default_rng(3)
    data = np.zeros((300, 300), np.float32)
    x, y = random.uniform(30, 270, 12), random.uniform(30, 270, 12)
    for k in range(12):
        stamp = psf.at(x[k], y[k])
        reach = stamp.shape[0] // 2
        j, i = int(np.floor(y[k] + 0.5)), int(np.floor(x[k] + 0.5))
        data[j - reach : j + reach + 1, i - reach : i + reach + 1] += 1e4 * stamp
    columns = {"X_IMAGE": x + 1, "Y_IMAGE": y + 1, "FLUX_AUTO": np.full(12, 1e4)}
    flags = np.zeros(data.shape, np.uint16)
    flags[::50] = 32
    stars = np.ones(12, bool)
    right = typical_star(data, flags, 32, columns, stars, psf)
    wrong = typical_star(data, flags, 32, columns, stars, moffat_psf(4.2, 3.0, 0.1, 30.0) or psf)
    assert right is not None
    assert wrong is not None
    assert right.n_stars + 2 >= wrong.n_stars > 4
    peak = float(right.star.max())
    assert np.abs(right.residual).max() < 1e-3 * peak
    assert np.abs(wrong.residual).max() > 0.03 * peak
    assert typical_star(data, flags, 32, columns, ~stars, psf) is None
    assert moffat_psf(float("nan"), 3.0, 0.0, 0.0) is None


def test_shapes_of_stars_and_the_sky_are_put_into_words(exposure: reporting.Exposure) -> None:
    image = {
        **exposure.image, "condition": "ok", "trail_length_px": 6.2, "ellipticity": 0.4,
        "fwhm_with_pixel_px": 1.9, "doubling": 0.3, "doubling_px": 7.5, "central_dip": 0.4,
        "background_gradient_adu": 90.0, "counts_ratio_stars": 0.4,
        "counts_ratio_stars_error": 0.1,
        "offset_ra_arcsec": 3.0, "offset_dec_arcsec": 4.0, "n_ccds_missing": 2, "n_cosmic": 4000, "usable_fraction": 0.4,
    }  # fmt: skip
    words = "\n".join(remark.words for remark in remarks(replace(seen(exposure), image=image)))
    for expected in (
        "smeared over 6.2 px", "a second image 7.5 px away with 30 %", "40 % darker at the centre",
        "Undersampled: stars are 1.90 px", "sky rises by 90 adu", "Fewer stars than expected: 0.40", "off by 5.0 arcsec",
        "2 CCDs of the instrument are missing", "Hot pixels: 4,000", "Only 40.0 % of the pixels",
    ):  # fmt: skip
        assert expected in words, expected
    named = {**image, "condition": "trailed", "condition_reason": "Stars are long."}
    first = remarks(replace(seen(exposure), image=named))[0]
    assert first.words == "Trailed: Stars are long."
    assert first.figure == "psf"
    assert "smeared" not in "\n".join(
        remark.words for remark in remarks(replace(seen(exposure), image=named))
    )


def test_what_varies_over_the_field_is_not_an_outlier(exposure: reporting.Exposure) -> None:
    rows = [
        {**row, "background_adu": 1000.0 + 100.0 * (index % 2) * index}
        for index, row in enumerate(exposure.rows)
    ]
    assert outlying(rows, "background_adu") == [0] * 9
    found = remarks(replace(seen(exposure), rows=rows))
    assert any(
        "Level of the sky varies between 1000.0 adu and 1700.0 adu" in remark.words for remark in found
    )
