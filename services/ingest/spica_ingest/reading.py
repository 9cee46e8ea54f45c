"""Reading a file that may be anything: block by block, bounded in memory, never trusting what it says of itself.

Structure and checksums are read here, straight from the bytes as the FITS standard describes them (section
3), so that a broken file is known before any decoder sees it. Pixels of sound images are then decoded with
astropy, every tile of them, one HDU at a time.
"""

from __future__ import annotations

import bz2
import gzip
import math
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from spica_ingest.headers import CARD, Fault, data_size, describe_hdu, header_values
from spica_ingest.science.checksum import add_to_sum, agrees
from spica_ingest.science.facts import FileFacts, Finding, HduFacts, PixelFacts

BLOCK = 2880
MAX_HEADER_BLOCKS = 4000
"""11 MB of header in one HDU: a hundred times MegaCam's."""
_CHUNK = BLOCK * 400


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a file is looked at before it is refused."""

    max_bytes: int
    """Of the uncompressed stream: a compressed file may be a thousand times larger than it looks."""
    max_pixels: int
    """Per image."""


@dataclass(slots=True)
class _Scan:
    hdus: list[HduFacts] = field(default_factory=list)
    faults: list[Finding] = field(default_factory=list)
    oddities: list[Finding] = field(default_factory=list)


def read_facts(path: Path, limits: Limits) -> FileFacts:
    """Everything that the judgement needs to know of a file. Bad content is a finding, never an exception.

    Raises OSError only where the file itself cannot be read.
    """
    scan = _Scan()
    try:
        with _open_stream(path) as (stream, packed):
            try:
                _scan(stream, limits, scan)
            except Fault as fault:
                scan.faults.append(fault.finding)
            if packed:
                _drain(stream, limits.max_bytes)
    except Fault as fault:
        scan.faults.append(fault.finding)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        scan.faults.append(_damaged_compression(error))
    except OSError as error:
        if error.errno is not None:
            raise
        scan.faults.append(_damaged_compression(error))  # bz2 says so without an errno
    hdus = tuple(scan.hdus)
    # A damaged file is judged by its bytes alone: decoders are for files that are what they say.
    if hdus and not scan.faults:
        hdus, undecodable = _decode(path, hdus, limits)
        scan.faults += undecodable
    return FileFacts(hdus, tuple(scan.faults), tuple(scan.oddities))


def _damaged_compression(error: Exception) -> Finding:
    return Finding(
        "damaged_compression",
        "The compressed file cannot be unpacked to its end.",
        found=str(error) or type(error).__name__,
        expected="a whole gzip or bzip2 stream",
    )


def _drain(stream: BinaryIO, max_bytes: int) -> None:
    """Read on to the end: only there do gzip and bzip2 compare their own checksums."""
    while max_bytes > 0 and (chunk := stream.read(_CHUNK)):
        max_bytes -= len(chunk)


@contextmanager
def _open_stream(path: Path) -> Iterator[tuple[BinaryIO, bool]]:
    """Uncompressed bytes of a file, and whether it was compressed as a whole."""
    with path.open("rb") as raw:
        start = raw.read(10)
        raw.seek(0)
        if not start:
            raise Fault(Finding("empty_file", "The file is empty.", found="0 bytes", expected="a FITS file"))
        if start.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield cast(BinaryIO, unpacked), True
        elif start.startswith(b"BZh"):
            with bz2.BZ2File(raw) as unpacked_bz2:
                yield cast(BinaryIO, unpacked_bz2), True
        elif start.startswith((b"\x1f\x9d", b"PK\x03\x04", b"\xfd7zXZ", b"(\xb5/\xfd")):
            raise Fault(
                Finding(
                    "unsupported_compression",
                    "The file is compressed in a way that is not read here.",
                    found=repr(start[:4])[2:-1],
                    expected="FITS, tile-compressed FITS (.fz), gzip or bzip2",
                )
            )
        else:
            yield cast(BinaryIO, raw), False


def _scan(stream: BinaryIO, limits: Limits, scan: _Scan) -> None:
    """Walk all HDUs to the end of the stream."""
    read, index = 0, 0
    while block := stream.read(BLOCK):
        if not _begins_hdu(block, index, scan):
            return
        header_bytes = _read_header(stream, block, index)
        values, unreadable = header_values(header_bytes)
        if unreadable:
            scan.oddities.append(_unreadable_cards(index, unreadable))
        size = data_size(values, index)
        read += len(header_bytes) + size
        if read > limits.max_bytes:
            raise Fault(_too_large(index, read, limits))
        hdu = describe_hdu(values, index)
        scan.hdus.append(hdu)
        data_sum, complete = _read_data(stream, size, index, scan)
        _check_sums(values, index, add_to_sum(0, header_bytes), data_sum, scan)
        if not complete:
            return
        index += 1


def _begins_hdu(block: bytes, index: int, scan: _Scan) -> bool:
    """Whether an HDU begins here. What follows the last one may be anything (special records), noted."""
    if index == 0:
        if not block.startswith(b"SIMPLE  ="):
            text = block[:24].decode("latin-1")
            found = text if text.isprintable() else repr(block[:12])[2:-1]
            raise Fault(
                Finding("not_fits", "This is not a FITS file.", hdu=0, found=found, expected="SIMPLE  =")
            )
        return True
    if block.startswith(b"XTENSION="):
        return True
    scan.oddities.append(
        Finding(
            "trailing_bytes",
            "After the last HDU there is something that is no HDU: left alone.",
            found="padding" if not block.strip(b"\0 ") else "other bytes",
            expected="the end of the file",
        )
    )
    return False


def _read_header(stream: BinaryIO, first: bytes, index: int) -> bytes:
    blocks = [first]
    while not _has_end(blocks[-1]):
        block = stream.read(BLOCK) if len(blocks) < MAX_HEADER_BLOCKS else b""
        if len(block) < BLOCK:
            raise Fault(
                Finding(
                    "header_without_end",
                    "The header has no END card.",
                    hdu=index,
                    keyword="END",
                    found=f"{sum(map(len, blocks)) + len(block)} bytes of header",
                    expected="END, and padding to a multiple of 2880 bytes",
                )
            )
        blocks.append(block)
    return b"".join(blocks)


def _has_end(block: bytes) -> bool:
    return len(block) == BLOCK and any(
        block[start : start + CARD].rstrip() == b"END" for start in range(0, BLOCK, CARD)
    )


def _unreadable_cards(index: int, keywords: list[str]) -> Finding:
    return Finding(
        "unreadable_cards",
        "Some header cards do not follow the FITS standard and were left out.",
        hdu=index,
        keyword=keywords[0],
        found=", ".join(keywords[:8]),
        expected="KEYWORD = value / comment",
    )


def _too_large(index: int, found: int, limits: Limits) -> Finding:
    return Finding(
        "too_large",
        "The file says that it holds more data than is taken in.",
        hdu=index,
        found=f"{found} bytes",
        expected=f"{limits.max_bytes} bytes at most (SPICA_INGEST_MAX_BYTES)",
    )


def _read_data(stream: BinaryIO, size: int, index: int, scan: _Scan) -> tuple[int, bool]:
    """Read the data unit to its end; its sum, and whether it was all there."""
    padded = -(-size // BLOCK) * BLOCK
    total, left = 0, padded
    while left:
        chunk = stream.read(min(_CHUNK, left))
        if not chunk:
            break
        left -= len(chunk)
        total = add_to_sum(total, chunk + b"\0" * (-len(chunk) % 4))
    got = padded - left
    if got < size:
        scan.faults.append(
            Finding(
                "truncated",
                "The file ends before its data does.",
                hdu=index,
                found=f"{got} bytes of data",
                expected=f"{size} bytes",
            )
        )
    elif left:
        scan.oddities.append(
            Finding(
                "padding_missing",
                "The last block is not filled up to 2880 bytes.",
                hdu=index,
                found=f"{got} bytes",
                expected=f"{padded} bytes",
            )
        )
    return total, left == 0


def _check_sums(values: dict[str, Any], index: int, header_sum: int, data_sum: int, scan: _Scan) -> None:
    """Compare with DATASUM and CHECKSUM, where they are there. An empty value means: not computed."""
    stated = str(values.get("DATASUM", "")).strip()
    if stated and not (stated.isdigit() and int(stated) == data_sum):
        scan.faults.append(
            Finding("datasum_mismatch", "The data were changed.", index, "DATASUM", str(data_sum), stated)
        )
        return
    if str(values.get("CHECKSUM", "")).strip():
        total = header_sum + data_sum
        total = (total & 0xFFFFFFFF) + (total >> 32)
        if not agrees(total):
            scan.faults.append(
                Finding(
                    "checksum_mismatch",
                    "The header or the data were changed.",
                    index,
                    "CHECKSUM",
                    f"sum {total:#010x}",
                    "sum 0xffffffff",
                )
            )


def _decode(
    path: Path, hdus: tuple[HduFacts, ...], limits: Limits
) -> tuple[tuple[HduFacts, ...], list[Finding]]:
    """Decode all pixels of all images, one HDU at a time."""
    done, faults = list(hdus), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            with fits.open(path, memmap=False, lazy_load_hdus=True) as opened:
                for place, hdu in enumerate(hdus):
                    if not hdu.is_image:
                        continue
                    if math.prod(hdu.shape) > limits.max_pixels:
                        faults.append(_too_many_pixels(hdu, limits))
                        continue
                    done[place], fault = _decode_hdu(opened, hdu)
                    faults += fault
        except OSError as error:
            if error.errno is not None:
                raise
            faults.append(Finding("undecodable", "The file cannot be opened.", found=_short(error)))
    return tuple(done), faults


def _too_many_pixels(hdu: HduFacts, limits: Limits) -> Finding:
    return Finding(
        "too_large",
        "The image has more pixels than are taken in.",
        hdu=hdu.index,
        found="x".join(map(str, reversed(hdu.shape))),
        expected=f"{limits.max_pixels} pixels at most (SPICA_INGEST_MAX_PIXELS)",
    )


def _decode_hdu(opened: Any, hdu: HduFacts) -> tuple[HduFacts, list[Finding]]:
    # Decoders raise whatever they like on bad input; all of it means the same thing.
    try:
        data = opened[hdu.index].data
        if data is None or data.shape != hdu.shape:
            raise ValueError(f"decoded to {None if data is None else data.shape}")
        return replace(hdu, pixels=_pixel_facts(data)), []
    except MemoryError:
        raise
    except Exception as error:
        return hdu, [
            Finding(
                "undecodable",
                "The pixels of this HDU cannot be decoded.",
                hdu=hdu.index,
                found=_short(error),
                expected="x".join(map(str, reversed(hdu.shape))) + " pixels",
            )
        ]


def _pixel_facts(data: np.ndarray[Any, np.dtype[Any]]) -> PixelFacts:
    """Figures of an image, in strips so that the masks stay small."""
    lows, highs, finite = [], [], 0
    for start in range(0, len(data), 512):
        strip = data[start : start + 512]
        good = strip[np.isfinite(strip)] if strip.dtype.kind == "f" else strip
        finite += good.size
        if good.size:
            lows.append(float(good.min()))
            highs.append(float(good.max()))
    if not lows:
        return PixelFacts(0.0, None, None)
    return PixelFacts(finite / data.size, min(lows), max(highs))


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
