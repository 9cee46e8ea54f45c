"""One pass over one watch: what is new in the archive is entered and announced.

Two sweeps look for news, one by each time that can make a file news (see `adql`), each with a bookmark of its own. A
watch that is to go back further than its own beginning has two more for that, which come last: what arrives today does
not wait behind ten years of backfill.

Where the clocks stand. *Changed* is read up to the newest change the archive shows of this collection, and *released* up
to the archive's own time of day (the Date of its answer). The clock of this host has no part in it: one that is ahead would
move the bookmark past changes that the archive has not stored yet, and they would never be asked for. What is stored late,
with a time before the bookmark, is met by looking back with every sweep: some minutes each time, some days once a day.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from spica_ingest.watching import adql
from spica_ingest.watching.adql import MILLISECOND, Kind
from spica_ingest.watching.deciding import Decision
from spica_ingest.watching.found import Found, whole_milliseconds
from spica_ingest.watching.model import Watch
from spica_ingest.watching.store import Held, Seen, SweepName, Taken, WatchStore
from spica_ingest.watching.sweep import Bookmark, check, next_place
from spica_ingest.watching.tap import Asks

_ASKED_PER_PASS = 50

Permitted = Callable[[str], Awaitable[bool]]
"""Whether our credentials open a file of the archive."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How the archive is asked."""

    look_back: timedelta = timedelta(minutes=10)
    recheck: timedelta = timedelta(days=7)
    page_rows: int = 2000


@dataclass(slots=True)
class Pass:
    """What came of a pass, or has come of it so far."""

    read: int = 0
    """Rows that the archive showed."""
    announced: list[Seen] = field(default_factory=list)
    waiting: list[Seen] = field(default_factory=list)
    """Files met that are not public yet."""
    known: int = 0
    on_the_way: int = 0
    """Announced earlier, and not through."""
    full: bool = False
    """There is more: as many files as are allowed are on their way."""
    sweep: str = ""


@dataclass(frozen=True, slots=True)
class Sweep:
    """One window to be read."""

    name: SweepName
    kind: Kind
    first: datetime
    """Where looking back ends."""
    start: datetime
    end: datetime

    def begun(self, bookmark: Bookmark | None, now: datetime, policy: Policy) -> Bookmark | None:
        """Bookmark to read on from; None: it is read to its end (a backfill is read once)."""
        bookmark = bookmark or Bookmark.at(self.first, self.start, now)
        if bookmark.end is not None:
            return bookmark
        if self.name.startswith("backfill") and bookmark.done >= self.end:
            return None
        return bookmark.begun(self.end, look_back=policy.look_back, recheck=policy.recheck, now=now)


def sweeps_of(
    watch: Watch, created_at: datetime, newest: datetime, now: datetime, policy: Policy
) -> list[Sweep]:
    """Windows of a pass, news first.

    Args:
        watch: whose.
        created_at: when it was added: news is what came since. By our clock, so a little before.
        newest: newest change in the archive, cut off at the millisecond.
        now: time at the archive.
        policy: how far to look back.

    """
    since = since_of(watch, created_at, policy)
    begin = max(since, whole_milliseconds(created_at - policy.look_back))
    # An entry with a time in the future must not carry the bookmark there.
    ends: dict[Kind, datetime] = {
        "changed": min(newest, now + policy.look_back) + MILLISECOND,
        "released": now + MILLISECOND,
    }
    news = [
        Sweep("changed", "changed", since, begin, ends["changed"]),
        Sweep("released", "released", since, begin, ends["released"]),
    ]
    if since >= begin:
        return news
    return [
        *news,
        Sweep("backfill_changed", "changed", since, since, begin),
        Sweep("backfill_released", "released", since, since, begin),
    ]


def since_of(watch: Watch, created_at: datetime, policy: Policy) -> datetime:
    """From when on files are wanted: as was said, or since the watch was added; in whole milliseconds.

    A window that began within a millisecond would be answered with rows that seem to lie before it.
    """
    return whole_milliseconds(watch.since if watch.since is not None else created_at - policy.look_back)


class Discovery:
    """Makes passes."""

    def __init__(
        self, tap: Asks, store: WatchStore, policy: Policy, permitted: Permitted | None = None
    ) -> None:
        self._tap = tap
        self._store = store
        self._policy = policy
        self._permitted = permitted

    async def look(self, held: Held, tell: Callable[[Pass], None] = lambda _: None) -> Pass:
        """Make one pass over a watch that is held. `tell` is called as it goes on.

        Raises
        ------
        SpicaError
            The archive is away, refuses, or answers with what cannot be used. What was entered before stays
            entered; the next pass goes on there.

        """
        watch, made = held.watch, Pass()
        made.on_the_way = await self._store.on_the_way(watch.name)
        allowed = max(0, watch.max_per_pass - made.on_the_way)
        newest, now = await self._tap.newest(watch.collection)
        marks = await self._store.bookmarks(watch.name)
        for sweep in sweeps_of(watch, held.created_at, newest, now, self._policy):
            made.sweep = sweep.name
            bookmark = sweep.begun(marks.get(sweep.name), now, self._policy)
            while bookmark is not None and not made.full:
                bookmark = await self._read(held, sweep, bookmark, now, allowed, made, tell)
                # One that was under way since an earlier pass ended where the archive was then.
                if bookmark.done >= sweep.end:
                    break
                bookmark = sweep.begun(bookmark, now, self._policy)
            if made.full:
                break
        if self._permitted is not None:
            await self._ask(held, self._permitted, allowed - len(made.announced), made)
            tell(made)
        return made

    async def _read(
        self,
        held: Held,
        sweep: Sweep,
        bookmark: Bookmark,
        now: datetime,
        allowed: int,
        made: Pass,
        tell: Callable[[Pass], None],
    ) -> Bookmark:
        since = since_of(held.watch, held.created_at, self._policy)
        while bookmark.end is not None:
            assert bookmark.place is not None
            page, _ = await self._tap.page(
                page_query(held.watch, sweep.kind, bookmark, since), self._policy.page_rows
            )
            check(page, sweep.kind, bookmark.place, bookmark.end)
            taken = await self._store.take(
                held,
                sweep.name,
                sweep.kind,
                page,
                bookmark=bookmark,
                following=next_place(page, sweep.kind, bookmark.place, self._policy.page_rows),
                allowed=allowed - len(made.announced),
                now=now,
            )
            _count(made, page, taken)
            tell(made)
            assert taken.bookmark is not None
            bookmark = taken.bookmark
            if taken.full:
                made.full = True
                break
        return bookmark

    async def _ask(self, held: Held, permitted: Permitted, allowed: int, made: Pass) -> None:
        """Try our credentials on files that are not public; what they open is announced at once."""
        for found in await self._store.unasked(held, min(allowed, _ASKED_PER_PASS)):
            if await self._store.opened(held, found, permitted=await permitted(found.uri)):
                made.announced.append(Seen(found, Decision("announce", "permitted")))


def page_query(watch: Watch, kind: Kind, bookmark: Bookmark, since: datetime) -> str:
    """The query for the page at which a sweep stands.

    By *changed*, only files whose own entry was changed since then: that an archive works over its catalogue touches
    every observation it has, and must not bring them all here.
    """
    place, end = bookmark.place, bookmark.end
    assert place is not None and end is not None
    window = place.window(end)
    return adql.page(
        watch,
        kind,
        begin=window[0],
        end=window[1],
        after_uri=place.uri,
        modified_since=since if kind == "changed" else None,
    )


def _count(made: Pass, page: list[Found], taken: Taken) -> None:
    made.read += len(page)
    made.announced += taken.of("announce")
    made.waiting += taken.of("wait")
    made.known += len(taken.of("nothing"))
