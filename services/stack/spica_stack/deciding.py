"""What a survey's rules say now, and what is to be done about it. Reads the store, writes nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import aiosql
import numpy as np
from spica_proto.base import Product
from spica_proto.envelope import derived_id
from spica_proto.stacks import Grid, Rules, StackRequested
from spica_runtime.errors import NotRetriable
from spica_runtime.pg import Connection, Pool

from spica_stack.choosing import Choice, select_now
from spica_stack.extending import IN_WORK, Base, Member, extends_by, extension_of, may_go_on
from spica_stack.planning import science_grid
from spica_stack.processing import engine_of, filled
from spica_stack.requests import said
from spica_stack.settings import StackSettings

queries: Any = aiosql.from_path(Path(__file__).with_name("standing.sql"), "asyncpg")

State = Literal["asked", "unchanged", "missing", "waits", "refused", "busy"]


@dataclass(frozen=True, slots=True)
class Survey:
    """A stored request and where it stands."""

    name: str
    request: StackRequested
    active: bool
    created_by: str | None
    created_at: datetime
    debounce_s: float
    rebuild_stale: bool
    members: tuple[str, ...]
    """image_id/solution_id of what it asked for last."""
    due_at: datetime | None
    changed_since: datetime | None
    last_request_id: str | None
    last_requested_at: datetime | None
    last_seen: str | None
    seen: str
    due: bool | None


@dataclass(frozen=True, slots=True)
class Looked:
    """What came of looking at a survey."""

    name: str
    state: State
    words: str
    n_selected: int = 0
    n_missing: int = 0
    request_id: str | None = None
    extends: str | None = None


# ---- which surveys an image concerns ----


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image is."""

    image_id: str
    name: str
    filter: str
    canonical_filter: str | None
    object: str | None
    run: str
    instrument: str
    batch: str | None


def may_concern(rules: Rules, image: ImageFacts) -> bool:
    """Whether these rules could ever take this image, by what it is alone. In doubt: yes."""
    asked = (
        (rules.object, image.object),
        (rules.run, image.run),
        (rules.instrument, image.instrument),
        (rules.batch, image.batch),
    )
    if any(wanted is not None and wanted != found for wanted, found in asked):
        return False
    if rules.filter is not None and rules.filter not in (image.filter, image.canonical_filter):
        return False
    if rules.runs and image.run not in rules.runs:
        return False
    if rules.images and not {image.name, image.image_id} & {*rules.images}:
        return False
    return not rules.any_of or any(may_concern(one, image) for one in rules.any_of)


# ---- deciding ----


@dataclass(frozen=True, slots=True)
class Wish:
    """A request that is to be published, and what it is for."""

    request: StackRequested
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What there is to be done about a survey."""

    looked: Looked
    wish: Wish | None = None
    again_s: float | None = None
    """When to look again though nothing changes."""


async def decide(
    connection: Connection, survey: Survey, settings: StackSettings, *, anyway: bool = False
) -> Decision:
    """What there is to be done about a survey; `anyway`: ask, though nothing changed."""
    try:
        choice = await select_now(connection, survey.request, settings)
    except NotRetriable as error:
        return Decision(Looked(survey.name, "refused", error.message))
    if choice.problem is not None:
        return Decision(_without_stack(survey, choice, choice.problem))
    return await _with(connection, survey, settings, choice, anyway=anyway)


def _without_stack(survey: Survey, choice: Choice, problem: NotRetriable) -> Looked:
    n = len(choice.members)
    if problem.code not in ("nothing_selected", "too_few_exposures"):
        return Looked(survey.name, "refused", problem.message, n)
    wanted = choice.request.min_exposures
    missing = max(1, wanted - n)
    return Looked(
        survey.name, "missing", f"{n} of {wanted} exposures, {missing} missing. {problem.message}", n, missing
    )


async def _with(
    connection: Connection, survey: Survey, settings: StackSettings, choice: Choice, *, anyway: bool
) -> Decision:
    """What there is to be done where a stack could be made."""
    members = tuple((one.image_id, one.solution_id) for one in choice.members)
    keys, n = keys_of(members), len(members)
    base = None
    if survey.last_request_id is not None:
        base = await base_of(connection, request_id=survey.last_request_id)
    # It was planned a moment after it was asked for, maybe with what had come meanwhile: that counts.
    before = survey.members if base is None else keys_of(base.members)
    if not anyway and same(keys, before, solutions_too=survey.rebuild_stale):
        return Decision(Looked(survey.name, "unchanged", f"nothing new: {n} exposures", n))
    added = None
    if base is not None:
        # With its preset filled in: what decides on how the pixels are made.
        added = await _extension(connection, settings, choice.request, choice.filter, members, base)
    if added is None or base is None:
        return _asking(survey, base, keys, n, f"asked for {n} exposures", None)
    if base.state in IN_WORK:
        words = f"{len(added)} more; waits until {base.name} is made, to go on from it"
        return Decision(Looked(survey.name, "waits", words, n), again_s=max(1.0, survey.debounce_s))
    words = f"asked for {n} exposures: {len(added)} more than {base.name} has, on whose sums it goes on"
    return _asking(survey, base, keys, n, words, base.stack_id)


def _asking(
    survey: Survey, base: Base | None, keys: tuple[str, ...], n: int, words: str, extends: str | None
) -> Decision:
    """Ask. The id follows from what is asked for, and after which stack: the same for all who look at the same time."""
    replaces = base.stack_id if base is not None else None
    plain = json.dumps(said(survey.request), sort_keys=True)
    request_id = derived_id("survey", survey.name, plain, replaces, *keys)
    wish = survey.request.model_copy(
        update={
            "request_id": request_id,
            "name": survey.request.name or survey.name,
            "survey": survey.name,
            "requested_by": f"survey:{survey.name}",
            "extends": extends,
            "replaces": replaces,
        }
    )
    return Decision(Looked(survey.name, "asked", words, n, 0, request_id, extends), Wish(wish, keys))


def keys_of(members: Sequence[Member]) -> tuple[str, ...]:
    """Members as a survey keeps them: image_id/solution_id, sorted."""
    return tuple(sorted(f"{image_id}/{solution_id}" for image_id, solution_id in members))


def same(now: Sequence[str], before: Sequence[str], *, solutions_too: bool) -> bool:
    """Whether two selections are one; without `solutions_too`, whatever solutions their images have."""
    if solutions_too:
        return set(now) == set(before)
    return {key.rpartition("/")[0] for key in now} == {key.rpartition("/")[0] for key in before}


# ---- going on from sums ----


async def base_of(
    source: Pool | Connection, *, stack_id: str | None = None, request_id: str | None = None
) -> Base | None:
    """A stack that another may go on from, by its id or that of its request; None: there is none."""
    if stack_id is not None:
        row = await queries.base(source, stack_id=stack_id)
    else:
        row = await queries.base_of_request(source, request_id=request_id)
    if row is None:
        return None
    members = [record async for record in queries.members_of(source, stack_id=row["stack_id"])]
    plan, request = row["plan"], row["request"]
    return Base(
        stack_id=row["stack_id"],
        name=row["name"],
        filter=row["filter"],
        state=row["state"],
        combine=row["combine"],
        solutions=plan.get("solutions") or request.get("solutions") or "joint",
        engine=plan.get("engine") or request.get("engine") or "spica",
        grid=Grid.model_validate(row["grid"]),
        processing=plan.get("processing") or {},
        members=tuple((record["image_id"], record["solution_id"]) for record in members),
        sums=Product.model_validate(row["sums"]).path if row["sums"] else None,
        names={record["image_id"]: record["name"] for record in members},
    )


async def _extension(
    connection: Connection,
    settings: StackSettings,
    request: StackRequested,
    filter: str,
    members: Sequence[Member],
    base: Base,
) -> tuple[Member, ...] | None:
    """What is to be added to the stack asked for last, where that is possible; None: the whole is to be made."""
    added = extends_by(base, members) if may_go_on(request, base, filter) else None
    if not added:
        return None
    if base.state not in IN_WORK:
        try:
            extension_of(
                request.model_copy(update={"extends": base.stack_id}),
                base,
                filter=filter,
                members=members,
                processing=filled(request, settings).model_dump(mode="json"),
                engine=engine_of(request, settings),
            )
        except NotRetriable:
            return None
    if request.centre is not None and request.width_px is not None and request.height_px is not None:
        return added
    ids = [solution_id for _, solution_id in added if solution_id is not None]
    rows = [row async for row in queries.corners_of(connection, solution_ids=ids)]
    fits = len(rows) == len(added) and all(
        row["corners"] and covers(base.grid, row["corners"]) for row in rows
    )
    return added if fits else None


def covers(grid: Grid, corners: Sequence[float]) -> bool:
    """Whether all of an image lies on a grid: `corners` are ra, dec (deg) of its CCDs' corners, one after the other."""
    flat = np.asarray(corners, dtype=np.float64).reshape(-1, 2)
    x, y = science_grid(grid).sky_to_pixel(flat[:, 0], flat[:, 1])
    inside = (x >= 0.5) & (x <= grid.width_px + 0.5) & (y >= 0.5) & (y <= grid.height_px + 0.5)
    return bool(inside.all())
