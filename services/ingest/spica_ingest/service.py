"""Composition root of the ingest service: which message goes to which handler, and what runs beside."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from spica_runtime.errors import UsageError
from spica_runtime.service import Platform, Service
from spica_runtime.storage import DataFolder, sweep_parts

from spica_ingest.filing import sweep_staging
from spica_ingest.handlers import Handlers
from spica_ingest.reading import Limits
from spica_ingest.settings import IngestSettings
from spica_ingest.store import FolderLedger
from spica_ingest.watch import FolderWatcher

SWEEP_EVERY_S = 3600.0


def apart_from_data(watched: Path, data: DataFolder) -> Path:
    """Refuse to watch what ingest itself writes to: every file filed away would arrive again."""
    folder, root = watched.resolve(), data.root.resolve()
    if folder.is_relative_to(root) or root.is_relative_to(folder):
        raise UsageError(
            "watch_in_data",
            f"SPICA_INGEST_WATCH ({watched}) and the data folder ({data.root}) lie in each other: "
            "watch a folder of its own.",
        )
    return watched


def compose(platform: Platform[IngestSettings]) -> Service:
    """Put the service together."""
    settings = platform.settings
    handlers = Handlers(
        platform.compute,
        platform.data,
        Limits(settings.max_bytes, settings.max_pixels),
        platform.platform_settings.profiles,
    )

    async def sweep(stop: asyncio.Event) -> None:
        while not stop.is_set():
            await asyncio.to_thread(sweep_staging, platform.data)
            await asyncio.to_thread(sweep_parts, platform.data.root)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), timeout=SWEEP_EVERY_S)

    background = [sweep]
    if settings.watch is not None:
        watcher = FolderWatcher(
            apart_from_data(settings.watch, platform.data),
            FolderLedger(platform.pool),
            poll_s=settings.watch_poll_s,
            settle_s=settings.watch_settle_s,
            notices=settings.watch_method == "auto",
        )
        background.append(watcher.run)
    return Service(routes={"image.arrived": handlers.image_arrived}, background=tuple(background))
