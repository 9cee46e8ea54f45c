"""`spica up`, `spica demo`, `spica real`: the platform on this machine, and whole nights through it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spica_console import exits
from spica_console.output import JsonOption

HomeOption = Annotated[
    Path | None,
    typer.Option(help="Folder of servers, data and state (default: SPICA_HOME or ./var).", file_okay=False),
]


def up(home: HomeOption = None, json: JsonOption = False) -> None:
    """Start NATS, PostgreSQL, all services and the console on this machine, and stop them on Ctrl-C.

    Servers named by SPICA_NATS_URL and SPICA_DATABASE_URL are used instead of own ones.
    """
    from spica_console import running

    exits.run(lambda: running.up(home, as_json=json))


def demo(
    home: HomeOption = None,
    timeout: Annotated[float, typer.Option(help="Longest time for the whole night, in seconds.")] = 900.0,
    json: JsonOption = False,
) -> None:
    """Simulate a night, send it through all stages, stack it, and compare the results with the truth.

    Leaves with 1 if positions are off by more than 50 mas or zero points by more than 0.02 mag.
    """
    from spica_console.demo import run_demo

    if not exits.run(lambda: run_demo(home, timeout_s=timeout, as_json=json)):
        raise typer.Exit(exits.FAILED)


def real(
    data: Annotated[Path, typer.Option(help="Folder of FITS files.", exists=True, file_okay=False)],
    reference: Annotated[
        Path | None, typer.Option(help="Reference catalogue of stars.", exists=True, dir_okay=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Home of this run; summary.json is written there.")] = Path(
        "var/real"
    ),
    timeout: Annotated[float, typer.Option(help="Longest time for the whole run, in seconds.")] = 1800.0,
    json: JsonOption = False,
) -> None:
    """Send a folder of real frames through all stages, stack them all, and write the figures down."""
    from spica_console.real import run_real

    if not exits.run(
        lambda: run_real(
            data.resolve(), reference and reference.resolve(), out.resolve(), timeout_s=timeout, as_json=json
        )
    ):
        raise typer.Exit(exits.FAILED)
