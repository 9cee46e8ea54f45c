"""Messages as they come from JetStream: fetched, identified, read, kept alive, acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime

import nats.errors
import nats.js.errors
import structlog
from nats.aio.msg import Msg
from nats.js.client import JetStreamContext
from pydantic import ValidationError
from spica_proto.base import Message
from spica_proto.envelope import derived_id, header, new_traceparent
from spica_proto.streams import ACK_WAIT_S, STREAM
from spica_proto.subjects import BY_NAME

from spica_runtime.bus import Bus
from spica_runtime.errors import NotRetriable
from spica_runtime.handling import Delivery

log = structlog.get_logger(__name__)

BUS_ERRORS = (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError)

_FETCH_TIMEOUT_S = 5.0


class Puller:
    """What one durable consumer has, one by one, for as long as the service lives: it binds again after every fault.

    One by one, since nats-py holds messages back for the whole timeout, now and then, when it is asked for
    several and fewer come. Who wants several at a time runs several of these.
    """

    def __init__(
        self,
        bus: Bus,
        stream: str,
        *,
        ensure: Callable[[], Awaitable[str]],
        mend: Callable[[], Awaitable[None]],
    ) -> None:
        """`ensure` makes sure of the consumer and gives its durable name, `mend` of a stream that is gone."""
        self._bus = bus
        self._stream = stream
        self._ensure = ensure
        self._mend = mend
        self._subscription: JetStreamContext.PullSubscription | None = None
        self._rebind = False

    async def fetch(self) -> Msg | None:
        """The next message, if it comes within a few seconds; None where nothing came or the bus is away."""
        begun = time.monotonic()
        try:
            if self._rebind:
                self._rebind = False
                await self._unbind()
            if self._subscription is None:
                self._subscription = await self._bus.js.pull_subscribe_bind(
                    await self._ensure(), stream=self._stream
                )
            (message,) = await self._subscription.fetch(1, timeout=_FETCH_TIMEOUT_S)
            return message
        except asyncio.CancelledError:
            # Else the server goes on giving messages to whom nobody listens, and they come again much later.
            await self._unbind()
            raise
        except TimeoutError:
            if time.monotonic() - begun < _FETCH_TIMEOUT_S / 2:
                # Nobody answered: the server is away, or the consumer is gone. Bind again.
                await self._unbind()
                await asyncio.sleep(0.5)
        except Exception as error:
            # Also what nats-py should not raise: who fetches must live as long as the service.
            log.warning("bus does not answer", error=str(error) or type(error).__name__)
            await self._unbind()
            await asyncio.sleep(1.0)
            if isinstance(error, nats.js.errors.NotFoundError):
                await self._mend()
        return None

    def bind_again(self) -> None:
        """Ask for the consumer anew at the next fetch."""
        self._rebind = True

    async def _unbind(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        waiting = subscription._sub._pending_queue
        with contextlib.suppress(*BUS_ERRORS):
            await subscription.unsubscribe()
        # What came at the last moment is given back: unacknowledged, it would come again much later.
        while not waiting.empty():
            message = waiting.get_nowait()
            if not JetStreamContext.is_status_msg(message):
                with contextlib.suppress(*BUS_ERRORS):
                    await message.nak()


def read_body(subject: str, message: Msg) -> Message:
    """The message's body. Raises `NotRetriable` (`invalid_message`)."""
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


async def acknowledge(message: Msg) -> None:
    """Say that nothing is left to do. If the bus is away the message comes again, and the inbox knows it."""
    with contextlib.suppress(*BUS_ERRORS):
        await message.ack()


@contextlib.asynccontextmanager
async def heartbeat(message: Msg) -> AsyncIterator[None]:
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
