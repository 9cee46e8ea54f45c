"""A stack on the terminal while it is made: which step, how far, how fast, how long still.

The stack service tells of it on the bus (`progress.stack`) without keeping what it says; who looks sees the present.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nats.aio.msg import Msg
from pydantic import ValidationError
from spica_proto.stacks import StackProgress
from spica_proto.subjects import BY_MODEL
from spica_runtime.bus import Bus
from spica_runtime.tasks import end

from spica_console import output
from spica_console.following import Tracked

if TYPE_CHECKING:
    from rich.console import RenderableType

_SILENT_S = 60.0
_BAR_WIDTH = 30
STEPS = {"prepare": "preparing members", "tile": "making tiles", "assemble": "putting files together"}


@dataclass
class Makings:
    """Which stacks are being made now, by what was told last of each."""

    clock: Callable[[], float] = time.monotonic
    _latest: dict[str, tuple[float, StackProgress]] = field(default_factory=dict)

    def hear(self, told: StackProgress) -> None:
        """Take in what was told."""
        self._latest.pop(told.stack_id, None)
        if not told.ended:
            self._latest[told.stack_id] = (self.clock(), told)

    def of(self, stack_id: str | None) -> StackProgress | None:
        """What was told last of one; None where it is not being made, or nobody has told of it for a while."""
        heard_at, told = self._latest.get(stack_id or "", (0.0, None))
        return told if told is not None and heard_at >= self.clock() - _SILENT_S else None


def left_s(told: StackProgress) -> float | None:
    """How long this step will still take at the rate of late, in seconds."""
    if told.total is None or not told.per_second:
        return None
    return (told.total - told.done) / told.per_second


def duration(seconds: float) -> str:
    """As people say it: 8 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def words(told: StackProgress) -> str:
    """How far, how fast, how long still."""
    total = f" of {told.total}" if told.total is not None else ""
    parts = [f"{told.done}{total}"]
    if told.per_second:
        rate = told.per_second
        parts.append(f"{rate:.1f}/s" if rate >= 1 else f"{duration(1 / rate)} each")
    if (left := left_s(told)) is not None and told.done != told.total:
        parts.append(f"{duration(left)} left")
    return ", ".join(parts)


def drawn(tracked: Sequence[Tracked], makings: Makings) -> RenderableType:
    """A line of state for each stack, and a bar under it while it is made."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    lines: list[RenderableType] = []
    for one in tracked:
        lines.append(Text(f"{one.label}: {one.state}"))  # whatever anyone says on the bus is no markup
        told = makings.of(one.id)
        if told is None or one.ended:
            continue
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            Text(STEPS.get(told.step, told.step)),
            ProgressBar(total=told.total, completed=told.done, width=_BAR_WIDTH, pulse=told.total is None),
            Text(words(told)),
        )
        lines.append(bar)
    return Group(*lines)


@asynccontextmanager
async def heard(bus: Bus) -> AsyncIterator[Makings]:
    """Listen for the length of a block."""
    makings = Makings()

    async def on_message(message: Msg) -> None:
        try:
            makings.hear(StackProgress.model_validate_json(message.data))
        except ValidationError:
            return  # of another version: only for people to look at

    subscription = await bus.nc.subscribe(BY_MODEL[StackProgress].name, cb=on_message)
    try:
        yield makings
    finally:
        await subscription.unsubscribe()


@asynccontextmanager
async def shown(bus: Bus, *tracked: Tracked) -> AsyncIterator[Callable[[], None]]:
    """Show state and progress of stacks for the length of a block; nothing where nobody looks.

    Yields what is to be called when there is news of them.
    """
    from rich.live import Live

    console = output.console(stderr=True)
    if not console.is_terminal:
        yield lambda: None
        return
    async with heard(bus) as makings:
        # Drawn from here alone: rich's own thread would meet what it draws as it changes.
        with Live(console=console, auto_refresh=False, transient=True) as live:

            def refresh() -> None:
                live.update(drawn(tracked, makings), refresh=True)

            async def keep_fresh() -> None:
                while True:
                    refresh()
                    await asyncio.sleep(0.25)

            task = asyncio.create_task(keep_fresh())
            try:
                yield refresh
            finally:
                await end(task)
