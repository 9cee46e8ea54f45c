"""Follow images and stacks by their events, from a place in the stream to the end of each.

`Progress` is the bookkeeping: events in, states out, no waiting. `follow` feeds it from the stream.
An event belongs to an image by its trace (one trace runs from arrival to the last effect), by the
image's id, or by what the arrival said of the file.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from spica_proto.subjects import BY_NAME
from spica_runtime.bus import Bus
from spica_runtime.tasks import end

from spica_console.exits import TimedOutError
from spica_console.store import Store
from spica_console.tailing import Event, Start, events

IMAGE_ENDS = ("calibrated", "rejected", "failed")
STACK_ENDS = ("exported", "failed")

# What is said of a stack long after, when something else changed.
_SAID_LATER = ("stack.stale",)

# Hears of images for the sake of its surveys and stacks, and says nothing more of the image: it may be away, or behind.
_LISTENS = ("image", "stack")

# Without news for this long, the store is asked whether anything is still to come.
_QUIET_S = 1.0


@dataclass
class Tracked:
    """One image or stack on its way."""

    label: str
    kind: str
    trace_id: str = ""
    uri: str | None = None
    sha256: str | None = None
    request_id: str | None = None
    id: str | None = None
    state: str = "submitted"
    last_event: tuple[str, str] | None = None
    """Subject and id of the newest event."""
    said: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Subject to the newest body heard."""
    parts: set[str] = field(default_factory=set)
    """Ids of the events that asked for parts of the stack, while it is made of them."""
    settled: bool = False
    """The last event was handled by all who react to it, and nothing followed."""

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come."""
        return self.settled or self.state in (IMAGE_ENDS if self.kind == "image" else STACK_ENDS)

    @property
    def went_wrong(self) -> bool:
        """Whether it was rejected or failed."""
        return self.state in ("rejected", "failed")

    @property
    def grade(self) -> str | None:
        """Grade, once there is one."""
        body = self.said.get("image.graded") or self.said.get("stack.done") or {}
        grade: str | None = body.get("grade")
        return grade

    @property
    def why(self) -> list[dict[str, Any]]:
        """Reasons for a rejection, a failure or the grade."""
        if self.state == "failed":
            return [self.said[f"{self.kind}.failed"]]
        subject = "image.rejected" if self.state == "rejected" else "image.graded"
        reasons: list[dict[str, Any]] = self.said.get(subject, {}).get("reasons", [])
        return reasons


class Progress:
    """Where the expected images and stacks are."""

    def __init__(self) -> None:
        self.images: list[Tracked] = []
        self.stacks: list[Tracked] = []
        self.recent: list[Event] = []
        self._by_trace: dict[str, Tracked] = {}

    @property
    def all(self) -> list[Tracked]:
        """Images, then stacks."""
        return [*self.images, *self.stacks]

    def expect_image(self, label: str, *, uri: str, trace_id: str = "", sha256: str | None = None) -> Tracked:
        """Follow a file from its `image.arrived` on."""
        tracked = Tracked(label, "image", trace_id, uri=uri, sha256=sha256)
        self.images.append(tracked)
        if trace_id:
            self._by_trace[trace_id] = tracked
        return tracked

    def expect_stack(self, label: str, *, request_id: str, trace_id: str = "") -> Tracked:
        """Follow a stack from its `stack.requested` on."""
        tracked = Tracked(label, "stack", trace_id, request_id=request_id)
        self.stacks.append(tracked)
        if trace_id:
            self._by_trace[trace_id] = tracked
        return tracked

    def hear(self, event: Event) -> Tracked | None:
        """Take an event in. Returns whose it was, or None if nobody's."""
        tracked = self._whose(event)
        if tracked is None or event.subject in _SAID_LATER:
            return None
        if event.subject == "stack.part_wanted":
            return _making(tracked, event)
        tracked.parts.clear()
        self.recent = [*self.recent[-49:], event]
        tracked.said[event.subject] = event.data
        tracked.last_event = (event.subject, event.id)
        tracked.settled = False
        tracked.state = event.subject.split(".", 1)[1]
        tracked.id = event.data.get(f"{tracked.kind}_id") or tracked.id
        return tracked

    def counts(self) -> Counter[str]:
        """Count images that have reached each stage (an image counts in every stage it passed)."""
        reached: Counter[str] = Counter()
        for tracked in self.images:
            reached.update(subject.split(".", 1)[1] for subject in tracked.said)
        return reached

    def _whose(self, event: Event) -> Tracked | None:
        kind = event.subject.split(".", 1)[0]
        if event.subject == "placement.wanted" and event.data.get("why") == "arrived":
            kind = "image"  # it goes on where the image belongs
        if (tracked := self._by_trace.get(event.trace_id)) is not None and tracked.kind == kind:
            return tracked
        data = event.data
        if kind == "image":
            return _first(
                self.images,
                ("id", data.get("image_id")),
                ("uri", data.get("uri")),
                ("sha256", (data.get("file") or {}).get("sha256")),
            )
        request_id = data.get("request_id") or (event.id if event.subject == "stack.requested" else None)
        return _first(self.stacks, ("id", data.get("stack_id")), ("request_id", request_id))


def _making(tracked: Tracked, event: Event) -> Tracked:
    """One of many events that say nothing but that the stack is being made."""
    if tracked.state == "calibrated":
        tracked.state = "making"
    tracked.id = event.data.get("stack_id") or tracked.id
    tracked.parts.add(event.id)
    tracked.last_event, tracked.settled = (event.subject, event.id), False
    return tracked


def _first(candidates: Iterable[Tracked], *keys: tuple[str, Any]) -> Tracked | None:
    known = list(candidates)
    for name, value in keys:
        if value is not None:
            for tracked in known:
                if getattr(tracked, name) == value:
                    return tracked
    return None


async def follow(
    bus: Bus,
    store: Store,
    progress: Progress,
    *,
    start: int,
    timeout_s: float,
    done: Callable[[], bool] | None = None,
    on_news: Callable[[], None] | None = None,
) -> None:
    """Read the stream from sequence `start` until all that is expected has ended.

    Args:
        bus: where the events are.
        store: asked, when all is quiet, whether anything is still to come: an image that no
            service will say more about (a grade D that is not calibrated) ends there.
        progress: takes the events in.
        start: sequence of the first event to read.
        timeout_s: longest time to wait, in seconds.
        done: when to stop; default: when all that is expected has ended.
        on_news: called after each event.

    Raises:
        TimedOutError: the time is over.

    """
    finished = done or (lambda: all(tracked.ended for tracked in progress.all))
    news = asyncio.Event()

    async def listen() -> None:
        async for event in events(bus, start=Start(sequence=start)):
            if progress.hear(event) is not None:
                if on_news is not None:
                    on_news()
                news.set()

    async def wait() -> None:
        quiet: set[int] = set()
        while not finished():
            try:
                await asyncio.wait_for(news.wait(), timeout=_QUIET_S)
                news.clear()
                quiet = set()
            except TimeoutError:
                quiet = await _settle(store, progress, quiet)

    listener = asyncio.create_task(listen())
    waiter = asyncio.create_task(wait())
    try:
        finished_tasks, _ = await asyncio.wait(
            {listener, waiter}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if not finished_tasks:
            open_ones = [tracked for tracked in progress.all if not tracked.ended]
            names = ", ".join(f"{tracked.label} ({tracked.state})" for tracked in open_ones[:5])
            raise TimedOutError(f"After {timeout_s:g} s, {len(open_ones)} have not ended: {names}.")
        for task in finished_tasks:
            task.result()
    finally:
        await end(listener, waiter)


def _receivers(subject: str) -> tuple[str, ...]:
    return BY_NAME[subject].receivers if subject in BY_NAME else ()


async def _settle(store: Store, progress: Progress, quiet_before: set[int]) -> set[int]:
    """Mark what all receivers of its last event have handled, in two looks one after the other.

    Two, since what a handler says is committed with its mark, but published a moment later.
    Returns the ids (of objects) that were found so at this look.
    """
    open_ones = [tracked for tracked in progress.all if not tracked.ended and tracked.last_event]
    asked = {event_id for tracked in open_ones for event_id in tracked.parts}
    handled = await store.handled(
        {tracked.last_event[1] for tracked in open_ones if tracked.last_event} | asked
    )
    counts = await store.counts()
    if counts["outbox_unsent"]:
        return set()
    quiet = set()
    for tracked in open_ones:
        assert tracked.last_event is not None
        subject, event_id = tracked.last_event
        receivers = [service for service in _receivers(subject) if (tracked.kind, service) != _LISTENS]
        tracked.parts -= {part for part in tracked.parts if ("stack", part) in handled}
        if receivers and not tracked.parts and all((service, event_id) in handled for service in receivers):
            quiet.add(id(tracked))
            tracked.settled = id(tracked) in quiet_before
    return quiet
