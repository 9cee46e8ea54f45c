"""The tables at the end of `spica demo` and `spica real`."""

from __future__ import annotations

from typing import Any

from spica_console import output
from spica_console.output import number


def print_demo(verdict: dict[str, Any]) -> None:
    """Print what became of the simulated night, and how it compares with the truth."""
    console = output.console()
    console.print(
        output.table(
            "Images",
            (
                "file",
                "filter",
                "state",
                "grade",
                "FWHM ″ (true)",
                "rms mas",
                "off mas",
                "zero point",
                "off mag",
            ),
            (_image(row) for row in verdict["images"]),
        )
    )
    for row in verdict["images"]:
        if row["reasons"]:
            console.print(f"  {row['file']} {output.styled_state(row['state'])}: {_why(row)}")
    console.print()
    print_stacks(verdict["stacks"])
    console.print(
        f"{verdict['arrived']} arrived, {verdict['verified']} verified, {verdict['rejected']} rejected, "
        f"{verdict['calibrated']} calibrated, {sum(row['state'] == 'exported' for row in verdict['stacks'])} "
        "stack(s) exported."
    )
    if verdict["agrees"]:
        console.print("[bold green]Positions and zero points agree with the truth.[/]")
    for fault in verdict["faults"]:
        console.print(f"[bold red]wrong[/] {fault}")


def _image(row: dict[str, Any]) -> tuple[Any, ...]:
    rms = row["rms_ra_mas"]
    zero = row["zeropoint_mag"]
    return (
        row["file"],
        row["filter"],
        output.styled_state(row["state"]),
        output.styled_grade(row["grade"]),
        f"{number(row['fwhm_arcsec'])} ({number(row['true_fwhm_arcsec'])})" if row["fwhm_arcsec"] else "",
        f"{number(rms, 1)}·{number(row['rms_dec_mas'], 1)}" if rms is not None else "",
        number(row["position_error_mas"], 1),
        number(zero, 3),
        f"{row['zeropoint_error_mag']:+.3f}" if zero is not None else "",
    )


def _why(row: dict[str, Any]) -> str:
    from rich.markup import escape

    grade = f"grade {row['grade']}: " if row["grade"] else ""
    return grade + escape(output.reasons_line(row["reasons"]))


def print_stacks(stacks: list[dict[str, Any]]) -> None:
    """Print stacks, and where their files are."""
    console = output.console()
    console.print(
        output.table(
            "Stacks",
            ("stack", "state", "images", "grade", "seeing ″", "ellipticity", "depth mag (5σ)"),
            (
                (
                    row["name"],
                    output.styled_state(row["state"]),
                    row["n_exposures"],
                    output.styled_grade(row["grade"]),
                    number(row["fwhm_arcsec"]),
                    number(row["ellipticity"], 3),
                    number(row["limiting_mag"]),
                )
                for row in stacks
            ),
        )
    )
    for row in stacks:
        for kind, path in row["files"].items():
            console.print(f"  {row['name']}  {kind:<10} {path}")
    console.print()


def print_real(summary: dict[str, Any]) -> None:
    """Print the figures of a run on real frames."""
    console = output.console()
    grades = ", ".join(f"{grade} {count}" for grade, count in summary["grades"].items())
    rows = [
        ("arrived", summary["arrived"]),
        ("verified", summary["verified"]),
        ("rejected", summary["rejected"]),
        ("graded", f"{summary['graded']}  ({grades})"),
        ("calibrated", summary["calibrated"]),
        ("residual RA, median", f"{number(summary['residual_ra_arcsec'], 3)}″"),
        ("residual Dec, median", f"{number(summary['residual_dec_arcsec'], 3)}″"),
        ("FWHM of inputs, median", f"{number(summary['input_fwhm_px'])} px"),
        ("FWHM of the stack", f"{number(summary['stack_fwhm_px'])} px"),
        ("ellipticity of inputs, median", number(summary["input_ellipticity"], 3)),
        ("ellipticity of the stack", number(summary["stack_ellipticity"], 3)),
        ("exposures in the stack", summary["stack_exposures"]),
    ]
    console.print(output.table("", ("figure", "value"), ((name, str(value)) for name, value in rows)))
    for row in summary["not_calibrated"]:
        console.print(f"[yellow]{row['state']}[/] {row['file']}: {output.reasons_line(row['reasons'])}")
    print_stacks(summary["stacks"])
