"""Magnitudes of reference catalogues as a filter would see them, and from there to flux scales."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from spica_calib.photometrywork import (
    calibrate_exposures,
    calibrate_one,
    photometric_detections,
    photometric_exposure,
)
from spica_calib.science.astrometry.problem import Detections
from spica_calib.science.photometry.bands import AB_OFFSETS, to_ab, typical_error_mag
from spica_calib.science.photometry.problem import Anchor, ExposureZeroPoint, PhotometricExposure
from spica_calib.science.photometry.referencing import choose_reference, reference_magnitudes
from spica_calib.science.stars import CcdField, Sources, Stars
from spica_imaging.profiles import Photometry, Profile, ReferenceBand, load_profiles
from spica_imaging.wcs import TpvWcs

MEGACAM = load_profiles()["megacam"]


def test_gaia_bands_are_moved_to_ab_by_the_published_zero_points() -> None:
    # Rounded as ESA prints them: VEGAMAG 25.6874, 25.3385, 24.7479, AB 25.8010, 25.3540, 25.1040.
    for band, offset in (("G", 0.1136), ("BP", 0.0155), ("RP", 0.3561)):
        moved, is_known = to_ab(band, np.array([15.0]))
        assert is_known
        assert moved[0] - 15.0 == pytest.approx(offset, abs=2e-4)
    assert AB_OFFSETS["r"].to_ab_mag == 0.0
    mag, is_known = to_ab("MAG", np.array([15.0]))
    assert (mag[0], is_known) == (15.0, False)


def test_typical_errors_grow() -> None:
    mag = np.linspace(12, 23, 50)
    for band in ("G", "BP", "RP", "r"):
        error = typical_error_mag(band, mag)
        assert (np.diff(error) >= 0).all()
        assert 1e-4 < error[0] < error[-1]
    assert typical_error_mag("G", np.array([20.0]))[0] == pytest.approx(0.006)
    assert np.isnan(typical_error_mag("V", np.array([np.nan]))).all()


def test_the_first_band_that_the_catalogue_has_is_taken() -> None:
    wanted = MEGACAM.photometry.references_for("r.MP9601")
    one = np.array([18.0])
    panstarrs, gaia = {"g": one, "r": one, "i": one}, {"G": one, "BP": one, "RP": one}
    by_panstarrs, by_gaia = choose_reference(wanted, panstarrs), choose_reference(wanted, gaia)
    assert by_panstarrs is not None
    assert by_gaia is not None
    assert (by_panstarrs.band, by_gaia.band) == ("r", "G")
    bare = choose_reference(wanted, {"r": one})
    assert bare == ReferenceBand(band="r")
    assert choose_reference(wanted, {"V": one}) is None
    assert choose_reference(wanted, {"r": np.array([np.nan])}) is None
    assert choose_reference((), {"V": one}) == ReferenceBand(band="V")
    assert choose_reference((), panstarrs) is None


@pytest.mark.parametrize(
    "name", ["g.MP9401", "g.MP9402", "r.MP9601", "r.MP9602", "i.MP9701", "i.MP9702", "i.MP9703"]
)
def test_megacams_magnitudes_from_panstarrs_and_from_gaia_agree(name: str) -> None:
    """Ordinary stars (dwarfs) in both systems.

    Colours of dwarfs in Gaia and Pan-STARRS, from Gaia's own published relation of G - g, G - r, G - i to BP - RP;
    SDSS and Pan-STARRS differ by up to 0.1 in g at these colours, hence the tolerance.
    """
    tone = np.array([0.8, 1.0])
    g = 16.0 + np.polynomial.polynomial.polyval(tone, (-0.2199, 0.6365, 0.1548, -0.0064))
    r = 16.0 + np.polynomial.polynomial.polyval(tone, (0.09837, -0.08592, -0.1907, 0.1701, -0.02263))
    i = 16.0 + np.polynomial.polynomial.polyval(tone, (0.293, -0.6404, 0.09609, 0.0021))
    wanted = MEGACAM.photometry.references_for(name)
    # SDSS to Pan-STARRS: Tonry et al. 2012, table 6 (linear, in g - r).
    bluer = g - r
    panstarrs = {
        "g": g - 0.012 - 0.139 * bluer,
        "r": r + 0.000 - 0.007 * bluer,
        "i": i + 0.004 - 0.014 * bluer,
    }
    gaia = {"G": np.full(2, 16.0), "BP": 16.0 + 0.4 * tone, "RP": 16.0 - 0.6 * tone}
    first, second = reference_magnitudes(wanted, panstarrs), reference_magnitudes(wanted, gaia)
    assert second.band == "G"
    assert np.abs(first.mag - second.mag).max() < (0.1 if name == "g.MP9402" else 0.04)


def test_published_ranges_and_bad_colours_make_no_reference() -> None:
    wanted = MEGACAM.photometry.references_for("r.MP9601")
    mags = {
        "G": np.array([16.0, 16.0, 20.8, np.nan]),
        "BP": np.array([16.5, 18.0, 21.3, 16.0]),
        "RP": np.array([15.5, 14.0, 20.2, 15.0]),
    }
    found = reference_magnitudes(wanted, mags)
    assert np.isfinite(found.mag).tolist() == [True, False, False, False]
    told = reference_magnitudes(
        wanted, mags, {"G": np.full(4, 0.5), "BP": np.full(4, 0.01), "RP": np.full(4, 0.01)}
    )
    assert told.error_mag[0] == pytest.approx(0.5, rel=0.01)
    assert np.isfinite(told.mag).tolist() == [True, False, True, False]
    nothing = reference_magnitudes(wanted, {}, None, 4)
    assert (nothing.band, len(nothing.mag), np.isnan(nothing.mag).all()) == (None, 4, True)
    unknown = reference_magnitudes((), {"MAG": np.array([15.0])})
    assert "'MAG'" in unknown.notes[0]


def test_facts_of_the_store_become_what_the_solver_asks_for() -> None:
    facts = SimpleNamespace(
        airmass=1.2, mjd_obs=56000.0, header_zeropoint_mag=26.0, header_zeropoint_sigma_mag=0.01,
        header_zeropoint_nominal_mag=25.9, header_airmass_term_mag=-0.1, header_colour_term=0.0,
        sky_absorption_mag=0.02, is_photometric=True,
    )  # fmt: skip
    found = photometric_exposure(
        name="a",
        context="c",
        filter="r",
        exposure_time_s=60.0,
        ccds=["x"],
        facts=facts,
        own_zeropoint_mag=25.8,
    )
    assert found == PhotometricExposure(
        "a", "c", 60.0, 1.2, 56000.0, ("x",), 26.0, 0.01, 25.9, -0.1, 0.0, 0.02, True, 25.8, None, None, "r"
    )
    bare = photometric_exposure(
        name="a", context="c", filter="r", exposure_time_s=60.0, ccds=[], facts=object()
    )
    assert bare == PhotometricExposure("a", "c", 60.0, filter="r")


ZERO, OFFSET, SECONDS = (26.1, 25.7, 26.0), (0.012, -0.012), 120.0


def night() -> tuple[list[PhotometricExposure], list[list[CcdField]], Detections, Stars]:
    """Three exposures of two CCDs, 150 stars each; every CCD's sources are shuffled. The second half is in g."""
    rng = np.random.default_rng(6)
    wcs = TpvWcs.from_header(
        {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 5.0, "CRPIX1": 1.0, "CRPIX2": 1.0,
         "CD1_1": -5e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 5e-5}
    )  # fmt: skip
    n = 300
    mag, tone = rng.uniform(15.0, 19.0, n), rng.uniform(0.2, 1.8, n)
    stars = Stars(
        *(np.zeros(n) for _ in range(6)),
        mags={"r": mag, "g": mag + 0.7 * tone, "i": mag - 0.3 * tone},
    )
    natural = mag + 0.002 - 0.017 * tone + 0.00554 * tone**2 - 0.000692 * tone**3
    fields, rows = [], []
    for e in range(3):
        ccds = []
        for c in range(2):
            # A third of the stars falls on the other CCD.
            here = np.flatnonzero((np.arange(n) % 2 == c) != ((np.arange(n) + e) % 3 == 0))
            here = rng.permutation(here)
            flux = SECONDS * 10 ** (0.4 * (ZERO[e] + OFFSET[c] - natural[here]))
            error = np.sqrt(flux / 1.6 + 1e4)
            flux = flux + error * rng.standard_normal(len(flux))
            yes = np.ones(len(here), dtype=bool)
            clean = rng.random(len(here)) > 0.1
            flux[~clean] *= 3.0
            sources = Sources(flux, flux, flux, flux, flux, error, yes, clean, yes)
            ccds.append(CcdField(c, "xy"[c], 2048, 4612, sources, wcs))
            rows += [(e, c, k, s, s) for k, s in enumerate(here)]
        fields.append(ccds)
    table = np.array(rows, dtype=np.int32)
    table = table[rng.permutation(len(table))]
    m = len(table)
    detections = Detections(
        *table.T, np.ones(m, dtype=bool), *(np.zeros((m, 2)) for _ in range(3)), np.ones(m)
    )
    exposures = [
        photometric_exposure(
            name=f"e{e}", context="c", filter="r.MP9601", exposure_time_s=SECONDS, ccds=("x", "y"), facts=None
        )
        for e in range(3)
    ]
    return exposures, fields, detections, stars


def test_a_stack_from_sources_to_flux_scales() -> None:
    exposures, fields, detections, stars = night()
    found = calibrate_exposures(exposures, fields, detections, stars, MEGACAM)
    assert found.zeropoint_mag == pytest.approx(ZERO, abs=0.002)
    assert found.is_absolute == (True, True, True)
    assert found.solution.band == "r"
    assert found.systematic_mag == 0.01
    assert "300 reference stars in band r" not in found.solution.exposures[0].why  # a tenth is not clean
    for e in range(3):
        for c in range(2):
            assert found.ccd_zeropoint_mag[e][c] == pytest.approx(ZERO[e] + OFFSET[c], abs=0.002)
            counts = SECONDS * 10 ** (0.4 * (ZERO[e] + OFFSET[c] - 17.0))
            assert -2.5 * np.log10(counts * found.flux_scale[e][c]) + 30.0 == pytest.approx(17.0, abs=0.002)
    clean = photometric_detections(
        exposures, fields, detections, {"r.MP9601": reference_magnitudes((), {}, None, len(stars))}
    )
    assert np.isnan(clean.mag).mean() == pytest.approx(0.1, abs=0.03)
    assert not found.solution.kept[np.isnan(clean.mag)].any()


def test_one_image_with_the_images_of_its_run() -> None:
    exposures, fields, detections, stars = night()
    exposures[0] = replace(exposures[0], filter="g.MP9401")
    found = calibrate_one(2, exposures, fields, detections, stars, MEGACAM)
    assert [e.name for e in exposures][2] == "e2"
    assert found.zeropoint_mag == pytest.approx((ZERO[2],), abs=0.002)
    assert found.flux_scale[0][0] == pytest.approx(
        10 ** (0.4 * (30 - ZERO[2] - OFFSET[0])) / SECONDS, rel=0.003
    )
    assert len(found.solution.residual_mag) == len(detections.exposure)
    assert np.isnan(found.solution.residual_mag[detections.exposure == 0]).all()
    assert found.solution.kept[detections.exposure == 2].mean() > 0.8
    alone = calibrate_one(0, exposures, fields, detections, stars, MEGACAM)
    assert len(alone.solution.exposures) == 1
    assert alone.solution.exposures[0].n_overlap == 0


def test_without_a_band_the_scale_is_relative_and_says_so() -> None:
    exposures, fields, detections, stars = night()
    other = replace(stars, mags={"V": stars.mags["r"]})
    found = calibrate_exposures(exposures, fields, detections, other, MEGACAM)
    assert found.is_absolute == (False, False, False)
    assert np.diff(found.zeropoint_mag) == pytest.approx(np.diff(ZERO), abs=0.002)
    assert {e.anchor for e in found.solution.exposures} == {"none"}
    # A catalogue with one band only, and a filter of which the profile says nothing: that band.
    anything = Profile(name="x", title="x", match={}, photometry=Photometry())
    one_band = calibrate_exposures(exposures, fields, detections, other, anything)
    assert one_band.solution.band == "V"
    assert one_band.zeropoint_mag == pytest.approx(np.array(ZERO) + 0.02, abs=0.03)


def test_a_colour_term_and_a_transformation_that_undo_each_other_add_no_error() -> None:
    mags = {"g": np.array([18.0, 18.5]), "r": np.array([17.0, 17.8])}
    errors = {band: np.full(2, 0.01) for band in mags}
    one = ReferenceBand(band="r", colour=("g", "r"), polynomial=(0.0, 0.3), colour_term=0.3)
    assert reference_magnitudes([one], mags, errors).error_mag == pytest.approx([0.01, 0.01])
    alone = one.model_copy(update={"colour_term": 0.0})
    assert reference_magnitudes([alone], mags, errors).error_mag == pytest.approx(
        np.full(2, 0.01 * np.hypot(1.0, 0.3 * np.sqrt(2.0)))
    )


@pytest.mark.parametrize(
    ("anchor", "linked"),
    [("reference", True), ("header", True), ("overlap", True), ("context", False), ("none", False)],
)
def test_who_hangs_on_a_photometric_exposure_by_overlaps_is_linked(anchor: Anchor, linked: bool) -> None:
    zero = ExposureZeroPoint(26.0, 0.01, None, 0, 9, anchor, False, "")
    assert zero.is_linked is linked
