"""The work on one calibration frame, in a worker process: copy, read, file away."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spica_proto.base import Product
from spica_runtime.storage import DataFolder

from spica_ingest.filing import file_auxiliary, set_aside, staged_copy
from spica_ingest.science.facts import FileFacts, Finding
from spica_ingest.verification.isolation import isolation
from spica_ingest.verification.reading import Limits, read_facts
from spica_ingest.verification.verifying import isolated


@dataclass(frozen=True, slots=True)
class TakenAuxiliary:
    """What became of it."""

    product: Product
    """The copy in the data folder: filed away, or set aside."""
    reasons: tuple[Finding, ...]
    """Empty: it is sound."""


def take_auxiliary(path: Path, kind: str, name: str, data: DataFolder, limits: Limits) -> TakenAuxiliary:
    """Copy a calibration frame into the data folder, verify the copy, and put it where it belongs."""
    with staged_copy(path, data) as staged:
        reasons = isolated(
            lambda bounds: isolation().run(bounds, look_for_faults, staged.path, limits),
            limits,
            lambda finding: (finding,),
        )
        if reasons:
            return TakenAuxiliary(set_aside(staged, data), reasons)
        # Named as the header names it, with the endings that the file came with.
        ending = path.name[len(name) :] if path.name.startswith(f"{name}.") else "".join(path.suffixes[-2:])
        return TakenAuxiliary(file_auxiliary(staged, data, kind, name + ending), ())


def look_for_faults(path: Path, limits: Limits) -> tuple[Finding, ...]:
    """Read a calibration frame, in an isolated process."""
    return faults(read_facts(path, limits))


def faults(facts: FileFacts) -> tuple[Finding, ...]:
    """Why this is no calibration frame: damaged, or without any image. What is in the image is for its users to judge."""
    if facts.faults or any(hdu.is_image for hdu in facts.hdus):
        return facts.faults
    return (
        Finding(
            "no_image",
            "There is no two-dimensional image in this file.",
            found="none",
            expected="one image at least",
        ),
    )
