"""A bench for services: real NATS, real PostgreSQL, a data folder, and services run in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

from spica_proto.base import Message
from spica_proto.envelope import seal
from spica_proto.subjects import BY_MODEL
from spica_runtime.bus import Bus
from spica_runtime.outbox import publish_in
from spica_runtime.pg import Pool
from spica_runtime.service import Compose, serve
from spica_runtime.settings import PlatformSettings, ServiceSettings
from spica_runtime.storage import DataFolder

M = TypeVar("M", bound=Message)
S = TypeVar("S", bound=ServiceSettings)


@dataclass
class Rig:
    """What an integration test holds in its hands."""

    settings: PlatformSettings
    pool: Pool
    bus: Bus
    data: DataFolder
    stack: AsyncExitStack
    _stops: list[asyncio.Event] = field(default_factory=list)

    async def start(
        self, name: str, settings: S, compose: Compose[S], platform_settings: PlatformSettings | None = None
    ) -> asyncio.Event:
        """Run a service in this process until the test ends (or the returned event is set)."""
        stop, ready = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(
            serve(
                name,
                settings,
                compose,
                platform_settings=platform_settings or self.settings,
                stop=stop,
                ready=ready,
            )
        )

        async def end() -> None:
            stop.set()
            await asyncio.wait_for(task, timeout=60)

        self.stack.push_async_callback(end)
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({task, waiting}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if task.done():
            task.result()
        assert ready.is_set(), f"{name} did not become ready"
        return stop

    async def publish(self, message: Message, *, event_id: str | None = None) -> str:
        """Publish an event as a service would. Returns its id."""
        await self.bus.ensure_stream()
        envelope = seal(message, source="/test", event_id=event_id)
        await self.bus.publish(envelope)
        return envelope.event_id

    async def publish_from_outbox(self, message: Message) -> str:
        """Put an event into the outbox, for a running service's relay to publish."""
        async with self.pool.acquire() as connection, connection.transaction():
            return await publish_in(connection, message, source="/test")

    async def events(self, model: type[M]) -> list[M]:
        """All events of one kind that are in the stream now, in order."""
        subject = BY_MODEL[model].name
        await self.bus.ensure_stream()
        subscription = await self.bus.js.subscribe(subject, ordered_consumer=True)
        try:
            info = await subscription.consumer_info()
            found = []
            for _ in range((info.num_pending or 0) + (info.delivered.consumer_seq if info.delivered else 0)):
                message = await subscription.next_msg(timeout=5)
                found.append(model.model_validate_json(message.data))
            return found
        finally:
            await subscription.unsubscribe()

    async def wait_for(
        self,
        model: type[M],
        *,
        count: int = 1,
        where: Callable[[M], bool] = lambda _: True,
        timeout_s: float = 60,
    ) -> list[M]:
        """Wait until that many events of one kind (that fulfil `where`) are in the stream."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = [event for event in await self.events(model) if where(event)]
            if len(found) >= count:
                return found
            if time.monotonic() > deadline:
                rows = await self.pool.fetch("SELECT service, subject, code, message FROM dead_letters")
                raise AssertionError(
                    f"{len(found)} of {count} {model.__name__} within {timeout_s} s; "
                    f"dead letters: {[dict(row) for row in rows]}"
                )
            await asyncio.sleep(0.1)

    async def until(self, query: str, *arguments: Any, timeout_s: float = 30) -> Any:
        """Wait until a query gives something true."""
        deadline = time.monotonic() + timeout_s
        while True:
            value = await self.pool.fetchval(query, *arguments)
            if value:
                return value
            assert time.monotonic() < deadline, f"still {value!r} after {timeout_s} s: {query}"
            await asyncio.sleep(0.05)
