"""The made-up catalogues that the astrometric benchmark stands on: are they what they say?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import astropy.units as u
import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.time import Time
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_imaging.ldac import read_ldac
from spica_imaging.polynomial import design
from spica_imaging.wcs import TpvWcs, tan_project

from tests.benchmarks import astrometry_frames
from tests.support.skycat import LATITUDE_DEG, Recipe, Survey, make_survey, zenith_of
from tests.support.skycat_optics import SCALE_ARCSEC, Air, Shape, angles, camera, hour_angle, vector
from tests.support.skycat_sources import FLOOR_PX, GALAXY, SPURIOUS, STAR, gaia_errors_mas

SMALL = Recipe(layout="small", n_exposures=2, star_density=20000.0)
LOW = replace(SMALL, dec_deg=45.0, airmass=(1.5, 1.8))


@pytest.fixture(scope="module")
def survey() -> Survey:
    return make_survey(SMALL)


def _detections(survey: Survey) -> list[tuple[int, int, dict[str, np.ndarray], object]]:
    return [
        (e, c, columns, truth)
        for e, exposure in enumerate(survey.exposures)
        for c, (columns, truth) in enumerate(zip(exposure.columns, exposure.truth, strict=True))
    ]


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    def content(recipe: Recipe, name: str) -> list[bytes]:
        survey = make_survey(recipe)
        files = [*survey.write(tmp_path / name), survey.write_reference(tmp_path / name)[0]]
        return [path.read_bytes() for path in files]

    first = content(SMALL, "a")
    assert content(SMALL, "b") == first
    other = content(replace(SMALL, seed=2), "c")
    assert all(a != b for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("shape", ["polynomial", "rings", "bump"])
@pytest.mark.parametrize("layout", ["small", "megacam"])
def test_pixel_to_sky_and_back(shape: Shape, layout: str) -> None:
    recipe = replace(LOW, shape=shape, layout=layout, n_exposures=1, star_density=10.0, galaxy_density=0.0)
    aim = make_survey(recipe).exposures[0].aim
    rng = np.random.default_rng(1)
    for number, place in enumerate(aim.camera.places):
        x, y = rng.uniform(1, place.nx, 50), rng.uniform(1, place.ny, 50)
        again = aim.sky_to_pixel(number, *aim.pixel_to_sky(number, x, y))
        np.testing.assert_allclose(again, (x, y), rtol=0, atol=1e-6)


def test_detections_are_where_the_truth_says_but_for_their_errors(survey: Survey) -> None:
    pulls = []
    for e, c, columns, truth in _detections(survey):
        aim = survey.exposures[e].aim
        real = truth.kind != SPURIOUS
        ra, dec = aim.pixel_to_sky(c, truth.x[real], truth.y[real])
        np.testing.assert_allclose((ra, dec), (truth.ra_deg[real], truth.dec_deg[real]), rtol=0, atol=1e-10)
        star = (truth.kind == STAR) & (columns["FLAGS"] == 0)
        error = np.hypot(columns["ERRAWIN_IMAGE"], FLOOR_PX)[star]
        pulls.append((columns["XWIN_IMAGE"] - truth.x)[star] / error)
        assert np.isnan(truth.ra_deg[~real]).all()
    every = np.concatenate(pulls)
    assert len(every) > 500
    assert abs(every.mean()) < 0.15
    assert 0.85 < every.std() < 1.1


def test_the_sky_of_the_truth_moves_with_proper_motion(survey: Survey) -> None:
    sky, exposure = survey.sky, survey.exposures[0]
    truth = exposure.truth[0]
    k = truth.sky[truth.kind == STAR]
    years = exposure.epoch_year - 2016.0
    moved = 3.6e6 * (truth.dec_deg[truth.kind == STAR] - sky.dec_deg[k])
    np.testing.assert_allclose(moved, years * sky.pm_dec_mas_yr[k], atol=1e-4)
    assert np.all(sky.pm_dec_mas_yr[sky.kind == GALAXY] == 0)


def test_a_catalogue_has_what_real_ones_have(survey: Survey) -> None:
    parts = _detections(survey)
    kind = np.concatenate([truth.kind for *_, truth in parts])
    flags = np.concatenate([columns["FLAGS"] for _, _, columns, _ in parts])
    snr = np.concatenate([truth.snr for *_, truth in parts])
    mag = np.concatenate([truth.mag_r for *_, truth in parts])
    error = np.concatenate([columns["ERRAWIN_IMAGE"] for _, _, columns, _ in parts])
    assert 0.03 < (kind == SPURIOUS).mean() < 0.07
    assert np.count_nonzero(flags & 4) > 3
    assert np.count_nonzero(flags & 2) > 3
    assert mag[(flags & 4) > 0].max() < mag[(flags == 0) & (kind == STAR)].min() + 1.0
    # At the same light galaxies are known less well, and both get worse as they get fainter.
    same = (snr > 20) & (snr < 40)
    assert np.median(error[same & (kind == GALAXY)]) > np.median(error[same & (kind == STAR)])
    # Faint ones are not all found.
    sky = survey.sky
    found = np.unique(np.concatenate([truth.sky for *_, truth in parts]))
    share = [
        np.isin(np.flatnonzero((sky.mag_r > m) & (sky.mag_r < m + 0.5)), found).mean() for m in (20.0, 24.0)
    ]
    assert share[1] < 0.7 * share[0]


def test_zero_points_of_bright_stars_are_the_exposures(survey: Survey) -> None:
    for e, _, columns, truth in _detections(survey):
        good = (truth.kind == STAR) & (truth.snr > 100) & (columns["FLAGS"] == 0)
        zero = truth.mag_r[good] + 2.5 * np.log10(columns["FLUX_APER"][good] / 120.0)
        assert abs(np.median(zero) - survey.exposures[e].zeropoint_mag) < 0.003


def test_gaia_errors_are_those_published() -> None:
    # Medians of Gaia DR3 (Lindegren et al. 2021): position 0.01-0.02 mas at G < 15, 0.05 at 17, 0.4 at 20, 1.0 at 21.
    position, motion = gaia_errors_mas(np.array([14.0, 17.0, 20.0, 21.0]))
    np.testing.assert_allclose(position, [0.015, 0.05, 0.4, 1.0], rtol=0.35)
    np.testing.assert_allclose(motion, [0.02, 0.07, 0.5, 1.4], rtol=0.35)


def test_the_reference_scatters_as_it_says(survey: Survey) -> None:
    r, sky = survey.reference, survey.sky
    assert np.all(sky.kind[r.sky] == STAR)
    pulls = 3.6e6 * (r.dec_deg - sky.dec_deg[r.sky]) / r.error_mas
    assert 0.9 < pulls.std() < 1.1
    epoch = 2006.0
    _, dec = r.at(epoch)
    _, true = sky.at(epoch)
    late = 3.6e6 * (dec - true[r.sky]) / r.error_at(epoch)
    assert 0.9 < late.std() < 1.1


def test_the_reference_files_tell_the_same_stars_at_their_epochs(survey: Survey, tmp_path: Path) -> None:
    ldac, parquet = survey.write_reference(tmp_path)
    (table,) = read_ldac(ldac)
    ours = pq.read_table(parquet)
    epoch = table.columns["OBSDATE"]
    moved = ours["dec_deg"].to_numpy() + (epoch - 2016.0) * ours["pmdec_mas_yr"].to_numpy() / 3.6e6
    np.testing.assert_allclose(table.columns["Y_WORLD"], moved, atol=1e-12)
    assert epoch[0] == pytest.approx(np.mean([e.epoch_year for e in survey.exposures]))


def test_raw_headers_are_off_within_the_search_range_and_hold_no_truth(tmp_path: Path) -> None:
    recipe = replace(SMALL, n_exposures=12, scale_error=0.15, star_density=10.0, galaxy_density=0.0)
    survey = make_survey(recipe)
    frames = astrometry_frames.Frames(survey, tmp_path, tuple(survey.write(tmp_path)), tmp_path / "none")
    assert astrometry_frames.assert_no_truth(frames) == 12 * 4 * 10
    rotations, scales = [], []
    for exposure, path in zip(survey.exposures, frames.catalogues, strict=True):
        wcs = TpvWcs.from_header(read_ldac(path)[0].header)
        assert wcs.degree == 0
        off = np.hypot(*tan_project(*exposure.aim.axis, *wcs.crval)) * 3600.0
        assert off < recipe.pointing_error_arcsec + 0.1
        turned = 180.0 if exposure.aim.camera.places[0].turned else 0.0
        rotations.append((wcs.rotation_deg - turned - exposure.aim.rotation_deg + 180.0) % 360.0 - 180.0)
        scales.append(wcs.pixel_scale_arcsec / exposure.aim.scale_arcsec - 1.0)
    assert 1.0 < np.std(rotations) < 3.5
    assert np.abs(rotations).max() < 4.0
    assert np.abs(scales).max() < 0.15


def test_truth_in_a_header_is_noticed(survey: Survey, tmp_path: Path) -> None:
    exposure = survey.exposures[1]
    for keyword, value in (("CRVAL1", exposure.aim.axis[0]), ("PV1_7", 0.01)):
        headers = tuple(header.copy() for header in exposure.headers)
        headers[2][keyword] = value
        told = replace(survey, exposures=(survey.exposures[0], replace(exposure, headers=headers)))
        with pytest.raises(RuntimeError, match="holds"):
            astrometry_frames.assert_no_truth(astrometry_frames.Frames(told, tmp_path, (), tmp_path))


def test_good_headers_are_good_to_a_few_pixels(survey: Survey) -> None:
    rng = np.random.default_rng(1)
    for exposure in survey.exposures:
        worst = 0.0
        for number, header in enumerate(exposure.good_headers(rng, 3.0)):
            place = exposure.aim.camera.places[number]
            ra, dec = exposure.aim.pixel_to_sky(
                number, np.array([place.centre[0]]), np.array([place.centre[1]])
            )
            wcs = TpvWcs.from_header(header)
            xi, eta = tan_project(*wcs.pixel_to_sky(*place.centre), float(ra[0]), float(dec[0]))
            worst = max(worst, float(np.hypot(xi, eta)) * 3600.0 / SCALE_ARCSEC)
        assert 0.1 < worst < 12.0


# ---- optics and air ----


def test_megacam_is_nine_by_four_with_the_upper_rows_upside_down() -> None:
    optics = camera(np.random.default_rng(1), "megacam")
    assert len(optics.places) == 36
    assert [place.turned for place in optics.places] == [True] * 18 + [False] * 18
    rows = sorted({place.drawn[1] for place in optics.places})
    gaps = np.diff(rows) - 4612
    np.testing.assert_allclose(gaps, [430, 80, 430])
    assert 0.95 < 2 * max(abs(place.drawn[0]) + 1024 for place in optics.places) * SCALE_ARCSEC / 3600 < 1.1


@pytest.mark.parametrize(
    ("shape", "low", "high"), [("polynomial", 0.0, 1e-6), ("rings", 0.01, 0.2), ("bump", 0.003, 0.5)]
)
def test_what_a_cubic_leaves(shape: Shape, low: float, high: float) -> None:
    optics = camera(np.random.default_rng(1), "four", shape=shape)
    for place in optics.places:
        x, y = (a.ravel() for a in np.meshgrid(np.linspace(1, place.nx, 60), np.linspace(1, place.ny, 60)))
        u_, v_ = (x - place.centre[0]) / 2306, (y - place.centre[1]) / 2306
        basis = design(u_, v_, 3)
        left = [
            plane - basis @ np.linalg.lstsq(basis, plane, rcond=None)[0]
            for plane in optics.to_plane(place, x, y)
        ]
        assert low <= np.std(left) < high


@given(
    st.floats(1.0, 2.2), st.floats(-35.0, 70.0), st.floats(0.0, 359.0), st.sampled_from([-1.0, 1.0]),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_the_air_lifts_towards_the_zenith_and_back(
    airmass: float, dec: float, ra: float, side: float
) -> None:
    zenith, distance, _ = zenith_of((ra, dec), side * hour_angle(airmass, dec))
    if distance > 65.0:
        return
    air = Air(zenith)
    here = vector(np.array([ra, ra + 0.3]), np.array([dec, dec - 0.2]))
    seen = air.apparent(here)
    np.testing.assert_allclose(air.true(seen), here, atol=2e-12)
    lifted = np.degrees(np.arccos(np.clip(zenith @ here, -1, 1)) - np.arccos(np.clip(zenith @ seen, -1, 1)))
    expected = air.a_rad * np.tan(np.radians(distance))
    assert 3600 * lifted[0] == pytest.approx(3600 * np.degrees(expected), abs=0.5)


def test_refraction_agrees_with_erfa() -> None:
    # Along one meridian over half a degree, differences of refraction are what astropy's (ERFA's) model gives.
    where = EarthLocation(lat=LATITUDE_DEG * u.deg, lon=0 * u.deg, height=4200 * u.m)
    frame = AltAz(obstime=Time(2015.5, format="jyear"), location=where)
    wet = AltAz(
        obstime=frame.obstime, location=where, pressure=616 * u.hPa, temperature=2 * u.deg_C,
        relative_humidity=0.0, obswl=0.62 * u.micron,
    )  # fmt: skip
    altitude = np.array([40.0, 40.5])
    dry_sky = SkyCoord(alt=altitude * u.deg, az=[0, 0] * u.deg, frame=frame)
    theirs = 3600 * (dry_sky.transform_to(wet).alt.deg - altitude)
    air = Air(np.array([0.0, 0.0, 1.0]))
    _, seen = angles(air.apparent(vector(np.zeros(2), altitude)))
    ours = 3600 * (seen - altitude)
    np.testing.assert_allclose(ours, theirs, rtol=0.015)
    assert np.diff(ours)[0] == pytest.approx(np.diff(theirs)[0], rel=0.02)


def test_hour_angles_and_zenith_agree_with_the_airmass() -> None:
    for airmass in (1.1, 1.4, 1.8):
        for side in (-1.0, 1.0):
            _, distance, angle = zenith_of((150.0, 45.0), side * hour_angle(airmass, 45.0))
            assert 1.0 / np.cos(np.radians(distance)) == pytest.approx(max(airmass, 1.1053), rel=0.01)
            # East of the meridian (negative hour angle) the zenith is to the west.
            assert np.sign(np.sin(np.radians(angle))) == side or abs(np.sin(np.radians(angle))) < 1e-6
