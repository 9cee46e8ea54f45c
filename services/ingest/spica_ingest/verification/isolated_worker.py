"""The helper process behind `isolation`: `python -m spica_ingest.verification.isolated_worker DESCRIPTOR`.

It has one thread, so that it may fork; it imports and compiles everything once, and then only forks, waits and tells.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from spica_ingest.verification.isolation import Answer, Work

_PR_SET_PDEATHSIG = 1
_MAX_ANSWER = 1 << 28
_CHUNK = 1 << 20
_MEMORY = pickle.dumps(Answer("memory"))


def main(descriptor: int) -> None:
    """Answer one request after the other until whoever asks is gone."""
    # Ctrl-C in a terminal goes to all; whoever asks decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection: Connection[Any, Any] = Connection(descriptor)
    _warm_up()
    prctl = _prctl()
    with contextlib.suppress(OSError):
        connection.send("ready")
    while True:
        try:
            work = connection.recv()
        except (EOFError, OSError):
            return
        answer = _in_child(work, connection.fileno(), prctl)
        if answer is None:
            return
        with contextlib.suppress(OSError):
            connection.send_bytes(answer)


def _warm_up() -> None:
    """Import and compile what every file needs: children begin with it."""
    from astropy.io import fits

    from spica_ingest.verification.reading import Limits
    from spica_ingest.verification.verifying import SAMPLE, look_at

    with tempfile.TemporaryDirectory(prefix="spica-verify-") as folder:
        for name, hdu in (
            ("plain", fits.ImageHDU(SAMPLE)),
            ("rice", fits.CompImageHDU(SAMPLE, compression_type="RICE_1", tile_shape=(1, 40))),
            ("float", fits.CompImageHDU(SAMPLE / 3.0, compression_type="RICE_1", tile_shape=(1, 40))),
        ):
            path = Path(folder) / f"{name}.fits"
            fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
            look_at(path, Limits(10**6, 10**6), None, True)


def _prctl() -> Any:
    with contextlib.suppress(OSError, AttributeError):
        return ctypes.CDLL(None).prctl
    return None


def _in_child(work: Work, asking: int, prctl: Any) -> bytes | None:
    """Do one piece of work in a child. Returns the pickled answer; None if whoever asked is gone."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _be_child(work, writing, prctl)
    os.close(writing)
    try:
        content, gone, late = _wait(reading, asking, time.monotonic() + work.bounds.time_s)
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # it has answered, or is to end
        _, status, used = os.wait4(child, 0)
    if gone:
        return None
    if late:
        return pickle.dumps(Answer("time"))
    if content:
        return content
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else signal.SIGABRT
    cpu_s = used.ru_utime + used.ru_stime
    if number == signal.SIGXCPU or (number == signal.SIGKILL and cpu_s >= _cpu_limit_s(work)):
        return pickle.dumps(Answer("time"))
    return pickle.dumps(Answer("signal", int(number)))


def _wait(reading: int, asking: int, deadline: float) -> tuple[bytes, bool, bool]:
    """What the child writes to its end; whether whoever asked is gone; whether time is over."""
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    poll.register(asking, select.POLLIN)
    parts: list[bytes] = []
    size = 0
    while True:
        left = deadline - time.monotonic()
        ready = {descriptor for descriptor, _ in poll.poll(max(0.0, left) * 1000)}
        if asking in ready:  # nothing is asked meanwhile: the other end was closed
            return b"", True, False
        if reading in ready:
            part = os.read(reading, _CHUNK)
            size += len(part)
            if not part:
                return b"".join(parts), False, False
            if size > _MAX_ANSWER:
                return _MEMORY, False, False
            parts.append(part)
        elif left <= 0:
            return b"", False, True


def _be_child(work: Work, writing: int, prctl: Any) -> NoReturn:
    """Work within limits, write the answer, and leave without looking back."""
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    answer = b""
    try:
        _limit(work)
        answer = _work(work)
    except MemoryError:
        answer = _MEMORY
    finally:
        view = memoryview(answer)
        while view:
            view = view[os.write(writing, view) :]
        os._exit(0)


def _work(work: Work) -> bytes:
    try:
        function, arguments = pickle.loads(work.call)
        answer = Answer("done", function(*arguments))
    except MemoryError:
        return _MEMORY
    except RuntimeError as error:
        if "start new thread" in str(error):  # no memory for its stack
            return _MEMORY
        answer = _raised(error)
    except Exception as error:
        answer = _raised(error)
    return pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)


def _raised(error: Exception) -> Answer:
    """Say an exception so that it can be raised elsewhere: as it is, or, if it is a fault of ours, with its trace."""
    if isinstance(error, OSError) and error.errno is not None:
        return Answer("raised", OSError(error.errno, error.strerror, error.filename))
    return Answer("raised", RuntimeError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}"))


def _cpu_limit_s(work: Work) -> int:
    """Seconds of processor time: what all threads can use until the clock ends it, and a little."""
    return int(work.bounds.time_s * (work.bounds.threads + 2)) + 2


def _limit(work: Work) -> None:
    cpu_s = _cpu_limit_s(work)
    memory = work.bounds.memory_bytes
    wanted = {
        resource.RLIMIT_CPU: (cpu_s, cpu_s + 5),
        # Of its own and writable: file pages that are only looked at do not count.
        resource.RLIMIT_DATA: (memory, memory),
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_CORE: (0, 0),
    }
    for what, (soft, hard) in wanted.items():
        _, ceiling = resource.getrlimit(what)
        most = ceiling if ceiling != resource.RLIM_INFINITY else hard
        resource.setrlimit(what, (min(soft, most), min(hard, most)))


if __name__ == "__main__":
    main(int(sys.argv[1]))
