"""placement.wanted in, placement.moved out: an image with all that was made of it comes to this node.

Copied, compared, and only then switched, in one transaction; the copies left behind are removed later.
Killed at any moment: either the switch is committed, and the files are all here, or it is not, and they
are all where they were.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from spica_proto.base import Product
from spica_proto.images import ImageArrived, ImageProgress, ImageVerified
from spica_proto.placement import PlacementLost, PlacementMoved, PlacementWanted
from spica_runtime.bus import Bus
from spica_runtime.errors import NotRetriable, Retriable
from spica_runtime.handling import Delivery, Outcome, Transaction
from spica_runtime.locating import Files, to_thread_until_cancelled
from spica_runtime.nodes import Node
from spica_runtime.pg import Connection, Pool, Record
from spica_runtime.settings import PlatformSettings
from spica_runtime.storage import DataFolder
from spica_runtime.transfer import NodeAway, Peer, bring

from spica_ingest.placement.placing import Placing, queries

_TELL_EVERY_S = 1.0


class Moving:
    """The handler of placement.wanted."""

    def __init__(
        self, node: Node, pool: Pool, bus: Bus, files: Files, placing: Placing, settings: PlatformSettings
    ) -> None:
        self._node = node
        self._pool = pool
        self._bus = bus
        self._files = files
        self._placing = placing
        self._settings = settings
        self._token = settings.node_token.get_secret_value() if settings.node_token else None
        self._data = DataFolder(node.root)

    async def placement_wanted(self, message: PlacementWanted, delivery: Delivery) -> Outcome:
        """Bring an image to this node, where its run and filter are placed."""
        image: Record | None = await queries.image(self._pool, image_id=message.image_id)
        if image is None:
            raise NotRetriable("unknown_image", f"The store knows no image {message.image_id!r}.")
        holder = image["node_id"]
        if not self._node.placed or holder in (None, self._node.node_id):
            return Outcome(
                save=lambda transaction: self._release(transaction, message.image_id),
                about=message.image_id,
                summary="is where it belongs",
            )
        peer = (await self._files.peers({holder}))[holder]
        products = await files_of(self._pool, image)
        # Should the move be given up later, because the image is placed elsewhere by then, the copies made here go too.
        await self._placing.leave_behind(self._pool, self._node.node_id, message.image_id)
        try:
            async with _Progress(
                self._bus, image["name"], sum(one.size_bytes for one in products)
            ) as progress:
                missing = await to_thread_until_cancelled(
                    lambda stopped: self._bring(peer, products, progress, stopped)
                )
        except NodeAway:
            if peer.silent_s < self._settings.node_dead_after_s:
                raise
            return self._lost(image)
        brought = [product for product in products if product not in missing]

        async def save(transaction: Transaction) -> None:
            await self._switch(transaction, image, products, brought)
            await self._release(transaction, message.image_id)

        size_bytes = sum(product.size_bytes for product in brought)
        return Outcome(
            save=save,
            about=message.image_id,
            configuration={"from_node": holder, "to_node": self._node.node_id, "why": message.why},
            summary=f"moved from {holder} to {self._node.node_id}: {len(brought)} files, {size_bytes} bytes",
            log=tuple(f"{product.path} was not there any more" for product in missing),
        )

    def _bring(
        self, peer: Peer, products: Sequence[Product], progress: _Progress, stopped: threading.Event
    ) -> list[Product]:
        """Copy and compare all files. Returns those that are gone, which can be made again."""
        missing = []
        for product in products:
            target = self._data.path(product.path)
            try:
                bring(peer, product, target, token=self._token, tell=progress.add, stopped=stopped.is_set)
            except Retriable as error:
                if error.code != "file_gone" or product.kind == "image":
                    raise
                missing.append(product)
        return missing

    async def _switch(
        self, transaction: Transaction, image: Record, seen: Sequence[Product], brought: Sequence[Product]
    ) -> None:
        connection, image_id = transaction.connection, image["image_id"]
        now: Record = await queries.lock_image(connection, image_id=image_id)
        if now["node_id"] == self._node.node_id:
            transaction.note("it was brought here meanwhile")
            return
        if now["node_id"] != image["node_id"]:
            raise Retriable("image_moved", f"Image {image_id} went to {now['node_id']} meanwhile.")
        if set(await files_of(connection, image)) - set(seen):
            raise Retriable(
                "more_files", f"More was made of image {image_id} meanwhile, and is to come along."
            )
        sizes = {product.path: product.size_bytes for product in brought}
        await self._placing.take_over(connection, image_id, image["node_id"], image["path"], sizes)
        transaction.emit(
            PlacementMoved(
                image_id=image_id,
                name=image["name"],
                run=image["run"],
                filter=image["filter"],
                from_node=image["node_id"],
                to_node=self._node.node_id,
                files=len(brought),
                size_bytes=sum(sizes.values()),
                batch=image["batch"],
            )
        )

    async def _release(self, transaction: Transaction, image_id: str) -> None:
        """Say now what was withheld until the image is where it belongs."""
        row: Record = await queries.lock_image(transaction.connection, image_id=image_id)
        if row["withheld"] is not None and row["lost_since"] is None:
            await queries.release(transaction.connection, image_id=image_id)
            transaction.emit(ImageVerified.model_validate(row["withheld"]))

    def _lost(self, image: Record) -> Outcome:
        """The node that holds it is dead, and its files are out of reach: from the archive, if it came from one."""
        uri, image_id = image["uri"], image["image_id"]

        async def save(transaction: Transaction) -> None:
            now: Record = await queries.lock_image(transaction.connection, image_id=image_id)
            if now["node_id"] != image["node_id"]:
                raise Retriable("image_moved", f"Image {image_id} went to {now['node_id']} meanwhile.")
            if await queries.lose(transaction.connection, image_id=image_id) is None:
                return
            transaction.emit(
                PlacementLost(
                    image_id=image_id,
                    name=image["name"],
                    run=image["run"],
                    filter=image["filter"],
                    node=image["node_id"],
                    uri=uri,
                )
            )
            if uri is not None:
                transaction.emit(
                    ImageArrived(
                        uri=uri,
                        source="node_dead",
                        name=image["name"],
                        modified_at=image["modified_at"],
                        batch=image["batch"],
                    )
                )

        what = (
            f"fetched again from {uri}" if uri else "until the node is back, or someone brings the file again"
        )
        return Outcome(
            save=save,
            about=image_id,
            configuration={"from_node": image["node_id"]},
            summary=f"lost with node {image['node_id']}: {what}",
        )


async def files_of(connection: Connection | Pool, image: Record) -> list[Product]:
    """The image's file, and then what was made of it."""
    own = Product(path=image["path"], sha256=image["sha256"], size_bytes=image["size_bytes"], kind="image")
    rows = queries.files_of(connection, image_id=image["image_id"])
    # Another path of the image itself is where it came in a second time, on another node.
    made = [Product(**row) async for row in rows if row["kind"] != "image"]
    return [own, *made]


@dataclass
class _Progress:
    """Tells now and then how far a move is, while it goes on; fed from the thread that copies."""

    bus: Bus
    name: str
    total: int
    done: int = 0
    _begun: float = field(default_factory=time.monotonic)
    _task: asyncio.Task[None] | None = None

    def add(self, size_bytes: int) -> None:
        self.done += size_bytes

    async def __aenter__(self) -> _Progress:
        self._task = asyncio.create_task(self._tell_on())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})
        await self._tell(ended=True)

    async def _tell_on(self) -> None:
        while True:
            await asyncio.sleep(_TELL_EVERY_S)
            await self._tell()

    async def _tell(self, *, ended: bool = False) -> None:
        rate = self.done / max(time.monotonic() - self._begun, 1e-3)
        await self.bus.tell(
            ImageProgress(
                name=self.name, stage="move", done=self.done, total=self.total, per_second=rate, ended=ended
            )
        )
