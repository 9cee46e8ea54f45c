"""With images placed on nodes: every message about an image or a stack goes to the node that holds it.

The stream of events stays as it is. Whichever node's service hears such an event puts a copy into the
queue of the node that holds the image or stack, and only then acknowledges it; that node's service
works its queue off. What finds that the image has meanwhile gone elsewhere is sent on in the same way.
So an event is always in the stream's durable consumer, in a queue, or in the inbox of who handled it:
none can be passed by while an image moves. What was sent on twice, the inbox sees.

Who holds what stands in the store, and is looked at once more, under a lock, in the transaction that
commits the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
from collections.abc import Awaitable, Callable

import nats.js.errors
import structlog
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, RetentionPolicy, StorageType, StreamConfig
from spica_proto.envelope import derived_id, header
from spica_proto.streams import (
    ACK_WAIT_S,
    CONSUMERS,
    DUPLICATE_WINDOW_S,
    NODE_STREAM,
    NODE_STREAM_SUBJECTS,
    STREAM,
    Consumer,
)
from spica_proto.subjects import BY_NAME, At

from spica_runtime.bus import Bus
from spica_runtime.database import CONNECTION_ERRORS
from spica_runtime.deadletters import ONLY_HEADER
from spica_runtime.handling import Delivery
from spica_runtime.nodes import queries
from spica_runtime.pg import Connection, Pool
from spica_runtime.receiving import BUS_ERRORS, Puller, acknowledge, read_delivery
from spica_runtime.settings import PlatformSettings

log = structlog.get_logger(__name__)

SORTING_AT_A_TIME = 4
"""Messages of one subject."""
_AGAIN_S = 2.0
_PUBLISH_TIMEOUT_S = 10.0
# A message that waits for its node to come back is looked at so often, or as often as it takes a node to be dead.
_STILL_DEAD_S = 30.0

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_KEYS: dict[At, str] = {"reader": "node", "image": "image_id", "stack": "stack_id", "placement": "image_id"}
_OWNER = {
    "image": queries.owner_of_image,
    "stack": queries.owner_of_stack,
    "placement": queries.owner_of_placement,
}
_HOLD = {
    "image": queries.hold_owner_of_image,
    "stack": queries.hold_owner_of_stack,
    "placement": queries.hold_owner_of_placement,
}


def key_of(subject: str, body: bytes) -> str | None:
    """What a message is about, as far as its place matters: the id of an image or stack, or a node's name."""
    try:
        values = json.loads(body or b"{}")
    except ValueError:
        return None
    name = _KEYS.get(BY_NAME[subject].at)
    value = values.get(name) if name is not None and isinstance(values, dict) else None
    # No id holds what PostgreSQL cannot: NUL, and half of a surrogate pair.
    return value if isinstance(value, str) and not _UNSTORABLE.search(value) else None


class Sorter:
    """Knows whose a message is, and sends on what is another node's. One per service process."""

    def __init__(self, service: str, node_id: str, pool: Pool, bus: Bus, settings: PlatformSettings) -> None:
        self.node_id = node_id
        self._service = service
        self._pool = pool
        self._bus = bus
        self._settings = settings
        self._consumers = {
            consumer.subject: consumer
            for consumer in CONSUMERS
            if consumer.service == service and consumer.sorted
        }
        self._sorting: list[Puller] = []
        self._generation = ""

    async def elsewhere(self, subject: str, message: Msg) -> str | None:
        """The other node that this message is for; None: it is for this one."""
        owner = await self._owner(subject, message)
        return None if owner in (None, self.node_id) else owner

    async def _owner(self, subject: str, message: Msg) -> str | None:
        at, key = BY_NAME[subject].at, key_of(subject, message.data)
        if key is None or at == "anywhere":
            return None
        if at == "reader":
            # A name that no node has: whoever heard it tries.
            return key if await queries.marker_of(self._pool, node_id=key) is not None else None
        owner: str | None = await _OWNER[at](self._pool, key=key)
        return owner

    async def hold(self, connection: Connection, subject: str, message: Msg) -> str | None:
        """As `elsewhere`, and it stays so until the transaction ends."""
        at, key = BY_NAME[subject].at, key_of(subject, message.data)
        if key is None or at not in _HOLD:
            return None
        owner: str | None = await _HOLD[at](connection, key=key)
        return None if owner in (None, self.node_id) else owner

    async def leave_behind(self, subject: str, message: Msg) -> None:
        """Work on an image that went elsewhere meanwhile: what was written of it here is to be removed."""
        if (
            BY_NAME[subject].at in ("image", "placement")
            and (image_id := key_of(subject, message.data)) is not None
        ):
            await queries.leave_behind(
                self._pool, node_id=self.node_id, image_id=image_id, keep_s=self._settings.node_keep_s
            )

    async def send_on(self, node_id: str, message: Msg, delivery: Delivery) -> None:
        """Put a message into a node's queue, and only then acknowledge it here. Raises what the bus raises."""
        consumer = self._consumers[delivery.subject]
        metadata = message.metadata
        headers = {
            **{
                name: value
                for name, value in (message.headers or {}).items()
                if not name.lower().startswith("nats-")
            },
            "ce-id": delivery.event_id,
            "ce-time": delivery.time.isoformat(),
            "traceparent": delivery.traceparent,
            # The same message sent on once more is one. Another copy of the same event is not: the one
            # before it may be gone to another node by now.
            "Nats-Msg-Id": derived_id(
                "sent on", delivery.event_id, self._service, metadata.stream, metadata.sequence.stream
            ),
        }
        await self._bus.js.publish(
            consumer.node_subject(node_id), message.data, timeout=_PUBLISH_TIMEOUT_S, headers=headers
        )
        await acknowledge(message)

    # ---- consumers ----

    def events(self, subject: str, mend: Callable[[], Awaitable[None]]) -> Puller:
        """What the stream has of one subject: to be sorted."""

        async def ensure() -> str:
            consumer, generation = self._consumers[subject], await self._know_generation()
            durable = consumer.sorting_durable(generation)
            await self._bus.js.add_consumer(STREAM, _configured(durable, subject))
            return durable

        puller = Puller(self._bus, STREAM, ensure=ensure, mend=mend)
        self._sorting.append(puller)
        return puller

    def queue(self, subject: str) -> Puller:
        """This node's queue of one subject: to be worked off."""

        async def ensure() -> str:
            await self._know_generation()
            return await self._ensure_queue(self._consumers[subject], self.node_id)

        async def mend() -> None:
            with contextlib.suppress(*BUS_ERRORS):
                await self._know_generation()

        return Puller(self._bus, NODE_STREAM, ensure=ensure, mend=mend)

    async def _ensure_queue(self, consumer: Consumer, node_id: str) -> str:
        durable = consumer.node_durable(node_id)
        await self._bus.js.add_consumer(NODE_STREAM, _configured(durable, consumer.node_subject(node_id)))
        return durable

    async def _know_generation(self) -> str:
        """Make sure of the stream of queues. One made anew is filled by reading all events once more."""
        generation = await ensure_queues(self._bus)
        if self._generation not in ("", generation):
            for puller in self._sorting:
                puller.bind_again()
        self._generation = generation
        return generation

    # ---- sorting ----

    async def sort(self, subject: str, source: Puller, stop: asyncio.Event) -> None:
        """Put what the stream has of one subject into the queues of the nodes, until told to stop."""
        while not stop.is_set():
            if (message := await source.fetch()) is not None:
                await self._sort(subject, message)

    async def _sort(self, subject: str, message: Msg) -> None:
        try:
            only = header(message.headers, ONLY_HEADER)
            delivery = read_delivery(subject, message)
            if (only is not None and only != self._service) or await self._handled(delivery):
                await acknowledge(message)
                return
            node_id = await self._owner(subject, message) or self.node_id
            await self.send_on(node_id, message, delivery)
        except (*CONNECTION_ERRORS, *BUS_ERRORS) as error:
            log.warning("cannot sort", subject=subject, error=str(error) or type(error).__name__)
            with contextlib.suppress(*BUS_ERRORS):
                await message.nak(delay=_AGAIN_S)
            if isinstance(error, nats.js.errors.NoStreamResponseError):
                with contextlib.suppress(*BUS_ERRORS):
                    await self._know_generation()
        except Exception:
            # A fault of the sorting itself: the message stays unacknowledged and comes again.
            log.exception("sorting failed", subject=subject)

    async def _handled(self, delivery: Delivery) -> bool:
        found: bool = await queries.handled(self._pool, service=self._service, event_id=delivery.event_id)
        return found

    async def relieve(self, stop: asyncio.Event) -> None:
        """Send on what stands in the queues of dead nodes, where it is another node's by now."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), timeout=2 * self._settings.node_heartbeat_s)
                return
            try:
                rows = queries.dead_nodes(self._pool, dead_after_s=self._settings.node_dead_after_s)
                for node_id in [row["node_id"] async for row in rows]:
                    for subject in self._consumers:
                        await self._relieve(subject, node_id)
            except (*CONNECTION_ERRORS, *BUS_ERRORS) as error:
                log.warning("cannot relieve dead nodes", error=str(error) or type(error).__name__)
            except Exception:
                log.exception("relieving dead nodes failed")

    async def _relieve(self, subject: str, dead: str) -> None:
        consumer = self._consumers[subject]
        await self._ensure_queue(consumer, dead)
        durable = consumer.node_durable(dead)
        info = await self._bus.js.consumer_info(NODE_STREAM, durable)
        waiting = info.num_pending or 0
        if not waiting:
            return
        subscription = await self._bus.js.pull_subscribe_bind(durable, stream=NODE_STREAM)
        sent = 0
        try:
            for _ in range(waiting):
                (message,) = await subscription.fetch(1, timeout=1)
                owner = await self._owner(subject, message) or self.node_id
                if owner == dead:
                    await message.nak(delay=min(_STILL_DEAD_S, self._settings.node_dead_after_s))
                else:
                    await self.send_on(owner, message, read_delivery(subject, message))
                    sent += 1
        except TimeoutError:
            pass  # another node takes them, too
        finally:
            await subscription.unsubscribe()
        if sent:
            log.info("relieved a dead node", node=dead, subject=subject, messages=sent)


def _configured(durable: str, subject: str) -> ConsumerConfig:
    return ConsumerConfig(
        durable_name=durable,
        filter_subject=subject,
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        max_deliver=-1,
        # What waits for a node that is away counts as pending, and must not stand in the way of the rest.
        max_ack_pending=100_000,
    )


async def ensure_queues(bus: Bus) -> str:
    """Make the stream of queues if it is not there. Returns its generation: one that was lost comes back as another.

    The consumers that sort are named after it. So those of a new stream begin with the first event, and what
    stood in the lost one is there again; inboxes drop what was handled. (To delete a consumer and make it
    again is no way to do that: nats-server leaves one without files behind when both happen at once.)
    """
    while True:
        try:
            info = await bus.js.stream_info(NODE_STREAM)
            return str((info.config.metadata or {})["generation"])
        except nats.js.errors.NotFoundError:
            pass
        # Another service was quicker.
        with contextlib.suppress(nats.js.errors.BadRequestError):
            await bus.js.add_stream(
                StreamConfig(
                    name=NODE_STREAM,
                    description="What the services of each node are to do, where images are placed on nodes.",
                    subjects=list(NODE_STREAM_SUBJECTS),
                    retention=RetentionPolicy.WORK_QUEUE,
                    storage=StorageType.FILE,
                    duplicate_window=DUPLICATE_WINDOW_S,
                    allow_direct=True,
                    metadata={"generation": secrets.token_hex(4)},
                )
            )
            log.info("stream of queues made")
