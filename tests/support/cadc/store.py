"""What the archive holds: files and their versions, users, keys to single files, and a log of all requests."""

from __future__ import annotations

import base64
import hashlib
import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tests.support.cadc.caom import Caom, Facts
from tests.support.cadc.clock import Clock
from tests.support.cadc.faults import Fault, Faults

KEY_LIFE = timedelta(hours=4)


@dataclass(frozen=True)
class Stored:
    """One version of a file's bytes."""

    uri: str
    content: bytes | Path
    size_bytes: int
    md5: bytes
    artifact_id: str
    modified: datetime
    content_type: str
    content_encoding: str | None

    @property
    def name(self) -> str:
        """File name."""
        return self.uri.rpartition("/")[2]

    @property
    def checksum(self) -> str:
        """As CAOM writes it."""
        return f"md5:{self.md5.hex()}"

    @property
    def digest(self) -> str:
        """As the Digest header has it: base64 of the 16 bytes."""
        return f"md5={base64.b64encode(self.md5).decode()}"

    def read(self, start: int = 0, end: int | None = None) -> bytes:
        """Bytes from `start` up to `end`."""
        end = self.size_bytes if end is None else end
        if isinstance(self.content, bytes):
            return self.content[start:end]
        with self.content.open("rb") as file:
            file.seek(start)
            return file.read(end - start)


@dataclass
class Entry:
    """One request, and what became of it."""

    service: str
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    """Names in small letters."""
    user: str | None = None
    uri: str | None = None
    site: str | None = None
    status: int | None = None
    """None: no answer was sent."""
    sent_bytes: int = 0
    fault: str | None = None


@dataclass
class _Key:
    uri: str
    expires: datetime


@dataclass
class Store:
    """The archive without its doors. All times are the clock's."""

    clock: Clock = field(default_factory=Clock)
    faults: Faults = field(default_factory=Faults)
    log: list[Entry] = field(default_factory=list)
    files: dict[str, Stored] = field(default_factory=dict)
    facts: dict[str, Facts] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)
    """Password by name."""
    tokens: dict[str, str] = field(default_factory=dict)
    """User by token."""
    readers: dict[str, frozenset[str]] = field(default_factory=dict)
    """Users who may read a file before its release, by uri."""
    _keys: dict[str, _Key] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.caom = Caom(self.clock)

    def user(self, name: str, *, password: str = "", token: str | None = None) -> str:
        """Make a user known. Returns a token of theirs."""
        token = token or secrets.token_urlsafe(24)
        self.users[name], self.tokens[token] = password, name
        return token

    def add(
        self,
        uri: str,
        content: bytes | Path,
        *,
        content_encoding: str | None = "binary",
        readers: Sequence[str] = (),
        late_s: float = 0.0,
        meta_release: datetime | float | None = 0.0,
        data_release: datetime | float | None = 0.0,
        **facts: Any,
    ) -> Stored:
        """A file arrives, with its metadata; other `facts` are those of `Facts`.

        Release times are times, or seconds from now (0: public for long; None: never). `late_s`: its row appears
        now, and says that it was changed that long ago, as rows do that were committed late.
        """
        releases = {
            name: None if time is None else self.clock.when(time)
            for name, time in (("meta_release", meta_release), ("data_release", data_release))
            if time != 0.0
        }
        known = Facts.of(uri, **facts, **releases)
        self.readers[uri] = frozenset(readers)
        return self._put(uri, content, known, content_encoding, late_s)

    def replace(self, uri: str, content: bytes | Path) -> Stored:
        """The file changes: new checksum, new artifact id, new times of change up to its observation."""
        return self._put(uri, content, self.facts[uri], self.files[uri].content_encoding, 0.0)

    def touch(self, uri: str) -> None:
        """Only its metadata are written again: new times of change, the same bytes."""
        stored = self.files[uri]
        self.caom.put(uri, self.facts[uri], stored.checksum, stored.size_bytes, self.clock.stamp())

    def lose(self, uri: str) -> None:
        """The bytes are gone (404), the metadata still tell of them."""
        del self.files[uri]

    def release(self, uri: str) -> None:
        """Its data become public this moment; nothing else changes."""
        now = self.clock.stamp()
        self.facts[uri] = Facts(**{**vars(self.facts[uri]), "data_release": now})
        self.caom.release(uri, "dataRelease", now)

    def release_metadata(self, uri: str) -> None:
        """Its metadata become visible to all this moment; nothing else changes."""
        now = self.clock.stamp()
        self.facts[uri] = Facts(**{**vars(self.facts[uri]), "meta_release": now})
        self.caom.release(uri, "metaRelease", now)

    def fault(self, kind: Any, **details: Any) -> Fault:
        """Something goes wrong from now on; see `Fault`."""
        fault = Fault(kind, **details)
        self.faults.add(fault)
        return fault

    def requests(
        self,
        service: str | None = None,
        *,
        method: str | None = None,
        uri: str | None = None,
        status: int | None = None,
    ) -> list[Entry]:
        """Those of the log that fit."""
        return [
            entry
            for entry in self.log
            if service in (None, entry.service)
            and method in (None, entry.method)
            and uri in (None, entry.uri)
            and status in (None, entry.status)
        ]

    def may_read(self, uri: str, user: str | None) -> bool:
        """Public by now, or one of its readers."""
        released = self.facts[uri].data_release
        public = released is not None and released <= self.clock.now()
        return public or user in self.readers[uri]

    def granted(self, user: str | None) -> list[Facts]:
        """What this user may see before its time."""
        return [self.facts[uri] for uri, readers in self.readers.items() if user in readers]

    def new_key(self, uri: str) -> str:
        """A key that opens this one file to whoever has it, for some hours."""
        key = secrets.token_urlsafe(48)
        self._keys[key] = _Key(uri, self.clock.now() + KEY_LIFE)
        return key

    def opens(self, key: str, uri: str) -> bool:
        """Whether a key is one of ours, is for this file, and still holds."""
        known = self._keys.get(key)
        return known is not None and known.uri == uri and known.expires > self.clock.now()

    def _put(
        self, uri: str, content: bytes | Path, facts: Facts, encoding: str | None, late_s: float
    ) -> Stored:
        if isinstance(content, bytes):
            size_bytes, md5 = len(content), hashlib.md5(content).digest()
        else:
            with content.open("rb") as file:
                size_bytes, md5 = content.stat().st_size, hashlib.file_digest(file, "md5").digest()
        now = self.clock.stamp()
        stored = Stored(uri, content, size_bytes, md5, str(uuid.uuid4()), now, facts.content_type, encoding)
        self.files[uri], self.facts[uri] = stored, facts
        changed = now - timedelta(seconds=late_s)
        self.caom.put(uri, facts, stored.checksum, stored.size_bytes, changed)
        return stored
