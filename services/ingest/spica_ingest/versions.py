"""Which of several contents of one archive file counts: the one that the archive changed last."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from spica_runtime.pg import Connection

from spica_ingest.store import queries


@dataclass(frozen=True, slots=True)
class Standing:
    """How one version stands among all of its archive file."""

    newest: str
    """The image_id of the version that counts."""
    others: tuple[str, ...]
    """Every other version, the oldest first."""


def archive_uri(uri: str) -> str | None:
    """The uri, if it is an archive's name for a file; None for a path and a file:// URL, which anyone may reuse."""
    scheme = "" if uri.startswith("/") else urlsplit(uri).scheme.lower()
    return None if scheme in ("", "file") else uri


async def settle(connection: Connection, image_id: str, uri: str, modified_at: datetime | None) -> Standing:
    """Decide between this image, which is in the store by now, and all other contents of `uri`.

    The order in which they came does not matter where the archive tells when it changed them. Nobody else settles the same
    file until the transaction ends (`lock` must have been called in it).
    """
    await queries.name_version(connection, image_id=image_id, uri=uri, modified_at=modified_at)
    versions = [row["image_id"] async for row in queries.versions(connection, uri=uri)]
    if image_id not in versions:  # known under another archive's name, by which it is judged
        return Standing(image_id, ())
    await queries.supersede(connection, uri=uri, image_id=versions[-1])
    return Standing(versions[-1], tuple(versions[:-1]))


async def lock(connection: Connection, uri: str) -> None:
    """Let no other transaction settle the versions of this file until this one ends."""
    await queries.lock_uri(connection, uri=uri)
