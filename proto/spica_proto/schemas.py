"""JSON Schemas of the messages, and the lock that keeps a published version from changing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from spica_proto.base import Message
from spica_proto.subjects import SUBJECTS, Subject

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Json = dict[str, Any]
Lock = dict[str, dict[str, str]]
"""Subject name -> version -> SHA-256 of the canonical schema."""


class SchemaChangedError(Exception):
    """A schema differs from the one that was published under the same version."""


def file_name(subject: Subject) -> str:
    """Name of the schema's file; old versions keep theirs."""
    return f"{subject.name}.v{subject.model.schema_version}.json"


def schema_of(subject: Subject) -> Json:
    """JSON Schema (draft 2020-12) of what readers of this subject accept."""
    model: type[Message] = subject.model
    schema = model.model_json_schema(mode="validation", ref_template="#/$defs/{model}")
    return {
        "$schema": DIALECT,
        "$id": f"urn:spica:schema:{subject.name}:v{model.schema_version}",
        **schema,
    }


def schema_sha256(schema: Json) -> str:
    """Checksum of a schema, whatever the order of its keys or its spacing."""
    canonical = json.dumps(schema, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def extended_lock(lock: Mapping[str, Mapping[str, str]], subjects: tuple[Subject, ...] = SUBJECTS) -> Lock:
    """Put the present schemas into the lock.

    Raises:
        SchemaChangedError: a present schema differs from what the lock holds for its version.

    """
    extended: Lock = {name: dict(versions) for name, versions in lock.items()}
    for subject in subjects:
        version = str(subject.model.schema_version)
        present = schema_sha256(schema_of(subject))
        locked = extended.setdefault(subject.name, {}).setdefault(version, present)
        if locked != present:
            raise SchemaChangedError(
                f"The schema of {subject.name} changed, but its version is still {version}. Set "
                f"`schema_version: ClassVar[int] = {int(version) + 1}` in {subject.model.__name__} and run "
                "`python -m spica_proto.generate`. (Only where that version was never released: delete its "
                "line in proto/schemas/lock.json instead.)"
            )
    return {name: extended[name] for name in sorted(extended)}
