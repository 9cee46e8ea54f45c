"""The work on one file, in a worker process: copy, read, judge, file away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from spica_proto.base import Product
from spica_runtime.storage import DataFolder

from spica_ingest.filing import STAGING, Staged, file_away, set_aside, staged_copy
from spica_ingest.science.facts import Finding
from spica_ingest.science.verify import Exposure
from spica_ingest.verification.reading import Limits
from spica_ingest.verification.verifying import verify


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file that came, and what its sender said of it."""

    path: Path
    size_bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    fetched: bool = False
    """It lies in the staging area already, where nobody else changes it: no copy is needed."""
    marked: bool = False
    """Its file name is to hold its content's mark, so that it can go to any node and meet no other one there."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of it."""

    product: Product
    """The copy in the data folder: filed away, or set aside."""
    exposure: Exposure | None
    """None: rejected."""
    reasons: tuple[Finding, ...]
    repairs: tuple[Finding, ...]


def take_in(arrival: Arrival, data: DataFolder, limits: Limits, profiles: Path | None) -> Taken:
    """Copy a file into the data folder, verify the copy, and put it where it belongs.

    A fetched file is verified and linked where it lies; whoever fetched it removes it there.
    """
    with _staged(arrival, data) as (path, copied):
        verified = verify(path, limits, profiles, hashed=copied is None)
        verdict, staged = verified.verdict, copied
        if staged is None:
            assert verified.digests is not None
            digests = verified.digests
            staged = Staged(path, digests.size_bytes, digests.sha256, digests.md5)
        reasons = (*transfer_faults(arrival, staged), *verdict.reasons)
        if reasons or verdict.exposure is None:
            return Taken(set_aside(staged, data), None, reasons, verdict.repairs)
        product = file_away(staged, data, verdict.exposure.run, verdict.exposure.filter, arrival.marked)
        return Taken(product, verdict.exposure, (), verdict.repairs)


@contextmanager
def _staged(arrival: Arrival, data: DataFolder) -> Iterator[tuple[Path, Staged | None]]:
    """The file in the staging area, and what is known of it if it was copied there."""
    if arrival.fetched:
        if not arrival.path.resolve().is_relative_to((data.root / STAGING).resolve()):
            raise ValueError(f"{arrival.path} is no fetched file: it lies outside of the staging area")
        yield arrival.path, None
        return
    with staged_copy(arrival.path, data) as staged:
        yield staged.path, staged


def too_large(path: Path, limits: Limits) -> tuple[Finding, ...]:
    """Why a file is not even copied; nothing if it may be, or is not there."""
    try:
        size = path.stat().st_size
    except OSError:
        return ()  # whoever opens it tells why it cannot be read
    if size <= limits.max_bytes:
        return ()
    return (
        Finding(
            "too_large",
            "The file is larger than what is taken in: it was not copied.",
            found=f"{size} bytes",
            expected=f"{limits.max_bytes} bytes at most (SPICA_INGEST_MAX_BYTES)",
        ),
    )


def transfer_faults(arrival: Arrival, staged: Staged) -> tuple[Finding, ...]:
    """Where size or checksums differ from what the sender stated."""
    pairs = (
        (
            "size_mismatch",
            "The size differs from what the sender stated.",
            arrival.size_bytes,
            staged.size_bytes,
        ),
        (
            "sha256_mismatch",
            "The SHA-256 differs from what the sender stated.",
            arrival.sha256,
            staged.sha256,
        ),
        ("md5_mismatch", "The MD5 differs from what the sender stated.", arrival.md5, staged.md5),
    )
    return tuple(
        Finding(code, message, found=str(found), expected=str(expected))
        for code, message, expected, found in pairs
        if expected is not None and expected != found
    )
