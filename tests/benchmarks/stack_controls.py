"""Negative controls of the comparison with SWarp: what is wrong must show, what is nothing must add nothing."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from spica_imaging.head import add_cards, format_head
from spica_imaging.wcs import TpvWcs
from spica_stack.science.grid import Grid

from tests.benchmarks import stack_frames as given
from tests.benchmarks import stack_worth as worth
from tests.benchmarks.stack_frames import CACHE, Frames
from tests.benchmarks.stack_job import Job
from tests.benchmarks.stack_runs import job, made, planes

_UNREADABLE = re.compile(r"=\s*[+-]?\d+[ED][+-]?\d+")
"""A number with an exponent and no decimal point: SWarp 2.41 misreads it."""


def _spoilt(told: Frames, name: str, **change: float) -> Frames:
    """The same frames with `.head` files that are wrong in a way that is known."""
    folder = CACHE / name
    folder.mkdir(parents=True, exist_ok=True)
    members = []
    for member, shot in zip(told.members, told.scene.shots, strict=True):
        head = folder / member.head.name
        head.write_text(given.heads(shot, **change))
        members.append(replace(member, head=head))
    return replace(told, folder=folder, members=tuple(members))


def heads(told: Frames) -> None:
    """No `.head` file holds a number that SWarp misreads, and the look for them finds one."""
    if not _UNREADABLE.search("CD1_1   =                2E-05"):
        raise RuntimeError("The look for numbers without a decimal point finds none where there is one.")
    small = replace(told.scene.shots[0].wcs[0], cd=((-2e-05, 0.0), (0.0, 2e-05)))
    for text in (*(member.head.read_text() for member in told.members), format_head([small.to_header()])):
        if found := _UNREADABLE.search(text):
            raise RuntimeError(f"A header holds {found[0]!r}, which SWarp 2.41 misreads.")
    print("  no header holds a number with an exponent and no decimal point")


def errors(told: Frames, measured: Callable[[given.Pixels], worth.Measured]) -> None:
    """Errors of solutions show in what is measured, by as much as they are, and in all stars alike."""
    right = measured(planes(job(told, "weighted_mean"))[0])
    step_mas = 1000.0 * given.GRID_SCALE_ARCSEC
    # East is left: what lies a pixel too far east lies at a smaller x.
    for name, change, wanted in (
        ("off by a pixel", {"shift_px": 1.0}, -1000.0 * given.SCALE_ARCSEC),
        ("with a flux scale off by 0.2 %", {"flux_factor": 1.002}, 0.2),
    ):
        wrong = job(_spoilt(told, "spoilt", **change), "weighted_mean", name="spoilt")
        made(wrong)
        seen = measured(planes(wrong)[0])
        moved = (
            step_mas * (seen.x - right.x) if "shift_px" in change else 100.0 * (seen.flux / right.flux - 1.0)
        )
        moved = moved[np.isfinite(moved)]
        # Each star, not their mean: errors of opposite signs would leave none in it.
        agree = float(np.mean(np.abs(moved / wanted - 1.0) < 0.03))
        if agree < 0.98 or moved.size < 300:
            raise RuntimeError(
                f"Headers {name} move {agree:.0%} of {moved.size} stars by {wanted:.4g}; their median is "
                f"{np.median(moved):.4g}."
            )
        print(
            f"  headers {name} show: {np.median(moved):+.3f} for {wanted:+.3f}, in {agree:.1%} of {moved.size} stars"
        )


@dataclass(frozen=True, slots=True)
class _Plain:
    """One undistorted exposure, a few pixels from the edge of its own grid."""

    job: Job
    data: given.Pixels
    at: tuple[slice, slice]


def _plain(folder: Path, n: int, zeroed: int | None = None) -> _Plain:
    """`n` exposures of one place; one may have no weight."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ny, nx, step = 400, 300, 0.2 / 3600.0
    rng = np.random.default_rng(3)
    sky = rng.normal(100.0, 5.0, (ny, nx)).astype(np.float32)
    wcs = TpvWcs((10.0, 20.0), (150.0, 200.0), ((-step, 0.0), (0.0, step)))
    head = add_cards(wcs.to_header(), [("EXTNAME", "ccd00", ""), ("FLXSCALE", 0.5, "")])
    members = []
    for number in range(n):
        data = sky + np.float32(number) * rng.normal(0.0, 5.0, sky.shape).astype(np.float32)
        weight = np.full(sky.shape, 0.0 if number == zeroed else 1.0, np.float32)
        paths = [folder / f"p{number}{suffix}" for suffix in (".fits", ".weight.fits", ".head")]
        for path, plane in zip(paths, (data, weight), strict=False):
            hdus = [fits.PrimaryHDU(), fits.ImageHDU(plane, name="ccd00")]
            fits.HDUList(hdus).writeto(path)
        paths[2].write_text(format_head([head]))
        members.append((*(str(path.resolve()) for path in paths), 0.8))
    grid = Grid(10.0, 20.0, 160.0, 210.0, 0.2, nx + 20, ny + 20)
    wanted = Job(
        str(folder.resolve()), tuple(members), asdict(grid), "weighted_mean", subtract_background=False
    )
    return _Plain(wanted, sky, (slice(10, 10 + ny), slice(10, 10 + nx)))


def one() -> None:
    """A stack of one exposure on its own grid is that exposure; one without weight adds nothing."""
    single = _plain(CACHE / "plain-one", 1)
    made(single.job)
    image, weight = planes(single.job)
    inner = tuple(slice(s.start + 4, s.stop - 4) for s in single.at)
    seen, there = image[inner], 0.5 * single.data[4:-4, 4:-4]
    worst = float(np.abs(seen / there - 1.0).max())
    if not worst < 1e-5:
        raise RuntimeError(f"A stack of one exposure differs from it by {worst:.1e}.")
    two = _plain(CACHE / "plain-zeroed", 2, zeroed=1)
    made(two.job)
    again, again_weight = planes(two.job)
    if not (np.array_equal(again, image, equal_nan=True) and np.array_equal(again_weight, weight)):
        raise RuntimeError("An exposure without weight changes the stack.")
    both = _plain(CACHE / "plain-both", 2)
    made(both.job)
    if np.array_equal(planes(both.job)[0], image, equal_nan=True):
        raise RuntimeError("An exposure with weight does not change the stack.")
    print(f"  a stack of one exposure is that exposure to {worst:.0e}; one without weight vanishes")
