"""Numerical work in worker processes, off the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

from spica_runtime.errors import Retriable

P = ParamSpec("P")
R = TypeVar("R")


class Compute:
    """A pool of worker processes, started when first needed, replaced when a worker dies."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a top-level function with picklable arguments in a worker process.

        Exceptions come back as they were raised. A worker that dies (killed, out of memory) is
        `Retriable` with code `worker_died`.
        """
        pool = self._pool = self._pool or self._start()
        try:
            with _deaf_to_ctrl_c():
                future = pool.submit(function, *args, **kwargs)
            return await asyncio.wrap_future(future)
        except BrokenProcessPool as error:
            if self._pool is pool:
                self._pool = None
            pool.shutdown(wait=False, cancel_futures=True)
            raise Retriable(
                "worker_died", "A worker process died (out of memory, or killed). The work is tried again."
            ) from error

    def close(self) -> None:
        """Stop the workers; work that runs is ended."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        workers = list(pool._processes.values()) if pool._processes else []
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join(timeout=5)

    def _start(self) -> ProcessPoolExecutor:
        # spawn: a forked child of a process with threads (event loop, numba) may hang.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self._workers, mp_context=context, initializer=_end_with_parent)


@contextlib.contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes started in here hear no Ctrl-C, which goes to all of a terminal's: when they end is for their parent to say.

    A signal that comes meanwhile reaches this thread afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """End this worker when its service is gone, however it went: nobody would hear of its work."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()
