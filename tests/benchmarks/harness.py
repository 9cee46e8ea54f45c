"""How a benchmark is run and told: paired and alternating, with its spread, into var/bench.json."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

RESULTS = Path("var/bench.json")
_ONE = (0.85, 1.15)
_PAPER_COLUMNS, _TABLE_COLUMNS = 130, 110
_COLUMNS = ("figure", "value", "range", "unit", "runs", "peer")


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. For a ratio above 1, Spica is better than the peer."""

    name: str
    value: float
    unit: str
    low: float
    high: float
    repetitions: int
    peer: str = ""
    peer_version: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Missing:
    """A peer that is not installed, and how to get it."""

    peer: str
    install: str


def figure(name: str, values: Sequence[float], unit: str, **about: str) -> Figure:
    """Median and full range of repeated measurements."""
    return Figure(name, statistics.median(values), unit, min(values), max(values), len(values), **about)


async def alternating(
    ours: Callable[[], Awaitable[float]], peers: Callable[[], Awaitable[float]], pairs: int
) -> tuple[list[float], list[float]]:
    """Run both in turn, each pair in the opposite order of the one before: drift hits both alike."""
    own: list[float] = []
    other: list[float] = []
    for pair in range(pairs):
        order = [(ours, own), (peers, other)]
        for run, results in order if pair % 2 == 0 else reversed(order):
            results.append(await run())
    return own, other


async def peer_against_itself(
    name: str,
    run: Callable[[], Awaitable[float]],
    pairs: int,
    **about: str,
) -> Figure:
    """Negative control: the ratio of a peer's times to its own, paired and alternating as all others are.

    Raises RuntimeError when it is not one: the machine is then too restless for any ratio.
    """
    first, second = await alternating(run, run, pairs)
    ratios = [a / b for a, b in zip(first, second, strict=True)]
    control = figure(name, ratios, "ratio", **{"note": "the peer against itself"} | about)
    if not _ONE[0] <= control.value <= _ONE[1]:
        raise RuntimeError(
            f"The peer against itself gives {control.value:.2f} instead of 1: the machine is too restless "
            "for these figures to mean anything. Run again when it is quiet."
        )
    return control


def console() -> Console:
    """Where figures are printed: on paper (a file, a pipe) wide enough that none is cut."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=max(plain.width, _PAPER_COLUMNS))


def show(out: Console, figures: Sequence[Figure], missing: Sequence[Missing]) -> None:
    """Print the closing figures: as a table, on a narrow terminal as lines, so that no number is cut short."""
    table = Table(*(Column(name, no_wrap=name in ("figure", "value", "range")) for name in _COLUMNS))
    for item in figures:
        value, unit = f"{item.value:.4g}", item.unit
        span, peer = f"{item.low:.4g} – {item.high:.4g}", f"{item.peer} {item.peer_version}".strip()
        if out.width >= _TABLE_COLUMNS:
            table.add_row(item.name, value, span, unit, str(item.repetitions), peer)
        else:
            out.print(f"{item.name}: {value} {unit} ({span})", soft_wrap=True)
    if table.row_count:
        out.print(table)
    for absent in missing:
        out.print(f"peer not installed: {absent.peer} ({absent.install})", soft_wrap=True)


def write(figures: Sequence[Figure], missing: Sequence[Missing]) -> None:
    """Replace the figures of the same names in var/bench.json, keep the others."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    old = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    names = {item.name for item in figures}
    kept = [item for item in old.get("figures", []) if item["name"] not in names]
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    RESULTS.write_text(
        json.dumps(
            {
                "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "machine": machine,
                "figures": kept + [asdict(item) for item in figures],
                "peers_not_installed": [asdict(item) for item in missing],
            },
            indent=2,
        )
        + "\n"
    )
