"""`spica status`: who is alive, what waits, how much was done."""

from __future__ import annotations

from typing import Any

import typer

from spica_console import exits
from spica_console.output import JsonOption


def status(json: JsonOption = False) -> None:
    """Show which services are alive, what waits for them, and how many images and stacks stand where.

    Leaves with 1 if a service that Spica needs is missing.
    """
    missing = exits.run(lambda: _status(json))
    if missing:
        raise typer.Exit(exits.FAILED)


async def _status(as_json: bool) -> list[str]:
    from spica_console import output
    from spica_console.connecting import reach
    from spica_console.overview import overview
    from spica_console.store import Store

    async with reach() as spica:
        view = await overview(spica.bus, Store(spica.pool), spica.data)
    if as_json:
        output.print_json(view)
    else:
        _print(view)
    missing: list[str] = view["missing_services"]
    return missing


def _print(view: dict[str, Any]) -> None:
    from spica_console import output

    console = output.console()
    console.print(
        output.table(
            "Services",
            ("service", "version", "host", "pid", "health"),
            [
                *(
                    (row["service"], row["version"], row["host"], row["pid"], row["health_url"])
                    for row in view["services"]
                ),
                *((f"[red]{name}[/]", "[red]not there[/]", "", "", "") for name in view["missing_services"]),
            ],
        )
    )
    console.print(
        output.table(
            "Backlog",
            ("service", "hears", "waiting", "in work"),
            ((row["service"], row["subject"], row["waiting"], row["in_work"]) for row in view["backlog"]),
        )
    )
    counts = view["counts"]
    grades = ", ".join(f"{grade} {number}" for grade, number in counts["grades"].items())
    stacks = ", ".join(f"{state} {number}" for state, number in counts["stack_states"].items())
    console.print(
        f"[bold]Images[/]   {counts['images']} verified, {counts['rejected']} rejected, "
        f"{counts['graded']} graded{f' ({grades})' if grades else ''}, {counts['calibrated']} calibrated"
    )
    console.print(f"[bold]Stacks[/]   {counts['stacks']}{f' ({stacks})' if stacks else ''}")
    console.print(
        f"[bold]Events[/]   {view['stream']['events']} kept, {counts['outbox_unsent']} to be published"
    )
    console.print(f"[bold]Data[/]     {view['data']['root']}, {view['data']['free_bytes'] / 1e9:.1f} GB free")
    if counts["dead_letters"]:
        console.print(f"[red]{counts['dead_letters']} dead letter(s) wait[/]: spica dead-letters list")
