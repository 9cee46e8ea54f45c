"""Images placed on nodes: those of one run and filter lie together on one of them.

An image is held by one node (`images.node_id`), in whose data folder its file and all that was made of
it lie. Its run and filter are placed on a node (`placements`). Where the two differ, a
`placement.wanted` is on its way to the latter, or the image is lost with its node and marked so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import aiosql
from spica_proto.images import ImageVerified
from spica_proto.placement import PlacementWanted
from spica_runtime.errors import Retriable
from spica_runtime.handling import Transaction
from spica_runtime.nodes import BEATS_MISSED, Node
from spica_runtime.nodes import queries as node_queries
from spica_runtime.outbox import publish_in
from spica_runtime.pg import Connection, Pool, Record
from spica_runtime.settings import PlatformSettings
from spica_runtime.storage import DataFolder

queries = aiosql.from_path(Path(__file__).parent / "placing.sql", "asyncpg")


def away_s(settings: PlatformSettings) -> float:
    """A node that was silent for so long, in seconds, is given nothing new."""
    return BEATS_MISSED * settings.node_heartbeat_s


class Placing:
    """What becomes of images that this node takes in."""

    def __init__(self, node: Node, settings: PlatformSettings) -> None:
        self._node = node
        self._settings = settings
        self._data = DataFolder(node.root)

    async def receive(self, connection: Connection, image: ImageVerified, *, new: bool) -> bool:
        """An image was taken in here: this node holds it, unless another one does. True if it was lost before."""
        node_id, image_id = self._node.node_id, image.image_id
        if new:
            await queries.hold_image(connection, image_id=image_id, node_id=node_id, path=image.file.path)
            return False
        known: Record = await queries.lock_image(connection, image_id=image_id)
        holder = known["node_id"]
        if known["lost_since"] is not None:
            await self.take_over(
                connection, image_id, holder, image.file.path, {image.file.path: image.file.size_bytes}
            )
            return True
        if holder not in (None, node_id):
            # It was known, and lies elsewhere: what was just filed here is one copy too many.
            await self.leave_behind(connection, node_id, image_id)
        return False

    async def announce(self, transaction: Transaction, image: ImageVerified) -> None:
        """Say that an image is verified: now if it is where it belongs, else once it is there."""
        connection, run, filter_name = transaction.connection, image.run, image.filter
        await queries.place_new(
            connection,
            run=run,
            filter=filter_name,
            node_id=self._node.node_id,
            away_s=away_s(self._settings),
        )
        if await queries.placed_at(connection, run=run, filter=filter_name) == self._node.node_id:
            await queries.release(connection, image_id=image.image_id)
            transaction.emit(image)
            return
        await queries.withhold(
            connection, image_id=image.image_id, event=image.model_dump(mode="json", exclude_none=True)
        )
        transaction.emit(wanted(image.image_id, image.name, run, filter_name, "arrived"))

    async def take_over(
        self, connection: Connection, image_id: str, holder: str, path: str, sizes: dict[str, int]
    ) -> None:
        """Make this node the holder of an image whose row is locked and whose files (path to size) are here.

        Raises
        ------
        Retriable
            One of them is not here (any more): an earlier copy was just being removed (`copy_gone`).

        """
        for file, size in sizes.items():
            here = self._data.path(file)
            if not here.is_file() or here.stat().st_size != size:
                raise Retriable(
                    "copy_gone", f"{here} went away before its image could be switched to this node."
                )
        await queries.no_leftover(connection, node_id=self._node.node_id, image_id=image_id)
        await self.leave_behind(connection, holder, image_id)
        await queries.hold_image(connection, image_id=image_id, node_id=self._node.node_id, path=path)

    async def leave_behind(self, connection: Connection | Pool, node_id: str, image_id: str) -> None:
        """Copies on a node that does not hold the image (any more) are removed, some time from now."""
        await node_queries.leave_behind(
            connection, node_id=node_id, image_id=image_id, keep_s=self._settings.node_keep_s
        )


def wanted(
    image_id: str,
    name: str,
    run: str,
    filter_name: str,
    why: Literal["arrived", "placed", "node_dead", "node_back"],
) -> PlacementWanted:
    """The event by which an image comes to where its run and filter are placed."""
    return PlacementWanted(image_id=image_id, name=name, run=run, filter=filter_name, why=why)


async def place(
    connection: Connection,
    run: str,
    filter_name: str,
    node_id: str,
    *,
    why: Literal["placed", "node_dead"] = "placed",
    source: str = "/spica/ingest",
) -> list[str]:
    """Place a run and filter on a node, within the caller's transaction. Returns the ids of images to be moved.

    They are moved one by one, each by an event of its own, and stay usable where they are until then.
    """
    await queries.place(connection, run=run, filter=filter_name, node_id=node_id)
    moving = [
        row
        async for row in queries.images_elsewhere(connection, run=run, filter=filter_name, node_id=node_id)
    ]
    for row in moving:
        await publish_in(
            connection, wanted(row["image_id"], row["name"], run, filter_name, why), source=source
        )
    return [row["image_id"] for row in moving]
