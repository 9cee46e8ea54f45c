"""What is asked of a stack, in SWarp's words; and what SWarp has no words for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from spica_runtime.errors import NotRetriable

from spica_stack.making.order import CoaddOrder
from spica_stack.science.parameters import Method

IMAGE, WEIGHT, GRID, REJECTED = "coadd.fits", "coadd.weight.fits", "coadd.head", "rejected.log"
CONFIGURATION, INPUTS = "swarp.conf", "inputs.txt"

COMBINE_TYPES: dict[Method, str] = {
    "clipped_mean": "CLIPPED",
    "weighted_mean": "WEIGHTED",
    "average": "AVERAGE",
    "median": "MEDIAN",
    "minimum": "MIN",
    "maximum": "MAX",
    "sum": "SUM",
    "chi2": "CHI-MEAN",
}
"""Sigma clipping and the weighted median SWarp has not: its MEDIAN counts every sample that has a weight alike."""

_WEIGHS_BY_SEEING = ("clipped_mean", "weighted_mean")


@dataclass(frozen=True, slots=True)
class SwarpSettings:
    """How SWarp is run."""

    programs: tuple[str, ...] = ("swarp", "SWarp")
    """Names on the search path, or paths; the first that is there."""
    time_limit_s: float = 86_400.0


DEFAULTS = SwarpSettings()


def refuse_what_cannot_be(order: CoaddOrder) -> None:
    """Raise `NotRetriable` (`not_with_swarp`) if the order asks for what SWarp cannot do; it says all of it."""
    reasons = list(_reasons(order))
    if reasons:
        raise NotRetriable(
            "not_with_swarp",
            f"The engine swarp cannot make {order.name} as asked: {'; '.join(reasons)}. Ask for the engine spica, or for "
            "something else.",
        )


def _reasons(order: CoaddOrder) -> Iterator[str]:
    parameters = order.parameters
    if parameters.combine not in COMBINE_TYPES:
        yield (
            f"it does not know the method {parameters.combine}; it knows {', '.join(sorted(COMBINE_TYPES))}"
        )
    if order.grid.projection == "SFL":
        yield "it places pixels of the projection SFL otherwise than FITS says"
    if order.base is not None:
        yield "it cannot go on from another stack (extends)"
    factors = {f"CCD {name}": factor for name, factor in parameters.ccd_weights.items()}
    factors |= {member.name: member.weight_factor for member in order.members}
    if uneven := [f"{name} {factor:g}" for name, factor in factors.items() if factor not in (0.0, 1.0)]:
        shown = ", ".join(uneven[:5]) + (", ..." if len(uneven) > 5 else "")
        yield f"it scales weights by itself, so that factors on them other than 0 and 1 are lost ({shown})"


def not_applied(order: CoaddOrder) -> Iterator[str]:
    """What the order says and SWarp does in its own way: for the log, and for the headers' history."""
    parameters = order.parameters
    if parameters.psf_weight_power > 0 and parameters.combine in _WEIGHS_BY_SEEING:
        yield f"SWarp weights by noise alone: psf_weight_power {parameters.psf_weight_power:g} is not applied"
    if parameters.combine == "clipped_mean":
        yield "SWarp clips without regard to seeing and neighbours: clip_sigma_grown is not applied"
    if parameters.combine in ("minimum", "maximum"):
        yield "SWarp's weight of an extreme is the weight of all samples together"
    if parameters.keep_sums:
        yield "SWarp keeps no sums for other stacks to go on from"


def configuration(order: CoaddOrder) -> dict[str, str]:
    """SWarp's parameters. The grid stands in a header file of its own."""
    parameters, clipping = order.parameters, order.parameters.clipping
    memory_mb = max(order.memory_bytes // 2_000_000, 64)

    def yes(value: bool) -> str:
        return "Y" if value else "N"

    return {
        "IMAGEOUT_NAME": IMAGE,
        "WEIGHTOUT_NAME": WEIGHT,
        "HEADER_SUFFIX": ".head",
        "WEIGHT_TYPE": "MAP_WEIGHT",
        "WEIGHT_SUFFIX": ".weight.fits",
        "RESCALE_WEIGHTS": yes(parameters.rescale_weights),
        "COMBINE_TYPE": COMBINE_TYPES[parameters.combine],
        "CLIP_AMPFRAC": f"{clipping.flux_share:.6f}",
        "CLIP_SIGMA": f"{clipping.n_sigma:.6f}",
        "CLIP_WRITELOG": yes(parameters.combine == "clipped_mean"),
        "CLIP_LOGNAME": REJECTED,
        "RESAMPLING_TYPE": parameters.resampling.upper(),
        "OVERSAMPLING": str(parameters.oversampling or 0),
        "INTERPOLATE": "N",
        # Stars keep their flux where the scale of the optics varies.
        "FSCALASTRO_TYPE": "VARIABLE",
        "FSCALE_KEYWORD": "FLXSCALE",
        "GAIN_KEYWORD": "GAIN",
        "SATLEV_KEYWORD": "SATURATE",
        "SUBTRACT_BACK": yes(parameters.subtract_background),
        "BACK_SIZE": str(parameters.background_mesh_px),
        "BACK_FILTERSIZE": "3",
        "MEM_MAX": str(memory_mb),
        "COMBINE_BUFSIZE": str(memory_mb),
        "VMEM_MAX": "1000000",
        # From them the number of exposures in each pixel is counted.
        "DELETE_TMPFILES": "N",
        "WRITE_XML": "N",
        "VERBOSE_TYPE": "LOG",
        "NTHREADS": str(order.threads or os.cpu_count() or 1),
    }


def as_text(parameters: dict[str, str]) -> str:
    """A configuration file."""
    return "".join(f"{name:<16} {value}\n" for name, value in parameters.items())
