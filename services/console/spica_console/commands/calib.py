"""`spica calib`: solutions of images, what runs taught of their instruments, and what newer solutions would change."""

from __future__ import annotations

from typing import Annotated

import typer

from spica_console import exits
from spica_console.output import JsonOption

app = typer.Typer(
    no_args_is_help=True,
    help="Calibration: solutions and their versions, what runs teach, and what newer solutions would change.",
)

_WHICH = "Which images"

_Context = Annotated[
    str | None,
    typer.Option(help="Instrument context, as `spica calib models` names it.", rich_help_panel=_WHICH),
]
_Run = Annotated[str | None, typer.Option(help="Run that they are filed under.", rich_help_panel=_WHICH)]
_Filter = Annotated[
    str | None,
    typer.Option(help="Filter, by its full name or up to its dot: r.MP9601, r.", rich_help_panel=_WHICH),
]
_Batch = Annotated[str | None, typer.Option(help="Batch that they came in.", rich_help_panel=_WHICH)]
_Stack = Annotated[str, typer.Argument(help="Stack: id, beginning of an id, name, or its request's id.")]


@app.command("list", epilog=exits.EPILOG)
def list_solutions(
    context: _Context = None,
    run: _Run = None,
    filter: _Filter = None,
    batch: _Batch = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="At most so many.")] = 50,
    json: JsonOption = False,
) -> None:
    """List the solution that counts of each image, newest first."""

    async def work() -> None:
        from spica_console import calib_tables, calibrating, output
        from spica_console.connecting import reach_store

        which = calibrating.Images(context=context, run=run, filter=filter, batch=batch)
        async with reach_store() as (pool, _):
            rows = await calibrating.current(pool, which, limit)
        if json:
            output.print_json(rows)
        else:
            calib_tables.print_list(rows)

    exits.run(work)


@app.command("show", epilog=exits.EPILOG)
def show(
    image: Annotated[str, typer.Argument(help="Image: id, beginning of an id, or name.")],
    json: JsonOption = False,
) -> None:
    """Show all solutions of an image: which counts, what it superseded and why, from what each was made."""

    async def work() -> None:
        from spica_console import calib_tables, calibrating, output
        from spica_console.connecting import reach_store

        async with reach_store() as (pool, _):
            told = await calibrating.versions(pool, image)
        if json:
            output.print_json(told)
        else:
            calib_tables.print_versions(told)

    exits.run(work)


@app.command("models", epilog=exits.EPILOG)
def models(
    context: Annotated[
        str | None, typer.Argument(help="Context whose versions are told; default: all contexts.")
    ] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="At most so many versions.")] = 20,
    json: JsonOption = False,
) -> None:
    """List what runs taught of their instruments: contexts; or the versions of one, and how far each went."""

    async def work() -> None:
        from spica_console import calib_tables, calibrating, output
        from spica_console.connecting import reach_store

        async with reach_store() as (pool, _):
            if context is None:
                rows = await calibrating.contexts(pool)
            else:
                rows = await calibrating.model_history(pool, context, limit)
        if json:
            output.print_json(rows)
        elif context is None:
            calib_tables.print_contexts(rows)
        else:
            calib_tables.print_models(context, rows)

    exits.run(work)


@app.command("anchors", epilog=exits.EPILOG)
def anchors(stack: _Stack, json: JsonOption = False) -> None:
    """Tell what the flux scale of a stack stands on: which of its exposures are anchors, and why."""

    async def work() -> None:
        from spica_console import calib_tables, calibrating, output
        from spica_console.connecting import reach_store

        async with reach_store() as (pool, _):
            told = await calibrating.anchors(pool, stack)
        if json:
            output.print_json(told)
        else:
            calib_tables.print_anchors(told)

    exits.run(work)


@app.command("stale", epilog=exits.EPILOG)
def stale(
    stack: Annotated[str | None, typer.Argument(help="One stack; default: all.")] = None,
    json: JsonOption = False,
) -> None:
    """List stacks whose members were solved again since: how far they move and how their flux changes, worst first."""

    async def work() -> None:
        from spica_console import calib_tables, calibrating, output
        from spica_console.connecting import reach_store

        async with reach_store() as (pool, _):
            found = await calibrating.stale_stacks(pool, stack)
        if json:
            output.print_json([one.plain() for one in found])
        else:
            calib_tables.print_stale(found, members=stack is not None)

    exits.run(work)


@app.command("improve", epilog=exits.EPILOG)
def improve(
    context: _Context = None,
    image: Annotated[
        list[str] | None,
        typer.Option(help="Image: id, beginning of an id, or name. Repeatable.", rich_help_panel=_WHICH),
    ] = None,
    run: _Run = None,
    filter: _Filter = None,
    batch: _Batch = None,
    least_mas: Annotated[
        float,
        typer.Option(min=0.0, help="Leave alone what the newest model would move by less than this, in mas."),
    ] = 2.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be solved again.")] = False,
    json: JsonOption = False,
) -> None:
    """Solve images again with what their runs have taught since, where that matters. Grades stay; stacks are not touched.

    What is asked for is said first: how far the newest model of its context is from the one that a solution knows, and
    which stacks will be stale. Twice is once.
    """
    if not (context or image or run or filter or batch):
        exits.leave(
            exits.USAGE,
            "Say which images: --context (see `spica calib models`), --image, --run, --filter, --batch.",
        )

    async def work() -> None:
        import getpass

        from spica_console import calib_tables, calibrating, output
        from spica_console.connecting import reach_store

        async with reach_store() as (pool, _):
            ids = tuple([await calibrating.image_id_of(pool, text) for text in image or ()])
            which = calibrating.Images(context, run, filter, batch, ids or None)
            found = await calibrating.improvements(pool, which, least_mas)
            if not json:
                calib_tables.print_improvements(found, least_mas, dry_run=dry_run)
            asked = [] if dry_run else await calibrating.ask_again(pool, found, getpass.getuser())
        if json:
            output.print_json(
                {"dry_run": dry_run, "images": [one.plain() for one in found], "event_ids": asked}
            )

    exits.run(work)
