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

RESULTS = Path("var/bench.json")


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
