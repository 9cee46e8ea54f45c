"""SWarp as another engine: the same members, solutions and weights in, the same kinds of files out.

SWarp (Bertin et al. 2002, ASP Conf. 281, 228) runs as a program of its own, in a folder of its own below the stack's,
which is gone afterwards; on disk it needs about four times what the members' CCDs take as 32-bit numbers. Sky, noise,
resampling, clipping and combining are all SWarp's. What it returns is brought into the form of all stacks: NaN where
there is nothing, our header, the number of exposures in each pixel (counted on its resampled weights), the list of what
it clipped. It keeps no sums, and tells no gain of each exposure. There is no way back from one engine to the other by
itself: what SWarp cannot do is refused, and says so.
"""

from __future__ import annotations

import time
from pathlib import Path

from spica_stack.making.order import CoaddOrder, CoaddResult, Tell
from spica_stack.making.swarp_inputs import Input, write_inputs
from spica_stack.making.swarp_output import Finishing
from spica_stack.making.swarp_process import find_program, run_swarp, scratch_folder, version_of
from spica_stack.making.swarp_words import (
    CONFIGURATION,
    DEFAULTS,
    IMAGE,
    INPUTS,
    SwarpSettings,
    not_applied,
    refuse_what_cannot_be,
)
from spica_stack.making.tiling import product_path
from spica_stack.science.header import zeropoint_mag

__all__ = ["SwarpSettings", "coadd_with_swarp"]


def coadd_with_swarp(
    order: CoaddOrder, tell: Tell | None = None, settings: SwarpSettings = DEFAULTS
) -> CoaddResult:
    """Make the stack's files with SWarp.

    Raises
    ------
    NotRetriable
        swarp_missing, not_with_swarp (what was asked for and SWarp cannot do), swarp_failed with SWarp's last lines;
        as for our own engine where members cannot be used.
    Retriable
        swarp_ended: by a signal from outside.
    Unavailable
        disk_full.

    """
    told = tell or _silent
    folder = product_path(order, "image").parent
    program = find_program(settings.programs)
    refuse_what_cannot_be(order)
    version = version_of(program)
    begun = time.monotonic()
    with scratch_folder(folder) as scratch:
        inputs, log = write_inputs(order, scratch, told)
        run_from = time.monotonic()
        arguments = [f"@{INPUTS}", "-c", CONFIGURATION]
        run_swarp(program, arguments, scratch, settings.time_limit_s, _Looking(scratch, inputs, told))
        finished_from = time.monotonic()
        told("assemble", 0, 1)
        finishing = Finishing(order, inputs, scratch, version)
        products = finishing.products()
        told("assemble", 1, 1)
    used = {one.files.image_id for one in finishing.used}
    return CoaddResult(
        products=products,
        n_exposures=len(finishing.used),
        exposure_time_s=finishing.total.exposure_time_s,
        n_rejected=len(finishing.rejected),
        left_out=tuple(sorted({member.image_id for member in order.members} - used)),
        zeropoint_mag=zeropoint_mag(finishing.total),
        log=(f"made by SWarp {version}", *not_applied(order), *log),
        elapsed_s={
            "prepare": round(run_from - begun, 3),
            "swarp": round(finished_from - run_from, 3),
            "assemble": round(time.monotonic() - finished_from, 3),
        },
    )


def _silent(step: str, done: int, total: int) -> None:
    """Nobody listens."""


class _Looking:
    """How far SWarp is, by the files that it has written."""

    def __init__(self, scratch: Path, inputs: list[Input], tell: Tell) -> None:
        self._scratch, self._tell = scratch, tell
        self._total = sum(len(one.ccds) for one in inputs)

    def __call__(self) -> None:
        if (self._scratch / IMAGE).exists():
            self._tell("combine", 0, 1)
        else:
            done = sum(1 for _ in self._scratch.glob("*.resamp.weight.fits"))
            self._tell("resample", min(done, self._total), self._total)
