"""FITS files written from their first byte to their last, with checksums, never whole in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from spica_proto.base import Product
from spica_runtime.storage import DataFolder

from spica_stack.science.fitswords import folded

BLOCK = 2880
_CARD = 80
_PUNCTUATION = frozenset(b":;<=>?@[\\]^_`")


def ones_complement_sum(data: bytes | memoryview, start: int = 0) -> int:
    """Sum of 32-bit big-endian words in ones' complement (FITS standard 4.0, appendix J). Whole words only."""
    return folded(start + int(np.frombuffer(data, ">u4").sum(dtype=np.uint64)))


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


def history_cards(lines: Iterable[str]) -> str:
    """HISTORY cards of lines of text. For thousands of lines: astropy takes a time that goes with their square."""
    room = _CARD - len("HISTORY ")
    cards = []
    for line in lines:
        text = "".join(c if " " <= c <= "~" else "?" for c in line)
        cards += [f"HISTORY {text[k : k + room]:<{room}}" for k in range(0, max(len(text), 1), room)]
    return "".join(cards)


def sealed(header: fits.Header, datasum: int, history: Iterable[str] = ()) -> bytes:
    """Bytes of a header with its checksums, without the date that astropy puts into their comments.

    `datasum`: sum of the data that follows, with its padding; the same cards and data give the same bytes.
    """
    header = header.copy()
    for keyword, value, comment in (
        ("CHECKSUM", "0" * 16, "HDU checksum"),
        ("DATASUM", str(datasum), "Data unit checksum"),
    ):
        header[keyword] = (value, comment)
    notes = history_cards(history)

    def written() -> bytes:
        text: str = header.tostring(sep="", endcard=False, padding=False) + notes + f"{'END':<{_CARD}}"
        return (text + " " * (-len(text) % BLOCK)).encode("ascii")

    header["CHECKSUM"] = encode_checksum(ones_complement_sum(written(), datasum))
    return written()


def table_cards(records: NDArray[Any], rows: int, name: str) -> fits.Header:
    """Header of a binary table of records (big-endian), without checksums."""
    header = fits.Header()
    cards: list[tuple[str, str | int]] = [
        ("XTENSION", "BINTABLE"),
        ("BITPIX", 8),
        ("NAXIS", 2),
        ("NAXIS1", records.dtype.itemsize),
        ("NAXIS2", rows),
        ("PCOUNT", 0),
        ("GCOUNT", 1),
        ("TFIELDS", len(records.dtype.names or ())),
        ("EXTNAME", name),
    ]
    for number, column in enumerate(records.dtype.names or (), start=1):
        cards += [
            (f"TTYPE{number}", column.upper()),
            (f"TFORM{number}", _form(records.dtype[column])),
        ]
    for keyword, value in cards:
        header.append((keyword, value), end=True)
    return header


def _form(dtype: np.dtype[Any]) -> str:
    return f"{dtype.itemsize}A" if dtype.kind == "S" else _FORMS[dtype.str]


_FORMS = {">i2": "I", ">i4": "J", ">f4": "E", ">f8": "D"}


def table_bytes(records: NDArray[Any], name: str) -> bytes:
    """A whole binary table with its header and checksums."""
    data: bytes = records.tobytes()
    data += padding(len(data))
    head = sealed(table_cards(records, len(records), name), ones_complement_sum(data))
    return head + data


def padding(n_bytes: int, fill: bytes = b"\0") -> bytes:
    """What fills the last block of so many bytes."""
    return fill * (-n_bytes % BLOCK)


class FitsWriter:
    """Context manager that writes a file's bytes in their order and hashes them on the way."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes | NDArray[Any]) -> None:
        """The next bytes."""
        content: Any = data if isinstance(data, bytes) else data.reshape(-1).view(np.uint8)
        view = memoryview(content)
        self._file.write(view)
        self._hash.update(view)
        self._size += view.nbytes

    def pad(self) -> None:
        """Fill the block, after a data unit."""
        self.write(padding(self._size))

    def product(self, data: DataFolder, path: Path, kind: str) -> Product:
        """What was written, as the product that will stand at `path`."""
        return Product(
            path=path.relative_to(data.root).as_posix(),
            sha256=self._hash.hexdigest(),
            size_bytes=self._size,
            kind=kind,
        )

    def __enter__(self) -> FitsWriter:
        self._file: BinaryIO = self._path.open("wb", buffering=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
