"""Standing surveys, as people add and follow them, and stale stacks made anew."""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spica_proto.stacks import StackRequested
from spica_runtime.errors import UsageError
from spica_runtime.outbox import put_in
from spica_runtime.pg import Pool
from spica_stack import staleness, surveys
from spica_stack.presets import load_presets
from spica_stack.requests import faults_of_request, merged, read_file, sealed
from spica_stack.settings import StackSettings

from spica_console.store import Store, unknown
from spica_console.submitting import SOURCE

Row = dict[str, Any]

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")


def person() -> str:
    """Who asks."""
    return f"person:{getpass.getuser()}"


def settings() -> StackSettings:
    """Of the stack service, as this process finds them: presets stand there."""
    return StackSettings()


# ---- adding ----


def wish(given: Mapping[str, Any], sets: Sequence[str], file: Path | None) -> StackRequested:
    """Put a survey's request together: what a file says, over it options, over these `FIELD=VALUE`.

    Parameters
    ----------
    given
        Fields of the request that options gave; those of `selection` under that name.
    sets
        `FIELD=VALUE`, such as `selection.sky_absorption_max_mag=0.1`; a value is JSON, or else text.
    file
        One request, TOML or JSON.

    Raises
    ------
    UsageError
        It does not fit; the message names every field.

    """
    presets = load_presets(settings().presets)
    body: dict[str, Any] = {}
    if file is not None:
        groups = read_file(file, presets)
        if len(groups) > 1:
            raise UsageError("several_requests", f"{file} holds {len(groups)} requests; a survey has one.")
        body = dict(groups[0].body)
    body = merged(body, given)
    for text in sets:
        body = merged(body, _set(text))
    if faults := faults_of_request(body, presets):
        raise UsageError("invalid_request", f"This is no request for stacks: {'; '.join(faults)}.")
    return StackRequested.model_validate(body)


def _set(text: str) -> dict[str, Any]:
    field, sign, value = text.partition("=")
    parts = field.strip().split(".")
    if not sign or not all(parts) or len(parts) > 2:
        raise UsageError(
            "bad_field", f"{text!r} does not name a field: FIELD=VALUE, such as selection.airmass_max=1.5."
        )
    try:
        found: Any = json.loads(value)
    except ValueError:
        found = value
    for part in reversed(parts):
        found = {part: found}
    return dict(found)


async def add(
    pool: Pool,
    name: str,
    request: StackRequested,
    *,
    debounce_s: float,
    rebuild_stale: bool,
    active: bool,
) -> None:
    """Add a survey. Raises `UsageError` (`bad_name`, `survey_exists`, `invalid_survey`)."""
    if not _NAME.match(name):
        raise UsageError(
            "bad_name", f"{name!r} is no name: letters, digits and . _ + -, the first a letter or digit."
        )
    await surveys.add(
        pool,
        name,
        request,
        created_by=person(),
        debounce_s=debounce_s,
        rebuild_stale=rebuild_stale,
        active=active,
    )


# ---- looking ----


async def show(pool: Pool, name: str) -> Row:
    """All that is known of a survey. Raises `UsageError` (`unknown_survey`)."""
    await surveys.find(pool, name)
    (row,) = [row for row in await surveys.listing(pool) if row["name"] == name]
    return {**row, "stacks": await surveys.stacks_of(pool, name)}


async def run(pool: Pool, name: str, *, anyway: bool) -> Row:
    """Look at a survey now. Raises `UsageError` (`unknown_survey`)."""
    looked = await surveys.look(pool, settings(), name, anyway=anyway)
    assert looked is not None
    return asdict(looked)


# ---- stale stacks ----


async def rebuild(pool: Pool, texts: Sequence[str], *, stale: bool, dry_run: bool = False) -> list[Row]:
    """Ask again for stacks: for these, or for all that are stale. Twice is once, until something else changes.

    Stacks whose survey makes them anew by itself are left to it, unless they are named. Raises `UsageError`.
    """
    if texts:
        store = Store(pool)
        ids = [await store.stack_id(text) for text in texts]
        for text, stack_id in zip(texts, ids, strict=True):
            if stack_id is None:
                raise unknown(text)
        rows = await staleness.stacks(pool, [stack_id for stack_id in ids if stack_id])
    elif stale:
        rows = await staleness.stale_stacks(pool)
    else:
        raise UsageError("nothing_named", "Say which stacks: their names or ids, or --stale.")
    return [await _again(pool, row, dry_run=dry_run) for row in rows]


async def _again(pool: Pool, row: Row, *, dry_run: bool) -> Row:
    told: Row = {
        "stack_id": row["stack_id"],
        "name": row["name"],
        "reasons": [one["why"] for one in row["stale_reasons"]],
        "request_id": None,
        "left_to_survey": row["request"].get("survey") if row.get("rebuilt_by_survey") else None,
    }
    if told["left_to_survey"] is not None:
        return told
    request = staleness.again(row, requested_by=person())
    told["request_id"] = request.request_id
    if not dry_run:
        async with pool.acquire() as connection, connection.transaction():
            await put_in(connection, sealed(request, source=SOURCE))
    return told
