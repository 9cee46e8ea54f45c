"""`spica verify`: look at files as ingest would, without any server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spica_console import exits
from spica_console.output import JsonOption

if TYPE_CHECKING:
    from rich.console import Console

    from spica_console.verifying import Result


def verify(
    files: Annotated[
        list[str],
        typer.Argument(
            help="FITS files; a folder stands for those in it and below it; patterns such as 'night/*p.fits.fz'."
        ),
    ],
    profiles: Annotated[
        Path | None,
        typer.Option(
            help="Folder of instrument profiles besides those that come along.", exists=True, file_okay=False
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Files at a time; as many as there are cores.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Verify files: structure, checksums, every tile, keywords, WCS, times. Needs no server, changes nothing.

    Leaves with 0 if all are usable exposures, 1 if any is not, 2 for wrong usage.
    """
    accepted = exits.run(lambda: _verify(files, profiles, jobs, json))
    if not accepted:
        raise typer.Exit(exits.FAILED)


async def _verify(given: list[str], profiles: Path | None, jobs: int | None, as_json: bool) -> bool:
    import signal

    from spica_console import output, submitting, verifying

    # No task could be cancelled while threads wait for files: Ctrl-C ends the wait itself.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    files = verifying.chosen_files(given)
    verifying.check_profiles(profiles)
    with submitting.file_bar("Verifying", len(files)) as bar:
        results = verifying.verify_files(files, profiles, jobs, lambda _: bar.advance())
    if as_json:
        output.print_json([verifying.as_row(result) for result in results])
    else:
        console = output.console()
        for result in results:
            print_result(console, result)
        if len(results) > 1:
            _print_summary(console, results)
    return all(result.accepted for result in results)


def print_result(console: Console, result: Result) -> None:
    """Say what was found of one file."""
    from rich.markup import escape

    from spica_console import output, verifying

    verdict = result.verified.verdict
    exposure = verdict.exposure
    name = escape(str(result.file))
    if exposure is None:
        console.print(f"[bold red]rejected[/]  [bold]{name}[/]  [dim]{result.seconds:.2f} s[/]")
    else:
        facts = (
            f"{exposure.profile}, {len(exposure.ccds)} CCD(s), {exposure.filter}, {exposure.exposure_time_s:g} s, "
            f"run {exposure.run}, RA {exposure.geometry.ra_deg:.4f}\N{DEGREE SIGN} "
            f"Dec {exposure.geometry.dec_deg:+.4f}\N{DEGREE SIGN}, WCS: {exposure.geometry.wcs}"
        )
        console.print(f"[bold green]good[/]      [bold]{name}[/]  [dim]{result.seconds:.2f} s[/]")
        console.print(f"  {escape(facts)}")
    rows = [
        (
            f"[red]{told.finding.code}[/]" if weight == "reason" else f"[yellow]{told.finding.code}[/]",
            weight,
            told.where,
            escape(told.finding.keyword or ""),
            escape(told.finding.found or ""),
            escape(told.finding.expected or ""),
            escape(told.finding.message),
        )
        for weight, findings in (("reason", verdict.reasons), ("noted", verdict.repairs))
        for told in verifying.together(findings)
    ]
    if rows:
        columns = ("code", "weight", "HDU", "keyword", "found", "expected", "what it is")
        console.print(output.table("", columns, rows))


def _print_summary(console: Console, results: list[Result]) -> None:
    from collections import Counter

    from spica_console import output

    counts = Counter(
        code
        for result in results
        if not result.accepted
        for code in {reason.code for reason in result.verified.verdict.reasons}
    )
    if counts:
        console.print(output.table("Why files were rejected", ("code", "files"), counts.most_common()))
    rejected = sum(not result.accepted for result in results)
    console.print(f"[bold]{len(results) - rejected} good, {rejected} rejected[/]")
