"""Frames to a stack's files, as a worker of the stack service makes them.

`python -m tests.benchmarks.stack_job JOB.json`: do that job in a process of its own, print what it took as JSON.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spica_runtime.storage import DataFolder
from spica_stack.making.order import CoaddOrder, MemberFiles
from spica_stack.making.whole import coadd_stack
from spica_stack.science.grid import Grid
from spica_stack.science.header import Label
from spica_stack.science.parameters import Clipping, Method, Parameters

from tests.benchmarks.stack_frames import Frames

FOLDER, NAME = "stacks/bench", "bench"


@dataclass(frozen=True, slots=True)
class Job:
    """What to stack."""

    root: str
    """Data folder to write to; what an earlier run left there is removed first."""
    members: tuple[tuple[str, str, str, float], ...]
    """Image, weight map, `.head` file, seeing (arcsec)."""
    grid: dict[str, Any]
    method: Method = "clipped_mean"
    threads: int = 2
    memory_bytes: int = 1_000_000_000
    subtract_background: bool = True


@dataclass(frozen=True, slots=True)
class Told:
    """What it took, from within."""

    seconds: float
    cpu_s: float
    peak_mb: float
    """Of the process since it began."""
    elapsed_s: Mapping[str, float] = field(default_factory=dict)
    n_rejected: int = 0


def job_of(
    told: Frames, root: Path, method: Method = "clipped_mean", grid: Grid | None = None, **other: Any
) -> Job:
    """The job of stacking these frames."""
    members = tuple(
        (*(str(path.resolve()) for path in (m.image, m.weight, m.head)), shot.fwhm_arcsec)
        for m, shot in zip(told.members, told.scene.shots, strict=True)
    )
    return Job(str(root), members, asdict(grid or told.scene.grid), method, **other)


def order_of(job: Job) -> CoaddOrder:
    """As the service would order it, with weights by noise alone: SWarp knows no others."""
    members = tuple(
        MemberFiles(
            image_id=f"e{number:03d}",
            name=Path(image).name,
            image=Path(image),
            profile="generic",
            weight=Path(weight),
            head=Path(head),
            flux_scale=None,
            exposure_time_s=300.0,
            mjd_obs=53_000.0 + 0.004 * number,
            fwhm_arcsec=fwhm,
        )
        for number, (image, weight, head, fwhm) in enumerate(job.members)
    )
    grid = Grid(**job.grid)
    disc = round(0.5 * max(member.fwhm_arcsec or 0.0 for member in members) / grid.scale_arcsec)
    return CoaddOrder(
        data=DataFolder(job.root),
        stack_id="bench",
        folder=FOLDER,
        name=NAME,
        grid=grid,
        parameters=Parameters(
            combine=job.method,
            psf_weight_power=0.0,
            subtract_background=job.subtract_background,
            clipping=Clipping(radius_px=min(max(disc, 2), 8)),
        ),
        members=members,
        label=Label(
            stack_id="bench",
            request_id="bench",
            name=NAME,
            filter="r.MP9601",
            object="BENCH",
            instrument="simulated",
            combine=job.method,
            date="2004-12-24T00:00:00",
            inputs=tuple(member.name for member in members),
            reference="truth",
            software="bench",
        ),
        profiles=None,
        memory_bytes=job.memory_bytes,
        threads=job.threads,
    )


def peak_mb() -> float:
    """Most memory that this process held resident so far."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) / 1024.0


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def coadd(job: Job) -> Told:
    """Make the stack anew."""
    shutil.rmtree(Path(job.root) / FOLDER, ignore_errors=True)
    begun, cpu = time.perf_counter(), _cpu_s()
    result = coadd_stack(order_of(job))
    seconds = time.perf_counter() - begun
    return Told(seconds, _cpu_s() - cpu, peak_mb(), result.elapsed_s, result.n_rejected)


if __name__ == "__main__":
    text = json.loads(Path(sys.argv[1]).read_text())
    text["members"] = tuple(tuple(member) for member in text["members"])
    print(json.dumps(asdict(coadd(Job(**text)))))
