"""Reading a file that may be anything: once, front to back, bounded in memory, never trusting what it says of itself.

Structure and checksums are read straight from the bytes as the FITS standard describes them (section 3). Beside
the walk over the HDUs, threads hash the file and decode every tile and every pixel of its images.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spica_imaging.packed import PackedError

from spica_ingest.science.checksum import add_to_mark, add_to_sum, agrees
from spica_ingest.science.facts import FileFacts, Finding, HduFacts
from spica_ingest.verification.hashing import Digests, Hashes
from spica_ingest.verification.headers import (
    CARD,
    Fault,
    check_mandatory,
    data_size,
    departures,
    describe_hdu,
    read_header,
)
from spica_ingest.verification.isolation import Bounds
from spica_ingest.verification.pixels import PART_BYTES, Pixels
from spica_ingest.verification.sources import Source, damaged, opened

BLOCK = 2880
MAX_HEADER_BLOCKS = 4000
"""11 MB of header in one HDU: a hundred times MegaCam's."""
MAX_HDUS = 4096
_CHUNK = BLOCK * 2912
"""Data units that nobody decodes are summed in parts of this size: 8 MB."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a file is looked at before it is refused, and what looking at it may cost."""

    max_bytes: int
    """Of the uncompressed stream: a compressed file may be a thousand times larger than it looks."""
    max_pixels: int
    """Per image."""
    time_s: float = 300.0
    """Wall clock."""
    memory_bytes: int = 2_000_000_000
    threads: int = 2

    def bounds(self) -> Bounds:
        """What the process that looks at it may use."""
        return Bounds(self.time_s, self.memory_bytes, self.threads)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one reading of a file gives."""

    facts: FileFacts
    digests: Digests | None
    """None where they were not asked for."""


@dataclass(slots=True)
class _Scan:
    limits: Limits
    pool: ThreadPoolExecutor
    hdus: list[HduFacts] = field(default_factory=list)
    pixels: dict[int, Pixels] = field(default_factory=dict)
    faults: list[Finding] = field(default_factory=list)
    oddities: list[Finding] = field(default_factory=list)


def read_facts(path: Path, limits: Limits) -> FileFacts:
    """Everything that the judgement needs to know of a file; see `read_file`."""
    return read_file(path, limits, hashed=False).facts


def read_file(path: Path, limits: Limits, *, hashed: bool = True) -> Reading:
    """Read a file once: its facts and its hashes. Bad content is a finding, never an exception.

    Raises OSError only where the file itself cannot be read, MemoryError where there is not enough of it.
    """
    with Hashes(wanted=hashed) as hashes, ThreadPoolExecutor(limits.threads, "decode") as pool:
        scan = _Scan(limits, pool)
        try:
            with opened(path, hashes) as (source, packed):
                try:
                    _walk(source, scan)
                except Fault as fault:
                    scan.faults.append(fault.finding)
                if packed:
                    _drain(source, limits.max_bytes)
                _collect(scan)
        except Fault as fault:
            scan.faults.append(fault.finding)
        except PackedError as error:
            _collect(scan)
            scan.faults.append(damaged(error))
        facts = FileFacts(tuple(scan.hdus), tuple(scan.faults), tuple(scan.oddities))
        return Reading(facts, hashes.digests() if hashed else None)


def _drain(source: Source, max_bytes: int) -> None:
    """Read on to the end: only there do gzip and bzip2 compare their own checksums."""
    while max_bytes > 0 and (size := len(source.take(_CHUNK))):
        max_bytes -= size


def _collect(scan: _Scan) -> None:
    """Wait for the pixels that threads look at."""
    for place, pixels in scan.pixels.items():
        scan.hdus[place], findings = pixels.result()
        scan.faults += findings
    scan.pixels.clear()


def _walk(source: Source, scan: _Scan) -> None:
    """Walk all HDUs to the end of the file."""
    read, index = 0, 0
    while len(block := source.take(BLOCK)):
        if not _begins_hdu(bytes(block), index, scan):
            return
        if index == MAX_HDUS:
            raise Fault(_too_many_hdus(index))
        header_bytes = _read_header(source, bytes(block), index)
        header = read_header(header_bytes)
        check_mandatory(header, index)
        scan.oddities += departures(header, index)
        if not _filled(header_bytes):
            scan.oddities.append(_fill(index, "header", "blanks"))
        size = data_size(header.values, index)
        read += len(header_bytes) + size
        if read > scan.limits.max_bytes:
            raise Fault(_too_large(index, read, scan.limits))
        scan.hdus.append(describe_hdu(header.values, index))
        if not _read_data(source, header.values, header_bytes, size, scan):
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
            hdu=index,
            found="padding" if not block.strip(b"\0 ") else "other bytes",
            expected="the end of the file",
        )
    )
    return False


def _read_header(source: Source, first: bytes, index: int) -> bytes:
    blocks = [first]
    while not _has_end(blocks[-1]):
        block = bytes(source.take(BLOCK)) if len(blocks) < MAX_HEADER_BLOCKS else b""
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


def _filled(header_bytes: bytes) -> bool:
    """Whether nothing but blanks follows END."""
    last = header_bytes[-BLOCK:]
    end = next(start for start in range(0, BLOCK, CARD) if last[start : start + CARD].rstrip() == b"END")
    return not last[end + CARD :].strip(b" ")


def _fill(index: int, part: str, expected: str) -> Finding:
    return Finding(
        "wrong_fill",
        f"What fills up the last block of the {part} is something else than {expected}.",
        hdu=index,
        found="other bytes",
        expected=expected,
    )


def _too_many_hdus(index: int) -> Finding:
    return Finding(
        "too_large",
        "The file has more HDUs than are looked at.",
        hdu=index,
        found=f"more than {MAX_HDUS} HDUs",
        expected=f"{MAX_HDUS} HDUs at most",
    )


def _too_large(index: int, found: int, limits: Limits) -> Finding:
    return Finding(
        "too_large",
        "The file says that it holds more data than is taken in.",
        hdu=index,
        found=f"{found} bytes",
        expected=f"{limits.max_bytes} bytes at most (SPICA_INGEST_MAX_BYTES)",
    )


def _too_many_pixels(hdu: HduFacts, limits: Limits) -> Finding:
    return Finding(
        "too_large",
        "The image has more pixels than are taken in.",
        hdu=hdu.index,
        found="x".join(map(str, reversed(hdu.shape))),
        expected=f"{limits.max_pixels} pixels at most (SPICA_INGEST_MAX_PIXELS)",
    )


def _read_data(source: Source, values: dict[str, Any], header_bytes: bytes, size: int, scan: _Scan) -> bool:
    """Read the data unit to its end and have its pixels looked at; whether it was all there."""
    hdu = scan.hdus[-1]
    compressed = values.get("ZIMAGE") is True and bool(hdu.shape)
    looked_at = (hdu.is_image or compressed) and size > 0
    if looked_at and math.prod(hdu.shape) > scan.limits.max_pixels:
        scan.faults.append(_too_many_pixels(hdu, scan.limits))
        looked_at = False
    pixels = Pixels(hdu, values) if looked_at else None
    part = size if compressed and pixels else PART_BYTES
    total = mark = got = 0
    while got < size:
        window = source.take(min(part, size - got))
        if not len(window):
            break
        total, mark = add_to_sum(total, window), add_to_mark(mark, window, got)
        if pixels and not compressed and not len(window) % (abs(values["BITPIX"]) // 8):
            source.used_by(pixels.plain(scan.pool, window))
        got += len(window)
    fill = source.take(-size % BLOCK) if got == size else memoryview(b"")
    total = add_to_sum(total, fill, size)
    scan.hdus[-1] = hdu = replace(hdu, fingerprint=(size, mark) if size else None)
    whole = got == size and len(fill) == -size % BLOCK
    if not _note_data(hdu.index, size, got, len(fill), scan):
        return False
    filled = b" \0" if str(values.get("XTENSION", "")).strip() == "TABLE" else b"\0"
    if bytes(fill).strip(filled):
        scan.oddities.append(_fill(hdu.index, "data", "zeros"))
    if _sums_agree(values, hdu.index, add_to_sum(0, header_bytes), total, scan) and pixels:
        pixels.hdu = hdu
        if compressed:
            source.used_by(pixels.compressed(scan.pool, window))
        scan.pixels[len(scan.hdus) - 1] = pixels
    return whole


def _note_data(index: int, size: int, got: int, fill: int, scan: _Scan) -> bool:
    """Note what is missing of a data unit; False where it is pixels."""
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
        return False
    if fill < -size % BLOCK:
        scan.oddities.append(
            Finding(
                "padding_missing",
                "The last block is not filled up to 2880 bytes.",
                hdu=index,
                found=f"{got + fill} bytes",
                expected=f"{size + -size % BLOCK} bytes",
            )
        )
    return True


def _sums_agree(values: dict[str, Any], index: int, header_sum: int, data_sum: int, scan: _Scan) -> bool:
    """Compare with DATASUM and CHECKSUM, where they are there. An empty value means: not computed."""
    stated = str(values.get("DATASUM", "")).strip()
    if stated and not (stated.isdigit() and int(stated) == data_sum):
        scan.faults.append(
            Finding("datasum_mismatch", "The data were changed.", index, "DATASUM", str(data_sum), stated)
        )
        return False
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
            return False
    return True
