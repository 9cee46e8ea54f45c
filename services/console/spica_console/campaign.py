"""A whole batch through all stages: files announced one at a time, followed, then stacked filter by filter.

`spica demo` and `spica real` are two uses of it. What came out is told from the stream's whole
history, so that a batch that went through before is told just as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spica_proto.stacks import Selection, StackRequested
from spica_runtime.tasks import end

from spica_console import stacking, submitting, tailing
from spica_console.board import Board, board
from spica_console.connecting import Reached
from spica_console.following import Progress, Tracked, follow
from spica_console.store import Store

Body = dict[str, Any]


@dataclass
class Story:
    """The newest body said of each image and stack, by subject."""

    images: dict[str, dict[str, Body]] = field(default_factory=dict)
    stacks: dict[str, dict[str, Body]] = field(default_factory=dict)
    rejected: dict[str, Body] = field(default_factory=dict)
    """By URI."""

    def hear(self, subject: str, data: Body) -> None:
        """Take one event in."""
        if subject == "image.rejected":
            self.rejected[data["uri"]] = data
        elif image_id := data.get("image_id"):
            self.images.setdefault(image_id, {})[subject] = data
        elif stack_id := data.get("stack_id"):
            self.stacks.setdefault(stack_id, {})[subject] = data


@dataclass(frozen=True)
class ImageFacts:
    """What became of one file."""

    path: Path
    state: str
    image_id: str | None
    said: dict[str, Body]
    """Subject to body; of a rejected file `image.rejected`."""

    @property
    def graded(self) -> Body:
        """Body of its newest `image.graded`, or nothing."""
        return self.said.get("image.graded", {})

    @property
    def calibrated(self) -> Body:
        """Body of its newest `image.calibrated`, or nothing."""
        return self.said.get("image.calibrated", {})

    @property
    def metrics(self) -> Body:
        """What was measured on it."""
        metrics: Body = self.graded.get("metrics", {})
        return metrics


@dataclass(frozen=True)
class StackFacts:
    """What became of one request."""

    label: str
    filter: str
    state: str
    said: dict[str, Body]

    @property
    def done(self) -> Body:
        """Body of `stack.done`, or nothing."""
        return self.said.get("stack.done", {})

    @property
    def files(self) -> dict[str, str]:
        """Kind to path of what was delivered."""
        return {file["kind"]: file["path"] for file in self.said.get("stack.exported", {}).get("files", ())}


@dataclass(frozen=True)
class Result:
    """What became of a batch."""

    images: tuple[ImageFacts, ...]
    stacks: tuple[StackFacts, ...]


async def send_through(
    spica: Reached,
    files: AsyncIterator[Path],
    *,
    expected: int,
    batch: str,
    name: str,
    timeout_s: float,
) -> Result:
    """Announce files as they come, wait for the end of each, stack each filter, wait for the exports.

    Args:
        spica: the platform.
        files: in the order in which they are to be announced.
        expected: how many they are.
        batch: label of the files; the stacks select by it.
        name: beginning of the stacks' names; the filter follows.
        timeout_s: longest time for each of the two parts, in seconds.

    """
    progress = Progress()
    store = Store(spica.pool)
    start = await tailing.last_sequence(spica.bus) + 1
    sent: list[tuple[Path, Tracked]] = []
    all_sent = asyncio.Event()

    async def announce(show: Board) -> None:
        async for path in files:
            submission = await submitting.announce(spica.bus, path, batch=batch)
            sent.append((path, submission.track(progress)))
            show.refresh()
        all_sent.set()

    with board(progress, expected) as show:
        show.title = f"{expected} images through all stages"
        announcing = asyncio.create_task(announce(show))
        try:
            following = asyncio.create_task(
                follow(
                    spica.bus,
                    store,
                    progress,
                    start=start,
                    timeout_s=timeout_s,
                    done=lambda: all_sent.is_set() and all(tracked.ended for tracked in progress.images),
                    on_news=show.refresh,
                )
            )
            # Whichever ends first with an error ends both.
            await asyncio.wait({announcing, following}, return_when=asyncio.FIRST_EXCEPTION)
            if announcing.done():
                announcing.result()
            following.result()
        finally:
            await end(announcing, following)
        images = await _image_facts(spica, store, sent)
        filters = sorted({facts.calibrated["filter"] for facts in images if facts.calibrated})
        show.title = f"{len(filters)} stack(s)"
        start = await tailing.last_sequence(spica.bus) + 1
        wishes = [
            StackRequested(
                request_id=f"{name}-{filter_name}",
                name=f"{name}.{filter_name}",
                selection=Selection(filter=filter_name, batch=batch),
                requested_by=submitting.SOURCE,
            )
            for filter_name in filters
        ]
        asked = [await stacking.ask(spica.bus, wish, progress) for wish in wishes]
        await follow(spica.bus, store, progress, start=start, timeout_s=timeout_s, on_news=show.refresh)
    stacks = [
        await _stack_facts(spica, store, tracked, wish) for tracked, wish in zip(asked, wishes, strict=True)
    ]
    return Result(tuple(images), tuple(stacks))


async def read_story(spica: Reached) -> Story:
    """Read the stream from its beginning to now."""
    story = Story()
    whole = tailing.Start(everything=True)
    async for event in tailing.events(spica.bus, start=whole, follow=False):
        story.hear(event.subject, event.data)
    return story


async def _image_facts(spica: Reached, store: Store, sent: list[tuple[Path, Tracked]]) -> list[ImageFacts]:
    story = await read_story(spica)
    found = []
    for path, tracked in sent:
        image_id = tracked.id
        if image_id is None and tracked.sha256 and (row := await store.image_with_sha256(tracked.sha256)):
            image_id = row["image_id"]
        said = dict(story.images.get(image_id, {})) if image_id else {}
        if tracked.state == "failed":
            said["image.failed"] = tracked.said["image.failed"]
        if not said and tracked.uri in story.rejected:
            said = {"image.rejected": story.rejected[tracked.uri]}
        stages = ("image.failed", "image.rejected", "image.calibrated", "image.graded", "image.verified")
        state = next((stage.split(".")[1] for stage in stages if stage in said), tracked.state)
        found.append(ImageFacts(path, state, image_id, said))
    return found


async def _stack_facts(spica: Reached, store: Store, tracked: Tracked, wish: StackRequested) -> StackFacts:
    stack_id = tracked.id or await store.stack_id(wish.request_id or "")
    said = dict((await read_story(spica)).stacks.get(stack_id, {})) if stack_id else {}
    if tracked.state == "failed":
        said["stack.failed"] = tracked.said["stack.failed"]
    state = "exported" if "stack.exported" in said else tracked.state
    return StackFacts(wish.name or "", wish.selection.filter or "", state, said)
