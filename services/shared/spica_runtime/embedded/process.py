"""Child processes that end when their parent does, and ports that must be free."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from spica_runtime.errors import SpicaError

_PR_SET_PDEATHSIG = 1


class CannotStart(SpicaError):
    """A server or service of the embedded platform cannot start; the message says what to do."""


def _die_with_parent(number: int) -> Callable[[], None]:
    """For preexec_fn: on Linux, get this signal when the parent ends, however it ended."""
    parent = os.getpid()
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def prepare() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

    return prepare


class Child:
    """A child process with its log file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        user: int | None = None,
        group: int | None = None,
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._stop_signal = stop_signal
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(environment) if environment is not None else None,
                user=user,
                group=group,
                extra_groups=[] if user is not None else None,
                cwd=folder,
                # Not this terminal's Ctrl-C: the supervisor stops its children in order.
                start_new_session=True,
                preexec_fn=_die_with_parent(stop_signal),  # noqa: PLW1509 - two system calls, no lock that a thread could hold
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._process.kill()
        self._process.wait()

    async def stop(self, grace_s: float) -> None:
        """Ask it to stop; end it after the grace."""
        if self.exit_code() is not None:
            return
        self._process.send_signal(self._stop_signal)
        for _ in range(int(grace_s / 0.05)):
            if self.exit_code() is not None:
                return
            await asyncio.sleep(0.05)
        self.kill()

    def last_lines(self, count: int = 12) -> str:
        """The end of its log, for error messages."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])


def free_port() -> int:
    """A port on 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def claim_port(port: int, what: str, setting: str) -> int:
    """This port if it is free, any free one for 0; else an error that names who has it."""
    if port == 0:
        return free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise CannotStart(
                "port_busy",
                f"Port {port} for {what} is in use{_owner(port)}. Set {setting} to another port, or to 0 for any.",
                {"port": port},
            ) from error
    return port


def _owner(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        pass
    return ""


def require_space(folder: Path, needed_bytes: int) -> None:
    """Refuse to start on a disk that is all but full: PostgreSQL would stop in the middle."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise CannotStart(
            "disk_full",
            f"Only {free / 1e6:.0f} MB are free in {folder}; at least {needed_bytes / 1e6:.0f} MB are needed to start. "
            "Free some space, or choose another folder with SPICA_HOME.",
            {"free_bytes": free},
        )
