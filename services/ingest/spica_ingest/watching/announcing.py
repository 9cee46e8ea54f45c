"""What is said of a file that an archive has, and what the ledger keeps of it."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from typing import Any

from spica_proto.envelope import derived_id
from spica_proto.images import ImageArrived
from spica_runtime.outbox import publish_in
from spica_runtime.pg import Connection

from spica_ingest.science.naming import image_name
from spica_ingest.watching.found import Found, digest
from spica_ingest.watching.model import Watch

_SOURCE = "/spica/ingest"


def arrival(watch: Watch, found: Found) -> ImageArrived:
    """What is said of a file that an archive has."""
    return ImageArrived(
        uri=found.uri,
        source=found.uri.partition(":")[0],
        name=image_name(found.file_name),
        size_bytes=found.size_bytes,
        md5=found.md5,
        sha256=digest(found.checksum, "sha256"),
        modified_at=found.modified_at,
        batch=watch.label,
    )


def trace_id(event_id: str) -> str:
    """Trace of a file from its announcement on: known to whoever knows the event, so that it can be followed."""
    return uuid.UUID(event_id).hex


async def publish(connection: Connection, watch: Watch, found: Found, event_id: str) -> None:
    """Announce a file, within the caller's transaction."""
    trace = f"00-{trace_id(event_id)}-{secrets.token_hex(8)}-01"
    await publish_in(connection, arrival(watch, found), source=_SOURCE, event_id=event_id, traceparent=trace)


def fetch_id(event_id: str) -> str:
    """Id of the event by which ingest has it fetched: the first that follows the arrival."""
    return derived_id("ingest", event_id, "image.wanted", 0)


def ledger_row(watch: Watch, found: Found, event_id: str | None) -> dict[str, Any]:
    """What the ledger keeps of a file that is announced by this event, or (None) waits."""
    return {
        "uri": found.uri,
        "checksum": found.checksum,
        "watch": watch.name,
        "state": "waiting" if event_id is None else "announced",
        "size_bytes": found.size_bytes,
        "modified_at": found.modified_at,
        "released_at": found.released_at,
        "details": found.details(),
        "event_id": event_id,
        "fetch_id": None if event_id is None else fetch_id(event_id),
        "early": False,
    }


def from_ledger(row: Mapping[str, Any]) -> Found:
    """A file as the ledger has it."""
    details = row["details"]
    return Found(
        uri=row["uri"],
        checksum=row["checksum"],
        size_bytes=row["size_bytes"],
        modified_at=row["modified_at"],
        changed_at=row["modified_at"],
        released_at=row["released_at"],
        **details,
    )
