"""The `spica` command: which word calls which module. Kept light, so that every command starts at once."""

from __future__ import annotations

from typing import Annotated

import typer

from spica_console import exits
from spica_console.commands import (
    calib,
    dead_letters,
    doctor,
    grade,
    images,
    lineage,
    measure,
    migrate,
    night,
    nodes,
    pixel,
    policy,
    selection,
    settings,
    show,
    stack,
    status,
    submit,
    survey,
    tag,
    tail,
    verify,
    warm,
    watch,
)

app = typer.Typer(
    name="spica",
    help="Turns newly arrived telescope images into graded, calibrated, stacked and delivered products.",
    epilog=exits.EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_RUN = "Run"
_WORK = "Work"
_LOOK = "Look"
_KEEP = "Keep in order"

app.command("up", rich_help_panel=_RUN, epilog=exits.EPILOG)(night.up)
app.command("demo", rich_help_panel=_RUN, epilog=exits.EPILOG)(night.demo)
app.command("real", rich_help_panel=_RUN, epilog=exits.EPILOG)(night.real)
app.command("submit", rich_help_panel=_WORK, epilog=exits.EPILOG)(submit.submit)
app.add_typer(watch.app, name="watch", rich_help_panel=_WORK)
app.command("verify", rich_help_panel=_WORK, epilog=exits.EPILOG)(verify.verify)
app.command("measure", rich_help_panel=_WORK, epilog=exits.EPILOG)(measure.measure)
app.add_typer(stack.app, name="stack", rich_help_panel=_WORK)
app.add_typer(survey.app, name="survey", rich_help_panel=_WORK)
app.add_typer(selection.app, name="selection", rich_help_panel=_WORK)
app.add_typer(tag.app, name="tag", rich_help_panel=_WORK)
app.command("grade", rich_help_panel=_WORK, epilog=exits.EPILOG)(grade.grade)
app.add_typer(policy.app, name="policy", rich_help_panel=_WORK)
app.add_typer(calib.app, name="calib", rich_help_panel=_WORK)
app.command("place", rich_help_panel=_KEEP, epilog=exits.EPILOG)(nodes.place)
app.command("nodes", rich_help_panel=_LOOK, epilog=exits.EPILOG)(nodes.nodes)
app.command("tail", rich_help_panel=_LOOK, epilog=exits.EPILOG)(tail.tail)
app.command("status", rich_help_panel=_LOOK, epilog=exits.EPILOG)(status.status)
app.command("images", rich_help_panel=_LOOK, epilog=exits.EPILOG)(images.images)
app.command(
    "pixel",
    rich_help_panel=_LOOK,
    epilog=exits.EPILOG,
    context_settings={"ignore_unknown_options": True},  # -52:30:00 is a place
)(pixel.pixel)
app.command("show", rich_help_panel=_LOOK, epilog=exits.EPILOG)(show.show)
app.command("lineage", rich_help_panel=_LOOK, epilog=exits.EPILOG)(lineage.lineage)
app.add_typer(dead_letters.app, name="dead-letters", rich_help_panel=_KEEP)
app.command("doctor", rich_help_panel=_KEEP, epilog=exits.EPILOG)(doctor.doctor)
app.command("migrate", rich_help_panel=_KEEP, epilog=exits.EPILOG)(migrate.migrate)
app.command("warm", rich_help_panel=_KEEP, epilog=exits.EPILOG)(warm.warm)
app.command("settings", rich_help_panel=_KEEP, epilog=exits.EPILOG)(settings.settings)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"spica {version('spica')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Turn newly arrived telescope images into graded, calibrated, stacked and delivered products."""


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
