"""Whether a stack can go on from another one's sums: pure, and in words where it cannot.

A weighted mean of more exposures is the sums of the ones before plus what is added. That holds only where everything
that decides on the pixels of the ones before stays: grid, parameters, their solutions, their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spica_proto.stacks import Grid, StackRequested
from spica_runtime.errors import NotRetriable

Member = tuple[str, str | None]
"""image_id and the id of its own solution."""

MADE = ("coadded", "done", "exported")
IN_WORK = ("planned", "calibrated")


@dataclass(frozen=True, slots=True)
class Base:
    """A stack as it was planned and made, as far as going on from it is concerned."""

    stack_id: str
    name: str
    filter: str
    state: str
    combine: str
    solutions: str
    engine: str
    grid: Grid
    processing: Mapping[str, Any]
    """With the settings filled in; empty: not known, it was planned before this was kept."""
    members: tuple[Member, ...]
    sums: str | None
    """Path of its sums in the data folder."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What people call its members."""


def extension_of(
    request: StackRequested,
    base: Base | None,
    *,
    filter: str,
    members: Sequence[Member],
    processing: Mapping[str, Any],
    engine: str,
) -> tuple[Member, ...]:
    """Members of the stack that goes on from `base`: its own first, as they were, then those that are new.

    Parameters
    ----------
    request
        With `extends` set.
    base
        The stack of that id; None: there is none.
    filter
        Of what was selected.
    members
        What was selected, in its order.
    processing, engine
        How the new pixels would be made, with the settings filled in.

    Raises
    ------
    NotRetriable
        `cannot_extend`; the message says all that does not fit.

    """
    if base is None:
        raise _refused(request, ["the store knows no such stack"])
    faults = [
        *_method(request, base),
        *_how(base, filter, processing, engine),
        *_where(request, base.grid),
        *_who(base, members),
    ]
    if faults:
        raise _refused(request, faults, base.name)
    before = {image_id for image_id, _ in base.members}
    return (*base.members, *(member for member in members if member[0] not in before))


def extends_by(base: Base, members: Sequence[Member]) -> tuple[Member, ...] | None:
    """What these members add to a stack's, where all of its own are among them with the same solutions; else None."""
    wanted = set(members)
    if not set(base.members) <= wanted:
        return None
    before = {image_id for image_id, _ in base.members}
    return tuple(member for member in members if member[0] not in before)


def may_go_on(request: StackRequested, base: Base, filter: str) -> bool:
    """Whether a request without `extends` could have it: by its method, once the base is made."""
    kept = base.state in IN_WORK or (base.state in MADE and base.sums is not None)
    wanted = (request.combine, request.solutions, request.engine or "spica", filter)
    return kept and wanted == (base.combine, base.solutions, base.engine, base.filter) and _keeps_sums(wanted)


def _keeps_sums(wanted: tuple[str, str, str, str]) -> bool:
    return wanted[:3] == ("weighted_mean", "own", "spica")


def _method(request: StackRequested, base: Base) -> list[str]:
    faults = []
    if request.combine != "weighted_mean":
        faults.append(f"only a weighted mean goes on from sums, and `combine` is {request.combine}")
    if base.combine != "weighted_mean":
        faults.append(f"it is no weighted mean, but {base.combine}")
    if request.solutions != "own" or base.solutions != "own":
        faults.append("both must take their members with their own solutions (`solutions` is `own`)")
    if base.state not in MADE:
        faults.append(f"it is not made: its state is {base.state}")
    elif base.sums is None:
        faults.append("its sums were not kept")
    return faults


def _how(base: Base, filter: str, processing: Mapping[str, Any], engine: str) -> list[str]:
    faults = []
    if filter != base.filter:
        faults.append(f"its filter is {base.filter}, and {filter} was selected")
    if engine != "spica" or base.engine != "spica":
        faults.append(f"only the engine `spica` keeps sums (here {engine}, there {base.engine})")
    # Checked with the members; not in the sums.
    others = {
        "exposure_weights",
        "rejection_map",
        *(key for key in base.processing if key.startswith("clip_")),
    }
    faults += [
        f"`processing.{key}` was {base.processing[key]}, and is {processing.get(key)}"
        for key in sorted(base.processing)
        if key not in others and processing.get(key) != base.processing[key]
    ]
    weights = base.processing.get("exposure_weights") or {}
    now = processing.get("exposure_weights") or {}
    known = {image_id for image_id, _ in base.members} | set(base.names.values())
    changed = [
        name for name in {*weights, *now} if name in known and weights.get(name, 1.0) != now.get(name, 1.0)
    ]
    if changed:
        faults.append(f"the weight of {min(changed)}, which is in its sums, changed")
    return faults


def _where(request: StackRequested, grid: Grid) -> list[str]:
    """What is asked for of the grid must be what the base has; what is not asked for is taken from there."""
    faults = []
    if request.pixel_scale_arcsec is not None and request.pixel_scale_arcsec != grid.pixel_scale_arcsec:
        faults.append(
            f"its pixels are {grid.pixel_scale_arcsec:g} arcsec, not {request.pixel_scale_arcsec:g}"
        )
    if request.centre is not None and (request.centre.ra_deg, request.centre.dec_deg) != (
        grid.crval_ra_deg,
        grid.crval_dec_deg,
    ):
        faults.append(
            f"its centre is {grid.crval_ra_deg:.6f}, {grid.crval_dec_deg:.6f}, "
            f"not {request.centre.ra_deg:.6f}, {request.centre.dec_deg:.6f}"
        )
    for name in ("width_px", "height_px"):
        asked, there = getattr(request, name), getattr(grid, name)
        if asked is not None and asked != there:
            faults.append(f"its `{name}` is {there}, not {asked}")
    faults += [
        f"its `{name}` is {getattr(grid, name)}, not {getattr(request, name)}"
        for name in ("rotation_deg", "mirrored", "projection")
        if name in request.model_fields_set and getattr(request, name) != getattr(grid, name)
    ]
    return faults


def _who(base: Base, members: Sequence[Member]) -> list[str]:
    selected = {image_id for image_id, _ in members}
    missing = [image_id for image_id, _ in base.members if image_id not in selected]
    if missing:
        named = base.names.get(missing[0], missing[0])
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        return [f"its member {named}{more} is not selected any more, and cannot be taken out of its sums"]
    now = dict(members)
    moved = [image_id for image_id, solution_id in base.members if now[image_id] != solution_id]
    if moved:
        named = base.names.get(moved[0], moved[0])
        more = f" and {len(moved) - 1} more were" if len(moved) > 1 else " was"
        return [f"its member {named}{more} solved again since, and its sums are of the solution before"]
    if len(selected) == len(base.members):
        return ["nothing is selected that it does not have"]
    return []


def _refused(request: StackRequested, faults: Sequence[str], name: str | None = None) -> NotRetriable:
    which = f"{name} ({request.extends})" if name else request.extends
    return NotRetriable(
        "cannot_extend",
        f"Stack {which} cannot be gone on from: {'; '.join(faults)}. Ask without `extends` to make the whole stack.",
        {"extends": request.extends, "faults": len(faults)},
    )
