"""Files read from disk: whole ones, broken ones, and whatever chance makes of one."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spica_imaging.profiles import load_profiles
from spica_ingest.science.facts import FileFacts
from spica_ingest.science.verify import judge
from spica_ingest.verification.reading import Limits, read_facts, read_file

from tests.unit.ingest.frames import LIMITS, PIXELS, frame, write

PLAIN = frame()
COMPRESSED = frame(compressed=True)
UNSUMMED = [frame(checksum=False, ccds=1), frame(checksum=False, ccds=1, compressed=True)]
HEADER = PLAIN[:2880].replace(b"END     ", b"EMD     ")


def read(tmp_path: Path, content: bytes, limits: Limits = LIMITS) -> FileFacts:
    return read_facts(write(tmp_path / "a.fits", content), limits)


def codes(facts: FileFacts) -> list[str]:
    return [fault.code for fault in facts.faults]


@pytest.mark.parametrize(
    "content",
    [PLAIN, COMPRESSED, gzip.compress(PLAIN), bz2.compress(PLAIN), gzip.compress(COMPRESSED)],
    ids=["plain", "tiles", "gzip", "bzip2", "tiles-gzip"],
)
def test_a_whole_file_is_read_to_its_pixels(tmp_path: Path, content: bytes) -> None:
    facts = read(tmp_path, content)
    assert facts.faults == facts.oddities == ()
    assert [hdu.is_image for hdu in facts.hdus] == [False, True, True]
    for hdu in facts.hdus[1:]:
        assert hdu.shape == (40, 48)
        assert (hdu.header["NAXIS1"], hdu.header["NAXIS2"]) == (48, 40)
        assert not any(key.startswith(("ZNAXIS", "TFORM", "ZTILE")) for key in hdu.header)
        assert hdu.pixels is not None
        assert (hdu.pixels.minimum, hdu.pixels.maximum) == (PIXELS.min(), PIXELS.max())
        assert hdu.pixels.finite_fraction == 1.0


def test_the_file_name_does_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path / "no suffix at all", gzip.compress(PLAIN))
    assert read_facts(path, LIMITS).faults == ()


@pytest.mark.parametrize("content", [PLAIN, COMPRESSED], ids=["plain", "tiles"])
@pytest.mark.parametrize("share", [0.99, 0.7, 0.45])
def test_a_truncated_file_is_found_wherever_it_was_cut(tmp_path: Path, content: bytes, share: float) -> None:
    facts = read(tmp_path, content[: int(len(content.rstrip(b"\0")) * share)])
    assert set(codes(facts)) & {"truncated", "header_without_end"}
    if "truncated" in codes(facts):
        assert facts.hdus[-1].pixels is None


def test_a_missing_padding_does_no_harm(tmp_path: Path) -> None:
    facts = read(tmp_path, frame(checksum=False).rstrip(b"\0"))
    assert facts.faults == ()
    assert [item.code for item in facts.oddities] == ["padding_missing"]


@pytest.mark.parametrize("packed", [gzip.compress(PLAIN), bz2.compress(PLAIN)])
def test_damaged_compression_is_found(tmp_path: Path, packed: bytes) -> None:
    assert "damaged_compression" in codes(read(tmp_path, packed[: len(packed) // 2]))
    broken = bytearray(packed)
    broken[len(broken) // 2] ^= 0xFF
    assert "damaged_compression" in codes(read(tmp_path, bytes(broken)))


def test_changed_data_and_changed_headers_fail_their_sums(tmp_path: Path) -> None:
    changed = bytearray(PLAIN)
    changed[-3000] ^= 1
    assert codes(read(tmp_path, bytes(changed))) == ["datasum_mismatch"]
    facts = read(tmp_path, PLAIN.replace(b"'r.SIM   '", b"'g.SIM   '"))
    assert codes(facts) == ["checksum_mismatch"]
    assert facts.faults[0].hdu == 0


def test_a_changed_byte_in_a_tile_never_reaches_the_decoder(tmp_path: Path) -> None:
    changed = bytearray(COMPRESSED)
    changed[-2500] ^= 0xFF
    facts = read(tmp_path, bytes(changed))
    assert codes(facts) == ["datasum_mismatch"]
    assert [hdu.pixels is None for hdu in facts.hdus] == [True, False, True]


def test_tiles_that_cannot_be_decoded_are_found_without_any_sum(tmp_path: Path) -> None:
    content = bytearray(frame(compressed=True, checksum=False, ccds=1))
    # The descriptors of the variable-length column: (length, offset) of each tile's bytes.
    start = 2880 * -(-(content.index(b"END     ", content.index(b"XTENSION"))) // 2880)
    content[start : start + 8] = (1 << 30).to_bytes(4, "big") + (1 << 30).to_bytes(4, "big")
    facts = read(tmp_path, bytes(content))
    assert codes(facts) == ["undecodable"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_file"),
        (b"<!DOCTYPE html><html>404 not found</html>" * 100, "not_fits"),
        (b"SIMPLE  =", "header_without_end"),
        (b"\x1f\x9d\x90" + bytes(100), "not_fits"),
        (b"\x1f\x9d\x98" + bytes(100), "damaged_compression"),
        (lzma.compress(PLAIN), "unsupported_compression"),
        (HEADER + HEADER, "header_without_end"),
        (PLAIN.replace(b"BITPIX  =                    8", b"BITPIX  =                    7"), "bad_structure"),
        (PLAIN.replace(b"NAXIS1  =                   48", b"NAXIS1  =                  -48"), "bad_structure"),
        (PLAIN.replace(b"NAXIS1  =                   48", b"NAXIS1  = 'wide'              "), "bad_structure"),
        (PLAIN.replace(b"NAXIS1  =                   48", b"NAXIS1  =             99999999"), "too_large"),
    ],
)  # fmt: skip
def test_what_is_no_fits_file_is_told_by_name(tmp_path: Path, content: bytes, code: str) -> None:
    assert codes(read(tmp_path, content))[-1] == code


def test_a_small_file_that_unpacks_to_a_huge_one_is_refused(tmp_path: Path) -> None:
    header = fits.Header(
        [("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 2), ("NAXIS1", 30000), ("NAXIS2", 30000)]
    )
    bomb = gzip.compress(header.tostring().encode() + bytes(2880 * 5000), compresslevel=1)
    facts = read(tmp_path, bomb)
    assert codes(facts) == ["too_large"]


def test_too_many_pixels_are_not_decoded(tmp_path: Path) -> None:
    facts = read(tmp_path, COMPRESSED, Limits(max_bytes=10**8, max_pixels=1000))
    assert codes(facts) == ["too_large", "too_large"]


def test_what_follows_the_last_hdu_is_left_alone(tmp_path: Path) -> None:
    for tail in (b"\0" * 2880, b"special records" * 200):
        facts = read(tmp_path, PLAIN + tail)
        assert facts.faults == ()
        assert [item.code for item in facts.oddities] == ["trailing_bytes"]


def test_cards_that_cannot_be_read_are_left_out_and_said(tmp_path: Path) -> None:
    content = frame(checksum=False).replace(
        b"AIRMASS =                  1.2", b"AIRMASS =               1.2 x1"
    )
    facts = read(tmp_path, content)
    assert "AIRMASS" not in facts.hdus[0].header
    assert [(item.code, item.keyword) for item in facts.oddities] == [("unreadable_cards", "AIRMASS")]


def test_blank_and_constant_images_are_seen(tmp_path: Path) -> None:
    nothing = read(tmp_path, frame(pixels=np.full((40, 48), np.nan, np.float32))).hdus[1].pixels
    assert nothing is not None and nothing.constant and nothing.minimum is None
    same = read(tmp_path, frame(pixels=np.full((40, 48), 7, np.int16))).hdus[1].pixels
    assert same is not None and same.constant and same.minimum == 7
    half = np.where(np.arange(48) < 12, np.nan, np.arange(48.0)) * np.ones((40, 1))
    some = read(tmp_path, frame(pixels=half)).hdus[1].pixels
    assert some is not None and not some.constant
    assert (some.finite_fraction, some.minimum, some.maximum) == (0.75, 12.0, 47.0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.booleans(),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6),
    st.floats(0.2, 1.0),
)
def test_whatever_chance_makes_of_a_file_there_is_a_verdict(
    tmp_path: Path, compressed: bool, changes: list[tuple[float, int]], share: float
) -> None:
    content = UNSUMMED[compressed]
    spoiled = bytearray(content)
    for place, value in changes:
        spoiled[int(place * 6000)] = value
    verdict = judge(read(tmp_path, bytes(spoiled[: int(len(spoiled) * share)])), load_profiles())
    assert (verdict.exposure is None) == bool(verdict.reasons)


def tiled(pixels: np.ndarray, **how: object) -> bytes:
    content = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels, **how)]).writeto(content)
    return content.getvalue()


@pytest.mark.parametrize("algorithm", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1", "NOCOMPRESS"])
def test_every_kind_of_tile_is_decoded(tmp_path: Path, algorithm: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 99, (40, 48)).astype(np.int16)
    facts = read(tmp_path, tiled(pixels, compression_type=algorithm, tile_shape=(16, 24)))
    assert facts.faults == ()
    figures = facts.hdus[1].pixels
    assert figures is not None
    assert (figures.finite_fraction, figures.minimum, figures.maximum) == (1.0, pixels.min(), pixels.max())


@pytest.mark.parametrize("algorithm", ["HCOMPRESS_1", "PLIO_1"])
def test_tiles_that_say_other_than_their_table_reach_no_decoder(tmp_path: Path, algorithm: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 99, (40, 48)).astype(np.int16)
    content = tiled(pixels, compression_type=algorithm, tile_shape=(16, 24))
    if algorithm == "HCOMPRESS_1":
        content = content.replace(b"ZTILE2  =                   16", b"ZTILE2  =                   14")
    else:
        start = content.index(b"END     ", content.index(b"XTENSION")) // 2880 * 2880 + 2880
        heap = start + 6 * 8
        content = content[: heap + 6] + b"\x7f\xff" + content[heap + 8 :]  # the length of the first line list
    (fault,) = read(tmp_path, content).faults
    assert fault.code == "undecodable" and "does not hold" in (fault.found or "")


def test_the_sum_over_the_uncompressed_pixels_is_compared(tmp_path: Path) -> None:
    """ZDATASUM, as fpack writes it: here for rows that do not end with a word."""
    pixels = np.random.default_rng(1).integers(0, 30000, (41, 47)).astype(np.int16)
    plain = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(pixels)]).writeto(plain, checksum=True)
    stated = fits.getheader(io.BytesIO(plain.getvalue()), 1)["DATASUM"]
    for value, codes_expected in ((stated, []), ("7", ["datasum_mismatch"])):
        header = fits.Header([("ZDATASUM", value)])
        content = io.BytesIO()
        fits.HDUList(
            [fits.PrimaryHDU(), fits.CompImageHDU(pixels, compression_type="RICE_1", tile_shape=(1, 47))]
        ).writeto(content)
        with fits.open(io.BytesIO(content.getvalue()), disable_image_compression=True) as hdus:
            hdus[1].header.update(header)
            again = io.BytesIO()
            hdus.writeto(again)
        facts = read(tmp_path, again.getvalue())
        assert [(fault.code, fault.keyword) for fault in facts.faults] == [
            (code, "ZDATASUM") for code in codes_expected
        ]


def test_a_cube_is_decoded_too_and_is_no_ccd(tmp_path: Path) -> None:
    cube = np.arange(3 * 20 * 30, dtype=np.int16).reshape(3, 20, 30)
    facts = read(tmp_path, tiled(cube, compression_type="RICE_1"))
    assert facts.faults == ()
    assert not facts.hdus[1].is_image
    assert facts.hdus[1].pixels is not None and facts.hdus[1].pixels.maximum == cube.max()


def test_one_reading_gives_the_hashes_of_the_whole_file(tmp_path: Path) -> None:
    for content in (
        PLAIN,
        COMPRESSED,
        gzip.compress(PLAIN),
        PLAIN[:5000],
        PLAIN + b"more" * 5000,
        b"",
        b"no FITS",
    ):
        path = write(tmp_path / "a.fits", content)
        digests = read_file(path, LIMITS).digests
        assert digests is not None
        assert digests.size_bytes == len(content)
        assert digests.sha256 == hashlib.sha256(content).hexdigest()
        assert digests.md5 == hashlib.md5(content).hexdigest()
