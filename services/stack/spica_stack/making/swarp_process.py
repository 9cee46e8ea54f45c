"""Running SWarp: in its folder, no longer than the process that asked for it, and telling what became of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from spica_runtime.errors import NotRetriable, Retriable, Unavailable

_PREFIX = ".part-swarp-"
"""Folders of this kind are swept everywhere in the data folder if they are left behind (`sweep_parts`)."""
_LOCK, _LOG = "lock", "swarp.log"
_LAST_LINES = 12
_KILL_AFTER_S = 5.0
_LOOK_EVERY_S = 0.2
_LITTLE_SPACE_BYTES = 100_000_000

# Linux ends the program when the process that asked for it is gone, however that came about. It is told so by the
# program's own process, before the program takes its place; a parent that died even before is seen by its number.
_WITH_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def find_program(names: Sequence[str]) -> str:
    """Path of SWarp, by the first of these names that is there. Raises `NotRetriable` (`swarp_missing`)."""
    for name in names:
        if found := shutil.which(name):
            return found
    raise NotRetriable(
        "swarp_missing",
        f"The engine swarp was asked for, but there is no program {' or '.join(map(repr, names))} on this host. Install "
        "it (Debian and Ubuntu: package swarp; conda-forge: astromatic-swarp), or ask for the engine spica.",
    )


def version_of(program: str) -> str:
    """Version that the program tells, such as `2.41.5`."""
    told = subprocess.run(
        [program, "-v"], capture_output=True, text=True, check=False, timeout=60
    ).stdout.split()
    return told[2] if len(told) > 2 else "of unknown version"


@contextlib.contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """A folder for SWarp's files below `folder`, gone afterwards; what killed ones left there goes first."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), _held(left):
            shutil.rmtree(left, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
    try:
        with _held(scratch):
            yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _held(scratch: Path) -> Iterator[None]:
    """Hold a folder's lock: processes lose theirs when they end. Raises OSError where another has it."""
    with (scratch / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def run_swarp(
    program: str,
    arguments: Sequence[str],
    folder: Path,
    time_limit_s: float,
    looking: Callable[[], None] = lambda: None,
) -> tuple[str, ...]:
    """Run to the end, in `folder`; returns the lines of its log. `looking` is called now and then meanwhile.

    Raises `NotRetriable` (`swarp_failed`) with its last lines, `Retriable` (`swarp_ended`) if it was ended from
    outside, `Unavailable` (`disk_full`).
    """
    log = folder / _LOG
    command = [sys.executable, "-I", "-S", "-c", _WITH_PARENT, str(os.getpid()), program, *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Decimal points whatever the host's language is.
            env={**os.environ, "LC_ALL": "C", "TERM": "dumb"},
        )
        try:
            status = _wait(process, time_limit_s, looking)
        finally:
            _end(process)
    lines = _lines(log)
    if status != 0:
        raise _failure(status, lines, folder, time_limit_s)
    return lines


def _wait(process: subprocess.Popen[bytes], time_limit_s: float, looking: Callable[[], None]) -> int | None:
    """Its status; None where it takes too long."""
    until = time.monotonic() + time_limit_s
    while time.monotonic() < until:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(_LOOK_EVERY_S)
        looking()
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it, if it still runs: politely, then not."""
    for end in (process.terminate, process.kill):
        if process.poll() is not None:
            return
        end()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_KILL_AFTER_S)


def _failure(
    status: int | None, lines: Sequence[str], folder: Path, time_limit_s: float
) -> NotRetriable | Retriable:
    last = " | ".join(lines[-_LAST_LINES:]) or "it said nothing"
    free = shutil.disk_usage(folder).free
    if free < _LITTLE_SPACE_BYTES or any("No space left" in line for line in lines):
        return Unavailable(
            "disk_full",
            f"No space left for SWarp's files in {folder}: {free / 1e6:.0f} MB free. Free some space; the work goes on by "
            "itself.",
            {"free_bytes": free},
        )
    if status in (-signal.SIGKILL, -signal.SIGTERM):
        return Retriable(
            "swarp_ended", f"SWarp was ended by {signal.Signals(-status).name}. Its last lines: {last}"
        )
    ended = (
        f"did not end within {time_limit_s:.0f} s"
        if status is None
        else f"was ended by signal {signal.Signals(-status).name}"
        if status < 0
        else f"ended with status {status}"
    )
    return NotRetriable("swarp_failed", f"SWarp {ended}. Its last lines: {last}", {"status": status})


def _lines(log: Path) -> tuple[str, ...]:
    text = log.read_bytes().decode("utf-8", errors="replace")
    for code in ("\x1b[1A", "\x1b[1M", "\x1b[7m", "\x1b[0m"):
        text = text.replace(code, "")
    return tuple(line.strip() for line in text.splitlines() if line.strip())
