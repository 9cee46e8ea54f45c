"""The state of the platform in one dictionary: for `spica status`, the API and the page."""

from __future__ import annotations

import asyncio
import shutil
from typing import Any

from spica_proto.streams import CONSUMERS
from spica_runtime.bus import Bus
from spica_runtime.storage import DataFolder

from spica_console import discovery
from spica_console.store import Store

NEEDED = tuple(dict.fromkeys(consumer.service for consumer in CONSUMERS))
"""Services without which images or stacks do not get through."""


async def overview(bus: Bus, store: Store, data: DataFolder) -> dict[str, Any]:
    """Ask bus and store at the same time."""
    services, backlog, stream, counts = await asyncio.gather(
        discovery.services(bus),
        discovery.backlog(bus, placed=await store.placed()),
        discovery.stream(bus),
        store.counts(),
    )
    alive = {row["service"] for row in services}
    free = shutil.disk_usage(data.root).free if data.root.is_dir() else 0
    return {
        "services": services,
        "missing_services": [name for name in NEEDED if name not in alive],
        "backlog": backlog,
        "stream": stream,
        "counts": counts,
        "data": {"root": str(data.root), "free_bytes": free},
    }
