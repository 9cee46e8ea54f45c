"""What stacks cost and are worth, against SWarp.

Both programs are given the same exposures (5 of 4 CCDs of 2048×4612), `.head` files with the true WCS, weight maps and
output grid (4500×9700), and are asked for the same: background meshes of 128 px, weights rescaled by the noise found,
Lanczos-3, the clipped mean with the same limits, the weighted mean, the median. Reading and writing is in all times. How
SWarp is run, and why so, stands in `stack_peer`. Ours is told to weight by noise alone, as SWarp does, and runs in a warm
worker, as in the service, and in a process of its own with its imports, its kernels compiled before. What the very first
run takes, with nothing compiled, is printed.

Worth: fluxes and places of stars on both stacks, against each other and against the truth (see `stack_worth`). SWarp's
clipped mean takes light from the cores of stars when the seeing differs; there only the truth counts.

How time grows: 5, 20 and 80 CCDs, and four times the output pixels.

Negative controls: SWarp against itself; a `.head` file that is off by a pixel, and flux scales off by 0.2 %, must show;
no number in a `.head` file may be one that SWarp misreads; a stack of one exposure on its own grid must be that
exposure; an exposure whose weights are 0 must vanish.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from dataclasses import replace

import numpy as np
from spica_stack.science.parameters import Method

from tests.benchmarks import stack_controls as controls
from tests.benchmarks import stack_frames as given
from tests.benchmarks import stack_peer as peer
from tests.benchmarks import stack_worth as worth
from tests.benchmarks.harness import Figure, Missing, alternating, figure, peer_against_itself, write
from tests.benchmarks.stack_frames import CACHE, Frames, Recipe
from tests.benchmarks.stack_job import Told
from tests.benchmarks.stack_runs import OURS, cold, first_run, job, made, planes

_PAIRS: dict[Method, int] = {"clipped_mean": 3, "weighted_mean": 2, "median": 2}
_PAIRS_CONTROL, _PAIRS_KIND, _PAIRS_COLD = 3, 2, 2
_WALL_RATIO, _CPU_RATIO, _COLD_RATIO, _MEMORY_MB = 6.0, 6.0, 4.0, 1500.0
_FLUX_PERCENT, _PLACE_MAS, _EXPONENT = 0.05, 0.1, 1.15
_PEERS = CACHE / "swarp"


# ---- cost ----


class Contest:
    """Both programs on the same frames; what they took is kept."""

    def __init__(self, program: str, told: Frames, method: Method, peers: Frames | None = None) -> None:
        self.program, self.method, self.peers = program, method, peers or told
        self.job = job(told, method)
        self.told: list[Told] = []
        self.runs: list[peer.Run] = []

    async def ours(self) -> float:
        self.told.append(await asyncio.to_thread(made, self.job))
        return self.told[-1].seconds

    async def theirs(self) -> float:
        self.runs.append(await asyncio.to_thread(peer.swarp, self.program, self.peers, self.method, _PEERS))
        return self.runs[-1].seconds

    async def run(self, name: str, pairs: int, about: dict[str, str]) -> tuple[list[Figure], list[str]]:
        """Paired and alternating; ours once before, so that files and kernels are warm."""
        await self.ours()
        self.told.clear()
        own, other = await alternating(self.ours, self.theirs, pairs)
        cpu, other_cpu = [one.cpu_s for one in self.told], [one.cpu_s for one in self.runs]
        peak = max(run.peak_mb for run in self.runs)
        figures = [
            figure(f"{name}.warm_s", own, "s"),
            figure(f"{name}.cpu_s", cpu, "s"),
            figure(f"{name}.peer.wall_s", other, "s", **about),
            figure(f"{name}.peer.cpu_s", other_cpu, "s", **about),
            figure(f"{name}.ratio", [b / a for a, b in zip(own, other, strict=True)], "ratio", **about),
            figure(
                f"{name}.cpu_ratio", [b / a for a, b in zip(cpu, other_cpu, strict=True)], "ratio", **about
            ),
            figure(f"{name}.peer.peak_mb", [peak], "MB", **about),
        ]
        steps = {key: np.median([one.elapsed_s[key] for one in self.told]) for key in self.told[0].elapsed_s}
        print(
            f"  {name}: warm {np.median(own):.2f} s ("
            + ", ".join(f"{key} {value:.2f}" for key, value in steps.items())
            + f"), cpu {np.median(cpu):.2f} s; swarp {np.median(other):.2f} s, cpu {np.median(other_cpu):.2f} s, "
            f"{peak:.0f} MB; ratio {figures[4].value:.2f}, cpu {figures[5].value:.2f}"
        )
        missed = _below(figures[4], _WALL_RATIO) + _below(figures[5], _CPU_RATIO)
        return figures, missed

    async def whole(self, name: str, about: dict[str, str]) -> tuple[list[Figure], list[str]]:
        """Ours as a process of its own, paired and alternating too."""
        runs: list[peer.Run] = []

        async def ours() -> float:
            runs.append(await asyncio.to_thread(cold, self.job))
            return runs[-1].seconds

        seconds, other = await alternating(ours, self.theirs, _PAIRS_COLD)
        peak = max(run.peak_mb for run in runs)
        ratios = [b / a for a, b in zip(seconds, other, strict=True)]
        figures = [
            figure(f"{name}.cold_s", seconds, "s", note="whole process, kernels from their cache"),
            figure(f"{name}.cold_ratio", ratios, "ratio", **about),
            figure(f"{name}.peak_mb", [peak], "MB", note="cold process, pages of its files included"),
        ]
        print(
            f"  {name}: cold process {np.median(seconds):.2f} s, {peak:.0f} MB; ratio {figures[1].value:.2f}"
        )
        missed = _below(figures[1], _COLD_RATIO)
        if peak > _MEMORY_MB:
            missed.append(f"{name}.peak_mb is {peak:.0f}, {_MEMORY_MB:.0f} is the aim")
        return figures, missed


def _below(one: Figure, aim: float) -> list[str]:
    return [] if one.value >= aim else [f"{one.name} is {one.value:.2f}, {aim:g} is the aim"]


# ---- worth ----


class Judge:
    """Stars of the scene, and what stacks make of them."""

    def __init__(self, told: Frames, weight: given.Pixels) -> None:
        self.stars = worth.chosen(told.scene, told.scene.grid, weight)

    def measured(self, image: given.Pixels) -> worth.Measured:
        return worth.measure(image, self.stars)

    def compare(
        self, method: Method, contest: Contest, about: dict[str, str]
    ) -> tuple[list[Figure], list[str]]:
        """Our stack and SWarp's, as the contest left them."""
        ours = self.measured(planes(contest.job)[0])
        theirs = self.measured(worth.plane(_PEERS / "coadd.fits"))
        beside = worth.offsets(ours, theirs)
        mine, peers = worth.offsets(ours, self.stars), worth.offsets(theirs, self.stars)
        for who, told in (("spica − swarp", beside), ("spica − truth", mine), ("swarp − truth", peers)):
            print(f"    {method:13s} {who}: {told}")
        name = f"stack.worth.{method}"
        figures = [
            figure(
                f"{name}.flux_beside_percent", [beside.flux_percent], "%", note=f"{beside.n} stars", **about
            ),
            figure(f"{name}.flux_percent", [mine.flux_percent], "%", note="against the truth"),
            figure(f"{name}.peer.flux_percent", [peers.flux_percent], "%", **about),
            figure(f"{name}.place_beside_mas", [_place(beside)], "mas", **about),
            figure(f"{name}.place_mas", [_place(mine)], "mas", note="against the truth"),
            figure(
                f"{name}.scatter_mas",
                [mine.scatter_mas],
                "mas",
                note="per axis, noise of the frames included",
            ),
            figure(f"{name}.peer.scatter_mas", [peers.scatter_mas], "mas", **about),
        ]
        missed = []
        # A median of exposures of different seeing is of no one profile: only SWarp's says what is to come out.
        if method != "median":
            missed += _off(f"{name} against the truth", mine)
        if method == "median" or not _off("", peers):
            missed += _off(f"{name} beside SWarp", beside)
        return figures, missed


def _place(told: worth.Offsets) -> float:
    return max(abs(told.x_mas), abs(told.y_mas))


def _off(what: str, told: worth.Offsets) -> list[str]:
    """What lies farther off than it may; two standard errors of the mean are chance."""
    missed = []
    if abs(told.flux_percent) > _FLUX_PERCENT + 2.0 * told.flux_error_percent:
        missed.append(f"{what}: fluxes are off by {told.flux_percent:+.4f} %")
    if _place(told) > _PLACE_MAS + 2.0 * told.place_error_mas:
        missed.append(f"{what}: places are off by {told.x_mas:+.3f}, {told.y_mas:+.3f} mas")
    return missed


# ---- growth ----


def _growth(told: Frames) -> tuple[list[Figure], list[str]]:
    """Seconds of a warm worker by the number of CCDs, and by that of output pixels."""
    grid = told.scene.grid
    large = replace(
        grid,
        scale_arcsec=0.5 * grid.scale_arcsec,
        width=2 * grid.width,
        height=2 * grid.height,
        crpix_x=grid.width + 0.5,
        crpix_y=grid.height + 0.5,
    )
    few = given.frames(Recipe(n_ccds=1))
    many = given.frames(Recipe(n_exposures=20))
    figures: list[Figure] = []
    missed: list[str] = []
    steps: list[tuple[str, float, float]] = []
    print("     CCDs   output  seconds      cpu     peak")
    for n, frames, output in ((5, few, 1), (20, told, 1), (80, many, 1), (20, told, 4)):
        wanted = job(frames, "clipped_mean", grid if output == 1 else large, name="growth")
        made(wanted)
        runs = [made(wanted) for _ in range(2)]
        best = min(runs, key=lambda run: run.seconds)
        print(f"    {n:5d} {output:7d}x {best.seconds:8.2f} {best.cpu_s:8.2f} {best.peak_mb:7.0f} MB")
        figures.append(figure(f"stack.growth.{n}_ccds.{output}x_s", [run.seconds for run in runs], "s"))
        steps.append((f"{n} CCDs, {output}x", float(n * output), min(run.cpu_s for run in runs)))
    shutil.rmtree(OURS / "growth", ignore_errors=True)
    for (from_name, small, before), (to_name, size, after) in (
        (steps[0], steps[1]),
        (steps[1], steps[2]),
        (steps[1], steps[3]),
    ):
        exponent = float(np.log(after / before) / np.log(size / small))
        print(f"    from {from_name} to {to_name}: cpu time goes with the power {exponent:.2f}")
        figures.append(figure(f"stack.growth.exponent.{size:.0f}", [exponent], "power", note=to_name))
        if exponent > _EXPONENT:
            missed.append(f"from {from_name} to {to_name} time goes with the power {exponent:.2f}")
    return figures, missed


async def run() -> tuple[list[Figure], list[Missing]]:
    program = shutil.which("SWarp") or shutil.which("swarp")
    if program is None:
        return [], [Missing("swarp", "Debian: swarp")]
    about = {"peer": "swarp", "peer_version": await asyncio.to_thread(peer.version, program)}
    told = await asyncio.to_thread(given.frames)
    await asyncio.to_thread(controls.heads, told)
    await asyncio.to_thread(controls.one)
    narrow = Contest(program, await asyncio.to_thread(given.frames, Recipe(n_ccds=1)), "weighted_mean")
    figures = [await peer_against_itself("stack.control.peer_itself", narrow.theirs, _PAIRS_CONTROL, **about)]
    missed: list[str] = []
    judge: Judge | None = None
    for method, pairs in _PAIRS.items():
        contest = Contest(program, told, method)
        for found, bad in (
            await contest.run(f"stack.5x4.{method}", pairs, about),
            await contest.whole(f"stack.5x4.{method}", about),
        ):
            figures, missed = figures + found, missed + bad
        judge = judge or Judge(told, planes(contest.job)[1])
        found, bad = judge.compare(method, contest, about)
        figures, missed = figures + found, missed + bad
        if method == "weighted_mean":
            await asyncio.to_thread(controls.errors, told, judge.measured)
    plain = await asyncio.to_thread(given.frames, Recipe(kind="int16"))
    rice = await asyncio.to_thread(given.frames, Recipe(kind="rice"))
    # SWarp looks for no weight maps beside compressed images: it is given them unpacked.
    for kind, frames in (("int16", plain), ("rice", rice)):
        contest = Contest(program, frames, "clipped_mean", plain)
        found, bad = await contest.run(f"stack.5x4.{kind}", _PAIRS_KIND, about)
        figures, missed = figures + found, missed + bad
    await asyncio.to_thread(first_run, job(told))
    found, bad = await asyncio.to_thread(_growth, told)
    figures, missed = figures + found, missed + bad
    shutil.rmtree(_PEERS, ignore_errors=True)
    if missed:
        write(figures, [])  # what was measured stays, though the run ends here
        raise RuntimeError("Aims are missed:\n" + "\n".join(missed))
    return figures, []


def main() -> None:
    """Only what is asked for, while working on the engine: controls, ours, clipped_mean …, growth."""
    told = given.frames()
    program = shutil.which("SWarp") or "SWarp"
    for what in sys.argv[1:]:
        if what == "controls":
            controls.heads(told)
            controls.one()
            made(job(told, "weighted_mean"))
            controls.errors(told, Judge(told, planes(job(told))[1]).measured)
        elif what == "ours":
            for _ in range(4):
                print(made(job(told)))
        elif what == "first":
            first_run(job(told))
        elif what == "growth":
            print(*_growth(told)[1], sep="\n")
        elif what in _PAIRS:
            contest = Contest(program, told, what)
            print(*asyncio.run(contest.run(what, 1, {}))[1], sep="\n")
            print(*asyncio.run(contest.whole(what, {}))[1], sep="\n")
            print(*Judge(told, planes(contest.job)[1]).compare(what, contest, {})[1], sep="\n")
        else:
            print(f"{what}: one of controls, ours, first, growth, {', '.join(_PAIRS)}")


if __name__ == "__main__":
    main()
