"""Messages that could not be handled: kept with the reason, listed, and sent again on request."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiosql
from spica_proto.base import Message
from spica_proto.images import ImageFailed
from spica_proto.stacks import StackFailed

from spica_runtime.errors import SpicaError, UsageError
from spica_runtime.handling import Delivery
from spica_runtime.jsonb import storable
from spica_runtime.outbox import publish_in
from spica_runtime.outbox import queries as outbox_queries
from spica_runtime.pg import Connection, Pool

queries = aiosql.from_path(Path(__file__).parent / "dispatch.sql", "asyncpg")

ONLY_HEADER = "spica-only"
"""On a message that is sent again: the one service that is to handle it."""


def failure_event(
    service: str,
    delivery: Delivery,
    body: Mapping[str, Any],
    error: SpicaError,
    letter_id: str,
    attempts: int,
) -> Message:
    """The image.failed or stack.failed that tells the world about a dead letter."""
    what: dict[str, Any] = {
        "stage": service,
        "code": error.code,
        "message": storable(error.message),
        "numbers": storable(error.numbers),
        "dead_letter_id": letter_id,
        "heard": delivery.subject,
        "attempts": attempts,
    }

    def text(name: str) -> str | None:
        value = body.get(name)
        return str(storable(value)) if isinstance(value, str) else None

    if delivery.subject.startswith("image."):
        uri = text("uri")
        name = text("name") or (Path(uri).name if uri else None)
        return ImageFailed(image_id=text("image_id"), name=name, batch=text("batch"), **what)
    request_id = text("request_id")
    if request_id is None and delivery.subject == "stack.requested":
        request_id = delivery.event_id
    return StackFailed(stack_id=text("stack_id"), request_id=request_id, name=text("name"), **what)


async def bury(
    connection: Connection,
    service: str,
    delivery: Delivery,
    headers: Mapping[str, str],
    raw: bytes,
    error: SpicaError,
    attempts: int,
) -> str:
    """Write a dead letter and its failure event, within the caller's transaction. Returns its id."""
    letter_id = str(uuid.uuid4())
    await queries.insert_dead_letter(
        connection,
        dead_letter_id=letter_id,
        service=service,
        event_id=delivery.event_id,
        subject=delivery.subject,
        headers=storable(dict(headers)),
        body=storable(raw.decode("utf-8", errors="replace")),
        code=error.code,
        message=storable(error.message),
        numbers=storable(error.numbers),
        attempts=attempts,
    )
    if delivery.subject.endswith(".failed"):
        return letter_id  # a failure to hear of a failure is not told again: it would never end
    if not delivery.subject.startswith(("image.", "stack.")):
        return letter_id  # neither an image nor a stack failed by it: the dead letter says all
    try:
        body = json.loads(raw)
    except ValueError:
        body = {}
    event = failure_event(
        service, delivery, body if isinstance(body, dict) else {}, error, letter_id, attempts
    )
    await publish_in(
        connection, event, source=f"/spica/{service}", event_id=letter_id, traceparent=delivery.traceparent
    )
    return letter_id


async def waiting(pool: Pool, *, everything: bool = False) -> list[dict[str, Any]]:
    """Dead letters that were not sent again yet (or all), oldest first."""
    return [dict(row) async for row in queries.list_dead_letters(pool, only_waiting=not everything)]


async def resend(pool: Pool, dead_letter_id: str) -> str:
    """Send a dead letter again, to the service that could not handle it and to no other.

    The event keeps its id, so that what follows from it keeps its ids too; only the message is new.
    Returns the new message's id. An unknown id is a `UsageError`.
    """
    async with pool.acquire() as connection, connection.transaction():
        letter = await queries.take_dead_letter(connection, dead_letter_id=dead_letter_id)
        if letter is None:
            raise UsageError(
                "unknown_dead_letter",
                f"There is no dead letter {dead_letter_id}. `spica dead-letters list` shows them.",
            )
        if letter["sent_again_at"] is not None:
            raise UsageError(
                "sent_again_already",
                f"Dead letter {dead_letter_id} was sent again already, at {letter['sent_again_at']:%F %T}.",
            )
        message_id = f"{letter['event_id']}/again/{dead_letter_id}"
        await queries.unmark_handled(connection, service=letter["service"], event_id=letter["event_id"])
        await queries.end_attempts(connection, service=letter["service"], event_id=letter["event_id"])
        headers = {
            # JetStream's own instructions (expected sequence and the like) were for the first time.
            **{
                name: value
                for name, value in letter["headers"].items()
                if not name.lower().startswith("nats-")
            },
            "Nats-Msg-Id": message_id,
            "ce-id": letter["event_id"],
            ONLY_HEADER: letter["service"],
        }
        await outbox_queries.insert_outbox(
            connection, message_id=message_id, subject=letter["subject"], headers=headers, body=letter["body"]
        )
        await queries.mark_resent(connection, dead_letter_id=dead_letter_id)
    return message_id
