"""The bytes of a file, front to back, each read once: for the walk over its HDUs and for its hashes.

A file that is not compressed as a whole is mapped: its parts are looked at where the kernel has them, and let go
when the last who uses them is done, so that memory holds a window of the file and not the file.
"""

from __future__ import annotations

import io
import mmap
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from spica_imaging.packed import FORMATS, START_BYTES, PackedError, Unpacked, is_readable, packing

from spica_ingest.science.facts import Finding
from spica_ingest.verification.hashing import Hashes
from spica_ingest.verification.headers import Fault

WINDOW_BYTES = 32 << 20
"""How much of a file may be in use at a time before the walk waits; a single data unit may be larger."""
_CHUNK = 1 << 22


class Source(Protocol):
    """A file's bytes from front to back."""

    def take(self, size: int) -> memoryview:
        """Return the next `size` bytes; fewer where the file ends before."""

    def used_by(self, futures: Iterable[Future[Any]]) -> None:
        """Tell of work that uses what was taken last."""


class _InUse:
    """Work that uses parts of a file, oldest first."""

    def __init__(self) -> None:
        self._parts: deque[tuple[int, list[Future[Any]]]] = deque()
        self._bytes = 0

    def add(self, size: int, futures: list[Future[Any]]) -> None:
        self._parts.append((size, futures))
        self._bytes += size

    def also(self, futures: Iterable[Future[Any]]) -> None:
        """The part that was added last is used by these too."""
        if self._parts:
            self._parts[-1][1].extend(futures)

    def wait(self, keep: int) -> int:
        """Wait for the oldest work until no more than `keep` bytes are in use; how many no longer are."""
        done = 0
        while self._parts and self._bytes > keep:
            size, futures = self._parts.popleft()
            wait(futures)  # whoever asked for the work hears of its errors
            self._bytes -= size
            done += size
        return done


class _Mapped:
    """A file as the kernel maps it."""

    def __init__(self, view: mmap.mmap, hashes: Hashes) -> None:
        self._map, self._hashes = view, hashes
        self._whole = memoryview(view)
        self._place = self._fed = self._released = 0
        self._futures: list[Future[Any]] = []
        self._in_use = _InUse()

    def take(self, size: int) -> memoryview:
        taken = self._whole[self._place : self._place + size]
        if self._place - self._fed >= _CHUNK:
            self._feed()
        self._place += len(taken)
        return taken

    def used_by(self, futures: Iterable[Future[Any]]) -> None:
        started = list(futures)
        self._futures += started
        self._in_use.also(started)  # what was taken may have gone to the hashes already

    def finish(self) -> None:
        while len(self.take(_CHUNK)) > 0:
            pass
        self._feed()
        self._let_go(0)

    def _feed(self) -> None:
        """Give the hashes what was taken since the last time."""
        for start in range(self._fed, self._place, _CHUNK):
            self._futures += self._hashes.feed(self._whole[start : min(start + _CHUNK, self._place)])
        self._in_use.add(self._place - self._fed, self._futures)
        self._fed, self._futures = self._place, []
        self._let_go(WINDOW_BYTES)

    def _let_go(self, keep: int) -> None:
        """Hand the memory of what is no longer in use back to the kernel."""
        first = self._released // mmap.PAGESIZE * mmap.PAGESIZE
        self._released += self._in_use.wait(keep)
        last = self._released // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)


class _Stream:
    """A file that is unpacked as it is read."""

    def __init__(self, unpacked: Unpacked) -> None:
        self._unpacked = unpacked
        self._in_use = _InUse()
        self._taken = 0

    def take(self, size: int) -> memoryview:
        parts, left = [], size
        while left and (part := self._unpacked.read(min(left, _CHUNK))):
            parts.append(part)
            left -= len(part)
        self._taken += size - left
        return memoryview(parts[0] if len(parts) == 1 else b"".join(parts))

    def used_by(self, futures: Iterable[Future[Any]]) -> None:
        self._in_use.add(self._taken, list(futures))
        self._taken = 0
        self._in_use.wait(WINDOW_BYTES)


class _Fed(io.RawIOBase):
    """The packed file itself, its hashes fed with what is read."""

    def __init__(self, raw: BinaryIO, hashes: Hashes) -> None:
        self._raw, self._hashes = raw, hashes
        self._fed = 0
        self._waiting: deque[Future[None]] = deque()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        content = self._raw.read(len(view))
        view[: len(content)] = content
        self._feed(content)
        return len(content)

    def _feed(self, content: bytes) -> None:
        """Feed what was not fed before: unpackers step back now and then."""
        fresh = self._raw.tell() - self._fed
        if fresh > 0:
            self._fed += fresh
            self._waiting.extend(self._hashes.feed(content[-fresh:]))
        while len(self._waiting) > 16:
            self._waiting.popleft().result()

    def drain(self) -> None:
        """Read what the unpacker left."""
        self._raw.seek(self._fed)
        while self.read(_CHUNK):
            pass


@contextmanager
def opened(path: Path, hashes: Hashes) -> Iterator[tuple[Source, bool]]:
    """Open a file for one reading; whether it is compressed as a whole.

    Afterwards the hashes have seen the whole file, wherever the reading ended. Raises `Fault` where the first bytes tell
    that nothing can be read.
    """
    with path.open("rb") as raw:
        start = raw.read(START_BYTES)
        raw.seek(0)
        if not start:
            raise Fault(Finding("empty_file", "The file is empty.", found="0 bytes", expected="a FITS file"))
        name = packing(start)
        if name is None:
            # Not closed by hand: what still looks at its bytes (an exception on its way) may do so.
            view = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)
            view.madvise(mmap.MADV_SEQUENTIAL)
            mapped = _Mapped(view, hashes)
            try:
                yield mapped, False
            finally:
                mapped.finish()
            return
        fed = _Fed(raw, hashes)
        try:
            if not is_readable(name):
                raise Fault(_unsupported(name))
            try:
                unpacked = Unpacked(cast(BinaryIO, fed), name)
            except PackedError as error:
                raise Fault(damaged(error)) from error
            yield _Stream(unpacked), True
        finally:
            fed.drain()


def _unsupported(name: str) -> Finding:
    return Finding(
        "unsupported_compression",
        "The file is compressed in a way that is not read here.",
        found=name,
        expected=FORMATS,
    )


def damaged(error: PackedError) -> Finding:
    """Say that a compressed stream is damaged."""
    return Finding(
        "damaged_compression",
        "The compressed file cannot be unpacked to its end.",
        found=str(error) or "it ends before its time",
        expected="a whole gzip, bzip2 or compress stream",
    )
