"""The `spica` command as people run it: a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spica_runtime.settings import PlatformSettings


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output as JSON."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """Its output as one JSON object per line."""
        return [json.loads(line) for line in self.out.splitlines()]


def run_to_end(
    command: Sequence[object], home: Path, *, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run a command that brings its own platform in `home`; one that does not end, or fails, leaves its traces.

    Where it hangs is told by its own stack (SIGABRT, faulthandler), what it waited for by the services' logs.
    """
    with subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            out, err = process.communicate(timeout=30)
            err += f"\n(did not end within {timeout_s:g} s)"
    if process.returncode != 0:
        err += "".join(f"\n--- {path.name}\n{_complaints(path)}" for path in sorted(home.glob("logs/*.log")))
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _complaints(log: Path, count: int = 40) -> str:
    """Warnings and errors of a log, and its last lines."""
    lines = log.read_text(errors="replace").splitlines()
    serious = [line for line in lines[:-5] if '"level": "info"' not in line]
    return "\n".join([*serious[-count:], *lines[-5:]])


def environment(settings: PlatformSettings | None, home: Path) -> dict[str, str]:
    """Environment of a command: nothing of Spica's but what is given here."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SPICA_")}
    clean |= {"SPICA_HOME": str(home), "COLUMNS": "200", "NO_COLOR": "1"}
    if settings is not None:
        clean |= {
            "SPICA_NATS_URL": settings.nats_url,
            "SPICA_DATABASE_URL": settings.database_url,
            "SPICA_DATA": str(settings.data),
        }
    return clean


async def begin(*arguments: str, settings: PlatformSettings | None, home: Path) -> asyncio.subprocess.Process:
    """Start a command."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-c",
        "from spica_console.cli import main; main()",
        *arguments,
        env=environment(settings, home),
        cwd=home,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def end(process: asyncio.subprocess.Process, timeout_s: float = 60) -> Ended:
    """Wait for its end."""
    try:
        out, err = await asyncio.wait_for(process.communicate(), timeout_s)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return Ended(process.returncode or 0, out.decode(), err.decode())


async def spica(*arguments: str, settings: PlatformSettings | None, home: Path) -> Ended:
    """Run a command to its end."""
    return await end(await begin(*arguments, settings=settings, home=home))
