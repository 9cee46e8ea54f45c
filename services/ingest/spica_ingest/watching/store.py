"""SQL of the watches. The store's clock is the only one here: any number of services on any number of hosts may poll."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import aiosql
from pydantic import ValidationError
from spica_runtime.errors import SpicaError, UsageError
from spica_runtime.pg import Connection, Pool

from spica_ingest.watching.adql import Kind
from spica_ingest.watching.announcing import fetch_id, from_ledger, ledger_row, publish
from spica_ingest.watching.deciding import Decision, Version, after, decide
from spica_ingest.watching.found import Found
from spica_ingest.watching.model import Watch
from spica_ingest.watching.sweep import Bookmark, Place, place_before

queries = aiosql.from_path(Path(__file__).parent / "watches.sql", "asyncpg")

SweepName = Literal["changed", "released", "backfill_changed", "backfill_released"]
HOLD_S = 120.0
"""How long a holder may be silent before another takes the watch over."""
ASK_AGAIN_S = 86400.0
_UNREADABLE_S = 3600.0


class LostHold(SpicaError):
    """Another took this watch over, or it was removed, while it was polled here: nothing more is written."""

    def __init__(self, name: str) -> None:
        super().__init__("watch_lost", f"Watch {name} was taken over by another service, or removed.")


@dataclass(frozen=True, slots=True)
class Held:
    """A watch that nobody but this holder polls."""

    watch: Watch
    created_at: datetime
    failures: int
    holder: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A file, and what was decided about it."""

    found: Found
    decision: Decision


@dataclass(slots=True)
class Taken:
    """What came of one page."""

    seen: list[Seen] = field(default_factory=list)
    bookmark: Bookmark | None = None
    full: bool = False
    """No more may be announced in this pass: the page was taken up to there."""

    def of(self, step: str) -> list[Seen]:
        """Files about which this was decided."""
        return [seen for seen in self.seen if seen.decision.step == step]


def new_holder() -> str:
    """Name of a holder, for people and unlike any other."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


class WatchStore:
    """Standing watches, their bookmarks and the ledger."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    # What people do with watches

    async def add(self, watch: Watch, *, active: bool = True) -> None:
        """Add a watch; UsageError where its name is taken."""
        row = await queries.insert_watch(
            self._pool,
            name=watch.name,
            definition=watch.model_dump(mode="json", exclude_none=True),
            active=active,
        )
        if row is None:
            raise UsageError(
                "watch_exists",
                f"There is a watch {watch.name} already. Take another name, or remove it first "
                f"(`spica watch remove {watch.name}`); what it announced is not announced again.",
            )

    async def remove(self, name: str) -> None:
        """Remove a watch with its bookmarks. The ledger stays."""
        async with self._pool.acquire() as connection, connection.transaction():
            if await queries.delete_watch(connection, name=name) is None:
                raise await self._unknown(name)
            await queries.delete_bookmarks(connection, prefix=_bookmark(name))

    async def set_active(self, name: str, *, active: bool) -> None:
        """Pause or resume a watch."""
        if await queries.set_active(self._pool, name=name, active=active) is None:
            raise await self._unknown(name)

    async def find(self, name: str) -> Held:
        """Look a watch up without holding it."""
        row = await queries.select_watch(self._pool, name=name)
        if row is None:
            raise await self._unknown(name)
        return _held(row, "")

    async def listing(self) -> list[dict[str, Any]]:
        """All watches with how they stand, for people and programs."""
        await queries.mark_handled_files(self._pool, watch=None)
        counts: dict[str, dict[str, int]] = {}
        async for row in queries.count_files(self._pool):
            counts.setdefault(row["watch"], {})[row["state"]] = row["files"]
        rows = []
        async for row in queries.list_watches(self._pool):
            files = counts.get(row["name"], {})
            rows.append(
                dict(row)
                | {
                    "what": _told(row),
                    "state": "active" if row["active"] else "paused",
                    "waiting": files.get("waiting", 0),
                    "on_the_way": files.get("announced", 0),
                    "handled": files.get("handled", 0),
                    "sweeps": await self._progress(row["name"]),
                }
            )
        return rows

    async def folders(self) -> list[dict[str, Any]]:
        """Watched folders, as the services that watch them have said."""
        return [dict(row) async for row in queries.list_folders(self._pool)]

    async def _progress(self, name: str) -> dict[str, Any]:
        return {
            sweep: {
                "seen_to": bookmark.done,
                "reading": bookmark.place.time if bookmark.place else None,
                "to": bookmark.end,
            }
            for sweep, bookmark in (await self.bookmarks(name)).items()
        }

    async def _unknown(self, name: str) -> UsageError:
        names = [row["name"] async for row in queries.list_watches(self._pool)]
        return UsageError("no_watch", f"There is no watch {name!r}. There are: {', '.join(names) or 'none'}.")

    # Who polls

    async def claim(self, holder: str, name: str | None = None) -> Held | None:
        """Take the watch that is due longest, or the one named; None: there is none, or another has it."""
        if name is not None:
            row = await queries.claim_named(self._pool, name=name, holder=holder, hold_s=HOLD_S)
            return None if row is None else _held(row, holder)
        while (row := await queries.claim_due(self._pool, holder=holder, hold_s=HOLD_S)) is not None:
            try:
                return _held(row, holder)
            except UsageError as error:
                await queries.end_pass(
                    self._pool,
                    name=row["name"],
                    holder=holder,
                    good=False,
                    error={"code": error.code, "message": error.message},
                    next_s=_UNREADABLE_S,
                )
        return None

    async def keep(self, held: Held) -> None:
        """Go on holding it. Raises LostHold."""
        await self._fence(self._pool, held)

    async def let_go(self, held: Held) -> None:
        """Give it back untouched: the pass was broken off."""
        await queries.let_go(self._pool, name=held.watch.name, holder=held.holder)

    async def end(self, held: Held, *, error: SpicaError | None, next_s: float) -> None:
        """Give it back, with how the pass went and when the next one is due."""
        await queries.end_pass(
            self._pool,
            name=held.watch.name,
            holder=held.holder,
            good=error is None,
            error=None if error is None else {"code": error.code, "message": error.message},
            next_s=next_s,
        )

    async def seconds_to_next(self) -> float | None:
        """How long until some watch is due; None: there is none."""
        seconds: float | None = await queries.seconds_to_next(self._pool)
        return seconds

    async def _fence(self, connection: Connection | Pool, held: Held) -> None:
        kept = await queries.hold(connection, name=held.watch.name, holder=held.holder, hold_s=HOLD_S)
        if kept is None:
            raise LostHold(held.watch.name)

    # What a pass reads and writes

    async def bookmarks(self, name: str) -> dict[SweepName, Bookmark]:
        """Where the sweeps of a watch stand."""
        prefix = _bookmark(name)
        return {
            row["name"].removeprefix(prefix): Bookmark.model_validate(row["value"])
            async for row in queries.select_bookmarks(self._pool, prefix=prefix)
        }

    async def on_the_way(self, name: str) -> int:
        """How many announced files ingest is not through with."""
        await queries.mark_handled_files(self._pool, watch=name)
        count: int = await queries.count_on_the_way(self._pool, watch=name)
        return count

    async def known(
        self, uris: Sequence[str], connection: Connection | None = None
    ) -> dict[str, list[Version]]:
        """Versions in the ledger, by uri."""
        versions: dict[str, list[Version]] = {}
        async for row in queries.known_versions(connection or self._pool, uris=list(uris)):
            values = dict(row)
            versions.setdefault(values.pop("uri"), []).append(Version(**values))
        return versions

    async def take(
        self,
        held: Held,
        sweep: SweepName,
        kind: Kind,
        page: Sequence[Found],
        *,
        bookmark: Bookmark,
        following: Place | None,
        allowed: int,
        now: datetime,
    ) -> Taken:
        """Enter one page: ledger, announcements and bookmark, all in one transaction.

        At most `allowed` files are announced; with the next one the page ends, and the bookmark stays before it.

        Raises
        ------
        LostHold
            Another polls this watch meanwhile; nothing was written.

        """
        taken = Taken()
        async with self._held_transaction(held) as connection:
            await queries.lock_ledger(connection)
            known = await self.known([found.uri for found in page], connection)
            previous: Found | None = None
            assert bookmark.place is not None
            announced = 0
            for found in page:
                if held.watch.wants(found):
                    versions = known.get(found.uri, [])
                    decision = decide(found, versions, now)
                    if decision.step == "announce":
                        if announced == allowed:
                            taken.full = True
                            following = place_before(found, kind, bookmark.place, previous)
                            break
                        announced += 1
                    known[found.uri] = after(found, versions, decision)
                    taken.seen.append(Seen(found, decision))
                previous = found
            await self._enter(connection, held.watch, taken.seen)
            taken.bookmark = bookmark.moved(following)
            await queries.upsert_bookmark(
                connection,
                name=_bookmark(held.watch.name) + sweep,
                value=taken.bookmark.model_dump(mode="json"),
            )
        return taken

    async def _enter(self, connection: Connection, watch: Watch, seen: Sequence[Seen]) -> None:
        news = [one for one in seen if one.decision.step != "nothing"]
        if not news:
            return
        await queries.replace_waiting(
            connection, [{"uri": one.found.uri, "checksum": one.found.checksum} for one in news]
        )
        rows = []
        for one in news:
            event_id = one.decision.event_id(one.found) if one.decision.step == "announce" else None
            rows.append(ledger_row(watch, one.found, event_id))
            if event_id is not None:
                await publish(connection, watch, one.found, event_id)
        await queries.enter(connection, rows)

    # Files that are not public, with credentials

    async def unasked(self, held: Held, limit: int) -> list[Found]:
        """Waiting files of which we do not know whether our credentials open them."""
        rows = queries.unasked(self._pool, watch=held.watch.name, ask_again_s=ASK_AGAIN_S, limit=limit)
        return [from_ledger(row) async for row in rows]

    async def opened(self, held: Held, found: Found, *, permitted: bool) -> bool:
        """Remember whether credentials open a waiting file; if so, announce it. True if it was."""
        async with self._held_transaction(held) as connection:
            if not permitted:
                await queries.mark_asked(connection, uri=found.uri, checksum=found.checksum)
                return False
            event_id = Decision("announce", "permitted").event_id(found)
            entered = await queries.announce_early(
                connection,
                uri=found.uri,
                checksum=found.checksum,
                event_id=event_id,
                fetch_id=fetch_id(event_id),
            )
            if entered is not None:
                await publish(connection, held.watch, found, event_id)
        return entered is not None

    @asynccontextmanager
    async def _held_transaction(self, held: Held) -> AsyncIterator[Connection]:
        """Write as the holder, or not at all: the watch's row is locked until the end."""
        async with self._pool.acquire() as connection, connection.transaction():
            await self._fence(connection, held)
            yield connection


class FolderNotes:
    """Which folders are watched, from where, and how that goes: for people to see."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def say(
        self, folder: str, *, method: str, every_s: float, announced: int, error: str | None
    ) -> None:
        """Note that a folder was just looked through."""
        await queries.upsert_folder(
            self._pool,
            folder=folder,
            host=socket.gethostname(),
            method=method,
            every_s=every_s,
            announced=announced,
            error=error,
        )


def _held(row: Mapping[str, Any], holder: str) -> Held:
    try:
        watch = Watch.model_validate(row["definition"])
    except ValidationError as error:
        # Not read as far as it goes: a restriction that is not understood would let in what is not wanted.
        raise UsageError(
            "watch_unreadable",
            f"Watch {row['name']} cannot be read by this version of Spica: {error.errors(include_url=False)[0]['msg']}. "
            "It was added by another version, most likely: update this one, or remove the watch.",
        ) from error
    return Held(watch, row["created_at"], row["failures"], holder)


def _told(row: Mapping[str, Any]) -> str:
    try:
        return _held(row, "").watch.told()
    except UsageError as error:
        return error.message


def _bookmark(name: str) -> str:
    return f"watch/{name}/"
