"""The whole catalogue on drawn scenes: what must not change, and what must be told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_imaging.wcs import TpvWcs
from spica_quality.cataloguefiles import CatalogueFacts, catalogue_header
from spica_quality.science.detection.segments import Segments, Sources
from spica_quality.science.flags import Bit
from spica_quality.science.photometry.catalogue import Columns, add_sky_positions, measure_catalogue

from tests.support.ccdsim import PsfField
from tests.unit.quality.frames import profile
from tests.unit.quality.placed import flat_sky, isophotes_of, true_psf

FWHM = 4.0
NOISE = 5.0
BIG = 260
PSF = true_psf(PsfField(FWHM, 3.0), (BIG, BIG))


def scene(
    stars: list[tuple[float, float, float]], shape: tuple[int, int] = (BIG, BIG), seed: int = 0
) -> np.ndarray:
    """Moffat stars (x, y, flux) and noise, background subtracted."""
    j, i = np.mgrid[: shape[0], : shape[1]]
    image = np.random.default_rng(seed).normal(0.0, NOISE, shape)
    for x, y, flux in stars:
        # Drawn with the pixel's own width: means over a 3×3 raster.
        star = np.mean(
            [
                profile(np.hypot(i - x + a / 3, j - y + b / 3), FWHM, 3.0)
                for a in (-1, 0, 1)
                for b in (-1, 0, 1)
            ],
            axis=0,
        )
        image += flux * star / (np.pi * (0.5 * FWHM) ** 2 / (2 ** (1 / 3.0) - 1) / 2.0)
    return image.astype(np.float32)


STARS = [
    (110.3, 120.6, 3e4),
    (118.9, 124.2, 1.5e4),
    (140.2, 118.1, 2e3),
    (96.0, 160.7, 8e4),
    (150.4, 150.9, 6e3),
]


def measure(
    data: np.ndarray, flags: np.ndarray | None = None, **more: Any
) -> tuple[Columns, Sources, Segments]:
    flags = np.zeros(data.shape, np.uint16) if flags is None else flags
    clean = np.where(flags & ~Bit.SATURATED, 0.0, np.nan_to_num(data, posinf=0.0, neginf=0.0))
    sources, segments = isophotes_of(clean, more.pop("threshold", 3.0 * NOISE), 5)
    return *catalogue(data, flags, sources, segments, **more), sources, segments


def catalogue(
    data: np.ndarray,
    flags: np.ndarray,
    sources: Sources,
    segments: Segments,
    noise: float = NOISE,
    **more: Any,
) -> tuple[Columns]:
    options: dict[str, Any] = {"gain": 1.6, "fwhm_px": FWHM, "psf": PSF, "zeropoint": 30.0, **more}
    sky = flat_sky((data.shape[0], data.shape[1]), noise, 300.0)
    return (measure_catalogue(data, flags, sky, sources, segments, **options),)


@pytest.fixture(scope="module")
def plain() -> tuple[Columns, np.ndarray, Sources, Segments]:
    data = scene(STARS)
    columns, sources, segments = measure(data)
    assert len(sources) == 4  # the first two are one
    return columns, data, sources, segments


LIGHT = ("FLUX_ISO", "FLUX_AUTO", "FLUX_APER", "FLUX_PSF", "FLUXERR_AUTO", "FLUXERR_PSF", "FLUX_MAX")
SIZES = (
    "FLUX_RADIUS",
    "KRON_RADIUS",
    "ERRAWIN_IMAGE",
    "AWIN_IMAGE",
    "SIGMA_ADAPT",
    "SPREAD_MODEL",
    "CHI2_PSF",
    "SNR_WIN",
)
PLACES = ("X_IMAGE", "XWIN_IMAGE", "XPSF_IMAGE")


@settings(max_examples=8, deadline=None)
@given(st.floats(0.01, 1000.0))
def test_fluxes_go_with_the_pixels(
    plain: tuple[Columns, np.ndarray, Sources, Segments], factor: float
) -> None:
    columns, data, sources, segments = plain
    scaled = (data * np.float32(factor)).astype(np.float32)
    flags = np.zeros(data.shape, np.uint16)
    more = replace(sources, flux=sources.flux * factor, peak=sources.peak * factor)
    (found,) = catalogue(scaled, flags, more, segments, NOISE * factor, gain=1.6 / factor)
    for name in LIGHT:
        assert found[name] == pytest.approx(columns[name] * factor, rel=2e-4), name
    for name in (*SIZES, *PLACES):
        assert found[name] == pytest.approx(columns[name], rel=2e-4, abs=1e-5), name
    assert found["MAG_AUTO"] == pytest.approx(columns["MAG_AUTO"] - 2.5 * np.log10(factor), abs=1e-3)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_whole_pixels_to_the_side_change_positions_only(dx: int, dy: int) -> None:
    data, size = scene(STARS), 200
    here, *_ = measure(np.ascontiguousarray(data[30 : 30 + size, 30 : 30 + size]), psf=None)
    there, *_ = measure(np.ascontiguousarray(data[dy : dy + size, dx : dx + size]), psf=None)
    for name in (
        "FLUX_AUTO",
        "FLUX_APER",
        "FLUX_RADIUS",
        "KRON_RADIUS",
        "SIGMA_ADAPT",
        "ERRAWIN_IMAGE",
        "FLAGS",
    ):
        assert there[name] == pytest.approx(here[name], rel=1e-5), name
    for part in ("", "WIN"):
        assert there[f"X{part}_IMAGE"] == pytest.approx(here[f"X{part}_IMAGE"] + 30 - dx, abs=1e-6)
        assert there[f"Y{part}_IMAGE"] == pytest.approx(here[f"Y{part}_IMAGE"] + 30 - dy, abs=1e-6)


def test_a_quarter_turn_turns_positions_and_angles() -> None:
    data = scene(STARS)
    here, *_ = measure(data)
    turned, *_ = measure(np.ascontiguousarray(np.rot90(data)))
    # np.rot90 takes (x, y) to (y, n - 1 - x); one-based: (y, n + 1 - x).
    order = [
        int(np.argmin(np.hypot(turned["XWIN_IMAGE"] - y, turned["YWIN_IMAGE"] - (BIG + 1 - x))))
        for x, y in zip(here["XWIN_IMAGE"], here["YWIN_IMAGE"], strict=True)
    ]
    assert sorted(order) == list(range(len(order)))
    for name in (
        "FLUX_AUTO",
        "FLUX_APER",
        "FLUX_RADIUS",
        "SIGMA_ADAPT",
        "FLUX_PSF",
        "ERRAWIN_IMAGE",
        "KRON_RADIUS",
    ):
        assert turned[name][order] == pytest.approx(here[name], rel=6e-3), name
    assert turned["XWIN_IMAGE"][order] == pytest.approx(here["YWIN_IMAGE"], abs=1e-3)
    angle = (turned["THETA_IMAGE"][order] - here["THETA_IMAGE"] + 90.0) % 180.0
    assert np.minimum(angle, 180.0 - angle) == pytest.approx(0.0, abs=1e-3)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -1e6]), st.integers(0, 2**31))
def test_what_stands_in_unusable_pixels_never_matters(filler: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    data, flags = scene(STARS), np.zeros((BIG, BIG), np.uint16)
    flags[random.random(flags.shape) < 0.02] = random.choice([1, 2, 8, 16, 32, 64, 128, 256])
    zeroed = np.where(flags, np.float32(0.0), data)
    reference, sources, segments = measure(zeroed, flags)
    spoiled = np.where(flags, np.float32(filler), data)
    (found,) = catalogue(spoiled, flags, sources, segments)
    for name, values in reference.items():
        assert np.array_equal(found[name], values, equal_nan=True), name


def test_all_columns_are_there_with_their_types(plain: tuple[Columns, np.ndarray, Sources, Segments]) -> None:
    from spica_imaging.columns import COLUMNS

    columns, data, sources, segments = plain
    assert set(columns) <= set(COLUMNS)
    assert {len(values) for values in columns.values()} == {len(sources)}
    assert columns["XWIN_IMAGE"].dtype == columns["XPSF_IMAGE"].dtype == np.float64
    assert columns["FLUX_AUTO"].dtype == np.float32
    assert columns["NUMBER"].dtype == columns["IMAFLAGS_ISO"].dtype == np.int32
    assert columns["FLAGS"].dtype == np.int16
    assert columns["FLUX_APER"].shape == (len(sources), 5)
    # The same columns whatever is known, so that tables of many CCDs fit together.
    ratio = float(columns["FWHM_IMAGE"][1] / columns["SIGMA_ADAPT"][1])
    more: dict[str, Any] = {"psf": None, "zeropoint": np.nan, "fwhm_per_sigma": ratio}
    (bare,) = catalogue(data, np.zeros(data.shape, np.uint16), sources, segments, **more)
    assert list(bare) == list(columns)
    assert {name: values.dtype for name, values in bare.items()} == {
        name: values.dtype for name, values in columns.items()
    }
    assert np.isnan(bare["FLUX_PSF"]).all()
    assert np.isnan(bare["MAG_AUTO"]).all()
    assert (bare["CLASS_STAR"][1:] > 0.5).all()


def test_no_sources_make_an_empty_catalogue() -> None:
    columns, *_ = measure(np.zeros((40, 50), np.float32), vignet_px=11)
    assert {len(values) for values in columns.values()} == {0}
    assert columns["VIGNET"].shape == (0, 11, 11)


def test_stars_come_out_as_drawn(plain: tuple[Columns, np.ndarray, Sources, Segments]) -> None:
    columns, *_ = plain
    for x, y, flux in STARS[2:]:
        k = int(np.argmin(np.hypot(columns["XWIN_IMAGE"] - 1 - x, columns["YWIN_IMAGE"] - 1 - y)))
        error = max(0.01 * flux, 3.0 * float(columns["FLUXERR_PSF"][k]))
        assert columns["FWHM_IMAGE"][k] == pytest.approx(FWHM, rel=0.05)
        assert columns["FLUX_PSF"][k] == pytest.approx(flux, abs=error)
        assert columns["XPSF_IMAGE"][k] - 1 == pytest.approx(
            x, abs=max(0.01, 4.0 * float(columns["ERRAPSF_IMAGE"][k]))
        )
        assert columns["YWIN_IMAGE"][k] - 1 == pytest.approx(
            y, abs=max(0.01, 4.0 * float(columns["ERRAWIN_IMAGE"][k]))
        )
        assert columns["MAG_PSF"][k] == pytest.approx(30.0 - 2.5 * np.log10(columns["FLUX_PSF"][k]), abs=1e-4)
        assert columns["BACKGROUND"][k] == pytest.approx(300.0)
        assert columns["CLASS_STAR"][k] > 0.5
        # A Moffat profile of beta 3 has half of its light within 0.65 FWHM; some is beyond the ellipse.
        assert columns["FLUX_RADIUS"][k] == pytest.approx(0.65 * FWHM, rel=0.12)


def test_a_neighbour_s_light_is_replaced_by_that_of_the_other_side() -> None:
    """Two stars 9 px apart, divided as a detection would: AUTO of the fainter one is not that of both."""
    stars = [(100.0, 100.0, 2e4), (109.0, 100.0, 4e4)]
    data, flags = scene(stars), np.zeros((BIG, BIG), np.uint16)
    alone, *_ = measure(scene(stars[:1]))
    from tests.unit.quality.placed import segments_of, sources_of

    labels = np.zeros(data.shape, np.int32)
    seen = data > 3 * NOISE
    labels[:, :104][seen[:, :104]], labels[:, 104:][seen[:, 104:]] = 1, 2
    labels[np.hypot(*np.mgrid[-100:160, -104:156]) > 25] = 0
    (both,) = catalogue(data, flags, sources_of(data, labels), segments_of(labels))
    assert both["FLUX_AUTO"][0] == pytest.approx(alone["FLUX_AUTO"][0], rel=0.1)
    assert both["FLUX_PSF"][0] == pytest.approx(2e4, rel=0.04)
    assert both["FLUX_PSF"][1] == pytest.approx(4e4, rel=0.02)
    assert both["XWIN_IMAGE"][0] - 1 == pytest.approx(100.0, abs=0.15)
    assert both["FLAGS"][0] & 1
    assert not alone["FLAGS"][0] & 1
    plain_sum = data[np.hypot(*np.mgrid[-100:160, -100:160]) <= 10].sum()
    assert plain_sum > 1.4 * both["FLUX_AUTO"][0]


@pytest.mark.parametrize("place", [(2.1, 100.0), (257.4, 1.2), (0.0, 259.0), (130.0, 258.6)])
def test_sources_at_the_edge_are_flagged_and_finite(place: tuple[float, float]) -> None:
    columns, *_ = measure(scene([(*place, 3e4)]), vignet_px=21)
    assert columns["FLAGS"][0] & 8
    assert columns["FLAGS"][0] & 16
    for name in ("FLUX_AUTO", "FLUXERR_AUTO", "FLUX_PSF", "XWIN_IMAGE", "ERRAWIN_IMAGE", "FLUX_RADIUS"):
        assert np.isfinite(columns[name]).all(), name
    assert columns["FLUX_PSF"][0] == pytest.approx(3e4, rel=0.05)
    assert (columns["VIGNET"][0] < -1e29).any()


def test_saturated_stars_are_flagged_and_their_wings_tell_the_flux() -> None:
    data = scene([(100.3, 100.4, 2e5)])
    full = np.float32(3000.0)
    flags = np.where(data >= full, Bit.SATURATED, np.uint16(0)).astype(np.uint16)
    assert 5 < np.count_nonzero(flags) < 60
    columns, *_ = measure(np.minimum(data, full), flags)
    assert columns["FLAGS"][0] & 4
    assert columns["IMAFLAGS_ISO"][0] == Bit.SATURATED
    assert columns["FLUX_AUTO"][0] < 1.7e5
    assert columns["FLUX_PSF"][0] == pytest.approx(2e5, rel=0.02)
    assert columns["XPSF_IMAGE"][0] - 1 == pytest.approx(100.3, abs=0.05)


def test_a_cosmic_ray_in_the_wing_is_mirrored_away_and_told() -> None:
    star = [(100.3, 100.4, 3e4)]
    data, flags = scene(star), np.zeros((BIG, BIG), np.uint16)
    alone, sources, segments = measure(data)
    data[97:100, 102:104] += 4000.0
    flags[97:100, 102:104] = Bit.COSMIC
    (columns,) = catalogue(data, flags, sources, segments)
    assert columns["NIMAFLAGS_ISO"][0] == 6
    assert columns["IMAFLAGS_ISO"][0] == Bit.COSMIC
    assert columns["FLUX_AUTO"][0] == pytest.approx(float(alone["FLUX_AUTO"][0]), rel=0.03)
    assert columns["FLUX_PSF"][0] == pytest.approx(3e4, rel=0.02)
    assert columns["XWIN_IMAGE"][0] == pytest.approx(float(alone["XWIN_IMAGE"][0]), abs=0.08)


def test_vignets_show_the_source_alone() -> None:
    data = scene(STARS)
    columns, sources, segments = measure(data, vignet_px=31)
    labels = segments.paint()
    for k in range(len(sources)):
        j, i = round(float(sources.y[k])), round(float(sources.x[k]))
        window = np.s_[j - 15 : j + 16, i - 15 : i + 16]
        own = (labels[window] == 0) | (labels[window] == k + 1)
        assert np.array_equal(columns["VIGNET"][k][own], data[window][own])
        assert (columns["VIGNET"][k][~own] == np.float32(-1e30)).all()
    with pytest.raises(ValueError, match="must be odd"):
        measure(data, vignet_px=30)


def test_noise_of_weights_and_correlation_goes_into_the_errors() -> None:
    data = scene([(100.0, 100.0, 2e4)])
    flags = np.zeros(data.shape, np.uint16)
    (once, sources, segments) = measure(data, gain=0.0)
    (twice,) = catalogue(data, flags, sources, segments, gain=0.0, noise_correlation=2.0)
    for name in ("FLUXERR_AUTO", "FLUXERR_APER", "FLUXERR_PSF", "ERRAWIN_IMAGE", "ERRA_IMAGE"):
        assert twice[name] == pytest.approx(2.0 * once[name], rel=1e-4), name
    sky = replace(
        flat_sky(data.shape, NOISE), weight=np.full(data.shape, 4.0, np.float32), weight_scale=2.0 * NOISE
    )
    found = measure_catalogue(data, flags, sky, sources, segments, gain=0.0, fwhm_px=FWHM, psf=PSF)
    assert found["FLUXERR_AUTO"] == pytest.approx(once["FLUXERR_AUTO"], rel=1e-5)
    sky.weight[:] = 1.0
    found = measure_catalogue(data, flags, sky, sources, segments, gain=0.0, fwhm_px=FWHM, psf=PSF)
    assert found["FLUXERR_AUTO"] == pytest.approx(2.0 * once["FLUXERR_AUTO"], rel=1e-5)


def test_the_data_are_left_as_they_are(plain: tuple[Columns, np.ndarray, Sources, Segments]) -> None:
    _, data, sources, segments = plain
    before, flags = data.copy(), np.zeros(data.shape, np.uint16)
    again, first = (catalogue(data, flags, sources, segments)[0] for _ in range(2))
    assert np.array_equal(before, data)
    assert all(np.array_equal(again[name], first[name], equal_nan=True) for name in first)


def test_positions_on_the_sky_are_those_of_the_wcs() -> None:
    columns, *_ = measure(scene(STARS))
    header = fits.Header([("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN"), ("CRVAL1", 150.0), ("CRVAL2", 2.0)])
    header.update(
        {"CRPIX1": 100.5, "CRPIX2": 90.5, "CD1_1": -5e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 5e-5}
    )
    add_sky_positions(columns, TpvWcs.from_header(header))
    assert columns["DELTAWIN_J2000"] == pytest.approx(2.0 + 5e-5 * (columns["YWIN_IMAGE"] - 90.5), abs=1e-7)
    assert columns["ALPHA_J2000"] == pytest.approx(
        150.0 - 5e-5 * (columns["X_IMAGE"] - 100.5) / np.cos(np.radians(columns["DELTA_J2000"])), abs=1e-6
    )


def test_small_units_leave_no_zero_in_the_header() -> None:
    facts = CatalogueFacts(
        "ccd00", 10, 10, background_rms_adu=3.21e-9, background_adu=-1.5e-10, saturation_adu=65_535.0
    )
    header = catalogue_header(fits.Header(), facts)
    assert header["SEXBKDEV"] == pytest.approx(3.21e-9)
    assert header["SEXBKGND"] == pytest.approx(-1.5e-10)
    assert header["SEXSATLV"] == 65_535.0
    assert "SEXMGZPT" not in header
