"""Stacks that would come out otherwise today: a grade or a solution of a member changed.

Each cause (what changed of which image) is told once. Where it goes away again (a person thinks better of it), the
stack is as good as before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiosql
import structlog
from pydantic import ValidationError
from spica_proto.envelope import derived_id
from spica_proto.stacks import StackRequested, StackStale
from spica_runtime.errors import NotRetriable
from spica_runtime.pg import Connection, Pool, Record

from spica_stack.choosing import judge_images
from spica_stack.science.selection import Verdict
from spica_stack.settings import StackSettings

log = structlog.get_logger(__name__)
queries: Any = aiosql.from_path(Path(__file__).with_name("staleness.sql"), "asyncpg")

SOLUTION = "solution"
"""Cause: the member was solved again. Any other cause is the rule that leaves it out now."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a stack is stale."""

    image_id: str
    name: str
    cause: str
    why: str

    @property
    def key(self) -> tuple[str, str]:
        """Two of the same key are one cause."""
        return self.image_id, self.cause


@dataclass(frozen=True, slots=True)
class MemberNow:
    """A member of a stack, as it was planned and as it is."""

    image_id: str
    name: str
    was: str | None
    """Its own solution when the stack was planned."""
    is_now: str | None
    version: int | None
    why: str | None
    """Why the solution of then counts no more."""


_MEMBER_FIELDS = tuple(MemberNow.__dataclass_fields__)
_DECIDING = (
    "selection", "preset", "mode", "centre", "width_px", "height_px", "pixel_scale_arcsec", "rotation_deg", "mirrored",
    "projection",
)  # fmt: skip
"""Fields of a request that have a say in whether it takes an image."""


def causes_of(member: MemberNow, judged: Verdict | None) -> tuple[Cause, ...]:
    """What makes a stack with this member stale; nothing, if it is what it was.

    `judged`: by the stack's own rules; None: the store does not know the image any more.
    """
    found = []
    if judged is not None and not judged.selected and judged.rule != "calibrated":
        told = f": {judged.found}" if judged.found else ""
        found.append(
            Cause(
                member.image_id,
                member.name,
                judged.rule,
                f"{member.name} is not selected any more by `{judged.rule}`{told}",
            )
        )
    if member.is_now is not None and member.is_now != member.was:
        which = f"version {member.version} counts" if member.version else "another solution counts"
        because = f": {member.why}" if member.why else ""
        found.append(
            Cause(member.image_id, member.name, SOLUTION, f"{member.name} was solved again, {which}{because}")
        )
    return tuple(found)


def renewed(
    before: Sequence[Cause], looked_at: Sequence[str], now: Sequence[Cause]
) -> tuple[tuple[Cause, ...], tuple[Cause, ...]]:
    """All causes there are now, and those that are new, when only the images `looked_at` were looked at."""
    known = {cause.key for cause in before}
    kept = tuple(cause for cause in before if cause.image_id not in looked_at)
    return (*kept, *now), tuple(cause for cause in now if cause.key not in known)


def _causes(row: Record) -> tuple[Cause, ...]:
    return tuple(Cause(**one) for one in row["stale_reasons"])


async def look_at_images(
    connection: Connection, settings: StackSettings, image_ids: Sequence[str]
) -> list[StackStale]:
    """Find out which stacks these images make stale (or fresh again), write it down, and tell what is new.

    Within the caller's transaction, which holds the stacks until it ends: of two that look at once, the second sees
    what the first has seen, or what is newer.
    """
    rows = [row async for row in queries.hold_stacks_with(connection, image_ids=list(image_ids))]
    return await _look(connection, settings, rows, list(image_ids))


async def look_at_stack(connection: Connection, settings: StackSettings, stack_id: str) -> list[StackStale]:
    """The same for all members of one stack."""
    row = await queries.hold_stack(connection, stack_id=stack_id)
    return [] if row is None else await _look(connection, settings, [row], None)


async def _look(
    connection: Connection, settings: StackSettings, rows: Sequence[Record], image_ids: list[str] | None
) -> list[StackStale]:
    """Look at members (all, or these) of stacks that are held. An image may be in very many stacks."""
    if not rows:
        return []
    stack_ids = [row["stack_id"] for row in rows]
    members: dict[str, list[MemberNow]] = {stack_id: [] for stack_id in stack_ids}
    async for one in queries.members(connection, stack_ids=stack_ids, image_ids=image_ids):
        members[one["stack_id"]].append(MemberNow(**{name: one[name] for name in _MEMBER_FIELDS}))
    judged: dict[str, Mapping[str, Verdict]] = {}
    events = []
    for row in rows:
        own = members[row["stack_id"]]
        ids = [member.image_id for member in own]
        # Stacks of one survey have the same rules.
        key = json.dumps([{name: row["request"].get(name) for name in _DECIDING}, ids], sort_keys=True)
        if key not in judged:
            judged[key] = await _judged(connection, settings, row, ids)
        events += await _write(connection, row, own, judged[key])
    return events


async def _write(
    connection: Connection, row: Record, members: Sequence[MemberNow], judged: Mapping[str, Verdict]
) -> list[StackStale]:
    found = [cause for member in members for cause in causes_of(member, judged.get(member.image_id))]
    before = _causes(row)
    all_of_them, new = renewed(before, [member.image_id for member in members], found)
    if set(all_of_them) != set(before):
        await queries.set_stale(
            connection, stack_id=row["stack_id"], reasons=[asdict(cause) for cause in all_of_them]
        )
    return [
        StackStale(stack_id=row["stack_id"], name=row["name"], image_id=cause.image_id, why=cause.why)
        for cause in new
    ]


async def _judged(
    connection: Connection, settings: StackSettings, row: Record, image_ids: Sequence[str]
) -> Mapping[str, Verdict]:
    try:
        request = StackRequested.model_validate(row["request"])
        return await judge_images(connection, request, settings, image_ids)
    except (NotRetriable, ValidationError) as error:
        # A preset or a saved selection is gone, or the request is of another version: what the stack would be today,
        # nobody can tell.
        log.warning("rules of a stack cannot be applied any more", stack_id=row["stack_id"], error=str(error))
        return {}


async def lately_planned(pool: Pool, seconds: float) -> list[str]:
    """Stacks that were planned in the last so many seconds."""
    return [row["stack_id"] async for row in queries.lately_planned(pool, seconds=seconds)]


async def stale_stacks(pool: Pool, stack_ids: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Stacks that would come out otherwise today and that no other one was made instead of, the longest stale first.

    What `spica stack list` marks: `stack_id`, `name`, `stale_since`, `stale_reasons` (image_id, name, cause, why).
    """
    wanted = None if stack_ids is None else list(stack_ids)
    return [dict(row) async for row in queries.stale(pool, stack_ids=wanted)]


async def stacks(pool: Pool, stack_ids: Sequence[str]) -> list[dict[str, Any]]:
    """These stacks, stale or not, with the requests that asked for them."""
    return [dict(row) async for row in queries.stacks(pool, stack_ids=list(stack_ids))]


def again(row: dict[str, Any], *, requested_by: str) -> StackRequested:
    """The request that makes a stack anew, whole, as its rules select now. The same causes give the same request."""
    causes = sorted(f"{one['image_id']} {one['cause']} {one['why']}" for one in row["stale_reasons"])
    request = StackRequested.model_validate(row["request"])
    return request.model_copy(
        update={
            "request_id": derived_id("rebuild", row["stack_id"], *causes),
            "replaces": row["stack_id"],
            "extends": None,
            "requested_by": requested_by,
        }
    )
