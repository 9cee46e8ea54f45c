"""What astrometric solutions cost and are worth, against SCAMP.

Both programs are given the same FITS_LDAC catalogues with the same raw headers (linear TAN on the drawn focal plane, off by
up to 50″, 4° and 15 %), the same reference stars, and look over the same range (1′, 5°, 20 %): five exposures of four
CCDs, and twenty of MegaCam's 36. How SCAMP is run, and why so, stands in `astrometry_frames`. Ours reads the catalogues,
matches each exposure, solves them together, and writes `.head` files: in a warm worker on one thread, as the service
runs it; what a cold process takes is told beside it. The reference is read anew each time.

Both fit a distortion of third degree while they are timed.

Worth: positions of bright stars (signal-to-noise ratio above 50, not flagged) through the solved headers, against the
truth, in five realisations: as they were measured, and at their true pixels, where only the map from pixels to the sky is
judged. Both may go to the fifth degree. Ours may not be worse, or the run ends with an error, than SCAMP by its default
and with the same model, one distortion for the run (STABILITY_TYPE INSTRUMENT). What SCAMP gives with a distortion of its
own for each exposure, from good headers, is shown beside: so many parameters follow the noise of the very stars that are
looked at, but also what no polynomial describes.

Solve only: headers that are linear but good to about three pixels, SCAMP with MATCH N.

Negative controls: no header holds the truth; a shuffled reference must be refused; headers shifted by 10″ must give the
same solution; SCAMP against itself must give a ratio of one.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import lru_cache

import numpy as np
from spica_calib.science.matching.geometry import NoMatch

from tests.benchmarks import astrometry_frames as given
from tests.benchmarks import astrometry_truth as truth
from tests.benchmarks.astrometry_frames import Frames
from tests.benchmarks.astrometry_job import Job, Told, calibrate
from tests.benchmarks.harness import Figure, Missing, alternating, figure, peer_against_itself

_PAIRS_MATCH, _PAIRS_SOLVE, _PAIRS_LARGE, _PAIRS_CONTROL = 3, 7, 1, 7
_NO_WORSE = 1.01
"""Rounding in headers, and ties among outliers, leave the last per cent to chance."""
_DEGREE_TIMED, _DEGREE_JUDGED = 3, 5
"""Highest degree of the distortion, the same for both. SCAMP takes it as it is, ours as far as the stars bear."""
_SAME_MAS = 0.5
_SIZES = (10, 100, 1000)
_MEMORY_LIMIT_MB = 4096.0


def job(
    told: Frames, *, match: bool, name: str = "ours", threads: int = 1, degree: int = _DEGREE_TIMED
) -> Job:
    """What ours is asked to do with these frames; its `.head` files go into a folder of their own."""
    return Job(
        tuple(map(str, told.catalogues)), str(told.reference), str(told.folder / name), match, threads, degree
    )


@lru_cache(maxsize=1)
def _worker() -> ProcessPoolExecutor:
    """A process that does jobs one after the other, with the surroundings of a service's worker."""
    before = {name: os.environ.get(name) for name in given.AS_A_SERVICE}
    os.environ.update(given.AS_A_SERVICE)
    try:
        pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        pool.submit(os.getpid).result()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    return pool


def solved(wanted: Job) -> Told:
    """Do a job in the warm worker. Raises `NoMatch`."""
    return _worker().submit(calibrate, wanted).result()


class Contest:
    """Both programs on the same frames; what they told and took is kept."""

    def __init__(self, program: str, told: Frames, *, match: bool, stability: str = "INSTRUMENT") -> None:
        self.program, self.frames, self.match, self.stability = program, told, match, stability
        self.job = job(told, match=match)
        self.stages: list[dict[str, float]] = []
        self.peer_mb = 0.0

    async def ours(self) -> float:
        begun = time.perf_counter()
        told = await asyncio.to_thread(solved, self.job)
        self.stages.append(told.seconds)
        return time.perf_counter() - begun

    async def peer(self) -> float:
        run = await asyncio.to_thread(
            given.scamp, self.program, self.frames, match=self.match, stability=self.stability
        )
        self.peer_mb = max(self.peer_mb, run.peak_mb)
        return run.seconds

    async def whole(self) -> given.Run:
        """Ours as a process of its own."""
        path = self.frames.folder / "job.json"
        path.write_text(json.dumps(asdict(self.job)))
        command = [sys.executable, "-m", "tests.benchmarks.astrometry_job", str(path)]
        return await asyncio.to_thread(given.process, command, None, given.AS_A_SERVICE)

    async def run(self, name: str, pairs: int, about: dict[str, str]) -> list[Figure]:
        """Paired and alternating; both once before, so that files and kernels are warm."""
        await self.ours()
        self.stages.clear()
        if pairs > 1:
            await self.peer()
        own, other = await alternating(self.ours, self.peer, pairs)
        cold = await self.whole()
        stages = {stage: float(np.median([told[stage] for told in self.stages])) for stage in self.stages[0]}
        print(
            f"  {name}: ours by stage " + ", ".join(f"{key} {value:.3f} s" for key, value in stages.items())
        )
        print(
            f"  {name}: warm {np.median(own):.2f} s, cold process {cold.seconds:.2f} s and {cold.peak_mb:.0f} MB; "
            f"scamp ({self.stability}) {np.median(other):.2f} s and {self.peer_mb:.0f} MB"
        )
        return [
            figure(f"{name}.warm_s", own, "s"),
            figure(f"{name}.cold_s", [cold.seconds], "s", note="whole process, kernels from their cache"),
            figure(f"{name}.peer.wall_s", other, "s", **about),
            figure(f"{name}.ratio", [b / a for a, b in zip(own, other, strict=True)], "ratio", **about),
            figure(f"{name}.cold_ratio", [float(np.median(other)) / cold.seconds], "ratio", **about),
            figure(f"{name}.peak_mb", [cold.peak_mb], "MB", note="cold process"),
            figure(f"{name}.peer.peak_mb", [self.peer_mb], "MB", **about),
        ]


# ---- worth ----


def _line(who: str, told: truth.Verdict) -> str:
    inside, outside = (f"{np.mean(pair):6.2f}" for pair in (told.internal_mas, told.external_mas))
    return f"    {who:17s} {told.measured}  | map {told.mapped.median:6.2f} {told.mapped.p68:6.2f} {told.mapped.p95:7.2f} | told: internal {inside}, external {outside}"  # noqa: E501


def _ours(told: Frames, name: str = "ours") -> tuple[truth.Verdict, Told]:
    done = solved(job(told, match=True, name=name, degree=_DEGREE_JUDGED))
    return truth.judge(told.survey, told.folder / name, done.internal_mas, done.external_mas), done


def _theirs(told: Frames) -> truth.Verdict:
    return truth.judge(told.survey, told.folder, *truth.scamp_rms(told.survey, told.folder))


def _compare(
    name: str, ours: truth.Verdict, peers: dict[str, truth.Verdict], about: dict[str, str]
) -> tuple[list[Figure], list[str]]:
    """Figures of one realisation, and what was worse than the peer's."""
    made, worse = [], []
    for what in ("measured", "mapped"):
        mine: truth.Worth = getattr(ours, what)
        theirs: truth.Worth = getattr(peers[given.STABILITIES[0]], what)
        for measure in ("median", "p68"):
            value, least = getattr(mine, measure), getattr(theirs, measure)
            if value > _NO_WORSE * least:
                worse.append(f"{name}, {what}, {measure}: {value:.2f} mas, the peer's {least:.2f}")
        made.append(figure(f"{name}.{what}_p68_mas", [mine.p68], "mas", note=f"{mine.n} bright stars"))
        made.append(figure(f"{name}.{what}_p68_ratio", [theirs.p68 / mine.p68], "ratio", **about))
    return made, worse


def _worth(program: str, about: dict[str, str]) -> tuple[list[Figure], list[str]]:
    """The five realisations."""
    figures: list[Figure] = []
    worse: list[str] = []
    print("  distances from the truth (mas): median, 68 %, 95 %; robust σ and offset along RA*cos(Dec), Dec")
    for name, recipe in given.REALISATIONS.items():
        told = given.raw(recipe)
        given.assert_no_truth(told)
        ours, done = _ours(told)
        degree = {"DISTORT_DEGREES": str(_DEGREE_JUDGED)}
        given.scamp(program, told, match=True, **degree)
        peers = {"INSTRUMENT": _theirs(told)}
        good = given.good(told.survey)
        given.scamp(program, good, match=False, stability="EXPOSURE", **degree)
        peers["EXPOSURE"] = _theirs(good)
        print(f"  {name}: {ours.measured.n} bright stars of {told.survey.n_detections} detections")
        print(_line("spica", ours))
        for stability, verdict in peers.items():
            print(_line(f"scamp {stability}", verdict))
        for note in done.notes:
            print(f"    note: {note}")
        prefix = "astrometry.worth." + name.replace(",", "").replace(" ", "_")
        made, bad = _compare(prefix, ours, peers, about)
        figures += made
        worse += bad
    return figures, worse


# ---- controls ----


def _controls(raw: Frames) -> list[Figure]:
    looked = given.assert_no_truth(raw)
    print(f"  no truth in {looked} cards of {len(raw.catalogues)} raw headers")
    rng = np.random.default_rng(5)
    shuffled = given.with_reference(raw, raw.survey.shuffled_reference(rng), f"{raw.folder.name}-shuffled")
    try:
        solved(job(shuffled, match=True, name="shuffled"))
    except NoMatch as refused:
        print(f"  a shuffled reference is refused: {refused.message}")
    else:
        raise RuntimeError("A shuffled reference was matched: matches mean nothing.")
    moved = given.shifted(raw.survey, 10.0)
    solved(job(raw, match=True))
    solved(job(moved, match=True))
    first, second = (
        truth.deviations(raw.survey, truth.read_heads(raw.survey, told.folder / "ours"))[1]
        for told in (raw, moved)
    )
    change = float(np.percentile(np.hypot(*(first - second)), 95))
    print(f"  headers shifted by 10″ move the solution by {change:.4f} mas (95 %)")
    if change > _SAME_MAS:
        raise RuntimeError(f"Headers shifted by 10″ move the solution by {change:.2f} mas.")
    return [figure("astrometry.control.shift_change_mas", [change], "mas", note="95 %, headers off by 10″")]


# ---- scaling ----


def _scaling() -> list[Figure]:
    figures: list[Figure] = []
    print(
        "  exposures  detections     solve   per exposure   peak memory (of it input and libraries)   68 % of map"
    )
    for n in _SIZES:
        command = [sys.executable, "-m", "tests.benchmarks.astrometry_scaling", str(n)]
        run = given.process(command, env=given.AS_A_SERVICE)
        told = json.loads(run.output.splitlines()[-1])
        print(
            f"  {n:9d} {told['n_detections']:11d} {told['solve_s']:8.1f} s {1000 * told['solve_s'] / n:9.1f} ms "
            f"{told['peak_mb']:10.0f} MB ({told['before_mb']:.0f} MB) {told['p68_mas']:27.2f} mas"
        )
        figures += [
            figure(f"astrometry.scaling.{n}.solve_s", [told["solve_s"]], "s", note="36 CCDs of 300 stars"),
            figure(f"astrometry.scaling.{n}.peak_mb", [told["peak_mb"]], "MB", note="input included"),
            figure(f"astrometry.scaling.{n}.map_p68_mas", [told["p68_mas"]], "mas"),
        ]
        if told["peak_mb"] > _MEMORY_LIMIT_MB:
            raise RuntimeError(
                f"{n} exposures take {told['peak_mb']:.0f} MB; {_MEMORY_LIMIT_MB:.0f} are allowed."
            )
    return figures


async def run() -> tuple[list[Figure], list[Missing]]:
    program = shutil.which("scamp")
    if program is None:
        return [], [Missing("scamp", "Debian: scamp")]
    about = {"peer": "scamp", "peer_version": await asyncio.to_thread(given.version, program)}
    small = await asyncio.to_thread(given.raw, given.SMALL)
    small_good = await asyncio.to_thread(given.good, small.survey)
    figures = await asyncio.to_thread(_controls, small)
    control = Contest(program, small_good, match=False)
    await control.peer()
    figures.append(
        await peer_against_itself("astrometry.control.peer_itself", control.peer, _PAIRS_CONTROL, **about)
    )
    figures += await Contest(program, small, match=True).run("astrometry.5x4.match", _PAIRS_MATCH, about)
    for stability in given.STABILITIES:
        contest = Contest(program, small_good, match=False, stability=stability)
        figures += await contest.run(f"astrometry.5x4.solve_only.{stability.lower()}", _PAIRS_SOLVE, about)
    made, worse = await asyncio.to_thread(_worth, program, about)
    figures += made
    made, bad = await _large(program, about)
    figures += made + await asyncio.to_thread(_scaling)
    if worse + bad:
        raise RuntimeError("Positions are worse than the peer's:\n" + "\n".join(worse + bad))
    return figures, []


async def _large(program: str, about: dict[str, str]) -> tuple[list[Figure], list[str]]:
    raw = await asyncio.to_thread(given.raw, given.LARGE)
    print(
        f"  20 × 36: {raw.survey.n_detections} detections, {len(raw.survey.reference.ra_deg)} reference stars"
    )
    figures = await Contest(program, raw, match=True).run("astrometry.20x36.match", _PAIRS_LARGE, about)
    ours, _ = await asyncio.to_thread(_ours, raw)
    peer = _theirs(raw)
    for who, verdict in (("spica", ours), ("scamp INSTRUMENT", peer)):
        print(_line(who, verdict))
    made, worse = _compare("astrometry.worth.20x36", ours, {"INSTRUMENT": peer}, about)
    good = await asyncio.to_thread(given.good, raw.survey)
    contest = Contest(program, good, match=False)
    figures += made + await contest.run("astrometry.20x36.solve_only", _PAIRS_LARGE, about)
    return figures, worse


def main() -> None:
    """Only what is asked for, while working on the solver: controls, worth, scaling, small, large."""
    program = shutil.which("scamp") or "scamp"
    about = {"peer": "scamp"}
    for what in sys.argv[1:]:
        if what == "controls":
            _controls(given.raw(given.SMALL))
        elif what == "worth":
            print(*_worth(program, about)[1], sep="\n")
        elif what == "scaling":
            _scaling()
        elif what == "large":
            print(*asyncio.run(_large(program, about))[1], sep="\n")
        elif what == "small":
            raw = given.raw(given.SMALL)
            asyncio.run(Contest(program, raw, match=True).run("5x4.match", 1, about))
            good = given.good(raw.survey)
            for stability in given.STABILITIES:
                contest = Contest(program, good, match=False, stability=stability)
                asyncio.run(contest.run(f"5x4.solve_only.{stability}", 3, about))


if __name__ == "__main__":
    main()
