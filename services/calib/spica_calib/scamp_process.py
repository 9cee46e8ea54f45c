"""Running SCAMP: in its folder, within its time, and telling what became of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spica_runtime.errors import Unavailable

from spica_calib.errors import CalibrationFailed

_LAST_LINES = 12
_LOG = "scamp.log"
_KILL_AFTER_S = 5.0


class EngineUnavailable(Unavailable):
    """The program that was asked for is not installed. Nothing else is taken in its place."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that ended well."""

    log: tuple[str, ...]
    """Its lines, without progress."""


def find_program(program: str) -> str:
    """Path of SCAMP. Raises `EngineUnavailable` (`scamp_missing`)."""
    found = shutil.which(program)
    if found is None:
        raise EngineUnavailable(
            "scamp_missing",
            f"The engine scamp was asked for, but there is no program {program!r} on this host. Install it (Debian and "
            "Ubuntu: package scamp; conda-forge: astromatic-scamp), or ask for the engine spica.",
        )
    return found


def run_scamp(program: str, arguments: Sequence[str], folder: Path, time_limit_s: float) -> Finished:
    """Run to the end, in `folder`; its output goes to a file there.

    Raises `CalibrationFailed` (`scamp_failed`) when it ends with an error, is killed or takes longer than
    `time_limit_s`: its whole process group is then ended.
    """
    log = folder / _LOG
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Decimal points whatever the host's language is.
            env={**os.environ, "LC_ALL": "C", "TERM": "dumb"},
        )
        try:
            status: int | None = process.wait(time_limit_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
    lines = _lines(log)
    if status != 0:
        ended = (
            f"did not end within {time_limit_s:.0f} s"
            if status is None
            else f"was ended by signal {signal.Signals(-status).name}"
            if status < 0
            else f"ended with status {status}"
        )
        raise CalibrationFailed(
            "scamp_failed",
            f"SCAMP {ended}. Its last lines: " + " | ".join(lines[-_LAST_LINES:]),
            {"status": status, "time_limit_s": time_limit_s},
        )
    return Finished(lines)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process group, if it still runs: politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        # The group's number is the leader's id, which is ours until `poll` has seen it end.
        os.killpg(process.pid, number)
        try:
            process.wait(_KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            continue


def _lines(log: Path) -> tuple[str, ...]:
    text = log.read_bytes().decode("utf-8", errors="replace").replace("\x1b[1A", "").replace("\x1b[1M", "")
    lines = (line.replace("\x1b[7m", "").replace("\x1b[0m", "").strip() for line in text.splitlines())
    return tuple(line for line in lines if line)
