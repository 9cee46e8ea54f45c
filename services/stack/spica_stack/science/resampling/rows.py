"""The hot loop of the resampling: output rows of one CCD, cell by cell of the mesh, eight pixels at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spica_stack.science.pixels import Box
from spica_stack.science.resampling.simd import (
    LANES,
    address,
    backwards,
    exact,
    falling,
    first,
    floor,
    fma,
    gather,
    if_above,
    inlined,
    lanes_up_to,
    last,
    load,
    merge,
    rising,
    spread,
)
from spica_stack.science.resampling.taps import taps
from spica_stack.science.resampling.windows import anywhere, side_by_side

Flat = NDArray[np.float32]
Floats = NDArray[np.float64]
Pair = tuple[np.float32, np.float32]
Lanes = Any
Shifts = NDArray[np.float32]
Extent = tuple[int, int, int, int]
"""First column and row, width and height."""
Limits = tuple[float, float, float, float]
"""First and last x, first and last y."""

TOLERATED_BAD_SHARE = np.float32(0.05)
"""A sample this close (bilinear share) to an unusable pixel still counts; beyond it has no weight."""

FAR = 1e9
"""Positions beyond (or NaN) are nowhere near a CCD; whole pixels up to here are whole numbers of any kind."""

ZERO, ONE, LEAST = np.float32(0.0), np.float32(1.0), np.float32(1.0) - TOLERATED_BAD_SHARE


@inlined
def _weight(w00: Lanes, w01: Lanes, w10: Lanes, w11: Lanes, fx: Lanes, fy: Lanes) -> Lanes:
    """Bilinear weight between four pixels; unusable ones (weight 0, NaN) are left out while their share is small."""
    zero, one = spread(ZERO), spread(ONE)
    gx, gy = one - fx, one - fy
    s00, s01, s10, s11 = gx * gy, fx * gy, gx * fy, fx * fy
    # What is unusable counts neither as share nor as weight.
    s00, s01 = if_above(w00, zero, s00, zero), if_above(w01, zero, s01, zero)
    s10, s11 = if_above(w10, zero, s10, zero), if_above(w11, zero, s11, zero)
    share = (s00 + s01) + (s10 + s11)
    w00, w01 = if_above(w00, zero, w00, zero), if_above(w01, zero, w01, zero)
    w10, w11 = if_above(w10, zero, w10, zero), if_above(w11, zero, w11, zero)
    total = fma(s00, w00, fma(s01, w01, fma(s10, w10, s11 * w11)))
    return if_above(share, spread(LEAST), total / share, zero)


@inlined
def _sample(
    n_taps: tuple[int, ...], data: Flat, weight: Flat, stride: int, at: Lanes, fx: Lanes, fy: Lanes
) -> tuple[Lanes, Lanes]:
    """Value and weight at eight positions: `at` is where the pixel at or before each lies, fx, fy the rest."""
    n = len(n_taps)
    if n == 1:
        if rising(at):
            return load(data, first(at)), load(weight, first(at))
        return gather(data, at, 0), gather(weight, at, 0)
    corner = -(n // 2 - 1) * (stride + 1)
    if rising(at):
        start = first(at)
        value = side_by_side(data, start + corner, stride, taps(n_taps, fx), taps(n_taps, fy))
        w00, w01 = load(weight, start), load(weight, start + 1)
        w10, w11 = load(weight, start + stride), load(weight, start + stride + 1)
        return value, _weight(w00, w01, w10, w11, fx, fy)
    if falling(at):
        start, fx, fy = last(at), backwards(fx), backwards(fy)
        value = side_by_side(data, start + corner, stride, taps(n_taps, fx), taps(n_taps, fy))
        w00, w01 = load(weight, start), load(weight, start + 1)
        w10, w11 = load(weight, start + stride), load(weight, start + stride + 1)
        return backwards(value), backwards(_weight(w00, w01, w10, w11, fx, fy))
    value = anywhere(data, at, corner, stride, taps(n_taps, fx), taps(n_taps, fy))
    w00, w01 = gather(weight, at, 0), gather(weight, at, 1)
    w10, w11 = gather(weight, at, stride), gather(weight, at, stride + 1)
    return value, _weight(w00, w01, w10, w11, fx, fy)


@inlined
def _place(k: int, slope: np.float32, start: np.float32) -> Any:
    """Position of pixel k of a cell, rounded down: the very sum that lanes are made of."""
    return np.floor(fma(np.float32(k), slope, start))


@inlined
def _inside(k: int, slopes: Pair, low: Pair, high: Pair, limits: Limits) -> Any:
    """Whether all samples of pixel k have their window within the limits. Written so that NaN is outside."""
    return (
        _place(k, slopes[0], low[0]) >= limits[0]
        and _place(k, slopes[0], high[0]) <= limits[1]
        and _place(k, slopes[1], low[1]) >= limits[2]
        and _place(k, slopes[1], high[1]) <= limits[3]
    )


@inlined
def _aside(begin: int, last: int, slopes: Pair, low: Pair, high: Pair, limits: Limits) -> Any:
    """Whether all pixels from one to another lie beyond one and the same limit: most cells beside a turned CCD do."""
    return (
        max(_place(begin, slopes[0], low[0]), _place(last, slopes[0], low[0])) < limits[0]
        or min(_place(begin, slopes[0], high[0]), _place(last, slopes[0], high[0])) > limits[1]
        or max(_place(begin, slopes[1], low[1]), _place(last, slopes[1], low[1])) < limits[2]
        or min(_place(begin, slopes[1], high[1]), _place(last, slopes[1], high[1])) > limits[3]
    )


@inlined
def _limits(n: int, extent: Extent, x: float, y: float) -> Limits:
    """First and last x and y, counted from (x, y), of which a window of n pixels lies within the extent."""
    before, after = max(n // 2 - 1, 0), n // 2
    return (
        extent[0] + before - x,
        extent[0] + extent[2] - 1 - after - x,
        extent[1] + before - y,
        extent[1] + extent[3] - 1 - after - y,
    )


@inlined
def _line(plane: Floats, j: int, i: int, v: float, offset: float, inverse: float) -> tuple[float, float]:
    """Along a row within a cell everything is linear: its start and slope."""
    start = (1.0 - v) * plane[j, i] + v * plane[j + 1, i] + offset
    end = (1.0 - v) * plane[j, i + 1] + v * plane[j + 1, i + 1] + offset
    return start, (end - start) * inverse


@inlined
def _spread_samples(
    shifts: Shifts, side: int, start: Pair, along: tuple[float, float], across: tuple[float, float]
) -> tuple[Pair, Pair]:
    """Starts of all samples of an output pixel, spread evenly over it; the least and the greatest."""
    if side == 1:
        shifts[0, 0], shifts[1, 0] = start
        return start, start
    for sample in range(side * side):
        u, v = (sample % side + 0.5) / side - 0.5, (sample // side + 0.5) / side - 0.5
        for axis in range(2):
            shifts[axis, sample] = start[axis] + np.float32(u * along[axis] + v * across[axis])
    return (shifts[0].min(), shifts[1].min()), (shifts[0].max(), shifts[1].max())


@inlined
def _pixel_block(
    n_taps: tuple[int, ...],
    data: Flat,
    weight: Flat,
    stride: int,
    origin: int,
    lanes: Lanes,
    slopes: Pair,
    shifts: Shifts,
) -> tuple[Lanes, Lanes]:
    """Means of the samples of eight output pixels and of their weights; weight 0 if one of them has none."""
    value, here, least = spread(ZERO), spread(ZERO), spread(ONE)
    for sample in range(shifts.shape[1]):
        x = fma(lanes, spread(slopes[0]), spread(shifts[0, sample]))
        y = fma(lanes, spread(slopes[1]), spread(shifts[1, sample]))
        left, below = floor(x), floor(y)
        at = address(below, left, stride, origin)
        one, its = _sample(n_taps, data, weight, stride, at, x - left, y - below)
        value, here = value + one, here + its
        least = if_above(its, spread(ZERO), least, spread(ZERO))
    share = spread(np.float32(1.0 / shifts.shape[1]))
    return value * share, least * (here * share)


@exact
def resample_rows(
    n_taps: tuple[int, ...],
    data: Flat,
    weight: Flat,
    patch: Extent,
    ccd: Extent,
    nodes: Floats,
    node_origin: tuple[int, int],
    step: int,
    weight_factor: np.float32,
    oversample: int,
    bounds: Box,
    out_value: Flat,
    out_weight: Flat,
    out: tuple[int, int, int],
) -> bool:
    """Write samples of more weight than what stands there. False: the patch lacks pixels that are needed.

    * n_taps: see `taps`.
    * data, weight: the patch, row by row; patch, ccd: their first column and row, width and height.
    * nodes: (3, n_y, n_x) x, y, scale; node_origin, step: output pixels at which they stand.
    * bounds: output pixels to be made.
    * out: output pixel (x, y) of the first output element, and the number of elements from row to row.
    """
    n, stride = len(n_taps), patch[2]
    # A pixel's own area is what `nearest` asks for, hence half a pixel more.
    half, inverse = 0.5 if n == 1 else 0.0, 1.0 / step
    shifts = np.zeros((2, oversample * oversample), np.float32)
    first_cell, last_cell = (bounds[0] - node_origin[0]) // step, (bounds[1] - 1 - node_origin[0]) // step
    for row in range(bounds[2], bounds[3]):
        j = (row - node_origin[1]) // step
        v = (row - node_origin[1] - j * step) * inverse
        for i in range(first_cell, last_cell + 1):
            x, dx = _line(nodes[0], j, i, v, half, inverse)
            y, dy = _line(nodes[1], j, i, v, half, inverse)
            scale, d_scale = _line(nodes[2], j, i, v, 0.0, inverse)
            if not (abs(x) < FAR and abs(y) < FAR):
                continue
            # Counted from a whole pixel, so that float32 is fine enough: 4e-6 px.
            x_whole, y_whole = np.floor(x), np.floor(y)
            start, slopes = (
                (np.float32(x - x_whole), np.float32(y - y_whole)),
                (np.float32(dx), np.float32(dy)),
            )
            across = (
                (nodes[0, j + 1, i] - nodes[0, j, i]) * inverse,
                (nodes[1, j + 1, i] - nodes[1, j, i]) * inverse,
            )
            low, high = _spread_samples(shifts, oversample, start, (dx, dy), across)
            cell = node_origin[0] + i * step
            begin, end = max(bounds[0] - cell, 0), min(bounds[1] - cell, step)
            limits = _limits(n, ccd, x_whole, y_whole)
            if _aside(begin, end - 1, slopes, low, high, limits):
                continue
            while begin < end and not _inside(begin, slopes, low, high, limits):
                begin += 1
            while end > begin and not _inside(end - 1, slopes, low, high, limits):
                end -= 1
            if end <= begin:
                continue
            # Positions are linear: what both ends have, all between them have.
            held = _limits(n, patch, x_whole, y_whole)
            if not (_inside(begin, slopes, low, high, held) and _inside(end - 1, slopes, low, high, held)):
                return False
            origin = int(y_whole - patch[1]) * stride + int(x_whole - patch[0])
            place = (row - out[1]) * out[2] + cell - out[0]
            for k in range(begin, end, LANES):
                lanes = lanes_up_to(k, end - 1)
                value, here = _pixel_block(n_taps, data, weight, stride, origin, lanes, slopes, shifts)
                # Variance of the flux: scale² / area = flux_scale² × area, see `resample_into`.
                factor = fma(lanes, spread(np.float32(d_scale)), spread(np.float32(scale)))
                final = here * spread(weight_factor) / factor
                merge(out_value, out_weight, place + k, min(LANES, end - k), value * factor, final)
    return True


_SQUARE = 16


@exact
def turned(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows as columns, copied in squares that fit into the cache."""
    ny, nx = plane.shape
    out = np.empty((nx, ny), np.float32)
    for y0 in range(0, ny, _SQUARE):
        for x0 in range(0, nx, _SQUARE):
            for x in range(x0, min(x0 + _SQUARE, nx)):
                for y in range(y0, min(y0 + _SQUARE, ny)):
                    out[x, y] = plane[y, x]
    return out
