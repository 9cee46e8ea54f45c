"""The work on one file behind `take_in` and `spica verify`: read once, judged; what is done in an isolated process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from spica_imaging.profiles import load_profiles

from spica_ingest.science.facts import Finding
from spica_ingest.science.verify import Verdict, judge
from spica_ingest.verification.hashing import Digests
from spica_ingest.verification.isolation import Bounds, Exceeded, Isolation, isolation
from spica_ingest.verification.reading import Limits, read_file

R = TypeVar("R")

SAMPLE = (np.arange(40 * 40, dtype=np.int32).reshape(40, 40) * 7919 % 251).astype(np.int16)
"""A small image, to warm up with."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What is known of a file after it was looked at."""

    verdict: Verdict
    digests: Digests | None
    """None where they were not asked for."""


def look_at(path: Path, limits: Limits, profiles: Path | None, hashed: bool) -> Verified:
    """Read and judge a file, here and now. See `verify`."""
    reading = read_file(path, limits, hashed=hashed)
    return Verified(judge(reading.facts, load_profiles(profiles)), reading.digests)


def verify(
    path: Path,
    limits: Limits,
    profiles: Path | None,
    *,
    hashed: bool = True,
    helper: Isolation | None = None,
) -> Verified:
    """Read and judge a file in an isolated process: whatever it is, there is a verdict within the limits.

    Raises OSError where the file itself cannot be read, `Retriable` where the helper was ended from outside.
    """
    return isolated(
        lambda bounds: (helper or isolation()).run(bounds, look_at, path, limits, profiles, hashed),
        limits,
        lambda finding: Verified(Verdict(None, (finding,), ()), digests_of(path) if hashed else None),
    )


def isolated(work: Callable[[Bounds], R], limits: Limits, otherwise: Callable[[Finding], R]) -> R:
    """Do isolated work within a file's limits; what exceeds them becomes a finding."""
    try:
        return work(limits.bounds())
    except Exceeded as error:
        return otherwise(Finding(error.code, error.message, found=error.found, expected=error.expected))


def digests_of(path: Path) -> Digests:
    """Hashes of a file that could not be read to its end as FITS."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        return Digests(file.tell(), sha256, md5)
