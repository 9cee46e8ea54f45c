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
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import nats.errors
import nats.js.errors
import structlog
from nats.aio.msg import Msg
from nats.js.client import JetStreamContext
from pydantic import ValidationError
from spica_proto.base import Message
from spica_proto.envelope import child_traceparent, derived_id, header, new_traceparent
from spica_proto.streams import ACK_WAIT_S, STREAM, Consumer
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
from spica_runtime.settings import ServiceSettings
from spica_runtime.tasks import end

log = structlog.get_logger(__name__)

_FETCH_TIMEOUT_S = 5.0
_UNAVAILABLE_DELAY_S = 2.0
# A message under which workers died this often, without any exception, is taken to be the cause.
_MAX_DEATHS = 20

BUS_ERRORS = (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError)


class _AlreadyHandled(Exception):
    pass


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
    ) -> None:
        self.service = service
        self._routes = routes
        self._pool = pool
        self._bus = bus
        self._relay = relay
        self._settings = settings
        self._metrics = metrics
        self._in_flight: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Handle messages until told to stop; then give work in flight its grace, then cancel it."""
        loops = [
            asyncio.create_task(self._fetch_loop(subject, handler, stop), name=f"fetch {subject}")
            for subject, handler in self._routes.items()
        ]
        await stop.wait()
        await end(*loops)
        if self._in_flight:
            log.info("waiting for work in flight", messages=len(self._in_flight))
            _, late = await asyncio.wait(self._in_flight, timeout=self._settings.shutdown_grace_s)
            await end(*late)

    async def _fetch_loop(self, subject: str, handler: Handler[Any], stop: asyncio.Event) -> None:
        slots = asyncio.Semaphore(self._settings.concurrency)
        subscription: JetStreamContext.PullSubscription | None = None
        while not stop.is_set():
            await slots.acquire()
            slots.release()
            free = max(1, slots._value)
            begun = time.monotonic()
            try:
                if subscription is None:
                    await self._bus.ensure_consumers(self.service)
                    durable = Consumer(self.service, subject).durable
                    subscription = await self._bus.js.pull_subscribe_bind(durable, stream=STREAM)
                messages = await subscription.fetch(free, timeout=_FETCH_TIMEOUT_S)
            except TimeoutError:
                if time.monotonic() - begun < _FETCH_TIMEOUT_S / 2:
                    # Nobody answered: the server is away, or the consumer is gone. Bind again.
                    await _unbind(subscription)
                    subscription = None
                    await asyncio.sleep(0.5)
                continue
            except Exception as error:
                # Also what nats-py should not raise: this loop must live as long as the service.
                log.warning("bus does not answer", error=str(error) or type(error).__name__)
                await _unbind(subscription)
                subscription = None
                await asyncio.sleep(1.0)
                if isinstance(error, nats.js.errors.NotFoundError):
                    await self._mend_stream()
                continue
            for message in messages:
                await slots.acquire()
                task = asyncio.create_task(self._handle(subject, handler, message))
                self._in_flight.add(task)
                task.add_done_callback(self._in_flight.discard)
                task.add_done_callback(lambda _: slots.release())

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
            async with _heartbeat(message):
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
            await _ack(message)
            return "not_for_us"
        try:
            attempt = await queries.begin_attempt(
                self._pool, service=self.service, event_id=delivery.event_id
            )
            if attempt is None:
                await _ack(message)
                return "repeat"
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
            await self._give_back(message, delivery, _UNAVAILABLE_DELAY_S)
            return "waits"

    async def _attempt(self, subject: str, handler: Handler[Any], message: Msg, delivery: Delivery) -> str:
        started = datetime.now(UTC)
        try:
            body = _read_body(subject, message)
            outcome = await handler(body, delivery)
            await self._commit(handler, delivery, outcome, started)
        except _AlreadyHandled:
            await queries.end_attempts(self._pool, service=self.service, event_id=delivery.event_id)
            await _ack(message)
            return "repeat"
        except (Unavailable, *STORE_AWAY_ERRORS):
            raise
        except NotRetriable as error:
            return await self._bury(message, delivery, error)
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
        await _ack(message)
        log.info("handled", about=outcome.about, result=outcome.summary)
        return "handled"

    async def _commit(
        self, handler: Handler[Any], delivery: Delivery, outcome: Outcome, started: datetime
    ) -> None:
        """Results, provenance, outgoing events and the inbox mark: all or nothing."""
        activity = provenance.Activity(
            activity_id=str(uuid.uuid4()),
            service=self.service,
            name=getattr(handler, "__name__", type(handler).__name__),
            started_at=started,
            ended_at=datetime.now(UTC),
            settings=self._settings.model_dump(mode="json"),
        )
        async with self._pool.acquire() as connection, connection.transaction():
            marked = await queries.mark_handled(
                connection, service=self.service, event_id=delivery.event_id, subject=delivery.subject
            )
            if marked == "INSERT 0 0":
                raise _AlreadyHandled
            transaction = Transaction(connection, list(outcome.events))
            if outcome.save is not None:
                await outcome.save(transaction)
            await provenance.record(connection, activity, delivery, outcome)
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
        failures = await queries.count_failure(self._pool, service=self.service, event_id=delivery.event_id)
        if failures is None:
            await _ack(message)  # another delivery of it was handled meanwhile
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
        await _ack(message)
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


def _read_body(subject: str, message: Msg) -> Message:
    model = BY_NAME[subject].model
    try:
        return model.model_validate_json(message.data or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the body"
        raise NotRetriable(
            "invalid_message",
            f"The body of {subject} does not fit its schema: {place}: {first['msg']} "
            f"(found {str(first.get('input'))[:80]!r}; {error.error_count()} fault(s) in all). "
            f"The schema is proto/schemas/{subject}.v{model.schema_version}.json.",
            {"faults": error.error_count()},
        ) from error


def read_delivery(subject: str, message: Msg) -> Delivery:
    """Identity of a message: from its headers, or from its place in the stream where it has none.

    The time of storage is part of it, so that a stream made anew, which counts from one again,
    does not repeat ids.
    """
    headers: Mapping[str, str] = message.headers or {}
    metadata = message.metadata
    stored_at = metadata.timestamp.astimezone(UTC)
    event_id = header(headers, "ce-id") or header(headers, "Nats-Msg-Id")
    if event_id is None or not event_id.isprintable():
        event_id = derived_id(STREAM, metadata.sequence.stream, stored_at.isoformat())
    moment = stored_at
    if text := header(headers, "ce-time"):
        with contextlib.suppress(ValueError):
            moment = datetime.fromisoformat(text)
    return Delivery(
        event_id=event_id,
        subject=subject,
        time=moment if moment.tzinfo else moment.replace(tzinfo=UTC),
        source=header(headers, "ce-source") or "anyone",
        traceparent=header(headers, "traceparent") or new_traceparent(),
        attempt=int(metadata.num_delivered or 1),
    )


async def _unbind(subscription: JetStreamContext.PullSubscription | None) -> None:
    if subscription is not None:
        with contextlib.suppress(*BUS_ERRORS):
            await subscription.unsubscribe()


async def _ack(message: Msg) -> None:
    # If the bus is away the message comes again, and the inbox knows it.
    with contextlib.suppress(*BUS_ERRORS):
        await message.ack()


@contextlib.asynccontextmanager
async def _heartbeat(message: Msg) -> AsyncIterator[None]:
    """Tell JetStream that work goes on, as long as it does."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(ACK_WAIT_S / 3)
            with contextlib.suppress(*BUS_ERRORS):
                await message.in_progress()

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
