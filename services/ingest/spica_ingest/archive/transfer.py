"""What is said of a transfer: what is wanted, how far it is, what came."""

from __future__ import annotations

import base64
import binascii
import re
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import httpx

_CONTENT_RANGE = re.compile(r"bytes\s+(\d+)-(\d+)/(\d+)", re.IGNORECASE)
_RATE_OVER_S = 5.0
_MARK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that is to be fetched, and what is known of it."""

    uri: str
    """An archive's name for it (`cadc:CFHT/2376828p.fits.fz`), or an http(s) address."""
    size_bytes: int | None = None
    md5: str | None = None
    """Hexadecimal."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """How far it is, in bytes."""

    done: int
    total: int | None
    per_second: float | None
    """Rate of the last seconds; None at the beginning."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that came whole: on disk, synced, its checksum compared where one is known."""

    path: Path
    size_bytes: int
    md5: str
    sha256: str


Tell = Callable[[Transfer], None]


@dataclass(frozen=True, slots=True)
class Identity:
    """What an answer says of the content behind it, so that two answers can be compared."""

    total: int | None = None
    md5: str | None = None
    artifact_id: str | None = None
    etag: str | None = None
    last_modified: str | None = None

    @classmethod
    def of(cls, response: httpx.Response) -> Identity:
        """Read it off a 200 or a 206. Lengths and digests are those of the whole, as it is stored."""
        headers = response.headers
        etag = headers.get("etag")
        partial = response.status_code == 206
        return cls(
            range_of(response)[1] if partial else _integer(headers.get("content-length")),
            digest_md5(headers),
            headers.get("x-artifact-id"),
            # A weak tag may stay while bytes change (RFC 9110, 8.8.1).
            None if etag is None or etag.startswith("W/") else etag,
            headers.get("last-modified"),
        )

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Identity:
        """What `as_json` gave."""
        return cls(**{item.name: values.get(item.name) for item in fields(cls)})

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)

    def continues(self, begun: Identity) -> bool:
        """Whether bytes of this may be put behind bytes of `begun`: something says so, and nothing speaks against it."""
        names = ("total", "md5", "artifact_id", "etag", "last_modified")
        pairs = {name: (getattr(self, name), getattr(begun, name)) for name in names}
        known = {name: pair for name, pair in pairs.items() if None not in pair}
        # Replicas of one content may well differ in tag and time: the checksum alone decides, where there is one.
        deciding = {"total", "md5"} if "md5" in known else set(known)
        return all(known[name][0] == known[name][1] for name in deciding & set(known)) and bool(
            set(known) - {"total"}
        )


def range_of(response: httpx.Response) -> tuple[int | None, int | None]:
    """First byte of a partial answer, and size of the whole; (None, None) where it does not say."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", "").strip())
    return (int(match[1]), int(match[3])) if match else (None, None)


def digest_md5(headers: httpx.Headers) -> str | None:
    """MD5, in hexadecimal, of `Digest: md5=<base64>` (RFC 3230); None where there is none that can be read."""
    for part in headers.get("digest", "").split(","):
        algorithm, _, value = part.strip().partition("=")
        if algorithm.lower() == "md5":
            try:
                raw = base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                return None
            return raw.hex() if len(raw) == 16 else None
    return None


class Rate:
    """Bytes per second over the last seconds."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def at(self, now: float, done: int) -> float | None:
        """Rate, told how much is there now."""
        if not self._marks or now >= self._marks[-1][0] + _MARK_EVERY_S:
            self._marks.append((now, done))
        while len(self._marks) > 2 and self._marks[1][0] < now - _RATE_OVER_S:
            self._marks.popleft()
        begin, first = self._marks[0]
        return (done - first) / (now - begin) if now > begin else None


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None
