"""Where the files named in the store are: here, on another node whose data root is in reach, or in the cache."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import structlog
from spica_proto.base import Product

from spica_runtime.errors import NotRetriable
from spica_runtime.nodes import BEATS_MISSED, Node, queries
from spica_runtime.pg import Pool, Record
from spica_runtime.settings import PlatformSettings
from spica_runtime.storage import DataFolder
from spica_runtime.transfer import NodeAway, Peer, bring

log = structlog.get_logger(__name__)

R = TypeVar("R")

CACHE = "cache"
_IN_USE_S = 6 * 3600.0
"""What was asked for less than this long ago may still be read, and is not thrown away."""


class Files:
    """Finds files by their path in the data folder. With a shared file system that is all there is to it."""

    def __init__(self, data: DataFolder, pool: Pool, node: Node, settings: PlatformSettings) -> None:
        self._data = data
        self._pool = pool
        self._node = node
        self._token = settings.node_token.get_secret_value() if settings.node_token else None
        self._away_s = BEATS_MISSED * settings.node_heartbeat_s
        self._cache = Cache(data.root / CACHE, settings.node_cache_mb * 1_000_000)

    async def locate(self, paths: Sequence[str]) -> dict[str, Path]:
        """A path of this host for each of these; other nodes' files are brought into the cache where need be.

        Raises
        ------
        Unavailable
            A node is away (`node_away`).
        NotRetriable
            A file's only node is dead (`file_lost`), or a path leaves the data folder.

        """
        found = {path: self._data.path(path) for path in paths}
        if not self._node.placed:
            return found
        rows = {
            row["path"]: row
            async for row in queries.whereabouts(self._pool, paths=list(found))
            if row["node_id"] not in (None, self._node.node_id)
        }
        peers = await self.peers({row["node_id"] for row in rows.values()})
        for path, row in rows.items():
            found[path] = await self._elsewhere(row, peers[row["node_id"]])
        return found

    async def peers(self, node_ids: set[str]) -> dict[str, Peer]:
        """Nodes, as the store knows them."""
        rows = queries.peers(self._pool, node_ids=sorted(node_ids))
        return {row["node_id"]: Peer.of(row, self._away_s) async for row in rows}

    async def _elsewhere(self, row: Record, peer: Peer) -> Path:
        product = Product(path=row["path"], sha256=row["sha256"], size_bytes=row["size_bytes"], kind="cached")
        return await to_thread_until_cancelled(
            lambda stopped: self._find(peer, product, lost=row["lost_since"] is not None, stopped=stopped)
        )

    def _find(self, peer: Peer, product: Product, *, lost: bool, stopped: threading.Event) -> Path:
        root = peer.reachable_root()
        if root is not None and (path := DataFolder(root).path(product.path)).is_file():
            return path
        try:
            return self._cache.get(peer, product, self._token, stopped)
        except NodeAway as error:
            if not lost:
                raise
            raise NotRetriable(
                "file_lost",
                f"{product.path} is on node {peer.node_id} alone, which is dead. Bring the node back, or the image in "
                "again from where it came from; then send this again.",
            ) from error


class Cache:
    """Copies of other nodes' files, by their content. The least lately used go first when it grows too large."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def get(self, peer: Peer, product: Product, token: str | None, stopped: threading.Event) -> Path:
        """The copy, brought here if need be. It keeps its name, since tools look at that."""
        path = self._folder / product.sha256 / Path(product.path).name
        if not (path.is_file() and path.stat().st_size == product.size_bytes):
            bring(peer, product, path, token=token, stopped=stopped.is_set)
            self.shrink()
        os.utime(path.parent)
        return path

    def shrink(self, now: float | None = None) -> int:
        """Throw away what was not used for longest, down to the allowed size. Returns how many bytes went."""
        entries = []
        for folder in self._folder.iterdir() if self._folder.is_dir() else ():
            with contextlib.suppress(OSError):  # another process threw it away first
                size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
                entries.append((folder.stat().st_mtime, size, folder))
        over = sum(size for _, size, _ in entries) - self._max_bytes
        gone, oldest_kept = 0, (now if now is not None else time.time()) - _IN_USE_S
        for used_at, size, folder in sorted(entries):
            if gone >= over or used_at > oldest_kept:
                break
            shutil.rmtree(folder, ignore_errors=True)
            gone += size
        if gone < over:
            log.warning("cache larger than allowed", over_bytes=over - gone, folder=str(self._folder))
        return gone


async def to_thread_until_cancelled(work: Callable[[threading.Event], R]) -> R:
    """Run blocking work in a thread, and tell it to stop when this task is cancelled."""
    stopped = threading.Event()
    try:
        return await asyncio.to_thread(work, stopped)
    except asyncio.CancelledError:
        stopped.set()
        raise
