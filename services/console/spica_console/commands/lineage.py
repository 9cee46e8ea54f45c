"""`spica lineage`: how a product came to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from spica_console import exits
from spica_console.output import JsonOption

if TYPE_CHECKING:
    from rich.tree import Tree


def lineage(
    name: Annotated[str, typer.Argument(help="Image, stack, or path of a product (in the data folder).")],
    json: JsonOption = False,
) -> None:
    """Show how products came to be: each, the activity that made it, and what that used, to the beginning.

    With --json also the configuration and the log of every activity.
    """
    exits.run(lambda: _lineage(name, json))


async def _lineage(name: str, as_json: bool) -> None:
    from rich.tree import Tree

    from spica_console import ancestry, output
    from spica_console.connecting import reach_store
    from spica_console.store import Store

    async with reach_store() as (pool, data):
        store = Store(pool)
        roots = await store.lineage_roots(name, data)
        known = await store.ancestry(roots)
    trees = [ancestry.tree(known, root) for root in roots]
    if as_json:
        output.print_json(trees)
        return
    top = Tree(f"[bold]{name}[/]" if trees else f"[bold]{name}[/]: no product yet")
    for tree in trees:
        _grow(top, tree)
    output.console().print(top)


def _grow(branch: Tree, product: dict[str, Any]) -> None:
    again = " [dim](see above)[/]" if product.get("repeated") else ""
    twig = branch.add(
        f"[cyan]{product['kind']:<9}[/] {product['path']} [dim]{product['sha256'][:12]}[/]{again}"
    )
    made_by = product.get("made_by")
    if not made_by:
        return
    seconds = f"{made_by['seconds']:.1f} s"
    activity = twig.add(
        f"[magenta]{made_by['service']}[/] {made_by['activity']} {made_by['version']} [dim]on {made_by['host']}, "
        f"{made_by['started_at']:%Y-%m-%d %H:%M:%S}, {seconds}: {made_by['outcome']}[/]"
    )
    for used in made_by["used"]:
        _grow(activity, used)
