"""Kernel of sigma clipping: outliers from the median are left out until there are none; mean of what stays.

A sample is left out when it is further from the lower median of those still in than n sigma, σ² being its own
1 / weight plus the variance of that median, π/2 / Σ weights. No allowance is made for stars: where the seeing differs
between exposures, their cores suffer (that is what the clipped mean is for). The first round is done for rows of pixels
at once; only pixels that lose a sample are then gone through one by one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spica_stack.science._jit import jit
from spica_stack.science.combining.linear import add_weighted, finish_weighted
from spica_stack.science.combining.networks import Networks
from spica_stack.science.combining.outliers import Found, beyond, n_sigma
from spica_stack.science.combining.rows import (
    INFINITY,
    ZERO,
    Floats,
    Stack,
    add_total,
    middle_of_row,
    select,
    value_row,
    weight_row,
)

Planes = NDArray[np.float32]
Counts = NDArray[np.int16]
Marks = NDArray[np.uint8]

HALF_PI = np.float32(0.5 * np.pi)


@jit
def clip_pixel(
    values: Floats, weights: Floats, m: int, limit: np.float32, line: Floats, kept: Marks, off: Floats
) -> None:
    """Clip the first m samples of one pixel until none is left to clip.

    kept: 1 what stays. off: by how many σ a sample was off in the last round that it was looked at.
    """
    kept[:m] = 1
    changed = True
    while changed:
        n, total = 0, ZERO
        for k in range(m):
            if kept[k] == 1:
                line[n] = values[k]
                total += weights[k]
                n += 1
        middle, spread = select(line, n, (n - 1) // 2), HALF_PI / total
        changed = False
        for k in range(m):
            if kept[k] == 1:
                off[k] = n_sigma(values[k], weights[k], middle, spread, ZERO)
                if beyond(values[k], weights[k], middle, spread, total, ZERO, limit):
                    kept[k] = 0
                    changed = True


@jit
def sigma_clip(
    stack: Stack,
    nets: Networks,
    limit: np.float32,
    priority: Floats,
    y0: int,
    x0: int,
    out: Planes,
    out_weight: Planes,
    out_count: Counts,
    found: Found,
) -> int:
    """Sigma-clipped weighted mean of the pixels from (x0, y0) on, as many as `out` has; limit: squared.

    Returns the number of samples left out; as many as there is room for are listed.
    """
    height, width = out.shape
    n_layers, n_found = len(priority), 0
    middle, spread = np.empty(width, np.float32), np.empty(width, np.float32)
    all_weights, total = np.empty(width, np.float32), np.empty(width, np.float32)
    share, square = np.empty(width, np.float32), np.empty(width, np.float32)
    count, outliers = np.empty(width, np.int32), np.empty(width, np.int32)
    values, weights = np.empty(n_layers, np.float32), np.empty(n_layers, np.float32)
    line, off = np.empty(n_layers, np.float32), np.empty(n_layers, np.float32)
    kept, which = np.empty(n_layers, np.uint8), np.empty(n_layers, np.int32)
    for row in range(height):
        y = y0 + row
        middle_of_row(stack, nets, y, x0, x0 + width, True, middle, count)
        all_weights[:] = ZERO
        add_total(stack, y, x0, all_weights)
        for c in range(width):
            spread[c] = HALF_PI / all_weights[c]
        total[:] = ZERO
        share[:] = ZERO
        square[:] = ZERO
        count[:] = 0
        outliers[:] = 0
        for layer in stack.layers:
            value, weight = value_row(stack, layer, y, x0, width), weight_row(stack, layer, y, x0, width)
            add_weighted(value, weight, priority[layer], total, share, square, count)
            for c in range(width):
                far = beyond(value[c], weight[c], middle[c], spread[c], all_weights[c], ZERO, limit)
                outliers[c] += 1 if far else 0
        for c in range(width):
            if outliers[c] == 0:
                continue
            m = 0
            for layer in stack.layers:
                v = stack.value[layer * stack.value_layer + y * stack.value_row + x0 + c]
                w = stack.weight[layer * stack.weight_layer + y * stack.weight_row + x0 + c]
                if (w > ZERO) & (w < INFINITY) & (abs(v) < INFINITY):
                    values[m], weights[m], which[m] = v, w, layer
                    m += 1
            clip_pixel(values, weights, m, limit, line, kept, off)
            sums = np.zeros(3, np.float32)
            number = 0
            for k in range(m):
                if kept[k] == 1:
                    p = priority[which[k]]
                    u = p * weights[k]
                    sums[0] += u * values[k]
                    sums[1] += u
                    sums[2] += p * u
                    number += 1
                else:
                    if n_found < len(found.x):
                        found.x[n_found], found.y[n_found] = x0 + c, y
                        found.layer[n_found], found.n_sigma[n_found] = which[k], off[k]
                    n_found += 1
            total[c], share[c], square[c], count[c] = sums[0], sums[1], sums[2], number
        finish_weighted(total, share, square, count, out[row], out_weight[row], out_count[row])
    return n_found
