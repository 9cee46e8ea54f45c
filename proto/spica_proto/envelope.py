"""Headers of an event: CloudEvents 1.0 in binary mode, plus what NATS and W3C tracing use.

The body is the plain JSON of the model. `image.arrived` and `stack.requested` may come without
any header: whoever hears them then derives the id from the message's place in the stream.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from spica_proto.base import Message
from spica_proto.subjects import BY_MODEL

NAMESPACE = uuid.UUID("5b1c3a52-93a1-5f0e-8a53-0c5d1f6a7a11")


def derived_id(*parts: object) -> str:
    """An id that follows from its parts alone: the same parts, the same id (UUID version 5)."""
    return str(uuid.uuid5(NAMESPACE, "\x1f".join(str(part) for part in parts)))


def new_traceparent() -> str:
    """A fresh W3C trace context: version, trace id, span id, sampled flag."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def child_traceparent(parent: str | None) -> str:
    """Same trace, new span; a new trace when the parent is absent or malformed."""
    fields = (parent or "").split("-")
    if len(fields) < 4 or len(fields[1]) != 32:
        return new_traceparent()
    return f"00-{fields[1]}-{secrets.token_hex(8)}-{fields[3]}"


@dataclass(frozen=True, slots=True)
class Envelope:
    """One event, ready for the wire."""

    event_id: str
    subject: str
    event_type: str
    source: str
    time: datetime
    traceparent: str
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        """Headers as they go onto the wire."""
        return {
            "Nats-Msg-Id": self.event_id,
            "ce-specversion": "1.0",
            "ce-id": self.event_id,
            "ce-type": self.event_type,
            "ce-source": self.source,
            "ce-time": self.time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "content-type": "application/json",
            "traceparent": self.traceparent,
        }


def seal(
    message: Message,
    *,
    source: str,
    event_id: str | None = None,
    time: datetime | None = None,
    traceparent: str | None = None,
) -> Envelope:
    """Put a message into its envelope. `event_id` defaults to a random one."""
    subject = BY_MODEL[type(message)]
    return Envelope(
        event_id=event_id or str(uuid.uuid4()),
        subject=subject.name,
        event_type=subject.event_type,
        source=source,
        time=time or datetime.now(UTC),
        traceparent=traceparent or new_traceparent(),
        body=message.model_dump_json(exclude_none=True).encode(),
    )


def header(headers: Mapping[str, str] | None, name: str) -> str | None:
    """Look a header up without regard to case, as intermediaries may change it."""
    wanted = name.lower()
    for key, value in (headers or {}).items():
        if key.lower() == wanted:
            return value
    return None
