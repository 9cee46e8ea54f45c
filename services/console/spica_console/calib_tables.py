"""What `spica calib` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape

from spica_console import output
from spica_console.calibrating import Improvement, Row, Stale

_MOST_ROWS = 40


def _pair(values: Sequence[float | None] | None, digits: int = 1) -> str:
    """Two numbers as one cell, each in its place; empty where there is neither."""
    if not values or all(value is None for value in values):
        return ""
    return "/".join("–" if value is None else f"{value:.{digits}f}" for value in values)


def _when(row: Mapping[str, Any]) -> str:
    return f"{row['created_at']:%Y-%m-%d %H:%M}"


def _started(row: Mapping[str, Any]) -> str:
    """Versions of the model that it started from and that it made."""
    if row["model_version"] is None:
        return ""
    taught = f" → {row['taught_version']}" if row["taught_version"] else ""
    return f"{row['model_version'] or '–'}{taught}"


def print_list(rows: Sequence[Row]) -> None:
    """The solution that counts of each image."""
    console = output.console()
    if not rows:
        console.print("No image fits that was calibrated.")
        return
    columns = (
        "image", "version", "context", "engine", "matched", "rms mas", "with", "internal mas", "chi²",
        "zero point", "anchor", "model", "when",
    )  # fmt: skip
    console.print(output.table("", columns, (_list_row(row) for row in rows)))


def _list_row(row: Row) -> tuple[Any, ...]:
    quality = row["quality"]
    return (
        row["name"],
        row["version"],
        escape(row["context"] or ""),
        row["engine"],
        quality.get("n_matched"),
        _pair(quality.get("rms_mas")),
        row["n_context"],
        _pair(quality.get("internal_rms_mas")),
        _pair((quality.get("chi2_external"), quality.get("chi2_internal")), 2),
        output.number(row["zeropoint_mag"], 3),
        quality.get("anchor"),
        _started(row),
        _when(row),
    )


def print_versions(told: Row) -> None:
    """All solutions of an image."""
    console = output.console()
    console.print(f"[bold]{told['image_id']}[/]")
    rows = told["solutions"]
    if not rows:
        console.print("It was not calibrated yet.")
        return
    columns = (
        "version", "solution", "counts", "engine", "reference", "matched", "rms mas", "internal mas", "chi²",
        "zero point", "anchor", "model", "when",
    )  # fmt: skip
    console.print(output.table("", columns, (_version_row(row) for row in rows)))
    for row in rows:
        _print_details(row)
    counting = [row for row in rows if row["stack_id"] is None and row["superseded_by"] is None]
    if counting:
        _print_ccds(counting[-1])


def _version_row(row: Row) -> tuple[Any, ...]:
    quality, own = row["quality"], row["stack_id"] is None
    state = "[green]yes[/]" if row["superseded_by"] is None else "no"
    return (
        row["version"] if own else f"in {row['stack']}",
        row["solution_id"][:8],
        state if own else "",
        row["engine"],
        row["reference_name"],
        quality.get("n_matched"),
        _pair(quality.get("rms_mas")),
        _pair(quality.get("internal_rms_mas")),
        _pair((quality.get("chi2_external"), quality.get("chi2_internal")), 2),
        output.number(row["zeropoint_mag"], 3),
        quality.get("anchor"),
        _started(row),
        _when(row),
    )


def _print_details(row: Row) -> None:
    console = output.console()
    which = f"version {row['version']}" if row["stack_id"] is None else f"in {row['stack']}"
    if row["superseded_why"]:
        console.print(f"  {which} counts no more: {escape(row['superseded_why'])}")
    if row["context_images"]:
        console.print(f"  {which} was solved together with {escape(', '.join(row['context_images']))}")
    for line in (row["quality"].get("anchor_why"), *row["quality"].get("notes", ())):
        if line:
            console.print(f"  {which}: {escape(line)}")


def _print_ccds(row: Row) -> None:
    ccds = row["quality"].get("ccds") or []
    names = [
        name
        for name in ("n_matched", "rms_mas", "internal_rms_mas", "degree", "offset_mag")
        if any(name in ccd for ccd in ccds)
    ]
    if ccds:
        output.console().print(
            output.table(
                f"CCDs of version {row['version']}",
                ("CCD", *names),
                ((ccd["name"], *(_cell(ccd.get(name)) for name in names)) for ccd in ccds),
            )
        )


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return _pair(value)
    return output.number(value, 4) if isinstance(value, float) else value


def print_contexts(rows: Sequence[Row]) -> None:
    """Contexts with their newest models."""
    console = output.console()
    if not rows:
        console.print("No run has taught anything yet: calibrate some images first.")
        return
    columns = ("context", "newest", "exposures", "repeats to mas", "images", "when")
    console.print(
        output.table(
            "",
            columns,
            (
                (
                    escape(row["context"]),
                    row["version"],
                    row["n_exposures"],
                    output.number(row["repeat_mas"], 1),
                    row["images"],
                    _when(row),
                )
                for row in rows
            ),
        )
    )


def print_models(context: str, rows: Sequence[Row]) -> None:
    """Versions of one context's model."""
    columns = (
        "version",
        "from",
        "image",
        "exposures",
        "detections",
        "CCDs",
        "degree",
        "moved mas",
        "repeats to mas",
        "when",
    )
    output.console().print(
        output.table(
            escape(context),
            columns,
            (
                (
                    row["version"],
                    f"{row['started_from'] or '–'}"
                    + (f" + {row['merged_with']}" if row["merged_with"] else ""),
                    row["image"],
                    row["n_exposures"],
                    row["n_detections"],
                    row["ccds"],
                    row["degree"],
                    output.number(row["moved_mas"], 2),
                    output.number(row["repeat_mas"], 1),
                    _when(row),
                )
                for row in rows
            ),
        )
    )


def print_anchors(told: Row) -> None:
    """Members of a stack with what their zero points stand on."""
    console = output.console()
    console.print(f"[bold]{told['stack_id']}[/]")
    columns = ("image", "airmass", "anchor", "stands on", "zero point", "by itself", "absorption", "why")
    console.print(output.table("", columns, (_anchor_row(row) for row in told["members"])))
    count = sum(bool((row["quality"] or {}).get("is_anchor")) for row in told["members"])
    console.print(f"{count} of {len(told['members'])} exposures are anchors.")


def _anchor_row(row: Row) -> tuple[Any, ...]:
    quality = row["quality"] or {}
    return (
        row["name"],
        output.number(row["airmass"], 3),
        "[green]yes[/]" if quality.get("is_anchor") else "no",
        quality.get("anchor"),
        output.number(row["zeropoint_mag"], 3),
        output.number(row["own_zeropoint_mag"], 3),
        output.number(quality.get("absorption_mag"), 3),
        escape(quality.get("anchor_why") or ""),
    )


def print_stale(found: Sequence[Stale], *, members: bool) -> None:
    """Stacks that newer solutions would change, and their members where one is asked for."""
    console = output.console()
    if not found:
        console.print(
            "No stack is stale: every member's solution is the one that its stack was planned with."
        )
        return
    columns = ("stack", "filter", "state", "members", "solved again", "moves mas", "changes mmag")
    console.print(
        output.table(
            "",
            columns,
            (
                (
                    one.stack,
                    one.filter,
                    output.styled_state(one.state),
                    one.n_members,
                    len(one.members),
                    output.number(one.moves_mas, 1) or "?",
                    _signed(one.changes_mmag),
                )
                for one in found
            ),
        )
    )
    if members:
        details = ("image", "version", "moves mas", "changes mmag", "why")
        rows = [
            (
                moved.image,
                f"{moved.old_version or '?'} → {moved.new_version or '?'}",
                output.number(moved.moves_mas, 1) or "?",
                _signed(moved.changes_mmag),
                escape(moved.why or ""),
            )
            for one in found
            for moved in one.members
        ]
        console.print(output.table("", details, rows))
    console.print("`spica stack request` makes them again, under another request's name.")


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.1f}"


def print_improvements(found: Sequence[Improvement], least_mas: float, *, dry_run: bool) -> None:
    """What would be solved again, or is."""
    console = output.console()
    if not found:
        console.print(
            f"Nothing to improve: no newer model is {least_mas:g} mas or more from what the solutions know."
        )
        return
    columns = ("image", "version", "context", "knows", "newest", "moves mas", "stacks that get stale")
    console.print(
        output.table(
            "",
            columns,
            (
                (
                    one.name,
                    one.version,
                    escape(one.context),
                    one.knows or "–",
                    one.newest,
                    output.number(one.moves_mas, 1) or "?",
                    escape(", ".join(one.stacks)),
                )
                for one in found[:_MOST_ROWS]
            ),
        )
    )
    if len(found) > _MOST_ROWS:
        console.print(f"… and {len(found) - _MOST_ROWS} more (--json lists all).")
    does = "would be" if dry_run else "will be"
    console.print(f"{len(found)} image(s) {does} solved again.")
