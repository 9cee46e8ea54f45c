from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_runtime.storage import DataFolder
from spica_stack.fitsout import (
    FitsWriter,
    encode_checksum,
    ones_complement_sum,
    padding,
    sealed,
    table_bytes,
)
from spica_stack.science.fitswords import big_endian, folded

TYPES = {"float32": -32, "float64": -64, "int16": 16, "int32": 32}


def header(bitpix: int, nx: int, ny: int) -> fits.Header:
    cards = [("SIMPLE", True), ("BITPIX", bitpix), ("NAXIS", 2), ("NAXIS1", nx), ("NAXIS2", ny)]
    return fits.Header([*cards, ("EXTEND", True), ("A", 1.5)])


def pixels(kind: str, shape: tuple[int, int], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind.startswith("float"):
        data = rng.normal(0, 1e6, shape).astype(kind)
        data.flat[rng.integers(0, data.size, 3)] = [np.nan, np.inf, -0.0]
        return data
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max, shape, kind, endpoint=True)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(list(TYPES)),
    st.integers(1, 41),
    st.integers(1, 30),
    st.integers(0, 10_000),
    st.integers(0, 99),
)
def test_sums_of_pieces_add_up_to_the_sum_of_the_whole(
    kind: str, nx: int, ny: int, cut: int, seed: int
) -> None:
    data = pixels(kind, (ny, nx), seed)
    x, y = cut % nx, (cut // nx) % ny
    content = data.astype(data.dtype.newbyteorder(">")).tobytes()
    expected = ones_complement_sum(content + padding(len(content)))
    total = 0
    for rows, columns in (((0, y), (0, nx)), ((y, ny), (0, x)), ((y, ny), (x, nx))):
        piece = np.ascontiguousarray(data[slice(*rows), slice(*columns)])
        if piece.size:
            swapped, part = big_endian(piece, rows[0] * nx + columns[0], nx)
            np.testing.assert_array_equal(swapped.astype(kind), piece)
            assert swapped.tobytes() == piece.astype(piece.dtype.newbyteorder(">")).tobytes()
            total += part
    # In ones' complement zero has two forms.
    assert folded(total) % 0xFFFFFFFF == expected % 0xFFFFFFFF


def test_the_sum_is_that_of_the_standards_plain_words() -> None:
    words = np.random.default_rng(3).integers(0, 2**32, 999, np.uint32, endpoint=False)
    total = 0
    for word in words.tolist():
        total += word
        total = (total & 0xFFFFFFFF) + (total >> 32)
    assert ones_complement_sum(words.astype(">u4").tobytes()) == total
    assert folded(sum(words.tolist())) == total and folded(2**32) == 1


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["int16", "float32"]), st.integers(1, 41), st.integers(1, 60), st.integers(0, 99))
def test_astropy_reads_it_and_agrees_with_the_checksums(
    tmp_path_factory: pytest.TempPathFactory, kind: str, nx: int, ny: int, seed: int
) -> None:
    path = tmp_path_factory.mktemp("fits") / "x.fits"
    data = pixels(kind, (ny, nx), seed)
    swapped, total = big_endian(data)
    records = np.zeros(3, [("a", ">i4"), ("name", "S5"), ("b", ">f8"), ("c", ">i2"), ("d", ">f4")])
    records["name"], records["b"] = [b"x", b"yy", b"zzzzz"], [1.5, np.nan, -2.0]
    with FitsWriter(path) as writer:
        writer.write(sealed(header(TYPES[kind], nx, ny), total, ["one", "two " * 30]))
        writer.write(swapped)
        writer.pad()
        writer.write(table_bytes(records, "TABLE"))
    data_folder = DataFolder(path.parent)
    assert writer.product(data_folder, path, "x") == data_folder.product(path, "x")
    with fits.open(path, checksum=True) as hdus:  # a wrong checksum warns, and a warning is an error here
        hdus.verify("exception")
        assert all(hdu.verify_checksum() == 1 and hdu.verify_datasum() == 1 for hdu in hdus)
        np.testing.assert_array_equal(hdus[0].data, data)
        assert hdus[0].header["A"] == 1.5 and len(hdus[0].header["HISTORY"]) == 3
        assert list(hdus["TABLE"].data["NAME"]) == ["x", "yy", "zzzzz"]
        np.testing.assert_array_equal(hdus["TABLE"].data["B"], records["b"])


def test_a_changed_pixel_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.fits"
    swapped, total = big_endian(np.arange(16, dtype=np.int16).reshape(4, 4))
    with FitsWriter(path) as writer:
        writer.write(sealed(header(16, 4, 4), total))
        writer.write(swapped)
        writer.pad()
    content = bytearray(path.read_bytes())
    content[2881] ^= 1
    path.write_bytes(content)
    with fits.open(path) as hdus:
        assert hdus[0].verify_datasum() == 0


def test_an_empty_table_is_a_table(tmp_path: Path) -> None:
    path = tmp_path / "x.fits"
    with FitsWriter(path) as writer:
        empty = fits.Header([("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 0), ("EXTEND", True)])
        writer.write(sealed(empty, 0))
        writer.write(table_bytes(np.zeros(0, [("a", ">i4")]), "EMPTY"))
    with fits.open(path, checksum=True) as hdus:
        hdus.verify("exception")
        assert len(hdus["EMPTY"].data) == 0


def test_the_standards_own_example_of_a_checksum() -> None:
    # FITS standard 4.0, appendix J: ones' complement sum 868229149 encodes to hcHjjc9ghcEghc9g.
    assert encode_checksum(868229149) == "hcHjjc9ghcEghc9g"
    assert ones_complement_sum(bytes.fromhex("ffffffff00000001")) == 1
