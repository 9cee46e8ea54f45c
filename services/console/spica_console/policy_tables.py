"""What `spica policy` prints of verdicts and of what other limits would change."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from spica_quality.science.metrics.figures import plain
from spica_quality.science.policy.policies import DEFAULT
from spica_quality.science.policy.wording import words_for

from spica_console import output, whatif
from spica_console.rejudging import Change, Tally
from spica_console.whatif import Image, Setting

_MOST_ROWS = 20

# ---- explain ----


def print_explained(told: dict[str, Any]) -> None:
    """What a policy says of an image or a stack, rule by rule."""
    console = output.console()
    console.print(
        f"[bold]{told['name']}[/]  {output.styled_grade(told['verdict'])} by {told['policy']}, for {told['use']}"
        f"  [dim]{told['id']}[/]"
    )
    for reason in told["reasons"]:
        console.print(f"  {reason}", markup=False)
    if told["rules"]:
        columns = ("rule", "found", "A", "B", "C", "this run", "z", "letter", "")
        console.print(output.table("", columns, (_explained_rule(rule) for rule in told["rules"])))
    if told["ccds_out"]:
        console.print(
            output.table(
                f"{len(told['ccds_out'])} of {told['n_ccds']} CCDs are not to be used"
                + (" (weight 0)" if told["policy"].startswith(f"{DEFAULT}@") else ""),
                ("CCD", "HDU", "why"),
                (
                    (
                        ccd["name"],
                        ccd["hdu"],
                        "; ".join(reason.removeprefix(f"{ccd['name']}: ") for reason in ccd["reasons"]),
                    )
                    for ccd in told["ccds_out"]
                ),
            )
        )
    recorded, grade = told["recorded"], told["grade"]
    if recorded is not None:
        same = recorded["policy"] == told["policy"] and recorded["grade"] == told["verdict"]
        again = "" if same else f"; `spica policy apply {recorded['name']}` would bring this up to date"
        console.print(f"On record: {output.styled_grade(recorded['grade'])} by {recorded['policy']}{again}.")
    if grade is not None:
        why = f": {escape(grade['comment'])}" if grade["comment"] else ""
        console.print(
            f"The grade that holds: {output.styled_grade(grade['grade'])} by {grade['graded_by']}{why}."
        )


def _explained_rule(rule: dict[str, Any]) -> tuple[Any, ...]:
    run, words = rule["run"], words_for(rule["figure"])
    return (
        rule["rule"] if rule["rule"] == rule["figure"] else f"{rule['rule']} ({rule['figure']})",
        rule["found"] or "–",
        *(rule["limits"].get(letter, "") for letter in "ABC"),
        f"{words.text(run['median'])} ± {words.text(run['sigma'])} ({run['n_images']})" if run else "",
        f"{rule['z']:+.1f}" if rule["z"] is not None else "",
        output.styled_grade(rule["letter"]) if rule["letter"] else "–",
        rule["note"],
    )


# ---- what-if ----


def what_if_json(images: list[Image], settings: list[Setting], policy: str) -> dict[str, Any]:
    """For programs: sums by filter, what leaves, what enters, and how the figures are spread."""

    def known(values: dict[str, Any]) -> dict[str, Any]:
        return {name: plain(value) for name, value in values.items()}

    groups = []
    for group in whatif.grouped(images):
        before, after, change = group.sums()
        groups.append(
            {
                "instrument": group.instrument,
                "filter": group.filter,
                "images": len(group.images),
                "before": known(asdict(before)),
                "after": known(asdict(after)),
                "depth_change_mag": plain(change),
            }
        )
    return {
        "policy": policy,
        "set": [asdict(setting) for setting in settings],
        "groups": groups,
        "leave": [_moved(image) for image in images if image.used == (True, False)],
        "enter": [_moved(image) for image in images if image.used == (False, True)],
        "histograms": {
            setting.figure: asdict(found)
            for setting in settings
            if (found := whatif.histogram((image.values[setting.figure] for image in images), setting.last))
        },
    }


def _moved(image: Image) -> dict[str, Any]:
    return {"name": image.name, "before": image.letters[0], "after": image.letters[1], "why": image.reason}


def print_what_if(images: list[Image], settings: list[Setting], policy: str) -> None:
    """Sums by filter before and after, how the figures are spread, what leaves and what enters."""
    console = output.console()
    said = ", ".join(setting.text() for setting in settings)
    if not images:
        console.print("No measured image fits.")
        return
    console.print(f"{policy} with {said}, beside {policy} as it is:", markup=False)

    def shown(value: float, style: str, unit: str = "") -> str:
        return format(value, style) + unit if math.isfinite(value) else "–"

    rows = []
    for group in whatif.grouped(images):
        before, after, change = group.sums()
        rows.append(
            (
                group.instrument,
                group.filter,
                len(group.images),
                f"{before.images} → {after.images}",
                f"{before.exposure_time_s:,.0f} → {after.exposure_time_s:,.0f}",
                f"{shown(before.depth_mag, '.2f')} → {shown(after.depth_mag, '.2f')}",
                shown(change, "+.2f"),
                f"{shown(before.fwhm_arcsec, '.2f')} → {shown(after.fwhm_arcsec, '.2f')}",
            )
        )
    columns = ("instrument", "filter", "images", "used", "exposure s", "depth 5σ mag", "change", "seeing ″")
    console.print(output.table("", columns, rows))
    for setting in settings:
        _print_histogram(console, setting, [image.values[setting.figure] for image in images])
    for title, moved in (
        ("Would leave", [image for image in images if image.used == (True, False)]),
        ("Would enter", [image for image in images if image.used == (False, True)]),
    ):
        if moved:
            console.print(
                output.table(
                    f"{title}: {len(moved)}",
                    ("image", "filter", "from", "to", "why"),
                    (
                        (i.name, i.filter, *map(output.styled_grade, i.letters), i.reason)
                        for i in moved[:_MOST_ROWS]
                    ),
                )
            )
            if len(moved) > _MOST_ROWS:
                console.print(f"… and {len(moved) - _MOST_ROWS} more (--json lists all).")


def _print_histogram(console: Console, setting: Setting, values: list[float]) -> None:
    found = whatif.histogram(values, setting.last)
    if found is None:
        console.print(f"{setting.text()}: no image has this figure.", markup=False)
        return
    low, high = f"{found.low:.4g} ", f" {found.high:.4g}"
    console.print(f"  {low}{found.bars()}{high}   {setting.text()}", markup=False)
    console.print(f"  {' ' * (len(low) + found.place(setting.last))}▲ {setting.last:g}", markup=False)


# ---- apply ----


def print_applied(changes: list[Change], tally: Tally, dry_run: bool) -> None:
    """What changed, and what did not and why."""
    console = output.console()
    counts = Counter((change.policy, change.before or "", change.after) for change in changes)
    if counts:
        rows = (
            (policy, output.styled_grade(before) or "–", output.styled_grade(after), images)
            for (policy, before, after), images in sorted(counts.items())
        )
        console.print(output.table("", ("policy", "from", "to", "images"), rows))
    # First verdicts are no surprise; what was judged otherwise before is told one by one.
    moved = [change for change in changes if change.before is not None]
    if moved:
        console.print(
            output.table(
                "",
                ("image", "policy", "from", "to", "why"),
                (
                    (
                        change.name,
                        change.policy,
                        output.styled_grade(change.before),
                        output.styled_grade(change.after),
                        "; ".join(change.reasons[:3]),
                    )
                    for change in moved[:_MOST_ROWS]
                ),
            )
        )
    if len(moved) > _MOST_ROWS:
        console.print(f"… and {len(moved) - _MOST_ROWS} more (--json lists all).")
    said = len({change.event_id for change in changes if change.event_id})
    by_people = len({change.image_id for change in changes if change.person})
    does = "would change" if dry_run else "changed"
    console.print(f"{tally.images} image(s) judged, {len(changes)} verdict(s) {does}, {said} event(s) said.")
    if by_people:
        console.print(f"{by_people} of them keep a person's grade.")
    weights = {
        c.image_id
        for c in changes
        if c.policy.startswith(f"{DEFAULT}@") and set(c.ccds_out) != set(c.ccds_out_before)
    }
    if weights:
        console.print(
            f"CCDs go in or out on {len(weights)} of them: their weight maps follow when they are measured again."
        )
    if tally.without_figures:
        console.print(
            f"{tally.without_figures} were measured before all figures were kept, and were left as they are."
        )
