"""What SCAMP is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from spica_calib.errors import CalibrationFailed
from spica_calib.scamp_files import (
    ScampSettings,
    catalogue_name,
    columns_for_scamp,
    configuration,
    wcs_at,
    write_configuration,
    write_inputs,
)
from spica_calib.science.astrometry.problem import Exposure, Options
from spica_calib.science.matching.search import Prior
from spica_calib.science.photometry.problem import PhotometricExposure
from spica_imaging.ldac import LdacTable, read_ldac, write_ldac
from spica_imaging.references import stars_in_cone
from spica_imaging.wcs import TpvWcs

from tests.support.skies import columns_of, distorted_wcs, make_stars, observe, separation_mas

CENTRE = (10.0, -20.0)


def exposure(folder: Path, context: str = "r", name: str = "a") -> tuple[Exposure, Path]:
    rng = np.random.default_rng(1)
    wcs = distorted_wcs(CENTRE)
    scene = observe(rng, make_stars(rng, 200, CENTRE, 0.04), wcs, wcs)
    # A header as frames have it, with a WCS of its own that is not to be seen any more.
    header = fits.Header(
        [
            ("NAXIS1", 1024),
            ("NAXIS2", 1024),
            ("A_ORDER", 3),
            ("PV1_30", 5.0),
            ("FILTER", "x"),
            ("MJD-OBS", 1.0),
        ]
    )
    path = folder / f"{name}.ldac"
    columns = {**columns_of(scene), "VIGNET": np.zeros((len(scene.field.sources), 5, 5), np.float32)}
    write_ldac(path, [LdacTable(header, columns)])
    return Exposure(name, context, (scene.field,), 2010.5), path


def test_catalogues_hold_what_scamp_needs_and_nothing_else(tmp_path: Path) -> None:
    first, path = exposure(tmp_path, "r|05A", "ä b")
    second, _ = exposure(tmp_path, "g|05A", "other")
    photometry = [
        PhotometricExposure("a", "r", 60.0, 1.2, None, (), 26.0, None, None, -0.1, is_photometric=True),
        PhotometricExposure("b", "g", 60.0),
    ]
    stars = make_stars(np.random.default_rng(2), 50, CENTRE, 0.04)
    write_inputs(tmp_path, [first, second], [path, path], stars, "r", Options(), photometry)
    (one,), (two,) = (read_ldac(tmp_path / catalogue_name(number)) for number in (0, 1))
    assert "VIGNET" not in one.columns
    assert not {"A_ORDER", "PV1_30", "FILTER"} & set(one.header)
    assert (one.header["SPCONTXT"], two.header["SPCONTXT"]) == ("context0000", "context0001")
    assert (one.header["SPFILTER"], two.header["SPFILTER"]) == ("filter0000", "filter0001")
    assert one.header["MJD-OBS"] == pytest.approx(51544.5 + 10.5 * 365.25)
    assert (one.header["PHOTFLAG"], two.header["PHOTFLAG"]) == (True, False)
    assert (one.header["AIRMASS"], one.header["PHOT_C"], one.header["PHOT_K"]) == (1.2, 26.0, -0.1)
    assert not {"AIRMASS", "PHOT_C", "PHOT_K"} & set(two.header)
    assert separation_mas(TpvWcs.from_header(one.header), first.ccds[0].wcs) < 1.0
    assert len(one) == len(first.ccds[0].sources)


def test_what_is_not_finite_is_left_out() -> None:
    rng = np.random.default_rng(1)
    wcs = distorted_wcs(CENTRE)
    scene = observe(rng, make_stars(rng, 200, CENTRE, 0.04), wcs, wcs)
    columns = {name: values.copy() for name, values in columns_of(scene).items()}
    n = len(columns["X_IMAGE"])
    columns["XWIN_IMAGE"][:3] = np.nan
    columns["X_IMAGE"][0] = np.nan  # the others still have their isophotal positions
    columns["FLUX_AUTO"][5] = np.inf
    columns["ERRAWIN_IMAGE"][7] = np.nan
    columns["ERRTHETAWIN_IMAGE"] = np.full(n, 12.0)
    kept = columns_for_scamp(columns)
    assert len(kept["XWIN_IMAGE"]) == n - 2
    for values in kept.values():
        assert np.isfinite(values).all()
    assert np.count_nonzero(kept["ERRTHETAWIN_IMAGE"] == 12.0) == n - 3
    with pytest.raises(CalibrationFailed, match="FLUX_AUTO") as refused:
        columns_for_scamp({"X_IMAGE": columns["X_IMAGE"], "Y_IMAGE": columns["Y_IMAGE"]})
    assert refused.value.code == "bad_catalogue"


def test_a_ccd_that_the_catalogue_does_not_have(tmp_path: Path) -> None:
    one, path = exposure(tmp_path)
    astray = replace(one, ccds=(replace(one.ccds[0], hdu=1),))
    with pytest.raises(CalibrationFailed, match="has 1 CCDs; there is no number 1"):
        write_inputs(
            tmp_path,
            [astray],
            [path],
            make_stars(np.random.default_rng(2), 9, CENTRE, 0.04),
            None,
            Options(),
            None,
        )


@pytest.mark.parametrize("crval", [(10.0, -20.0), (10.4, -20.3), (9.2, -19.5)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_common_tangent_point(tmp_path: Path, crval: tuple[float, float], mirrored: bool) -> None:
    one, _ = exposure(tmp_path)
    ccd = replace(one.ccds[0], wcs=distorted_wcs(CENTRE, rotation_deg=63.0, mirrored=mirrored))
    moved = wcs_at(ccd, crval)
    assert moved.crval == crval
    assert moved.mirrored == mirrored
    # A hundredth of a pixel.
    assert separation_mas(moved, ccd.wcs) < 2.0


def test_reference_stars_stand_at_the_exposures_mean_epoch(tmp_path: Path) -> None:
    one, path = exposure(tmp_path)
    stars = replace(
        make_stars(np.random.default_rng(2), 50, CENTRE, 0.04, error_mas=3.0),
        pm_ra_mas_yr=np.full(50, 100.0),
        pm_dec_mas_yr=np.full(50, -200.0),
    )
    stars.mags["r"][:5] = np.nan
    write_inputs(tmp_path, [one, replace(one, epoch_year=2012.5)], [path, path], stars, "r", Options(), None)
    found = stars_in_cone(tmp_path / "reference.cat", "1", *CENTRE, 1.0)
    assert found.epoch_year == pytest.approx(2011.5)
    assert 3.6e6 * (found.dec_deg - stars.dec_deg) == pytest.approx(-200.0 * (2011.5 - 2016.0), abs=0.01)
    assert found.error_mas == pytest.approx(np.hypot(3.0, 2.0))
    assert found.mags["MAG"][:5] == pytest.approx(98.0)


def test_our_options_under_its_names(tmp_path: Path) -> None:
    options = Options(degree=5, atmosphere="polynomial", floor_px=0.02, crossid_arcsec=1.5, clip_sigma=5.0)
    prior = Prior(shift_arcsec=90.0, rotation_deg=180.0, scale=0.05, mirrored=(False, True))
    told = configuration(options, prior, ScampSettings(n_threads=3), with_photometry=True)
    assert told["DISTORT_DEGREES"] == "5"
    assert told["FOCDISTORT_DEGREE"] == "3"
    assert float(told["POSITION_MAXERR"]) == 1.5
    assert float(told["PIXSCALE_MAXERR"]) == 1.05
    assert (told["MATCH"], told["MATCH_FLIPPED"], told["SOLVE_PHOTOM"], told["NTHREADS"]) == (
        "Y",
        "Y",
        "Y",
        "3",
    )
    assert float(told["CROSSID_RADIUS"]) == 1.5
    assert float(told["ASTR_ACCURACY"]) == 0.02
    alone = configuration(Options(), None, ScampSettings(), with_photometry=False)
    assert (alone["MATCH"], alone["SOLVE_PHOTOM"], alone["FOCDISTORT_DEGREE"]) == ("N", "N", "1")
    assert "POSITION_MAXERR" not in alone
    write_configuration(tmp_path / "scamp.conf", told)
    lines = [tuple(line.split()) for line in (tmp_path / "scamp.conf").read_text().splitlines()]
    assert dict(lines) == told
