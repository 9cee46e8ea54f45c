"""Members of a stack that are taken with the solutions they have: nothing is solved, and all is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, cast

from spica_proto.envelope import derived_id
from spica_proto.images import Engine, Reference
from spica_proto.stacks import StackCalibrated, StackPlanned

from spica_calib.errors import CalibrationFailed


@dataclass(frozen=True, slots=True)
class OwnMember:
    """A member with its own solution, as it was when the stack was planned."""

    image_id: str
    name: str
    solution_id: str | None
    header_path: str | None
    reference_name: str | None
    reference_sha256: str | None
    zeropoint_mag: float | None
    flux_scale: float | None
    quality: Mapping[str, Any] | None
    engine: str | None
    context: str | None


def check(stack_id: str, members: Sequence[OwnMember]) -> None:
    """Every member must have a solution with a flux scale.

    Raises `CalibrationFailed` (`no_members`, `no_solution`, `no_flux_scale`).
    """
    if not members:
        raise CalibrationFailed("no_members", f"Stack {stack_id} has no selected members in the store.")
    for member in members:
        if member.solution_id is None or member.header_path is None:
            raise CalibrationFailed(
                "no_solution", f"Member {member.image_id} of stack {stack_id} has no solution of its own."
            )
    without = [member.name for member in members if member.flux_scale is None]
    if without:
        raise CalibrationFailed(
            "no_flux_scale",
            f"{len(without)} of {len(members)} members of stack {stack_id} have no zero point of their own (such as "
            f"{without[0]}), so that their fluxes cannot be added as they are. Ask with `solutions` joint.",
            {"members": len(members), "without": len(without)},
        )


def entries(stack_id: str, members: Sequence[OwnMember]) -> dict[str, str]:
    """Ids under which own solutions are entered for a stack, by the own ones."""
    return {
        member.solution_id: derived_id("own", stack_id, member.solution_id)
        for member in members
        if member.solution_id is not None
    }


def calibrated(message: StackPlanned, members: Sequence[OwnMember]) -> StackCalibrated:
    """The event that a stack's members are on one system: what their own solutions say, in the middle of all of them."""
    qualities = [member.quality or {} for member in members]
    engine = Counter(member.engine for member in members).most_common(1)[0][0]
    return StackCalibrated(
        stack_id=message.stack_id,
        name=message.name,
        reference=_reference(members, qualities),
        n_members=len(members),
        n_internal_matches=sum(quality.get("n_internal") or 0 for quality in qualities),
        internal_rms_ra_mas=_middle(_axis(qualities, "internal_rms_mas", 0)),
        internal_rms_dec_mas=_middle(_axis(qualities, "internal_rms_mas", 1)),
        engine=cast(Engine, engine or "spica"),
        n_reference=sum(quality.get("n_matched") or 0 for quality in qualities),
        external_rms_ra_mas=_middle(_axis(qualities, "rms_mas", 0)),
        external_rms_dec_mas=_middle(_axis(qualities, "rms_mas", 1)),
        chi2_internal=_middle(quality.get("chi2_internal") for quality in qualities),
        chi2_external=_middle(quality.get("chi2_external") for quality in qualities),
        contexts=tuple(sorted({member.context for member in members if member.context})),
        # Each stands on its own zero point; those that stand on nothing but neighbours are no anchors.
        anchors=tuple(
            member.image_id
            for member in members
            if (member.quality or {}).get("anchor") in ("reference", "header")
        ),
    )


def _reference(members: Sequence[OwnMember], qualities: Sequence[Mapping[str, Any]]) -> Reference:
    """What they stand on; the catalogue of most where they differ, its name saying so."""
    counts = Counter((member.reference_name or "", member.reference_sha256 or "") for member in members)
    (name, sha256), _ = counts.most_common(1)[0]
    epochs = [quality["epoch_year"] for quality in qualities if quality.get("epoch_year") is not None]
    names = {one for one, _ in counts}
    return Reference(
        name=name if len(names) == 1 else f"{name} and {len(names) - 1} more",
        sha256=sha256,
        epoch_year=fmean(epochs) if epochs else 2000.0,
    )


def _axis(qualities: Iterable[Mapping[str, Any]], key: str, axis: int) -> Iterable[float | None]:
    for quality in qualities:
        pair = quality.get(key)
        yield pair[axis] if pair else None


def _middle(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
