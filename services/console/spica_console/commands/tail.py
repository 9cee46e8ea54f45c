"""`spica tail`: see events as they happen, or as they happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from spica_console import exits
from spica_console.output import JsonOption

if TYPE_CHECKING:
    from spica_console.tailing import Event


def tail(
    subjects: Annotated[
        list[str] | None, typer.Argument(help="Subjects, wildcards allowed: 'image.>' (default: all).")
    ] = None,
    json: JsonOption = False,
    since: Annotated[
        str | None, typer.Option(help="Begin earlier: 10m, 2h, an ISO time (UTC), or start.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=1, help="Leave after so many events.")
    ] = None,
    no_follow: Annotated[
        bool, typer.Option("--no-follow", help="Leave when the events there are have been shown.")
    ] = False,
) -> None:
    """Show events, from now on or from any time in the past, one line each.

    With --json each line is one object: subject, id, time, source, sequence, data.
    """
    exits.run(lambda: _tail(tuple(subjects or ()), json, since, count, follow=not no_follow))


async def _tail(
    subjects: tuple[str, ...], as_json: bool, since: str | None, count: int | None, *, follow: bool
) -> None:
    from datetime import UTC, datetime

    from spica_runtime.bus import connect_bus
    from spica_runtime.endpoints import connected_settings

    from spica_console import output, tailing
    from spica_console.connecting import clear_errors

    start = tailing.parse_since(since, datetime.now(UTC))
    console = output.console()
    settings = connected_settings()
    shown = 0
    async with connect_bus(settings, name="spica-tail") as bus, clear_errors(settings):
        async for event in tailing.events(bus, subjects, start, follow=follow):
            if as_json:
                output.print_json(event.as_dict(), indent=None)
            else:
                console.print(line(event))
            shown += 1
            if shown == count:
                return


def line(event: Event) -> str:
    """One event as one line of rich markup."""
    from rich.markup import escape

    from spica_console import output
    from spica_console.telling import gist

    stage = event.subject.split(".", 1)[-1]
    style = output.STATE_STYLE.get(stage, "magenta")
    time = event.time.astimezone().strftime("%H:%M:%S")
    who = event.source.rsplit("/", 1)[-1]
    return (
        f"[dim]{time}[/] [{style}]{event.subject:<17}[/] "
        f"{escape(gist(event.subject, event.data))} [dim]{escape(who)}[/]"
    )
