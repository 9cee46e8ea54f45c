"""The outbox: events leave in the transaction that made them true, and a relay publishes them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiosql
import nats.errors
import nats.js.errors
import structlog
from spica_proto.base import Message
from spica_proto.envelope import Envelope, seal

from spica_runtime.bus import Bus
from spica_runtime.database import CONNECTION_ERRORS
from spica_runtime.pg import Connection, Pool

log = structlog.get_logger(__name__)
queries = aiosql.from_path(Path(__file__).parent / "outbox.sql", "asyncpg")

_BATCH = 128
_REFUSALS = (nats.errors.MaxPayloadError, nats.errors.BadSubjectError, nats.js.errors.BadRequestError)
_POLL_S = 1.0
_RETRY_S = 1.0
_MARK_TIMEOUT_S = 3600.0  # an outbox of many years


async def put_in(connection: Connection, envelope: Envelope) -> None:
    """Add an event to the outbox, within the caller's transaction."""
    await queries.insert_outbox(
        connection,
        message_id=envelope.event_id,
        subject=envelope.subject,
        headers=envelope.headers,
        body=envelope.body.decode(),
    )


async def publish_in(
    connection: Connection,
    message: Message,
    *,
    source: str,
    event_id: str | None = None,
    traceparent: str | None = None,
) -> str:
    """Seal a message and add it to the outbox, within the caller's transaction. Returns its id."""
    envelope = seal(message, source=source, event_id=event_id, traceparent=traceparent)
    await put_in(connection, envelope)
    return envelope.event_id


async def ensure_stream(bus: Bus, pool: Pool) -> None:
    """Make the stream if it is not there; one that was lost is filled again from the outbox.

    Marked first, made then: killed in between, the next one finds no stream and marks again.
    """
    if await bus.has_stream():
        return
    marked = await pool.execute(queries.mark_all_unsent.sql, timeout=_MARK_TIMEOUT_S)
    await bus.make_stream()
    log.info("stream made", replayed=marked)


class Relay:
    """Publishes what stands in the outbox. Any number may run: each row is held by one at a time."""

    def __init__(self, pool: Pool, bus: Bus) -> None:
        self._pool = pool
        self._bus = bus
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Tell the relay that there is something to send, so that it need not wait for its next look."""
        self._news.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Send until told to stop, then once more what is left."""
        while not stop.is_set():
            self._news.clear()
            try:
                sent = await self.send_batch()
            except (*CONNECTION_ERRORS, nats.errors.Error, nats.js.errors.Error) as error:
                log.warning("outbox waits", error=str(error) or type(error).__name__)
                await _sleep_or(stop, _RETRY_S)
                continue
            if sent < _BATCH:
                await self._wait(stop)
        await self._drain()

    async def send_batch(self) -> int:
        """Publish one batch and mark what the stream has. Returns how many rows were looked at.

        One that the bus will never take (too large, a header it refuses) is marked with the reason and
        left behind. Raises what kept any other from being sent, after the rest is marked.
        """
        fault: BaseException | None = None
        async with self._pool.acquire() as connection, connection.transaction():
            rows = [row async for row in queries.take_unsent(connection, limit=_BATCH)]
            results = await asyncio.gather(*(self._send(dict(row)) for row in rows), return_exceptions=True)
            sent = []
            for row, result in zip(rows, results, strict=True):
                if result is None:
                    sent.append(row["outbox_id"])
                elif isinstance(result, _REFUSALS):
                    log.error("event refused by the bus", message_id=row["message_id"], error=repr(result))
                    await queries.mark_refused(connection, outbox_id=row["outbox_id"], refused=repr(result))
                else:
                    fault = result
            if sent:
                await queries.mark_sent(connection, outbox_ids=sent)
        if fault is not None:
            raise fault
        return len(rows)

    async def _send(self, row: dict[str, Any]) -> None:
        await self._bus.js.publish(row["subject"], row["body"].encode(), timeout=10, headers=row["headers"])

    async def _wait(self, stop: asyncio.Event) -> None:
        waiters = {asyncio.create_task(event.wait()) for event in (self._news, stop)}
        _, pending = await asyncio.wait(waiters, timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()

    async def _drain(self) -> None:
        try:
            while await asyncio.wait_for(self.send_batch(), timeout=5) == _BATCH:
                pass
        except (TimeoutError, *CONNECTION_ERRORS, nats.errors.Error, nats.js.errors.Error) as error:
            log.info("outbox left for the next start", error=str(error) or type(error).__name__)


async def _sleep_or(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), timeout=seconds)
    except TimeoutError:
        return
