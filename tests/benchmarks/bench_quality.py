"""What it costs to measure a whole exposure: a simulated MegaCam frame of 36 CCDs, from its file to all products.

Measured as the service does it (`spica_quality.jobs.measure_image`), each time in a fresh process that has measured a
small frame before. Printed: seconds of each stage, wall, processor, cores used, Mpx/s, how time goes with the number of
CCDs, and memory.

Memory is the most that was resident above what the warm process held before, divided by the CCDs in work at a time: what
it takes while there is one CCD, and the growth with each further one of the exposure, which is what is kept of a CCD
until the end (its catalogue above all). The first must be at most twice the CCD's pixels as float32, with one
thread and with two, or the run ends with an error.

Negative controls: a second run must give the same bytes of all products, with whichever number of threads, and another
image other bytes.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.benchmarks.harness import Figure, Missing, figure
from tests.benchmarks.quality_frames import CACHE, CCD_SHAPE, exposure
from tests.benchmarks.quality_job import STAGES

_SIZES = (9, 18, 36)
_REPEATS = 2
_WARM_UP = (2, (768, 640))
_MEGAPIXELS = CCD_SHAPE[0] * CCD_SHAPE[1] / 1e6
_CCD_MB = CCD_SHAPE[0] * CCD_SHAPE[1] * 4 / 2**20
_MOST_MEMORY = 2.0


@dataclass(frozen=True, slots=True)
class Run:
    """What one process told of itself."""

    n_ccds: int
    wall_s: float
    cpu_s: float
    memory_mb: float
    stages: dict[str, float]
    digests: dict[str, str]
    """Of each product, by its file's name."""
    n_sources: int


async def _measured(n_ccds: int, threads: int) -> Run:
    out = CACHE / f"out.{os.getpid()}"
    small = exposure(*_WARM_UP)
    out.mkdir(parents=True, exist_ok=True)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.benchmarks.quality_job", str(exposure(n_ccds)), str(n_ccds),
            str(out), str(threads), str(small), str(_WARM_UP[0]), stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        told, _ = await process.communicate()
    finally:
        shutil.rmtree(out)
    if process.returncode:
        raise RuntimeError(f"Measuring {n_ccds} CCDs ended with code {process.returncode}.")
    found: dict[str, Any] = json.loads(told.splitlines()[-1])
    if found["n_ccds"] != n_ccds or not found["n_sources"] or found["fwhm_px"] is None:
        raise RuntimeError(f"The exposure of {n_ccds} CCDs was not measured: {found}")
    return Run(
        n_ccds, found["wall_s"], found["cpu_s"], found["memory_mb"], found["stages"], found["digests"],
        found["n_sources"],
    )  # fmt: skip


def _line(values: list[float], runs: list[Run]) -> tuple[float, float, float]:
    """Slope and value at zero of a straight line through values by number of CCDs, and the largest deviation, relative."""
    n = np.array([run.n_ccds for run in runs], np.float64)
    slope, start = np.polyfit(n, values, 1)
    line = start + slope * n
    return float(slope), float(start), float(np.max(np.abs(np.array(values) / line - 1.0)))


def _tell(runs: list[Run], threads: int) -> None:
    whole = [run for run in runs if run.n_ccds == max(_SIZES)]
    print(f"  {threads} thread{'s' * (threads > 1)}, {whole[0].n_sources} sources on {max(_SIZES)} CCDs:")
    for run in runs:
        print(
            f"    {run.n_ccds:2d} CCDs: {run.wall_s:6.1f} s, processor {run.cpu_s:6.1f} s "
            f"({run.cpu_s / run.n_ccds:.2f} s per CCD), {run.cpu_s / run.wall_s:.2f} cores, "
            f"{run.n_ccds * _MEGAPIXELS / run.wall_s:.1f} Mpx/s, {run.memory_mb:.0f} MB"
        )


def _tell_stages(runs: list[Run]) -> None:
    whole = [run for run in runs if run.n_ccds == max(_SIZES)]
    print(f"  seconds of each stage, {max(_SIZES)} CCDs one after the other (per CCD):")
    rest = 0.0
    for stage in STAGES:
        seconds = float(np.median([run.stages.get(stage, 0.0) for run in whole]))
        rest += seconds
        print(f"    {stage:16s} {seconds:6.2f} s ({1000 * seconds / max(_SIZES):6.1f} ms)")
    wall = float(np.median([run.wall_s for run in whole]))
    print(f"    {'all else':16s} {wall - rest:6.2f} s ({1000 * (wall - rest) / max(_SIZES):6.1f} ms)")


def _control(runs: list[Run]) -> None:
    first: dict[int, dict[str, str]] = {}
    for run in runs:
        before = first.setdefault(run.n_ccds, run.digests)
        if run.digests != before:
            other = sorted(name for name in before if run.digests.get(name) != before[name])
            raise RuntimeError(f"{run.n_ccds} CCDs measured again gave other bytes in {', '.join(other)}.")
    small, large = first[min(_SIZES)], first[max(_SIZES)]
    if same := [name for name in small if large[name] == small[name]]:
        raise RuntimeError(
            f"Two exposures gave the same {', '.join(same)}: the comparison of bytes is blind."
        )
    print(f"  measured again, all {len(small)} products have the same bytes")


async def run() -> tuple[list[Figure], list[Missing]]:
    for n_ccds in _SIZES:
        await asyncio.to_thread(exposure, n_ccds)
    # A process that has to compile first differs in the last bit of some positions: not the first one counts.
    await _measured(min(_SIZES), 2)
    found: dict[int, list[Run]] = {1: [], 2: []}
    # In turn: what the machine does besides hits all alike.
    for repeat in range(_REPEATS):
        for threads in (1, 2) if repeat % 2 == 0 else (2, 1):
            found[threads] += [await _measured(n_ccds, threads) for n_ccds in _SIZES]
    made: list[Figure] = []
    for threads, runs in found.items():
        runs.sort(key=lambda run: run.n_ccds)
        _tell(runs, threads)
        made += _figures(runs, threads)
    _tell_stages(found[1])
    _control([run for runs in found.values() for run in runs])
    return made, []


def _figures(runs: list[Run], threads: int) -> list[Figure]:
    whole = [run for run in runs if run.n_ccds == max(_SIZES)]
    words = f"{max(_SIZES)} CCDs, {max(_SIZES) * _MEGAPIXELS:.0f} Mpx, {threads} at a time"
    name = f"quality.threads_{threads}"
    # The least of each size: what others do on the machine only adds.
    best = [min((run for run in runs if run.n_ccds == size), key=lambda run: run.wall_s) for size in _SIZES]
    slope, start, deviation = _line([run.wall_s for run in best], best)
    print(
        f"  {threads} at a time: {slope:.2f} s per CCD, {start:.1f} s besides; "
        f"at most {100 * deviation:.1f} % off the straight line"
    )
    kept, base, _ = _line([run.memory_mb for run in runs], runs)
    in_work = (base + kept) / threads / _CCD_MB
    print(
        f"  {threads} at a time: {in_work:.2f} × the CCD's {_CCD_MB:.1f} MB per CCD in work, "
        f"and {kept:.2f} MB kept of each CCD until the end"
    )
    if in_work > _MOST_MEMORY:
        raise RuntimeError(
            f"With {threads} CCDs at a time each takes {in_work:.2f} times its pixels, more than {_MOST_MEMORY:g}."
        )
    return [
        figure(f"{name}.wall_s", [run.wall_s for run in whole], "s", note=words),
        figure(f"{name}.cpu_s_per_ccd", [run.cpu_s / run.n_ccds for run in whole], "s", note=words),
        figure(f"{name}.cores", [run.cpu_s / run.wall_s for run in whole], "cores"),
        figure(
            f"{name}.megapixels_per_s", [max(_SIZES) * _MEGAPIXELS / run.wall_s for run in whole], "Mpx/s"
        ),
        figure(f"{name}.seconds_per_ccd", [slope], "s", note="slope over 9, 18 and 36 CCDs"),
        figure(f"{name}.off_linear", [deviation], "ratio", note="largest deviation from the straight line"),
        figure(
            f"{name}.memory_times_ccd", [in_work], "ratio",
            note="resident at most per CCD in work, over its pixels as float32; 2 allowed",
        ),
        figure(f"{name}.kept_mb_per_ccd", [kept], "MB", note="of each CCD until the exposure is done"),
        figure(f"{name}.peak_mb", [run.memory_mb for run in whole], "MB", note=words),
    ]  # fmt: skip
