"""Transfers on the terminal: what is being fetched right now, how far it is and how fast.

Ingest tells of them on the bus (`progress.image`) without keeping what it says; who looks sees the present.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nats.aio.msg import Msg
from pydantic import ValidationError
from spica_proto.images import ImageProgress
from spica_proto.subjects import BY_MODEL
from spica_runtime.bus import Bus
from spica_runtime.tasks import end

from spica_console import output

if TYPE_CHECKING:
    from rich.console import RenderableType

_SHOWN = 8
_SILENT_S = 30.0
_BAR_WIDTH = 30


@dataclass
class Transfers:
    """Which files are being transferred now, by what was told last of each."""

    clock: Callable[[], float] = time.monotonic
    _latest: dict[str, tuple[float, ImageProgress]] = field(default_factory=dict)

    def hear(self, told: ImageProgress) -> None:
        """Take in what was told."""
        self._latest.pop(told.uri or told.name, None)
        if not told.ended:
            self._latest[told.uri or told.name] = (self.clock(), told)

    def now(self) -> list[ImageProgress]:
        """Those under way; one that has not been told of for a while is not (its service was stopped, say)."""
        since = self.clock() - _SILENT_S
        return [told for heard_at, told in self._latest.values() if heard_at >= since]

    def __rich__(self) -> RenderableType:
        """Draw them: name, bar, size, rate."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        lines = Table.grid(padding=(0, 2))
        under_way = self.now()
        for told in under_way[:_SHOWN]:
            lines.add_row(
                Text(told.name),  # whatever anyone says on the bus is no markup
                ProgressBar(
                    total=told.total, completed=told.done, width=_BAR_WIDTH, pulse=told.total is None
                ),
                Text(amount(told)),
                f"{told.per_second / 1e6:.1f} MB/s"
                if told.per_second is not None and told.unit == "byte"
                else "",
            )
        if len(under_way) > _SHOWN:
            lines.add_row(f"[dim]and {len(under_way) - _SHOWN} more[/]")
        return lines


def amount(told: ImageProgress) -> str:
    """How much of how much."""
    if told.unit != "byte":
        return (
            f"{told.done} of {told.total} {told.unit}"
            if told.total is not None
            else f"{told.done} {told.unit}"
        )
    total = f" of {told.total / 1e6:.1f}" if told.total is not None else ""
    return f"{told.done / 1e6:.1f}{total} MB"


@asynccontextmanager
async def heard(bus: Bus) -> AsyncIterator[Transfers]:
    """Listen for the length of a block."""
    transfers = Transfers()

    async def on_message(message: Msg) -> None:
        try:
            transfers.hear(ImageProgress.model_validate_json(message.data))
        except ValidationError:
            return  # of another version: only for people to look at

    subscription = await bus.nc.subscribe(BY_MODEL[ImageProgress].name, cb=on_message)
    try:
        yield transfers
    finally:
        await subscription.unsubscribe()


@asynccontextmanager
async def shown(bus: Bus, line: Callable[[], str]) -> AsyncIterator[Callable[[], None]]:
    """Show transfers under one line of text for the length of a block; nothing where nobody looks."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    console = output.console(stderr=True)
    if not console.is_terminal:
        yield lambda: None
        return
    async with heard(bus) as transfers:
        # Drawn from here alone: rich's own thread would meet transfers as they change.
        with Live(console=console, auto_refresh=False, transient=True) as live:

            def refresh() -> None:
                live.update(Group(Text(line()), transfers), refresh=True)

            async def keep_fresh() -> None:
                while True:
                    refresh()
                    await asyncio.sleep(0.25)

            task = asyncio.create_task(keep_fresh())
            try:
                yield refresh
            finally:
                await end(task)
