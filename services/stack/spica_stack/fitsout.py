"""FITS images written from their first row to their last, with checksums, never whole in memory."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

_BLOCK = 2880
_PUNCTUATION = frozenset(b":;<=>?@[\\]^_`")
_TYPES = {-32: ">f4", 16: ">i2", -64: ">f8", 32: ">i4"}


def ones_complement_sum(data: bytes, start: int = 0) -> int:
    """Sum of 32-bit big-endian words in ones' complement (FITS standard 4.0, appendix J). Whole words only."""
    total = start + int(np.frombuffer(data, ">u4").astype(np.uint64).sum())
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def encode_checksum(total: int) -> str:
    """Encode the complement of a sum in the 16 letters and digits of the CHECKSUM keyword (appendix J)."""
    value = 0xFFFFFFFF - total
    encoded = bytearray(16)
    for index, byte in enumerate(value.to_bytes(4, "big")):
        quotient, remainder = divmod(byte, 4)
        letters = [quotient + remainder + 0x30] + [quotient + 0x30] * 3
        for a, b in ((0, 1), (2, 3)):
            # Two letters move apart, their sum unchanged, until neither is punctuation.
            while letters[a] in _PUNCTUATION or letters[b] in _PUNCTUATION:
                letters[a] += 1
                letters[b] -= 1
        for place, letter in enumerate(letters):
            encoded[4 * place + index] = letter
    return (encoded[-1:] + encoded[:-1]).decode("ascii")


class ImageWriter:
    """Context manager that writes one primary image of shape (NAXIS2, NAXIS1) row by row.

    The header must have its structure (SIMPLE ... NAXIS2); CHECKSUM and DATASUM are added here,
    without the date that astropy puts into their comments, so that the same pixels and cards give
    the same bytes.
    """

    def __init__(self, path: Path, header: fits.Header) -> None:
        self._header = header.copy()
        for keyword, value in (("CHECKSUM", "0" * 16), ("DATASUM", "0")):
            self._header[keyword] = (value, "HDU checksum" if keyword == "CHECKSUM" else "Data unit checksum")
        self._type = np.dtype(_TYPES[self._header["BITPIX"]])
        self._width, self._rows_left = self._header["NAXIS1"], self._header["NAXIS2"]
        self._file: BinaryIO = path.open("wb")
        self._file.write(self._header_bytes())
        self._sum, self._tail, self._written = 0, b"", 0

    def append(self, rows: NDArray[Any]) -> None:
        """Write the next rows. Shape: (n, NAXIS1)."""
        if rows.shape[1] != self._width or rows.shape[0] > self._rows_left:
            raise ValueError(
                f"Rows of shape {rows.shape} do not fit: {self._width} columns, {self._rows_left} left."
            )
        self._rows_left -= rows.shape[0]
        self._put(np.ascontiguousarray(rows, self._type).tobytes())

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._written += len(data)
        data = self._tail + data
        whole = len(data) // 4 * 4
        self._sum, self._tail = ones_complement_sum(data[:whole], self._sum), data[whole:]

    def _header_bytes(self) -> bytes:
        text: str = self._header.tostring(sep="", endcard=True, padding=True)
        return text.encode("ascii")

    def _finish(self) -> None:
        if self._rows_left:
            raise ValueError(f"{self._rows_left} rows were not written.")
        self._put(b"\0" * (-self._written % _BLOCK))
        self._header["DATASUM"] = str(self._sum)
        self._header["CHECKSUM"] = encode_checksum(ones_complement_sum(self._header_bytes(), self._sum))
        self._file.seek(0)
        self._file.write(self._header_bytes())

    def __enter__(self) -> ImageWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._file.close()
