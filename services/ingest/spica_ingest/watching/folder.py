"""Watching a folder: every FITS file that appears below it is announced once, when it is whole.

The folder itself is the truth: it is looked through again and again. The kernel's notices only say when
it is worth looking sooner, so that nothing hangs on a notice that never came (network file systems,
overflowing queues). What was announced stands in the store's ledger by path, size and time of change: a
restart neither misses nor repeats, and a file that was changed later is announced again.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from spica_proto.envelope import derived_id
from spica_proto.images import ImageArrived
from spica_runtime.database import CONNECTION_ERRORS
from spica_runtime.tasks import end
from watchfiles import awatch

from spica_ingest.locating import address, shown, source_path
from spica_ingest.science.naming import FITS_NAME
from spica_ingest.store import FileState, FolderLedger
from spica_ingest.watching.mounts import network_file_system
from spica_ingest.watching.store import FolderNotes

log = structlog.get_logger(__name__)

EMPTY_SETTLE_S = 60.0
"""An empty file is a placeholder, most likely: what fills it may take longer to begin than to go on."""
PART_SUFFIXES = (".part", ".partial", ".filepart", ".crdownload", ".download", ".aria2", ".tmp", ".temp")
"""While `X` with one of these behind it is there, `X` is being filled: some programs reserve the name first."""
PART_STALE_S = 3600.0
"""A part that nobody has written to for so long was left behind, and holds nothing back."""
OLD_S = 60.0
"""A file that was last changed so long ago is whole at first sight. Not less: hosts' clocks differ."""
_RETRY_S = 5.0
_NOTE_EVERY_S = 30.0


def find_files(folder: Path, wall_s: Callable[[], float] = time.time) -> Iterator[FileState]:
    """FITS files below a folder; hidden names and partial ones (`.part`, `.tmp`, …) are left alone.

    So is a file beside which a partial one of the same name is being written. Links to folders are not followed
    (they may lead in circles), links to files are. A file is told by its address, which is not its path where
    that is not UTF-8.
    """
    folders = [os.fspath(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            continue  # not there, not to be read, a network file system that stutters
        parts = {entry.name: entry for entry in entries if entry.name.endswith(PART_SUFFIXES)}
        inner = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    inner.append(entry.path)
                elif FITS_NAME.search(entry.name) and not _being_filled(entry.name, parts, wall_s()):
                    status = entry.stat()
                    if stat.S_ISREG(status.st_mode):
                        yield address(entry.path), status.st_size, status.st_mtime_ns
            except OSError:
                continue  # gone, or a link to nowhere
        folders += reversed(inner)


def _being_filled(name: str, parts: Mapping[str, os.DirEntry[str]], now_s: float) -> bool:
    for suffix in PART_SUFFIXES:
        part = parts.get(name + suffix)
        try:
            if part is not None and now_s - part.stat().st_mtime < PART_STALE_S:
                return True
        except OSError:
            continue  # it has its final name by now
    return False


def as_opened(file: FileState) -> FileState | None:
    """The file as it is when it is opened; None if it is gone.

    On NFS a directory's listing shows sizes and times that are up to a minute old; opening a file asks the server.
    """
    uri, size_bytes, mtime_ns = file
    try:
        descriptor = os.open(source_path(uri), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError:
        return uri, size_bytes, mtime_ns  # not ours to read: ingest will say so
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return uri, status.st_size, status.st_mtime_ns


@dataclass(slots=True)
class Settling:
    """Which files have kept their size and time of change for long enough to be whole."""

    settle_s: float
    clock: Callable[[], float] = time.monotonic
    wall_ns: Callable[[], int] = time.time_ns
    _since: dict[str, tuple[int, int, float]] = field(default_factory=dict)

    def settled(self, files: list[FileState]) -> list[FileState]:
        """Those of `files` that are whole. Old ones are so at first sight; the rest must keep still."""
        now, whole = self.clock(), []
        since: dict[str, tuple[int, int, float]] = {}
        for path, size, mtime_ns in files:
            before = self._since.get(path)
            first_seen = before[2] if before and before[:2] == (size, mtime_ns) else now
            since[path] = (size, mtime_ns, first_seen)
            still_s = self.settle_s if size else max(self.settle_s, EMPTY_SETTLE_S)
            old = self.wall_ns() - mtime_ns >= max(still_s, OLD_S) * 1e9
            if old or now - first_seen >= still_s:
                whole.append((path, size, mtime_ns))
        self._since = since
        return whole

    @property
    def waiting(self) -> bool:
        """Whether some file was seen that may not be whole yet."""
        return bool(self._since)


class FolderWatcher:
    """Announces the files of one folder as `image.arrived`."""

    def __init__(
        self,
        folder: Path,
        ledger: FolderLedger,
        *,
        poll_s: float,
        settle_s: float,
        notices: bool = True,
        notes: FolderNotes | None = None,
    ) -> None:
        self._folder = folder.absolute()
        self._ledger = ledger
        self._poll_s = poll_s
        self._settle_s = settle_s
        self._notices = notices
        self._notes = notes
        self._noted_at = float("-inf")
        self._to_note = 0
        self._news = asyncio.Event()
        self._known: set[FileState] | None = None
        self._failed: set[FileState] = set()
        self._settling = Settling(settle_s)

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until told to stop. The folder and the store may come and go meanwhile."""
        listener = asyncio.create_task(self._listen(stop), name="folder notices") if self._notices else None
        log.info("watching folder", folder=shown(self._folder), how=await asyncio.to_thread(self.method))
        try:
            while not stop.is_set():
                self._news.clear()
                try:
                    announced = await self.look()
                    await self._note(announced)
                except CONNECTION_ERRORS as error:
                    log.warning("watching waits for the store", error=str(error) or type(error).__name__)
                await self._pause(stop)
        finally:
            if listener is not None:
                await end(listener)

    def method(self) -> str:
        """How news is noticed here, in words."""
        looking = f"looked through every {self._poll_s:g} s"
        remote = network_file_system(self._folder)
        if remote is not None:
            return f"{looking}: {remote} tells the kernel nothing of what other hosts write"
        return f"told by the kernel, and {looking}" if self._notices else looking

    async def look(self) -> int:
        """Look through the folder once and announce what is new and whole. Returns how many.

        A file that cannot be announced is said once, tried again at every look, and keeps no other one back.
        """
        if self._known is None:
            self._known = await self._ledger.known(self._folder)
        found = await asyncio.to_thread(lambda: list(find_files(self._folder)))
        new = [file for file in found if file not in self._known]
        announced = 0
        for file in self._settling.settled(new):
            if await asyncio.to_thread(as_opened, file) != file:
                continue  # it has changed by now: the next look sees it so
            try:
                announced += await self._announce(file)
            except Exception as error:
                # What PostgreSQL's driver says of a value it cannot take is a ValueError, and of this file alone.
                if isinstance(error, CONNECTION_ERRORS) and not isinstance(error, ValueError):
                    raise
                if file not in self._failed:
                    log.exception("file cannot be announced", path=file[0])
                self._failed.add(file)
                continue
            self._known.add(file)
        return announced

    async def _announce(self, file: FileState) -> bool:
        uri, size_bytes, mtime_ns = file
        inside = source_path(uri).relative_to(self._folder).parent
        # No size in the message: a file that was changed meanwhile is taken as it is then, and the
        # announcement of that change finds it there already.
        batch = shown(inside.parts[0]) if inside.parts else None
        message = ImageArrived(uri=uri, source="folder", batch=batch)
        event_id = derived_id("folder", uri, size_bytes, mtime_ns)
        entered = await self._ledger.announce(file, message, event_id)
        if entered:
            log.info("file found", path=uri, size_bytes=size_bytes)
        return entered

    async def _note(self, announced: int) -> None:
        """Leave a note in the store of how it goes, now and then: it is only for people to see."""
        self._to_note += announced
        if self._notes is None or (not announced and time.monotonic() - self._noted_at < _NOTE_EVERY_S):
            return
        there = await asyncio.to_thread(os.access, self._folder, os.R_OK | os.X_OK)
        await self._notes.say(
            shown(self._folder),
            method=await asyncio.to_thread(self.method),
            every_s=self._poll_s,
            announced=self._to_note,
            error=None if there else "The folder is not there, or cannot be read.",
        )
        self._to_note, self._noted_at = 0, time.monotonic()

    async def _pause(self, stop: asyncio.Event) -> None:
        """Until there is news, or it is time to look again; soon, if a file is settling."""
        wait_s = min(self._poll_s, max(0.1, self._settle_s / 2)) if self._settling.waiting else self._poll_s
        waiters = {asyncio.create_task(event.wait()) for event in (self._news, stop)}
        _, pending = await asyncio.wait(waiters, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()

    async def _listen(self, stop: asyncio.Event) -> None:
        """Set `_news` whenever the kernel says that something changed."""
        while not stop.is_set():
            try:
                async for _ in awatch(self._folder, stop_event=stop, debounce=400, step=100):
                    self._news.set()
            except FileNotFoundError:
                log.warning("watched folder is not there (yet)", folder=shown(self._folder))
            except OSError as error:
                log.warning("no notices from the kernel: looking from time to time", error=str(error))
                return
            try:
                await asyncio.wait_for(stop.wait(), timeout=_RETRY_S)
            except TimeoutError:
                continue
