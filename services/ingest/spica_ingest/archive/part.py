"""A file on its way, and all that is needed to go on with it after whatever happened.

    <name>.part        bytes so far
    <name>.part.json   which URI, and what the archive said of the content
    <name>             whole, synced and compared

The bytes that stand in a part are believed only after they were hashed again, and only if what the archive
offers to go on with is the same content.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiofiles
import aiofiles.os
from spica_runtime.errors import Unavailable
from spica_runtime.storage import fsync_folder

from spica_ingest.archive.transfer import Fetched, Identity

_CHUNK = 1 << 22
_DISK_ASK_AGAIN_S = 30.0


class Part:
    """One file on its way in a folder that nobody else writes to."""

    def __init__(self, folder: Path, name: str, uri: str) -> None:
        self.whole = folder / name
        self.path = folder / f"{name}.part"
        self._notes = folder / f"{name}.part.json"
        self._uri = uri
        self.identity: Identity | None = None
        """Of the bytes that are here; None: none are."""
        self.size = 0
        self._start_over()

    @property
    def complete(self) -> bool:
        """Whether as many bytes are here as the archive said."""
        return self.identity is not None and self.identity.total == self.size

    async def open(self) -> None:
        """See what an earlier try has left, here or in a process that was killed."""
        with disk_errors(self.path):
            identity = await asyncio.to_thread(self._read_notes)
            if identity is None:
                await self.discard()
                return
            if not self.path.exists() and self.whole.exists():
                self.whole.rename(self.path)  # came whole, but nobody took it
            await asyncio.to_thread(self._hash_what_is_here)
        self.identity = identity
        too_long = identity.total is not None and self.size > identity.total
        if too_long or (self.complete and identity.md5 not in (None, self.md5)):
            await self.discard()

    async def begin(self, identity: Identity) -> None:
        """Start from the first byte of this content."""
        await self.discard()
        with disk_errors(self.path):
            await asyncio.to_thread(self._write_notes, identity)
            self.path.touch()
        self.identity = identity

    async def append(self, block: bytes) -> None:
        """Put bytes behind those that are here."""
        if not block:
            return
        with disk_errors(self.path):
            async with aiofiles.open(self.path, "ab") as file:
                await asyncio.gather(file.write(block), asyncio.to_thread(self._update, block))
        self.size += len(block)
        # The folder's age tells the sweeper that somebody is at work here.
        os.utime(self.path.parent)

    async def finish(self) -> Fetched:
        """Give it its name, synced."""
        with disk_errors(self.path):
            await asyncio.to_thread(self._settle)
        return Fetched(self.whole, self.size, self._md5.hexdigest(), self._sha256.hexdigest())

    async def discard(self) -> None:
        """Forget what is here."""
        for path in (self._notes, self.path, self.whole):
            await asyncio.to_thread(path.unlink, missing_ok=True)
        self.identity = None
        self._start_over()

    @property
    def md5(self) -> str:
        """Of what is here, in hexadecimal."""
        return self._md5.hexdigest()

    def _start_over(self) -> None:
        self.size = 0
        self._md5, self._sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()

    def _update(self, block: bytes) -> None:
        self._md5.update(block)
        self._sha256.update(block)

    def _hash_what_is_here(self) -> None:
        self._start_over()
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            while block := file.read(_CHUNK):
                self._update(block)
                self.size += len(block)

    def _read_notes(self) -> Identity | None:
        try:
            notes: dict[str, Any] = json.loads(self._notes.read_text())
            return Identity.from_json(notes["identity"]) if notes["uri"] == self._uri else None
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _write_notes(self, identity: Identity) -> None:
        fresh = self._notes.with_suffix(".new")
        fresh.write_text(json.dumps({"uri": self._uri, "identity": identity.as_json()}))
        fresh.replace(self._notes)

    def _settle(self) -> None:
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        self.path.replace(self.whole)
        fsync_folder(self.whole.parent)


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """A full disk waits instead of failing."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise disk_full(target, shutil.disk_usage(target.parent).free) from error


def disk_full(target: Path, free: int, needed: int | None = None) -> Unavailable:
    """There is no space for what is to come."""
    need = f", {needed / 1e6:.0f} MB are needed" if needed is not None else ""
    return Unavailable(
        "disk_full",
        f"No space to fetch {target.name} into {target.parent}: {free / 1e6:.0f} MB free{need}. "
        "Free some space; the work goes on by itself.",
        {"free_bytes": free, "needed_bytes": needed},
        after_s=_DISK_ASK_AGAIN_S,
    )
