from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_imaging.ldac import LdacTable, read_ldac, write_ldac

from tests.support.realdata import peer_program, real_data


def tan_header(name: str = "ccd00", **more: float | str) -> fits.Header:
    header = fits.Header()
    header["XTENSION"] = "IMAGE"
    header["BITPIX"] = 16
    header["NAXIS"] = 2
    header["NAXIS1"], header["NAXIS2"] = 2000, 2000
    header["PCOUNT"], header["GCOUNT"] = 0, 1
    header["EXTNAME"] = name
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = 150.0, 2.0
    header["CRPIX1"], header["CRPIX2"] = 1000.5, 1000.5
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = -5e-5, 0.0, 0.0, 5e-5
    header["EXPTIME"], header["GAIN"], header["AIRMASS"] = 60.0, 1.6, 1.2
    header["MJD-OBS"], header["FILTER"], header["SATURATE"] = 58000.0, "r", 60000.0
    for keyword, value in more.items():
        header[keyword] = value
    return header


def columns(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    x, y = random.uniform(20, 1980, n), random.uniform(20, 1980, n)
    flux = np.exp(random.uniform(7.0, 12.0, n))
    small = np.full(n, 0.02, np.float32)
    return {
        "NUMBER": np.arange(1, n + 1, dtype=np.int32),
        "X_IMAGE": x,
        "Y_IMAGE": y,
        "XWIN_IMAGE": x,
        "YWIN_IMAGE": y,
        "ERRAWIN_IMAGE": small,
        "ERRBWIN_IMAGE": small,
        "ERRTHETAWIN_IMAGE": np.zeros(n, np.float32),
        "FLUX_AUTO": flux.astype(np.float32),
        "FLUXERR_AUTO": np.sqrt(flux).astype(np.float32),
        "FLUX_RADIUS": np.full(n, 2.2, np.float32),
        "ELONGATION": np.full(n, 1.02, np.float32),
        "FLAGS": np.zeros(n, np.int16),
    }


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=4))
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    path = tmp_path_factory.mktemp("ldac") / "a.ldac"
    tables = [LdacTable(tan_header(f"ccd{k:02d}"), columns(n, k)) for k, n in enumerate(sizes)]
    write_ldac(path, tables)
    again = read_ldac(path)
    assert [len(table) for table in again] == sizes
    for before, after in zip(tables, again, strict=True):
        assert list(after.columns) == list(before.columns)
        for name, values in before.columns.items():
            assert after.columns[name].dtype == values.dtype
            assert np.array_equal(after.columns[name], values)
        assert after.header["EXTNAME"] == before.header["EXTNAME"]
        assert after.header["CD1_1"] == before.header["CD1_1"]
        assert "XTENSION" not in after.header


def test_columns_of_more_axes_keep_their_shape(tmp_path: Path) -> None:
    stamps = np.arange(3 * 5 * 7, dtype=np.float32).reshape(3, 5, 7)
    fluxes = np.arange(6, dtype=np.float64).reshape(3, 2)
    write_ldac(tmp_path / "a", [LdacTable(tan_header(), {"VIGNET": stamps, "FLUX_APER": fluxes})])
    (table,) = read_ldac(tmp_path / "a")
    assert np.array_equal(table.columns["VIGNET"], stamps)
    assert np.array_equal(table.columns["FLUX_APER"], fluxes)


def test_every_block_is_2880_bytes_and_header_text_is_cards_that_end_with_end(tmp_path: Path) -> None:
    path = tmp_path / "a.ldac"
    write_ldac(path, [LdacTable(tan_header(), columns(17))])
    assert path.stat().st_size % 2880 == 0
    with fits.open(path) as hdus:
        hdus.verify("exception")
        text = hdus[1].data.tobytes()
        assert hdus[1].columns.names == ["Field Header Card"]
        assert len(hdus[1].data) == 1
    assert len(text) % 2880 == 0
    cards = [text[start : start + 80] for start in range(0, len(text), 80)]
    assert b"END" + b" " * 77 in cards
    assert b"\0" not in text
    assert cards[0].startswith(b"SIMPLE")


def test_no_source_at_all_is_a_catalogue_too(tmp_path: Path) -> None:
    write_ldac(tmp_path / "a", [LdacTable(tan_header(), {}), LdacTable(tan_header("b"), columns(2))])
    assert [len(table) for table in read_ldac(tmp_path / "a")] == [0, 2]


def test_the_same_catalogue_is_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_ldac(tmp_path / name, [LdacTable(tan_header(), columns(50))])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_ordinary_table_is_not_taken_for_a_catalogue(tmp_path: Path) -> None:
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(np.zeros(2, [("a", "f4")]))]).writeto(tmp_path / "a")
    with pytest.raises(ValueError, match="not a FITS_LDAC"):
        read_ldac(tmp_path / "a")


def test_columns_of_different_length_or_unknown_type_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="differ in length"):
        write_ldac(tmp_path / "a", [LdacTable(tan_header(), {"A": np.zeros(2), "B": np.zeros(3)})])
    with pytest.raises(ValueError, match="LDAC tables do not have"):
        write_ldac(tmp_path / "a", [LdacTable(tan_header(), {"A": np.zeros(2, np.complex128)})])


@pytest.mark.real
def test_a_catalogue_of_source_extractor_survives_the_round_trip(tmp_path: Path) -> None:
    (before,) = read_ldac(real_data("decam/DECam_00241238_01_cat.fits"))
    write_ldac(tmp_path / "a", [before])
    (after,) = read_ldac(tmp_path / "a")
    assert len(after) == 950
    assert after.header["CRVAL1"] == pytest.approx(61.4507, abs=1e-3)
    for name, values in before.columns.items():
        assert np.array_equal(after.columns[name], values, equal_nan=True), name


def sky_of(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions on the sky by the header's TAN projection (good to 1 mas this near the centre)."""
    xi, eta = np.radians(-5e-5 * (x - 1000.5)), np.radians(5e-5 * (y - 1000.5))
    dec0 = np.radians(2.0)
    denominator = np.cos(dec0) - eta * np.sin(dec0)
    ra = 150.0 + np.degrees(np.arctan2(xi, denominator))
    dec = np.degrees(np.arctan2(np.sin(dec0) + eta * np.cos(dec0), np.hypot(denominator, xi)))
    return ra, dec


@pytest.mark.peer
def test_scamp_solves_our_catalogues_against_our_reference(tmp_path: Path) -> None:
    scamp = peer_program("scamp")
    random = np.random.default_rng(8)
    truth = columns(300)
    ra, dec = sky_of(truth["X_IMAGE"], truth["Y_IMAGE"])
    n = len(ra)
    small = np.full(n, 0.02 / 3600.0)
    reference = {
        "X_WORLD": ra,
        "Y_WORLD": dec,
        "ERRA_WORLD": small,
        "ERRB_WORLD": small,
        "MAG": (30.0 - 2.5 * np.log10(truth["FLUX_AUTO"])).astype(np.float32),
        "MAGERR": np.full(n, 0.01, np.float32),
        "OBSDATE": np.full(n, 2017.7),
    }
    write_ldac(tmp_path / "reference.cat", [LdacTable(tan_header(), reference)])
    for name, shift in (("one", 6.0), ("two", -9.0)):
        moved = dict(truth)
        for axis in ("X_IMAGE", "Y_IMAGE"):
            moved[axis] = truth[axis] + shift + random.normal(0.0, 0.02, n)
            moved[axis.replace("_", "WIN_")] = moved[axis]
        write_ldac(tmp_path / f"{name}.ldac", [LdacTable(tan_header(), moved)])
    subprocess.run([scamp, "-d"], cwd=tmp_path, check=True, capture_output=True)
    command = [
        scamp,
        *("one.ldac", "two.ldac", "-ASTREF_CATALOG", "FILE", "-ASTREFCAT_NAME", "reference.cat"),
        *("-ASTREFMAG_KEY", "MAG", "-ASTREFMAGERR_KEY", "MAGERR", "-CHECKPLOT_TYPE", "NONE"),
        *("-CHECKPLOT_DEV", "NULL", "-DISTORT_DEGREES", "1", "-WRITE_XML", "N", "-VERBOSE_TYPE", "QUIET"),
        *("-MATCH", "N", "-CROSSID_RADIUS", "5.0", "-SN_THRESHOLDS", "5,20", "-NTHREADS", "1"),
    ]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for name, shift in (("one", 6.0), ("two", -9.0)):
        head = fits.Header.fromstring((tmp_path / f"{name}.head").read_text(encoding="latin-1"), sep="\n")
        # Shifted by whole pixels: where the tangent point lies now tells what scamp found.
        found = head["CRPIX1"] - 1000.5 + (150.0 - head["CRVAL1"]) * np.cos(np.radians(2.0)) / -5e-5
        assert found == pytest.approx(shift, abs=0.1)


@pytest.mark.peer
def test_psfex_models_stars_of_our_catalogue(tmp_path: Path) -> None:
    psfex = peer_program("psfex")
    n, size, fwhm = 150, 25, 4.0
    table = columns(n)
    random = np.random.default_rng(9)
    j, i = np.mgrid[:size, :size] - size // 2
    stamps = np.empty((n, size, size), np.float32)
    for k in range(n):
        dx = table["X_IMAGE"][k] - np.rint(table["X_IMAGE"][k])
        dy = table["Y_IMAGE"][k] - np.rint(table["Y_IMAGE"][k])
        star = np.exp(-4 * np.log(2) * ((i - dx) ** 2 + (j - dy) ** 2) / fwhm**2)
        stamps[k] = table["FLUX_AUTO"][k] * star / star.sum() + random.normal(0, 3.0, (size, size))
    table["VIGNET"] = stamps
    table["FLUX_RADIUS"] = np.full(n, 0.5 * fwhm, np.float32)
    table["FLUX_APER"], table["FLUXERR_APER"] = table["FLUX_AUTO"], table["FLUXERR_AUTO"]
    table["SNR_WIN"] = table["FLUX_AUTO"] / table["FLUXERR_AUTO"]
    write_ldac(tmp_path / "stars.ldac", [LdacTable(tan_header(SEXBKDEV=3.0, SEXGAIN=1.6), table)])
    command = [
        psfex,
        *("stars.ldac", "-CHECKPLOT_TYPE", "NONE", "-CHECKPLOT_DEV", "NULL", "-CHECKIMAGE_TYPE", "NONE"),
        *("-WRITE_XML", "N", "-PSF_SIZE", "25,25", "-PSFVAR_DEGREES", "0", "-VERBOSE_TYPE", "QUIET"),
        *("-NTHREADS", "1"),
    ]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with fits.open(tmp_path / "stars.psf") as hdus:
        header = hdus[1].header
        assert header["LOADED"] == n
        assert header["ACCEPTED"] > 0.8 * n
        assert header["PSF_FWHM"] == pytest.approx(fwhm, rel=0.05)
        assert header["CHI2"] < 2.0
