"""What `spica survey` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.markup import escape

from spica_console import output

Row = Mapping[str, Any]

_MOST_CHANGES = 5


def print_listing(rows: Sequence[Row]) -> None:
    """All surveys, with what their rules said last."""
    console = output.console()
    if not rows:
        console.print("No survey stands. `spica survey add` makes one.")
        return
    columns = ("survey", "rules", "state", "exposures", "stacks", "last stack", "found last")
    console.print(output.table("", columns, (_row(row) for row in rows)))


def _row(row: Row) -> tuple[Any, ...]:
    last = row["stack"] or ("asked for" if row["last_request_id"] else "")
    state = output.styled_state(row["state"]) if row["state"] else ""
    stale = " [yellow]stale[/]" if row["stale_since"] else ""
    return (
        escape(row["name"]),
        escape(told(row["request"])),
        standing(row),
        row["n_members"] or None,
        row["n_stacks"] or None,
        f"{escape(last)} {state}{stale}".strip(),
        escape(first_sentence(row["last_seen"])),
    )


def standing(row: Row) -> str:
    """Whether it waits, and for what."""
    if not row["active"]:
        return "[yellow]paused[/]"
    if row["due_at"] is None:
        return "waits for images"
    left_s = (row["due_at"] - datetime.now(UTC)).total_seconds()
    return "due" if left_s <= 0 else f"looks in {_duration(left_s)}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def first_sentence(text: str | None) -> str:
    """Of a longer story, its beginning."""
    return (text or "").split(". ")[0]


def told(request: Mapping[str, Any]) -> str:
    """A request in few words: its preset, its rules, how they are combined."""
    parts = [f"preset {request['preset']}"] if request.get("preset") else []
    for key, value in request.get("selection", {}).items():
        parts.append(f"{key} {_value(value)}")
    for key in ("combine", "solutions", "min_exposures", "pixel_scale_arcsec"):
        if request.get(key) is not None:
            parts.append(f"{key} {_value(request[key])}")
    return ", ".join(parts) or "everything of one filter"


def _value(value: Any) -> str:
    if isinstance(value, list):
        many = "" if len(value) <= _MOST_CHANGES else f" and {len(value) - _MOST_CHANGES} more"
        return "/".join(_value(one) for one in value[:_MOST_CHANGES]) + many
    return "…" if isinstance(value, dict) else f"{value}"


def print_survey(row: Row) -> None:
    """One survey with what it asked for."""
    console = output.console()
    console.print(f"[bold]{escape(row['name'])}[/] {standing(row)}")
    console.print(f"  {escape(told(row['request']))}")
    quiet = f"  looks after {row['debounce_s']:g} s of quiet"
    again = (
        "makes stacks anew when solutions change"
        if row["rebuild_stale"]
        else "leaves stale stacks as they are"
    )
    console.print(f"{quiet}; {again}; by {escape(row['created_by'] or 'nobody knows whom')}")
    if row["last_seen"]:
        console.print(f"  {escape(row['last_seen'])}")
    if not row["stacks"]:
        return
    console.print(
        output.table(
            "",
            ("stack", "state", "exposures", "asked", "made from", "id"),
            (
                (
                    escape(one["name"]),
                    output.styled_state(one["state"]) + (" [yellow]stale[/]" if one["stale_since"] else ""),
                    one["n_members"],
                    f"{one['created_at']:%Y-%m-%d %H:%M}",
                    f"sums of {one['extends'][:8]}" if one["extends"] else "",
                    one["stack_id"],
                )
                for one in row["stacks"]
            ),
        )
    )


def print_looked(row: Row) -> None:
    """What came of looking at a survey."""
    style = {"asked": "green", "refused": "red", "missing": "yellow"}.get(row["state"], "white")
    console = output.console()
    console.print(f"{escape(row['name'])}: [{style}]{escape(row['words'])}[/]")
    if row["request_id"]:
        console.print(f"  request {row['request_id']}; `spica tail 'stack.>'` follows it")


def print_rebuilt(rows: Sequence[Row], *, dry_run: bool) -> None:
    """What is made anew, and why."""
    console = output.console()
    if not rows:
        console.print("No stack is stale.")
        return
    for row in rows:
        if row["left_to_survey"]:
            what = f"left to the survey {escape(row['left_to_survey'])}, which makes it anew"
        else:
            what = "would be asked for again" if dry_run else f"asked for again, request {row['request_id']}"
        console.print(f"{escape(row['name'])} ({row['stack_id'][:8]}): {what}")
        for why in row["reasons"][:_MOST_CHANGES]:
            console.print(f"  {escape(why)}")
        if len(row["reasons"]) > _MOST_CHANGES:
            console.print(f"  and {len(row['reasons']) - _MOST_CHANGES} more")
