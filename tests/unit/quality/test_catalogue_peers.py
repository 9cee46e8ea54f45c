"""Our catalogue files in the hands of the programs that they are made for."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from spica_imaging.ldac import LdacTable, read_ldac, write_ldac
from spica_imaging.wcs import TpvWcs
from spica_quality.cataloguefiles import CatalogueFacts, catalogue_header, write_parquet
from spica_quality.science.background.sky import Sky, measure_sky, subtract
from spica_quality.science.detection.segmentation import detect
from spica_quality.science.photometry.catalogue import (
    APERTURES_PER_FWHM,
    Columns,
    add_sky_positions,
    measure_catalogue,
)

from tests.support.ccdsim import PsfField, Recipe, Truth, simulate, small
from tests.support.realdata import peer_program
from tests.unit.quality.placed import true_psf

FWHM = 4.0
SIDE = 900
VIGNET = 35


def image_header(name: str) -> fits.Header:
    header = fits.Header([("XTENSION", "IMAGE"), ("BITPIX", -32), ("NAXIS", 2), ("EXTNAME", name)])
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = 150.0, 2.0
    header["CRPIX1"], header["CRPIX2"] = SIDE / 2 + 0.5, SIDE / 2 + 0.5
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = -5.2e-5, 0.0, 0.0, 5.2e-5
    header["EXPTIME"], header["AIRMASS"], header["FILTER"] = 60.0, 1.2, "r"
    header["MJD-OBS"] = 58000.0
    return header


def catalogued(seed: int) -> tuple[Columns, Sky, Truth]:
    recipe = small(
        Recipe(psf=PsfField(FWHM)), (SIDE, SIDE), n_stars=250, n_galaxies=60, star_mags=(18.0, 22.5)
    )
    exposure = simulate(recipe, seed)
    data, flags = exposure.data.copy(), np.where(exposure.saturated, 4, 0).astype(np.uint16)
    sky = measure_sky(data, flags)
    subtract(data, flags, sky)
    sources, segments = detect(data, flags, sky, fwhm_px=FWHM)
    psf = true_psf(recipe.psf, recipe.shape)
    columns = measure_catalogue(
        data,
        flags,
        sky,
        sources,
        segments,
        gain=1.62,
        fwhm_px=FWHM,
        psf=psf,
        zeropoint=33.0,
        vignet_px=VIGNET,
    )
    return columns, sky, exposure.truth


def facts(name: str, sky: Sky) -> CatalogueFacts:
    return CatalogueFacts(
        name=name,
        nx=SIDE,
        ny=SIDE,
        gain_e_per_adu=1.62,
        saturation_adu=64_000.0,
        background_adu=sky.median_level,
        background_rms_adu=sky.median_rms,
        threshold_adu=1.5 * sky.median_rms,
        fwhm_px=FWHM,
        aperture_diameters_px=[factor * FWHM for factor in APERTURES_PER_FWHM],
        zeropoint_mag=33.0,
        pixel_scale_arcsec=0.187,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two exposures of two CCDs, the second one shifted, and a reference catalogue made of the truth."""
    made = tmp_path_factory.mktemp("peers")
    exposures: dict[str, list[LdacTable]] = {"one": [], "two": []}
    reference: list[Columns] = []
    for k in range(2):
        columns, sky, truth = catalogued(7 + k)
        header = image_header(f"ccd{k:02d}")
        header["CRVAL2"] += 0.06 * k
        wcs = TpvWcs.from_header(header)
        for name, shift in (("one", 5.0), ("two", -8.0)):
            moved = dict(columns)
            for key in ("X_IMAGE", "Y_IMAGE", "XWIN_IMAGE", "YWIN_IMAGE"):
                moved[key] = columns[key] + shift
            add_sky_positions(moved, wcs)
            exposures[name].append(LdacTable(catalogue_header(header, facts(f"ccd{k:02d}", sky)), moved))
        ra, dec = wcs.pixel_to_sky(truth.x[truth.is_star] + 1.0, truth.y[truth.is_star] + 1.0)
        error = np.full(len(ra), 0.01 / 3600.0)
        reference.append(
            {"X_WORLD": ra, "Y_WORLD": dec, "ERRA_WORLD": error, "ERRB_WORLD": error,
             "MAG": truth.mag[truth.is_star].astype(np.float32), "MAGERR": np.full(len(ra), 0.01, np.float32),
             "OBSDATE": np.full(len(ra), 2017.7), "FLAGS": np.zeros(len(ra), np.int16)}
        )  # fmt: skip
    for name, tables in exposures.items():
        write_ldac(made / f"{name}.ldac", tables)
    write_parquet(made / "one.parquet", exposures["one"], {"image": "one"})
    joined = {key: np.concatenate([part[key] for part in reference]) for key in reference[0]}
    write_ldac(made / "reference.cat", [LdacTable(image_header("reference"), joined)])
    return made


def run(*command: str, cwd: Path) -> str:
    """What a program says; its version's own complaint on how it was built is not about us."""
    done = subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True, timeout=120)
    told = (done.stdout + done.stderr).replace("\r", "\n")
    assert done.returncode == 0, told
    return "\n".join(
        line for line in told.splitlines() if "compiled using a version of the ATLAS" not in line
    )


@pytest.mark.peer
def test_psfex_takes_our_stars_and_finds_their_size(folder: Path) -> None:
    psfex = peer_program("psfex")
    (folder / "psfex.conf").write_text(run(psfex, "-dd", cwd=folder))
    told = run(
        *(psfex, "one.ldac", "-c", "psfex.conf", "-CHECKPLOT_TYPE", "NONE", "-CHECKIMAGE_TYPE", "NONE"),
        *("-WRITE_XML", "N", "-NTHREADS", "1", "-PSFVAR_DEGREES", "0", "-PSF_SIZE", "25,25"),
        cwd=folder,
    )
    assert "WARNING" not in told, told
    # accepted/total, sampling, chi2/dof, FWHM: as PSFEx prints them for the first CCD.
    line = next(line for line in told.splitlines() if re.search(r"one +\[1/2\] +\d+/\d+", line))
    accepted, total, _, chi2, fwhm = map(float, re.findall(r"[\d.]+", line.split("]", 1)[1])[:5])
    assert total > 80
    assert accepted > 0.85 * total
    assert fwhm == pytest.approx(FWHM + 0.07, rel=0.02)
    assert 0.7 < chi2 < 1.3
    with fits.open(folder / "one.psf") as hdus:
        assert len(hdus) == 3


@pytest.mark.peer
def test_scamp_solves_our_catalogues(folder: Path) -> None:
    scamp = peer_program("scamp")
    (folder / "scamp.conf").write_text(run(scamp, "-d", cwd=folder))
    told = run(
        *(scamp, "one.ldac", "two.ldac", "-c", "scamp.conf", "-ASTREF_CATALOG", "FILE"),
        *("-ASTREFCAT_NAME", "reference.cat", "-ASTREFMAG_KEY", "MAG", "-ASTREFMAGERR_KEY", "MAGERR"),
        *("-CHECKPLOT_TYPE", "NONE", "-CHECKPLOT_DEV", "NULL", "-DISTORT_DEGREES", "1", "-WRITE_XML", "N"),
        *("-MATCH", "N", "-CROSSID_RADIUS", "5.0", "-SN_THRESHOLDS", "10,50", "-NTHREADS", "1"),
        cwd=folder,
    )
    assert "WARNING" not in told, told
    for name, shift in (("one", 5.0), ("two", -8.0)):
        text = (folder / f"{name}.head").read_text(encoding="latin-1")
        heads = [fits.Header.fromstring(part + "END", sep="\n") for part in text.split("END     \n")[:2]]
        for k, head in enumerate(heads):
            dx = (
                head["CRPIX1"]
                - (SIDE / 2 + 0.5)
                - (head["CRVAL1"] - 150.0) * np.cos(np.radians(2.0)) / -5.2e-5
            )
            dy = head["CRPIX2"] - (SIDE / 2 + 0.5) - (head["CRVAL2"] - 2.0 - 0.06 * k) / 5.2e-5
            assert (dx, dy) == pytest.approx((shift, shift), abs=0.1)


@pytest.mark.peer
def test_fitsverify_finds_nothing_but_the_name_that_all_ldac_files_have(folder: Path) -> None:
    fitsverify = peer_program("fitsverify")
    done = subprocess.run([fitsverify, "one.ldac"], cwd=folder, check=False, capture_output=True, text=True)
    told = done.stdout
    assert "0 error(s)" in told, told
    complaints = [line for line in told.splitlines() if line.startswith("***") and "Verification" not in line]
    assert all('Name "Field Header Card"' in line for line in complaints), told


def test_parquet_and_ldac_hold_the_same(folder: Path) -> None:
    table, ldac = pq.read_table(folder / "one.parquet"), read_ldac(folder / "one.ldac")
    assert table.column_names == ["ccd", *(name for name in ldac[0].columns if name != "VIGNET")]
    assert set(table["ccd"].to_pylist()) == {"ccd00", "ccd01"}
    for name in ("NUMBER", "XWIN_IMAGE", "FLUX_AUTO", "FLAGS", "ALPHAWIN_J2000"):
        assert np.array_equal(table[name].to_numpy(), np.concatenate([part.columns[name] for part in ldac]))
    assert ldac[0].columns["VIGNET"].shape[1:] == (VIGNET, VIGNET)


def test_the_header_says_what_readers_ask_and_nothing_unknown() -> None:
    known = catalogue_header(image_header("x"), CatalogueFacts("ccd05", 10, 20, 1.6, background_rms_adu=5.0))
    assert (known["EXTNAME"], known["NAXIS1"], known["NAXIS2"]) == ("ccd05", 10, 20)
    assert (known["SEXGAIN"], known["SEXBKDEV"]) == (1.6, 5.0)
    assert "SEXMGZPT" not in known
    assert "APERDIAM" not in known
    assert "EXTNAME" in image_header("x")
