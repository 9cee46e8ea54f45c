"""From message to effect, exactly once.

A message is fetched, its body read, its handler run, and what came of it committed in one
transaction together with the mark that it was handled. Only then is it acknowledged. Whatever is
killed at whatever moment: either the transaction is there, and a redelivery finds the mark, or it
is not, and a redelivery does the work.

JetStream redelivers without limit; real failures are counted in the store instead. Its own limit
cannot tell a message that fails from one that waits for PostgreSQL, and drops both in silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
import uuid
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import structlog
from nats.aio.msg import Msg
from spica_proto.envelope import child_traceparent, derived_id, header
from spica_proto.streams import STREAM, Consumer
from spica_proto.subjects import BY_MODEL, BY_NAME

from spica_runtime import provenance
from spica_runtime.bus import Bus
from spica_runtime.database import CONNECTION_ERRORS, STORE_AWAY_ERRORS
from spica_runtime.deadletters import ONLY_HEADER, bury, queries
from spica_runtime.errors import NotRetriable, SpicaError, Unavailable
from spica_runtime.handling import Delivery, Handler, Outcome, Routes, Transaction
from spica_runtime.metrics import Metrics
from spica_runtime.outbox import Relay, ensure_stream, publish_in
from spica_runtime.pg import Pool
from spica_runtime.receiving import BUS_ERRORS, Puller, acknowledge, heartbeat, read_body, read_delivery
from spica_runtime.settings import ServiceSettings
from spica_runtime.sorting import SORTING_AT_A_TIME, Sorter
from spica_runtime.tasks import end

log = structlog.get_logger(__name__)

_UNAVAILABLE_DELAY_S = 2.0
# A message under which workers died this often, without any exception, is taken to be the cause.
_MAX_DEATHS = 20


class _AlreadyHandled(Exception):
    pass


class _Elsewhere(Exception):
    """What was worked on is another node's by now."""


class Dispatcher:
    """Runs the handlers of one service."""

    def __init__(
        self,
        service: str,
        routes: Routes,
        *,
        pool: Pool,
        bus: Bus,
        relay: Relay,
        settings: ServiceSettings,
        metrics: Metrics,
        sorter: Sorter | None = None,
    ) -> None:
        self.service = service
        self._routes = routes
        self._pool = pool
        self._bus = bus
        self._relay = relay
        self._settings = settings
        self._metrics = metrics
        self._sorter = sorter
        self._in_flight: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Handle messages until told to stop; then give work in flight its grace, then cancel it."""
        loops = [asyncio.create_task(loop, name=name) for name, loop in self._loops(stop)]
        await stop.wait()
        await end(*loops)
        if self._in_flight:
            log.info("waiting for work in flight", messages=len(self._in_flight))
            _, late = await asyncio.wait(self._in_flight, timeout=self._settings.shutdown_grace_s)
            await end(*late)

    def _loops(self, stop: asyncio.Event) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
        """What fetches messages: from the stream; with images on nodes, from this node's queues, too."""
        sorter = self._sorter
        for subject, handler in self._routes.items():
            at = BY_NAME[subject].at
            for _ in range(self._settings.slots(subject)):
                if sorter is None or at == "anywhere":
                    events = self._stream(subject)
                    yield f"fetch {subject}", self._fetch_loop(subject, handler, events, stop)
                    continue
                queue = sorter.queue(subject)
                yield f"work off {subject}", self._fetch_loop(subject, handler, queue, stop)
                if at == "reader":
                    events = sorter.events(subject, self._mend_stream)
                    yield f"fetch {subject}", self._fetch_loop(subject, handler, events, stop)
            if sorter is not None and at not in ("anywhere", "reader"):
                for _ in range(SORTING_AT_A_TIME):
                    events = sorter.events(subject, self._mend_stream)
                    yield f"sort {subject}", sorter.sort(subject, events, stop)
        if sorter is not None:
            yield "relieve dead nodes", sorter.relieve(stop)

    def _stream(self, subject: str) -> Puller:
        async def ensure() -> str:
            await self._bus.ensure_consumers(self.service)
            return Consumer(self.service, subject).durable

        return Puller(self._bus, STREAM, ensure=ensure, mend=self._mend_stream)

    async def _fetch_loop(
        self, subject: str, handler: Handler[Any], source: Puller, stop: asyncio.Event
    ) -> None:
        while not stop.is_set():
            message = await source.fetch()
            if message is not None:
                task = asyncio.create_task(self._handle(subject, handler, message))
                self._in_flight.add(task)
                task.add_done_callback(self._in_flight.discard)
                await asyncio.wait({task})  # which goes on when this loop is told to end

    async def _mend_stream(self) -> None:
        """A stream that was lost while services run is made again and filled from the outbox."""
        try:
            await ensure_stream(self._bus, self._pool)
        except (*BUS_ERRORS, *CONNECTION_ERRORS) as error:
            log.warning("stream is gone", error=str(error) or type(error).__name__)

    async def _handle(self, subject: str, handler: Handler[Any], message: Msg) -> None:
        """One delivery, from beginning to its acknowledgement. Never raises but when cancelled."""
        delivery = read_delivery(subject, message)
        structlog.contextvars.bind_contextvars(subject=subject, event_id=delivery.event_id)
        begun = time.monotonic()
        self._metrics.begun()
        outcome = "cancelled"
        try:
            async with heartbeat(message):
                outcome = await self._process(subject, handler, message, delivery)
        except asyncio.CancelledError:
            with contextlib.suppress(*BUS_ERRORS):
                await self._give_back(message, delivery, 0.1)
            raise
        except Exception:
            # A fault of the dispatcher itself: the message stays unacknowledged and comes again.
            outcome = "fault"
            log.exception("dispatch failed")
        finally:
            self._metrics.ended(subject, outcome, time.monotonic() - begun)

    async def _process(self, subject: str, handler: Handler[Any], message: Msg, delivery: Delivery) -> str:
        only = header(message.headers, ONLY_HEADER)
        if only is not None and only != self.service:
            await acknowledge(message)
            return "not_for_us"
        try:
            attempt = await queries.begin_attempt(
                self._pool, service=self.service, event_id=delivery.event_id
            )
            if attempt is None:
                await acknowledge(message)
                return "repeat"
            if await self._sent_on(subject, message, delivery):
                return "sent_on"
            deaths = attempt["begun"] - 1 - attempt["failed"]
            if deaths > _MAX_DEATHS:
                return await self._bury(
                    message,
                    delivery,
                    NotRetriable(
                        "worker_died", f"The worker died {deaths} times while handling this message."
                    ),
                )
            return await self._attempt(subject, handler, message, delivery)
        except (*CONNECTION_ERRORS, Unavailable) as error:
            code = error.code if isinstance(error, Unavailable) else "store_unreachable"
            log.warning("waits", code=code, error=str(error) or type(error).__name__)
            after_s = error.after_s if isinstance(error, Unavailable) else None
            await self._give_back(message, delivery, after_s or _UNAVAILABLE_DELAY_S)
            return "waits"

    async def _attempt(self, subject: str, handler: Handler[Any], message: Msg, delivery: Delivery) -> str:
        started = datetime.now(UTC)
        try:
            body = read_body(subject, message)
            outcome = await handler(body, delivery)
            await self._commit(handler, message, delivery, outcome, started)
        except _AlreadyHandled:
            await queries.end_attempts(self._pool, service=self.service, event_id=delivery.event_id)
            await acknowledge(message)
            return "repeat"
        except _Elsewhere:
            if not await self._sent_on(subject, message, delivery, began=True):
                await self._give_back(message, delivery, 0.1)  # it came back meanwhile
            return "sent_on"
        except (Unavailable, *STORE_AWAY_ERRORS):
            raise
        except CONNECTION_ERRORS:
            if await self._store_answers():
                return await self._failed(message, delivery, _as_bug())
            raise
        except SpicaError as error:
            return await self._failed(message, delivery, error)
        except Exception:
            log.exception("handler failed")
            return await self._failed(message, delivery, _as_bug())
        self._relay.wake()
        await acknowledge(message)
        log.info("handled", about=outcome.about, result=outcome.summary)
        return "handled"

    async def _sent_on(self, subject: str, message: Msg, delivery: Delivery, *, began: bool = False) -> bool:
        """Send on what is another node's; it then holds nothing against the message here."""
        sorter = self._sorter
        if sorter is None or (node_id := await sorter.elsewhere(subject, message)) is None:
            return False
        if began:
            await sorter.leave_behind(subject, message)
        await queries.end_attempts(self._pool, service=self.service, event_id=delivery.event_id)
        await sorter.send_on(node_id, message, delivery)
        log.info("sent on", node=node_id)
        return True

    async def _commit(
        self,
        handler: Handler[Any],
        message: Msg,
        delivery: Delivery,
        outcome: Outcome,
        started: datetime,
    ) -> None:
        """Results, provenance, outgoing events and the inbox mark: all or nothing."""
        activity = provenance.Activity(
            activity_id=str(uuid.uuid4()),
            service=self.service,
            name=getattr(handler, "__name__", type(handler).__name__),
            started_at=started,
            ended_at=datetime.now(UTC),
            settings=self._settings.model_dump(mode="json"),
            node_id=self._sorter.node_id if self._sorter else None,
        )
        async with self._pool.acquire() as connection, connection.transaction():
            marked = await queries.mark_handled(
                connection, service=self.service, event_id=delivery.event_id, subject=delivery.subject
            )
            if marked == "INSERT 0 0":
                raise _AlreadyHandled
            if self._sorter is not None and await self._sorter.hold(connection, delivery.subject, message):
                raise _Elsewhere
            transaction = Transaction(connection, list(outcome.events))
            if outcome.save is not None:
                await outcome.save(transaction)
            noted = replace(outcome, log=(*outcome.log, *transaction.notes))
            await provenance.record(connection, activity, delivery, noted)
            for index, event in enumerate(transaction.events):
                name = BY_MODEL[type(event)].name
                await publish_in(
                    connection,
                    event,
                    source=f"/spica/{self.service}",
                    event_id=derived_id(self.service, delivery.event_id, name, index),
                    traceparent=child_traceparent(delivery.traceparent),
                )
            await queries.end_attempts(connection, service=self.service, event_id=delivery.event_id)

    async def _failed(self, message: Msg, delivery: Delivery, error: SpicaError) -> str:
        if await self._sent_on(delivery.subject, message, delivery, began=True):
            return "sent_on"  # its files went away under the handler's hands, for one
        if isinstance(error, NotRetriable):
            return await self._bury(message, delivery, error)
        failures = await queries.count_failure(self._pool, service=self.service, event_id=delivery.event_id)
        if failures is None:
            await acknowledge(message)  # another delivery of it was handled meanwhile
            return "repeat"
        if failures >= self._settings.max_attempts:
            return await self._bury(message, delivery, error)
        delays = self._settings.retry_delays_s
        delay = delays[min(failures - 1, len(delays) - 1)]
        log.warning("failed, will try again", code=error.code, error=error.message, delay_s=delay)
        await message.nak(delay=delay)
        return "retry"

    async def _bury(self, message: Msg, delivery: Delivery, error: SpicaError) -> str:
        async with self._pool.acquire() as connection, connection.transaction():
            marked = await queries.mark_handled(
                connection, service=self.service, event_id=delivery.event_id, subject=delivery.subject
            )
            if marked != "INSERT 0 0":
                attempts = await connection.fetchval(
                    "SELECT begun FROM attempts WHERE service = $1 AND event_id = $2",
                    self.service,
                    delivery.event_id,
                )
                await bury(
                    connection,
                    self.service,
                    delivery,
                    message.headers or {},
                    message.data,
                    error,
                    attempts or 1,
                )
                await queries.end_attempts(connection, service=self.service, event_id=delivery.event_id)
        self._relay.wake()
        await acknowledge(message)
        log.error("dead letter", code=error.code, error=error.message)
        return "dead_letter"

    async def _give_back(self, message: Msg, delivery: Delivery, delay_s: float) -> None:
        """Let it come again later, without holding this attempt against the message."""
        with contextlib.suppress(*CONNECTION_ERRORS, Unavailable):
            await asyncio.wait_for(
                queries.forgive_attempt(self._pool, service=self.service, event_id=delivery.event_id),
                timeout=2,
            )
        with contextlib.suppress(*BUS_ERRORS):
            await message.nak(delay=delay_s)

    async def _store_answers(self) -> bool:
        """Whether PostgreSQL is there: an OSError of the handler's own is not the store's."""
        try:
            return await asyncio.wait_for(self._pool.fetchval("SELECT true"), timeout=3) is True
        except CONNECTION_ERRORS:
            return False


def _as_bug() -> SpicaError:
    """The exception being handled, as an error with a code; the traceback's end goes along."""
    text = traceback.format_exc().strip().splitlines()
    where = next((line.strip() for line in reversed(text) if line.lstrip().startswith("File ")), "")
    return SpicaError("internal_error", f"A fault inside Spica: {text[-1]}", {"where": where})
