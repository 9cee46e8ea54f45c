"""TPV world coordinates: against astropy, and against themselves."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_imaging.wcs import TpvWcs, WcsError, tan_deproject, tan_project
from spica_imaging.wcs_headers import real_card

from tests.support.realdata import real_data

CLOSE_MAS = 1e-3


def header(**cards: object) -> fits.Header:
    base: dict[str, object] = {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": 214.9,
        "CRVAL2": 52.6,
        "CRPIX1": 512.5,
        "CRPIX2": -300.0,
        "CD1_1": -5.1e-5,
        "CD1_2": 3e-7,
        "CD2_1": 4e-7,
        "CD2_2": 5.2e-5,
    }
    # "key=None" leaves a card out.
    return fits.Header([(k, v) for k, v in {**base, **cards}.items() if v is not None])


TPV = {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_1": 1.0, "PV2_1": 1.0}
CUBIC = {
    **TPV,
    "PV1_0": 1e-5,
    "PV1_2": 2e-4,
    "PV1_4": 1e-2,
    "PV1_7": 0.3,
    "PV1_9": 0.2,
    "PV2_5": -2e-2,
    "PV2_8": 0.1,
}
RADIAL = {**TPV, "PV1_3": 1e-3, "PV2_3": -2e-3, "PV1_11": 0.2, "PV2_11": 0.1}
SEVENTH = {
    **TPV,
    "PV1_39": 2.0,
    "PV2_31": 3.0,
    "PV1_35": -5.0,
    "PV2_24": 1.0,
    "PV1_16": 0.3,
    "PV2_20": 0.5,
    "PV1_23": 0.4,
}
SIP = {
    "CTYPE1": "RA---TAN-SIP",
    "CTYPE2": "DEC--TAN-SIP",
    "A_ORDER": 3,
    "B_ORDER": 2,
    "A_2_0": 2e-6,
    "A_1_1": -1e-6,
    "A_0_3": 3e-10,
    "B_0_2": 1e-6,
    "B_2_0": 2e-6,
}


def grid() -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.linspace(-500, 2500, 23), np.linspace(1, 4600, 29))
    return x.ravel(), y.ravel()


def distance_mas(ra: np.ndarray, dec: np.ndarray, ra0: np.ndarray, dec0: np.ndarray) -> float:
    return float(3.6e6 * np.hypot((ra - ra0) * np.cos(np.radians(dec0)), dec - dec0).max())


@pytest.mark.parametrize(
    "cards",
    [{}, CUBIC, RADIAL, SEVENTH, SIP, {"CRVAL1": 0.001}, {"CRVAL2": 89.99}, {"CRVAL2": -89.0}],
    ids=["tan", "cubic", "radial", "seventh", "sip", "ra0", "pole", "south"],
)
def test_agrees_with_astropy_and_comes_back(cards: dict[str, object]) -> None:
    given_header = header(**cards)
    ours = TpvWcs.from_header(given_header)
    x, y = grid()
    ra, dec = ours.pixel_to_sky(x, y)
    for read_by_astropy in (given_header, ours.to_header()):
        expected = WCS(read_by_astropy).all_pix2world(x, y, 1)
        assert (
            distance_mas(ra, dec, *expected) < CLOSE_MAS or distance_mas(ra % 360, dec, *expected) < CLOSE_MAS
        )
    back_x, back_y = ours.sky_to_pixel(ra, dec)
    assert np.abs(back_x - x).max() < 1e-6
    assert np.abs(back_y - y).max() < 1e-6
    again = TpvWcs.from_header(ours.to_header())
    assert distance_mas(*again.pixel_to_sky(x, y), ra, dec) < CLOSE_MAS


def test_old_scamp_terms_under_tan_are_tpv() -> None:
    as_tan = {**CUBIC, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}
    assert TpvWcs.from_header(header(**as_tan)) == TpvWcs.from_header(header(**CUBIC))


def test_tan_parameters_of_the_ra_axis_are_not_tpv() -> None:
    wcs = TpvWcs.from_header(header(PV1_1=0.0, PV1_2=90.0, PV1_3=180.0))
    assert wcs.degree == 0


def test_dec_on_the_first_axis() -> None:
    swapped = header(
        CTYPE1="DEC--TAN", CTYPE2="RA---TAN", CRVAL1=52.6, CRVAL2=214.9,
        CD1_1=4e-7, CD1_2=5.2e-5, CD2_1=-5.1e-5, CD2_2=3e-7,
    )  # fmt: skip
    assert TpvWcs.from_header(swapped) == TpvWcs.from_header(header())
    x, y = grid()
    dec, ra = WCS(swapped).all_pix2world(x, y, 1)
    assert distance_mas(*TpvWcs.from_header(swapped).pixel_to_sky(x, y), ra, dec) < CLOSE_MAS


@pytest.mark.parametrize(
    "cards",
    [
        {"CDELT1": -5e-5, "CDELT2": 6e-5, "CROTA2": 30.0},
        {"CDELT1": -5e-5, "CDELT2": 5e-5, "PC1_1": 0.8, "PC1_2": -0.6, "PC2_1": 0.6, "PC2_2": 0.8},
    ],
)
def test_older_ways_of_writing_the_matrix(cards: dict[str, object]) -> None:
    written = header(CD1_1=None, CD1_2=None, CD2_1=None, CD2_2=None, **cards)
    x, y = grid()
    ra, dec = TpvWcs.from_header(written).pixel_to_sky(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        expected = WCS(written).all_pix2world(x, y, 1)
    assert distance_mas(ra, dec, *expected) < CLOSE_MAS


@pytest.mark.parametrize(
    ("cards", "word"),
    [
        ({"CTYPE1": None}, "CTYPE"),
        ({"CTYPE1": "RA---ZPN", "CTYPE2": "DEC--ZPN"}, "ZPN"),
        ({"CTYPE2": "RA---TAN"}, "RA---TAN"),
        ({"CRVAL1": "north"}, "CRVAL1"),
        ({"CRPIX2": None}, "CRPIX2"),
        ({"CD1_1": 0.0, "CD1_2": 0.0}, "singular"),
        ({"LONPOLE": 90.0}, "LONPOLE"),
        ({"RADESYS": "FK4", "EQUINOX": 1950.0}, "FK4"),
        ({**SIP, "A_ORDER": 9}, "A_ORDER"),
        ({"CD1_1": None, "CD1_2": None, "CD2_1": None, "CD2_2": None}, "CDELT"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(cards: dict[str, object], word: str) -> None:
    with pytest.raises(WcsError, match=word):
        TpvWcs.from_header(header(**cards))


@given(
    ra=st.floats(0, 359.999),
    dec=st.floats(-89.5, 89.5),
    rotation=st.floats(-180, 180),
    scale=st.floats(0.05, 20.0),
    bends=st.lists(st.floats(-1.0, 1.0), min_size=12, max_size=12),
)
@settings(max_examples=60, deadline=None)
def test_there_and_back(ra: float, dec: float, rotation: float, scale: float, bends: list[float]) -> None:
    angle, step = np.radians(rotation), scale / 3600.0
    cd = ((-step * np.cos(angle), step * np.sin(angle)), (step * np.sin(angle), step * np.cos(angle)))
    size = 2000 * step
    # Distortions of up to half a percent of the field, whatever its size.
    pv = [[0.0] * 11, [0.0] * 11]
    for axis in (0, 1):
        pv[axis][1] = 1.0
        for k, index in enumerate((4, 5, 6, 7, 9, 10)):
            pv[axis][index] = 0.002 * bends[6 * axis + k] / size ** (1 if index < 7 else 2)
    wcs = TpvWcs((ra, dec), (1000.0, 900.0), cd, tuple(pv[0]), tuple(pv[1]))
    x, y = np.meshgrid(np.linspace(1, 2000, 7), np.linspace(1, 2000, 7))
    back = wcs.sky_to_pixel(*wcs.pixel_to_sky(x, y))
    assert np.allclose(back, (x, y), atol=1e-6, rtol=0)


@given(st.floats(0, 359.99), st.floats(-89, 89), st.floats(-20, 20), st.floats(-20, 20))
@settings(deadline=None)
def test_gnomonic_projection_inverts(ra0: float, dec0: float, xi: float, eta: float) -> None:
    ra, dec = tan_deproject(xi, eta, ra0, dec0)
    assert np.allclose(tan_project(ra, dec, ra0, dec0), (xi, eta), atol=1e-9)
    assert 0 <= ra < 360


def test_the_far_side_has_no_pixel() -> None:
    wcs = TpvWcs.from_header(header())
    x, y = wcs.sky_to_pixel([214.9, 34.9], [52.6, -52.6])
    assert np.isfinite([x[0], y[0]]).all()
    assert np.isnan([x[1], y[1]]).all()


def test_scale_rotation_and_parity() -> None:
    wcs = TpvWcs.from_header(header(CD1_1=0.0, CD1_2=5e-5, CD2_1=5e-5, CD2_2=0.0))
    assert wcs.pixel_scale_arcsec == pytest.approx(0.18)
    assert wcs.rotation_deg == pytest.approx(90.0)
    assert not wcs.mirrored
    assert TpvWcs.from_header(header(CD1_1=5e-5, CD1_2=0.0, CD2_1=0.0, CD2_2=5e-5)).mirrored
    assert TpvWcs.from_header(header(CD1_1=5e-5, CD1_2=0.0, CD2_1=0.0, CD2_2=-5e-5)).rotation_deg == 180.0


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_real_numbers_always_show_a_decimal_point(value: float) -> None:
    card = real_card("CD1_1", value, "degrees")
    text = str(card)[10:30].strip()
    assert "." in text.partition("E")[0]
    assert len(str(card)) == 80
    assert float(text) == pytest.approx(value, rel=1e-12)


def test_a_number_that_is_none_is_not_written() -> None:
    with pytest.raises(ValueError, match="CD1_1"):
        real_card("CD1_1", float("nan"))


@pytest.mark.real
def test_real_decam_header() -> None:
    with fits.open(real_data("decam/DECam_00241238_01.fits.fz")) as hdus:
        real = hdus[1].header.copy()
    ours = TpvWcs.from_header(real)
    x, y = np.meshgrid(np.linspace(1, 2048, 20), np.linspace(1, 4096, 20))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        expected = WCS(real).all_pix2world(x.ravel(), y.ravel(), 1)
    assert distance_mas(*ours.pixel_to_sky(x.ravel(), y.ravel()), *expected) < CLOSE_MAS
    assert ours.scale_at(1024, 2048) == pytest.approx(0.263, abs=0.001)
