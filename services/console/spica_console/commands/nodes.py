"""`spica nodes` and `spica place`: who is there, what each holds, and where a run and filter go."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from spica_console import exits
from spica_console.output import JsonOption

_STATE_STYLE = {"alive": "green", "away": "yellow", "dead": "red"}


def nodes(
    placements: Annotated[
        bool, typer.Option("--placements", help="Also which run and filter is placed where.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show the nodes: which live, what room and work they have, and how many images each holds.

    `away` is a node that was silent for a few heartbeats and gets nothing new; `dead` one whose images are placed anew.
    """
    exits.run(lambda: _nodes(placements, json))


def place(
    run: Annotated[str, typer.Argument(help="Run, as `spica nodes --placements` shows it.")],
    filter_name: Annotated[str, typer.Argument(metavar="FILTER", help="Filter, as the images name it.")],
    node: Annotated[str, typer.Argument(help="Node that is to hold their images.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all are there.")] = False,
    timeout: Annotated[float, typer.Option(help="Longest wait, in seconds.")] = 3600.0,
    json: JsonOption = False,
) -> None:
    """Place a run and filter on a node: what is there moves, what comes goes there at once.

    Each image is copied with all that was made of it, compared, switched, and only then removed where it was.
    With --wait, leaves with 1 if an image cannot come.
    """
    stuck = exits.run(lambda: _place(run, filter_name, node, wait, timeout, json))
    if stuck:
        raise typer.Exit(exits.FAILED)


async def _nodes(with_placements: bool, as_json: bool) -> None:
    from spica_console import nodes, output
    from spica_console.connecting import reach

    async with reach() as spica:
        view = await nodes.overview(spica.pool, spica.bus, spica.settings)
    if as_json:
        output.print_json(view)
        return
    console = output.console()
    console.print(
        output.table(
            "Nodes",
            (
                "node",
                "state",
                "heard",
                "free GB",
                "of",
                "cores",
                "load",
                "images",
                "GB",
                "waiting",
                "data folder",
                "",
            ),
            (_node(row) for row in view["nodes"]),
        )
    )
    if with_placements:
        console.print(
            output.table(
                "Placements",
                ("run", "filter", "node", "images", "GB", "on the way", "lost"),
                (
                    (
                        row["run"],
                        row["filter"],
                        row["node_id"],
                        row["images"],
                        _gigabytes(row["image_bytes"]),
                        row["on_the_way"],
                        row["lost"],
                    )
                    for row in view["placements"]
                ),
            )
        )
    placed = any(row["mode"] == "nodes" for row in view["nodes"])
    if placed and view["images_without_node"]:
        console.print(
            f"{view['images_without_node']} images from the days of a shared file system are on no node yet: each node "
            "takes over those in its data folder when it starts."
        )


def _node(row: dict[str, Any]) -> tuple[Any, ...]:
    from spica_console import nodes

    notes = []
    if row["mode"] == "shared":
        notes.append("shared file system")
    elif row["state"] == "alive" and (missing := nodes.missing_services(row)):
        notes.append(f"[red]not running: {', '.join(missing)}[/]")
    if row["images_lost"]:
        notes.append(f"[red]{row['images_lost']} images lost with it[/]")
    if row["leftovers"]:
        notes.append(f"{row['leftovers']} to be removed")
    return (
        row["node_id"],
        f"[{_STATE_STYLE[row['state']]}]{row['state']}[/]",
        f"{_span(row['silent_s'])} ago",
        _gigabytes(row["free_bytes"]),
        _gigabytes(row["total_bytes"]),
        row["cores"],
        f"{row['load']:.1f}",
        row["images"],
        _gigabytes(row["image_bytes"]),
        row["waiting"],
        row["data_root"],
        ", ".join(notes),
    )


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f}"


def _span(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


async def _place(
    run: str, filter_name: str, node: str, wait: bool, timeout_s: float, as_json: bool
) -> list[dict[str, Any]]:
    from spica_console import nodes, output, transfers
    from spica_console.connecting import reach

    stuck: list[dict[str, Any]] = []
    async with reach() as spica:
        placed = await nodes.place_on(spica.pool, spica.settings, run, filter_name, node)
        if wait and placed.moving:
            there = 0

            def line() -> str:
                return f"{there} of {len(placed.moving)} images are on {node}"

            async with transfers.shown(spica.bus, line) as refresh:

                def on_news(count: int) -> None:
                    nonlocal there
                    there = count
                    refresh()

                stuck = list(await nodes.follow_moves(spica.pool, placed, timeout_s, on_news))
        known = [] if placed.images else await nodes.known_filters(spica.pool, run)
    if as_json:
        output.print_json(
            {
                "run": run,
                "filter": filter_name,
                "node": node,
                "images": placed.images,
                "moving": list(placed.moving),
                "stuck": stuck,
            }
        )
        return stuck
    for row in stuck:
        print(f"{row['name']} cannot come: {row['failure'] or 'it is lost with its node'}")
    if not placed.images:
        hint = f" Filters of run {run} are: {', '.join(known)}." if known else ""
        print(f"No image of run {run} in {filter_name} is here yet; those that come will go to {node}.{hint}")
    elif not placed.moving:
        print(f"All {placed.images} images of run {run} in {filter_name} are on {node} already.")
    elif wait:
        print(f"{len(placed.moving) - len(stuck)} images of run {run} in {filter_name} were moved to {node}.")
    else:
        print(f"{len(placed.moving)} images of run {run} in {filter_name} are on their way to {node}.")
    return stuck
