"""What a request would take and leave, and what the stack would be like: for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from spica_stack.science.selection import left_out_by

from spica_console import coverage_view, output

if TYPE_CHECKING:
    from spica_stack.dryrun import DryRun

_EXAMPLES = 3
_MOST_ADVICE = 4


def print_plan(told: DryRun, *, full: bool) -> None:
    """Print a dry run: by rule, or with every candidate."""
    console = output.console()
    choice = told.choice
    what = escape(told.name or choice.request.name or "this request")
    taken, of = len(choice.members), len(choice.verdicts)
    console.print(f"[bold]{what}[/]: {taken} of {of} candidate images would be taken.")
    if told.problem is not None:
        words = f"({told.problem.code}): {told.problem.message}"
        console.print(f"[red]No stack would be made[/] {escape(words)}")
    if full:
        _print_all(told)
    else:
        _print_by_rule(told)
    # Where there is a problem, its sentence says this already.
    if told.advice and told.problem is None:
        words = "; ".join(one.words for one in told.advice[:_MOST_ADVICE])
        console.print(f"Of those that one rule alone left out: {escape(words)}.")
    _print_prediction(told)


def _print_by_rule(told: DryRun) -> None:
    counts = left_out_by(told.choice.verdicts)
    if not counts:
        return
    rows = []
    for rule, count in counts.items():
        own = [verdict for verdict in told.choice.verdicts if verdict.rule == rule][:_EXAMPLES]
        examples = "; ".join(f"{verdict.candidate.name}: {verdict.found}" for verdict in own)
        rows.append((escape(rule), count, escape(examples + (" …" if count > len(own) else ""))))
    output.console().print(output.table("", ("left out by", "images", "such as"), rows))


def _print_all(told: DryRun) -> None:
    rows = [
        (
            "[green]taken[/]" if verdict.selected else "left",
            escape(verdict.candidate.name),
            output.moment(verdict.candidate.mjd_obs),
            escape(verdict.candidate.filter),
            output.styled_grade(verdict.candidate.grade),
            output.number(verdict.candidate.fwhm_arcsec),
            output.number(verdict.candidate.limiting_mag),
            "" if verdict.selected else escape(verdict.rule),
            escape(verdict.found or ""),
        )
        for verdict in told.choice.verdicts
    ]
    columns = ("", "image", "began (UTC)", "filter", "grade", "FWHM ″", "depth", "rule", "found")
    output.console().print(output.table("", columns, rows))


def _print_prediction(told: DryRun) -> None:
    predicted, laid = told.prediction, told.laid
    if predicted is None or laid is None:
        return
    console, grid = output.console(), laid.grid
    request = told.choice.request
    unknown = f" (without {predicted.n_depth_unknown} of unknown depth)" if predicted.n_depth_unknown else ""
    depth = (
        f"{predicted.depth_mag:.2f} mag over most of it, {predicted.deepest_mag:.2f} at the deepest{unknown}"
        if predicted.depth_mag is not None and predicted.deepest_mag is not None
        else "cannot be told"
    )
    seeing = f"{predicted.fwhm_arcsec:.2f}″" if predicted.fwhm_arcsec is not None else "cannot be told"
    size = (grid.width * grid.scale_arcsec / 3600.0, grid.height * grid.scale_arcsec / 3600.0)
    console.print(f"  depth     {depth} (AB, 5 σ, point source)")
    console.print(f"  seeing    {seeing} as {request.combine} weights it")
    console.print(f"  exposure  {predicted.exposure_time_s:,.0f} s in all")
    console.print(
        f"  grid      {grid.width} x {grid.height} px of {grid.scale_arcsec:g}″ ({size[0]:.3f} x {size[1]:.3f} deg) "
        f"around {grid.ra_deg:.5f} {grid.dec_deg:+.5f}"
    )
    console.print(
        f"  coverage  {100 * predicted.covered:.0f} % of it; typically {predicted.exposures_median:g} exposures, "
        f"{predicted.exposures_most} at most"
    )
    if console.is_terminal and console.color_system is not None:
        console.print(coverage_view.small(predicted.coverage))
    else:
        console.print(coverage_view.small_plain(predicted.coverage), markup=False)
