"""`spica tag`: words that people give images, for rules to ask for."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from spica_console import exits
from spica_console.output import JsonOption

app = typer.Typer(no_args_is_help=True, help="Tag images, for rules to ask for (`--tag`, `--without-tag`).")

_Tag = Annotated[str, typer.Argument(help="The tag: any word.")]
_Images = Annotated[list[str], typer.Argument(help="Images: ids, beginnings of ids, or names.")]


@app.command("add", epilog=exits.EPILOG)
def add(tag: _Tag, images: _Images, json: JsonOption = False) -> None:
    """Give images a tag. Who gave it, and when, is kept."""
    _change(tag, images, json, remove=False)


@app.command("remove", epilog=exits.EPILOG)
def remove(tag: _Tag, images: _Images, json: JsonOption = False) -> None:
    """Take a tag away from images."""
    _change(tag, images, json, remove=True)


def _change(tag: str, images: list[str], as_json: bool, *, remove: bool) -> None:
    async def work() -> list[dict[str, Any]]:
        from spica_console import choosing
        from spica_console.connecting import reach_store

        async with reach_store() as (pool, _):
            return await choosing.tag_images(pool, tag, images, remove=remove)

    rows = exits.run(work)
    if as_json:
        from spica_console import output

        output.print_json(rows)
        return
    changed = sum(row["changed"] for row in rows)
    without = (
        f" ({len(rows) - changed} {'did not have it' if remove else 'had it'})" if changed < len(rows) else ""
    )
    print(f"{changed} image(s) {'lost' if remove else 'got'} the tag {tag}{without}.")


@app.command("list", epilog=exits.EPILOG)
def list_tags(
    image: Annotated[str | None, typer.Argument(help="Tags of this image; none: all tags.")] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Images that have this tag.")] = None,
    json: JsonOption = False,
) -> None:
    """List tags: all of them, those of an image, or the images of one."""

    async def work() -> list[dict[str, Any]]:
        from spica_console import choosing
        from spica_console.connecting import reach_store

        async with reach_store() as (pool, _):
            if tag is not None:
                return await choosing.images_with(pool, tag)
            return await (choosing.tags(pool) if image is None else choosing.tags_of(pool, image))

    rows = exits.run(work)
    from spica_console import output

    if json:
        output.print_json(rows)
        return
    if not rows:
        print("There are none.")
        return
    columns = (
        ("name", "filter", "object", "tagged_by")
        if tag
        else ("tag", "images")
        if image is None
        else ("tag", "tagged_by")
    )
    output.console().print(output.table("", columns, [[row[name] for name in columns] for row in rows]))
