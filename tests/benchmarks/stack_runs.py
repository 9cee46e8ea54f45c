"""Our side of the comparison with SWarp: jobs in a warm worker, and in processes of their own."""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

from spica_stack.science.grid import Grid
from spica_stack.science.parameters import Method

from tests.benchmarks import stack_frames as given
from tests.benchmarks import stack_peer as peer
from tests.benchmarks import stack_worth as worth
from tests.benchmarks.stack_frames import CACHE, Frames
from tests.benchmarks.stack_job import FOLDER, NAME, Job, Told, coadd, job_of

OURS = CACHE / "ours"


@lru_cache(maxsize=1)
def _worker() -> ProcessPoolExecutor:
    """A process that does jobs one after the other, as a service's worker."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def made(job: Job) -> Told:
    """Do a job in the warm worker."""
    return _worker().submit(coadd, job).result()


def job(told: Frames, method: Method = "clipped_mean", grid: Grid | None = None, name: str = "") -> Job:
    root = OURS / name if name else OURS
    root.mkdir(parents=True, exist_ok=True)
    return job_of(told, root.resolve(), method, grid)


def planes(wanted: Job) -> tuple[given.Pixels, given.Pixels]:
    """Image and weight that a job left."""
    folder = Path(wanted.root) / FOLDER
    return worth.plane(folder / f"{NAME}.fits"), worth.plane(folder / f"{NAME}.weight.fits")


def cold(wanted: Job, env: dict[str, str] | None = None) -> peer.Run:
    """Do a job in a process of its own."""
    path = Path(wanted.root) / "job.json"
    path.write_text(json.dumps(asdict(wanted)))
    return peer.process([sys.executable, "-m", "tests.benchmarks.stack_job", str(path)], env=env)


def first_run(wanted: Job) -> None:
    with tempfile.TemporaryDirectory(dir=CACHE) as empty:
        run = cold(wanted, {"NUMBA_CACHE_DIR": empty})
    print(f"  first run, with nothing compiled: {run.seconds:.1f} s")
