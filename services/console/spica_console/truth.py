"""The simulated night's results against its truth."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spica_console.campaign import ImageFacts, Result, StackFacts

if TYPE_CHECKING:
    from spica_simulator.truth import Frame, Night

MOST_POSITION_MAS = 50.0
MOST_ZEROPOINT_MAG = 0.02

# What each kind of file must become. An exposure out of focus must get a D besides, and then goes no further.
_MUST_BE = {
    "good": ("calibrated",),
    "no_wcs": ("calibrated",),
    "corrupted": ("rejected",),
    "out_of_focus": ("graded",),
}


def verdict(result: Result, night: Night, data: Path) -> dict[str, Any]:
    """Tell for every file and stack what came of it, and whether all agrees with the truth.

    Args:
        result: what came out.
        night: what is true.
        data: the data folder, where solutions are read from.

    """
    frames = {frame.path.name: frame for frame in night.frames}
    images = [image_verdict(facts, frames[facts.path.name], data) for facts in result.images]
    stacks = [stack_verdict(facts) for facts in result.stacks]
    missing = [name for name in frames if name not in {facts.path.name for facts in result.images}]
    faults = [
        *(f"{name} was never announced" for name in missing),
        *(f"{row['file']}: {fault}" for row in images for fault in row["faults"]),
        *(f"stack {row['name']}: {fault}" for row in stacks for fault in row["faults"]),
        *([] if stacks else ["no stack was made"]),
    ]
    return {
        "arrived": len(images),
        "verified": sum("image.verified" in facts.said for facts in result.images),
        "rejected": sum(row["state"] == "rejected" for row in images),
        "calibrated": sum(row["state"] == "calibrated" for row in images),
        "images": images,
        "stacks": stacks,
        "faults": faults,
        "agrees": not faults,
    }


def image_verdict(facts: ImageFacts, frame: Frame, data: Path) -> dict[str, Any]:
    """One file: what came of it, how far it is from the truth, and what is wrong with that."""
    calibrated = facts.calibrated
    counts = frame.kind in ("good", "no_wcs")
    row: dict[str, Any] = {
        "file": facts.path.name,
        "kind": frame.kind,
        "filter": frame.filter,
        "state": facts.state,
        "grade": facts.graded.get("grade"),
        "reasons": _reasons(facts),
        "fwhm_arcsec": facts.metrics.get("fwhm_arcsec"),
        "true_fwhm_arcsec": frame.fwhm_arcsec,
        "rms_ra_mas": calibrated.get("rms_ra_mas"),
        "rms_dec_mas": calibrated.get("rms_dec_mas"),
        "position_error_mas": None,
        "zeropoint_mag": calibrated.get("zeropoint_mag"),
        "zeropoint_error_mag": None,
        "faults": [],
    }
    faults: list[str] = row["faults"]
    if facts.state not in _MUST_BE[frame.kind]:
        faults.append(f"is {facts.state}, should be {' or '.join(_MUST_BE[frame.kind])}")
    if not calibrated:
        return row
    row["position_error_mas"] = error = position_error_mas(data / calibrated["header"]["path"], frame)
    if counts and not error <= MOST_POSITION_MAS:
        faults.append(f"positions are off by {error:.0f} mas (rms); at most {MOST_POSITION_MAS:g} is right")
    if row["zeropoint_mag"] is None:
        if counts:
            faults.append("has no zero point")
        return row
    row["zeropoint_error_mag"] = off = row["zeropoint_mag"] - frame.zeropoint_mag
    if counts and not abs(off) <= MOST_ZEROPOINT_MAG:
        faults.append(f"the zero point is off by {off:+.3f} mag; at most {MOST_ZEROPOINT_MAG:g} is right")
    return row


def position_error_mas(head: Path, frame: Frame) -> float:
    """How far the solved positions are from the true ones, in mas.

    Root mean square of the length of the offset over a grid on every CCD, its edges included.
    """
    from spica_simulator.truth import head_offsets

    squares = [offset.rms_mas**2 for offset in head_offsets(head, frame)]
    return math.sqrt(sum(squares) / len(squares))


def stack_verdict(facts: StackFacts) -> dict[str, Any]:
    """One stack: what came of it."""
    done = facts.done
    metrics = done.get("metrics", {})
    faults = []
    if failed := facts.said.get("stack.failed"):
        faults.append(f"failed in {failed['stage']}: {failed['message']}")
    elif facts.state != "exported":
        faults.append(f"is {facts.state}, should be exported")
    return {
        "name": facts.label,
        "filter": facts.filter,
        "state": facts.state,
        "grade": done.get("grade"),
        "n_exposures": done.get("n_exposures"),
        "fwhm_arcsec": metrics.get("fwhm_arcsec"),
        "ellipticity": metrics.get("ellipticity"),
        "limiting_mag": metrics.get("limiting_mag"),
        "files": facts.files,
        "faults": faults,
    }


def _reasons(facts: ImageFacts) -> list[dict[str, Any]]:
    if failed := facts.said.get("image.failed"):
        return [failed]
    said = facts.said.get("image.rejected") or facts.graded
    reasons: list[dict[str, Any]] = said.get("reasons", [])
    return reasons
