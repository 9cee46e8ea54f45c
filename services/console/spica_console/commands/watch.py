"""`spica watch`: standing watches over an archive, and what watched folders do."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from spica_console import exits
from spica_console.output import JsonOption

app = typer.Typer(no_args_is_help=True, help="Standing watches: what the archive gets is taken in by itself.")

_WHICH = "Which files"
_HOW = "How they are taken"

_Name = Annotated[str, typer.Argument(help="Name of the watch.")]


@app.command("add", epilog=exits.EPILOG)
def add(
    name: _Name,
    collection: Annotated[str, typer.Option(help="CAOM collection.", rich_help_panel=_WHICH)] = "CFHT",
    instrument: Annotated[str | None, typer.Option(help="Such as MegaPrime.", rich_help_panel=_WHICH)] = None,
    filter: Annotated[
        list[str] | None,
        typer.Option(
            help="In full, such as r.MP9601; * for any characters. Repeatable.", rich_help_panel=_WHICH
        ),
    ] = None,
    programme: Annotated[
        list[str] | None, typer.Option(help="Id of a programme. Repeatable.", rich_help_panel=_WHICH)
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Name of a target. Repeatable.", rich_help_panel=_WHICH)
    ] = None,
    level: Annotated[
        int | None,
        typer.Option(help="Calibration level: 1 raw, 2 calibrated, 3 product.", rich_help_panel=_WHICH),
    ] = None,
    intent: Annotated[
        str, typer.Option(help="science, calibration or any.", rich_help_panel=_WHICH)
    ] = "science",
    suffix: Annotated[
        str | None,
        typer.Option(help="End of the file's name before .fits, such as p.", rich_help_panel=_WHICH),
    ] = None,
    cone: Annotated[
        str | None, typer.Option(help="RA,DEC,RADIUS in degrees.", rich_help_panel=_WHICH)
    ] = None,
    polygon: Annotated[
        str | None, typer.Option(help="RA,DEC RA,DEC RA,DEC … in degrees.", rich_help_panel=_WHICH)
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Changed or released since: 30d, 2026-03-01 or all. Default: from now on.",
            rich_help_panel=_WHICH,
        ),
    ] = None,
    batch: Annotated[
        str | None, typer.Option(help="Label of the files. Default: the name.", rich_help_panel=_HOW)
    ] = None,
    interval: Annotated[
        float | None, typer.Option(help="Seconds between two looks.", rich_help_panel=_HOW)
    ] = None,
    max_per_pass: Annotated[
        int | None,
        typer.Option(help="Files of it on their way at a time, at most. Default: 200.", rich_help_panel=_HOW),
    ] = None,
    paused: Annotated[
        bool, typer.Option("--paused", help="Do not poll it yet.", rich_help_panel=_HOW)
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only list what it would take. Needs the archive, and no server."),
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="Files listed by --dry-run, at most.")] = 100,
    json: JsonOption = False,
) -> None:
    """Add a watch. Files must fulfil all that is given; of repeated options, one of them.

    What arrives from now on is taken, and with --since what is there already. To see it first: --dry-run.
    """
    given: dict[str, Any] = {
        "name": name,
        "collection": collection,
        "instrument": instrument,
        "filters": filter,
        "programmes": programme,
        "targets": target,
        "calibration_level": level,
        "intent": intent,
        "suffix": suffix,
        "batch": batch,
        "interval_s": interval,
        "max_per_pass": max_per_pass,
    }
    exits.run(
        lambda: _add(given, cone, polygon, since, paused=paused, dry_run=dry_run, limit=limit, as_json=json)
    )


@app.command("list", epilog=exits.EPILOG)
def list_watches(json: JsonOption = False) -> None:
    """List all watches and watched folders: when they looked last, what they found, and what went wrong."""
    exits.run(lambda: _list(json))


@app.command("show", epilog=exits.EPILOG)
def show(name: _Name, json: JsonOption = False) -> None:
    """Show one watch: what it looks for, how far it has read, and its last error."""
    exits.run(lambda: _show(name, json))


@app.command("pause", epilog=exits.EPILOG)
def pause(name: _Name, json: JsonOption = False) -> None:
    """Stop polling a watch. What came meanwhile is found when it is resumed."""
    exits.run(lambda: _set_active(name, active=False, as_json=json))


@app.command("resume", epilog=exits.EPILOG)
def resume(name: _Name, json: JsonOption = False) -> None:
    """Poll a watch again, from where it was."""
    exits.run(lambda: _set_active(name, active=True, as_json=json))


@app.command("remove", epilog=exits.EPILOG)
def remove(name: _Name, json: JsonOption = False) -> None:
    """Remove a watch. Images stay, and what it announced is not announced again by another."""
    exits.run(lambda: _remove(name, json))


@app.command("run-once", epilog=exits.EPILOG)
def run_once(
    name: _Name,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until each file is verified, rejected or failed.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Longest wait, in seconds.")] = 3600.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what is still to come.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Files listed by --dry-run, at most.")] = 100,
    json: JsonOption = False,
) -> None:
    """Look now, from here, also if the watch is paused. With --wait, leave with 1 if any file was rejected or failed."""
    rows = exits.run(lambda: _run_once(name, wait, timeout, dry_run=dry_run, limit=limit, as_json=json))
    if any(row.get("state") in ("rejected", "failed") for row in rows):
        raise typer.Exit(exits.FAILED)


async def _add(
    given: dict[str, Any],
    cone: str | None,
    polygon: str | None,
    since: str | None,
    *,
    paused: bool,
    dry_run: bool,
    limit: int,
    as_json: bool,
) -> None:
    from spica_ingest.watching.store import WatchStore

    from spica_console import output, watch_tables, watching
    from spica_console.connecting import reach_store

    watch = watching.wish(given, cone, polygon, since)
    if dry_run:
        async with watching.archive() as (archive, settings):
            watch_tables.print_preview(
                await watching.look_ahead(watch, archive, settings, limit), as_json=as_json
            )
        return
    async with reach_store() as (pool, _):
        await WatchStore(pool).add(watch, active=not paused)
    if as_json:
        output.print_json(watch.model_dump(mode="json", exclude_none=True))
        return
    begin = f"since {watch.since:%Y-%m-%d %H:%M}" if watch.since else "from now on"
    polled = (
        "Paused: `spica watch resume` starts it."
        if paused
        else "Running ingest services begin within seconds."
    )
    print(f"Watch {watch.name} added: {watch.told()}, {begin}. {polled}")


async def _list(as_json: bool) -> None:
    from spica_ingest.watching.store import WatchStore

    from spica_console import output, watch_tables
    from spica_console.connecting import reach_store

    async with reach_store() as (pool, _):
        store = WatchStore(pool)
        watches, folders = await store.listing(), await store.folders()
    if as_json:
        output.print_json({"watches": watches, "folders": folders})
    else:
        watch_tables.print_listing(watches, folders)


async def _show(name: str, as_json: bool) -> None:
    from spica_ingest.watching.store import WatchStore

    from spica_console import output, watch_tables
    from spica_console.connecting import reach_store

    async with reach_store() as (pool, _):
        store = WatchStore(pool)
        await store.find(name)
        (row,) = [row for row in await store.listing() if row["name"] == name]
    if as_json:
        output.print_json(row)
    else:
        watch_tables.print_watch(row)


async def _set_active(name: str, *, active: bool, as_json: bool) -> None:
    from spica_ingest.watching.store import WatchStore

    from spica_console import output
    from spica_console.connecting import reach_store

    async with reach_store() as (pool, _):
        await WatchStore(pool).set_active(name, active=active)
    state = "active" if active else "paused"
    if as_json:
        output.print_json({"name": name, "state": state})
    else:
        print(f"Watch {name} is {state}.")


async def _remove(name: str, as_json: bool) -> None:
    from spica_ingest.watching.store import WatchStore

    from spica_console import output
    from spica_console.connecting import reach_store

    async with reach_store() as (pool, _):
        await WatchStore(pool).remove(name)
    if as_json:
        output.print_json({"name": name, "state": "removed"})
    else:
        print(f"Watch {name} removed.")


async def _run_once(
    name: str, wait: bool, timeout_s: float, *, dry_run: bool, limit: int, as_json: bool
) -> list[dict[str, Any]]:
    from spica_ingest.watching.store import WatchStore

    from spica_console import watch_tables, watching
    from spica_console.connecting import reach, reach_store

    if dry_run:
        async with reach_store() as (pool, _), watching.archive() as (archive, settings):
            shown = await watching.look_ahead_of(name, WatchStore(pool), archive, settings, limit)
        watch_tables.print_preview(shown, as_json=as_json)
        return []
    if not wait:
        async with reach_store() as (pool, _), watching.archive() as (archive, settings):
            made = await watching.look_now(name, WatchStore(pool), archive, settings)
        watch_tables.print_pass(name, made, as_json=as_json)
        return []
    async with reach() as spica, watching.archive() as (archive, settings):
        rows = await watching.look_and_follow(name, spica, archive, settings, timeout_s)
    watch_tables.print_followed(rows, as_json=as_json)
    return rows
