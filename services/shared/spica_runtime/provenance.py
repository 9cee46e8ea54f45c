"""Who made what from what: one activity per handled message (IVOA ProvenanceDM 1.0)."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiosql

from spica_runtime.handling import Delivery, Outcome
from spica_runtime.jsonb import storable
from spica_runtime.pg import Connection

queries = aiosql.from_path(Path(__file__).parent / "provenance.sql", "asyncpg")

CODE_VERSION = version("spica")


@dataclass(frozen=True, slots=True)
class Activity:
    """One run of a handler."""

    activity_id: str
    service: str
    name: str
    started_at: datetime
    ended_at: datetime
    settings: Mapping[str, Any]
    node_id: str | None = None
    """Of the node in whose data folder its products lie, where images are placed on nodes."""


async def record(connection: Connection, activity: Activity, delivery: Delivery, outcome: Outcome) -> None:
    """Write the activity and its products, within the transaction of its results."""
    configuration = {**activity.settings, **outcome.configuration}
    await queries.insert_activity(
        connection,
        activity_id=activity.activity_id,
        service=activity.service,
        name=activity.name,
        version=CODE_VERSION,
        configuration=storable(configuration),
        event_id=delivery.event_id,
        subject=delivery.subject,
        about=outcome.about,
        started_at=activity.started_at,
        ended_at=activity.ended_at,
        host=socket.gethostname(),
        outcome=storable(outcome.summary),
        log=storable(outcome.log),
        node_id=activity.node_id,
    )
    # One order for all writers: two transactions that touch the same products must not wait for each other.
    ids: dict[tuple[str, str], int] = {}
    for product in sorted({*outcome.used, *outcome.made}, key=lambda product: (product.path, product.sha256)):
        ids[product.path, product.sha256] = await queries.upsert_product(
            connection, **product.model_dump(include={"path", "sha256", "size_bytes", "kind"})
        )
    for product in outcome.used:
        await queries.insert_used(
            connection,
            activity_id=activity.activity_id,
            product_id=ids[product.path, product.sha256],
            role=product.kind,
        )
    for product in outcome.made:
        await queries.insert_generated(
            connection,
            product_id=ids[product.path, product.sha256],
            activity_id=activity.activity_id,
            role=product.kind,
        )
