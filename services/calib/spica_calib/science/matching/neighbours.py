"""The hot loops of matching: mutual neighbours, and the map that brings them together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spica_calib.science._jit import exact

Floats = NDArray[np.float64]
Integers = NDArray[np.int32]

_ROUNDS = 14
STEP = 1.25
"""Radii are `smallest` times whole powers of this: a few values, whose number can be counted."""
RING = 16
"""Directions in which neighbours by chance are counted."""


class Grid(NamedTuple):
    """Points sorted into square cells: `items[starts[c] : starts[c + 1]]` are those of cell c = row * nx + column."""

    x: Floats
    y: Floats
    starts: Integers
    items: Integers
    x0: float
    y0: float
    cell: float
    nx: int
    ny: int


@exact
def grid_of(x: Floats, y: Floats, cell: float) -> Grid:
    """Sort finite points into cells of at least this width (wider ones where there were too many)."""
    n = len(x)
    if n == 0:
        return Grid(x, y, np.zeros(2, dtype=np.int32), np.empty(0, dtype=np.int32), 0.0, 0.0, cell, 1, 1)
    x0, y0 = x.min(), y.min()
    span = max(x.max() - x0, y.max() - y0)
    cell = max(cell, span / 400.0)
    nx, ny = int((x.max() - x0) / cell) + 1, int((y.max() - y0) / cell) + 1
    starts = np.zeros(nx * ny + 1, dtype=np.int32)
    where = np.empty(n, dtype=np.int32)
    for k in range(n):
        where[k] = int((y[k] - y0) / cell) * nx + int((x[k] - x0) / cell)
        starts[where[k] + 1] += 1
    for k in range(nx * ny):
        starts[k + 1] += starts[k]
    free = starts[:-1].copy()
    items = np.empty(n, dtype=np.int32)
    for k in range(n):
        items[free[where[k]]] = k
        free[where[k]] += 1
    return Grid(x, y, starts, items, x0, y0, cell, nx, ny)


@exact
def nearest(grid: Grid, px: float, py: float, radius: float) -> tuple[int, float]:
    """The point nearest to a place within `radius` (at most one cell) and its distance squared; -1 where there is none."""
    best, least = -1, radius * radius
    column, row = int(np.floor((px - grid.x0) / grid.cell)), int(np.floor((py - grid.y0) / grid.cell))
    for j in range(max(row - 1, 0), min(row + 2, grid.ny)):
        for i in range(max(column - 1, 0), min(column + 2, grid.nx)):
            cell = j * grid.nx + i
            for k in range(grid.starts[cell], grid.starts[cell + 1]):
                m = grid.items[k]
                dx, dy = grid.x[m] - px, grid.y[m] - py
                distance = dx * dx + dy * dy
                if distance <= least and (distance < least or best < 0 or m < best):
                    best, least = m, distance
    return best, least


@exact
def mutual_pairs(
    x: Floats, y: Floats, grid: Grid, matrix: Floats, shift: Floats, radius: float
) -> tuple[Integers, Integers]:
    """Pairs (point, star) where each is the other's nearest after the map, no further apart than `radius`."""
    n = len(x)
    chosen = np.full(n, -1, dtype=np.int32)
    holder = np.full(len(grid.x), -1, dtype=np.int32)
    closest = np.full(len(grid.x), np.inf)
    for k in range(n):
        px = matrix[0, 0] * x[k] + matrix[0, 1] * y[k] + shift[0]
        py = matrix[1, 0] * x[k] + matrix[1, 1] * y[k] + shift[1]
        star, distance = nearest(grid, px, py, radius)
        if star >= 0:
            chosen[k] = star
            if distance < closest[star]:
                closest[star], holder[star] = distance, k
    count = 0
    first, second = np.empty(n, dtype=np.int32), np.empty(n, dtype=np.int32)
    for k in range(n):
        if chosen[k] >= 0 and holder[chosen[k]] == k:
            first[count], second[count] = k, chosen[k]
            count += 1
    return first[:count].copy(), second[:count].copy()


@exact
def fit_map(
    x: Floats, y: Floats, grid: Grid, first: Integers, second: Integers, affine: bool, sign: float
) -> tuple[Floats, Floats]:
    """Least-squares map of pairs: affine, or a similarity with the given parity; the shift alone where pairs coincide."""
    n = len(first)
    mx, my, tx, ty = 0.0, 0.0, 0.0, 0.0
    for k in range(n):
        mx += x[first[k]] / n
        my += y[first[k]] / n
        tx += grid.x[second[k]] / n
        ty += grid.y[second[k]] / n
    xx, xy, yy, ux, uy, vx, vy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for k in range(n):
        dx, dy = x[first[k]] - mx, y[first[k]] - my
        du, dv = grid.x[second[k]] - tx, grid.y[second[k]] - ty
        xx += dx * dx
        xy += dx * dy
        yy += dy * dy
        ux += du * dx
        uy += du * dy
        vx += dv * dx
        vy += dv * dy
    matrix = np.zeros((2, 2))
    determinant = xx * yy - xy * xy
    if affine and determinant > 1e-4 * (xx + yy) * (xx + yy):
        matrix[0, 0], matrix[0, 1] = (ux * yy - uy * xy) / determinant, (uy * xx - ux * xy) / determinant
        matrix[1, 0], matrix[1, 1] = (vx * yy - vy * xy) / determinant, (vy * xx - vx * xy) / determinant
    elif xx + yy > 0.0:
        real = (sign * ux + vy) / (xx + yy)
        imag = (sign * vx - uy) / (xx + yy)
        matrix[0, 0], matrix[0, 1] = sign * real, -imag
        matrix[1, 0], matrix[1, 1] = sign * imag, real
    else:
        matrix[0, 0], matrix[1, 1] = sign, 1.0
    shift = np.array([tx - matrix[0, 0] * mx - matrix[0, 1] * my, ty - matrix[1, 0] * mx - matrix[1, 1] * my])
    return matrix, shift


@exact
def stepped(radius: float, smallest: float) -> float:
    """The smallest of the allowed radii that is not below this one."""
    if radius <= smallest:
        return smallest
    return smallest * STEP ** np.ceil(np.log(radius / smallest) / np.log(STEP) - 1e-9)


@exact
def converge(
    x: Floats,
    y: Floats,
    grid: Grid,
    matrix: Floats,
    shift: Floats,
    radius: float,
    smallest: float,
    affine_from: int,
) -> tuple[Floats, Floats, Integers, Integers, float]:
    """Neighbours and map in turn, with a radius that follows the residuals, never below `smallest`.

    With fewer pairs than `affine_from` only shift, rotation and scale are fitted. Returns matrix, shift, the pairs (point,
    star) within the last radius under it, and that radius.
    """
    sign = -1.0 if matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0] < 0.0 else 1.0
    before = np.empty(0, dtype=np.int32)
    radius = stepped(radius, smallest)
    first, second = mutual_pairs(x, y, grid, matrix, shift, radius)
    for step in range(_ROUNDS):
        if len(first) < 3:
            break
        matrix, shift = fit_map(x, y, grid, first, second, len(first) >= affine_from and step >= 2, sign)
        residual = np.empty(len(first))
        for k in range(len(first)):
            i, j = first[k], second[k]
            dx = matrix[0, 0] * x[i] + matrix[0, 1] * y[i] + shift[0] - grid.x[j]
            dy = matrix[1, 0] * x[i] + matrix[1, 1] * y[i] + shift[1] - grid.y[j]
            residual[k] = np.sqrt(dx * dx + dy * dy)
        # The median of a Rayleigh distribution is 1.177 sigma.
        radius = min(radius, stepped(4.0 * np.median(residual) / 1.177, smallest))
        before = first
        first, second = mutual_pairs(x, y, grid, matrix, shift, radius)
        if step > 3 and len(before) == len(first) and np.all(before == first):
            break
    return matrix, shift, first, second, radius


@exact
def coincidences(x: Floats, y: Floats, grid: Grid, matrix: Floats, shift: Floats, radius: float) -> float:
    """How many points have a star within `radius` if all are displaced: the mean over a ring of four radii."""
    total = 0
    reach = min(radius, grid.cell)
    for k in range(RING):
        angle = 2.0 * np.pi * k / RING
        sx = shift[0] + 4.0 * radius * np.cos(angle)
        sy = shift[1] + 4.0 * radius * np.sin(angle)
        for m in range(len(x)):
            px = matrix[0, 0] * x[m] + matrix[0, 1] * y[m] + sx
            py = matrix[1, 0] * x[m] + matrix[1, 1] * y[m] + sy
            if nearest(grid, px, py, reach)[0] >= 0:
                total += 1
    return total / RING
