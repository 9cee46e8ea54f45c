"""SWarp as it is run on the frames, and programs as they are measured.

SWarp (Bertin et al. 2002, ASP Conf. 281, 228) is tuned as its users would: two threads, memory enough that nothing is
swapped, no XML, nothing but errors printed; its temporary files go to the disk that all other files are on. What bears
on the pixels is what ours is asked for, too: the same `.head` files, weight maps rescaled by the noise found, background
meshes of 128 px, Lanczos-3, the exact output grid (by a header), limits of the clipping.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spica_stack.making.swarp_inputs import grid_head
from spica_stack.science.grid import Grid

from tests.benchmarks.stack_frames import Frames

COMBINE = {"clipped_mean": "CLIPPED", "weighted_mean": "WEIGHTED", "median": "MEDIAN"}
OPTIONS = {
    "IMAGEOUT_NAME": "coadd.fits",
    "WEIGHTOUT_NAME": "coadd.weight.fits",
    "WEIGHT_TYPE": "MAP_WEIGHT",
    "WEIGHT_SUFFIX": ".weight.fits",
    "RESCALE_WEIGHTS": "Y",
    "CLIP_AMPFRAC": "0.3",
    "CLIP_SIGMA": "4.0",
    "RESAMPLING_TYPE": "LANCZOS3",
    "INTERPOLATE": "N",
    "FSCALASTRO_TYPE": "VARIABLE",
    "SUBTRACT_BACK": "Y",
    "BACK_SIZE": "128",
    "BACK_FILTERSIZE": "3",
    "MEM_MAX": "4096",
    "VMEM_MAX": "8191",
    "COMBINE_BUFSIZE": "4096",
    "NTHREADS": "2",
    "WRITE_XML": "N",
    "WRITE_FILEINFO": "N",
    "VERBOSE_TYPE": "QUIET",
}


@dataclass(frozen=True, slots=True)
class Run:
    """What a program took, its children included."""

    seconds: float
    cpu_s: float
    peak_mb: float
    output: str = ""


def _tree(pid: int) -> list[int]:
    """A process and its living descendants."""
    found, i = [pid], 0
    while i < len(found):
        try:
            for task in Path(f"/proc/{found[i]}/task").iterdir():
                found += [int(word) for word in (task / "children").read_text().split()]
        except OSError:
            pass
        i += 1
    return found


def _resident_mb(pid: int, field: str) -> float:
    try:
        words = Path(f"/proc/{pid}/status").read_text().partition(f"{field}:")[2].split()
    except OSError:
        return 0.0
    return int(words[0]) / 1024.0 if words else 0.0


def process(command: Sequence[str], folder: Path | None = None, env: Mapping[str, str] | None = None) -> Run:
    """Run a program to its end. Raises RuntimeError with its last words if it fails.

    Memory is what is resident, pages of mapped files included: the highest sum over the processes of its tree.
    """
    peak = 0.0
    with tempfile.TemporaryFile() as output:
        begun = time.perf_counter()
        child = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=os.environ | dict(env or {})
        )
        ended = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not ended.wait(0.02):
                pids = _tree(child.pid)
                whole = _resident_mb(child.pid, "VmHWM")
                peak = max(peak, whole, sum(_resident_mb(pid, "VmRSS") for pid in pids))

        watching = threading.Thread(target=watch)
        watching.start()
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begun
        child.returncode = os.waitstatus_to_exitcode(status)
        ended.set()
        watching.join()
        output.seek(0)
        text = output.read().decode(errors="replace")
    if child.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {child.returncode}: {text[-2000:]}")
    return Run(seconds, used.ru_utime + used.ru_stime, peak, text)


def swarp(
    program: str, told: Frames, method: str, folder: Path, grid: Grid | None = None, **other: str
) -> Run:
    """Run SWarp on all frames in a fresh folder; `coadd.fits` and `coadd.weight.fits` stand there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "coadd.head").write_text(grid_head(grid or told.scene.grid))
    options = OPTIONS | {"COMBINE_TYPE": COMBINE[method]} | other
    words = [word for name, value in options.items() for word in (f"-{name}", value)]
    names = [str(member.image.resolve()) for member in told.members]
    return process([program, *names, "-c", "/dev/null", *words], folder)


def version(program: str) -> str:
    told = subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stdout.split()
    return told[2] if len(told) > 2 else ""
