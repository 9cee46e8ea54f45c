"""The table of figures, and how CCDs make an image."""

from __future__ import annotations

import json
from math import isfinite, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spica_proto.images import Metrics
from spica_quality.metricspage import PAGE, page
from spica_quality.science.metrics.figures import (
    CCD_NAMES,
    FIGURES,
    IMAGE_NAMES,
    IMAGE_ONLY,
    describe,
    image_row,
    number,
    plain,
    row,
)
from spica_quality.science.metrics.summary import summarise

TERAPIX_EXTREMES = (
    "fwhm_arcsec", "half_light_diameter_arcsec", "elongation", "psf_chi2", "psf_residual", "psf_asymmetry",
    "n_psf_stars", "background_adu",
)  # fmt: skip


def test_the_table_says_everything_once_and_in_a_sentence() -> None:
    for figure in FIGURES.values():
        assert (
            figure.about[0].isupper() or figure.about[0].isdigit() or figure.about[0] == "("
        ) and figure.about.endswith("."), figure.name
    assert len(set(IMAGE_NAMES)) == len(IMAGE_NAMES)
    assert not set(IMAGE_ONLY) & set(CCD_NAMES)


@pytest.mark.parametrize(
    ("unit", "ending"),
    [("arcsec", "_arcsec"), ("adu", "_adu"), ("mag", "_mag"), ("deg", "_deg"), ("px", "_px"), ("px²", "_px")],
)
def test_units_stand_in_the_names(unit: str, ending: str) -> None:
    named = {figure.name for figure in FIGURES.values() if figure.unit == unit}
    assert named and all(name.endswith(ending) for name in named if name != "counts_mag")


def test_the_ranges_that_qualityfits_kept_are_there() -> None:
    for name in TERAPIX_EXTREMES:
        assert {f"{name}_min", f"{name}_mean", f"{name}_max"} <= set(IMAGE_NAMES)


def test_every_name_is_described_and_no_other() -> None:
    for name in (*CCD_NAMES, *IMAGE_NAMES):
        assert describe(name).about
    for wrong in ("fwhm", "fwhm_px_min", "n_stars_mean", ""):
        with pytest.raises(KeyError):
            describe(wrong)


def test_the_page_of_metrics_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m spica_quality.metricspage"


def test_what_the_message_carries_has_the_same_names() -> None:
    assert set(Metrics.model_fields) <= set(IMAGE_NAMES)


@given(st.one_of(st.floats(), st.integers(-(10**12), 10**12), st.booleans(), st.text(), st.none()))
def test_values_are_kept_as_json_has_them(value: object) -> None:
    kept = plain(value)
    assert json.loads(json.dumps(kept, allow_nan=False)) == kept
    if isinstance(value, float):
        assert (kept is None) == (not isfinite(value))


def test_numbers_of_libraries_become_plain_ones() -> None:
    assert plain(np.float32(1.23456789)) == 1.23457
    assert type(plain(np.int16(3))) is int
    assert plain(np.bool_(True)) is True
    assert plain(np.float64(nan)) is None
    with pytest.raises(TypeError):
        plain([1.0])


def test_rows_are_complete_and_refuse_what_the_table_does_not_know() -> None:
    values = row({"hdu": 3, "fwhm_px": np.float64(4.0)})
    assert tuple(values) == CCD_NAMES
    assert values["fwhm_px"] == 4.0 and values["n_stars"] is None
    with pytest.raises(KeyError, match="fwhm_inch"):
        row({"fwhm_inch": 1.0})
    with pytest.raises(KeyError, match="hdu"):
        image_row({"hdu": 1})


def ccd(**values: object) -> dict[str, object]:
    return {"n_pixels": 100, "n_usable": 90, "n_saturated": 1, "condition": "ok", **values}


def test_an_image_is_summed_weighted_and_bounded() -> None:
    rows = [
        row(ccd(n_stars=100, fwhm_px=4.0, fwhm_arcsec=0.8, background_adu=100.0, n_psf_stars=80)),
        row(ccd(n_stars=100, fwhm_px=5.0, fwhm_arcsec=1.0, background_adu=120.0, n_psf_stars=60)),
        row(ccd(n_stars=2, fwhm_px=50.0, fwhm_arcsec=10.0, background_adu=110.0, n_psf_stars=0)),
        row(ccd(n_stars=0, condition="dead", n_usable=0)),
    ]
    image = summarise(rows)
    assert tuple(image) == IMAGE_NAMES
    assert image["n_stars"] == 202 and image["n_ccds"] == 4 and image["n_ccds_blank"] == 1
    assert 0.8 <= number(image, "fwhm_arcsec") <= 1.0, "weighted with the stars"
    assert (image["fwhm_arcsec_min"], image["fwhm_arcsec_max"]) == (0.8, 1.0), "two stars are no CCD's seeing"
    assert image["fwhm_arcsec_mean"] == 0.9
    assert (image["n_psf_stars_min"], image["n_psf_stars_max"]) == (0, 80)
    assert image["background_adu_min"] == 100.0 and image["background_adu"] == 110.0
    assert image["ccds_without_stars"] == 0.25
    assert image["usable_fraction"] == 0.675 and image["saturated_fraction"] == 0.01
    assert image["fwhm_spread"] == pytest.approx(1.0 / 4.5, rel=1e-5)
    assert image["psf_chi2"] is None and image["psf_chi2_max"] is None


def test_what_was_measured_on_the_whole_image_wins() -> None:
    image = summarise([row(ccd(background_gradient_adu=3.0))], {"condition": "trailed"})
    assert image["condition"] == "trailed"
    assert image["background_gradient_adu"] == 3.0, "one CCD is the image"
    two = summarise([row(ccd(background_gradient_adu=3.0))] * 2, {"background_gradient_adu": 7.0})
    assert two["background_gradient_adu"] == 7.0


def test_an_image_without_ccds_has_no_figures_and_no_error() -> None:
    image = summarise([])
    assert image["n_ccds"] == 0
    assert all(value is None or value == 0 for value in image.values())


@given(st.lists(st.floats(0.5, 20.0), min_size=1, max_size=40), st.integers(1, 500))
def test_equal_weights_give_the_median(widths: list[float], stars: int) -> None:
    image = summarise([row(ccd(n_stars=stars, fwhm_px=width)) for width in widths])
    assert image["fwhm_px"] == pytest.approx(float(np.median([float(f"{w:.6g}") for w in widths])), rel=1e-5)
