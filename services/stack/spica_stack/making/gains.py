"""What each exposure added to a weighted mean: depth, seeing, coverage.

Looked up at a lattice of pixels of the whole grid, so that it costs next to nothing and does not depend on the tiles.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spica_stack.making.order import CoaddOrder, MemberGain
from spica_stack.making.partfile import PartFile
from spica_stack.making.roster import Entry
from spica_stack.making.tiling import new_members
from spica_stack.science.pixels import Box, Image

Floats = NDArray[np.float64]

MOST_PIXELS, ALL_NUMBERS = 250_000, 20_000_000
"""Of the lattice; and of all that is kept for all exposures."""

NEWLY_COVERED = np.float32(np.inf)
"""Stands for the added depth where there was nothing before; NaN where the exposure adds nothing."""


def wanted(order: CoaddOrder) -> bool:
    """Whether exposures are added one by one here."""
    return order.parameters.combine == "weighted_mean" and (
        order.parameters.keep_sums or order.base is not None
    )


def lattice_step(order: CoaddOrder) -> int:
    """Distance of the pixels that are looked at; they stand at multiples of it."""
    room = min(MOST_PIXELS, ALL_NUMBERS / max(len(new_members(order)), 1))
    return max(1, int(np.ceil(np.sqrt(order.grid.width * order.grid.height / room))))


def lattice(box: Box, step: int) -> tuple[slice, slice]:
    """Rows and columns of a box's own array that belong to the lattice."""
    return slice(-box[2] % step, None, step), slice(-box[0] % step, None, step)


def added_depth(
    weight: Image, priority: Sequence[float], base: tuple[Floats, Floats] | None
) -> NDArray[np.float32]:
    """Depth in mag that each layer adds to those before it.

    * weight: shape (n, pixels): 1 / variance of the samples.
    * base: Σ p w and Σ p² w of what there was before, shape (pixels,) each.

    The 5 sigma depth of a mean of weight W = (Σ p w)² / Σ p² w goes with 1.25 log10 W.
    Shape (n, pixels); inf where there was nothing before, NaN where the layer has no sample.
    """
    n, size = weight.shape
    gains = np.full((n, size), np.nan, np.float32)
    share, square = (np.zeros(size), np.zeros(size)) if base is None else (base[0].copy(), base[1].copy())
    before = _weight(share, square)
    for layer, p in enumerate(priority):
        there = weight[layer] > 0
        share += np.where(there, p * weight[layer], 0.0)
        square += np.where(there, p * p * weight[layer], 0.0)
        after = _weight(share, square)
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = np.where(before > 0, 1.25 * np.log10(after / before), NEWLY_COVERED)
        gains[layer] = np.where(there, depth, np.nan)
        before = after
    return gains


def _weight(share: Floats, square: Floats) -> Floats:
    return np.divide(share**2, square, out=np.zeros_like(share), where=square > 0)


def gains_of(order: CoaddOrder, roster: Sequence[Entry], parts: Sequence[PartFile]) -> tuple[MemberGain, ...]:
    """What each exposure that is new added, in the order of adding."""
    if not wanted(order):
        return ()
    first = new_members(order).start
    known = np.concatenate([part.gains() for part in parts], axis=1)
    gains = []
    for place, entry in enumerate(roster):
        if entry.number < first:
            continue
        mine = known[entry.number - first]
        depths = mine[np.isfinite(mine)]
        gains.append(
            MemberGain(
                image_id=entry.files.image_id,
                name=entry.files.name,
                depth_mag=float(np.median(depths)) if len(depths) else None,
                fwhm_arcsec=_seeing_change(roster[:place], entry),
                coverage=float(np.mean(mine == NEWLY_COVERED)),
            )
        )
    return tuple(gains)


def _seeing_change(before: Sequence[Entry], entry: Entry) -> float | None:
    """By how much the expected seeing (arcsec) changes; None where it is not known before or of this one."""
    old, new = expected_seeing(before), expected_seeing([*before, entry])
    return new - old if old is not None and new is not None and entry.files.fwhm_arcsec else None


def expected_seeing(entries: Sequence[Entry]) -> float | None:
    """FWHM (arcsec) of a mean: the second moments of its exposures' stars, weighted as these are."""
    known = [entry for entry in entries if entry.files.fwhm_arcsec]
    if not known:
        return None
    numbers = [entry.numbers for entry in known]
    weight = np.array([n.priority / ((n.noise_adu * n.flux_scale) ** 2 * n.pixel_area) for n in numbers])
    fwhm = np.array([entry.files.fwhm_arcsec for entry in known], np.float64)
    return float(np.sqrt(np.sum(weight * fwhm**2) / np.sum(weight)))
