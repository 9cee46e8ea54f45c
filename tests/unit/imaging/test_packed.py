"""Streams that were compressed as a whole."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess

import pytest
from spica_imaging.packed import PackedError, Unpacked, is_readable, packing

from tests.fuzz.mutations import _lzw as as_compress_has_it
from tests.support.realdata import peer_program, real_data

CONTENT = bytes(range(256)) * 40 + b"the end"
PACKED = {
    "gzip": gzip.compress(CONTENT),
    "bzip2": bz2.compress(CONTENT),
    "compress": as_compress_has_it(CONTENT),
}


def unpacked(packed: bytes, name: str, step: int = 1000) -> bytes:
    stream, parts = Unpacked(io.BytesIO(packed), name), list[bytes]()
    while part := stream.read(step):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("step", [1, 777, 10**6])
def test_what_was_packed_is_unpacked(name: str, step: int) -> None:
    assert packing(PACKED[name][:6]) == name and is_readable(name)
    assert unpacked(PACKED[name], name, step) == CONTENT


@pytest.mark.parametrize("name", ["gzip", "bzip2"])
def test_damage_is_an_error_of_one_kind(name: str) -> None:
    packed = PACKED[name]
    for damaged in (
        packed[:-9],
        packed[: len(packed) // 2] + b"\xff\x00\xff" + packed[len(packed) // 2 + 3 :],
        packed + b"garbage",
    ):
        if name == "bzip2" and damaged.endswith(b"garbage"):
            continue  # bzip2 leaves alone what follows
        with pytest.raises(PackedError):
            unpacked(damaged, name)


def test_codes_that_compress_does_not_write_are_refused() -> None:
    for third in (0x00, 0x88, 0x91 | 0x1F, 0xF0, 0x90 | 0x60):
        with pytest.raises(PackedError):
            Unpacked(io.BytesIO(b"\x1f\x9d" + bytes([third]) + bytes(50)), "compress")
    with pytest.raises(PackedError):
        unpacked(PACKED["compress"][:3] + b"\xff" * 50, "compress")


def test_kinds_that_are_not_read_are_known_by_name() -> None:
    assert packing(lzma.compress(CONTENT)[:6]) == "xz"
    assert packing(b"PK\x03\x04\x14\x00") == "zip"
    assert not is_readable("xz")
    assert packing(b"SIMPLE") is None
    assert packing(b"") is None


@pytest.mark.real
@pytest.mark.peer
@pytest.mark.parametrize(
    "name", ["nom-tam-fits/rp600245n00_im1.fits.Z", "nom-tam-fits/test.fits.Z", "astropy/lzw.fits.Z"]
)
def test_real_files_come_out_as_gzip_has_them(name: str) -> None:
    path = real_data(f"odd_fits/{name}")
    expected = subprocess.run([peer_program("gzip"), "-dc", path], capture_output=True, check=True).stdout
    assert unpacked(path.read_bytes(), "compress") == expected
