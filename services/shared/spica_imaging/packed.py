"""Files compressed as a whole: told by their first bytes, never by their name."""

from __future__ import annotations

import bz2
import gzip
import io
import zlib
from typing import BinaryIO, cast

import uncompresspy

FORMATS = "FITS, tile-compressed FITS (.fz), gzip, bzip2 or compress (.Z)"
START_BYTES = 6
"""How many of a file's first bytes tell."""

_OTHERS = {
    b"PK\x03\x04": "zip",
    b"\xfd7zXZ\x00": "xz",
    b"(\xb5/\xfd": "zstandard",
    b"7z\xbc\xaf": "7-zip",
    b"\x04\x22M\x18": "lz4",
    b"\x1f\xa0": "compress -H",
    b"\x1f\x1e": "pack",
}


class PackedError(Exception):
    """The compressed stream is damaged."""


def packing(start: bytes) -> str | None:
    """Name of the compression that a file beginning with these bytes went through; None for none."""
    if start.startswith(b"\x1f\x8b"):
        return "gzip"
    if start.startswith(b"BZh"):
        return "bzip2"
    if start.startswith(b"\x1f\x9d"):
        return "compress"
    return next((name for magic, name in _OTHERS.items() if start.startswith(magic)), None)


def is_readable(name: str) -> bool:
    """Whether a compression of this name is read here."""
    return name in ("gzip", "bzip2", "compress")


class Unpacked:
    """The bytes of a compressed stream, read on and on; every fault of it is a `PackedError`."""

    def __init__(self, raw: BinaryIO, name: str) -> None:
        try:
            if name == "gzip":
                self._stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw))
            elif name == "bzip2":
                self._stream = cast(BinaryIO, bz2.BZ2File(raw))
            else:
                self._stream = cast(BinaryIO, io.BufferedReader(_lzw(raw), 1 << 20))
        except ValueError as error:
            raise PackedError(str(error)) from error

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes; fewer only at the end. OSError with a number is the disk's, and passes."""
        try:
            return self._stream.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile, ValueError, IndexError) as error:
            raise PackedError(str(error) or type(error).__name__) from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise PackedError(str(error) or type(error).__name__) from error  # bz2 says it so


def _lzw(raw: BinaryIO) -> uncompresspy.LZWFile:
    """Open a stream of Unix's compress; its third byte may not ask for more than compress ever wrote."""
    flags = raw.read(3)[2:]
    raw.seek(0)
    if not flags or flags[0] & 0x60 or not 9 <= flags[0] & 0x1F <= 16:
        raise ValueError("codes of a width that compress does not write")
    # No checkpoints: they serve for going back. Truncation shows in what is missing.
    return uncompresspy.LZWFile(raw, warn_truncation=False, save_checkpoints=False)
