"""Folders of unfinished parts, removed once nobody needs them."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import asyncpg
import structlog
from spica_runtime.database import CONNECTION_ERRORS
from spica_runtime.tasks import end

from spica_stack.store import Store

log = structlog.get_logger(__name__)

PARTS = ".parts"
"""As in `CoaddOrder.parts`."""

EVERY_S = 3600.0
_SOON_S = 0.5
_UNKNOWN_FOR_S = 86_400.0
"""A folder of which the store knows no stack may be another store's: it stays for a day."""


class Sweeper:
    """Looks now and then, and soon after a stack was made: what its workers, alive or killed, left goes then."""

    def __init__(self, stacks: Path, store: Store, node_id: str | None, keep_failed_s: float) -> None:
        self._stacks, self._store, self._node_id = stacks, store, node_id
        self._keep_failed_s = keep_failed_s
        self._soon = asyncio.Event()

    def look_soon(self) -> None:
        """A stack is made, once the transaction under way has committed."""
        self._soon.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep until told to stop."""
        while not stop.is_set():
            with contextlib.suppress(*CONNECTION_ERRORS, asyncpg.PostgresError):
                await self.sweep()
            waiting = [asyncio.create_task(event.wait()) for event in (stop, self._soon)]
            await asyncio.wait(waiting, timeout=EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            await end(*waiting)
            self._soon.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), timeout=_SOON_S)

    async def sweep(self) -> int:
        """Remove the parts of stacks that are made, replaced, or failed long ago. Returns how many folders went."""
        found = await asyncio.to_thread(_folders, self._stacks)
        if not found:
            return 0
        known = await self._store.parts_needed(list(found), self._node_id, self._keep_failed_s)
        gone = [
            folder
            for stack_id, folder in found.items()
            if not known.get(stack_id, _age_s(folder) < _UNKNOWN_FOR_S)
        ]
        await asyncio.to_thread(_remove, gone)
        return len(gone)


def _folders(stacks: Path) -> dict[str, Path]:
    return {folder.parent.name: folder for folder in stacks.glob(f"*/{PARTS}") if folder.is_dir()}


def _age_s(folder: Path) -> float:
    with contextlib.suppress(OSError):
        return time.time() - folder.stat().st_mtime
    return 0.0


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        log.info("parts removed", stack_id=folder.parent.name)
