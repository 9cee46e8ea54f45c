"""Kernels on one row of pixels: gathering its samples from the layers, and their median, for many pixels at once.

Layers come as flat arrays with the steps from layer to layer, so that one compiled form serves whole tiles and
parts of them. A sample counts where its weight is positive and its value is finite.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spica_stack.science._jit import jit
from spica_stack.science.combining.networks import LARGEST, Networks

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

INFINITY = np.float32(np.inf)
NOTHING = np.float32(np.nan)
ZERO = np.float32(0.0)
HALF = np.float32(0.5)
BLOCK_PX = 256
"""Pixels of a row that are sorted together. The samples of 100 layers then fit into a processor's second-level cache."""


class Stack(NamedTuple):
    """Layers as kernels take them: a sample stands at layer × `…_layer` + row × `…_row` + column."""

    value: Floats
    weight: Floats
    value_layer: int
    value_row: int
    weight_layer: int
    weight_row: int
    layers: Ints
    """Which layers are to be looked at, ascending."""


@jit
def value_row(stack: Stack, layer: int, row: int, x0: int, width: int) -> Floats:
    """Part of a row of values of a layer."""
    at = layer * stack.value_layer + row * stack.value_row + x0
    return stack.value[at : at + width]


@jit
def weight_row(stack: Stack, layer: int, row: int, x0: int, width: int) -> Floats:
    """Part of a row of weights of a layer."""
    at = layer * stack.weight_layer + row * stack.weight_row + x0
    return stack.weight[at : at + width]


@jit
def add_total(stack: Stack, row: int, x0: int, total: Floats) -> None:
    """Add the weights of all samples of a row to `total`, as long as that is."""
    width = len(total)
    for layer in stack.layers:
        value, weight = value_row(stack, layer, row, x0, width), weight_row(stack, layer, row, x0, width)
        for c in range(width):
            v, w = value[c], weight[c]
            there = (w > ZERO) & (w < INFINITY) & (abs(v) < INFINITY)
            total[c] += w if there else ZERO


@jit
def present_layers(stack: Stack, row: int, x0: int, x1: int, found: Ints) -> int:
    """Which layers have any weight in this part of a row; returns their number."""
    n = 0
    for layer in stack.layers:
        for w in weight_row(stack, layer, row, x0, x1 - x0):
            if w > 0:
                found[n] = layer
                n += 1
                break
    return n


@jit
def _gather(
    stack: Stack,
    row: int,
    x0: int,
    x1: int,
    present: Ints,
    size: int,
    samples: Floats,
    count: Ints,
) -> None:
    """Fill `samples[k]` with what present layer k has, and what is missing with -inf and +inf in equal parts.

    Where a pixel has m samples out of `size`, its lower median is then still the (size - 1) // 2 th, and for
    even m the upper one the next after it: pixels with and without gaps go through one network.
    """
    width = x1 - x0
    filling = np.empty(width, np.float32)
    filling[:] = INFINITY if size % 2 == 0 else -INFINITY
    count[:width] = 0
    for k in range(len(present)):
        into = samples[k * BLOCK_PX : k * BLOCK_PX + width]
        value, weight = (
            value_row(stack, present[k], row, x0, width),
            weight_row(stack, present[k], row, x0, width),
        )
        for c in range(width):
            v, w, gap = value[c], weight[c], filling[c]
            there = (w > ZERO) & (w < INFINITY) & (abs(v) < INFINITY)
            into[c] = v if there else gap
            filling[c] = gap if there else -gap
            count[c] += 1 if there else 0
    for k in range(len(present), size):
        into = samples[k * BLOCK_PX : k * BLOCK_PX + width]
        for c in range(width):
            into[c] = filling[c]
            filling[c] = -filling[c]


@jit
def exchange(samples: Floats, width: int, nets: Networks, n: int) -> None:
    """Run the network for n samples over the rows of a block."""
    for step in range(nets.start[n, 0], nets.start[n, 1]):
        at = nets.low[step] * BLOCK_PX
        low = samples[at : at + width]
        at = nets.high[step] * BLOCK_PX
        high = samples[at : at + width]
        keep = nets.keep[step]
        if keep == 3:
            for c in range(width):
                a, b = low[c], high[c]
                low[c] = a if a < b else b
                high[c] = b if a < b else a
        elif keep == 1:
            for c in range(width):
                a, b = low[c], high[c]
                low[c] = a if a < b else b
        else:
            for c in range(width):
                a, b = low[c], high[c]
                high[c] = b if a < b else a


@jit
def select(values: Floats, n: int, k: int) -> np.float32:
    """k-th smallest (from 0) of the first n values; reorders them (Hoare's quickselect)."""
    low, high = 0, n - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            break
    return values[k]


@jit
def _select_block(samples: Floats, width: int, n: int, lower: bool, out: Floats) -> None:
    """The same as a network does, pixel by pixel, for very many samples."""
    line = np.empty(n, np.float32)
    middle = (n - 1) // 2
    for c in range(width):
        present, m = n, 0
        for k in range(n):
            line[k] = samples[k * BLOCK_PX + c]
            m += 1 if abs(line[k]) < INFINITY else 0
        found = select(line, present, middle)
        if m % 2 == 0 and not lower and m > 0:
            # After selection, what stands behind is not smaller: its least is the upper middle.
            upper = line[middle + 1]
            for k in range(middle + 2, n):
                upper = min(upper, line[k])
            found = HALF * (found + upper)
        out[c] = found


@jit
def middle_of_row(
    stack: Stack,
    nets: Networks,
    row: int,
    x0: int,
    x1: int,
    lower: bool,
    out: Floats,
    count: Ints,
) -> None:
    """Median of the samples of pixels x0 to x1 of a row, NaN where there are none, and their number.

    lower: the lower of the two middle ones of an even number (`nets` made for ranks "lower"), else their mean ("middle").
    """
    samples = np.empty((len(stack.layers) + 16) * BLOCK_PX, np.float32)
    found = np.empty(len(stack.layers), np.int32)
    for start in range(x0, x1, BLOCK_PX):
        end = min(start + BLOCK_PX, x1)
        width = end - start
        n = present_layers(stack, row, start, end, found)
        by_network = n < len(nets.size) and n <= LARGEST
        size = nets.size[n] if by_network else n
        into, number = out[start - x0 : end - x0], count[start - x0 : end - x0]
        _gather(stack, row, start, end, found[:n], size, samples, number)
        if by_network:
            exchange(samples, width, nets, n)
            at = max(size - 1, 0) // 2 * BLOCK_PX
            middle = samples[at : at + width]
            if lower or size < 2:
                for c in range(width):
                    into[c] = middle[c] if number[c] > 0 else NOTHING
            else:
                above = samples[at + BLOCK_PX : at + BLOCK_PX + width]
                for c in range(width):
                    both = HALF * (middle[c] + above[c])
                    found_here = both if number[c] % 2 == 0 else middle[c]
                    into[c] = found_here if number[c] > 0 else NOTHING
        else:
            _select_block(samples, width, n, lower, into)
            for c in range(width):
                into[c] = into[c] if number[c] > 0 else NOTHING
