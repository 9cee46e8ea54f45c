"""Last passes of detection: what the pixels of each source sum up to, and the runs they make."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit
from spica_quality.science.flags import UNUSABLE, Bit

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Flags = NDArray[np.uint16]
Ints = NDArray[np.int32]

# Columns of the sums over a source's pixels; F: filtered, C: filtered above the source's base.
FLUX, FFLUX, FX, FY, FXX, FYY, FXY, CFLUX, CX, CY, PEAK, FPEAK, LIMIT, N_SUMS = range(14)
# Columns of whole numbers.
AREA, X_PEAK, Y_PEAK, X_MIN, X_MAX, Y_MIN, Y_MAX, FLAGS, N_COUNTS = range(9)

EDGE = 8

_UNUSABLE = int(UNUSABLE)
_OUTSIDE = int(Bit.OUTSIDE)


@jit
def collect(
    data: Pixels,
    flags: Flags,
    row_start: Ints,
    x0: Ints,
    x1: Ints,
    first: Ints,
    limit: Pixels,
    heights: Pixels,
    labels: Ints,
    bases: Pixels,
    sums: Floats,
    counts: Ints,
) -> None:
    """Sum up over the pixels of each label (from 1); sums are about the origin, so that sources can be added."""
    ny, nx = data.shape
    counts[:, X_MIN], counts[:, Y_MIN] = nx, ny
    counts[:, X_MAX], counts[:, Y_MAX] = -1, -1
    sums[:, PEAK], sums[:, FPEAK] = -np.inf, -np.inf
    for y in range(ny):
        for r in range(row_start[y], row_start[y + 1]):
            for x in range(x0[r], x1[r]):
                i = first[r] + x - x0[r]
                k = labels[i] - 1
                if k < 0:
                    continue
                own, whole = sums[k], counts[k]
                # Position and shape are of the filtered source, and so of bridged gaps in it too.
                high = float(heights[i])
                own[FFLUX] += high
                own[FX] += high * x
                own[FY] += high * y
                own[FXX] += high * x * x
                own[FYY] += high * y * y
                own[FXY] += high * x * y
                core = high - bases[k]
                if core > 0.0:
                    own[CFLUX] += core
                    own[CX] += core * x
                    own[CY] += core * y
                if flags[y, x] & _UNUSABLE:
                    continue
                value = float(data[y, x])
                own[FLUX] += value
                whole[AREA] += 1
                if value > own[PEAK]:
                    own[PEAK] = value
                    whole[X_PEAK], whole[Y_PEAK] = x, y
                if high > own[FPEAK]:
                    own[FPEAK] = high
                    own[LIMIT] = limit[r]
                whole[X_MIN], whole[X_MAX] = min(whole[X_MIN], x), max(whole[X_MAX], x)
                whole[Y_MIN], whole[Y_MAX] = min(whole[Y_MIN], y), max(whole[Y_MAX], y)
                if _at_edge(flags, y, x, ny, nx):
                    whole[FLAGS] |= EDGE


@jit
def _at_edge(flags: Flags, y: int, x: int, ny: int, nx: int) -> bool:
    if y == 0 or x == 0 or y == ny - 1 or x == nx - 1:
        return True
    beside = flags[y - 1, x] | flags[y + 1, x] | flags[y, x - 1] | flags[y, x + 1]
    return (beside & _OUTSIDE) != 0


@jit
def add(sums: Floats, counts: Ints, into: int, source: int) -> None:
    """Add one source's pixels to another's."""
    for c in range(PEAK):
        sums[into, c] += sums[source, c]
    counts[into, AREA] += counts[source, AREA]
    counts[into, FLAGS] |= counts[source, FLAGS]
    for c in (X_MIN, Y_MIN):
        counts[into, c] = min(counts[into, c], counts[source, c])
    for c in (X_MAX, Y_MAX):
        counts[into, c] = max(counts[into, c], counts[source, c])
    if sums[source, PEAK] > sums[into, PEAK]:
        sums[into, PEAK] = sums[source, PEAK]
        counts[into, X_PEAK], counts[into, Y_PEAK] = counts[source, X_PEAK], counts[source, Y_PEAK]
    if sums[source, FPEAK] > sums[into, FPEAK]:
        sums[into, FPEAK], sums[into, LIMIT] = sums[source, FPEAK], sums[source, LIMIT]


@jit
def emit(
    flags: Flags,
    row_start: Ints,
    x0: Ints,
    x1: Ints,
    first: Ints,
    labels: Ints,
    final: Ints,
    out_start: Ints,
    out_x0: Ints,
    out_x1: Ints,
    out_label: Ints,
) -> int:
    """Runs of one label each, without unusable pixels; with empty output arrays only counts them.

    `final` tells the number a label gets: final[label], 0 for none.
    """
    n = 0
    write = out_x0.size > 0
    for y in range(row_start.size - 1):
        out_start[y] = n
        for r in range(row_start[y], row_start[y + 1]):
            current = 0
            for x in range(x0[r], x1[r] + 1):
                label = 0
                if x < x1[r] and not flags[y, x] & _UNUSABLE:
                    label = final[labels[first[r] + x - x0[r]]]
                if label == current:
                    continue
                if write and current:
                    out_x1[n - 1] = x
                if label:
                    if write:
                        out_x0[n], out_label[n] = x, label
                    n += 1
                current = label
    out_start[row_start.size - 1] = n
    return n
