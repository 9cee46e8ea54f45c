"""`spica stack request`: ask for a stack, and follow it if asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spica_console import exits
from spica_console.output import JsonOption

app = typer.Typer(no_args_is_help=True, help="Ask for stacks.")

_SELECT = "Which images"
_PRODUCT = "What is made of them"


@app.callback()
def _stack() -> None:
    """Ask for stacks, and list them."""


@app.command("request", epilog=exits.EPILOG)
def request(
    images: Annotated[
        list[str] | None, typer.Argument(help="Image names or ids; none: any.", rich_help_panel=_SELECT)
    ] = None,
    filter: Annotated[
        str | None, typer.Option(help="Filter as in the header, such as r.MP9601.", rich_help_panel=_SELECT)
    ] = None,
    object: Annotated[str | None, typer.Option(help="OBJECT of the header.", rich_help_panel=_SELECT)] = None,
    instrument: Annotated[
        str | None, typer.Option(help="Instrument of the header.", rich_help_panel=_SELECT)
    ] = None,
    run: Annotated[str | None, typer.Option(help="Observing run.", rich_help_panel=_SELECT)] = None,
    batch: Annotated[
        str | None, typer.Option(help="Label given at submission.", rich_help_panel=_SELECT)
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
    mjd_min: Annotated[
        float | None, typer.Option(help="Taken at or after this MJD.", rich_help_panel=_SELECT)
    ] = None,
    mjd_max: Annotated[
        float | None, typer.Option(help="Taken at or before this MJD.", rich_help_panel=_SELECT)
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the product.", rich_help_panel=_PRODUCT)] = None,
    combine: Annotated[
        str | None, typer.Option(help="clipped_mean, weighted_mean or median.", rich_help_panel=_PRODUCT)
    ] = None,
    pixel_scale: Annotated[float | None, typer.Option(help="In arcsec.", rich_help_panel=_PRODUCT)] = None,
    min_exposures: Annotated[
        int | None, typer.Option(help="Fewer images than this is a failure.", rich_help_panel=_PRODUCT)
    ] = None,
    request_id: Annotated[
        str | None, typer.Option(help="The same id twice is one stack.", rich_help_panel=_PRODUCT)
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="JSON body of stack.requested; options go before it.", exists=True, dir_okay=False),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is exported.")] = False,
    timeout: Annotated[float, typer.Option(help="Longest wait, in seconds.")] = 1800.0,
    json: JsonOption = False,
) -> None:
    """Ask for a stack of all images that pass the rules given.

    With --wait, follows it to its export and leaves with 1 if it failed.
    """
    selection = {
        "images": images or None,
        "filter": filter,
        "object": object,
        "instrument": instrument,
        "run": run,
        "batch": batch,
        "grades": [part.strip() for part in grade.split(",")] if grade else None,
        "fwhm_max_arcsec": fwhm_max,
        "ellipticity_max": ellipticity_max,
        "exposure_time_min_s": exposure_min,
        "airmass_max": airmass_max,
        "mjd_min": mjd_min,
        "mjd_max": mjd_max,
    }
    wishes = {
        "name": name,
        "combine": combine,
        "pixel_scale_arcsec": pixel_scale,
        "min_exposures": min_exposures,
        "request_id": request_id,
    }
    result = exits.run(lambda: _request(_given(selection), _given(wishes), file, wait, timeout, json))
    if result["state"] == "failed":
        raise typer.Exit(exits.FAILED)


@app.command("list", epilog=exits.EPILOG)
def list_stacks(json: JsonOption = False) -> None:
    """List all stacks, newest first."""
    exits.run(lambda: _list(json))


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


async def _request(
    selection: dict[str, Any],
    wishes: dict[str, Any],
    file: Path | None,
    wait: bool,
    timeout_s: float,
    as_json: bool,
) -> dict[str, Any]:
    from spica_console import output, stacking
    from spica_console.connecting import reach
    from spica_console.following import Progress, follow
    from spica_console.store import Store
    from spica_console.tailing import last_sequence

    message = stacking.wish(selection, wishes, file)
    progress = Progress()
    async with reach() as spica:
        start = await last_sequence(spica.bus) + 1
        tracked = await stacking.ask(spica.bus, message, progress)
        if wait:
            with stacking.state_line(tracked) as refresh:
                await follow(
                    spica.bus,
                    Store(spica.pool),
                    progress,
                    start=start,
                    timeout_s=timeout_s,
                    on_news=refresh,
                )
        row = await stacking.stack_row(tracked, Store(spica.pool))
    if as_json:
        output.print_json(row)
    else:
        stacking.print_stack(row, waited=wait)
    return row


async def _list(as_json: bool) -> None:
    from spica_console import output
    from spica_console.connecting import reach_store
    from spica_console.store import Store

    async with reach_store() as (pool, _):
        rows = await Store(pool).stacks()
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
                    output.styled_state(row["state"]),
                    output.styled_grade(row["grade"]),
                    output.number((row["metrics"] or {}).get("fwhm_arcsec")),
                    output.number((row["metrics"] or {}).get("limiting_mag")),
                    row["stack_id"],
                )
                for row in rows
            ),
        )
    )
