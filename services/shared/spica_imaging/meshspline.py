"""Bicubic natural splines over a mesh whose nodes are the centres of boxes that divide a frame evenly.

First along each column of the mesh, then along the row that results. Beyond the outermost nodes the spline goes on as a
straight line. `smoothed` fills and filters a mesh before a spline is laid through it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spica_imaging._jit import fast_kernel as jit
from spica_imaging._jit import kernel

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]


def bend_of(mesh: Pixels) -> Floats:
    """Second derivatives of natural cubic splines through the mesh's columns."""
    bend = np.zeros(mesh.shape)
    work = np.empty(mesh.shape[0])
    for column in range(mesh.shape[1]):
        _second(mesh[:, column].astype(np.float64), work, bend[:, column])
    return bend


@jit
def _second(values: Floats, work: Floats, second: Floats) -> None:
    """Second derivatives of the natural cubic spline through equidistant values (tridiagonal system)."""
    n = values.size
    second[0], work[0] = 0.0, 0.0
    for k in range(1, n - 1):
        pivot = 4.0 + work[k - 1]
        work[k] = -1.0 / pivot
        change = 6.0 * (values[k + 1] - 2.0 * values[k] + values[k - 1])
        second[k] = (change - second[k - 1]) / pivot
    second[n - 1] = 0.0
    for k in range(n - 2, 0, -1):
        second[k] += work[k] * second[k + 1]


@jit
def _between(a: float, b: float, bend_a: float, bend_b: float, t: float) -> float:
    """Natural spline between two nodes at t = 0 and 1, a straight line outside."""
    if t < 0.0:
        return a + t * (b - a - (2.0 * bend_a + bend_b) / 6.0)
    if t > 1.0:
        return b + (t - 1.0) * (b - a + (bend_a + 2.0 * bend_b) / 6.0)
    s = 1.0 - t
    return s * a + t * b + ((s * s * s - s) * bend_a + (t * t * t - t) * bend_b) / 6.0


@jit
def _nodes(
    mesh: Pixels, bend: Floats, ny: int, y: float, work: Floats, nodes: Floats, second: Floats
) -> None:
    """The mesh's columns at row y, and the spline through them."""
    my, mx = mesh.shape
    if my == 1:
        for i in range(mx):
            nodes[i] = mesh[0, i]
    else:
        place = (y + 0.5) * my / ny - 0.5
        k = min(max(int(np.floor(place)), 0), my - 2)
        for i in range(mx):
            nodes[i] = _between(mesh[k, i], mesh[k + 1, i], bend[k, i], bend[k + 1, i], place - k)
    _second(nodes, work, second)


@jit
def spline_row(
    mesh: Pixels, bend: Floats, ny: int, y: int, work: Floats, nodes: Floats, second: Floats, row: Pixels
) -> None:
    """One row of the spline surface; work, nodes and second have the length of the mesh's rows."""
    _nodes(mesh, bend, ny, y, work, nodes, second)
    nx, mx = row.size, mesh.shape[1]
    if mx == 1:
        row[:] = nodes[0]
        return
    step = mx / nx
    begin = 0
    for k in range(mx - 1):
        end = nx if k == mx - 2 else int(np.ceil((k + 1.5) * nx / mx - 0.5))
        # Beside the outermost nodes a straight line.
        if k == 0:
            inner = min(int(np.ceil(0.5 * nx / mx - 0.5)), end)
            for i in range(begin, inner):
                t = (i + 0.5) * step - 0.5
                row[i] = _between(nodes[0], nodes[1], second[0], second[1], t)
            begin = inner
        last = min(int(np.floor((mx - 0.5) * nx / mx - 0.5)) + 1, nx) if k == mx - 2 else end
        c0, c1 = nodes[k], nodes[k + 1] - nodes[k] - (2.0 * second[k] + second[k + 1]) / 6.0
        c2, c3 = 0.5 * second[k], (second[k + 1] - second[k]) / 6.0
        offset = 0.5 * step - 0.5 - k
        for i in range(begin, last):
            t = i * step + offset
            row[i] = c0 + t * (c1 + t * (c2 + t * c3))
        for i in range(last, end):
            t = (i + 0.5) * step - 0.5 - k
            row[i] = _between(nodes[k], nodes[k + 1], second[k], second[k + 1], t)
        begin = end


@kernel
def spline_part(
    mesh: Pixels,
    bend: Floats,
    shape: tuple[int, int],
    y: int,
    x0: int,
    work: tuple[Floats, Floats, Floats],
    part: Pixels,
) -> None:
    """Columns from x0 on of row y of the spline surface over a frame of this shape (ny, nx), as many as `part` has.

    A pixel's value is the same, to the bit, whichever others are asked for with it: no step here may be rearranged.
    `work`: three arrays of the length of the mesh's rows.
    """
    scratch, nodes, second = work
    _nodes(mesh, bend, shape[0], y, scratch, nodes, second)
    mx, nx, x1 = mesh.shape[1], shape[1], x0 + part.size
    if mx == 1:
        part[:] = nodes[0]
        return
    per_pixel = mx / nx
    # Where the straight lines beside the outermost nodes end and begin.
    left = min(max(int(np.ceil(0.5 * nx / mx - 0.5)), x0), x1)
    right = min(max(int(np.ceil((mx - 0.5) * nx / mx - 0.5)), left), x1)
    slope = nodes[1] - nodes[0] - (2.0 * second[0] + second[1]) / 6.0
    for i in range(x0, left):
        part[i - x0] = nodes[0] + ((i + 0.5) * per_pixel - 0.5) * slope
    begin = left
    for k in range(mx - 1):
        end = right if k == mx - 2 else min(int(np.ceil((k + 1.5) * nx / mx - 0.5)), right)
        c0, c1 = nodes[k], nodes[k + 1] - nodes[k] - (2.0 * second[k] + second[k + 1]) / 6.0
        c2, c3 = 0.5 * second[k], (second[k + 1] - second[k]) / 6.0
        offset = 0.5 * per_pixel - 0.5 - k
        for i in range(begin, end):
            t = i * per_pixel + offset
            part[i - x0] = c0 + t * (c1 + t * (c2 + t * c3))
        begin = max(begin, end)
    slope = nodes[mx - 1] - nodes[mx - 2] + (second[mx - 2] + 2.0 * second[mx - 1]) / 6.0
    for i in range(right, x1):
        part[i - x0] = nodes[mx - 1] + ((i + 0.5) * per_pixel - 0.5 - (mx - 1)) * slope


@jit
def spline_at(mesh: Pixels, bend: Floats, ny: int, nx: int, x: Floats, y: Floats, result: Floats) -> None:
    """The spline surface at zero-based positions, written into `result`."""
    mx = mesh.shape[1]
    work, nodes, second = np.empty(mx), np.empty(mx), np.empty(mx)
    for n in range(x.size):
        _nodes(mesh, bend, ny, y[n], work, nodes, second)
        if mx == 1:
            result[n] = nodes[0]
            continue
        place = (x[n] + 0.5) * mx / nx - 0.5
        k = min(max(int(np.floor(place)), 0), mx - 2)
        result[n] = _between(nodes[k], nodes[k + 1], second[k], second[k + 1], place - k)


def smoothed(mesh: Pixels) -> Pixels:
    """Boxes without a value filled from the nearest that have one; then the median of each and its eight neighbours."""
    filled, result = np.empty_like(mesh), np.empty_like(mesh)
    _fill(mesh, filled)
    _median3(filled, result)
    return result


@jit
def _fill(mesh: Pixels, result: Pixels) -> None:
    ny, nx = mesh.shape
    for j in range(ny):
        for i in range(nx):
            result[j, i] = mesh[j, i]
            if np.isfinite(mesh[j, i]):
                continue
            least, total, n = 1 << 60, 0.0, 0
            for b in range(ny):
                for a in range(nx):
                    distance = (b - j) * (b - j) + (a - i) * (a - i)
                    if np.isfinite(mesh[b, a]) and distance <= least:
                        if distance < least:
                            least, total, n = distance, 0.0, 0
                        total += mesh[b, a]
                        n += 1
            result[j, i] = total / n if n else 0.0


@jit
def _median3(mesh: Pixels, result: Pixels) -> None:
    """Median of each box and its eight neighbours; beyond the rim the mesh goes on as it came, so that slopes stay."""
    ny, nx = mesh.shape
    near = np.empty(9, np.float32)
    for j in range(ny):
        for i in range(nx):
            n = 0
            for dj in range(-1, 2):
                for di in range(-1, 2):
                    b, a = j + dj, i + di
                    inside_b, inside_a = 0 <= b < ny, 0 <= a < nx
                    # 2 v(0) - v(1) for v(-1); a mesh one box wide has no slope.
                    b0, a0 = min(max(b, 0), ny - 1), min(max(a, 0), nx - 1)
                    b1 = b0 if inside_b else min(max(j - dj, 0), ny - 1)
                    a1 = a0 if inside_a else min(max(i - di, 0), nx - 1)
                    value = mesh[b0, a0]
                    if not (inside_b and inside_a):
                        value = 2.0 * value - mesh[b1, a1]
                    near[n] = value
                    n += 1
            result[j, i] = np.median(near)
