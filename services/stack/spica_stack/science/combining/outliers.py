"""Kernels that tell outliers among the samples of a row, for the clipped mean."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spica_stack.science._jit import jit
from spica_stack.science.combining.rows import INFINITY, ZERO, Floats, Ints, Stack, value_row, weight_row

Planes = NDArray[np.float32]
Marks = NDArray[np.uint8]

SEGMENT_PX = 64
"""Outliers are looked for one by one only in segments of a row that are known to have some."""
ONE = np.float32(1.0)


class Limits(NamedTuple):
    """What decides on outliers."""

    share: Floats
    """Per layer: share of the local flux by which a sample may differ."""
    far: np.float32
    """Square of the limit in σ."""
    near: np.float32
    """Square of the limit in σ for neighbours of an outlier."""
    radius: int
    """Half size of the box in which the local flux is looked up, px."""


class Found(NamedTuple):
    """Where samples left out are listed, up to its length."""

    x: Ints
    y: Ints
    layer: NDArray[np.int16]
    n_sigma: Floats


class Ring(NamedTuple):
    """What is known of the last few rows of a panel; row y of the layers stands in y % (number of rows)."""

    middle: Planes
    """Lower median."""
    spread: Planes
    """Variance of the median = spread, so that a sample's own variance is 1 / weight + spread from it."""
    total: Planes
    """Sum of weights."""
    along: Planes
    """Largest median within the radius along the row, at least 0."""
    brightest: Planes
    """The same within the box."""


class Outliers(NamedTuple):
    """Outliers of the last three rows of a panel, by layer and row % 3."""

    columns: NDArray[np.int32]
    """Shape (n_layers, 3, width): their columns, ascending."""
    number: Ints
    """Shape (n_layers, 3)."""


@jit
def beyond(
    v: np.float32,
    w: np.float32,
    middle: np.float32,
    spread: np.float32,
    total: np.float32,
    allowance: np.float32,
    limit: np.float32,
) -> np.bool:
    """Whether a sample is further from the median than the allowance plus limit (squared, in σ) of the noise.

    The noise is that of the sample and of the median, 1 / w + spread. One sample alone is never an outlier.
    """
    off = abs(v - middle) - allowance
    far = off * abs(off) * w > limit * (ONE + spread * w)
    return far & (w < total) & (abs(v) < INFINITY)


@jit
def n_sigma(
    v: np.float32, w: np.float32, middle: np.float32, spread: np.float32, allowance: np.float32
) -> np.float32:
    """By how many σ a sample is off the median beyond the allowance; negative: too faint, 0: within."""
    off = v - middle
    far = abs(off) - allowance
    n = far * np.sqrt(w / (ONE + spread * w)) if far > ZERO else ZERO
    return n if off >= ZERO else -n


@jit
def _count(
    value: Floats,
    weight: Floats,
    middle: Floats,
    spread: Floats,
    total: Floats,
    brightest: Floats,
    share: np.float32,
    limit: np.float32,
) -> int:
    n = 0
    for c in range(len(value)):
        outlier = beyond(value[c], weight[c], middle[c], spread[c], total[c], share * brightest[c], limit)
        n += 1 if outlier else 0
    return n


@jit
def find_in_row(
    stack: Stack, ring: Ring, limits: Limits, row: int, x0: int, x1: int, found: Outliers
) -> None:
    """List the outliers of all layers in a row of a panel (columns x0 to x1)."""
    slot, width = row % len(ring.middle), x1 - x0
    middle, spread, total = ring.middle[slot], ring.spread[slot], ring.total[slot]
    brightest = ring.brightest[slot]
    for layer in stack.layers:
        value, weight = value_row(stack, layer, row, x0, width), weight_row(stack, layer, row, x0, width)
        share = limits.share[layer]
        columns, n = found.columns[layer, row % 3], 0
        if _count(value, weight, middle, spread, total, brightest, share, limits.far) > 0:
            for a in range(0, width, SEGMENT_PX):
                b = min(a + SEGMENT_PX, width)
                if (
                    _count(
                        value[a:b],
                        weight[a:b],
                        middle[a:b],
                        spread[a:b],
                        total[a:b],
                        brightest[a:b],
                        share,
                        limits.far,
                    )
                    == 0
                ):
                    continue
                for c in range(a, b):
                    allowance = share * brightest[c]
                    if beyond(value[c], weight[c], middle[c], spread[c], total[c], allowance, limits.far):
                        columns[n] = c
                        n += 1
        found.number[layer, row % 3] = n


@jit
def leave_out(
    stack: Stack,
    ring: Ring,
    limits: Limits,
    layer: int,
    row: int,
    height: int,
    x0: int,
    outliers: Outliers,
    weight: Floats,
    out: Marks,
) -> int:
    """Copy a row of weights of a layer, with 0 for outliers and for those beside one that are off themselves.

    out: 2 where an outlier was left out, 1 where one beside it. Returns how many were; if none are
    near, neither `weight` nor `out` is filled.
    """
    around = outliers.number[layer, row % 3]
    if row > 0:
        around += outliers.number[layer, (row - 1) % 3]
    if row + 1 < height:
        around += outliers.number[layer, (row + 1) % 3]
    if around == 0:
        return 0
    width, slot = len(weight), row % len(ring.middle)
    value, given = value_row(stack, layer, row, x0, width), weight_row(stack, layer, row, x0, width)
    weight[:] = given
    out[:] = 0
    n = 0
    for k in range(outliers.number[layer, row % 3]):
        c = outliers.columns[layer, row % 3, k]
        out[c] = 2
        weight[c] = ZERO
        n += 1
    for y in range(max(row - 1, 0), min(row + 2, height)):
        for k in range(outliers.number[layer, y % 3]):
            column = outliers.columns[layer, y % 3, k]
            for c in range(max(column - 1, 0), min(column + 2, width)):
                allowance = limits.share[layer] * ring.brightest[slot, c]
                if out[c] == 0 and beyond(
                    value[c],
                    given[c],
                    ring.middle[slot, c],
                    ring.spread[slot, c],
                    ring.total[slot, c],
                    allowance,
                    limits.near,
                ):
                    out[c] = 1
                    weight[c] = ZERO
                    n += 1
    return n
