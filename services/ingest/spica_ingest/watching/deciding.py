"""What to do about a file that an archive shows, given what the ledger knows of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from spica_proto.envelope import derived_id

from spica_ingest.watching.found import Found

State = Literal["waiting", "announced", "handled", "replaced"]
Step = Literal["announce", "wait", "nothing"]


@dataclass(frozen=True, slots=True)
class Version:
    """One content of one file, as the ledger has it."""

    checksum: str
    state: State
    modified_at: datetime
    released_at: datetime | None
    early: bool = False
    """Announced before its release, by credentials."""
    failed: bool = False
    """What announced it lies among the dead letters."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and in which words."""

    step: Step
    why: str
    occasion: str = ""
    """Tells the announcements of one content apart; empty for the first."""

    def event_id(self, found: Found) -> str:
        """Id of the event: the same for whoever announces the same."""
        parts = (found.uri, found.checksum, self.occasion) if self.occasion else (found.uri, found.checksum)
        return derived_id("archive", *parts)


def decide(found: Found, known: Sequence[Version], now: datetime) -> Decision:
    """Announce a file, wait for its release, or do nothing.

    Each content of a file is announced once, when it is public. It is announced again only where

    * another content came in between (A, B, then A again: A is the present one once more), or
    * it was announced before its release and the archive did not give it then.
    """
    same = next((version for version in known if version.checksum == found.checksum), None)
    public = found.public(now)
    if same is not None and same.state == "waiting":
        if public:
            return Decision("announce", "released")
        return Decision("nothing" if same.released_at == found.released_at else "wait", _waits(found))
    occasion = None if same is None else _occasion(found, same, known, public)
    if same is not None and occasion is None:
        return Decision("nothing", "known")
    if not public:
        return Decision("wait", _waits(found))
    return Decision("announce", ("changed" if known else "new"), occasion or "")


def _occasion(found: Found, same: Version, known: Sequence[Version], public: bool) -> str | None:
    """What makes it right to announce this content once more; None: nothing does."""
    newest = max(known, key=lambda version: version.modified_at)
    if newest.checksum != same.checksum and found.modified_at > newest.modified_at:
        return found.modified_at.isoformat()
    return "released" if same.early and same.failed and public else None


def after(
    found: Found, known: Sequence[Version], decision: Decision, *, early: bool = False
) -> list[Version]:
    """What the ledger knows once `decision` was carried out: earlier contents that wait are replaced."""
    if decision.step == "nothing":
        return list(known)
    others = [
        replace(version, state="replaced") if version.state == "waiting" else version
        for version in known
        if version.checksum != found.checksum
    ]
    state: State = "announced" if decision.step == "announce" else "waiting"
    return [*others, Version(found.checksum, state, found.modified_at, found.released_at, early)]


def _waits(found: Found) -> str:
    if found.released_at is None:
        return "waits: the archive names no release date"
    return f"waits for its release on {found.released_at:%Y-%m-%d %H:%M}"
