"""Loops over detections: sums and normal equations, linear in the number of detections.

Detections come sorted by source: those of source g stand at start[g] to start[g + 1]. Each has an exposure e, a
slot s (context and CCD), a context c = context[e]. The unknowns stand in one vector: zero points of exposures,
offsets of slots, colour terms of contexts. A detection's calibrated magnitude is

    value = mag + zero[e] + offset[s] + term[c] colour[g]

and that of the source is the weighted mean of these and of its reference magnitude (weight 0: none).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spica_calib.science._jit import jit
from spica_calib.science.photometry.problem import Index
from spica_calib.science.stars import Bools, Floats

Starts = NDArray[np.int64]
Singles = NDArray[np.float32]


@jit
def sort_by_source(key: Index, start: Starts, order: Index) -> None:
    """Counting sort: `order` lists detections by key (below 0: left out), in their own order within a source."""
    place = start[:-1].copy()
    for i in range(len(key)):
        if key[i] >= 0:
            order[place[key[i]]] = i
            place[key[i]] += 1


@jit
def first_marked(start: Starts, order: Index, marked: Bools, which: Index) -> None:
    """Place in the input of the first detection of each source that is marked, into `which`; left as it is without."""
    for g in range(len(start) - 1):
        for i in range(start[g], start[g + 1]):
            if marked[order[i]]:
                which[g] = order[i]
                break


@jit
def calibrate(
    start: Starts,
    exposure: Index,
    slot: Index,
    context: Index,
    mag: Floats,
    colour: Floats,
    unknowns: Floats,
    n_slots: int,
    value: Floats,
) -> None:
    """Calibrated magnitudes, shape (n,), into `value`."""
    n_exposures = len(context)
    for g in range(len(start) - 1):
        for i in range(start[g], start[g + 1]):
            e = exposure[i]
            value[i] = (
                mag[i]
                + unknowns[e]
                + unknowns[n_exposures + slot[i]]
                + unknowns[n_exposures + n_slots + context[e]] * colour[g]
            )


@jit
def weigh(exposure: Index, variance: Singles, factor: Singles, extra: Floats, weight: Floats) -> None:
    """Weights of detections, from variances, the exposures' extra variance and factors from 0 to 1."""
    for i in range(len(exposure)):
        weight[i] = factor[i] / (variance[i] + extra[exposure[i]])


@jit
def mean_magnitudes(
    start: Starts,
    value: Floats,
    weight: Floats,
    reference: Floats,
    reference_weight: Floats,
    mean: Floats,
    total: Floats,
) -> None:
    """Magnitudes of sources and their weights, shape (groups,); NaN and 0 where nothing has weight."""
    for g in range(len(start) - 1):
        w = reference_weight[g]
        s = w * reference[g] if w > 0 else 0.0
        for i in range(start[g], start[g + 1]):
            w += weight[i]
            s += weight[i] * value[i]
        total[g] = w
        mean[g] = s / w if w > 0 else np.nan


@jit
def add_diagonal(
    start: Starts,
    exposure: Index,
    slot: Index,
    context: Index,
    colour: Floats,
    value: Floats,
    weight: Floats,
    mean: Floats,
    n_slots: int,
    normal: Floats,
    right: Floats,
) -> None:
    """Add each detection's own products to the normal matrix, and the gradient to the right side.

    The matrix is filled in its lower triangle (row >= column).
    """
    n_exposures = len(context)
    for g in range(len(start) - 1):
        for i in range(start[g], start[g + 1]):
            w = weight[i]
            if w == 0:
                continue
            e = exposure[i]
            s = n_exposures + slot[i]
            t = n_exposures + n_slots + context[e]
            c = colour[g]
            pull = w * (mean[g] - value[i])
            normal[e, e] += w
            normal[s, e] += w
            normal[s, s] += w
            normal[t, e] += w * c
            normal[t, s] += w * c
            normal[t, t] += w * c * c
            right[e] += pull
            right[s] += pull
            right[t] += pull * c


@jit
def subtract_pairs(  # noqa: PLR0912  (inner loops stand where they run)
    start: Starts,
    exposure: Index,
    slot: Index,
    context: Index,
    colour: Floats,
    weight: Floats,
    total: Floats,
    n_slots: int,
    normal: Floats,
) -> None:
    """Subtract what eliminating the sources' magnitudes takes away, source by source (lower triangle)."""
    n_exposures = len(context)
    h = np.zeros(normal.shape[0])
    touched = np.empty(normal.shape[0], dtype=np.int64)
    for g in range(len(start) - 1):
        if total[g] <= 0:
            continue
        n = 0
        for i in range(start[g], start[g + 1]):
            w = weight[i]
            if w == 0:
                continue
            e = exposure[i]
            s = n_exposures + slot[i]
            if h[e] == 0:
                touched[n] = e
                n += 1
            h[e] += w
            if h[s] == 0:
                touched[n] = s
                n += 1
            h[s] += w
            if colour[g] != 0:
                t = n_exposures + n_slots + context[e]
                if h[t] == 0:
                    touched[n] = t
                    n += 1
                h[t] += w * colour[g]
        for a in range(n):
            row = touched[a]
            scaled = h[row] / total[g]
            for b in range(a + 1):
                column = touched[b]
                if row >= column:
                    normal[row, column] -= scaled * h[column]
                else:
                    normal[column, row] -= scaled * h[column]
        for a in range(n):
            h[touched[a]] = 0.0


@jit
def source_rows(
    first: int,
    start: Starts,
    exposure: Index,
    slot: Index,
    context: Index,
    colour: Floats,
    weight: Floats,
    total: Floats,
    n_slots: int,
    rows: Floats,
) -> None:
    """The same as dense rows, one per source from `first` on: the product of their transpose with them is what goes.

    For sources with very many detections, for which a matrix product is faster than pairs.
    """
    n_exposures = len(context)
    rows[:] = 0.0
    for k in range(rows.shape[0]):
        g = first + k
        if g >= len(start) - 1 or total[g] <= 0:
            continue
        norm = 1.0 / np.sqrt(total[g])
        for i in range(start[g], start[g + 1]):
            w = weight[i] * norm
            e = exposure[i]
            rows[k, e] += w
            rows[k, n_exposures + slot[i]] += w
            rows[k, n_exposures + n_slots + context[e]] += w * colour[g]


@jit
def apply_normal(
    start: Starts,
    exposure: Index,
    slot: Index,
    context: Index,
    colour: Floats,
    weight: Floats,
    total: Floats,
    n_slots: int,
    vector: Floats,
    product: Floats,
) -> None:
    """Normal matrix times a vector, added to `product`, without the matrix."""
    n_exposures = len(context)
    for g in range(len(start) - 1):
        if total[g] <= 0:
            continue
        mean = 0.0
        for i in range(start[g], start[g + 1]):
            e = exposure[i]
            mean += weight[i] * (
                vector[e]
                + vector[n_exposures + slot[i]]
                + colour[g] * vector[n_exposures + n_slots + context[e]]
            )
        mean /= total[g]
        for i in range(start[g], start[g + 1]):
            e = exposure[i]
            s = n_exposures + slot[i]
            t = n_exposures + n_slots + context[e]
            pull = weight[i] * (vector[e] + vector[s] + colour[g] * vector[t] - mean)
            product[e] += pull
            product[s] += pull
            product[t] += pull * colour[g]
