"""Asking for a stack, and showing what became of it."""

from __future__ import annotations

import getpass
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from spica_proto.envelope import new_traceparent, seal
from spica_proto.stacks import StackRequested
from spica_runtime.bus import Bus
from spica_runtime.errors import UsageError

from spica_console import output
from spica_console.following import Progress, Tracked
from spica_console.store import Store
from spica_console.submitting import SOURCE


def wish(selection: dict[str, Any], wishes: dict[str, Any], file: Path | None) -> StackRequested:
    """Put a request together: what a file says, and over it what was given by itself.

    Raises
    ------
    UsageError
        It does not fit the contract; the message names every field.

    """
    body: dict[str, Any] = {}
    if file is not None:
        try:
            body = json.loads(file.read_text())
        except ValueError as error:
            raise UsageError("no_json", f"{file} is no JSON: {error}") from error
        if not isinstance(body, dict):
            raise UsageError("no_json", f"{file} holds no JSON object.")
    body = {
        "requested_by": f"person:{getpass.getuser()}",
        **body,
        **wishes,
        "selection": {**body.get("selection", {}), **selection},
    }
    body.setdefault("request_id", str(uuid.uuid4()))
    try:
        return StackRequested.model_validate(body)
    except ValidationError as error:
        raise UsageError("invalid_request", f"This is no stack request: {faults(error)}") from error


def faults(error: ValidationError) -> str:
    """All faults of a message in one sentence."""
    return "; ".join(
        f"{'.'.join(str(part) for part in fault['loc']) or 'body'}: {fault['msg']}"
        for fault in error.errors()
    )


async def ask(bus: Bus, message: StackRequested, progress: Progress) -> Tracked:
    """Publish `stack.requested`, in a trace of its own, and follow it."""
    trace = new_traceparent()
    envelope = seal(message, source=SOURCE, traceparent=trace)
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


@contextmanager
def state_line(tracked: Tracked) -> Iterator[Callable[[], None]]:
    """Show the state of a stack while it is followed."""
    console = output.console(stderr=True)
    if not console.is_terminal:
        yield lambda: None
        return
    with console.status(f"{tracked.label}: {tracked.state}") as status:
        yield lambda: status.update(f"{tracked.label}: {tracked.state}")
