"""A service `quality` that only writes down who handled what: a process of its own, to be killed.

Arguments: node, NATS URL, database URL, data root.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import spica_proto.streams

spica_proto.streams.ACK_WAIT_S = 2.0  # what a killed process held comes again soon

from spica_proto.images import ImageVerified  # noqa: E402
from spica_runtime.handling import Delivery, Outcome, Transaction  # noqa: E402
from spica_runtime.service import Platform, Service, serve  # noqa: E402
from spica_runtime.settings import PlatformSettings, ServiceSettings  # noqa: E402


def compose(platform: Platform[ServiceSettings]) -> Service:
    """One handler."""
    node = platform.node.node_id

    async def verified(message: ImageVerified, _delivery: Delivery) -> Outcome:
        await asyncio.sleep(random.uniform(0, 0.05))

        async def save(transaction: Transaction) -> None:
            await transaction.connection.execute(
                "INSERT INTO done SELECT image_id, $2, node_id FROM images WHERE image_id = $1",
                message.image_id,
                node,
            )

        return Outcome(save=save, about=message.image_id)

    return Service(routes={"image.verified": verified})


def main(node: str, nats_url: str, database_url: str, data: str) -> None:
    """Serve until killed."""
    settings = PlatformSettings(
        nats_url=nats_url,
        database_url=database_url,
        data=Path(data),
        placement="nodes",
        node=node,
        node_heartbeat_s=0.3,
        node_dead_after_s=1.0,
    )
    stop = asyncio.Event()
    asyncio.run(
        serve("quality", ServiceSettings(concurrency=4), compose, platform_settings=settings, stop=stop)
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
