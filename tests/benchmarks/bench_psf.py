"""What a model of the point spread function costs and is worth, against PSFEx.

Both are given the same stars of the same CCDs (simulated MegaCam CCDs, one with a steady and one with a varying
profile, and the real DECam frame): PSFEx as source-extractor's catalogue with stamps of these stars only, which spares
it most of its usual reading; Spica as pixels, flags, and the table of all sources. Both make a model of the second
degree and write it in the same format; PSFEx draws no plots and check images here.

Time: the whole process over four CCDs, interpreter and reading included (ours measures the adaptive moments of all
sources, too, whereas the peer's sizes stand in its catalogue); and a warm worker with the CCD in memory against the
peer's process for one CCD.

Worth: a quarter of the stars is held back from both. Each model is fitted to them (flux and position free) in the same
way, within 9 px, and judged by chi² per degree of freedom and by the residual relative to the flux. Where the
truth is known, also by the deviation from it.

Negative controls: PSFEx against itself must give a ratio of one, and the model of another CCD must be worse on the
held-back stars, or the run ends with an error.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from spica_quality.psffile import read_psfex
from spica_quality.science.psf.measure import PsfResult
from spica_quality.science.psf.model import PsfModel, render_gradient
from spica_quality.science.psf.stamps import Stamps, cut_stamps

from tests.benchmarks.harness import Figure, Missing, alternating, figure
from tests.benchmarks.psf_frames import CACHE, Case, cases
from tests.benchmarks.psf_job import corner, model, save, shapes
from tests.support.ccdsim import PsfField

_PAIRS = 7
_CONTROL = (0.85, 1.15)
_RADIUS_PX = 9.0
_BINS = (20.0, 50.0, 100.0, 200.0, 500.0, 1e9)
_OPTIONS = {
    "CHECKPLOT_TYPE": "NONE",
    "CHECKIMAGE_TYPE": "NONE",
    "WRITE_XML": "N",
    "VERBOSE_TYPE": "QUIET",
    "NTHREADS": "1",
    "CENTER_KEYS": "XWIN_IMAGE,YWIN_IMAGE",
}

Floats = NDArray[np.float64]


def _run(*command: str) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begun


def _psfex(program: str, *catalogues: Path) -> float:
    words = [word for name, value in _OPTIONS.items() for word in (f"-{name}", value)]
    return _run(program, *map(str, catalogues), "-c", "/dev/null", *words)


def _warm(case: Case) -> tuple[float, PsfResult]:
    moments = shapes(case.ccd)
    begun = time.perf_counter()
    result = model(case.ccd, moments, case.folder / "model.psf")
    return time.perf_counter() - begun, result


# ---- worth ----


def held_back(case: Case) -> tuple[Stamps, Floats]:
    """Stamps of the stars that neither program saw, and their signal-to-noise ratios."""
    k, ccd = case.held_back, case.ccd
    stamps = cut_stamps(
        ccd.data, ccd.flags, ccd.sources.x[k], ccd.sources.y[k], ccd.rms[k], 25, ccd.segments,
        (k + 1).astype(np.int32),
    )  # fmt: skip
    return stamps, shapes(ccd).snr[k]


def judge(psf: PsfModel, stamps: Stamps, gain: float) -> Floats:
    """chi² per degree of freedom, and rms residual over flux, of each star; shape (n, 2)."""
    size = stamps.size
    y, x = np.mgrid[:size, :size] - size // 2
    stamp, by_x, by_y = (np.empty((size, size), np.float32) for _ in range(3))
    found = np.empty((len(stamps), 2))
    for s in range(len(stamps)):
        flux, dx, dy = 0.0, stamps.x[s] - stamps.column[s], stamps.y[s] - stamps.row[s]
        grid = psf.grid(stamps.x[s], stamps.y[s])
        use = stamps.usable[s] & (np.hypot(x - dx, y - dy) < _RADIUS_PX)
        data = stamps.data[s][use].astype(np.float64)
        for turn in range(6):
            render_gradient(grid, psf.step_px, dx, dy, stamp, by_x, by_y)
            light = flux * stamp[use] if turn else np.maximum(data, 0.0)
            weight = 1.0 / (stamps.rms[s] ** 2 + np.maximum(light, 0.0) / gain)
            residual = data - flux * stamp[use]
            if turn == 5:
                break
            sides = np.stack([stamp[use], flux * by_x[use], flux * by_y[use]], axis=1)[:, : 3 if turn else 1]
            change = np.linalg.lstsq(
                sides * np.sqrt(weight)[:, None], residual * np.sqrt(weight), rcond=None
            )[0]
            flux += change[0]
            if turn:
                dx, dy = dx + change[1], dy + change[2]
        found[s] = np.sum(weight * residual**2) / (data.size - 3), np.sqrt(np.mean(residual**2)) / flux
    return found


def deviation(psf: PsfModel, truth: PsfField, shape: tuple[int, ...]) -> float:
    """Mean over 5 × 5 places of the rms deviation from the true profile, over its peak; flux and centre fitted."""
    from tests.unit.quality.test_psf_truth import truth_stamp

    stamp, by_x, by_y = (np.empty((25, 25), np.float32) for _ in range(3))
    found = []
    for v in (0.1, 0.3, 0.5, 0.7, 0.9):
        for u in (0.1, 0.3, 0.5, 0.7, 0.9):
            x, y = float(int(u * shape[1])), float(int(v * shape[0]))
            expected = truth_stamp(truth, x, y, shape).ravel()
            render_gradient(psf.grid(x, y), psf.step_px, 0.0, 0.0, stamp, by_x, by_y)
            sides = np.stack([stamp.ravel(), by_x.ravel(), by_y.ravel()], axis=1)
            left = expected - sides @ np.linalg.lstsq(sides, expected, rcond=None)[0]
            found.append(np.sqrt(np.mean(left**2)) / expected.max())
    return float(np.mean(found))


def _curve(name: str, snr: Floats, ours: Floats, theirs: Floats) -> None:
    print(
        f"  {name}: held-back stars, chi² per degree of freedom (residual rms / flux) by signal-to-noise ratio"
    )
    for low, high in itertools.pairwise(_BINS):
        inside = (snr >= low) & (snr < high)
        if inside.any():
            words = [
                f"{np.mean(values[inside, 0]):7.3f} ({1e4 * np.mean(values[inside, 1]):6.3f}e-4)"
                for values in (ours, theirs)
            ]
            print(
                f"    {low:5.0f} …: {np.count_nonzero(inside):4d} stars   spica {words[0]}   psfex {words[1]}"
            )


def _worth(
    case: Case, ours: PsfModel, theirs: PsfModel, stranger: PsfModel, about: dict[str, str]
) -> list[Figure]:
    stamps, snr = held_back(case)
    mine, peers, wrong = (judge(psf, stamps, case.ccd.gain) for psf in (ours, theirs, stranger))
    _curve(case.name, snr, mine, peers)
    control = float(np.mean(wrong[:, 0]) / np.mean(mine[:, 0]))
    if control < 1.1:
        raise RuntimeError(
            f"The model of another CCD describes the held-back stars of {case.name} nearly as well (chi² {control:.2f} "
            "times ours): this comparison would not notice a wrong model."
        )
    prefix = f"psf.{case.name}"
    made = [
        figure(f"{prefix}.held_back_chi2", [float(np.mean(mine[:, 0]))], "", note=f"{len(stamps)} stars"),
        figure(f"{prefix}.peer.held_back_chi2", [float(np.mean(peers[:, 0]))], "", **about),
        figure(
            f"{prefix}.held_back_chi2_ratio",
            [float(np.mean(peers[:, 0]) / np.mean(mine[:, 0]))],
            "ratio",
            **about,
        ),
        figure(
            f"{prefix}.held_back_residual_ratio",
            [float(np.mean(peers[:, 1]) / np.mean(mine[:, 1]))],
            "ratio",
            note="rms residual over flux",
            **about,
        ),
        figure(
            f"{prefix}.negative_control_chi2",
            [control],
            "ratio",
            note="the model of another CCD against ours",
        ),
    ]
    if case.psf is not None:
        own, other = (deviation(psf, case.psf, case.ccd.data.shape) for psf in (ours, theirs))
        made.append(figure(f"{prefix}.deviation_from_truth", [own], "of the peak"))
        made.append(figure(f"{prefix}.deviation_ratio", [other / own], "ratio", **about))
    return made


def _memory(case: Case) -> Figure:
    small = case.folder / "corner"
    save(small, corner(case.ccd))
    told = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.psf_job", "--memory", str(small), str(case.folder)],
        check=True,
        capture_output=True,
        text=True,
    )
    size, rise = map(int, told.stdout.split())
    if rise > 2 * size:
        raise RuntimeError(f"A model takes {rise / size:.2f} times the CCD's float32 size; 2 are allowed.")
    return figure(
        "psf.memory", [rise / size], "CCDs", note="above the warm interpreter, the CCD and its flags included"
    )


async def _times(case: Case, program: str, about: dict[str, str]) -> list[Figure]:
    copies = [case.folder / f"copy{number}.cat" for number in range(4)]
    for copy in copies:
        shutil.copyfile(case.catalogue, copy)
    folders = [str(case.folder)] * 4

    async def warm() -> float:
        return (await asyncio.to_thread(_warm, case))[0]

    async def whole() -> float:
        return await asyncio.to_thread(_run, sys.executable, "-m", "tests.benchmarks.psf_job", *folders)

    async def peer() -> float:
        return await asyncio.to_thread(_psfex, program, case.catalogue)

    async def peer_of_four() -> float:
        return await asyncio.to_thread(_psfex, program, *copies)

    for once in (warm, whole, peer, peer_of_four):
        await once()
    own, other = await alternating(warm, peer, _PAIRS)
    own_whole, other_whole = await alternating(whole, peer_of_four, 3)
    prefix = f"psf.{case.name}"
    return [
        figure(f"{prefix}.warm_s", own, "s", note="one CCD in memory"),
        figure(f"{prefix}.peer.wall_s", other, "s", note="one CCD", **about),
        figure(f"{prefix}.warm_ratio", [b / a for a, b in zip(own, other, strict=True)], "ratio", **about),
        figure(f"{prefix}.whole_s", own_whole, "s", note="four CCDs, process, reading and moments included"),
        figure(
            f"{prefix}.whole_ratio",
            [b / a for a, b in zip(own_whole, other_whole, strict=True)],
            "ratio",
            note="four CCDs, one process each",
            **about,
        ),
    ]


async def run() -> tuple[list[Figure], list[Missing]]:
    program, extractor = shutil.which("psfex"), shutil.which("source-extractor") or shutil.which("sex")
    if program is None or extractor is None:
        return [], [Missing("psfex", "Debian: psfex, source-extractor")]
    version = await asyncio.to_thread(subprocess.run, [program, "-v"], capture_output=True, text=True)
    about = {"peer": "psfex", "peer_version": version.stdout.split()[2] if version.stdout else ""}
    CACHE.mkdir(parents=True, exist_ok=True)
    all_cases = await asyncio.to_thread(cases, extractor)
    ours: list[PsfModel] = []
    theirs: list[PsfModel] = []
    for case in all_cases:
        _, result = _warm(case)
        _psfex(program, case.catalogue)
        ((_, peer),) = read_psfex(case.catalogue.with_suffix(".psf"))
        if result.model is None or peer is None:
            raise RuntimeError(f"no model of {case.name}: {result.figures.n_stars} stars of ours")
        ours.append(result.model)
        theirs.append(peer)
        print(
            f"  {case.name}: {np.count_nonzero(case.ccd.stars)} stars given, {len(case.held_back)} held back; "
            f"spica {result.model.n_stars} of {result.model.n_candidates} accepted, psfex {peer.n_stars} of "
            f"{peer.n_candidates}; FWHM {result.figures.fwhm_px:.3f} px"
        )
    figures: list[Figure] = []
    for place, case in enumerate(all_cases):
        figures += await _times(case, program, about)
        figures += _worth(case, ours[place], theirs[place], ours[place - 1], about)
    first, second = await alternating(
        lambda: asyncio.to_thread(_psfex, program, all_cases[0].catalogue),
        lambda: asyncio.to_thread(_psfex, program, all_cases[0].catalogue),
        _PAIRS,
    )
    control = figure(
        "psf.negative_control",
        [a / b for a, b in zip(first, second, strict=True)],
        "ratio",
        note="the peer against itself",
        **about,
    )
    if not _CONTROL[0] <= control.value <= _CONTROL[1]:
        raise RuntimeError(
            f"The peer against itself gives {control.value:.2f} instead of 1: the machine is too restless "
            "for these figures to mean anything. Run again when it is quiet."
        )
    return [*figures, control, _memory(all_cases[0])], []
