"""Nodes: who is there and what each holds, and placing a run and filter on one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import aiosql
import nats.js.errors
from spica_ingest.placement.placing import place
from spica_proto.streams import CONSUMERS, NODE_STREAM
from spica_runtime.bus import Bus
from spica_runtime.errors import UsageError
from spica_runtime.nodes import BEATS_MISSED
from spica_runtime.pg import Pool
from spica_runtime.settings import PlatformSettings

from spica_console.exits import TimedOutError

queries = aiosql.from_path(Path(__file__).parent / "nodes.sql", "asyncpg")

Row = dict[str, Any]

SOURCE = "/spica/console"
_LOOK_EVERY_S = 0.5


async def overview(pool: Pool, bus: Bus, settings: PlatformSettings) -> dict[str, Any]:
    """All nodes with state and load, all placements, and what belongs to no node."""
    waiting = await backlog(bus)
    return {
        "nodes": [
            {
                **dict(row),
                "state": state_of(row["silent_s"], settings),
                "waiting": waiting.get(row["node_id"], 0),
            }
            async for row in queries.list_nodes(pool)
        ],
        "placements": [dict(row) async for row in queries.list_placements(pool, node_id=None)],
        "images_without_node": await queries.images_without_node(pool),
    }


def state_of(silent_s: float, settings: PlatformSettings) -> str:
    """What a silence means: `alive`, `away` (given nothing new) or `dead` (its images are placed anew)."""
    if silent_s >= settings.node_dead_after_s:
        return "dead"
    return "away" if silent_s >= BEATS_MISSED * settings.node_heartbeat_s else "alive"


async def backlog(bus: Bus) -> dict[str, int]:
    """How many messages wait in each node's queues, or are being worked on there."""
    try:
        info = await bus.js.stream_info(NODE_STREAM, subjects_filter=">")
    except nats.js.errors.NotFoundError:
        return {}
    found: dict[str, int] = {}
    for subject, messages in (info.state.subjects or {}).items():
        node_id = subject.split(".")[1]
        found[node_id] = found.get(node_id, 0) + messages
    return found


def missing_services(node: Row) -> list[str]:
    """Services that a node with images of its own needs and that do not run there."""
    needed = dict.fromkeys(consumer.service for consumer in CONSUMERS)
    return [name for name in needed if name not in node["services"]] if node["mode"] == "nodes" else []


@dataclass(frozen=True, slots=True)
class Placed:
    """What placing a run and filter set in motion."""

    run: str
    filter: str
    node_id: str
    images: int
    """Of this run and filter, in all."""
    moving: tuple[str, ...]
    """Ids of those that are to come from other nodes."""
    since: datetime


async def place_on(
    pool: Pool, settings: PlatformSettings, run: str, filter_name: str, node_id: str
) -> Placed:
    """Place a run and filter on a node; its services do the rest.

    Raises
    ------
    UsageError
        No such node (`unknown_node`), a dead one (`node_dead`), one without room (`no_room`), or one with a shared file
        system (`placement_off`).

    """
    nodes = {row["node_id"]: row async for row in queries.list_nodes(pool)}
    names = ", ".join(name for name, row in nodes.items() if row["mode"] == "nodes")
    if node_id not in nodes:
        raise UsageError(
            "unknown_node", f"There is no node {node_id!r}. There are: {names or 'none'} (`spica nodes`)."
        )
    if nodes[node_id]["mode"] == "shared":
        raise UsageError(
            "placement_off",
            f"Node {node_id} works on a shared file system: there is nothing to place. Give every host a data folder of "
            "its own and set SPICA_PLACEMENT=nodes.",
        )
    if state_of(nodes[node_id]["silent_s"], settings) != "alive":
        raise UsageError(
            "node_dead",
            f"Node {node_id} has been silent for {nodes[node_id]['silent_s']:.0f} s: start its services, or choose "
            f"another one of {names}.",
        )
    free = nodes[node_id]["free_bytes"]
    needed = await queries.bytes_to_come(pool, run=run, filter=filter_name, node_id=node_id)
    if needed > free:
        raise UsageError(
            "no_room",
            f"Images of run {run} in {filter_name} take up {needed / 1e9:.1f} GB on other nodes, and node {node_id} has "
            f"{free / 1e9:.1f} GB free. Free some space there, or choose another one of {names}.",
        )
    async with pool.acquire() as connection, connection.transaction():
        since = await connection.fetchval("SELECT now()")
        moving = await place(connection, run, filter_name, node_id, source=SOURCE)
        images = await queries.images_of_pair(connection, run=run, filter=filter_name)
    return Placed(run, filter_name, node_id, images, tuple(moving), since)


async def whereabouts(pool: Pool, image_id: str) -> Row | None:
    """On which node an image is, and on which it is placed; None where it is on no node."""
    row = await queries.whereabouts_of_image(pool, image_id=image_id)
    return dict(row) if row is not None and row["node_id"] is not None else None


async def known_filters(pool: Pool, run: str) -> list[str]:
    """Filters of a run, as its images name them."""
    return [row["filter"] async for row in queries.filters_of_run(pool, run=run)]


async def follow_moves(
    pool: Pool, placed: Placed, timeout_s: float, on_news: Callable[[int], None] = lambda _: None
) -> Sequence[Row]:
    """Wait until all images are on their node. Returns those that will not come, with the reason.

    Raises
    ------
    TimedOutError
        The time is over; the images go on moving.

    """
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        rows = [
            dict(row)
            async for row in queries.on_the_way(
                pool, image_ids=list(placed.moving), node_id=placed.node_id, since=placed.since
            )
        ]
        on_news(len(placed.moving) - len(rows))
        stuck = [row for row in rows if row["failure"] or row["lost_since"]]
        if len(stuck) == len(rows):
            return stuck
        if asyncio.get_running_loop().time() > deadline:
            raise TimedOutError(
                f"After {timeout_s:g} s, {len(rows)} of {len(placed.moving)} images are still on their way. They go on; "
                "`spica nodes --placements` shows how far they are."
            )
        await asyncio.sleep(_LOOK_EVERY_S)
