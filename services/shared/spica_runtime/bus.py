"""NATS JetStream: one stream that keeps every event, durable pull consumers that read it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import nats
import nats.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError
from spica_proto.base import Message
from spica_proto.envelope import Envelope
from spica_proto.streams import ACK_WAIT_S, CONSUMERS, DUPLICATE_WINDOW_S, STREAM, STREAM_SUBJECTS, Consumer
from spica_proto.subjects import BY_MODEL

from spica_runtime.errors import Unavailable
from spica_runtime.settings import PlatformSettings
from spica_runtime.urls import without_password

log = structlog.get_logger(__name__)

_PUBLISH_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Bus:
    """A connection to NATS and its JetStream."""

    nc: Client
    js: JetStreamContext

    async def publish(self, envelope: Envelope) -> int:
        """Publish and wait until the stream has it on disk. Returns its sequence in the stream."""
        ack = await self.js.publish(
            envelope.subject, envelope.body, timeout=_PUBLISH_TIMEOUT_S, headers=envelope.headers
        )
        return int(ack.seq)

    async def tell(self, message: Message) -> None:
        """Say something to whoever listens now: not kept, and lost without harm while the bus is away."""
        subject = BY_MODEL[type(message)]
        assert not subject.kept, f"{subject.name} is kept by the stream: publish it"
        with contextlib.suppress(nats.errors.Error):
            await self.nc.publish(subject.name, message.model_dump_json(exclude_none=True).encode())

    async def has_stream(self) -> bool:
        """Whether the stream is there. One made by an earlier version learns the subjects that came since."""
        try:
            info = await self.js.stream_info(STREAM)
        except NotFoundError:
            return False
        missing = set(STREAM_SUBJECTS) - set(info.config.subjects or ())
        if missing:
            await self.js.update_stream(
                info.config, subjects=[*(info.config.subjects or ()), *sorted(missing)]
            )
            log.info("stream keeps more subjects", added=sorted(missing))
        return True

    async def make_stream(self) -> None:
        """Make the stream; nothing happens where it is there already."""
        await self.js.add_stream(
            StreamConfig(
                name=STREAM,
                description="Every event of Spica, kept for replay.",
                subjects=list(STREAM_SUBJECTS),
                retention=RetentionPolicy.LIMITS,
                storage=StorageType.FILE,
                duplicate_window=DUPLICATE_WINDOW_S,
                allow_direct=True,
            )
        )

    async def ensure_stream(self) -> bool:
        """Make sure the stream is there, for publishers without a store. Returns True if it had to be made."""
        if await self.has_stream():
            return False
        await self.make_stream()
        return True

    async def ensure_consumers(self, service: str) -> None:
        """Make sure the durable consumers of one service are there, reading from the beginning."""
        for consumer in CONSUMERS:
            if consumer.service == service:
                await self.js.add_consumer(STREAM, consumer_config(consumer))


def consumer_config(consumer: Consumer) -> ConsumerConfig:
    """Explicit ack; redelivery without limit, since Spica counts real failures itself (see dispatch)."""
    return ConsumerConfig(
        durable_name=consumer.durable,
        filter_subject=consumer.subject,
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        max_deliver=-1,
        max_ack_pending=1024,
    )


async def _on_reconnect() -> None:
    log.info("bus connection back")


@asynccontextmanager
async def connect_bus(
    settings: PlatformSettings, *, name: str = "spica", wait: bool = False
) -> AsyncIterator[Bus]:
    """Connect to NATS for the length of a block; afterwards it reconnects by itself for ever.

    With `wait`, also the first connection is tried for ever; else a server that cannot be reached
    is `Unavailable` at once.
    """
    closing = connected = told = False

    async def on_error(error: Exception) -> None:
        # While waiting for the first connection nothing else would tell, once; later on_disconnect does.
        nonlocal told
        tell = log.debug if connected or told else log.warning
        told = True
        tell("bus connection error", error=str(error) or type(error).__name__)

    async def on_disconnect() -> None:
        if not closing:
            log.warning("bus connection lost")

    try:
        nc = await nats.connect(
            settings.nats_url,
            name=name,
            connect_timeout=5,
            allow_reconnect=True,
            max_reconnect_attempts=-1 if wait else 3,
            reconnect_time_wait=0.25,
            error_cb=on_error,
            disconnected_cb=on_disconnect,
            reconnected_cb=_on_reconnect,
        )
    except (OSError, nats.errors.Error, TimeoutError) as error:
        raise Unavailable(
            "bus_unreachable",
            f"NATS at {without_password(settings.nats_url)} cannot be reached: {error or type(error).__name__}. "
            "Start it (`spica up` starts one) or set SPICA_NATS_URL.",
        ) from error
    connected = True
    try:
        yield Bus(nc, nc.jetstream())
    finally:
        closing = True
        await nc.close()
