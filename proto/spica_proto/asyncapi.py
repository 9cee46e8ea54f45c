"""The contract as an AsyncAPI 3.0 document: channels, messages, and what each service sends and receives."""

from __future__ import annotations

from typing import Any

from spica_proto import schemas
from spica_proto.streams import ACK_WAIT_S, CONSUMERS, DUPLICATE_WINDOW_S, STREAM, STREAM_SUBJECTS
from spica_proto.subjects import ANY_STAGE, SUBJECTS, Subject

Json = dict[str, Any]

STAGES = ("ingest", "quality", "calib", "stack", "export")

HEADERS: Json = {
    "type": "object",
    "description": "CloudEvents 1.0 in binary mode, with what NATS and W3C Trace Context use.",
    "properties": {
        "Nats-Msg-Id": {"type": "string", "description": "The event's id: JetStream drops repeats of it."},
        "ce-specversion": {"type": "string", "const": "1.0"},
        "ce-id": {"type": "string", "description": "The event's id. Said again, it is the same event."},
        "ce-type": {
            "type": "string",
            "pattern": r"^spica\.[a-z]+\.[a-z]+\.v[0-9]+$",
            "description": "Subject and version of the body's schema.",
        },
        "ce-source": {"type": "string", "description": "Who says it: `/spica/<service>`, or any name."},
        "ce-time": {"type": "string", "format": "date-time", "description": "When the event came to be."},
        "content-type": {"type": "string", "const": "application/json"},
        "traceparent": {
            "type": "string",
            "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
            "description": "W3C Trace Context: one trace from arrival to delivery.",
        },
        "spica-only": {
            "type": "string",
            "description": "On a dead letter that is sent again: the one service that is to handle it.",
        },
    },
}
_REQUIRED = ["Nats-Msg-Id", "ce-specversion", "ce-id", "ce-type", "ce-source", "ce-time", "content-type"]


def key(subject: Subject) -> str:
    """Name of a subject's channel and message: `image.arrived` is `imageArrived`."""
    head, tail = subject.name.split(".")
    return head + tail.capitalize()


def _channel(subject: Subject) -> Json:
    return {
        "address": subject.name,
        "title": subject.name,
        "description": subject.summary,
        "messages": {key(subject): {"$ref": f"#/components/messages/{key(subject)}"}},
        "tags": [{"name": "public" if subject.public else "internal"}],
    }


def _message(subject: Subject, example: Json) -> Json:
    headers = "optionalHeaders" if subject.headers_optional else "headers"
    return {
        "name": subject.event_type,
        "title": subject.model.__name__,
        "summary": subject.summary,
        "contentType": "application/json",
        "headers": {"$ref": f"#/components/schemas/{headers}"},
        "payload": {
            "schemaFormat": "application/schema+json;version=draft-2020-12",
            "schema": {"$ref": f"schemas/{schemas.file_name(subject)}"},
        },
        "examples": [{"name": key(subject), "payload": example}],
    }


def _operations() -> Json:
    operations: Json = {}
    for subject in SUBJECTS:
        channel = {"$ref": f"#/channels/{key(subject)}"}
        messages = [{"$ref": f"#/channels/{key(subject)}/messages/{key(subject)}"}]
        for sender in dict.fromkeys(
            stage for name in subject.senders for stage in (STAGES if name == ANY_STAGE else (name,))
        ):
            operations[f"{sender}.send.{key(subject)}"] = {
                "action": "send",
                "channel": channel,
                "summary": f"{sender} says {subject.name}.",
                "messages": messages,
            }
    for consumer in CONSUMERS:
        subject = next(subject for subject in SUBJECTS if subject.name == consumer.subject)
        operations[f"{consumer.service}.receive.{key(subject)}"] = {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{key(subject)}"},
            "summary": f"{consumer.service} reacts to {consumer.subject}.",
            "messages": [{"$ref": f"#/channels/{key(subject)}/messages/{key(subject)}"}],
            "x-jetstream": {"stream": STREAM, "durable": consumer.durable, "ack_wait_s": ACK_WAIT_S},
        }
    return operations


def document(version: str, examples: dict[str, Json]) -> Json:
    """Build the AsyncAPI document.

    Args:
        version: version of Spica.
        examples: subject name to example body.

    """
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Spica",
            "version": version,
            "description": (
                "Who says what to whom between the services of Spica, and what other tools may say and hear. "
                f"The JetStream stream {STREAM} keeps {', '.join(STREAM_SUBJECTS)}; "
                "progress.> is for whoever listens at that moment."
            ),
            "license": {"name": "BSD-3-Clause"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": "127.0.0.1:4222",
                "protocol": "nats",
                "description": "Default of SPICA_NATS_URL.",
                "x-jetstream": {
                    "stream": STREAM,
                    "subjects": list(STREAM_SUBJECTS),
                    "duplicate_window_s": DUPLICATE_WINDOW_S,
                },
            }
        },
        "channels": {key(subject): _channel(subject) for subject in SUBJECTS},
        "operations": _operations(),
        "components": {
            "messages": {key(subject): _message(subject, examples[subject.name]) for subject in SUBJECTS},
            "schemas": {"headers": {**HEADERS, "required": _REQUIRED}, "optionalHeaders": HEADERS},
        },
    }
