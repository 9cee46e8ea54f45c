"""Which services are alive, by NATS service discovery, and what waits for them in JetStream."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import nats.js.errors
from spica_proto.streams import CONSUMERS, NODE_STREAM, STREAM
from spica_runtime.bus import Bus

_PREFIX = "spica-"
# Answers come within milliseconds; silence this long means that all have answered.
_QUIET_S = 0.3
_AT_MOST_S = 2.0


async def services(bus: Bus) -> list[dict[str, Any]]:
    """Ask all replicas of all services who they are. Sorted by name, then instance."""
    inbox = bus.nc.new_inbox()
    subscription = await bus.nc.subscribe(inbox)
    found: list[dict[str, Any]] = []
    try:
        await bus.nc.publish("$SRV.INFO", b"", reply=inbox)
        deadline = asyncio.get_running_loop().time() + _AT_MOST_S
        while asyncio.get_running_loop().time() < deadline:
            try:
                message = await subscription.next_msg(timeout=_QUIET_S)
            except TimeoutError:
                break
            if not message.data:
                # The server says that nobody listens.
                break
            info = json.loads(message.data)
            if str(info.get("name", "")).startswith(_PREFIX):
                metadata = info.get("metadata") or {}
                found.append(
                    {
                        "service": info["name"].removeprefix(_PREFIX),
                        "instance": info.get("id"),
                        "version": info.get("version"),
                        "host": metadata.get("host"),
                        "pid": metadata.get("pid"),
                        "health_url": metadata.get("health_url"),
                    }
                )
    finally:
        await subscription.unsubscribe()
    return sorted(found, key=lambda row: (row["service"], row["instance"] or ""))


async def backlog(bus: Bus, *, placed: bool = False) -> list[dict[str, Any]]:
    """Per service and subject: how many events wait, and how many are being worked on.

    With `placed`, images lie on nodes: what waits to be sorted to them, and in the queues of all of them.
    """
    infos = {info.name: info for info in await bus.js.consumers_info(STREAM)}
    queues: list[Any] = []
    generation = ""
    if placed:
        with contextlib.suppress(nats.js.errors.NotFoundError):
            generation = str(((await bus.js.stream_info(NODE_STREAM)).config.metadata or {})["generation"])
            queues = await bus.js.consumers_info(NODE_STREAM)
    rows = []
    for consumer in CONSUMERS:
        name = consumer.sorting_durable(generation) if placed and consumer.sorted else consumer.durable
        prefix = consumer.node_durable("")
        parts = [infos[name]] if name in infos else []
        if placed and consumer.sorted:
            parts += [info for info in queues if info.name.startswith(prefix)]
        rows.append(
            {
                "consumer": name,
                "service": consumer.service,
                "subject": consumer.subject,
                "waiting": sum(part.num_pending or 0 for part in parts) if parts else None,
                "in_work": sum(part.num_ack_pending or 0 for part in parts) if parts else None,
                "redelivered": sum(part.num_redelivered or 0 for part in parts) if parts else None,
            }
        )
    return rows


async def stream(bus: Bus) -> dict[str, Any]:
    """How many events the stream keeps, in all and of each subject."""
    info = await bus.js.stream_info(STREAM, subjects_filter=">")
    return {
        "name": STREAM,
        "events": info.state.messages,
        "bytes": info.state.bytes,
        "first": info.state.first_seq,
        "last": info.state.last_seq,
        "subjects": info.state.subjects or {},
    }
