"""How fast: not faster than all transfers together may be, and not slower than makes sense."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

_BURST_S = 0.25


class Throttle:
    """A rate that all who take from it share, in bytes per second; None is no limit.

    Each taker waits until what was taken before it would have passed at that rate, so that order is kept
    and nobody is passed over.
    """

    def __init__(self, per_second: float | None) -> None:
        self._per_second = per_second
        self._free_at = 0.0

    async def take(self, count: int) -> None:
        """Wait until this many more bytes may pass."""
        if self._per_second is None:
            return
        now = time.monotonic()
        self._free_at = max(self._free_at, now - _BURST_S) + count / self._per_second
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)


class TooSlow(Exception):
    """Less came than makes sense."""


class Pace:
    """Sees to it that a sender keeps up a lowest rate.

    Only the time spent waiting for the sender counts, not the time in which we write or hold back.
    """

    def __init__(self, lowest_per_second: float, over_s: float) -> None:
        self._lowest = lowest_per_second
        self._over_s = over_s
        self._waited_s = 0.0
        self._came = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around each wait for bytes."""
        begun = time.monotonic()
        yield
        self._waited_s += time.monotonic() - begun

    def came(self, count: int) -> None:
        """Count bytes. Raises `TooSlow` when the last span of waiting brought too few."""
        self._came += count
        if self._waited_s < self._over_s:
            return
        if self._came < self._lowest * self._waited_s:
            raise TooSlow(f"{self._came} bytes in {self._waited_s:.0f} s")
        self._waited_s, self._came = 0.0, 0
