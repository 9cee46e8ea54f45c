"""The exposures that a stack is made of, with the numbers that its header and its weights follow from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spica_stack.making.order import CoaddOrder, MemberFiles
from spica_stack.making.preparing import PreparedMember
from spica_stack.making.sums import SumsFile
from spica_stack.making.tiling import new_members
from spica_stack.science.combining import seeing_priorities, seeing_shares
from spica_stack.science.pixels import Box
from spica_stack.science.totals import MemberNumbers

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Entry:
    """One exposure that adds to the stack."""

    number: int
    """Of the member, from 0."""
    files: MemberFiles
    numbers: MemberNumbers
    """Means of its CCDs; the lowest saturation level counts."""
    share: float
    """Share of the local flux by which its samples may differ from the median."""
    priority: float
    """Factor on its weight in a mean."""
    box: Box
    """Output pixels that its CCDs lie within."""


def numbers_of(files: MemberFiles, prepared: PreparedMember) -> MemberNumbers:
    """One exposure's numbers from those of its CCDs; the lowest saturation level counts."""
    ccds = prepared.ccds
    return MemberNumbers(
        exposure_time_s=files.exposure_time_s,
        flux_scale=float(np.mean([ccd.flux_scale for ccd in ccds])),
        gain_e_per_adu=float(np.mean([ccd.gain_e_per_adu for ccd in ccds])),
        noise_adu=float(np.mean([ccd.noise_adu for ccd in ccds])),
        background_adu=float(np.mean([ccd.background_adu if ccd.subtracted else 0.0 for ccd in ccds])),
        saturation_adu=min(ccd.saturation_adu for ccd in ccds),
        mjd_obs=files.mjd_obs,
        pixel_area=float(np.mean([ccd.pixel_area for ccd in ccds])),
    )


def roster_of(order: CoaddOrder, prepared: Sequence[PreparedMember]) -> tuple[Entry, ...]:
    """Those of the members that add to the stack, in their order; the base's first."""
    found: dict[int, tuple[MemberNumbers, Box]] = {}
    if order.base is not None:
        known = SumsFile(order.base.sums).members()
        for number in range(new_members(order).start):
            image_id = order.members[number].image_id
            if (known_of_it := known.get(image_id)) is not None:
                found[number] = known_of_it
    for member in prepared:
        files = order.members[member.number]
        if member.ccds and files.weight_factor > 0:
            found[member.number] = numbers_of(files, member), _around([ccd.window for ccd in member.ccds])
    chosen = [order.members[number] for number in sorted(found)]
    shares, priorities = seeing_of(order, chosen)
    return tuple(
        Entry(
            number,
            order.members[number],
            replace(found[number][0], priority=priority),
            share,
            priority,
            found[number][1],
        )
        for number, share, priority in zip(sorted(found), shares, priorities, strict=True)
    )


def _around(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds all of these."""
    x0, x1, y0, y1 = zip(*boxes, strict=True)
    return min(x0), max(x1), min(y0), max(y1)


def seeing_of(order: CoaddOrder, members: Sequence[MemberFiles]) -> tuple[list[float], list[float]]:
    """What the seeing of each exposure means for clipping and weighting."""
    parameters = order.parameters
    fwhm = np.array([member.fwhm_arcsec or np.nan for member in members], np.float64)
    ellipticity = np.array(
        [np.nan if member.ellipticity is None else member.ellipticity for member in members], np.float64
    )
    shares = seeing_shares(fwhm, parameters.clipping.flux_share)
    if parameters.keep_sums or order.base is not None:
        priorities = _lasting_priorities(fwhm, ellipticity, parameters.psf_weight_power)
    else:
        priorities = seeing_priorities(fwhm, ellipticity, parameters.psf_weight_power)
    factors = np.array([member.weight_factor for member in members], np.float32)
    return shares.tolist(), (priorities * factors).astype(np.float32).tolist()


def _lasting_priorities(fwhm: Floats, ellipticity: Floats, power: float) -> NDArray[np.float32]:
    """Priorities that do not change when exposures are added: beside the first of known seeing, not the median one.

    A factor that all have in common changes neither the mean nor its weight.
    """
    known = np.flatnonzero(np.isfinite(fwhm) & (fwhm > 0))
    if not len(known):
        return np.ones(len(fwhm), np.float32)
    first = known[0]
    # Of two, the one's median with itself and the other: twice the first makes it the median.
    return np.array(
        [
            seeing_priorities(fwhm[[first, first, k]], ellipticity[[first, first, k]], power)[2]
            for k in range(len(fwhm))
        ],
        np.float32,
    )
