"""The simulated camera's geometry, against astropy and against the project's own WCS."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st
from spica_imaging.wcs import TpvWcs
from spica_simulator.camera import CcdWcs, make_camera, sky_of_plane, tangent_plane

CAMERA = make_camera(4, (1024, 1024), np.random.default_rng(1))
WCSS = [CAMERA.true_wcs(chip, (214.85, 52.65), 0.1, 1.3) for chip in CAMERA.chips]
PIXELS = [grid.ravel() for grid in np.meshgrid(np.linspace(1, 1024, 7), np.linspace(1, 1024, 7))]


@pytest.mark.parametrize("wcs", WCSS)
def test_the_true_wcs_as_a_header_means_the_same_to_astropy_and_to_spica(wcs: CcdWcs) -> None:
    ra, dec = wcs.pixel_to_sky(*PIXELS)
    header = wcs.header()
    for other_ra, other_dec in (
        WCS(header).all_pix2world(*PIXELS, 1),
        TpvWcs.from_header(header).pixel_to_sky(*PIXELS),
    ):
        np.testing.assert_allclose(other_ra, ra, rtol=0, atol=1e-10)
        np.testing.assert_allclose(other_dec, dec, rtol=0, atol=1e-10)


@given(
    st.floats(-200, 1224),
    st.floats(-200, 1224),
    st.floats(0, 359.99),
    st.floats(-89, 89),
    st.floats(-180, 180),
)
def test_to_the_sky_and_back(x: float, y: float, ra: float, dec: float, rotation: float) -> None:
    wcs = CAMERA.true_wcs(CAMERA.chips[3], (ra, dec), rotation, 1.2)
    back = wcs.sky_to_pixel(*wcs.pixel_to_sky(x, y))
    assert back == pytest.approx((x, y), abs=1e-5)


def test_the_projection_is_inverted_across_ra_zero() -> None:
    xi, eta = np.array([-0.3, 0.0, 0.4]), np.array([0.2, 0.0, -0.1])
    assert np.allclose(
        tangent_plane(*sky_of_plane(xi, eta, (0.01, 85.0)), (0.01, 85.0)), [xi, eta], atol=1e-12
    )


def test_headers_are_off_by_arcseconds_and_their_linear_model_cannot_be_right() -> None:
    chip = CAMERA.chips[0]
    nominal = CAMERA.nominal_wcs(chip, (214.85, 52.65))
    ra, dec = WCSS[0].pixel_to_sky(*PIXELS)
    east, north = tangent_plane(*nominal.pixel_to_sky(*PIXELS), (214.85, 52.65))
    true_east, true_north = tangent_plane(ra, dec, (214.85, 52.65))
    difference = 3600 * np.hypot(east - true_east, north - true_north)
    assert 0.3 < difference.mean() < 8.0
    # What is left after the best linear fit is the distortion, far above a pixel's hundredth.
    design = np.column_stack([np.ones_like(PIXELS[0]), *PIXELS])
    fit, *_ = np.linalg.lstsq(design, true_east, rcond=None)
    assert 3600 * np.abs(true_east - design @ fit).max() > 0.1


def test_a_header_is_read_back_as_it_was() -> None:
    for wcs in (WCSS[2], CAMERA.nominal_wcs(CAMERA.chips[1], (3.0, -4.0))):
        assert CcdWcs.from_header(wcs.header()) == wcs


def test_ccds_stand_beside_each_other_with_gaps() -> None:
    places = [chip.offset_px for chip in CAMERA.chips]
    assert len({chip.name for chip in CAMERA.chips}) == 4
    assert places[0][0] - places[1][0] == 1024 + 70
    assert places[0][1] - places[2][1] == 1024 + 70
    assert CAMERA.size_px == (2118, 2118)
