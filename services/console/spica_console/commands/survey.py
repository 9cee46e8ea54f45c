"""`spica survey`: standing requests, which ask for a stack whenever what their rules select has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spica_console import exits
from spica_console.output import JsonOption

app = typer.Typer(
    no_args_is_help=True,
    help="Standing surveys: a stack is asked for whenever what their rules select has changed; and stale stacks.",
)

_SELECT = "Which images"
_PRODUCT = "What is made of them"
_WHEN = "When"

_Name = Annotated[str, typer.Argument(help="Name of the survey.")]


@app.command("add", epilog=exits.EPILOG)
def add(
    name: _Name,
    preset: Annotated[
        str | None, typer.Option(help="A recipe by name, such as cfhtls-wide.", rich_help_panel=_SELECT)
    ] = None,
    filter: Annotated[
        str | None, typer.Option(help="Filter, such as r.MP9601.", rich_help_panel=_SELECT)
    ] = None,
    object: Annotated[str | None, typer.Option(help="OBJECT of the header.", rich_help_panel=_SELECT)] = None,
    instrument: Annotated[
        str | None, typer.Option(help="Instrument of the header.", rich_help_panel=_SELECT)
    ] = None,
    run: Annotated[str | None, typer.Option(help="Observing run.", rich_help_panel=_SELECT)] = None,
    batch: Annotated[
        str | None, typer.Option(help="Label given at submission.", rich_help_panel=_SELECT)
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Tag that people gave. Repeatable.", rich_help_panel=_SELECT)
    ] = None,
    saved: Annotated[
        list[str] | None, typer.Option(help="Saved selection. Repeatable.", rich_help_panel=_SELECT)
    ] = None,
    grade: Annotated[
        str | None, typer.Option(help="Grades to take, such as A,B.", rich_help_panel=_SELECT)
    ] = None,
    fwhm_max: Annotated[float | None, typer.Option(help="In arcsec.", rich_help_panel=_SELECT)] = None,
    ellipticity_max: Annotated[
        float | None, typer.Option(help="1 - b/a of stars, median.", rich_help_panel=_SELECT)
    ] = None,
    exposure_min: Annotated[float | None, typer.Option(help="In seconds.", rich_help_panel=_SELECT)] = None,
    airmass_max: Annotated[
        float | None, typer.Option(help="Largest airmass.", rich_help_panel=_SELECT)
    ] = None,
    best_seeing: Annotated[
        float | None, typer.Option(help="Only the best so many percent.", rich_help_panel=_SELECT)
    ] = None,
    combine: Annotated[
        str | None,
        typer.Option(help="clipped_mean, weighted_mean, median ...", rich_help_panel=_PRODUCT),
    ] = None,
    solutions: Annotated[
        str | None,
        typer.Option(
            help="joint: members are solved together; own: as they are. With own solutions a weighted mean goes on "
            "from the last stack's sums: an exposure more costs that exposure.",
            rich_help_panel=_PRODUCT,
        ),
    ] = None,
    pixel_scale: Annotated[float | None, typer.Option(help="In arcsec.", rich_help_panel=_PRODUCT)] = None,
    stack_name: Annotated[
        str | None,
        typer.Option(
            "--stack-name", help="Name of the product; default: the survey's.", rich_help_panel=_PRODUCT
        ),
    ] = None,
    min_exposures: Annotated[
        int | None, typer.Option(help="Fewer images are waited for.", rich_help_panel=_WHEN)
    ] = None,
    debounce: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Seconds of quiet before it looks; it looks after ten times that at the latest.",
            rich_help_panel=_WHEN,
        ),
    ] = 300.0,
    keep_stale: Annotated[
        bool,
        typer.Option(
            "--keep-stale", help="Do not ask again when a member was solved again.", rich_help_panel=_WHEN
        ),
    ] = False,
    paused: Annotated[bool, typer.Option("--paused", help="Do not look yet.", rich_help_panel=_WHEN)] = False,
    file: Annotated[
        Path | None,
        typer.Option(help="A request (TOML or JSON); options go over it.", exists=True, dir_okay=False),
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option(
            help="FIELD=VALUE of the request, such as selection.sky_absorption_max_mag=0.1. Repeatable."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Add a survey: a request that asks by itself whenever an image, a grade or a solution changes what it selects."""
    selection = {
        "filter": filter,
        "object": object,
        "instrument": instrument,
        "run": run,
        "batch": batch,
        "tags": tag or None,
        "saved": saved or None,
        "grades": [part.strip() for part in grade.split(",")] if grade else None,
        "fwhm_max_arcsec": fwhm_max,
        "ellipticity_max": ellipticity_max,
        "exposure_time_min_s": exposure_min,
        "airmass_max": airmass_max,
        "best_seeing_percent": best_seeing,
    }
    given = {
        "preset": preset,
        "selection": {key: value for key, value in selection.items() if value is not None} or None,
        "combine": combine,
        "solutions": solutions,
        "pixel_scale_arcsec": pixel_scale,
        "name": stack_name,
        "min_exposures": min_exposures,
    }
    body = {key: value for key, value in given.items() if value is not None}

    async def work() -> None:
        from spica_console import output, survey_tables, surveying
        from spica_console.connecting import reach_store

        request = surveying.wish(body, set or (), file)
        async with reach_store() as (pool, _):
            await surveying.add(
                pool,
                name,
                request,
                debounce_s=debounce,
                rebuild_stale=not keep_stale,
                active=not paused,
            )
            row = await surveying.show(pool, name)
        if json:
            output.print_json(row)
            return
        begins = "Paused: `spica survey resume` starts it." if paused else "Running stack services look now."
        print(f"Survey {name} added: {survey_tables.told(row['request'])}. {begins}")

    exits.run(work)


@app.command("list", epilog=exits.EPILOG)
def list_surveys(json: JsonOption = False) -> None:
    """List all surveys: what they wait for, what their rules said last, and what they asked for."""

    async def work() -> None:
        from spica_stack import surveys

        from spica_console import output, survey_tables
        from spica_console.connecting import reach_store

        async with reach_store() as (pool, _):
            rows = await surveys.listing(pool)
        if json:
            output.print_json(rows)
        else:
            survey_tables.print_listing(rows)

    exits.run(work)


@app.command("show", epilog=exits.EPILOG)
def show(name: _Name, json: JsonOption = False) -> None:
    """Show one survey: its rules, what they said last, and its stacks."""

    async def work() -> None:
        from spica_console import output, survey_tables, surveying
        from spica_console.connecting import reach_store

        async with reach_store() as (pool, _):
            row = await surveying.show(pool, name)
        if json:
            output.print_json(row)
        else:
            survey_tables.print_survey(row)

    exits.run(work)


@app.command("pause", epilog=exits.EPILOG)
def pause(name: _Name, json: JsonOption = False) -> None:
    """Stop a survey. What changes meanwhile is found when it is resumed."""
    exits.run(lambda: _set_active(name, active=False, as_json=json))


@app.command("resume", epilog=exits.EPILOG)
def resume(name: _Name, json: JsonOption = False) -> None:
    """Start a survey again: it looks at once."""
    exits.run(lambda: _set_active(name, active=True, as_json=json))


@app.command("remove", epilog=exits.EPILOG)
def remove(name: _Name, json: JsonOption = False) -> None:
    """Remove a survey. Its stacks stay."""

    async def work() -> None:
        from spica_stack import surveys

        from spica_console import output
        from spica_console.connecting import reach_store

        async with reach_store() as (pool, _):
            await surveys.remove(pool, name)
        if json:
            output.print_json({"name": name, "removed": True})
        else:
            print(f"Survey {name} removed. Its stacks stay.")

    exits.run(work)


@app.command("run", epilog=exits.EPILOG)
def run(
    name: _Name,
    anyway: Annotated[bool, typer.Option("--anyway", help="Ask, though nothing changed.")] = False,
    json: JsonOption = False,
) -> None:
    """Look now, also if the survey is paused, and ask if what its rules select has changed.

    Leaves with 1 if its rules cannot be applied.
    """

    async def work() -> dict[str, Any]:
        from spica_console import output, survey_tables, surveying
        from spica_console.connecting import reach_store

        async with reach_store() as (pool, _):
            row = await surveying.run(pool, name, anyway=anyway)
        if json:
            output.print_json(row)
        else:
            survey_tables.print_looked(row)
        return row

    if exits.run(work)["state"] == "refused":
        raise typer.Exit(exits.FAILED)


@app.command("rebuild", epilog=exits.EPILOG)
def rebuild(
    stacks: Annotated[
        list[str] | None,
        typer.Argument(help="Stacks: ids, beginnings of ids, names, or their requests' ids."),
    ] = None,
    stale: Annotated[bool, typer.Option("--stale", help="All that are stale.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be asked for.")] = False,
    json: JsonOption = False,
) -> None:
    """Ask again for stacks, with the requests they were made by: what their rules select now, as it is solved now.

    A stack is stale when a member was solved again, or would not be selected any more. Twice is once.
    """

    async def work() -> None:
        from spica_console import output, survey_tables, surveying
        from spica_console.connecting import reach_store

        async with reach_store() as (pool, _):
            rows = await surveying.rebuild(pool, stacks or (), stale=stale, dry_run=dry_run)
        if json:
            output.print_json(rows)
        else:
            survey_tables.print_rebuilt(rows, dry_run=dry_run)

    exits.run(work)


async def _set_active(name: str, *, active: bool, as_json: bool) -> None:
    from spica_stack import surveys

    from spica_console import output
    from spica_console.connecting import reach_store

    async with reach_store() as (pool, _):
        await surveys.set_active(pool, name, active=active)
    if as_json:
        output.print_json({"name": name, "active": active})
    else:
        print(f"Survey {name} {'looks now' if active else 'is paused'}.")
