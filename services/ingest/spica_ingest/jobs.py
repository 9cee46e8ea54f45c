"""The work on one file, in a worker process: copy, read, judge, file away."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spica_imaging.profiles import load_profiles
from spica_proto.base import Product
from spica_runtime.storage import DataFolder

from spica_ingest.filing import Staged, file_away, set_aside, staged_copy
from spica_ingest.reading import Limits, read_facts
from spica_ingest.science.facts import Finding
from spica_ingest.science.verify import Exposure, judge


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file that came, and what its sender said of it."""

    path: Path
    size_bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None


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
    """Copy a file into the data folder, verify the copy, and put it where it belongs."""
    with staged_copy(arrival.path, data) as staged:
        against = transfer_faults(arrival, staged)
        verdict = judge(read_facts(staged.path, limits), load_profiles(profiles))
        reasons = (*against, *verdict.reasons)
        if reasons or verdict.exposure is None:
            return Taken(set_aside(staged, data), None, reasons, verdict.repairs)
        product = file_away(staged, data, verdict.exposure.run, verdict.exposure.filter)
        return Taken(product, verdict.exposure, (), verdict.repairs)


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
