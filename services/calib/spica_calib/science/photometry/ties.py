"""Detections sorted by source: what ties exposures to each other and to reference magnitudes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spica_calib.science.photometry import kernels
from spica_calib.science.photometry.problem import (
    ColourTerm,
    Index,
    Options,
    PhotometricDetections,
    PhotometricExposure,
)
from spica_calib.science.stars import Bools, Floats


@dataclass(frozen=True, slots=True)
class Layout:
    """Which unknown stands where."""

    contexts: tuple[str, ...]
    context: Index
    """Shape (exposures,): index of each exposure's context."""
    slots: tuple[tuple[int, str], ...]
    """(index of context, name of CCD) of each illumination offset."""
    slot_of: tuple[Index, ...]
    """Per exposure: slot of each of its CCDs."""

    @property
    def n_exposures(self) -> int:
        """Number of zero points."""
        return len(self.context)

    @property
    def n_unknowns(self) -> int:
        """Zero points, then offsets, then colour terms."""
        return self.n_exposures + len(self.slots) + len(self.contexts)

    def slot_context(self) -> Index:
        """Shape (slots,): index of the context that each slot belongs to."""
        return np.array([context for context, _ in self.slots], dtype=np.int32)


@dataclass(frozen=True, slots=True)
class Ties:
    """Detections that tie something, by source. n detections, g sources."""

    start: NDArray[np.int64]
    """Shape (g + 1,)."""
    order: Index
    """Shape (n,): place in the input."""
    exposure: Index
    slot: Index
    mag: Floats
    variance: NDArray[np.float32]
    """Photon noise and floor, mag²."""
    reference: Floats
    """Shape (g,): NaN without."""
    reference_variance: Floats
    colour: Floats
    """Shape (g,): less the context's colour zero; 0 where it is not known."""

    def __len__(self) -> int:
        return len(self.order)

    @property
    def n_sources(self) -> int:
        """Number of sources."""
        return len(self.start) - 1

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Shape (g,): detections per source."""
        return np.diff(self.start)

    def every(self, step: int) -> Ties:
        """Every `step`-th source only."""
        chosen = np.zeros(self.n_sources, dtype=bool)
        chosen[::step] = True
        rows = np.repeat(chosen, self.sizes)
        return Ties(
            np.concatenate([[0], np.cumsum(self.sizes[chosen])]),
            self.order[rows],
            self.exposure[rows],
            self.slot[rows],
            self.mag[rows],
            self.variance[rows],
            self.reference[chosen],
            self.reference_variance[chosen],
            self.colour[chosen],
        )


def lay_out(exposures: Sequence[PhotometricExposure], ccds_seen: Sequence[int]) -> Layout:
    """Name the unknowns. `ccds_seen`: per exposure, how many CCDs its detections speak of (where it names none)."""
    names = list(dict.fromkeys(exposure.context for exposure in exposures))
    slots: dict[tuple[int, str], int] = {}
    slot_of = []
    for exposure, seen in zip(exposures, ccds_seen, strict=True):
        number = names.index(exposure.context)
        ccds = exposure.ccds + tuple(f"ccd{i:02d}" for i in range(len(exposure.ccds), seen))
        slot_of.append(
            np.array([slots.setdefault((number, ccd), len(slots)) for ccd in ccds], dtype=np.int32)
        )
    context = np.array([names.index(exposure.context) for exposure in exposures], dtype=np.int32)
    return Layout(tuple(names), context, tuple(slots), tuple(slot_of))


def tie(
    exposures: Sequence[PhotometricExposure], detections: PhotometricDetections, options: Options
) -> tuple[Layout, Ties]:
    """Sort detections by source, and leave out those that tie nothing.

    A source counts per filter. Detections without magnitude or error, and those alone with their source and without
    reference, are left out.
    """
    n_exposures = len(exposures)
    seen = np.zeros(n_exposures, dtype=np.int64)
    np.maximum.at(seen, detections.exposure, detections.ccd.astype(np.int64) + 1)
    layout = lay_out(exposures, [int(number) for number in seen])
    key, has_reference = _keys(exposures, detections)
    counts = np.bincount(key[key >= 0], minlength=1)
    referenced = np.zeros(len(counts), dtype=bool)
    referenced[key[has_reference & (key >= 0)]] = True
    worth = (counts > 1) | referenced
    renumber = np.where(worth, np.cumsum(worth) - 1, -1).astype(np.int32)
    key = np.where(key >= 0, renumber[key], np.int32(-1))
    start = np.concatenate([[0], np.cumsum(counts[worth])])
    order = np.empty(int(start[-1]), dtype=np.int32)
    kernels.sort_by_source(key, start, order)
    del key, counts, referenced, worth, renumber
    exposure = detections.exposure[order]
    first_slot = np.concatenate([[0], np.cumsum([len(slots) for slots in layout.slot_of])[:-1]])
    flat = np.concatenate(layout.slot_of) if n_exposures else np.empty(0, dtype=np.int32)
    slot = flat[first_slot[exposure] + detections.ccd[order]].astype(np.int32)
    variance = (detections.error_mag[order] ** 2 + options.floor_mag**2).astype(np.float32)
    reference, reference_variance, colour = _references(
        detections, order, start, has_reference, layout, options
    )
    return layout, Ties(
        start, order, exposure, slot, detections.mag[order], variance, reference, reference_variance, colour
    )


def _keys(exposures: Sequence[PhotometricExposure], detections: PhotometricDetections) -> tuple[Index, Bools]:
    """Number of the source of each detection (-1: not to be used), and whether it has a reference."""
    filters = list(dict.fromkeys(exposure.filter for exposure in exposures))
    group = detections.group
    if len(group) and int(group.max()) > 4 * len(group):
        group = np.unique(group, return_inverse=True)[1].astype(np.int32)
    sound = np.isfinite(detections.mag) & (detections.error_mag > 0) & np.isfinite(detections.error_mag)
    key = np.where(sound & (group >= 0), group, np.int32(-1))
    if len(filters) > 1:
        number = np.array([filters.index(exposure.filter) for exposure in exposures], dtype=np.int32)
        key = np.where(key >= 0, key * np.int32(len(filters)) + number[detections.exposure], np.int32(-1))
    has_reference = np.isfinite(detections.reference_mag) & (detections.reference_error_mag >= 0)
    return key.astype(np.int32), has_reference


def _references(
    detections: PhotometricDetections,
    order: Index,
    start: NDArray[np.int64],
    has_reference: Bools,
    layout: Layout,
    options: Options,
) -> tuple[Floats, Floats, Floats]:
    """Reference magnitude, its variance, and colour of each source: those of its first detection that has one."""
    n_sources = len(start) - 1
    reference, variance = np.full(n_sources, np.nan), np.full(n_sources, np.inf)
    colour, which = np.zeros(n_sources), np.full(n_sources, -1, dtype=np.int32)
    kernels.first_marked(start, order, has_reference, which)
    who = np.flatnonzero(which >= 0)
    which = which[who]
    context = layout.context[detections.exposure[which]]
    reference[who] = detections.reference_mag[which]
    variance[who] = detections.reference_error_mag[which] ** 2 + options.reference_floor_mag**2
    terms = [options.colour_terms.get(name, ColourTerm()) for name in layout.contexts]
    tone = detections.colour_mag[which] - np.array([term.zero_mag for term in terms])[context]
    colour[who] = np.where(np.isfinite(tone), tone, 0.0)
    # A star without a colour, where colours matter, is no reference.
    matters = np.array([term.sigma > 0 or term.value != 0 for term in terms])
    reference[who[~np.isfinite(tone) & matters[context]]] = np.nan
    return reference, variance, colour
