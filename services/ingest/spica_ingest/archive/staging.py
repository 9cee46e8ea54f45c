"""A folder of one's own for a file that is fetched, whoever else may want the same file."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from spica_runtime.storage import DataFolder

from spica_ingest.filing import STAGING

log = structlog.get_logger(__name__)

_LOCK = ".lock"
_POLL_S = 0.5


@asynccontextmanager
async def staging_for(
    uri: str, data: DataFolder, done_after: tuple[type[BaseException], ...] = ()
) -> AsyncIterator[Path]:
    """Yield the folder in the data folder's staging area where this URI is fetched to, held against others.

    Left without an error (or with one of `done_after`), the folder is removed. After another error or a kill
    it stays, for the next try to go on with; a sweep removes what nobody has touched for a day. Two services
    that were told of the same file take turns, on whatever hosts they run, as far as the file system passes
    locks on.
    """
    folder = (
        data.root / STAGING / f"fetch-{hashlib.sha256(uri.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"
    )
    lock = await _locked(folder)
    try:
        os.utime(folder)
        try:
            yield folder
        except done_after:
            await _remove(folder)
            raise
        await _remove(folder)
    finally:
        os.close(lock)


async def _remove(folder: Path) -> None:
    # Under the lock: who waits for it sees that the folder is gone, and makes a new one.
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _locked(folder: Path) -> int:
    told = False
    while True:
        descriptor = _try_lock(folder)
        if descriptor is not None:
            return descriptor
        if not told:
            log.info("another fetch of the same file goes on, waiting for it", folder=folder.name)
            told = True
        await asyncio.sleep(_POLL_S)


def _try_lock(folder: Path) -> int | None:
    """Descriptor that holds the lock; None where another has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A descriptor of its own for each taker: so the lock also holds between tasks of one process.
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:
        return None  # removed by the one who had it, this very moment
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == (folder / _LOCK).stat().st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
