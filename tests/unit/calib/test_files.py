"""What calibration reads and writes, and how it says what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from spica_calib.errors import CalibrationFailed
from spica_calib.fields import assumed_scale, fields_of, read_catalogue
from spica_calib.heads import read_head_names, read_wcs, solution_path
from spica_calib.imagework import prior_of, profile_named
from spica_imaging.ldac import LdacTable
from spica_runtime.errors import NotRetriable
from spica_runtime.storage import DataFolder

from tests.support.skies import columns_of, distorted_wcs, make_stars, observe

CENTRE = (10.0, 20.0)
PROFILE = profile_named("megasim", None)


def table(**cards: object) -> LdacTable:
    rng = np.random.default_rng(1)
    truth = distorted_wcs(CENTRE)
    scene = observe(rng, make_stars(rng, 100, CENTRE, 0.03), truth, truth)
    return LdacTable(fits.Header([("NAXIS1", 1024), ("NAXIS2", 1024), *cards.items()]), columns_of(scene))


def test_fluxes_of_stars_are_made_whole() -> None:
    measured = table(APERDIAM=16.0, PSF_FWHM=4.0)
    (plain,) = fields_of([measured], PROFILE, ["ccd00"], {}, None, CENTRE)
    (whole,) = fields_of([measured], PROFILE, ["ccd00"], {"ccd00": 4.5}, None, CENTRE)
    # 1.06 % of a Moffat profile with beta 4.5 lie beyond two FWHM.
    assert (whole.sources.star_flux_adu / plain.sources.star_flux_adu) == pytest.approx(1.0107, abs=2e-4)


def test_a_pointing_becomes_a_wcs_as_the_profile_says() -> None:
    upside_down = profile_named("microobservatory", None)
    (field,) = fields_of([table(IM_SCALE=5.21)], upside_down, ["ccd00"], {}, None, CENTRE)
    assert field.wcs.pixel_scale_arcsec == pytest.approx(5.21)
    assert field.wcs.rotation_deg == pytest.approx(180.0)
    assert field.wcs.mirrored
    assert field.wcs.pixel_to_sky(512.5, 512.5) == pytest.approx(CENTRE)


def test_what_others_left_is_checked(tmp_path: Path) -> None:
    with pytest.raises(CalibrationFailed, match="1 CCDs, the image 2"):
        fields_of([table()], PROFILE, ["ccd00", "ccd01"], {}, None, CENTRE)
    with pytest.raises(CalibrationFailed, match="CTYPE"):
        fields_of([table()], PROFILE, ["ccd00"], {}, None, None)
    broken = table()
    del broken.columns["FLUX_AUTO"]
    with pytest.raises(CalibrationFailed, match="FLUX_AUTO"):
        fields_of([broken], PROFILE, ["ccd00"], {}, None, CENTRE)
    with pytest.raises(CalibrationFailed, match="pixel scale"):
        assumed_scale(profile_named("generic", None), fits.Header())
    with pytest.raises(CalibrationFailed, match="no instrument profile"):
        profile_named("kodak", None)
    (tmp_path / "a.ldac").write_bytes(b"nothing")
    for read in (read_catalogue, read_wcs, read_head_names):
        with pytest.raises(CalibrationFailed, match=r"a\.ldac"):
            read(tmp_path / "a.ldac")


def test_how_far_the_search_goes() -> None:
    one = fields_of([table()], PROFILE, ["a"], {}, None, CENTRE)
    four = fields_of([table()] * 4, PROFILE, list("abcd"), {}, None, CENTRE)
    assert prior_of(PROFILE, one, rigid=False).shift_arcsec == 120.0
    # Where in the mosaic a CCD stands is not known without a WCS: the mosaic's half diagonal more.
    assert prior_of(PROFILE, four, rigid=False).shift_arcsec == pytest.approx(
        120 + 1024 * 2**0.5 * 0.186, rel=0.01
    )
    assert prior_of(PROFILE, four, rigid=True).shift_arcsec == 120.0
    anyhow = profile_named("generic", None)
    assert prior_of(anyhow, one, rigid=False).mirrored == (False, True)
    assert prior_of(anyhow, one, rigid=True).rotation_deg == 10.0


@pytest.mark.parametrize("name", ["../../escaped", "/escaped", "a/b", "a\\b", "", "a\0"])
def test_a_name_leads_to_no_other_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotRetriable) as caught:
        solution_path(DataFolder(tmp_path), "s1", name, ".head")
    assert caught.value.code == "unsafe_name"


def test_a_solution_has_its_files_in_its_folder(tmp_path: Path) -> None:
    assert solution_path(DataFolder(tmp_path), "s1", "900001p", ".head") == tmp_path / "calib/s1/900001p.head"
    with pytest.raises(NotRetriable) as caught:
        solution_path(DataFolder(tmp_path), "../../s1", "900001p", ".head")
    assert caught.value.code == "path_outside_data"
