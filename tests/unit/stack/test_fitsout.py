from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_stack.fitsout import ImageWriter, encode_checksum, ones_complement_sum


def header(bitpix: int, nx: int, ny: int) -> fits.Header:
    return fits.Header(
        [("SIMPLE", True), ("BITPIX", bitpix), ("NAXIS", 2), ("NAXIS1", nx), ("NAXIS2", ny), ("A", 1.5)]
    )


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([16, -32]), st.integers(1, 41), st.integers(1, 60), st.integers(1, 9), st.integers(0, 99)
)
def test_astropy_reads_it_and_agrees_with_the_checksums(
    tmp_path_factory: pytest.TempPathFactory, bitpix: int, nx: int, ny: int, rows: int, seed: int
) -> None:
    path = tmp_path_factory.mktemp("fits") / "x.fits"
    data = np.random.default_rng(seed).normal(0, 100, (ny, nx)).astype(np.float32 if bitpix < 0 else np.int16)
    if bitpix < 0:
        data[0, 0] = np.nan
    with ImageWriter(path, header(bitpix, nx, ny)) as writer:
        for first in range(0, ny, rows):
            writer.append(data[first : first + rows])
    assert path.stat().st_size % 2880 == 0
    with fits.open(path, checksum=True) as hdus:  # a wrong checksum warns, and a warning is an error here
        hdus.verify("exception")
        np.testing.assert_array_equal(hdus[0].data, data)
        assert hdus[0].header["A"] == 1.5
        assert hdus[0].verify_checksum() == 1 and hdus[0].verify_datasum() == 1


def test_a_changed_pixel_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.fits"
    with ImageWriter(path, header(16, 4, 4)) as writer:
        writer.append(np.arange(16).reshape(4, 4))
    content = bytearray(path.read_bytes())
    content[2881] ^= 1
    path.write_bytes(content)
    with fits.open(path) as hdus:
        assert hdus[0].verify_datasum() == 0


def test_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="do not fit"),
        ImageWriter(tmp_path / "x.fits", header(16, 4, 2)) as writer,
    ):
        writer.append(np.zeros((1, 5)))
    with (
        pytest.raises(ValueError, match="not written"),
        ImageWriter(tmp_path / "x.fits", header(16, 4, 2)) as writer,
    ):
        writer.append(np.zeros((1, 4)))


def test_the_standards_own_example_of_a_checksum() -> None:
    # FITS standard 4.0, appendix J: ones' complement sum 868229149 encodes to hcHjjc9ghcEghc9g.
    assert encode_checksum(868229149) == "hcHjjc9ghcEghc9g"
    assert ones_complement_sum(bytes.fromhex("ffffffff00000001")) == 1
