"""`spica stack`: ask for stacks, see beforehand what would come of it, and list them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spica_console import exits
from spica_console.output import JsonOption
from spica_console.stack_options import IMAGES, MAKING, SELECTING, taking

app = typer.Typer(no_args_is_help=True, help="Ask for stacks.")

_LOOK = "Look first"

_All = Annotated[
    bool, typer.Option("--all", help="Every candidate, not rule by rule.", rich_help_panel=_LOOK)
]
_Plot = Annotated[
    Path | None,
    typer.Option(help="Draw the coverage into this file (.svg or .png).", rich_help_panel=_LOOK),
]


@app.callback()
def _stack() -> None:
    """Ask for stacks, and list them."""


@app.command("request", epilog=exits.EPILOG)
@taking(IMAGES, SELECTING, MAKING)
def request(
    given: dict[str, Any],
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Only say what would be taken and left, why, and what the stack would be like.",
            rich_help_panel=_LOOK,
        ),
    ] = False,
    all: _All = False,
    plot: _Plot = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is exported.")] = False,
    timeout: Annotated[float, typer.Option(help="Longest wait, in seconds.")] = 1800.0,
    json: JsonOption = False,
) -> None:
    """Ask for a stack of all images that pass the rules given.

    With --wait, follows it to its export and leaves with 1 if it failed. With --dry-run nothing is asked for.
    """
    if dry_run:
        _dry_run(given, all, plot, json)
        return
    if plot is not None or all:
        exits.leave(exits.USAGE, "--plot and --all go with --dry-run.")
    rows = exits.run(lambda: _request(given, wait, timeout, json))
    if any(row["state"] == "failed" for row in rows):
        raise typer.Exit(exits.FAILED)


@app.command("plan", epilog=exits.EPILOG)
@taking(IMAGES, SELECTING, MAKING)
def plan(given: dict[str, Any], all: _All = False, plot: _Plot = None, json: JsonOption = False) -> None:
    """Say what a request would take and leave, why, and what the stack would be like. Nothing is asked for or written.

    The same as `spica stack request … --dry-run`. Leaves with 1 if no stack would be made.
    """
    _dry_run(given, all, plot, json)


def _dry_run(given: dict[str, Any], full: bool, plot: Path | None, as_json: bool) -> None:
    if not exits.run(lambda: _plan(given, full, plot, as_json)):
        raise typer.Exit(exits.FAILED)


@app.command("presets", epilog=exits.EPILOG)
def presets(
    name: Annotated[str | None, typer.Argument(help="Show this one in full.")] = None,
    json: JsonOption = False,
) -> None:
    """List the recipes that requests may name with --preset: those shipped, and those of SPICA_STACK_PRESETS."""
    exits.run(lambda: _presets(name, json))


@app.command("list", epilog=exits.EPILOG)
def list_stacks(json: JsonOption = False) -> None:
    """List all stacks, newest first; stale ones would come out otherwise today (`spica survey rebuild`)."""
    exits.run(lambda: _list(json))


async def _request(
    given: dict[str, Any], wait: bool, timeout_s: float, as_json: bool
) -> list[dict[str, Any]]:
    from spica_console import output, stack_options, stacking
    from spica_console.connecting import reach
    from spica_console.following import Progress, follow
    from spica_console.stack_progress import shown
    from spica_console.store import Store
    from spica_console.tailing import last_sequence

    messages = stacking.wishes(stack_options.request_of(given), given.get("file"))
    progress = Progress()
    async with reach() as spica:
        start = await last_sequence(spica.bus) + 1
        asked = [await stacking.ask(spica.bus, message, progress) for message in messages]
        store = Store(spica.pool)
        if wait:
            async with shown(spica.bus, *asked) as refresh:
                await follow(spica.bus, store, progress, start=start, timeout_s=timeout_s, on_news=refresh)
        rows = [await stacking.stack_row(tracked, store) for tracked in asked]
    if as_json:
        output.print_json(rows[0] if len(rows) == 1 else rows)
    else:
        for row in rows:
            stacking.print_stack(row, waited=wait)
    return rows


async def _plan(given: dict[str, Any], full: bool, plot: Path | None, as_json: bool) -> bool:
    """Whether all requests would be made."""
    from spica_console import coverage_view, output, planning_view, stack_options, stacking
    from spica_console.connecting import reach_store

    messages = stacking.wishes(stack_options.request_of(given), given.get("file"))
    settings = stacking.settings()
    if plot is not None:
        coverage_view.check_name(plot)
        if len(messages) > 1:
            exits.leave(exits.USAGE, f"--plot draws one request, the file holds {len(messages)}.")
    async with reach_store() as (pool, data):
        runs = [await stacking.dry_run(pool, data, message, settings) for message in messages]
    if as_json:
        told = [run.told() for run in runs]
        output.print_json(told[0] if len(told) == 1 else told, indent=None)
    else:
        for run in runs:
            planning_view.print_plan(run, full=full)
    if plot is not None and runs[0].prediction is not None:
        coverage_view.write(runs[0], runs[0].name or "", plot)
    return all(run.problem is None for run in runs)


async def _presets(name: str | None, as_json: bool) -> None:
    from spica_stack.presets import preset_named

    from spica_console import output, stacking

    known = stacking.known_presets()
    chosen = list(known.values()) if name is None else [stacking.usage(preset_named, name, known)]
    rows = [
        {
            "name": preset.name,
            "description": preset.description,
            "source": preset.source,
            "file": str(preset.path),
            "shipped": preset.shipped,
            "request": preset.body,
            "by_filter": [{"filters": list(filters), **rules} for filters, rules in preset.by_filter],
        }
        for preset in chosen
    ]
    if as_json:
        output.print_json(rows if name is None else rows[0])
    elif name is not None:
        print(chosen[0].path.read_text(encoding="utf-8"), end="")
    else:
        output.console().print(
            output.table(
                "",
                ("preset", "what", "from"),
                [
                    (row["name"], row["description"], "Spica" if row["shipped"] else row["file"])
                    for row in rows
                ],
            )
        )


async def _list(as_json: bool) -> None:
    from spica_stack.staleness import stale_stacks

    from spica_console import output
    from spica_console.connecting import reach_store
    from spica_console.store import Store

    async with reach_store() as (pool, _):
        rows = await Store(pool).stacks()
        stale = {row["stack_id"]: row for row in await stale_stacks(pool)}
    for row in rows:
        own = stale.get(row["stack_id"])
        row["stale_since"] = own["stale_since"] if own else None
        row["stale_reasons"] = own["stale_reasons"] if own else []
    if as_json:
        output.print_json(rows)
        return
    output.console().print(
        output.table(
            "",
            ("stack", "filter", "images", "state", "grade", "seeing ″", "depth", "id"),
            (
                (
                    row["name"],
                    row["filter"],
                    row["n_members"],
                    output.styled_state(row["state"]) + (" [yellow]stale[/]" if row["stale_since"] else ""),
                    output.styled_grade(row["grade"]),
                    output.number((row["metrics"] or {}).get("fwhm_arcsec")),
                    output.number((row["metrics"] or {}).get("limiting_mag")),
                    row["stack_id"],
                )
                for row in rows
            ),
        )
    )
