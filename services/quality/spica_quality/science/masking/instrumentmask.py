"""Master masks and flat fields: what they say, whichever way round they say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from spica_imaging.sections import Section

from spica_quality.science._jit import jit
from spica_quality.science.flags import Bit, bands

Pixels = NDArray[np.float32]
Flags = NDArray[np.uint16]

NO_LIGHT = 0.2
"""Pixels with less than this times the flat's typical value have no light to tell of."""

TOO_MUCH = 5.0
"""Pixels with more than this times the typical value are not of this flat."""

_BOX_PX = 128
_SAMPLE_ROWS = 8
_SAMPLE_STEP = 128


class PlaneRows(Protocol):
    """A plane laid over a CCD, rows at a time."""

    @property
    def shape(self) -> tuple[int, int]:
        """Of the CCD, (ny, nx)."""

    @property
    def over(self) -> Section:
        """The part of the CCD that is covered."""

    def rows(self, y0: int, y1: int) -> Pixels:
        """Rows y0 to y1, shape (y1 - y0, nx), NaN where nothing is covered."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a mask was read."""

    n_bad: int
    """Pixels it calls bad within the CCD's section; some may be flagged for other reasons already."""
    bad_is: str
    """`zero`, `nonzero`, `bits` (as told by the caller) or `nothing` (all pixels have the same value)."""


def mark_masked(
    plane: PlaneRows, flags: Flags, section: Section, bits: Mapping[int, int] | None = None
) -> Reading:
    """Mark MASKED what a mask calls bad.

    Masks come both ways round: 1 for good pixels (CFHT) or 0 (most others). Whatever fewer pixels have is bad; a mask that
    has the same value everywhere masks nothing. Only the light-sensitive section counts: overscan is bad either way.

    Args:
        plane: the mask.
        flags: flag map, marked in place.
        section: the CCD's light-sensitive section.
        bits: for masks of bits: bit of the mask -> bit of the flag map; others mean nothing. None: a plain mask.

    """
    if bits is not None:
        keys = np.array(sorted(bits), np.int64)
        values = np.array([bits[int(key)] for key in keys], np.uint16)
        return Reading(_each_row(plane, flags, section, keys, values, bad_nonzero=True), "bits")
    zeros, others = _sample(plane, section)
    if not zeros or not others:
        return Reading(0, "nothing")
    nothing = np.empty(0, np.int64), np.empty(0, np.uint16)
    n = _each_row(plane, flags, section, *nothing, bad_nonzero=others < zeros)
    return Reading(n, "nonzero" if others < zeros else "zero")


def mark_weightless(plane: PlaneRows, flags: Flags, section: Section) -> int:
    """Mark MASKED pixels without weight that no other flag explains; returns how many."""
    count = 0
    for y0, y1 in bands(flags.shape[0]):
        weight = plane.rows(y0, y1)
        bad = np.zeros(weight.shape, np.bool_)
        columns = slice(section.x0, section.x1)
        with np.errstate(invalid="ignore"):
            bad[:, columns] = (weight[:, columns] <= 0) & (flags[y0:y1, columns] == 0)
        bad[: max(section.y0 - y0, 0)] = False
        bad[max(section.y1 - y0, 0) :] = False
        flags[y0:y1][bad] |= Bit.MASKED
        count += int(np.count_nonzero(bad))
    return count


def _sample(plane: PlaneRows, section: Section) -> tuple[int, int]:
    """How many pixels are zero, and how many are something else, in some of the rows; in all if they are alike."""
    for rows, step in ((_SAMPLE_ROWS, _SAMPLE_STEP), (_SAMPLE_STEP, _SAMPLE_STEP)):
        zeros = others = 0
        for y0 in range(section.y0, section.y1, step):
            part = plane.rows(y0, min(y0 + rows, section.y1))[:, section.x0 : section.x1]
            zeros += int(np.count_nonzero(part == 0))
            others += int(np.count_nonzero((part != 0) & np.isfinite(part)))
        if zeros and others:
            break
    return zeros, others


def _each_row(
    plane: PlaneRows,
    flags: Flags,
    section: Section,
    keys: NDArray[np.int64],
    values: NDArray[np.uint16],
    *,
    bad_nonzero: bool,
) -> int:
    count = 0
    for y0, y1 in bands(flags.shape[0]):
        low, high = max(y0, section.y0), min(y1, section.y1)
        if low >= high:
            continue
        columns = slice(section.x0, section.x1)
        part = np.ascontiguousarray(plane.rows(low, high)[:, columns])
        count += _mark(part, flags[low:high, columns], keys, values, bad_nonzero, int(Bit.MASKED))
    return count


@jit
def _mark(
    plane: Pixels,
    flags: Flags,
    keys: NDArray[np.int64],
    values: NDArray[np.uint16],
    bad_nonzero: bool,
    masked: int,
) -> int:
    count = 0
    for j in range(plane.shape[0]):
        for i in range(plane.shape[1]):
            value = plane[j, i]
            if not np.isfinite(value):
                continue
            found = 0
            if keys.size:
                whole = np.int64(value)
                for k in range(keys.size):
                    if whole & keys[k]:
                        found |= values[k]
            elif (value != 0.0) == bad_nonzero:
                found = masked
            if found:
                flags[j, i] |= found
                count += 1
    return count


@dataclass(frozen=True, slots=True)
class FlatField:
    """A flat over one CCD, and its mean around each place."""

    plane: PlaneRows
    mesh: Pixels
    """Mean of boxes, shape (my, mx); NaN filled with the typical value."""
    section: Section
    typical: float
    n_dark: int = 0
    """Pixels that were marked."""
    _nodes: tuple[NDArray[np.float64], NDArray[np.float64]] = field(
        default_factory=lambda: (np.empty(0), np.empty(0))
    )

    def relative_rows(self, y0: int, y1: int) -> Pixels:
        """Rows over the local mean, shape (y1 - y0, nx); NaN outside of the section and where the flat is no number."""
        rows = self.plane.rows(y0, y1)
        ys, xs = self._nodes
        y = np.interp(np.arange(y0, y1), ys, np.arange(len(ys)))
        below = np.minimum(y.astype(np.intp), max(len(ys) - 2, 0))
        share = (y - below)[:, None].astype(np.float32)
        above = np.minimum(below + 1, len(ys) - 1)
        columns = np.arange(rows.shape[1])
        across = np.stack([np.interp(columns, xs, line) for line in self.mesh]).astype(np.float32)
        rows /= across[below] * (1 - share) + across[above] * share
        return rows


def flat_field(plane: PlaneRows, flags: Flags, section: Section) -> FlatField | None:
    """Mark MASKED what has no light in a flat, and measure its mean in boxes of 128 px; None for a flat of nothing."""
    ys, xs = range(section.y0, section.y1, _BOX_PX), range(section.x0, section.x1, _BOX_PX)
    if not ys or not xs:
        return None
    mesh = np.full((len(ys), len(xs)), np.nan, np.float32)
    for j, y in enumerate(ys):
        part = plane.rows(y, min(y + _BOX_PX, section.y1))
        for i, x in enumerate(xs):
            box = part[:, x : min(x + _BOX_PX, section.x1)]
            good = box[np.isfinite(box) & (box > 0)]
            if good.size > 0.1 * box.size:
                mesh[j, i] = np.median(good)
    if not np.isfinite(mesh).any():
        return None
    typical = float(np.nanmedian(mesh))
    count = 0
    columns = slice(section.x0, section.x1)
    for y in ys:
        low, high = y, min(y + _BOX_PX, section.y1)
        part = plane.rows(low, high)[:, columns]
        with np.errstate(invalid="ignore"):
            bad = ~((part > NO_LIGHT * typical) & (part < TOO_MUCH * typical))
        flags[low:high, columns][bad] |= Bit.MASKED
        count += int(np.count_nonzero(bad))
    mesh[~np.isfinite(mesh)] = typical
    nodes = tuple(
        np.array([0.5 * (first + min(first + _BOX_PX, end) - 1) for first in starts])
        for starts, end in ((ys, section.y1), (xs, section.x1))
    )
    return FlatField(plane, mesh, section, typical, count, (nodes[0], nodes[1]))
