"""How a stack that is being made is shown."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console
from spica_console.following import Tracked
from spica_console.stack_progress import Makings, drawn, duration, left_s, words
from spica_proto.stacks import StackProgress


def told(**changes: Any) -> StackProgress:
    fields = {"stack_id": "s1", "name": "D1_r", "step": "tile", "done": 12, "total": 40, "per_second": 2.0}
    return StackProgress(**{**fields, **changes})


def test_what_was_told_last_counts_until_it_ends_or_falls_silent() -> None:
    now = 100.0
    makings = Makings(clock=lambda: now)
    makings.hear(told(done=1))
    makings.hear(told(done=2))
    makings.hear(told(stack_id="s2", done=9))
    assert makings.of("s1") == told(done=2)
    assert makings.of(None) is None
    now += 61
    assert makings.of("s1") is None, "its service was stopped, say"
    makings.hear(told(done=3))
    assert makings.of("s1") is not None
    makings.hear(told(done=40, ended=True))
    assert makings.of("s1") is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_how_far_how_fast_and_how_long_still() -> None:
    assert left_s(told()) == 14.0
    assert words(told()) == "12 of 40, 2.0/s, 14 s left"
    assert words(told(per_second=0.1, done=39)) == "39 of 40, 10 s each, 10 s left"
    assert words(told(total=None, per_second=None)) == "12"
    assert words(told(done=40)) == "40 of 40, 2.0/s"
    assert left_s(told(per_second=None)) is None
    assert left_s(told(per_second=0.0)) is None


def test_the_bar_is_there_only_while_the_stack_is_made_and_takes_no_markup() -> None:
    console, makings = Console(width=100), Makings()
    mine = Tracked("D1 [red]r", "stack", state="making", id="s1")
    other = Tracked("D2", "stack", state="planned", id="s2")
    makings.hear(told(step="[bold]tile"))
    with console.capture() as taken:
        console.print(drawn([mine, other], makings))
    first, bar, last = taken.get().splitlines()
    assert first == "D1 [red]r: making"
    assert bar.startswith("[bold]tile") and "━" in bar and bar.rstrip().endswith("12 of 40, 2.0/s, 14 s left")
    assert last == "D2: planned"
    mine.state = "exported"
    with console.capture() as taken:
        console.print(drawn([mine], makings))
    assert taken.get().strip() == "D1 [red]r: exported"
