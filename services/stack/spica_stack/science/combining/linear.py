"""Kernels for what can be added up layer by layer: means, sums, extremes, chi."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spica_stack.science._jit import jit
from spica_stack.science.combining.rows import (
    INFINITY,
    NOTHING,
    ZERO,
    Floats,
    Ints,
    Stack,
    value_row,
    weight_row,
)

Planes = NDArray[np.float32]
Counts = NDArray[np.int16]

ONE = np.float32(1.0)


@jit
def add_weighted(
    value: Floats,
    weight: Floats,
    priority: np.float32,
    total: Floats,
    share: Floats,
    square: Floats,
    count: Ints,
) -> None:
    """Add one layer's row to Σ p w v, Σ p w and Σ p² w."""
    for c in range(len(total)):
        v, w = value[c], weight[c]
        there = (w > ZERO) & (w < INFINITY) & (abs(v) < INFINITY)
        u = priority * w if there else ZERO
        total[c] += u * (v if there else ZERO)
        share[c] += u
        square[c] += priority * u
        count[c] += 1 if there else 0


@jit
def finish_weighted(
    total: Floats,
    share: Floats,
    square: Floats,
    count: Ints,
    out: Floats,
    out_weight: Floats,
    out_count: Counts,
) -> None:
    """Mean and 1 / variance, (Σ p w)² / Σ p² w, of a row of sums."""
    for c in range(len(total)):
        u = share[c]
        out[c] = total[c] / u if u > ZERO else NOTHING
        out_weight[c] = u * (u / square[c]) if u > ZERO else ZERO
        out_count[c] = count[c]


@jit
def weighted_mean(
    stack: Stack, priority: Floats, y0: int, x0: int, out: Planes, out_weight: Planes, count: Counts
) -> None:
    """Weighted mean of the pixels from (x0, y0) on, as many as `out` has."""
    height, width = out.shape
    total, share = np.empty(width, np.float32), np.empty(width, np.float32)
    square, number = np.empty(width, np.float32), np.empty(width, np.int32)
    for row in range(height):
        total[:] = ZERO
        share[:] = ZERO
        square[:] = ZERO
        number[:] = 0
        for layer in stack.layers:
            value = value_row(stack, layer, y0 + row, x0, width)
            weight = weight_row(stack, layer, y0 + row, x0, width)
            add_weighted(value, weight, priority[layer], total, share, square, number)
        finish_weighted(total, share, square, number, out[row], out_weight[row], count[row])


@jit
def plain_sum(
    stack: Stack, mean: bool, y0: int, x0: int, out: Planes, out_weight: Planes, count: Counts
) -> None:
    """Sum Σ v, or mean Σ v / n, of the samples, with 1 / variance: 1 / Σ (1/w) of a sum, n² / Σ (1/w) of a mean."""
    height, width = out.shape
    total, variance = np.empty(width, np.float32), np.empty(width, np.float32)
    number = np.empty(width, np.int32)
    for row in range(height):
        total[:] = ZERO
        variance[:] = ZERO
        number[:] = 0
        for layer in stack.layers:
            value = value_row(stack, layer, y0 + row, x0, width)
            weight = weight_row(stack, layer, y0 + row, x0, width)
            for c in range(width):
                v, w = value[c], weight[c]
                there = (w > ZERO) & (w < INFINITY) & (abs(v) < INFINITY)
                total[c] += v if there else ZERO
                variance[c] += ONE / w if there else ZERO
                number[c] += 1 if there else 0
        for c in range(width):
            n = np.float32(number[c]) if mean else ONE
            out[row, c] = total[c] / n if number[c] > 0 else NOTHING
            out_weight[row, c] = n * n / variance[c] if number[c] > 0 else ZERO
            count[row, c] = number[c]


@jit
def extreme(
    stack: Stack, sign: np.float32, y0: int, x0: int, out: Planes, out_weight: Planes, count: Counts
) -> None:
    """The largest (sign 1) or smallest (-1) sample, and its own weight; of equal ones, that of the first layer.

    The count is of all that were compared.
    """
    height, width = out.shape
    best, number = np.empty(width, np.float32), np.empty(width, np.int32)
    for row in range(height):
        best[:] = -INFINITY
        number[:] = 0
        own = out_weight[row]
        own[:] = ZERO
        for layer in stack.layers:
            value = value_row(stack, layer, y0 + row, x0, width)
            weight = weight_row(stack, layer, y0 + row, x0, width)
            for c in range(width):
                v, w = sign * value[c], weight[c]
                there = (w > ZERO) & (w < INFINITY) & (abs(v) < INFINITY)
                better = there & (v > best[c])
                best[c] = v if better else best[c]
                own[c] = w if better else own[c]
                number[c] += 1 if there else 0
        for c in range(width):
            out[row, c] = sign * best[c] if number[c] > 0 else NOTHING
            count[row, c] = number[c]


@jit
def chi(
    stack: Stack,
    centre: Floats,
    scale: Floats,
    y0: int,
    x0: int,
    out: Planes,
    out_weight: Planes,
    count: Counts,
) -> None:
    """Centred χ of the samples: (√Σ w v² - centre[n]) × scale[n]; of one sample, its signal-to-noise √w v.

    The weight is 1: what comes out is in units of its own noise on blank sky.
    """
    height, width = out.shape
    squares, only, number = (
        np.empty(width, np.float32),
        np.empty(width, np.float32),
        np.empty(width, np.int32),
    )
    for row in range(height):
        squares[:] = ZERO
        only[:] = ZERO
        number[:] = 0
        for layer in stack.layers:
            value = value_row(stack, layer, y0 + row, x0, width)
            weight = weight_row(stack, layer, y0 + row, x0, width)
            for c in range(width):
                v, w = value[c], weight[c]
                there = (w > ZERO) & (w < INFINITY) & (abs(v) < INFINITY)
                s = v * np.sqrt(w) if there else ZERO
                squares[c] += s * s
                only[c] += s
                number[c] += 1 if there else 0
        for c in range(width):
            n = number[c]
            of_many = (np.sqrt(squares[c]) - centre[n]) * scale[n]
            value_here = only[c] if n == 1 else of_many
            out[row, c] = value_here if n > 0 else NOTHING
            out_weight[row, c] = ONE if n > 0 else ZERO
            count[row, c] = n
