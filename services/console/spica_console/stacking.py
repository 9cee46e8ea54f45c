"""Asking for a stack, and showing what became of it."""

from __future__ import annotations

import getpass
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from pydantic import ValidationError
from spica_proto.envelope import new_traceparent
from spica_proto.stacks import StackRequested
from spica_runtime.errors import NotRetriable, UsageError
from spica_runtime.pg import Pool
from spica_runtime.storage import DataFolder
from spica_stack.dryrun import DryRun
from spica_stack.dryrun import dry_run as make_dry_run
from spica_stack.presets import Preset, load_presets
from spica_stack.requests import Group, faults_of_request, merged, read_file, sealed
from spica_stack.settings import StackSettings

from spica_console import output
from spica_console.store import Store

if TYPE_CHECKING:
    from spica_runtime.bus import Bus
    from spica_runtime.locating import Files

    from spica_console.following import Progress, Tracked

P = ParamSpec("P")
R = TypeVar("R")


def settings() -> StackSettings:
    """Of the stack service, as this process finds them: presets stand there."""
    try:
        return StackSettings()
    except ValidationError as error:
        raise UsageError(
            "bad_settings", f"The settings of the stack service do not fit: {faults(error)}"
        ) from error


def wishes(given: Mapping[str, Any], file: Path | None) -> list[StackRequested]:
    """Put requests together: what a file says, and over each of its groups what was given by options.

    All are checked before any is returned. Raises `UsageError`, which names every group and field that does not fit.
    """
    presets = known_presets()
    groups = [Group("the request", {})] if file is None else read_file(file, presets)
    asks = {"requested_by": f"person:{getpass.getuser()}"}
    bodies = [Group(group.label, {**asks, **merged(group.body, given)}) for group in groups]
    if len(bodies) > 1 and "request_id" in given:
        raise UsageError("invalid_request", f"One request_id cannot name {len(bodies)} requests.")
    found = [
        f"{group.label}: {fault}" for group in bodies for fault in faults_of_request(group.body, presets)
    ]
    if found:
        raise UsageError("invalid_request", f"This is no stack request. {'; '.join(found)}.")
    return [
        StackRequested.model_validate({"request_id": str(uuid.uuid4()), **group.body}) for group in bodies
    ]


async def dry_run(
    pool: Pool, data: DataFolder, message: StackRequested, own: StackSettings, files: Files | None = None
) -> DryRun:
    """What would become of a request. Raises `UsageError` where the request itself does not fit."""

    async def locate(paths: Sequence[str]) -> dict[str, Path]:
        return {path: data.path(path) for path in paths}

    try:
        return await make_dry_run(pool, message, own, locate if files is None else files.locate)
    except NotRetriable as error:
        raise UsageError(error.code, error.message) from error


def usage(function: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
    """Call what reports faults of a request, as faults of usage."""
    try:
        return function(*arguments, **named)
    except NotRetriable as error:
        raise UsageError(error.code, error.message) from error


def known_presets() -> dict[str, Preset]:
    """All presets by name. Raises `UsageError` where one of one's own does not fit."""
    return usage(load_presets, settings().presets)


def faults(error: ValidationError) -> str:
    """All faults of a message in one sentence."""
    return "; ".join(
        f"{'.'.join(str(part) for part in fault['loc']) or 'body'}: {fault['msg']}"
        for fault in error.errors()
    )


async def ask(bus: Bus, message: StackRequested, progress: Progress) -> Tracked:
    """Publish `stack.requested`, in a trace of its own, and follow it."""
    from spica_console.submitting import SOURCE

    trace = new_traceparent()
    envelope = sealed(message, source=SOURCE, traceparent=trace)
    await bus.publish(envelope)
    tracked = progress.expect_stack(
        message.name or message.request_id or envelope.event_id,
        request_id=message.request_id or envelope.event_id,
        trace_id=trace.split("-")[1],
    )
    tracked.last_event = ("stack.requested", envelope.event_id)
    return tracked


async def stack_row(tracked: Tracked, store: Store) -> dict[str, Any]:
    """What became of a request, as programs and people see it."""
    done = tracked.said.get("stack.done", {})
    exported = tracked.said.get("stack.exported", {})
    planned = tracked.said.get("stack.planned", {})
    row: dict[str, Any] = {
        "request_id": tracked.request_id,
        "stack_id": tracked.id,
        "name": exported.get("name") or planned.get("name") or tracked.label,
        "state": tracked.state,
        "n_exposures": len(planned.get("image_ids", ())) or None,
        "n_left_out": planned.get("n_left_out"),
        "grade": done.get("grade"),
        "metrics": done.get("metrics"),
        "zeropoint_mag": done.get("zeropoint_mag"),
        "destination": exported.get("destination"),
        "files": exported.get("files"),
        "failure": tracked.said.get("stack.failed"),
    }
    if tracked.settled and tracked.id is None and tracked.request_id:
        # Nothing followed the request: the same request was answered before.
        stack_id = await store.stack_id(tracked.request_id)
        if stack_id:
            stack = await store.stack(stack_id)
            row |= {"stack_id": stack_id, "name": stack["name"], "state": stack["state"]}
    return row


def print_stack(row: dict[str, Any], *, waited: bool) -> None:
    """Say it to a person."""
    console = output.console()
    if failure := row["failure"]:
        console.print(f"[red]failed[/] in {failure['stage']} ({failure['code']}): {failure['message']}")
        return
    if not waited:
        console.print(
            f"Asked for {row['name']}, request {row['request_id']}. `spica tail 'stack.>'` follows it."
        )
        return
    metrics = row["metrics"] or {}
    facts = [
        f"{row['n_exposures']} exposures" if row["n_exposures"] else "",
        f"grade {row['grade']}" if row["grade"] else "",
        f"seeing {metrics['fwhm_arcsec']:.2f}″" if metrics.get("fwhm_arcsec") is not None else "",
        f"depth {metrics['limiting_mag']:.2f} mag" if metrics.get("limiting_mag") is not None else "",
    ]
    console.print(f"{row['name']} {output.styled_state(row['state'])}  {', '.join(filter(None, facts))}")
    for file in row["files"] or ():
        console.print(f"  {file['kind']:<10} {file['path']}")
