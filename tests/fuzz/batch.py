"""One batch of files, in an isolated process."""

from __future__ import annotations

import time
from pathlib import Path

from spica_imaging.profiles import load_profiles
from spica_ingest.science.codes import CODES
from spica_ingest.science.verify import judge
from spica_ingest.verification.reading import Limits, read_file

LIMITS = Limits(max_bytes=10**8, max_pixels=10**7, time_s=10.0, memory_bytes=1_000_000_000)
PER_FILE_S = 2.0


def codes_of_batch(paths: list[Path]) -> list[str]:
    """Codes of the verdicts on several files, read one after the other: one process for all of them is quicker."""
    codes = []
    for path in paths:
        begun = time.monotonic()
        verdict = judge(read_file(path, LIMITS).facts, load_profiles())
        took = time.monotonic() - begun
        found = [finding.code for finding in (*verdict.reasons, *verdict.repairs)]
        if (verdict.exposure is None) != bool(verdict.reasons):
            raise AssertionError(f"{path}: rejected without a reason, or taken with one")
        if unknown := set(found) - CODES.keys():
            raise AssertionError(f"{path}: unknown codes {unknown}")
        if took > PER_FILE_S:
            raise AssertionError(f"{path}: took {took:.1f} s")
        codes += found or ["good"]
    return codes
