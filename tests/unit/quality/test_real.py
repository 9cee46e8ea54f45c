"""Real frames beside the project: what they must come out as."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io.fits.verify import VerifyWarning
from spica_imaging.frame import Ccd, iter_ccds
from spica_imaging.ldac import read_ldac
from spica_imaging.profiles import load_profiles
from spica_quality.policyfiles import load_policies
from spica_quality.science.engine import Frame, Measurement, measure
from spica_quality.science.metrics.summary import summarise
from spica_quality.science.policy.judging import judge

from tests.support.realdata import real_data

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings(f"ignore::{VerifyWarning.__module__}.VerifyWarning"),
]


def measured(ccd: Ccd, gain: float | None = None, scale: float = 5.21) -> Measurement:
    return measure(
        Frame(ccd.data, ccd.section, gain or ccd.gain_e_per_adu, ccd.saturation_adu, pixel_scale_arcsec=scale)
    )


def test_frames_of_a_real_night_are_usable() -> None:
    """Every third; the whole night is another test's (make real)."""
    profile = load_profiles()["microobservatory"]
    policy = load_policies().default
    paths = sorted(real_data("hatp32").glob("*.FITS"))
    assert len(paths) == 40
    letters, sizes, stars = [], [], []
    for path in paths[::3]:
        (ccd,) = iter_ccds(path, profile)
        found = measured(ccd)
        figures = summarise([found.figures])
        letters.append(judge(figures, (), policy, profile.name, "image").letter)
        sizes.append(figures["fwhm_with_pixel_px"])
        stars.append(figures["n_stars"])
    assert set(letters) <= {"A", "B", "C"}
    assert letters.count("A") >= 5
    assert 1.7 < np.median(sizes) < 2.3
    assert max(sizes) < 2.8
    assert min(stars) > 300


@pytest.fixture(scope="module")
def decam() -> Measurement:
    path = real_data("decam/DECam_00241238_01.fits.fz")
    ccd = next(iter_ccds(path, load_profiles()["generic"]))
    return measured(ccd, gain=4.0)


def test_sources_are_those_of_source_extractor(decam: Measurement) -> None:
    """The catalogue that the survey made of the same CCD: detected on the same pixels, other settings."""
    from scipy.spatial import cKDTree

    (peer,) = read_ldac(real_data("decam/DECam_00241238_01_cat.fits"))
    ours, theirs = decam.columns, peer.columns
    tree = cKDTree(np.column_stack([ours["XWIN_IMAGE"], ours["YWIN_IMAGE"]]))
    distance, index = tree.query(np.column_stack([theirs["XWIN_IMAGE"], theirs["YWIN_IMAGE"]]))
    whole = theirs["FLAGS"] & ~3 == 0
    assert np.mean(distance[whole] < 2.0) > 0.95
    with np.errstate(invalid="ignore", divide="ignore"):
        bright = theirs["FLUX_AUTO"] > 20 * theirs["FLUXERR_AUTO"]
    clean = (distance < 2.0) & bright & (theirs["FLAGS"] == 0) & (ours["FLAGS"][index] == 0)
    assert np.count_nonzero(clean) > 300
    for name in ("XWIN_IMAGE", "YWIN_IMAGE"):
        difference = ours[name][index][clean] - theirs[name][clean]
        assert abs(np.median(difference)) < 0.003
        assert 1.4826 * np.median(np.abs(difference)) < 0.01
    for name, tolerance in (("FLUX_AUTO", 0.03), ("FLUX_RADIUS", 0.03), ("ERRAWIN_IMAGE", 0.1)):
        ratio = ours[name][index][clean] / theirs[name][clean]
        assert np.median(ratio) == pytest.approx(1.0, abs=tolerance), name


def test_stars_are_what_a_psf_model_calls_stars(decam: Measurement) -> None:
    """SPREAD_MODEL tells stars (0) from galaxies (above 0.003) by a fitted PSF model."""
    from scipy.spatial import cKDTree

    (peer,) = read_ldac(real_data("decam/DECam_00241238_01_cat.fits"))
    ours, theirs = decam.columns, peer.columns
    stars = ours["SPICA_STAR"] == 1
    tree = cKDTree(np.column_stack([theirs["XWIN_IMAGE"], theirs["YWIN_IMAGE"]]))
    distance, index = tree.query(np.column_stack([ours["XWIN_IMAGE"][stars], ours["YWIN_IMAGE"][stars]]))
    spread = theirs["SPREAD_MODEL"][index][distance < 1.0]
    assert len(spread) > 100
    assert np.mean(np.abs(spread) < 0.005) > 0.9
    assert decam.figures["fwhm_with_pixel_px"] == pytest.approx(3.9, abs=0.3)


def test_pixels_that_the_survey_saw_no_fault_in_are_not_thrown_away(decam: Measurement) -> None:
    """Along the edges, where this detector glows, some columns stand out."""
    inner = decam.flags[:, 100:-120]
    assert np.count_nonzero(inner == 0) > 0.998 * inner.size
    assert np.count_nonzero(decam.flags == 0) > 0.985 * decam.flags.size
