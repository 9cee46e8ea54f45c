"""Weight and flag maps: what is in them, and that other programs read them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_quality.maps import STEPS, encode_ccd, map_files
from spica_quality.science.background.weighting import weight_steps
from spica_quality.science.flags import Bit

from tests.support.realdata import peer_program
from tests.unit.quality.test_masks import Even

SHAPE = (90, 120)


class Flat:
    """A flat field that is known pixel by pixel."""

    def __init__(self, relative: np.ndarray) -> None:
        self._relative = relative

    def relative_rows(self, y0: int, y1: int) -> np.ndarray:
        return self._relative[y0:y1].copy()


def sky_header(number: int, shape: tuple[int, int] = SHAPE) -> fits.Header:
    header = fits.Header()
    for keyword, value in (
        ("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN"), ("CRVAL1", 150.0), ("CRVAL2", 2.0),
        ("CRPIX1", shape[1] / 2 + 1.05 * shape[1] * number), ("CRPIX2", shape[0] / 2), ("CD1_1", -2e-5),
        ("CD1_2", 0.0), ("CD2_1", 0.0), ("CD2_2", 2e-5), ("RADECSYS", "FK5"), ("EQUINOX", 2000.0), ("OBJECT", "D1"),
    ):  # fmt: skip
        header[keyword] = value
    return header


def some_flags(seed: int = 0, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    flags = np.zeros(shape, np.uint16)
    random = np.random.default_rng(seed)
    flags[random.random(shape) < 0.02] = Bit.COSMIC
    flags[:, 7] |= Bit.COLUMN
    return flags


def written(folder: Path, out: tuple[int, ...] = (), backwards: bool = False) -> tuple[Path, Path]:
    weight, flags = folder / "a.weight.fits.fz", folder / "a.flag.fits.fz"
    with map_files(weight, flags) as maps:
        for number in reversed(range(3)) if backwards else range(3):
            noise = Even(SHAPE, 5.0 + number)
            maps.add(number, encode_ccd(f"ccd{number:02d}", sky_header(number), some_flags(number), noise))
        maps.finish(out)
    return weight, flags


def test_maps_tell_flags_and_one_over_variance(tmp_path: Path) -> None:
    weight, flags = written(tmp_path)
    with fits.open(weight) as weights, fits.open(flags) as flag_maps:
        assert len(weights) == len(flag_maps) == 4
        for number in range(3):
            expected = some_flags(number)
            hdu, flag_hdu = weights[number + 1], flag_maps[number + 1]
            assert hdu.header["EXTNAME"] == flag_hdu.header["EXTNAME"] == f"ccd{number:02d}"
            np.testing.assert_array_equal(flag_hdu.data, expected)
            assert flag_hdu.header["BITPIX"] == 16
            np.testing.assert_allclose(
                hdu.data, np.where(expected == 0, 1.0 / (5.0 + number) ** 2, 0.0), rtol=1e-4
            )
            assert hdu.header["CRPIX1"] == sky_header(number)["CRPIX1"]
            assert hdu.header["RADESYS"] == "FK5"
            assert "OBJECT" not in hdu.header
        for bit, name in ((32, "COSMIC"), (512, "CCD_OUT")):
            assert flag_maps[1].header[f"FLAG{bit:04d}"] == name
    assert b"2E-05" not in weight.read_bytes()[:20000].replace(b"2.0E-05", b"")


def test_a_ccd_that_is_out_has_no_weight_and_keeps_its_flags(tmp_path: Path) -> None:
    weight, flags = written(tmp_path, (1,))
    with fits.open(weight) as weights, fits.open(flags) as flag_maps:
        assert not weights[2].data.any()
        assert weights[1].data.any() and weights[3].data.any()
        np.testing.assert_array_equal(flag_maps[2].data, some_flags(1) | Bit.CCD_OUT)
        assert not (flag_maps[1].data & Bit.CCD_OUT).any()
        assert weights[2].header["CRPIX1"] == sky_header(1)["CRPIX1"]


def test_the_same_pixels_give_the_same_bytes_in_whatever_order_they_come(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    one, other = written(tmp_path, (2,)), written(tmp_path / "b", (2,), backwards=True)
    for path, again in zip(one, other, strict=True):
        assert path.read_bytes() == again.read_bytes()


def test_maps_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    weight, flags = tmp_path / "a.weight.fits.fz", tmp_path / "a.flag.fits.fz"
    with pytest.raises(RuntimeError, match="finish"), map_files(weight, flags) as maps:
        maps.add(0, encode_ccd("x", fits.Header(), some_flags(), Even(SHAPE, 5.0)))
    assert list(tmp_path.iterdir()) == []


def test_a_ccd_without_noise_has_no_weight(tmp_path: Path) -> None:
    with map_files(tmp_path / "w.fz", tmp_path / "f.fz") as maps:
        maps.add(0, encode_ccd("x", fits.Header(), some_flags(), Even(SHAPE, 0.0)))
        maps.finish()
    with fits.open(tmp_path / "w.fz") as weights:
        assert not weights[1].data.any()


def test_the_flat_goes_in_by_what_the_noise_is_made_of() -> None:
    relative = np.full(SHAPE, 0.5, np.float32)
    relative[:, 60:] = np.nan
    for detector, expected in ((5.0, 0.25), (0.0, 0.5), (np.sqrt(12.5), 1 / (0.5 / 0.5 + 0.5 / 0.25))):
        steps = np.empty(SHAPE, np.int16)
        weight_steps(
            np.zeros(SHAPE, np.uint16), np.full(SHAPE, 5.0, np.float32), relative, steps,
            typical_rms=5.0, steps=STEPS, detector_noise=detector,
        )  # fmt: skip
        assert steps[0, 0] == pytest.approx(expected * STEPS, abs=1)
        assert steps[0, 100] == STEPS  # not known: as those around it


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_weights_agree_with_their_plain_twin(seed: int) -> None:
    random = np.random.default_rng(seed)
    rms = random.choice(np.array([0.0, 1.0, 5.0, 40.0, np.nan, np.inf], np.float32), (9, 8))
    flat = random.choice(np.array([0.3, 1.0, 1.2, np.nan, -1.0, 0.0], np.float32), (9, 8))
    flags = random.choice(np.array([0, 0, 0, 4, 32], np.uint16), (9, 8))
    steps = np.empty((9, 8), np.int16)
    weight_steps(flags, rms, flat, steps, typical_rms=5.0, steps=2000, detector_noise=3.0)
    for j in range(9):
        for i in range(8):
            variance, f = float(rms[j, i]) ** 2, float(flat[j, i])
            if flags[j, i] or not variance > 0:
                assert steps[j, i] == 0
                continue
            share = min(9.0 / variance, 1.0)
            factor = 1.0 / ((1 - share) / f + share / f**2) if f > 0 else 1.0
            assert steps[j, i] == np.clip(np.rint(2000 * 25.0 / variance * factor), 1, 32767)


# ---- other programs ----


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """An image of two CCDs with its maps; half of the second's stars lie where there is no weight."""
    shape = (300, 400)
    random = np.random.default_rng(3)
    hdus = [fits.PrimaryHDU()]
    with map_files(tmp_path / "im.weight.fits.fz", tmp_path / "im.flag.fits.fz") as maps:
        for number in range(2):
            data = random.normal(1000.0, 5.0, shape).astype(np.float32)
            for x in range(20, 400, 40):
                for y in range(20, 300, 40):
                    data[y - 3 : y + 4, x - 3 : x + 4] += 900 * np.exp(
                        -(np.mgrid[-3:4, -3:4] ** 2).sum(0) / 4
                    )
            flags = np.zeros(shape, np.uint16)
            flags[150:, :200] = Bit.MASKED
            flags[60, 100] = Bit.COSMIC
            hdus.append(fits.ImageHDU(data, sky_header(number, shape), name=f"ccd{number:02d}"))
            header = sky_header(number, shape)
            maps.add(number, encode_ccd(f"ccd{number:02d}", header, flags, Even(shape, 5.0)))
        maps.finish()
    fits.HDUList(hdus).writeto(tmp_path / "im.fits")
    return tmp_path


def test_fitsverify_has_nothing_to_say(frames: Path) -> None:
    for name in ("im.weight.fits.fz", "im.flag.fits.fz"):
        assert "0 warning(s) and 0 error(s)" in run(frames, peer_program("fitsverify"), name)


def test_swarp_reads_the_weight_map_as_it_is(frames: Path) -> None:
    program = peer_program("SWarp", "swarp")
    run(
        frames, program, "im.fits", "-c", "/dev/null", "-WEIGHT_TYPE", "MAP_WEIGHT", "-WEIGHT_IMAGE", "im.weight.fits.fz",
        "-IMAGEOUT_NAME", "c.fits", "-WEIGHTOUT_NAME", "c.weight.fits", "-RESCALE_WEIGHTS", "N",
        "-SUBTRACT_BACK", "N", "-RESAMPLING_TYPE", "NEAREST", "-WRITE_XML", "N",
    )  # fmt: skip
    weight = fits.getdata(frames / "c.weight.fits")
    seen = weight[weight > 0]
    assert np.median(seen) == pytest.approx(1 / 25.0, rel=1e-3)
    assert seen.size == pytest.approx(2 * 0.75 * 300 * 400, rel=0.03)


def test_source_extractor_reads_both(frames: Path) -> None:
    """Debian's is built without CFITSIO: it wants them unpacked; others read them as they are."""
    program = peer_program("source-extractor", "sex")
    for kind in ("weight", "flag"):
        run(frames, peer_program("funpack"), "-O", f"im.{kind}.fits", f"im.{kind}.fits.fz")
    (frames / "p.param").write_text("X_IMAGE\nY_IMAGE\nIMAFLAGS_ISO\nEXT_NUMBER\n")
    run(
        frames, program, "im.fits", "-c", "/dev/null", "-PARAMETERS_NAME", "p.param", "-FILTER", "N",
        "-CATALOG_NAME", "out.cat", "-WEIGHT_TYPE", "MAP_WEIGHT", "-WEIGHT_IMAGE", "im.weight.fits",
        "-FLAG_IMAGE", "im.flag.fits", "-HEADER_SUFFIX", ".none", "-DETECT_THRESH", "10", "-STARNNW_NAME", "/dev/null",
    )  # fmt: skip
    rows = np.loadtxt(frames / "out.cat", comments="#", ndmin=2)
    assert len(rows) == pytest.approx(2 * 70 * 0.75, abs=8)
    masked = (rows[:, 0] < 195) & (rows[:, 1] > 160)
    assert not masked.any()
    hit = (np.abs(rows[:, 0] - 101) < 2) & (np.abs(rows[:, 1] - 61) < 2)
    assert (rows[hit, 2] == Bit.COSMIC).all() and hit.sum() == 2
