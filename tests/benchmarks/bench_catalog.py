"""What detection and a catalogue cost, and what they are worth, against source-extractor.

Frames: simulated MegaCam CCDs (a deep field, one with sharp stars, a crowded one) with their truth, and a real DECam CCD
with its mask; made once. Both programs get the same pixels, threshold, filter (the same numbers), least area, contrast
of deblending and size of the background's boxes, and are asked for the same columns: a few ("minimal") or the full
catalogue (windowed positions and their errors, AUTO, APER, FLUX_RADIUS, shapes, flags, star-galaxy measure). Ours is
timed as one more CCD of a worker that is warm, and as a process of its own with the interpreter's start and all
imports; source-extractor is always a process. Files are in the page cache for both.

Worth: a true source is found if a detection lies within 2 px that no brighter source has; a detection is real if a
true one has it. Tables are printed, curves drawn into var/bench/catalog/.

Negative controls: the peer against itself must give a ratio of one; against the truth of another sky detections
must be real only as often as chance makes them. Completeness and purity of all simulated frames together must not
be below the peer's, positions of bright stars not worse, memory not above twice the CCD's, or the run ends with an error.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spica_imaging.ldac import read_ldac
from spica_quality.science.detection.filtering import gaussian_taps

from tests.benchmarks import catalog_worth as worth
from tests.benchmarks.catalog_frames import CACHE, RECIPES, BenchFrame, real, simulated
from tests.benchmarks.catalog_job import BOX_PX, CONTRAST, FULL, MIN_AREA, MINIMAL, THRESHOLD, catalogue
from tests.benchmarks.harness import Figure, Missing, alternating, figure

_PAIRS = 7
_CONTROL = (0.85, 1.15)
_MOST_MEMORY = 2.0
_PEER = "source-extractor"
_NNW = Path("/usr/share/source-extractor/default.nnw")

Columns = dict[str, NDArray[Any]]


def _version(program: str) -> str:
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return told.stdout.split("version")[-1].split()[0]


def _peer_command(program: str, frame: BenchFrame, mode: str, out: Path) -> list[str]:
    """source-extractor with the settings ours has."""
    taps = gaussian_taps(frame.fwhm_px)
    kernel = CACHE / f"{frame.name}.conv"
    rows = [" ".join(f"{value:.8f}" for value in row) for row in np.outer(taps, taps)]
    kernel.write_text("\n".join(["CONV NORM", "# as ours", *rows]) + "\n")
    names = CACHE / f"{mode}.param"
    names.write_text("\n".join(f"{name}(1)" if "_APER" in name else name for name in _columns(mode)) + "\n")
    empty = CACHE / "empty.sex"
    empty.write_text("")
    options: dict[str, object] = {
        "c": empty,
        "CATALOG_NAME": out,
        "CATALOG_TYPE": "FITS_LDAC",
        "PARAMETERS_NAME": names,
        "FILTER": "Y",
        "FILTER_NAME": kernel,
        "DETECT_MINAREA": MIN_AREA,
        "DETECT_THRESH": THRESHOLD,
        "ANALYSIS_THRESH": THRESHOLD,
        "DEBLEND_NTHRESH": 32,
        "DEBLEND_MINCONT": CONTRAST,
        "CLEAN": "Y",
        "CLEAN_PARAM": 1.0,
        "BACK_SIZE": BOX_PX,
        "BACK_FILTERSIZE": 3,
        "PHOT_APERTURES": 4.0 * frame.fwhm_px,
        "PHOT_AUTOPARAMS": "2.5,3.5",
        "SATUR_LEVEL": frame.saturation,
        "GAIN": frame.gain,
        "GAIN_KEY": "NONE",
        "SATUR_KEY": "NONE",
        "MAG_ZEROPOINT": frame.zeropoint,
        "PIXEL_SCALE": 0.187,
        "SEEING_FWHM": 0.187 * frame.fwhm_px,
        "STARNNW_NAME": _NNW,
        "HEADER_SUFFIX": ".none",
        "VERBOSE_TYPE": "QUIET",
        "WRITE_XML": "N",
    }
    if frame.weight is not None:
        options |= {"WEIGHT_TYPE": "MAP_WEIGHT", "WEIGHT_IMAGE": frame.weight}
    return [
        program,
        str(frame.path),
        *(text for name, value in options.items() for text in (f"-{name}", str(value))),
    ]


def _columns(mode: str) -> tuple[str, ...]:
    return FULL if mode == "full" else MINIMAL


def _job(frame: BenchFrame, mode: str, out: Path) -> list[str]:
    numbers = (frame.fwhm_px, frame.gain, frame.saturation, frame.zeropoint)
    mask = [str(frame.mask)] if frame.mask is not None else []
    return [mode, str(frame.path), str(out), *map(str, numbers), *mask]


def _process(command: list[str]) -> float:
    begun = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    elapsed = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"{command[:4]} failed: {done.stderr[-2000:]}")
    return elapsed


def _warm(frame: BenchFrame, mode: str, out: Path) -> float:
    begun = time.perf_counter()
    catalogue(
        mode, frame.path, out, fwhm_px=frame.fwhm_px, gain=frame.gain, saturation=frame.saturation,
        zeropoint=frame.zeropoint, mask=frame.mask,
    )  # fmt: skip
    return time.perf_counter() - begun


def _timed(work: Callable[..., float], *arguments: object) -> Callable[[], Awaitable[float]]:
    async def run() -> float:
        return await asyncio.to_thread(work, *arguments)

    return run


def _memory_times_ccd(frame: BenchFrame, mode: str, out: Path) -> float:
    """Most memory above that of a warm interpreter, in units of the CCD's float32 size; a fresh process tells."""
    command = [sys.executable, "-m", "tests.benchmarks.catalog_job", "--memory", *_job(frame, mode, out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


async def _compare(program: str, frame: BenchFrame, mode: str, about: dict[str, str]) -> list[Figure]:
    """Times, warm and whole, and memory of one frame in one mode."""
    own_out, peer_out = CACHE / f"{frame.name}.{mode}.ldac", CACHE / f"{frame.name}.{mode}.peer.ldac"
    peer = _timed(_process, _peer_command(program, frame, mode, peer_out))
    warm = _timed(_warm, frame, mode, own_out)
    command = [sys.executable, "-m", "tests.benchmarks.catalog_job", *_job(frame, mode, own_out)]
    whole = _timed(_process, command)
    for warm_up in (warm, peer, whole):
        await warm_up()
    own, other = await alternating(warm, peer, _PAIRS)
    from_start, again = await alternating(whole, peer, 3)
    memory = [_memory_times_ccd(frame, mode, own_out) for _ in range(2)]
    name = f"catalog.{mode}.{frame.name}"
    if max(memory) > _MOST_MEMORY:
        raise RuntimeError(
            f"{name} takes {max(memory):.2f} times the CCD's size of memory, more than {_MOST_MEMORY}."
        )
    return [
        figure(f"{name}.warm_s", own, "s", note="one more CCD of a warm worker, FITS to LDAC"),
        figure(f"{name}.peer_s", other, "s", **about),
        figure(f"{name}.ratio_warm", [b / a for a, b in zip(own, other, strict=True)], "ratio", **about),
        figure(f"{name}.whole_s", from_start, "s", note="interpreter, imports and one CCD"),
        figure(
            f"{name}.ratio_whole", [b / a for a, b in zip(from_start, again, strict=True)], "ratio", **about
        ),
        figure(f"{name}.memory", memory, "× CCD", note=f"above the warm interpreter; {_MOST_MEMORY} allowed"),
    ]


def _read(frame: BenchFrame, mode: str, of: str = "") -> Columns:
    return read_ldac(CACHE / f"{frame.name}.{mode}{of}.ldac")[0].columns


def _judge_worth(frames: list[BenchFrame], mode: str, about: dict[str, str]) -> list[Figure]:
    """Completeness, purity and positions of all simulated frames, as tables, curves and figures."""
    own = [worth.Worth.of(_read(frame, mode), frame) for frame in frames]
    peers = [worth.Worth.of(_read(frame, mode, ".peer"), frame) for frame in frames]
    for frame, ours, theirs in zip(frames, own, peers, strict=True):
        print(worth.table(f"{mode}, {frame.name}", ours, theirs))
    worth.draw(CACHE / f"{mode}.png", [frame.name for frame in frames], own, peers)
    name = f"catalog.{mode}"
    figures = []
    for what in ("completeness", "purity"):
        mine, other = (worth.total(parts, what) for parts in (own, peers))
        if mine[0] / mine[1] < other[0] / other[1] - worth.slack(what, other):
            raise RuntimeError(f"{what}: ours {mine[0]} of {mine[1]}, the peer's {other[0]} of {other[1]}.")
        figures += [
            figure(f"{name}.{what}", [mine[0] / mine[1]], "fraction"),
            figure(f"{name}.{what}.peer", [other[0] / other[1]], "fraction", **about),
        ]
    if mode == "full":
        pairs = [worth.position_errors(a, b, frame) for a, b, frame in zip(own, peers, frames, strict=True)]
        mine_px, other_px = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        for frame, pair in zip(frames, pairs, strict=True):
            print(f"windowed positions, {frame.name}: ours {pair[0]:.5f} px, the peer's {pair[1]:.5f} px")
            if pair[0] > 1.02 * pair[1]:
                raise RuntimeError(f"Windowed positions on {frame.name} are worse than the peer's: {pair}.")
        figures += [
            figure(f"{name}.position_error_px", mine_px, "px", note="median, same stars, S/N > 20"),
            figure(f"{name}.position_error_px.peer", other_px, "px", **about),
        ]
    return figures


def _control_of_truth(frames: list[BenchFrame], mode: str) -> list[Figure]:
    """Against another frame's truth only chance makes detections real."""
    shares, chances = [], []
    for frame, other in zip(frames, frames[1:] + frames[:1], strict=True):
        share, chance = worth.by_chance(_read(frame, mode), other)
        shares.append(share)
        chances.append(chance)
        if not 0.5 * chance < share < 1.5 * chance + 0.01:
            raise RuntimeError(
                f"{share:.3f} of the detections on {frame.name} are real by the truth of another sky; chance: {chance:.3f}."
            )
    return [
        figure(
            "catalog.control.purity_other_sky",
            shares,
            "fraction",
            note="chance: " + f"{np.mean(chances):.3f}",
        )
    ]


def _agreement(frame: BenchFrame, mode: str) -> list[Figure]:
    """On the real frame there is no truth: how much of each catalogue the other has, bright enough sources only."""
    own, peer = _read(frame, mode), _read(frame, mode, ".peer")
    return [
        figure(f"catalog.{mode}.{frame.name}.peers_that_we_have", [worth.shared(peer, own)], "fraction"),
        figure(f"catalog.{mode}.{frame.name}.ours_that_peer_has", [worth.shared(own, peer)], "fraction"),
    ]


async def run() -> tuple[list[Figure], list[Missing]]:
    program = shutil.which(_PEER) or shutil.which("sex")
    if program is None:
        return [], [Missing(_PEER, "Debian: source-extractor")]
    about = {"peer": _PEER, "peer_version": await asyncio.to_thread(_version, program)}
    skies = [await asyncio.to_thread(simulated, name) for name in RECIPES]
    decam = real()
    figures: list[Figure] = []
    peer = _timed(_process, _peer_command(program, skies[0], "minimal", CACHE / "control.ldac"))
    first, second = await alternating(peer, peer, _PAIRS)
    control = figure(
        "catalog.control.peer_itself", [a / b for a, b in zip(first, second, strict=True)], "ratio", **about
    )
    if not _CONTROL[0] <= control.value <= _CONTROL[1]:
        raise RuntimeError(
            f"The peer against itself gives {control.value:.2f} instead of 1: the machine is too restless "
            "for these figures to mean anything. Run again when it is quiet."
        )
    for mode in ("minimal", "full"):
        for frame in [*skies, *([decam] if decam else [])]:
            figures += await _compare(program, frame, mode, about)
        figures += _judge_worth(skies, mode, about)
        figures += _agreement(decam, mode) if decam else []
    absent = [] if decam else [Missing("the real DECam frame", "see tests/support/realdata.py")]
    return [*figures, control, *_control_of_truth(skies, "minimal")], absent
