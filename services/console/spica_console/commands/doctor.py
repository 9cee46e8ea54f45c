"""`spica doctor`: is everything there that Spica stands on, and if not, what to do."""

from __future__ import annotations

import typer

from spica_console import exits
from spica_console.output import JsonOption


def doctor(json: JsonOption = False) -> None:
    """Check everything Spica stands on; each fault comes with what to do about it.

    Leaves with 3 if a server cannot be reached, with 1 if anything else is wrong.
    """
    from spica_console import output
    from spica_console.checks import check_all

    findings = exits.run(check_all)
    if json:
        output.print_json([finding.__dict__ for finding in findings])
    else:
        console = output.console()
        marks = {
            "ok": "[green]ok  [/]",
            "hint": "[yellow]hint[/]",
            "bad": "[red]bad [/]",
            "away": "[red]away[/]",
        }
        for finding in findings:
            console.print(f"{marks[finding.state]} {finding.what:<20} {finding.found}")
            if finding.todo:
                console.print(f"     {'':<20} [yellow]{finding.todo}[/]")
    states = {finding.state for finding in findings}
    if "away" in states:
        raise typer.Exit(exits.UNREACHABLE)
    if "bad" in states:
        raise typer.Exit(exits.FAILED)
