"""Composition root of the ingest service: which message goes to which handler, and what runs beside."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from pathlib import Path

from spica_imaging.profiles import load_profiles
from spica_runtime.errors import UsageError
from spica_runtime.handling import Routes
from spica_runtime.service import Platform, Service
from spica_runtime.storage import DataFolder, sweep_parts

from spica_ingest.archive import Archive
from spica_ingest.auxiliary.handlers import AuxiliaryHandlers
from spica_ingest.columns_again import fill_columns
from spica_ingest.fetching import Fetching
from spica_ingest.filing import sweep_staging
from spica_ingest.handlers import Handlers
from spica_ingest.placement.keeping import Keeping
from spica_ingest.placement.moving import Moving
from spica_ingest.placement.placing import Placing
from spica_ingest.recording import Asking
from spica_ingest.settings import IngestSettings
from spica_ingest.store import FolderLedger
from spica_ingest.verification.reading import Limits
from spica_ingest.watching import setup
from spica_ingest.watching.folder import FolderWatcher
from spica_ingest.watching.store import FolderNotes

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
    archive = Archive.from_settings(settings)
    limits = Limits(
        settings.max_bytes,
        settings.max_pixels,
        time_s=settings.verify_timeout_s,
        memory_bytes=settings.verify_memory_bytes,
        threads=settings.verify_threads,
    )
    asking = Asking(
        archive=settings.auxiliary_fetch == "auto",
        folder=settings.auxiliary_folder is not None,
        again_after=timedelta(days=settings.auxiliary_again_days),
    )
    node = platform.node
    placing = Placing(node, platform.platform_settings)
    handlers = Handlers(
        platform.compute,
        platform.data,
        limits,
        platform.platform_settings.profiles,
        asking,
        fetching=Fetching(
            archive,
            platform.data,
            platform.bus.tell,
            platform.platform_settings.profiles,
            look_first=settings.fetch_look_first,
        ),
        placing=placing if node.placed else None,
    )
    moving = Moving(node, platform.pool, platform.bus, platform.files, placing, platform.platform_settings)

    auxiliaries = AuxiliaryHandlers(
        platform.pool, platform.compute, platform.data, limits, archive, asking, settings.auxiliary_folder
    )

    async def load_columns_again(stop: asyncio.Event) -> None:
        await fill_columns(platform.pool, load_profiles(platform.platform_settings.profiles), stop)

    async def sweep(stop: asyncio.Event) -> None:
        while not stop.is_set():
            await asyncio.to_thread(sweep_staging, platform.data)
            await asyncio.to_thread(sweep_parts, platform.data.root)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), timeout=SWEEP_EVERY_S)

    background = [sweep, load_columns_again, setup.poller(archive, settings, platform.pool).run]
    if node.placed:
        background.append(Keeping(node, platform.pool, platform.platform_settings).run)
    for folder in settings.watch:
        watcher = FolderWatcher(
            apart_from_data(folder, platform.data),
            FolderLedger(platform.pool, node.node_id if node.placed else None),
            poll_s=settings.watch_poll_s,
            settle_s=settings.watch_settle_s,
            notices=settings.watch_method == "auto",
            notes=FolderNotes(platform.pool),
        )
        background.append(watcher.run)
    routes: Routes = {
        "image.arrived": handlers.image_arrived,
        "image.wanted": handlers.image_wanted,
        "auxiliary.wanted": auxiliaries.auxiliary_wanted,
        "placement.wanted": moving.placement_wanted,
    }
    return Service(routes, background=tuple(background), close=(archive.close,))
