"""Stars over the years: where they go, how uncertain they become, and what is known of their brightness."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_imaging.references import UNKNOWN_PM_MAS_YR, Stars, separation_deg, stars_from_columns

angles = st.floats(0, 359.999)
# Poles included, and what is so close to them that RA alone moves by degrees.
declinations = st.one_of(
    st.floats(-89.9, 89.9), st.sampled_from([-90.0, 90.0, 89.99999999, -89.99999]), st.floats(89.99, 90.0)
)
motions = st.floats(-11_000, 11_000)


def one_star(ra: float, dec: float, pm_ra: float, pm_dec: float, pm_error: float | None = None) -> Stars:
    one = np.ones(1)
    error = None if pm_error is None else pm_error * one
    return Stars(
        ra * one, dec * one, 2.0 * one, 2016.0 * one, pm_ra * one, pm_dec * one, pm_error_mas_yr=error
    )


def by_spherical_trigonometry(
    ra: float, dec: float, pm_ra: float, pm_dec: float, years: float
) -> tuple[float, float]:
    """The slow and obvious way: along the great circle of the motion, by the angle whose tangent is the motion."""
    path = np.arctan(np.radians(np.hypot(pm_ra, pm_dec) / 3.6e6) * years)
    direction = np.arctan2(pm_ra, pm_dec)
    d = np.radians(dec)
    sin_dec = np.sin(d) * np.cos(path) + np.cos(d) * np.sin(path) * np.cos(direction)
    east = np.sin(path) * np.sin(direction)
    north = np.cos(d) * np.cos(path) - np.sin(d) * np.sin(path) * np.cos(direction)
    return float(ra + np.degrees(np.arctan2(east, north))), float(
        np.degrees(np.arctan2(sin_dec, np.hypot(east, north)))
    )


@given(angles, declinations, motions, motions, st.floats(-120, 60))
@settings(max_examples=300, deadline=None)
def test_against_spherical_trigonometry(
    ra: float, dec: float, pm_ra: float, pm_dec: float, years: float
) -> None:
    moved = one_star(ra, dec, pm_ra, pm_dec).at_epoch(2016.0 + years)
    expected = by_spherical_trigonometry(ra, dec, pm_ra, pm_dec, years)
    assert separation_deg(moved.ra_deg, moved.dec_deg, *expected)[0] * 3.6e6 < 1e-3
    assert 0.0 <= moved.ra_deg[0] < 360.0 or moved.ra_deg[0] == pytest.approx(360.0)
    assert np.abs(moved.dec_deg[0]) <= 90.0


@given(angles, declinations, st.floats(-500, 500), st.floats(-500, 500), st.floats(-30, 30))
@settings(max_examples=200, deadline=None)
def test_there_and_back(ra: float, dec: float, pm_ra: float, pm_dec: float, years: float) -> None:
    star = one_star(ra, dec, pm_ra, pm_dec)
    back = star.at_epoch(2016.0 + years).at_epoch(2016.0)
    assert separation_deg(back.ra_deg, back.dec_deg, ra, dec)[0] * 3.6e6 < 1e-3


def test_over_the_pole() -> None:
    """Ten arcseconds northward from five below the pole: five below it on the other side, and southward from there."""
    star = one_star(30.0, 90.0 - 5.0 / 3600, 0.0, 1000.0).at_epoch(2026.0)
    assert star.ra_deg[0] == pytest.approx(210.0)
    assert star.dec_deg[0] == pytest.approx(90.0 - 5.0 / 3600, abs=1e-9)
    assert star.pm_dec_mas_yr[0] == pytest.approx(-1000.0, rel=1e-6)
    assert star.pm_ra_mas_yr[0] == pytest.approx(0.0, abs=1e-3)


def test_a_star_without_motion_stays_to_the_last_bit() -> None:
    rng = np.random.default_rng(4)
    ra, dec = rng.uniform(0, 360, 1000), rng.uniform(-90, 90, 1000)
    stars = Stars(ra, dec, ra, np.full(1000, 2000.0), np.zeros(1000), np.zeros(1000)).at_epoch(2030.0)
    assert np.array_equal(stars.ra_deg, ra) and np.array_equal(stars.dec_deg, dec)
    assert np.array_equal(stars.error_mas, ra)  # nothing is known of its motion's error


@pytest.mark.parametrize("years", [-10.0, 0.0, 25.0])
def test_errors_grow_with_the_years(years: float) -> None:
    star = one_star(10.0, 20.0, 3.0, 4.0, pm_error=0.5)
    grown = star.at_epoch(2016.0 + years)
    assert grown.error_mas[0] == pytest.approx(np.sqrt(2.0**2 + (years * 0.5) ** 2))
    unknown = replace(star, pm_error_mas_yr=np.array([np.nan])).at_epoch(2016.0 + years)
    assert unknown.error_mas[0] == 2.0
    no_error = replace(star, error_mas=np.array([np.nan])).at_epoch(2016.0 + years)
    assert np.isnan(no_error.error_mas[0]) and no_error.error_arcsec[0] == 0.02


def test_no_stars() -> None:
    nothing = np.empty(0)
    stars = Stars(
        nothing, nothing, nothing, nothing, nothing, nothing, {"G": nothing}, {"G": nothing}, nothing
    )
    assert len(stars.at_epoch(2020.0).within(0.0, 0.0, 1.0)) == 0
    assert len(stars.colour("BP", "RP")) == 0


COLUMNS = {
    "gaia archive": {
        "ra": [10.0, 10.1], "dec": [1.0, 1.1], "pmra": [5.0, np.nan], "pmdec": [6.0, np.nan],
        "pmra_error": [0.3, np.nan], "pmdec_error": [0.4, np.nan], "phot_g_mean_mag": [15.0, 16.0],
        "phot_g_mean_flux_over_error": [1000.0, 0.0], "phot_bp_mean_mag": [15.5, np.nan], "phot_rp_mean_mag": [14.5, 15.0],
    },
    "gaia at vizier": {
        "RA_ICRS": [10.0, 10.1], "DE_ICRS": [1.0, 1.1], "pmRA": [5.0, np.nan], "pmDE": [6.0, np.nan],
        "e_pmRA": [0.3, np.nan], "e_pmDE": [0.4, np.nan], "Gmag": [15.0, 16.0], "e_Gmag": [0.0010857362, np.nan],
        "BPmag": [15.5, np.nan], "RPmag": [14.5, 15.0],
    },
    "canonical": {
        "ra_deg": [10.0, 10.1], "dec_deg": [1.0, 1.1], "pmra_mas_yr": [5.0, np.nan], "pmdec_mas_yr": [6.0, np.nan],
        "pmra_err_mas_yr": [0.3, np.nan], "pmdec_err_mas_yr": [0.4, np.nan], "epoch_year": [2016.0, 2016.0],
        "mag_G": [15.0, 16.0], "magerr_G": [0.0010857362, np.nan], "mag_BP": [15.5, np.nan], "mag_RP": [14.5, 15.0],
    },
}  # fmt: skip


@pytest.mark.parametrize("family", COLUMNS)
def test_errors_of_motions_and_magnitudes(family: str) -> None:
    stars = stars_from_columns({k: np.array(v) for k, v in COLUMNS[family].items()}, "a test")
    assert stars.pm_error_mas_yr == pytest.approx([np.sqrt(0.125), UNKNOWN_PM_MAS_YR])
    assert stars.pm_ra_mas_yr.tolist() == [5.0, 0.0]
    assert stars.epoch_year.tolist() == [2016.0, 2016.0]
    assert stars.mag_errors["G"] == pytest.approx([0.0010857362, np.nan], nan_ok=True)
    assert set(stars.mag_errors) == {"G"}
    assert stars.colour("BP", "RP") == pytest.approx([1.0, np.nan], nan_ok=True)
    assert np.isnan(stars.colour("BP", "no such band")).all()
    second = stars.take(np.array([1]))
    assert second.pm_error_mas_yr is not None and second.pm_error_mas_yr.tolist() == [UNKNOWN_PM_MAS_YR]
    assert set(second.mag_errors) == {"G"}


def test_refcat2_and_panstarrs_files_of_vizier() -> None:
    one = np.array([10.0])
    refcat2 = stars_from_columns(
        {"RA_ICRS": one, "DE_ICRS": one, "dupvar": one, "gmag": one, "e_gmag": one / 100, "Gmag": one + 1},
        "a test",
    )
    assert refcat2.epoch_year[0] == 2015.5
    assert {band: mag[0] for band, mag in refcat2.mags.items()} == {"g": 10.0, "G": 11.0}
    panstarrs = stars_from_columns(
        {"RAJ2000": one, "DEJ2000": one, "Epoch": one + 55_990, "e_RAJ2000": one / 1e4, "e_DEJ2000": one / 1e4, "ymag": one},
        "a test",
    )  # fmt: skip
    assert panstarrs.epoch_year[0] == pytest.approx(2000.0 + (56_000 - 51_544.5) / 365.25)
    assert panstarrs.error_mas[0] == pytest.approx(1.0)
