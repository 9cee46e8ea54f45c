"""A night in progress on the terminal: how far the stages are, and what was said last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from spica_console import output
from spica_console.commands.tail import line
from spica_console.following import Progress

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_STAGES = ("arrived", "verified", "graded", "calibrated", "rejected", "failed")
_EVENTS_SHOWN = 8
_BAR_WIDTH = 36


class Board:
    """Shows a `Progress`; `refresh` after news. Where nobody looks, events go by as lines."""

    def __init__(self, progress: Progress, expected: int, console: Console) -> None:
        self._progress = progress
        self._expected = expected
        self._console = console
        self._printed = 0
        self.title = ""

    def refresh(self) -> None:
        """Print what is new, if this is no terminal (a terminal redraws by itself)."""
        if self._console.is_terminal:
            return
        for event in self._progress.recent:
            if event.sequence > self._printed:
                self._printed = event.sequence
                self._console.print(line(event))

    def __rich__(self) -> RenderableType:
        """Draw it."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        counts = self._progress.counts()
        stages = Table.grid(padding=(0, 2))
        for stage in _STAGES:
            if stage in ("rejected", "failed") and not counts[stage]:
                continue
            stages.add_row(
                output.styled_state(stage),
                ProgressBar(total=self._expected, completed=counts[stage], width=_BAR_WIDTH),
                f"{counts[stage]} of {self._expected}",
            )
        for stack in self._progress.stacks:
            stages.add_row("stack", stack.label, output.styled_state(stack.state))
        events = [line(event) for event in self._progress.recent[-_EVENTS_SHOWN:]]
        return Group(f"[bold]{self.title}[/]", stages, "", *events)


@contextmanager
def board(progress: Progress, expected: int) -> Iterator[Board]:
    """Show the board for the length of a block."""
    from rich.live import Live

    console = output.console(stderr=True)
    shown = Board(progress, expected, console)
    if not console.is_terminal:
        yield shown
        return
    with Live(shown, console=console, refresh_per_second=4, transient=True):
        yield shown
