"""`spica policy`: what images are good for, by which rules, and what other rules would change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from spica_console import exits
from spica_console.output import JsonOption

if TYPE_CHECKING:
    from spica_quality.science.policy.policies import CcdRule, Rule

app = typer.Typer(
    no_args_is_help=True,
    help="Policies: what images are good for, by which rules, and what others would change.",
)

_WHICH = "Which images"

_PolicyName = Annotated[str, typer.Argument(help="Name of the policy.")]
_PolicyOption = Annotated[str, typer.Option("--policy", help="Name of the policy.")]
_Filter = Annotated[
    str | None,
    typer.Option(help="Filter, by its full name or up to its dot: r.MP9601, r.", rich_help_panel=_WHICH),
]
_Run = Annotated[str | None, typer.Option(help="Run that they are filed under.", rich_help_panel=_WHICH)]
_Object = Annotated[str | None, typer.Option(help="Object, as the header names it.", rich_help_panel=_WHICH)]
_Instrument = Annotated[str | None, typer.Option(help="Instrument, or its profile.", rich_help_panel=_WHICH)]
_Batch = Annotated[str | None, typer.Option(help="Batch that they came in.", rich_help_panel=_WHICH)]


@app.command("list", epilog=exits.EPILOG)
def list_policies(json: JsonOption = False) -> None:
    """List all policies: what each is for, its file, and how many images are at each grade by it."""
    exits.run(lambda: _list(json))


async def _list(as_json: bool) -> None:
    from spica_console import judging, output
    from spica_console.connecting import reach_store

    async with reach_store() as (pool, _):
        rows = await judging.list_policies(pool)
    if as_json:
        output.print_json(rows)
        return
    columns = ("policy", "version", "use", "A", "B", "C", "D", "file")
    output.console().print(
        output.table(
            "",
            columns,
            (
                (
                    row["name"],
                    row["version"],
                    row["use"],
                    *(row["images"][letter] for letter in "ABCD"),
                    "[dim]comes along[/]" if row["shipped"] else row["file"],
                )
                for row in rows
            ),
        )
    )
    for row in rows:
        if row["by_other_versions"]:
            output.console().print(
                f"{row['by_other_versions']} image(s) were judged by another version of {row['name']}: "
                f"`spica policy apply {row['name']}` judges them again, without measuring."
            )


@app.command("show", epilog=exits.EPILOG)
def show(name: _PolicyName, json: JsonOption = False) -> None:
    """Show the rules of a policy. Needs no server."""
    exits.run(lambda: _show(name, json))


async def _show(name: str, as_json: bool) -> None:
    from spica_console import judging, output

    file = judging.chosen(judging.files_of_policies(), name)
    policy = file.policy
    if as_json:
        output.print_json({**policy.model_dump(mode="json", exclude_none=True), "file": str(file.path)})
        return
    console = output.console()
    console.print(f"[bold]{policy.tag}[/]  {policy.purpose}  [dim]{file.path}[/]")
    if policy.description:
        console.print(f"  {policy.description}", markup=False)
    columns = ("rule", "A", "B", "C", "beside the run", "not measured")
    parts = [("Rules", policy.rules), ("For stacks", policy.stack)]
    parts += [(f"For {profile}", own.rules) for profile, own in policy.profiles.items()]
    for title, rules in parts:
        if rules:
            console.print(output.table(title, columns, (_rule_row(key, rule) for key, rule in rules.items())))
    ccds = policy.ccds
    if ccds.rules or ccds.conditions:
        console.print("[bold]CCDs that are not used[/]")
        for line in (*ccds.conditions, *(_ccd_rule(key, rule) for key, rule in ccds.rules.items())):
            console.print(f"  {line}")
        if ccds.most_out:
            shares = ", ".join(
                f"{letter} {share:g}" for letter, share in zip("ABC", ccds.most_out, strict=True)
            )
            console.print(f"  share that may be out: {shares}")
    for condition, told in policy.conditions.items():
        console.print(f"  {condition}: {output.styled_grade(told.grade)} {told.says or ''}")


def _rule_row(name: str, rule: Rule) -> tuple[str, ...]:
    if rule.off:
        return name, "off", "", "", "", ""
    about = f"{name} = {rule.figure_of(name)}" if rule.figure else name
    about += f" / {rule.over}" if rule.over else ""
    signs = {"most": "≤ ", "least": "≥ ", "within": "± ", "arcsec": "≤ ", "pixels": "≤ "}
    units = {"arcsec": "″", "pixels": " px"}
    limits = [
        ", ".join(
            f"{sign}{bounds[at]:g}{units.get(key, '')}"
            for key, sign in signs.items()
            if (bounds := getattr(rule, key))
        )
        for at in range(3)
    ]
    run = ""
    if rule.run is not None:
        run = ", ".join(
            f"{side} {'/'.join(f'{limit:g}' for limit in bounds)} σ"
            for side, bounds in (("above", rule.run.above), ("below", rule.run.below))
            if bounds
        )
    return about, *limits, run, rule.unmeasured


def _ccd_rule(name: str, rule: CcdRule) -> str:
    figure = rule.figure_of(name)
    if rule.off:
        return f"{name}: off"
    said = {
        "most": f"{figure} > {{:g}}",
        "least": f"{figure} < {{:g}}",
        "most_times": f"{figure} > {{:g}} × the median of the CCDs",
        "least_times": f"{figure} < {{:g}} × the median of the CCDs",
    }
    parts = [text.format(limit) for key, text in said.items() if (limit := getattr(rule, key)) is not None]
    return " or ".join([*parts, *([f"{figure} not measured"] if rule.unmeasured == "out" else [])])


@app.command("explain", epilog=exits.EPILOG)
def explain(
    image: Annotated[str, typer.Argument(help="Image or stack: id, beginning of an id, or name.")],
    policy: _PolicyOption = "default",
    json: JsonOption = False,
) -> None:
    """Explain what a policy says of an image or a stack: each rule, what was found, what is asked, and the letter.

    It is judged as the policy stands now, against the other images of its run that are measured now.
    """
    exits.run(lambda: _explain(image, policy, json))


async def _explain(text: str, policy: str, as_json: bool) -> None:
    from spica_imaging.profiles import load_profiles
    from spica_runtime.endpoints import connected_settings

    from spica_console import judging, output, policy_tables
    from spica_console.connecting import reach_store

    file = judging.chosen(judging.files_of_policies(), policy)
    settings = connected_settings()
    async with reach_store(settings) as (pool, _):
        told = await judging.explain(pool, text, file.policy, load_profiles(settings.profiles))
    if as_json:
        output.print_json(told)
    else:
        policy_tables.print_explained(told)


@app.command("what-if", epilog=exits.EPILOG)
def what_if(
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            help="A limit to try: fwhm_max=1.2, n_stars_min=100, ellipticity=0.05,0.1,0.15. Repeatable.",
        ),
    ],
    policy: _PolicyOption = "default",
    grade: Annotated[str, typer.Option(help="Grades that are used, as in stack requests.")] = "A,B,C",
    filter: _Filter = None,
    run: _Run = None,
    object: _Object = None,
    instrument: _Instrument = None,
    batch: _Batch = None,
    json: JsonOption = False,
) -> None:
    """Try other limits: how many images stay, and how deep and sharp they are together. Changes nothing."""
    letters = [letter.strip() for letter in grade.split(",")]
    if not set(letters) <= set("ABCD"):
        exits.leave(exits.USAGE, f"{grade!r} are no grades: say some of A,B,C,D.")
    which = {"filter": filter, "run": run, "object": object, "instrument": instrument, "batch": batch}
    exits.run(lambda: _what_if(settings, policy, letters, which, json))


async def _what_if(
    texts: list[str], policy: str, letters: list[str], which: dict[str, str | None], as_json: bool
) -> None:
    from spica_imaging.profiles import load_profiles
    from spica_runtime.endpoints import connected_settings

    from spica_console import judging, output, policy_tables, whatif
    from spica_console.connecting import reach_store

    file = judging.chosen(judging.files_of_policies(), policy)
    settings = [whatif.read_setting(text, file.policy) for text in texts]
    changed = whatif.with_settings(file.policy, settings)
    platform = connected_settings()
    profiles = load_profiles(platform.profiles)
    images = []
    async with reach_store(platform) as (pool, _):
        wanted = judging.Images(**which)
        samples = await judging.run_samples(pool, wanted, [file.policy, changed], profiles)
        async for row in judging.measured(pool, wanted, profiles):
            if row["figures"]:
                verdicts = (
                    judging.judge_row(row, file.policy, samples),
                    judging.judge_row(row, changed, samples),
                )
                figures = [setting.figure for setting in settings]
                images.append(whatif.image_of(row, verdicts, letters, figures))
    if as_json:
        output.print_json(policy_tables.what_if_json(images, settings, file.policy.tag))
    else:
        policy_tables.print_what_if(images, settings, file.policy.tag)


@app.command("apply", epilog=exits.EPILOG)
def apply(
    name: Annotated[str | None, typer.Argument(help="Name of the policy; default: all of them.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    filter: _Filter = None,
    run: _Run = None,
    object: _Object = None,
    instrument: _Instrument = None,
    batch: _Batch = None,
    json: JsonOption = False,
) -> None:
    """Judge measured images again, by policies as they are now and runs as they are measured now. Nothing is measured.

    Each image of which a policy says something else gets a new verdict and one more image.graded; twice is once.
    An image that a person graded keeps that grade.
    """
    which = {"filter": filter, "run": run, "object": object, "instrument": instrument, "batch": batch}
    exits.run(lambda: _apply(name, which, dry_run, json))


async def _apply(name: str | None, which: dict[str, str | None], dry_run: bool, as_json: bool) -> None:
    from dataclasses import asdict

    from spica_imaging.profiles import load_profiles
    from spica_runtime.endpoints import connected_settings

    from spica_console import judging, output, policy_tables, rejudging
    from spica_console.connecting import reach_store

    files = judging.files_of_policies()
    names = [judging.chosen(files, name).policy.name] if name else list(files)
    platform = connected_settings()
    tally = rejudging.Tally()
    async with reach_store(platform) as (pool, _):
        changes = [
            change
            async for change in rejudging.judge_again(
                pool,
                judging.Images(**which),
                judging.policies_of(files),
                names,
                load_profiles(platform.profiles),
                tally,
                dry_run=dry_run,
            )
        ]
    if as_json:
        output.print_json(
            {
                "policies": names,
                "dry_run": dry_run,
                **asdict(tally),
                "changes": [asdict(change) for change in changes],
            }
        )
    else:
        policy_tables.print_applied(changes, tally, dry_run)
