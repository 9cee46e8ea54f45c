"""What the stack service does by itself: standing surveys ask for stacks, and stacks that were overtaken are told."""

from __future__ import annotations

import asyncio
import contextlib

import asyncpg
import structlog
from spica_proto.images import ImageCalibrated, ImageGraded
from spica_proto.stacks import StackStale
from spica_runtime.database import CONNECTION_ERRORS
from spica_runtime.errors import SpicaError
from spica_runtime.handling import Delivery, Outcome, Transaction
from spica_runtime.outbox import publish_in
from spica_runtime.service import Platform

from spica_stack import staleness, surveys
from spica_stack.settings import StackSettings

log = structlog.get_logger(__name__)

POLL_S = 1.0
"""Between two looks for surveys whose time has come: one query of an index."""
SWEEP_S = 60.0
PLANNED_WITHIN_S = 600.0
"""Stacks planned so lately are looked at by themselves: an event may have come before they stood in the store."""
FAULT_S = 300.0
_RETRY_S = 5.0


class Standing:
    """Answers news of images, and looks after surveys."""

    def __init__(self, platform: Platform[StackSettings]) -> None:
        self._pool, self._settings = platform.pool, platform.settings

    # ---- image.calibrated, image.graded ----

    async def calibrated_image(self, message: ImageCalibrated, delivery: Delivery) -> Outcome:
        """A new solution of an image: surveys may want it, stacks with the one before are stale."""
        return self._news(message.image_id)

    async def graded_image(self, message: ImageGraded, delivery: Delivery) -> Outcome:
        """A new grade of an image: surveys may want it now, or not any more; stacks may be stale."""
        return self._news(message.image_id)

    def _news(self, image_id: str) -> Outcome:
        async def save(transaction: Transaction) -> None:
            for event in await staleness.look_at_images(transaction.connection, self._settings, [image_id]):
                transaction.emit(event)
                transaction.note(f"stale: {event.name} ({event.stack_id}): {event.why}")
            if marked := await surveys.touched(transaction.connection, [image_id]):
                transaction.note(f"surveys to be looked at: {', '.join(marked)}")

        return Outcome(save=save, about=image_id, summary="looked for surveys and stacks")

    # ---- in the background ----

    async def watch(self, stop: asyncio.Event) -> None:
        """Look at each survey once it is due. Any number of services may do so at the same time."""
        while not stop.is_set():
            await _sleep_or(stop, POLL_S if await self._look_at_due(stop) else _RETRY_S)

    async def _look_at_due(self, stop: asyncio.Event) -> bool:
        """Look at all that are due; False where any has to wait. None keeps the others waiting."""
        well = True
        try:
            names = await surveys.due(self._pool)
        except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
            log.warning("surveys wait", error=str(error) or type(error).__name__)
            return False
        for name in names:
            if stop.is_set():
                break
            try:
                await self._look(name)
            except (*CONNECTION_ERRORS, asyncpg.PostgresError, SpicaError) as error:
                log.warning("survey waits", survey=name, error=str(error) or type(error).__name__)
                well = False
        return well

    async def _look(self, name: str) -> None:
        try:
            looked = await surveys.look(self._pool, self._settings, name, only_due=True)
        except CONNECTION_ERRORS:
            raise
        except Exception as error:
            # A fault of ours, with this survey: the others, and all other work, go on.
            log.exception("survey cannot be looked at", survey=name)
            words = f"A fault inside Spica: {type(error).__name__}: {error}"
            await surveys.put_off(self._pool, name, words, FAULT_S)
            return
        if looked is not None:
            log.info("survey looked at", survey=name, state=looked.state, found=looked.words)

    async def sweep(self, stop: asyncio.Event) -> None:
        """Look at stacks that were planned lately: what changed of their members while they were planned."""
        while not stop.is_set():
            try:
                for stack_id in await staleness.lately_planned(self._pool, PLANNED_WITHIN_S):
                    await self._look_at_stack(stack_id)
            except (*CONNECTION_ERRORS, asyncpg.PostgresError, SpicaError) as error:
                log.warning("stacks wait to be looked at", error=str(error) or type(error).__name__)
            await _sleep_or(stop, SWEEP_S)

    async def _look_at_stack(self, stack_id: str) -> None:
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                events: list[StackStale] = await staleness.look_at_stack(connection, self._settings, stack_id)
                for event in events:
                    await publish_in(connection, event, source=surveys.SOURCE)
        except CONNECTION_ERRORS:
            raise
        except Exception:
            # As above: the other stacks, and the service, go on.
            log.exception("stack cannot be looked at", stack_id=stack_id)


async def _sleep_or(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), timeout=seconds)
