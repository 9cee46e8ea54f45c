"""This host among others: its name, its place in the store, and the sign that it lives.

Every process of a host registers under the host's name, whether or not images are placed on nodes,
so that `spica nodes` shows who is there. Whether a node lives is judged by the store's clock alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import aiosql
import asyncpg
import structlog

from spica_runtime.database import CONNECTION_ERRORS
from spica_runtime.errors import UsageError
from spica_runtime.pg import Connection, Pool
from spica_runtime.provenance import CODE_VERSION
from spica_runtime.settings import PlatformSettings
from spica_runtime.storage import fsync_folder

log = structlog.get_logger(__name__)
queries = aiosql.from_path(Path(__file__).parent / "nodes.sql", "asyncpg")

MARKER = ".spica-node"
_RETRY_S = 1.0
_MARKER_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Marker:
    """What stands in a node's data root, so that others recognise it wherever they find it mounted."""

    node_id: str
    key: str


def read_marker(root: Path) -> Marker | None:
    """The marker of a data root; None where there is none, or none that can be read."""
    try:
        values = json.loads((root / MARKER).read_text())
        return Marker(str(values["node"]), str(values["key"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def own_marker(root: Path, node_id: str) -> Marker:
    """The marker of this node's data root, made where there is none yet.

    Raises
    ------
    UsageError
        The folder is another node's (`data_of_other_node`).

    """
    root.mkdir(parents=True, exist_ok=True)
    part = root / f"{MARKER}.{os.getpid()}.{uuid.uuid4().hex}"
    part.write_text(json.dumps({"node": node_id, "key": uuid.uuid4().hex}) + "\n")
    try:
        # A link appears whole and never replaces what another process of this node made first.
        os.link(part, root / MARKER)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        with contextlib.suppress(FileExistsError), (root / MARKER).open("x") as file:
            file.write(part.read_text())
    finally:
        part.unlink()
    fsync_folder(root)
    deadline = time.monotonic() + _MARKER_TIMEOUT_S
    while (marker := read_marker(root)) is None:
        if time.monotonic() > deadline:
            raise UsageError("bad_marker", f"{root / MARKER} cannot be read. It tells whose folder this is.")
        time.sleep(0.05)
    if marker.node_id != node_id:
        raise UsageError(
            "data_of_other_node",
            f"The data folder {root} belongs to the node {marker.node_id!r} ({MARKER} says so), and this one is "
            f"{node_id!r}. Each node needs a folder of its own (SPICA_DATA); the name is SPICA_NODE.",
        )
    return marker


@dataclass(frozen=True, slots=True)
class Node:
    """This host, as a process of it knows itself."""

    node_id: str
    root: Path
    placed: bool
    """Whether images are placed on nodes, each with a data folder of its own."""
    marker: str | None = None


async def open_node(settings: PlatformSettings, root: Path) -> Node:
    """This host's node. Raises `UsageError` (`data_of_other_node`)."""
    if settings.placement == "shared":
        return Node(settings.node_id, root, placed=False)
    marker = await asyncio.to_thread(own_marker, root, settings.node_id)
    return Node(settings.node_id, root, placed=True, marker=marker.key)


BEATS_MISSED = 4
"""A node that was silent for so many heartbeats is given nothing new."""


async def assign_stack(connection: Connection, node: Node, settings: PlatformSettings, stack_id: str) -> None:
    """Decide, with its members in the store, on which node a new stack is made."""
    if node.placed:
        away_s = BEATS_MISSED * settings.node_heartbeat_s
        await queries.assign_stack(connection, stack_id=stack_id, node_id=node.node_id, away_s=away_s)


class Registration:
    """One process of a node: enters itself, says now and then that it lives, and takes itself out again."""

    def __init__(self, pool: Pool, node: Node, service: str, url: str, heartbeat_s: float) -> None:
        self._pool = pool
        self._node = node
        self._service = service
        self._url = url
        self._heartbeat_s = heartbeat_s

    async def enter(self, stop: asyncio.Event) -> None:
        """Enter the node into the store, however long that takes.

        Raises
        ------
        UsageError
            The name is another node's (`node_name_taken`).

        """
        while not stop.is_set():
            try:
                await self.beat()
                await queries.forget_hosts(self._pool)
                return
            except CONNECTION_ERRORS as error:
                log.warning("waiting for the store", error=str(error) or type(error).__name__)
                await asyncio.sleep(_RETRY_S)

    async def run(self, stop: asyncio.Event) -> None:
        """Say that the node lives until told to stop."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), timeout=self._heartbeat_s)
                break
            try:
                await self.beat()
            except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
                log.warning("node cannot say that it lives", error=str(error) or type(error).__name__)

    async def leave(self) -> None:
        """Take this process out of the store. The node stays: what it holds does, too."""
        with contextlib.suppress(*CONNECTION_ERRORS, asyncpg.PostgresError):
            await asyncio.wait_for(
                queries.leave_service(
                    self._pool, node_id=self._node.node_id, service=self._service, url=self._url
                ),
                timeout=2,
            )

    async def beat(self) -> None:
        """Say once that node and process live, and what the node has."""
        node, usage = self._node, shutil.disk_usage(self._node.root)
        async with self._pool.acquire() as connection, connection.transaction():
            entered = await queries.enter_node(
                connection,
                node_id=node.node_id,
                host=socket.gethostname(),
                data_root=str(node.root),
                mode="nodes" if node.placed else "shared",
                marker=node.marker,
                free_bytes=usage.free,
                total_bytes=usage.total,
                cores=len(os.sched_getaffinity(0)),
                load=os.getloadavg()[0],
            )
            if entered is None:
                raise UsageError(
                    "node_name_taken",
                    f"The node {node.node_id!r} has another data folder than {node.root} (its marker file says "
                    "so). Give this host a name of its own with SPICA_NODE.",
                )
            await queries.enter_service(
                connection,
                node_id=node.node_id,
                service=self._service,
                url=self._url,
                pid=os.getpid(),
                version=CODE_VERSION,
            )
            await queries.forget_services(connection, node_id=node.node_id)
