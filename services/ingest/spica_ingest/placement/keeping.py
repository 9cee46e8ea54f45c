"""What goes on beside the messages where images are placed on nodes: leftovers removed, dead nodes relieved."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import asyncpg
import structlog
from spica_proto.stacks import StackPlanned
from spica_proto.streams import CONSUMERS
from spica_runtime.database import CONNECTION_ERRORS
from spica_runtime.nodes import Node
from spica_runtime.nodes import queries as node_queries
from spica_runtime.outbox import publish_in
from spica_runtime.pg import Connection, Pool, Record
from spica_runtime.settings import PlatformSettings
from spica_runtime.storage import DataFolder

from spica_ingest.placement.placing import away_s, place, queries, wanted

log = structlog.get_logger(__name__)

_SOURCE = "/spica/ingest"
_LOOK_EVERY_S = 3600.0
_BATCH = 500
_STACK_STEPS = [
    consumer
    for consumer in CONSUMERS
    if consumer.subject
    in ("stack.planned", "stack.calibrated", "stack.part_wanted", "stack.coadded", "stack.done")
]


T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of at most `size` items."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


class Keeping:
    """Looks after this node's folder, and after nodes that died."""

    def __init__(self, node: Node, pool: Pool, settings: PlatformSettings) -> None:
        self._node = node
        self._pool = pool
        self._settings = settings
        self._data = DataFolder(node.root)

    async def run(self, stop: asyncio.Event) -> None:
        """Look now and then, until told to stop."""
        await self._safely(self.adopt)
        looked_at = -_LOOK_EVERY_S
        while not stop.is_set():
            if time.monotonic() - looked_at >= _LOOK_EVERY_S:
                await self._safely(self.find_strays)
                looked_at = time.monotonic()
            await self._safely(self.remove_leftovers)
            await self._safely(self.relieve)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), timeout=2 * self._settings.node_heartbeat_s)

    async def _safely(self, work: Callable[[], Awaitable[object]]) -> None:
        """A fault here must not end the service: it is told, and the next look tries again."""
        try:
            await work()
        except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
            log.warning("keeping of nodes waits", error=str(error) or type(error).__name__)
        except Exception:
            log.exception("keeping of nodes failed")

    # ---- what is not this node's any more ----

    async def remove_leftovers(self) -> int:
        """Remove copies of images that other nodes hold by now. Returns of how many."""
        due = [row["image_id"] async for row in queries.leftovers_due(self._pool, node_id=self._node.node_id)]
        for image_id in due:
            async with self._pool.acquire() as connection, connection.transaction():
                # While this row is locked no one makes this node the holder again.
                row: Record = await queries.lock_image(connection, image_id=image_id)
                if row["node_id"] not in (None, self._node.node_id):
                    await self._remove(connection, image_id, row["path"])
                await queries.no_leftover(connection, node_id=self._node.node_id, image_id=image_id)
        if due:
            log.info("leftovers removed", images=len(due))
        return len(due)

    async def find_strays(self) -> int:
        """Enter copies that nobody knows of into the leftovers: whoever made them was killed. Returns of how many images.

        A file that was filed away here, for one, just before another node took the same message.
        """
        found = 0
        for part in await asyncio.to_thread(lambda: list(batched(self._candidates(), _BATCH))):
            async with self._pool.acquire() as connection:
                rows = queries.strays(
                    connection,
                    node_id=self._node.node_id,
                    paths=[name for kind, name in part if kind == "images"],
                    image_ids=[name for kind, name in part if kind == "quality"],
                    solution_ids=[name for kind, name in part if kind == "calib"],
                )
                for image_id in [row["image_id"] async for row in rows]:
                    await node_queries.leave_behind(
                        connection, node_id=self._node.node_id, image_id=image_id, keep_s=0.0
                    )
                    found += 1
        return found

    def _candidates(self) -> Iterator[tuple[str, str]]:
        """Files of images by their path, folders of quality and calib by their name; none that may still be coming."""
        oldest = time.time() - self._settings.node_keep_s
        for kind, pattern in (("images", "images/*/*/*"), ("quality", "quality/*"), ("calib", "calib/*")):
            for path in self._data.root.glob(pattern):
                with contextlib.suppress(OSError):
                    if path.stat().st_mtime <= oldest and not path.name.startswith("."):
                        named = path.relative_to(self._data.root).as_posix()
                        yield kind, named if kind == "images" else path.name

    async def _remove(self, connection: Connection, image_id: str, path: str) -> None:
        files = [row["path"] async for row in queries.files_of(connection, image_id=image_id)]
        solutions = [row["solution_id"] async for row in queries.solution_ids(connection, image_id=image_id)]
        # Whole folders too: work that was cut short here may have left files that the store never knew.
        folders = [f"quality/{image_id}", *(f"calib/{solution_id}" for solution_id in solutions)]

        def remove() -> None:
            for folder in folders:
                shutil.rmtree(self._data.path(folder), ignore_errors=True)
            for file in {path, *files}:
                target = self._data.path(file)
                target.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # not empty, or gone with another one's
                    for parent in target.relative_to(self._data.root).parents[:-2]:
                        (self._data.root / parent).rmdir()

        await asyncio.to_thread(remove)

    # ---- dead nodes, and those that are back ----

    async def relieve(self) -> None:
        """Place anew what is placed on dead nodes; take up again what was lost with nodes that live again."""
        while await self._relieve_once():
            pass

    async def _relieve_once(self) -> bool:
        """One run and filter, or one stack, in a transaction of its own. False: no more, or it is another's turn."""
        settings = self._settings
        async with self._pool.acquire() as connection, connection.transaction():
            if not await queries.take_turn(connection):
                return False
            back = queries.back_again(connection, away_s=away_s(settings))
            for row in [row async for row in back]:
                log.info("image is back with its node", image_id=row["image_id"])
                event = wanted(row["image_id"], row["name"], row["run"], row["filter"], "node_back")
                await publish_in(connection, event, source=_SOURCE)
            pair = await queries.pair_of_dead_node(connection, dead_after_s=settings.node_dead_after_s)
            if pair is not None:
                target = await self._roomiest(connection)
                moving = await place(connection, pair["run"], pair["filter"], target, why="node_dead")
                log.warning(
                    "images of a dead node placed anew",
                    dead=pair["node_id"],
                    node=target,
                    run=pair["run"],
                    filter=pair["filter"],
                    images=len(moving),
                )
                return True
            stack = await queries.stack_of_dead_node(connection, dead_after_s=settings.node_dead_after_s)
            if stack is not None:
                await self._make_again(connection, stack)
                return True
            return False

    async def _roomiest(self, connection: Connection) -> str:
        found: str = await queries.roomiest(
            connection, node_id=self._node.node_id, away_s=away_s(self._settings)
        )
        return found

    async def _make_again(self, connection: Connection, stack: Record) -> None:
        """What a dead node had of a stack is out of reach, and quicker made again than mourned."""
        target = await self._roomiest(connection)
        await queries.plan_again(connection, stack_id=stack["stack_id"], node_id=target)
        await queries.call_off(
            connection,
            stack_id=stack["stack_id"],
            subjects=[step.subject for step in _STACK_STEPS],
            services=[step.service for step in _STACK_STEPS],
        )
        await publish_in(connection, StackPlanned.model_validate_json(stack["body"]), source=_SOURCE)
        log.warning(
            "stack of a dead node made again", stack_id=stack["stack_id"], dead=stack["node_id"], node=target
        )

    # ---- from the days of a shared file system ----

    async def adopt(self) -> int:
        """Make this node the holder of images that lie in its folder and that nobody holds. Returns how many."""
        after, adopted = "", 0
        while rows := [row async for row in queries.unowned_images(self._pool, after=after)]:
            after = rows[-1]["image_id"]
            here = await asyncio.to_thread(self._of_these_here, rows)
            for row in here:
                await self._adopt(row)
            adopted += len(here)
        for row in [row async for row in queries.unowned_stacks(self._pool)]:
            if await asyncio.to_thread(self._data.path(f"stacks/{row['stack_id']}").is_dir):
                await queries.adopt_stack(self._pool, stack_id=row["stack_id"], node_id=self._node.node_id)
        if adopted:
            log.info("images adopted", images=adopted)
        return adopted

    def _of_these_here(self, rows: Sequence[Record]) -> list[Record]:
        paths = [self._data.path(row["path"]) for row in rows]
        return [
            row
            for row, path in zip(rows, paths, strict=True)
            if path.is_file() and path.stat().st_size == row["size_bytes"]
        ]

    async def _adopt(self, row: Record) -> None:
        run, filter_name = row["run"], row["filter"]
        async with self._pool.acquire() as connection, connection.transaction():
            await queries.place_new(
                connection,
                run=run,
                filter=filter_name,
                node_id=self._node.node_id,
                away_s=-1.0,  # none but this one: it has them already
            )
            placed = await queries.placed_at(connection, run=run, filter=filter_name)
            await queries.adopt_image(connection, image_id=row["image_id"], node_id=self._node.node_id)
            if placed != self._node.node_id:
                event = wanted(row["image_id"], row["name"], run, filter_name, "placed")
                await publish_in(connection, event, source=_SOURCE)
