"""`spica pixel`: what every exposure gave to one pixel of a stack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spica_console import exits
from spica_console.output import JsonOption


def pixel(
    stack: Annotated[str, typer.Argument(help="Stack: id, beginning of an id, name, or its request's id.")],
    ra: Annotated[
        str | None, typer.Argument(help="Right ascension: degrees, or hours as 14:18:00.0.")
    ] = None,
    dec: Annotated[str | None, typer.Argument(help="Declination: degrees, or -52:30:00.")] = None,
    xy: Annotated[
        tuple[str, str] | None, typer.Option(help="FITS pixel of the stack instead: the first is 1 1.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw it into this file, .svg or .png.", dir_okay=False)
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show what every exposure gave to one pixel of a stack: value, weight, share, and what was clipped, by how many σ.

    The samples are made again from the inputs, by the code that made the stack, and held against what it has.
    """
    on_sky = ra is not None or dec is not None
    if (xy is not None) == on_sky or (on_sky and dec is None):
        exits.leave(exits.USAGE, "Say where: RA and DEC, or --xy X Y.")

    async def work() -> None:
        from spica_runtime.locating import Files
        from spica_runtime.nodes import open_node
        from spica_runtime.service import Platform

        from spica_console import output, pixel_view, pixels
        from spica_console.connecting import reach
        from spica_console.coverage_view import check_name
        from spica_console.settings import ConsoleSettings

        if plot is not None:
            check_name(plot)
        place = pixels.place_of(*xy, pixel=True) if xy else pixels.place_of(ra or "", dec or "")
        async with reach() as spica:
            node = await open_node(spica.settings, spica.data.root)
            files = Files(spica.data, spica.pool, node, spica.settings)
            platform = Platform(
                "console",
                spica.settings,
                ConsoleSettings(),
                spica.pool,
                spica.data,
                pixels.NO_WORKERS,
                spica.bus,
                node,
                files,
            )
            row = await pixels.look(pixels.platform_of(platform), stack, place)
        if plot is not None:
            pixel_view.write(row, plot)
        if json:
            output.print_json(row)
        else:
            pixel_view.print_pixel(row)

    exits.run(work)
