"""Kernel of the median."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spica_stack.science._jit import jit
from spica_stack.science.combining.efficiency import NEAR_EVEN, NEAR_ODD
from spica_stack.science.combining.networks import Networks
from spica_stack.science.combining.rows import (
    INFINITY,
    ZERO,
    Floats,
    Ints,
    Stack,
    middle_of_row,
    value_row,
    weight_row,
)

Planes = NDArray[np.float32]
Counts = NDArray[np.int16]

ONE = np.float32(1.0)
EVEN, ODD = np.float32(NEAR_EVEN), np.float32(NEAR_ODD)
TWO_OVER_PI = np.float32(2.0 / np.pi)


@jit
def _weight_of_median(
    stack: Stack, row: int, x0: int, count: Ints, roots: Floats, variances: Floats, out: Floats
) -> None:
    """1 / variance of a row of medians.

    Of m samples with noise σ: (2 / π) (m + c) / m × (Σ 1/σ)² / m for many, the density at the median being the mean
    of 1 / (σ √2π); of one or two, m² / Σ σ², the median being the mean.
    """
    width = len(out)
    roots[:] = ZERO
    variances[:] = ZERO
    for layer in stack.layers:
        value, weight = value_row(stack, layer, row, x0, width), weight_row(stack, layer, row, x0, width)
        for c in range(width):
            v, w = value[c], weight[c]
            there = (w > ZERO) & (w < INFINITY) & (abs(v) < INFINITY)
            roots[c] += np.sqrt(w) if there else ZERO
            variances[c] += ONE / w if there else ZERO
    for c in range(width):
        m = np.float32(count[c])
        extra = EVEN if count[c] % 2 == 0 else ODD
        # Divided once: of two divisions by one number the compiler makes different things in different loops.
        mean_root = roots[c] / m
        of_many = TWO_OVER_PI * (m + extra) * (mean_root * mean_root)
        of_few = m * m / variances[c]
        out[c] = (of_many if count[c] > 2 else of_few) if count[c] > 0 else ZERO


@jit
def median(
    stack: Stack, nets: Networks, y0: int, x0: int, out: Planes, out_weight: Planes, out_count: Counts
) -> None:
    """Median of the pixels from (x0, y0) on, as many as `out` has."""
    height, width = out.shape
    count = np.empty(width, np.int32)
    roots, variances = np.empty(width, np.float32), np.empty(width, np.float32)
    for row in range(height):
        middle_of_row(stack, nets, y0 + row, x0, x0 + width, False, out[row], count)
        _weight_of_median(stack, y0 + row, x0, count, roots, variances, out_weight[row])
        for c in range(width):
            out_count[row, c] = count[c]
