"""Kernel of the clipped mean after Gruen, Seitz & Bernstein 2014 (PASP 126, 158).

A sample is an outlier when it differs from the pixel's median by more than n sigma of the noise *plus* a share of
the flux, so that stars, which differ between exposures because the seeing does, are left whole while cosmic rays
and trails are not. Departures from the paper:

* the share is taken of the brightest median within a seeing disc, not of the pixel's own: on the
  flank of a star a change of seeing moves the flux by a share of the core's;
* the share of each exposure grows with how far its seeing is known to be from the others';
* the median is the lower one for an even number, since outliers are mostly too bright: of two
  samples, the fainter is believed;
* neighbours of an outlier in the same exposure are held to a stricter limit (the wings that
  interpolation gives to a cosmic ray).

All is done in one pass down a panel of the tile, narrow enough that what was read for the median of a row is still
in the processor's cache when the row is averaged.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spica_stack.science._jit import jit
from spica_stack.science.combining.linear import add_weighted, finish_weighted
from spica_stack.science.combining.networks import Networks
from spica_stack.science.combining.outliers import (
    Found,
    Limits,
    Outliers,
    Ring,
    find_in_row,
    leave_out,
    n_sigma,
)
from spica_stack.science.combining.rows import (
    ZERO,
    Floats,
    Ints,
    Stack,
    add_total,
    middle_of_row,
    value_row,
    weight_row,
)

Planes = NDArray[np.float32]
Counts = NDArray[np.int16]
Marks = NDArray[np.uint8]

PANEL_BYTES = 1_000_000
MIN_PANEL_PX, MAX_PANEL_PX = 128, 1024
HALF_PI = np.float32(0.5 * np.pi)
"""n × variance of the median over that of one sample, for many samples of Gaussian noise."""


@jit
def local_maximum(values: Floats, radius: int, out: Floats) -> None:
    """Largest within `radius` along a row; NaN counts as 0 and so do negative values."""
    width = len(values)
    for c in range(width):
        out[c] = values[c] if values[c] > ZERO else ZERO
    for shift in range(1, min(radius, width - 1) + 1):
        right, left = values[shift:], values[: width - shift]
        for c in range(width - shift):
            v = right[c]
            out[c] = v if v > out[c] else out[c]
        behind = out[shift:]
        for c in range(width - shift):
            v = left[c]
            behind[c] = v if v > behind[c] else behind[c]


@jit
def _read_row(
    stack: Stack, nets: Networks, ring: Ring, row: int, x0: int, x1: int, radius: int, count: Ints
) -> None:
    """Median and sum of weights of a row."""
    slot = row % len(ring.middle)
    middle, spread, total = ring.middle[slot], ring.spread[slot], ring.total[slot]
    middle_of_row(stack, nets, row, x0, x1, True, middle, count)
    total[:] = ZERO
    add_total(stack, row, x0, total)
    for c in range(x1 - x0):
        spread[c] = HALF_PI / total[c]
    local_maximum(middle, radius, ring.along[slot])


@jit
def _local_flux(ring: Ring, row: int, height: int, radius: int) -> None:
    """Largest median within the box around each pixel of a row."""
    slots = len(ring.middle)
    brightest = ring.brightest[row % slots]
    brightest[:] = ZERO
    for y in range(max(row - radius, 0), min(row + radius + 1, height)):
        along = ring.along[y % slots]
        for c in range(len(along)):
            brightest[c] = along[c] if along[c] > brightest[c] else brightest[c]


@jit
def _list_row(
    stack: Stack,
    ring: Ring,
    limits: Limits,
    row: int,
    x0: int,
    inner: tuple[int, int],
    layers: Ints,
    left_out: Marks,
    found: Found,
    n_found: int,
) -> int:
    """List what was left out of a row, in the order of columns and layers; returns how many are known by now."""
    slot = row % len(ring.middle)
    if len(layers) == 0:
        return n_found
    for c in range(inner[0] - x0, inner[1] - x0):
        for k in range(len(layers)):
            if left_out[k, c] > 0:
                if n_found < len(found.x):
                    found.x[n_found], found.y[n_found] = x0 + c, row
                    found.layer[n_found] = layers[k]
                    v = value_row(stack, layers[k], row, x0 + c, 1)[0]
                    w = weight_row(stack, layers[k], row, x0 + c, 1)[0]
                    allowance = limits.share[layers[k]] * ring.brightest[slot, c]
                    found.n_sigma[n_found] = n_sigma(
                        v, w, ring.middle[slot, c], ring.spread[slot, c], allowance
                    )
                n_found += 1
    return n_found


@jit
def _panel(
    stack: Stack,
    nets: Networks,
    limits: Limits,
    priority: Floats,
    height: int,
    edges: tuple[int, int, int, int],
    y0: int,
    column: int,
    out: Planes,
    out_weight: Planes,
    out_count: Counts,
    found: Found,
    n_found: int,
) -> int:
    """One panel from its first row to its last.

    edges: its first and last + 1 column in the layers, with and without margin; column: its first one in `out`.
    """
    x0, x1, inner0, inner1 = edges
    width, rows, n_layers = x1 - x0, out.shape[0], len(priority)
    slots = limits.radius + 4
    ring = Ring(
        np.empty((slots, width), np.float32),
        np.empty((slots, width), np.float32),
        np.empty((slots, width), np.float32),
        np.empty((slots, width), np.float32),
        np.empty((slots, width), np.float32),
    )
    outliers = Outliers(np.empty((n_layers, 3, width), np.int32), np.zeros((n_layers, 3), np.int32))
    left_out, left_layers = np.zeros((n_layers, width), np.uint8), np.empty(n_layers, np.int32)
    weight, ignored = np.empty(width, np.float32), np.empty(width, np.int32)
    total, share = np.empty(width, np.float32), np.empty(width, np.float32)
    square, count = np.empty(width, np.float32), np.empty(width, np.int32)
    inside = slice(inner0 - x0, inner1 - x0)
    for reading in range(max(y0 - 1 - limits.radius, 0), y0 + rows + 1 + limits.radius):
        if reading < height:
            _read_row(stack, nets, ring, reading, x0, x1, limits.radius, ignored)
        judging = reading - limits.radius
        if max(y0 - 1, 0) <= judging < min(y0 + rows + 1, height):
            _local_flux(ring, judging, height, limits.radius)
            find_in_row(stack, ring, limits, judging, x0, x1, outliers)
        row = judging - 1
        if not y0 <= row < y0 + rows:
            continue
        total[:] = ZERO
        share[:] = ZERO
        square[:] = ZERO
        count[:] = 0
        n_left = 0
        for layer in stack.layers:
            value, taken = value_row(stack, layer, row, x0, width), weight_row(stack, layer, row, x0, width)
            bad = left_out[n_left]
            if leave_out(stack, ring, limits, layer, row, height, x0, outliers, weight, bad) > 0:
                taken = weight
                left_layers[n_left] = layer
                n_left += 1
            add_weighted(value, taken, priority[layer], total, share, square, count)
        y = row - y0
        finish_weighted(
            total[inside],
            share[inside],
            square[inside],
            count[inside],
            out[y, column : column + inner1 - inner0],
            out_weight[y, column : column + inner1 - inner0],
            out_count[y, column : column + inner1 - inner0],
        )
        n_found = _list_row(
            stack, ring, limits, row, x0, (inner0, inner1), left_layers[:n_left], left_out, found, n_found
        )
    return n_found


@jit
def clipped_mean(
    stack: Stack,
    nets: Networks,
    limits: Limits,
    priority: Floats,
    shape: tuple[int, int],
    panel_px: int,
    y0: int,
    x0: int,
    out: Planes,
    out_weight: Planes,
    count: Counts,
    found: Found,
) -> int:
    """Clipped mean of the pixels from (x0, y0) on, as many as `out` has, out of layers of the given shape.

    Returns the number of samples left out; as many as there is room for are listed in `found`, panel by panel.
    """
    height, full_width = shape
    width, margin, n_found = out.shape[1], limits.radius + 1, 0
    for start in range(0, width, panel_px):
        end = min(start + panel_px, width)
        edges = (
            max(x0 + start - margin, 0),
            min(x0 + end + margin, full_width),
            x0 + start,
            x0 + end,
        )
        n_found = _panel(
            stack,
            nets,
            limits,
            priority,
            height,
            edges,
            y0,
            start,
            out,
            out_weight,
            count,
            found,
            n_found,
        )
    return n_found


def panel_px(n_layers: int, radius: int) -> int:
    """Width of a panel whose rows in flight stay in cache."""
    fits = PANEL_BYTES // (8 * max(n_layers, 1) * (radius + 3))
    return int(np.clip(fits // 64 * 64, MIN_PANEL_PX, MAX_PANEL_PX))
