"""`spica measure`: measure and judge files as the quality service would, without any server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spica_console import exits
from spica_console.output import JsonOption

if TYPE_CHECKING:
    from rich.console import Console
    from spica_quality.jobs import Assessment

    from spica_console.measuring import Choices, Measured

_Policies = Annotated[
    Path | None,
    typer.Option(
        help="Folder of policies besides those that come along; default: the setting's.",
        exists=True,
        file_okay=False,
    ),
]
_Reference = Annotated[
    Path | None,
    typer.Option(
        help="Catalogue of stars that the WCS is compared with; default: the setting's.",
        exists=True,
        dir_okay=False,
    ),
]


def measure(
    files: Annotated[
        list[str],
        typer.Argument(
            help="FITS files; a folder stands for those in it and below it; patterns such as 'night/*p.fits.fz'."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the products: one folder per image in it.", file_okay=False)
    ] = Path("quality"),
    profiles: Annotated[
        Path | None,
        typer.Option(
            help="Folder of instrument profiles besides those that come along.", exists=True, file_okay=False
        ),
    ] = None,
    policies: _Policies = None,
    reference: _Reference = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Files at a time; as many as there are cores.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Measure and judge files: catalogue, maps, PSF, depth, grade, report. Needs no server; the files stay as they are.

    They are verified first; what is rejected is not measured. There is no run to compare with, and master flats and masks
    that headers name are not looked for. Leaves with 0 if all were measured, whatever their grade, 1 if any was not, 2 for
    wrong usage.
    """

    async def work() -> bool:
        from spica_console import measuring

        chosen = measuring.choices(policies, reference, profiles)
        return await _measure(files, out, chosen, jobs, json)

    if not exits.run(work):
        raise typer.Exit(exits.FAILED)


async def _measure(given: list[str], out: Path, chosen: Choices, jobs: int | None, as_json: bool) -> bool:
    import signal

    from spica_console import measuring, output, submitting, verifying

    files = measuring.without_products(verifying.chosen_files(given), out)
    measuring.prepared(out)
    # No task could be cancelled while threads wait for files: Ctrl-C ends the wait itself.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with submitting.file_bar("Verifying", len(files)) as bar:
        checked = verifying.verify_files(files, chosen.profiles, jobs, lambda _: bar.advance())
    signal.signal(signal.SIGINT, before)
    console = output.console()
    with submitting.file_bar("Measuring", len(files)) as bar:

        def told(one: Measured) -> None:
            bar.advance()
            if not as_json:
                _print(console, one)

        results = await measuring.measure_files(checked, chosen, out, jobs, told)
    if as_json:
        output.print_json([measuring.as_row(one) for one in results])
    elif len(results) > 1:
        _print_summary(console, results)
    return all(one.found is not None for one in results)


def _print(console: Console, one: Measured) -> None:
    from rich.markup import escape
    from spica_quality.science.policy.policies import DEFAULT

    from spica_console import output
    from spica_console.commands import verify

    name = escape(str(one.checked.file))
    if one.failure is not None:
        console.print(f"[bold red]failed[/]  [bold]{name}[/]  [dim]{one.seconds:.1f} s[/]")
        console.print(f"  {one.failure.code}: {escape(one.failure.message)}")
    elif one.found is None:
        verify.print_result(console, one.checked)
    else:
        found = one.found
        console.print(
            f"{output.styled_grade(found.grade)}  [bold]{name}[/]  {escape(_figures(found))}  [dim]{one.seconds:.1f} s[/]"
        )
        for reason in found.reasons:
            console.print(f"   [yellow]{reason.code}[/]: {escape(reason.message)}")
        for verdict in found.verdicts:
            name, _, _ = verdict.policy.partition("@")
            if name != DEFAULT:
                why = escape(_in_short([reason.message for reason in verdict.reasons]))
                console.print(f"   {name} {output.styled_grade(verdict.grade)}{why}")
        for note in found.notes:
            console.print(f"   [dim]{escape(note)}[/]")
        if found.report is not None:
            console.print(f"   {escape(str(one.out / found.report.path))}")


def _in_short(messages: list[str]) -> str:
    """The gravest, and how many more there are."""
    more = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
    return f": {messages[0]}{more}" if messages else ""


def _figures(found: Assessment) -> str:
    from spica_console import output

    figures = found.figures
    depth = output.number(figures.get("limiting_mag"), 2, " mag")
    if not depth and figures.get("limiting_flux_adu") is not None:
        depth = f"{figures['limiting_flux_adu']:.4g} adu"
    size = output.number(figures.get("fwhm_arcsec"), 2, "\N{DOUBLE PRIME}") or output.number(
        figures.get("fwhm_px"), 2, " px"
    )
    parts = [
        f"FWHM {size}" if size else "no FWHM",
        f"depth {depth}" if depth else "no depth",
        f"{figures.get('n_stars') or 0:,} stars",
        f"{figures.get('n_sources') or 0:,} sources",
        f"condition: {figures.get('condition')}",
    ]
    return ", ".join(parts)


def _print_summary(console: Console, results: list[Measured]) -> None:
    from collections import Counter

    from spica_console import output

    grades = Counter(one.found.grade for one in results if one.found is not None)
    told = ", ".join(f"{output.styled_grade(letter)} {grades[letter]}" for letter in "ABCD" if grades[letter])
    left = sum(one.found is None for one in results)
    console.print(
        f"[bold]{grades.total()} measured[/]{f' ({told})' if told else ''}, [bold]{left} could not be[/]"
    )
