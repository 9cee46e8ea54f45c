"""Models of the point spread function of some CCDs, as a worker makes them; and what both programs are given.

`python -m tests.benchmarks.psf_job FOLDER...`: one model per folder, written to model.psf in it.
`python -m tests.benchmarks.psf_job --memory SMALL FOLDER`: how much memory that takes.
"""

from __future__ import annotations

import resource
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from spica_quality.psffile import write_psfex
from spica_quality.science.detection.segments import Segments, Sources
from spica_quality.science.photometry.shapes import AdaptiveMoments, adaptive_moments
from spica_quality.science.psf.measure import PsfResult, measure_psf

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ccd:
    """What detection hands on of one CCD."""

    data: NDArray[np.float32]
    """Less the sky."""
    flags: NDArray[np.uint16]
    sources: Sources
    segments: Segments
    rms: NDArray[np.float64]
    stars: NDArray[np.bool_]
    """Which sources may be used: the stars that the peer is given too."""
    gain: float
    fwhm_px: float


def save(folder: Path, ccd: Ccd) -> None:
    """Write it as plain arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "data.npy", ccd.data)
    np.save(folder / "flags.npy", ccd.flags)
    sources = {f"source_{name}": getattr(ccd.sources, name) for name in Sources.__slots__}
    runs = {f"run_{name}": getattr(ccd.segments, name) for name in ("row_start", "x0", "x1", "label")}
    other = {"rms": ccd.rms, "stars": ccd.stars, "numbers": np.array([ccd.gain, ccd.fwhm_px])}
    np.savez(folder / "sources.npz", **sources, **runs, **other)


def load(folder: Path) -> Ccd:
    """Read what `save` wrote."""
    data, flags = np.load(folder / "data.npy"), np.load(folder / "flags.npy")
    with np.load(folder / "sources.npz") as kept:
        sources = Sources(**{name: kept[f"source_{name}"] for name in Sources.__slots__})
        runs = [kept[f"run_{name}"] for name in ("row_start", "x0", "x1", "label")]
        gain, fwhm = map(float, kept["numbers"])
        return Ccd(data, flags, sources, Segments(data.shape, *runs), kept["rms"], kept["stars"], gain, fwhm)


def shapes(ccd: Ccd) -> AdaptiveMoments:
    """Adaptive moments of all sources."""
    return adaptive_moments(ccd.data, ccd.flags, ccd.sources, ccd.segments, ccd.rms, ccd.fwhm_px / 2.355)


def model(ccd: Ccd, moments: AdaptiveMoments, out: Path, degree: int | None = 2) -> PsfResult:
    """The model, into `out`; of the second degree, as PSFEx makes it unless told otherwise."""
    found = measure_psf(
        ccd.data,
        ccd.flags,
        moments,
        ccd.rms,
        gain_e_per_adu=ccd.gain,
        flux=ccd.sources.flux,
        usable=ccd.stars,
        segments=ccd.segments,
        degree=degree,
    )
    write_psfex(out, [(out.stem, found.model)])
    return found


def peak_bytes(work: Callable[[], T]) -> tuple[T, int]:
    """What `work` gives, and the most memory that was resident meanwhile."""
    peak, stop = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.002):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            peak = max(peak, pages * resource.getpagesize())

    watching = threading.Thread(target=watch)
    watching.start()
    result = work()
    stop.set()
    watching.join()
    return result, peak


def corner(ccd: Ccd, side: int = 1000) -> Ccd:
    """The sources within the first rows and columns, to warm up with. Segments are left out: they are numbered otherwise."""
    near = (ccd.sources.x < side - 50) & (ccd.sources.y < side - 50)
    sources = Sources(*(getattr(ccd.sources, name)[near] for name in Sources.__slots__))
    none = np.zeros(0, np.int32)
    segments = Segments((side, side), np.zeros(side + 1, np.int32), none, none, none)
    data, flags = (np.ascontiguousarray(pixels[:side, :side]) for pixels in (ccd.data, ccd.flags))
    return Ccd(data, flags, sources, segments, ccd.rms[near], ccd.stars[near], ccd.gain, ccd.fwhm_px)


def _memory(small: Path, folder: Path) -> None:
    """Print the CCD's bytes and how far memory rises above the interpreter that has done a corner of it."""
    warm = load(small)
    model(warm, shapes(warm), small / "model.psf")
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    def work() -> int:
        ccd = load(folder)
        model(ccd, shapes(ccd), folder / "model.psf")
        return ccd.data.nbytes

    size, peak = peak_bytes(work)
    print(size, peak - before)


def main(arguments: list[str]) -> None:
    if arguments[0] == "--memory":
        _memory(Path(arguments[1]), Path(arguments[2]))
        return
    for name in arguments:
        ccd = load(Path(name))
        model(ccd, shapes(ccd), Path(name) / "model.psf")


if __name__ == "__main__":
    main(sys.argv[1:])
