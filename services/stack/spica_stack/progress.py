"""How far the work on stacks is, told to whoever listens.

What is told comes from the counts in the store: whoever of several workers tells it, it is one story.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from spica_proto.stacks import StackProgress
from spica_runtime.database import CONNECTION_ERRORS
from spica_runtime.tasks import end

from spica_stack.making.parts import read_told
from spica_stack.making.steps import STEPS
from spica_stack.store import StepProgress, Store

Publish = Callable[[StackProgress], Awaitable[None]]

EVERY_S = 1.0
_LINGERS_S = 5.0
"""After its last part here, a stack is told of for so long: others may work on it, and its end is to be told."""
_WINDOW_S = 60.0
"""The rate is that of the last so many seconds."""


class Progress:
    """Tells of the stacks that this process works on: at most once in `every_s`, and once at the end."""

    def __init__(self, publish: Publish, store: Store, *, every_s: float = EVERY_S) -> None:
        self._publish, self._store, self._every_s = publish, store, every_s
        self._working: Counter[str] = Counter()
        self._told_files: dict[str, Path] = {}
        self._until: dict[str, float] = {}
        self._news = asyncio.Event()

    @asynccontextmanager
    async def of(self, stack_id: str, told_file: Path | None = None) -> AsyncIterator[None]:
        """Tell of this stack for the length of a block; `told_file`: where its worker writes how far the part is."""
        self._working[stack_id] += 1
        self._until[stack_id] = float("inf")
        if told_file is not None:
            self._told_files[stack_id] = told_file
        self._news.set()
        try:
            yield
        finally:
            self._working[stack_id] -= 1
            if told_file is not None:
                self._told_files.pop(stack_id, None)
            if not self._working[stack_id]:
                del self._working[stack_id]
                self._until[stack_id] = time.monotonic() + _LINGERS_S

    async def run(self, stop: asyncio.Event) -> None:
        """Tell until told to stop."""
        while not stop.is_set():
            if not self._until:
                await _first_of(stop, self._news)
                self._news.clear()
            for stack_id in list(self._until):
                with contextlib.suppress(*CONNECTION_ERRORS, asyncpg.PostgresError):
                    await self._tell(stack_id)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), timeout=self._every_s)

    async def _tell(self, stack_id: str) -> None:
        steps = await self._store.progress(stack_id, _WINDOW_S)
        now = next((steps[step] for step in STEPS if step in steps and not complete(steps[step])), None)
        latest = now or next((steps[step] for step in reversed(STEPS) if step in steps), None)
        if latest is None or latest.ended or time.monotonic() > self._until.get(stack_id, 0.0):
            self._until.pop(stack_id, None)
        if latest is None:
            return
        told = message_of(stack_id, latest)
        if latest.step == "assemble" and (path := self._told_files.get(stack_id)) is not None:
            told = within(told, await asyncio.to_thread(read_told, path))
        await self._publish(told)


async def _first_of(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    await end(*waiting)


def complete(step: StepProgress) -> bool:
    """Whether all of a step is done."""
    return step.done == step.total


def message_of(stack_id: str, step: StepProgress) -> StackProgress:
    """What is told of a step."""
    rate = step.late_done / step.late_s if step.late_done and step.late_s and step.late_s > 0 else None
    return StackProgress(
        stack_id=stack_id,
        name=step.name,
        step=step.step,
        done=step.done,
        total=step.total,
        per_second=rate,
        ended=step.ended,
    )


def within(told: StackProgress, part: tuple[str, int, int] | None) -> StackProgress:
    """How far one long part is, in place of that it is one."""
    if part is None or told.ended:
        return told
    step, done, total = part
    return told.model_copy(update={"step": step, "done": done, "total": total, "per_second": None})
