"""Standing surveys: stored requests that ask for a stack whenever what their rules select has changed.

An event marks the surveys whose identity rules fit its image; each is looked at once it was quiet for a while. Looking
means choosing as a request would, and comparing with what was asked for last. What is asked for is written down in the
transaction that puts the request into the outbox: asked once, whoever is killed and however many look.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from spica_proto.stacks import StackRequested
from spica_runtime.errors import UsageError
from spica_runtime.outbox import put_in
from spica_runtime.pg import Connection, Pool, Record

from spica_stack.deciding import ImageFacts, Looked, Survey, Wish, decide, may_concern, queries
from spica_stack.requests import said, sealed
from spica_stack.settings import StackSettings

SOURCE = "/spica/stack"
MOST_TIMES = 10.0
"""A survey that is never left in peace looks after so many times its quiet time."""


def _survey(row: Record) -> Survey:
    fields = {name: row[name] for name in Survey.__dataclass_fields__ if name not in ("request", "members")}
    return Survey(
        request=StackRequested.model_validate(row["request"]), members=tuple(row["members"]), **fields
    )


async def touched(connection: Connection, image_ids: Sequence[str]) -> tuple[str, ...]:
    """Something about these images changed: mark the surveys that it may concern. Returns their names.

    For whoever changes what rules look at without an event (tags, say), in the transaction that changes it.
    """
    facts = []
    for image_id in image_ids:
        row = await queries.image_facts(connection, image_id=image_id)
        if row is not None:
            facts.append(ImageFacts(**row))
    if not facts:
        return ()
    found = [
        row["name"]
        async for row in queries.active_surveys(connection)
        if _may_concern_any(row["request"], facts)
    ]
    if found:
        await queries.mark_due(connection, names=found, most_times=MOST_TIMES)
    return tuple(found)


def _may_concern_any(request: Any, facts: Sequence[ImageFacts]) -> bool:
    try:
        rules = StackRequested.model_validate(request).selection
    except ValidationError:
        return True  # of another version: whoever looks at it tells, and news of images are handled
    return any(may_concern(rules, one) for one in facts)


# ---- looking ----


async def due(pool: Pool) -> list[str]:
    """Names of the surveys whose time has come."""
    return [row["name"] async for row in queries.due_surveys(pool)]


async def look(
    pool: Pool, settings: StackSettings, name: str, *, only_due: bool = False, anyway: bool = False
) -> Looked | None:
    """Look at one survey, and ask for what it selects if that has changed (or `anyway`).

    With `only_due`: None where it is not due any more, or somebody else looks at it already. Raises `UsageError`
    (`unknown_survey`).
    """
    async with pool.acquire() as connection, connection.transaction():
        # Held while we choose, which takes a second where there are many images; marks of events need not wait for it.
        if not await queries.take_turn(connection, key=f"spica survey {name}"):
            return None if only_due else Looked(name, "busy", "somebody looks at it just now")
        row = await queries.survey(connection, name=name)
        if row is None:
            if only_due:
                return None
            raise await unknown_survey(pool, name)
        survey = _survey(row)
        if only_due and not (survey.active and survey.due):
            return None
        decision = await decide(connection, survey, settings, anyway=anyway)
        after = await queries.hold_survey(connection, name=name)
        if after is None or after["request"] != row["request"]:
            return Looked(name, "busy", "it was changed while it was looked at")
        if only_due and not after["active"]:
            return None
        again_s = decision.again_s
        if again_s is None and after["active"] and after["seen"] != survey.seen:
            again_s = survey.debounce_s  # something came meanwhile
        if (wish := decision.wish) is not None:
            await _publish(connection, name, wish)
        await queries.looked(connection, name=name, last_seen=decision.looked.words, again_s=again_s)
    return decision.looked


async def _publish(connection: Connection, name: str, wish: Wish) -> None:
    await put_in(connection, sealed(wish.request, source=SOURCE))
    request_id = wish.request.request_id
    await queries.asked(connection, name=name, members=list(wish.members), request_id=request_id)


async def put_off(pool: Pool, name: str, words: str, again_s: float) -> None:
    """Write down why a survey cannot be looked at, and try again later."""
    await queries.looked(pool, name=name, last_seen=words, again_s=again_s)


# ---- what people do with them ----


async def unknown_survey(pool: Pool, name: str) -> UsageError:
    """There is no survey of this name; the message tells which there are."""
    names = [row["name"] async for row in queries.surveys(pool)]
    known = f"There are: {', '.join(names)}." if names else "There is none yet: `spica survey add`."
    return UsageError("unknown_survey", f"There is no survey {name!r}. {known}")


async def add(
    pool: Pool,
    name: str,
    request: StackRequested,
    *,
    created_by: str,
    debounce_s: float = 300.0,
    rebuild_stale: bool = True,
    active: bool = True,
) -> None:
    """Add a survey. Raises `UsageError` (`survey_exists`, `invalid_survey`)."""
    fixed = [key for key in ("request_id", "extends", "replaces", "survey") if getattr(request, key)]
    if fixed:
        raise UsageError("invalid_survey", f"A survey decides by itself on `{fixed[0]}`: leave it out.")
    added = await queries.add_survey(
        pool,
        name=name,
        request=said(request),
        created_by=created_by,
        debounce_s=debounce_s,
        rebuild_stale=rebuild_stale,
        active=active,
    )
    if added is None:
        raise UsageError(
            "survey_exists",
            f"There is a survey {name} already. Take another name, or remove it first (`spica survey remove {name}`): "
            "its stacks stay.",
        )


async def remove(pool: Pool, name: str) -> None:
    """Remove a survey; its stacks stay. Raises `UsageError` (`unknown_survey`)."""
    if await queries.remove_survey(pool, name=name) is None:
        raise await unknown_survey(pool, name)


async def set_active(pool: Pool, name: str, *, active: bool) -> None:
    """Pause or resume a survey. Raises `UsageError` (`unknown_survey`)."""
    if await queries.set_survey_active(pool, name=name, active=active) is None:
        raise await unknown_survey(pool, name)


async def find(pool: Pool, name: str) -> Survey:
    """One survey. Raises `UsageError` (`unknown_survey`)."""
    row = await queries.survey(pool, name=name)
    if row is None:
        raise await unknown_survey(pool, name)
    return _survey(row)


async def listing(pool: Pool) -> list[dict[str, Any]]:
    """All surveys, with the stack that each asked for last."""
    return [dict(row) async for row in queries.surveys(pool)]


async def stacks_of(pool: Pool, name: str, max_rows: int = 50) -> list[dict[str, Any]]:
    """What a survey asked for, newest first."""
    return [dict(row) async for row in queries.stacks_of_survey(pool, name=name, max_rows=max_rows)]
