"""`spica images`: images by place, time and rules."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from spica_console import exits
from spica_console.output import JsonOption


def images(
    near: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="RA DEC", help="Images that cover this place: degrees, or 13:37:00 +38:22:00 (ICRS)."
        ),
    ] = None,
    radius: Annotated[
        str | None, typer.Option(help="With --near: images that come within so many degrees of it.")
    ] = None,
    box: Annotated[
        tuple[str, str, str, str] | None,
        typer.Option(
            metavar="RA1 RA2 DEC1 DEC2",
            help="Images that touch the sky from RA1 eastward to RA2, DEC1 to DEC2, in degrees.",
        ),
    ] = None,
    polygon: Annotated[
        str | None,
        typer.Option(metavar='"RA DEC RA DEC …"', help="Images that touch a polygon of great circles."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Exposures that began then or later: date, date and time (UTC), or MJD."),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Exposures that began before then.")] = None,
    filter: Annotated[str | None, typer.Option(help="Filter, by its full name.")] = None,
    run: Annotated[str | None, typer.Option(help="Run that they are filed under.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the image.")] = None,
    seeing_max: Annotated[
        str | None, typer.Option(help="Seeing at most, arcsec, as the header estimates it.")
    ] = None,
    airmass_max: Annotated[str | None, typer.Option(help="Airmass at most.")] = None,
    all_versions: Annotated[
        bool,
        typer.Option("--all-versions", help="Also images that a later version of their file superseded."),
    ] = False,
    limit: Annotated[str | None, typer.Option(help="So many at most, the newest (default 100).")] = None,
    json: JsonOption = False,
) -> None:
    """Find images by place, time and rules, the newest first.

    A place is looked up in the real footprints of the CCDs; images of which only the pointing is known are marked `rough`.
    A value that is not known fulfils no rule.
    """
    given = {
        "near": " ".join(near) if near else None,
        "radius": radius,
        "box": " ".join(box) if box else None,
        "polygon": polygon,
        "since": since,
        "until": until,
        "filter": filter,
        "run": run,
        "name": name,
        "seeing_max": seeing_max,
        "airmass_max": airmass_max,
        "all_versions": "true" if all_versions else None,
        "limit": limit,
    }
    exits.run(lambda: _images({key: text for key, text in given.items() if text is not None}, json))


async def _images(options: dict[str, str], as_json: bool) -> None:
    from spica_imaging.profiles import load_profiles
    from spica_runtime.endpoints import connected_settings

    from spica_console import output
    from spica_console.connecting import reach_store
    from spica_console.searching import search, search_from

    wanted = search_from(options)
    settings = connected_settings()
    async with reach_store(settings) as (pool, _):
        found = await search(pool, wanted, load_profiles(settings.profiles))
    if as_json:
        output.print_json(found)
    else:
        _print(found, wanted.limit, with_match=wanted.shape is not None)


def _print(found: list[dict[str, Any]], limit: int, *, with_match: bool) -> None:
    from spica_console import output

    console = output.console()
    if not found:
        console.print("No image fits.")
        return
    columns = [
        "image",
        "began (UTC)",
        "filter",
        "run",
        "object",
        "s",
        "airmass",
        "seeing ″",
        "FWHM ″",
        "grade",
    ]
    rows = [_row(row) for row in found]
    if with_match:
        columns.append("place")
        rows = [[*cells, row["match"]] for cells, row in zip(rows, found, strict=True)]
    console.print(output.table("", columns, rows))
    more = f"; there may be more (--limit, now {limit})" if len(found) >= limit else ""
    console.print(f"{len(found)} image(s){more}.")


def _row(row: dict[str, Any]) -> list[Any]:
    from spica_console import output

    mark = " [yellow]superseded[/]" if row["superseded_by"] else ""
    return [
        f"{row['name']}{mark}",
        output.moment(row["mjd_obs"]),
        row["filter"],
        row["run"],
        row["object"],
        f"{row['exposure_time_s']:g}",
        output.number(row["airmass"], 3),
        output.number(row["seeing_arcsec"]),
        output.number(row["fwhm_arcsec"]),
        output.styled_grade(row["grade"]),
    ]
