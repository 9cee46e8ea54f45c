"""Printing: JSON for programs, colours and tables for people."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

_PIPE_WIDTH = 200
_SHORT_CELL = 18

GRADE_STYLE = {"A": "bold green", "B": "green", "C": "yellow", "D": "red"}
STATE_STYLE = {
    "arrived": "cyan",
    "wanted": "cyan",
    "verified": "cyan",
    "graded": "blue",
    "calibrated": "green",
    "exported": "green",
    "done": "green",
    "rejected": "yellow",
    "failed": "red",
}


def console(*, stderr: bool = False) -> Console:
    """Make a rich console. Progress goes to standard error, results to standard output."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        # Into a file or a pipe: no window's width to keep to.
        made.width = _PIPE_WIDTH
    return made


def _plain(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)


def as_json(value: Any, *, indent: int | None = None) -> str:
    """JSON text of rows and messages: times in ISO 8601, anything else unknown as a string."""
    return json.dumps(value, default=_plain, indent=indent, ensure_ascii=False)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print JSON on standard output, at once, so that a pipe sees each line when it is there."""
    print(as_json(value, indent=indent), flush=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people and programs, whole or not at all."""
    from spica_runtime.storage import whole_file

    with whole_file(path) as part:
        part.write_text(as_json(value, indent=2) + "\n")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """Build a table whose columns of numbers stand right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    body = [[("" if cell is None else cell) for cell in row] for row in rows]
    made = Table(
        title=title or None,
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        title_justify="left",
        title_style="bold",
    )
    for index, column in enumerate(columns):
        numeric = bool(body) and all(isinstance(row[index], int | float) or row[index] == "" for row in body)
        # Short cells stay whole; long ones (reasons, messages, paths) take what room is left.
        short = all(Text.from_markup(str(row[index])).cell_len <= _SHORT_CELL for row in body)
        made.add_column(
            column, justify="right" if numeric else "left", overflow="fold", no_wrap=short and bool(body)
        )
    for row in body:
        made.add_row(*(cell if isinstance(cell, str) else f"{cell:,}" for cell in row))
    return made


def styled_grade(grade: str | None) -> str:
    """Grade in its colour."""
    return f"[{GRADE_STYLE.get(grade, 'white')}]{grade}[/]" if grade else ""


def styled_state(state: str) -> str:
    """State in its colour."""
    return f"[{STATE_STYLE.get(state, 'white')}]{state}[/]"


def number(value: Any, digits: int = 2, unit: str = "") -> str:
    """Format a number that may be absent."""
    return "" if value is None else f"{value:.{digits}f}{unit}"


def moment(mjd: float | None) -> str:
    """Date and time (UTC) of a Modified Julian Date that may be absent."""
    if mjd is None:
        return ""
    return f"{datetime(1858, 11, 17) + timedelta(days=mjd):%Y-%m-%d %H:%M:%S}"


def reasons_line(reasons: Sequence[Mapping[str, Any]]) -> str:
    """Reasons on one line: message, and what was found and expected."""
    parts = []
    for reason in reasons:
        text = str(reason.get("message") or reason.get("code"))
        said = str(reason.get("found")) in text
        if reason.get("found") is not None and reason.get("expected") is not None and not said:
            text = f"{text.rstrip('.')} ({_short(reason['found'])}; expected {_short(reason['expected'])})"
        parts.append(text)
    return "; ".join(parts)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"
