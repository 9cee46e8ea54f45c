"""First pass of detection: filter, threshold and connect, row by row.

What stands out is kept as runs of rows with the filtered values of their pixels; a run may hold pixels without a
value where the filter sees enough on both sides, so that a bad column does not cut a star in two.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit
from spica_quality.science.background.sky import noise_row
from spica_quality.science.detection.filtering import across, correct, down, load_row
from spica_quality.science.flags import UNUSABLE

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Flags = NDArray[np.uint16]
Ints = NDArray[np.int32]

_UNUSABLE = int(UNUSABLE)


@jit
def _larger(array: Any, needed: int) -> Any:
    grown = np.empty(max(needed, array.size + array.size // 2), array.dtype)
    grown[: array.size] = array
    return grown


@jit
def root_of(parent: Ints, k: int) -> int:
    """Representative of a set, paths shortened on the way."""
    while parent[k] != k:
        parent[k] = parent[parent[k]]
        k = parent[k]
    return k


@jit
def _compare(filtered: Pixels, noise: Pixels, times: float, above: NDArray[np.uint8]) -> None:
    for x in range(filtered.size):
        above[x] = filtered[x] > times * noise[x]


@jit
def _cut(above: NDArray[np.uint64], above_px: NDArray[np.uint8], nx: int, begin: Ints, end: Ints) -> int:
    """First columns and columns after the last of a row's runs; returns how many."""
    n, x = 0, 0
    while x < nx:
        if above_px[x] == 0:
            # Eight pixels in a word, and most words are empty.
            skip = (x & 7) == 0 and above[x >> 3] == 0
            x += 8 if skip else 1
            continue
        begin[n] = x
        while x < nx and above_px[x]:
            x += 1
        end[n] = x
        n += 1
    return n


@jit
def _connect(row_start: Ints, y: int, n: int, x0: Ints, x1: Ints, parent: Ints) -> None:
    """Unite the runs of row y, the last of which is n - 1, with those of the row before that they touch."""
    if y == 0:
        return
    first, end = row_start[y - 1], row_start[y]
    for k in range(end, n):
        while first < end and x1[first] < x0[k]:
            first += 1
        other = first
        while other < end and x0[other] <= x1[k]:
            a, b = root_of(parent, other), root_of(parent, k)
            parent[max(a, b)] = min(a, b)
            other += 1


@jit
def _keep(
    values: Pixels,
    noise: Pixels,
    times: float,
    k: int,
    begin: int,
    end: int,
    heights: Pixels,
    first: int,
    top: Pixels,
    limit: Pixels,
) -> None:
    """Keep the values of a run's pixels, the greatest of them and the threshold there."""
    best = begin
    for i in range(begin, end):
        heights[first + i - begin] = values[i]
        if values[i] > values[best]:
            best = i
    top[k], limit[k] = values[best], times * noise[best]


@jit
def _bridge(flags: Flags, y: int, begin: int, end: int, values: Pixels) -> None:
    """Put a straight line over missing pixels of a run: seen from one side only, a star's height is far off."""
    i = begin
    while i < end:
        if flags[y, i] & _UNUSABLE == 0:
            i += 1
            continue
        stop = i
        while stop < end and flags[y, stop] & _UNUSABLE:
            stop += 1
        if i > begin or stop < end:
            left = values[i - 1] if i > begin else values[stop]
            right = values[stop] if stop < end else left
            for x in range(i, stop):
                values[x] = left + (right - left) * np.float32((x - i + 1) / (stop - i + 1))
        i = stop


@jit
def _filter(
    data: Pixels,
    flags: Flags,
    y_in: int,
    taps: Pixels,
    taps2: Pixels,
    row: Pixels,
    missing: Pixels,
    ring: Pixels,
    ring_lost: Pixels,
    gaps: NDArray[np.bool_],
    filtered: Pixels,
    height: Pixels,
    lost: Pixels,
) -> None:
    """Take in row y_in, and filter the row that it completes: significance and height, see `filtering`."""
    size = taps.size
    half = size // 2
    slot = y_in % size
    gaps[slot] = False
    if y_in < data.shape[0]:
        gaps[slot] = load_row(data, flags, y_in, half, row, missing)
        across(row, taps, ring[slot])
    else:
        ring[slot] = np.float32(0.0)
    if gaps[slot]:
        across(missing, taps2, ring_lost[slot])
    else:
        ring_lost[slot] = np.float32(0.0)
    if y_in < half:
        return
    down(ring, y_in - half, taps, filtered)
    if gaps.any():
        down(ring_lost, y_in - half, taps2, lost)
        correct(filtered, height, lost)
    else:
        height[:] = filtered


@jit
def scan(
    data: Pixels,
    flags: Flags,
    taps: Pixels,
    taps2: Pixels,
    threshold_sigma: float,
    mesh: Pixels,
    bend: Floats,
    least: float,
    weight: Pixels,
    weight_scale: float,
) -> tuple[Ints, Ints, Ints, Ints, Ints, Pixels, Pixels, Pixels]:
    """Find the runs of filtered pixels above the threshold and which of them touch (8-connected).

    Returns row_start (ny + 1), and per run: first column, column after the last, index of its first pixel in
    the list of heights, parent (union-find), greatest height, threshold there; and the heights of all pixels.
    """
    ny, nx = data.shape
    size = taps.size
    half = size // 2
    ring = np.zeros((size, nx), np.float32)
    ring_lost = np.zeros((size, nx), np.float32)
    gaps = np.zeros(size, np.bool_)
    row, missing = np.zeros(nx + 2 * half, np.float32), np.zeros(nx + 2 * half, np.float32)
    filtered, height = np.empty(nx, np.float32), np.empty(nx, np.float32)
    lost, noise = np.empty(nx, np.float32), np.empty(nx, np.float32)
    mx = mesh.shape[1]
    work, nodes, second = np.empty(mx), np.empty(mx), np.empty(mx)
    begin, end = np.empty(nx // 2 + 1, np.int32), np.empty(nx // 2 + 1, np.int32)
    above = np.zeros((nx + 7) // 8 + 1, np.uint64)
    above_px = above.view(np.uint8)
    row_start = np.zeros(ny + 1, np.int32)
    capacity = max(1024, ny * 4)
    x0, x1 = np.empty(capacity, np.int32), np.empty(capacity, np.int32)
    offset, parent = np.empty(capacity, np.int32), np.empty(capacity, np.int32)
    top, limit = np.empty(capacity, np.float32), np.empty(capacity, np.float32)
    heights = np.empty(max(4096, ny * nx // 32), np.float32)
    n, n_pixels = 0, 0
    times = float(threshold_sigma)
    for y_in in range(ny + half):
        _filter(
            data, flags, y_in, taps, taps2, row, missing, ring, ring_lost, gaps, filtered, height, lost
        )  # fmt: skip
        y = y_in - half
        if y < 0:
            continue
        noise_row(mesh, bend, least, weight, weight_scale, ny, y, work, nodes, second, noise)
        _compare(filtered, noise, times, above_px)
        row_start[y] = n
        found = _cut(above, above_px, nx, begin, end)
        if found == 0:
            continue
        # Arrays are replaced outside of the inner loops only: each turn of a loop that may do so is slow.
        in_row = 0
        for k in range(found):
            in_row += end[k] - begin[k]
        if n + found > x0.size:
            x0, x1 = _larger(x0, n + found), _larger(x1, n + found)
            offset, parent = _larger(offset, n + found), _larger(parent, n + found)
            top, limit = _larger(top, n + found), _larger(limit, n + found)
        if n_pixels + in_row > heights.size:
            heights = _larger(heights, n_pixels + in_row)
        for k in range(found):
            if gaps.any():
                _bridge(flags, y, begin[k], end[k], height)
            x0[n], x1[n], offset[n], parent[n] = begin[k], end[k], n_pixels, n
            _keep(height, noise, times, n, begin[k], end[k], heights, n_pixels, top, limit)
            n_pixels += end[k] - begin[k]
            n += 1
        _connect(row_start, y, n, x0, x1, parent)
    row_start[ny] = n
    return row_start, x0[:n], x1[:n], offset[:n], parent[:n], top[:n], limit[:n], heights[:n_pixels]
