"""Work on files that may be anything, where it can do no harm: in a process of its own, with limits.

One helper process (`isolated_worker`) has everything imported and compiled, and forks a child for each piece of work:
that costs milliseconds, and each starts as clean as the first. A child that takes too long is ended, one that
wants too much memory is refused it, none can write a file, and one that a fault in a decoder brings down takes
nobody with it. This guards against files, not against people who write files to break in: children run as the same user.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Literal, ParamSpec, TypeVar

from spica_runtime.errors import Retriable

P = ParamSpec("P")
R = TypeVar("R")

CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGSYS)
_GRACE_S = 30.0
"""The helper keeps the time itself; this much later it counts as lost."""
_START_S = 300.0
"""A helper is ready within a second, or within half a minute where kernels are compiled for the first time."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one piece of work may cost."""

    time_s: float
    """Wall clock."""
    memory_bytes: int
    """Of its own; a file that is mapped does not count."""
    threads: int = 2


@dataclass(frozen=True, slots=True)
class Work:
    """What the helper is asked for."""

    call: bytes
    """Function and arguments, pickled: only the child looks at them."""
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of it: `value` is the result, the exception, or the number of the signal."""

    kind: Literal["done", "raised", "memory", "time", "signal"]
    value: Any = None


class Exceeded(Exception):
    """The work was more than a file is allowed, or brought its process down."""

    def __init__(self, code: str, message: str, found: str, expected: str) -> None:
        super().__init__(message)
        self.code, self.message, self.found, self.expected = code, message, found, expected


class Isolation:
    """A helper process, started when it is first needed and replaced when it is lost. One piece of work at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None
        self._aborted = False

    def __enter__(self) -> Isolation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, bounds: Bounds, function: Callable[P, R], *arguments: P.args, **none: P.kwargs) -> R:
        """Call a module's function with picklable arguments in a child process; its exceptions come back.

        Raises `Exceeded` (`verification_timeout`, `verification_memory`, `verifier_crashed`: the latter after a second
        try) and `Retriable` (`verifier_lost`) where somebody else ended it.
        """
        work = Work(pickle.dumps((function, arguments)), bounds)
        with self._lock:
            answer = self._ask(work)
            if answer.kind == "signal" and answer.value in CRASHES:
                answer = self._ask(work)
        if answer.kind == "done":
            result: R = answer.value
            return result
        if answer.kind == "raised":
            raise answer.value
        raise _failure(answer, bounds)

    def abort(self) -> None:
        """End what runs, from another thread: whoever waits for it gets `Retriable`."""
        self._aborted = True
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def close(self) -> None:
        """End the helper and what it works at."""
        connection, self._connection = self._connection, None
        process, self._process = self._process, None
        if connection is not None:
            connection.close()  # the helper hears of it, ends its child and leaves
        if process is not None:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _ask(self, work: Work) -> Answer:
        for _ in range(2):
            if self._aborted:
                break
            try:
                connection = self._connection or self._start()
                connection.send(work)
                if connection.poll(work.bounds.time_s + _GRACE_S):
                    answer: Answer = connection.recv()
                    return answer
                self._kill()
                return Answer("time")
            except (EOFError, ConnectionError):
                self._kill()  # lost, perhaps long ago: once more with another
        raise Retriable(
            "verifier_lost",
            "The process that looks at files was ended from outside. The work is tried again.",
        )

    def _start(self) -> Connection[Any, Any]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            # The helper sees the modules that are seen here. -P: and none of the folder that one happens to be in.
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "spica_ingest.verification.isolated_worker",
                    str(theirs.fileno()),
                ],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=os.environ
                | {
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                    "OPENBLAS_NUM_THREADS": "1",
                    "OMP_NUM_THREADS": "1",
                },
            )
            connection: Connection[Any, Any] = Connection(ours.detach())
        self._connection = connection
        if not connection.poll(_START_S):
            raise ConnectionError("the helper does not become ready")
        connection.recv()
        return connection

    def _kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        self.close()


def _failure(answer: Answer, bounds: Bounds) -> Exception:
    if answer.kind == "time":
        return Exceeded(
            "verification_timeout",
            "Looking at the file took too long.",
            f"more than {bounds.time_s:g} s",
            f"{bounds.time_s:g} s at most (SPICA_INGEST_VERIFY_TIMEOUT_S)",
        )
    if answer.kind == "memory":
        return Exceeded(
            "verification_memory",
            "Looking at the file needs too much memory.",
            f"more than {bounds.memory_bytes / 1e6:.0f} MB",
            f"{bounds.memory_bytes / 1e6:.0f} MB at most (SPICA_INGEST_VERIFY_MEMORY_BYTES)",
        )
    if answer.value in CRASHES:
        return Exceeded(
            "verifier_crashed",
            "Looking at the file brought a decoder down, twice.",
            signal.Signals(answer.value).name,
            "a file that decoders understand",
        )
    return Retriable(
        "verifier_lost",
        f"The process that looked at the file was ended from outside (signal {answer.value}). "
        "The work is tried again.",
    )


@cache
def isolation() -> Isolation:
    """The helper of this process."""
    made = Isolation()
    atexit.register(made.close)
    return made
