"""Composition root of the stack service: which message goes to which handler, and what runs beside."""

from __future__ import annotations

import asyncio
import contextlib

from spica_runtime.service import Platform, Service

from spica_stack.handlers import Handlers
from spica_stack.settings import StackSettings
from spica_stack.spool import sweep_scratch
from spica_stack.store import Store

SWEEP_EVERY_S = 3600.0


def compose(platform: Platform[StackSettings]) -> Service:
    """Put the service together."""
    handlers = Handlers(platform, Store(platform.pool))

    async def sweep(stop: asyncio.Event) -> None:
        while not stop.is_set():
            await asyncio.to_thread(sweep_scratch, platform.data.root / "stacks")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), timeout=SWEEP_EVERY_S)

    return Service(
        {
            "stack.requested": handlers.requested,
            "stack.calibrated": handlers.calibrated,
            "stack.failed": handlers.failed,
            "stack.part_wanted": handlers.part,
            "image.calibrated": handlers.calibrated_image,
            "image.graded": handlers.graded_image,
        },
        background=(sweep,),
    )
