"""SHA-256 and MD5 of what is read, computed beside the reading: each hash in a thread of its own."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType


@dataclass(frozen=True, slots=True)
class Digests:
    """Size and hashes of a whole file."""

    size_bytes: int
    sha256: str
    md5: str


class Hashes:
    """Hashes that grow with what is fed; `hashlib` lets other threads run meanwhile."""

    def __init__(self, *, wanted: bool = True) -> None:
        self._hashes = (hashlib.sha256(), hashlib.md5(usedforsecurity=False)) if wanted else ()
        # One thread each: a hash takes its blocks in their order.
        self._threads = tuple(ThreadPoolExecutor(1, f"hash {one.name}") for one in self._hashes)
        self._size = 0

    def __enter__(self) -> Hashes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for thread in self._threads:
            thread.shutdown(cancel_futures=True)

    def feed(self, block: memoryview | bytes) -> list[Future[None]]:
        """Add a block; it must stay as it is until the futures are done."""
        self._size += len(block)
        return [
            thread.submit(one.update, block) for thread, one in zip(self._threads, self._hashes, strict=True)
        ]

    def digests(self) -> Digests:
        """All that was fed, where hashes were wanted."""
        for thread in self._threads:
            thread.submit(int).result()  # behind all that was fed
        sha256, md5 = (one.hexdigest() for one in self._hashes)
        return Digests(self._size, sha256, md5)
