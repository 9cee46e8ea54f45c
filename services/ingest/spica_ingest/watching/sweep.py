"""Going through a window of the archive's times page by page, over as many passes as it takes. Pure.

A sweep reads ``place <= time < end`` in pages of at most N rows. Its place is kept in the store with every page, so
that it goes on where it was after a kill, a restart or on another replica.

How it gets on: a page that is full ends somewhere inside a millisecond, since that is how far times can be told apart.
The next page begins at this millisecond again (rows read twice are known by then). A page that is full of one single
millisecond would begin there for ever; then that millisecond alone is read by uri, and the sweep goes on behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from pydantic import AwareDatetime, BaseModel, ConfigDict
from spica_runtime.errors import Retriable

from spica_ingest.watching.adql import MILLISECOND, Kind
from spica_ingest.watching.found import Found

RECHECK_EVERY = timedelta(days=1)


class Place(BaseModel):
    """How far a sweep has come: everything before it was seen."""

    model_config = ConfigDict(frozen=True)

    time: AwareDatetime
    uri: str | None = None
    """With it: of the millisecond `time`, everything up to this uri."""

    def window(self, end: datetime) -> tuple[datetime, datetime]:
        """Times that the next page is asked for."""
        return self.time, end if self.uri is None else self.time + MILLISECOND


class Bookmark(BaseModel):
    """What one sweep of one watch remembers."""

    model_config = ConfigDict(frozen=True)

    start: AwareDatetime
    """Nothing before is ever asked for."""
    done: AwareDatetime
    """Everything before was seen; what was stored late with an earlier time is found by looking back."""
    end: AwareDatetime | None = None
    """While a sweep is under way: where it ends."""
    place: Place | None = None
    """While a sweep is under way: how far it is."""
    rechecked: AwareDatetime
    """When it was last begun far back."""

    @classmethod
    def at(cls, start: datetime, done: datetime, now: datetime) -> Bookmark:
        """Nothing seen yet; what is before `done` is somebody else's, but for what is found by looking back."""
        return cls(start=start, done=done, rechecked=now)

    def begun(self, end: datetime, *, look_back: timedelta, recheck: timedelta, now: datetime) -> Bookmark:
        """Begin the next sweep, some time before where the last one ended; once a day a long time before."""
        deep = now - self.rechecked >= RECHECK_EVERY
        begin = max(self.start, self.done - (max(recheck, look_back) if deep else look_back))
        return self.model_copy(
            update={
                "end": max(end, begin),
                "place": Place(time=begin),
                "rechecked": now if deep else self.rechecked,
            }
        )

    def moved(self, place: Place | None) -> Bookmark:
        """Go on to `place`; None: the sweep is through."""
        if place is not None:
            return self.model_copy(update={"place": place})
        assert self.end is not None
        return self.model_copy(update={"done": max(self.done, self.end), "end": None, "place": None})


def time_of(found: Found, kind: Kind) -> datetime:
    """Time by which a sweep of this kind reads."""
    moment = found.changed_at if kind == "changed" else found.released_at
    if moment is None:
        raise _unordered(f"a row of {found.uri} without the time that was asked for")
    return moment


def check(page: Sequence[Found], kind: Kind, place: Place, end: datetime) -> None:
    """Refuse an answer that is not in the window, or not in the order, that was asked for.

    A bookmark must not move by such an answer: what it left out would never be asked for again.
    """
    begin, end = place.window(end)
    before = begin
    for found in page:
        time = time_of(found, kind)
        if not begin <= time < end:
            raise _unordered(
                f"{found.uri} of {time.isoformat()}, outside {begin.isoformat()} to {end.isoformat()}"
            )
        if time < before:
            raise _unordered(f"{found.uri} of {time.isoformat()} behind {before.isoformat()}")
        before = time


def next_place(page: Sequence[Found], kind: Kind, place: Place, page_rows: int) -> Place | None:
    """Where to read on behind a page; None: nothing is left."""
    full = len(page) >= page_rows
    if place.uri is not None:
        return Place(time=place.time, uri=page[-1].uri) if full else Place(time=place.time + MILLISECOND)
    if not full:
        return None
    first, last = time_of(page[0], kind), time_of(page[-1], kind)
    return Place(time=last, uri="") if first == last else Place(time=last)


def place_before(found: Found, kind: Kind, place: Place, previous: Found | None) -> Place:
    """Where to read on so that `found`, a row of the page at `place`, is read again."""
    if place.uri is not None:
        return Place(time=place.time, uri=previous.uri if previous is not None else place.uri)
    return Place(time=time_of(found, kind))


def _unordered(what: str) -> Retriable:
    return Retriable(
        "archive_order",
        f"The archive answered with {what}. Nothing of this answer is taken; the window is asked for again.",
    )
