"""Polling of all watches, in the background of each ingest service. Any number of them share the work.

A watch is polled by one service at a time: it is held by a row in the store, for a while, renewed while the pass goes
on. Whatever a pass writes is written as the holder or not at all, so that one that was suspended and comes back after
its hold was over writes nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import structlog
from spica_runtime.database import CONNECTION_ERRORS
from spica_runtime.errors import SpicaError
from spica_runtime.tasks import end

from spica_ingest.watching.discovery import Discovery, Pass
from spica_ingest.watching.store import HOLD_S, Held, LostHold, WatchStore, new_holder

log = structlog.get_logger(__name__)

AT_ONCE = 4
"""Watches that one service polls at the same time: a slow one does not hold the others."""
_IDLE_S = 5.0
_STORE_AWAY_S = 1.0
_GOES_ON_S = 30.0
_LONGEST_PAUSE_S = 900.0


class Poller:
    """Polls watches as they become due."""

    def __init__(self, store: WatchStore, discovery: Discovery, *, interval_s: float) -> None:
        self._store = store
        self._discovery = discovery
        self._interval_s = interval_s
        self._running: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Poll until told to stop; what is under way is then broken off between two pages."""
        try:
            while not stop.is_set():
                try:
                    wait_s = await self._start_due()
                except CONNECTION_ERRORS as error:
                    log.warning("watches wait for the store", error=str(error) or type(error).__name__)
                    wait_s = _STORE_AWAY_S
                except Exception:
                    # What is wrong with one watch, or with this code, must not end the service.
                    log.exception("watches cannot be polled")
                    wait_s = _IDLE_S
                await self._pause(stop, wait_s)
        finally:
            await end(*self._running)

    async def _start_due(self) -> float:
        """Start what is due. Returns how long there is nothing to do, in seconds."""
        while True:
            if len(self._running) >= AT_ONCE:
                return _IDLE_S  # the end of a pass cuts this short
            held = await self._store.claim(new_holder())
            if held is None:
                break
            task = asyncio.create_task(self._poll(held), name=f"watch {held.watch.name}")
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        next_s = await self._store.seconds_to_next()
        return _IDLE_S if next_s is None else min(max(next_s, 0.05), _IDLE_S)

    async def _poll(self, held: Held) -> None:
        try:
            made = await make_pass(held, self._store, self._discovery, interval_s=self._interval_s)
        except LostHold as error:
            log.info("watch left to another", watch=held.watch.name, reason=error.message)
        except SpicaError as error:
            log.warning("watch failed", watch=held.watch.name, code=error.code, error=error.message)
        except CONNECTION_ERRORS as error:
            log.warning(
                "watch waits for the store", watch=held.watch.name, error=str(error) or type(error).__name__
            )
        except Exception:
            log.exception("watch failed", watch=held.watch.name)
        else:
            if made.announced or made.waiting:
                log.info(
                    "watch found files",
                    watch=held.watch.name,
                    announced=len(made.announced),
                    waiting=len(made.waiting),
                    more=made.full,
                )

    async def _pause(self, stop: asyncio.Event, wait_s: float) -> None:
        """Until it is time, the stop, or a pass ends: then its place is free, and its watch has a new time."""
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, *self._running}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()


async def make_pass(
    held: Held,
    store: WatchStore,
    discovery: Discovery,
    *,
    interval_s: float,
    tell: Callable[[Pass], None] = lambda _: None,
) -> Pass:
    """Make one pass over a held watch, note how it went, and give the watch back.

    Raises what went wrong, once that is noted.
    """
    interval_s = held.watch.interval_s or interval_s
    try:
        async with _keeping(held, store):
            made = await discovery.look(held, tell)
    except LostHold:
        raise
    except SpicaError as error:
        await store.end(held, error=error, next_s=_after_failure_s(held, interval_s, error))
        raise
    except CONNECTION_ERRORS:
        raise  # the store is away: the hold ends by itself
    except Exception as error:
        fault = SpicaError("internal_error", f"A fault inside Spica: {type(error).__name__}: {error}"[:500])
        await store.end(held, error=fault, next_s=_after_failure_s(held, interval_s, fault))
        raise
    except asyncio.CancelledError:
        # In a task of its own: who ends this one may well cancel it again before the store has answered.
        await asyncio.wait({asyncio.create_task(_let_go(held, store))}, timeout=2)
        raise
    await store.end(held, error=None, next_s=min(interval_s, _GOES_ON_S) if made.full else interval_s)
    return made


async def _let_go(held: Held, store: WatchStore) -> None:
    with contextlib.suppress(*CONNECTION_ERRORS):  # the hold ends by itself
        await store.let_go(held)


def _after_failure_s(held: Held, interval_s: float, error: SpicaError) -> float:
    """Pause after a failed pass: growing, up to a quarter of an hour, and not shorter than the archive asks for."""
    growing = min(interval_s * 2.0 ** min(held.failures, 10), max(interval_s, _LONGEST_PAUSE_S))
    return max(growing, getattr(error, "after_s", None) or 0.0)


@contextlib.asynccontextmanager
async def _keeping(held: Held, store: WatchStore) -> AsyncIterator[None]:
    """Renew the hold while a pass goes on; what was lost all the same shows when the pass writes."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(HOLD_S / 3)
            with contextlib.suppress(*CONNECTION_ERRORS):
                await store.keep(held)

    task = asyncio.create_task(renew())
    try:
        yield
    finally:
        await end(task)
