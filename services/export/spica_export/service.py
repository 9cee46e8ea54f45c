"""Composition root of the export service: which message goes to which handler, and what runs beside."""

from __future__ import annotations

import asyncio
import contextlib

from spica_runtime.service import Platform, Service

from spica_export.claiming import sweep_deliveries
from spica_export.handlers import Handlers, destination
from spica_export.settings import ExportSettings
from spica_export.store import Store

SWEEP_EVERY_S = 3600.0


def compose(platform: Platform[ExportSettings]) -> Service:
    """Put the service together."""
    target = destination(platform.settings, platform.data)

    async def sweep(stop: asyncio.Event) -> None:
        while not stop.is_set():
            await asyncio.to_thread(sweep_deliveries, target)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), timeout=SWEEP_EVERY_S)

    # What lies in the data folder is swept by the ingest service.
    outside = not target.resolve().is_relative_to(platform.data.root.resolve())
    return Service(
        {"stack.done": Handlers(platform, Store(platform.pool)).done}, background=(sweep,) if outside else ()
    )
