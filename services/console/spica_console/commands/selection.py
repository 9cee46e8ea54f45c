"""`spica selection`: rules under a name, for requests and surveys to use."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from spica_console import exits
from spica_console.output import JsonOption
from spica_console.stack_options import SELECTING, taking

app = typer.Typer(no_args_is_help=True, help="Save rules under a name; `--saved NAME` asks for them.")

_Name = Annotated[str, typer.Argument(help="Name of the selection.")]


@app.command("save", epilog=exits.EPILOG)
@taking(SELECTING)
def save(
    given: dict[str, Any],
    name: _Name,
    replace: Annotated[bool, typer.Option("--replace", help="Put it in place of one of this name.")] = False,
    json: JsonOption = False,
) -> None:
    """Save the rules given under a name. Stacks that were made keep what the rules were then."""

    async def work() -> dict[str, Any]:
        from spica_console import choosing, stack_options
        from spica_console.connecting import reach_store

        body = stack_options.selection_of(given)
        async with reach_store() as (pool, _):
            return await choosing.save(pool, name, body, replace=replace)

    row = exits.run(work)
    if json:
        from spica_console import output

        output.print_json(row)
    else:
        print(f"Saved {name}: {_words(row['selection'])}.")


@app.command("list", epilog=exits.EPILOG)
def list_selections(json: JsonOption = False) -> None:
    """List saved selections."""

    async def work() -> list[dict[str, Any]]:
        from spica_console import choosing
        from spica_console.connecting import reach_store

        async with reach_store() as (pool, _):
            return await choosing.selections(pool)

    rows = exits.run(work)
    from spica_console import output

    if json:
        output.print_json(rows)
    elif not rows:
        print("There is none yet: `spica selection save`.")
    else:
        table = [(row["name"], _words(row["selection"]), row["created_by"]) for row in rows]
        output.console().print(output.table("", ("selection", "rules", "by"), table))


@app.command("show", epilog=exits.EPILOG)
def show(name: _Name, json: JsonOption = False) -> None:
    """Show a saved selection, and what uses it."""

    async def work() -> dict[str, Any]:
        from spica_console import choosing
        from spica_console.connecting import reach_store

        async with reach_store() as (pool, _):
            return await choosing.selection_named(pool, name)

    row = exits.run(work)
    from spica_console import output

    if json:
        output.print_json(row)
        return
    print(f"{row['name']}, saved by {row['created_by']} on {row['created_at']:%Y-%m-%d %H:%M} UTC")
    for rule, value in row["selection"].items():
        print(f"  {rule}: {_value(value)}")
    if row["used_by"]:
        print("Named by " + ", ".join(f"{one['kind']} {one['name']}" for one in row["used_by"]) + ".")


@app.command("remove", epilog=exits.EPILOG)
def remove(name: _Name, json: JsonOption = False) -> None:
    """Remove a saved selection that nothing names."""

    async def work() -> dict[str, Any]:
        from spica_console import choosing
        from spica_console.connecting import reach_store

        async with reach_store() as (pool, _):
            return await choosing.remove(pool, name)

    row = exits.run(work)
    if json:
        from spica_console import output

        output.print_json(row)
    else:
        print(f"Removed {name}.")


def _words(selection: dict[str, Any]) -> str:
    return ", ".join(f"{rule} {_value(value)}" for rule, value in selection.items())


def _value(value: Any) -> str:
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "/".join(value)
    import json

    return json.dumps(value)
