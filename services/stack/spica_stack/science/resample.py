"""Resampling of one CCD onto the pixel grid of the stack.

For every output pixel: where it falls on the CCD (exact on a coarse mesh of nodes, bilinear between
them), Lanczos-3 interpolation there, times the flux scale and the ratio of pixel areas, so that
fluxes summed over a star stay what they were. Positions are zero-based array indices here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import prange
from numpy.typing import NDArray

from spica_stack.science._jit import kernel, parallel_kernel
from spica_stack.science.grid import TanGrid, Wcs
from spica_stack.science.lanczos import taps

Image = NDArray[np.float32]
Floats = NDArray[np.float64]

NODE_STEP = 32
"""Distance of mesh nodes in output pixels, halved where the mapping bends too much for it."""

MAX_POSITION_ERROR_PX = 1e-3
"""Largest error of bilinear interpolation between nodes that is let pass."""

TOLERATED_BAD_SHARE = np.float32(0.05)
"""A sample this close (bilinear share) to an unusable pixel still counts; beyond it has no weight."""

F_ZERO, F_ONE = np.float32(0.0), np.float32(1.0)
ONE, TWO, THREE, FOUR, FIVE = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4), np.uint64(5)

OVERSAMPLE_FROM = 1.5
"""Output pixels larger than this many input pixels are averages of several samples."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """Where output pixels fall on a CCD: nodes every `step` output pixels from (x0, y0) on."""

    x0: int
    y0: int
    step: int
    nodes: Floats
    """Shape (3, n_y, n_x): zero-based column and row on the CCD, and flux scale times area ratio
    (input pixels per output pixel)."""
    window: tuple[int, int, int, int]
    """Output pixels that may see the CCD: x0, x1, y0, y1, zero-based, half-open."""
    oversample: int
    """Samples per output pixel and axis."""


def _window(
    grid: TanGrid, wcs: Wcs, origin: tuple[int, int], nx: int, ny: int
) -> tuple[int, int, int, int] | None:
    """Output pixels that the CCD covers; None where there are none."""
    along_x, along_y = np.linspace(0.5, nx + 0.5, 33), np.linspace(0.5, ny + 0.5, 33)
    x, y = np.meshgrid(along_x + origin[0], along_y + origin[1])
    out_x, out_y = grid.sky_to_pixel(*wcs.pixel_to_sky(x, y))
    if not np.any(np.isfinite(out_x) & np.isfinite(out_y)):
        return None
    x0, x1 = int(np.floor(np.nanmin(out_x))) - 2, int(np.ceil(np.nanmax(out_x))) + 2
    y0, y1 = int(np.floor(np.nanmin(out_y))) - 2, int(np.ceil(np.nanmax(out_y))) + 2
    x0, x1, y0, y1 = max(x0, 0), min(x1, grid.width), max(y0, 0), min(y1, grid.height)
    return (x0, x1, y0, y1) if x1 > x0 and y1 > y0 else None


def _nodes(window: tuple[int, int, int, int], step: int) -> tuple[int, int, Floats, Floats]:
    """Node positions (zero-based output pixels) that enclose the window.

    They stand at multiples of `step` of the whole output image, so that a result does not depend
    on the tiles in which the image is made.
    """
    x0, y0 = window[0] // step * step - step, window[2] // step * step - step
    columns = np.arange(x0, window[1] + 2 * step, step, dtype=np.float64)
    rows = np.arange(y0, window[3] + 2 * step, step, dtype=np.float64)
    return x0, y0, columns, rows


def make_mesh(
    grid: TanGrid, wcs: Wcs, shape: tuple[int, int], flux_scale: float, origin: tuple[int, int] = (0, 0)
) -> Mesh | None:
    """Compute the mesh of one CCD; None where the CCD does not touch the grid.

    `shape` is (ny, nx) of the CCD's array, `origin` the zero-based pixel (x, y) of the WCS's grid
    at which that array begins (where overscan was cut off).
    """
    ny, nx = shape
    window = _window(grid, wcs, origin, nx, ny)
    if window is None:
        return None
    step = NODE_STEP
    while True:
        mesh = _mesh_with_step(grid, wcs, origin, window, step, flux_scale)
        if step <= 4 or _position_error(mesh, grid, wcs, origin, (ny, nx)) <= MAX_POSITION_ERROR_PX:
            return mesh
        step //= 2


def _to_input(
    grid: TanGrid, wcs: Wcs, origin: tuple[int, int], columns: Floats, rows: Floats
) -> tuple[Floats, Floats]:
    """Zero-based input positions of zero-based output positions (1-D columns × 1-D rows)."""
    out_x, out_y = np.meshgrid(columns + 1.0, rows + 1.0)
    x, y = wcs.sky_to_pixel(*grid.pixel_to_sky(out_x, out_y))
    return x - 1.0 - origin[0], y - 1.0 - origin[1]


def _mesh_with_step(
    grid: TanGrid,
    wcs: Wcs,
    origin: tuple[int, int],
    window: tuple[int, int, int, int],
    step: int,
    flux_scale: float,
) -> Mesh:
    x0, y0, columns, rows = _nodes(window, step)
    x, y = _to_input(grid, wcs, origin, columns, rows)
    # Area of an output pixel in input pixels, from the positions half a pixel to each side.
    x_right, y_right = _to_input(grid, wcs, origin, columns + 0.5, rows)
    x_left, y_left = _to_input(grid, wcs, origin, columns - 0.5, rows)
    x_up, y_up = _to_input(grid, wcs, origin, columns, rows + 0.5)
    x_down, y_down = _to_input(grid, wcs, origin, columns, rows - 0.5)
    area = np.abs((x_right - x_left) * (y_up - y_down) - (x_up - x_down) * (y_right - y_left))
    side = float(np.sqrt(np.nanmedian(area)))
    return Mesh(
        x0=x0,
        y0=y0,
        step=step,
        nodes=np.stack([x, y, area * flux_scale]),
        window=window,
        oversample=1 if side < OVERSAMPLE_FROM else int(np.ceil(side)),
    )


def _position_error(
    mesh: Mesh, grid: TanGrid, wcs: Wcs, origin: tuple[int, int], shape: tuple[int, int]
) -> float:
    """Largest error (input pixels) of the bilinear positions, looked up at the centres of all cells."""
    ny, nx = shape
    node_x, node_y = mesh.nodes[:2]
    n_y, n_x = node_x.shape
    columns = mesh.x0 + mesh.step * (np.arange(n_x - 1) + 0.5)
    rows = mesh.y0 + mesh.step * (np.arange(n_y - 1) + 0.5)
    x, y = _to_input(grid, wcs, origin, columns, rows)
    dx = x - 0.25 * (node_x[1:, 1:] + node_x[1:, :-1] + node_x[:-1, 1:] + node_x[:-1, :-1])
    dy = y - 0.25 * (node_y[1:, 1:] + node_y[1:, :-1] + node_y[:-1, 1:] + node_y[:-1, :-1])
    inside = (x > -mesh.step) & (x < nx + mesh.step) & (y > -mesh.step) & (y < ny + mesh.step)
    errors = np.hypot(dx, dy)[inside]
    return float(np.nanmax(errors, initial=0.0))


@kernel
def _row(data: Image, j: np.uint64, i: np.uint64, a: tuple[np.float32, ...]) -> np.float32:
    """Six pixels of one row, weighted. Unsigned indices spare the compiler the wrap at negative ones."""
    return (
        a[0] * data[j, i]
        + a[1] * data[j, i + ONE]
        + a[2] * data[j, i + TWO]
        + a[3] * data[j, i + THREE]
        + a[4] * data[j, i + FOUR]
        + a[5] * data[j, i + FIVE]
    )


@kernel
def _sample(data: Image, weight: Image, x: float, y: float) -> tuple[np.float32, np.float32]:
    """Lanczos-3 value and bilinear weight at one position; weight 0 where there is none to be had.

    `data` must be finite everywhere. The whole 6×6 neighbourhood has to lie on the array.
    """
    ny, nx = data.shape
    # Written so that NaN (beyond the far side of the sky) fails it too.
    if not (x >= 2.0 and y >= 2.0 and x < nx - 3.0 and y < ny - 3.0):
        return F_ZERO, F_ZERO
    ix, iy = np.uint64(x), np.uint64(y)
    fx, fy = np.float32(x - np.float64(ix)), np.float32(y - np.float64(iy))
    gx, gy = F_ONE - fx, F_ONE - fy
    w00, w01 = weight[iy, ix], weight[iy, ix + ONE]
    w10, w11 = weight[iy + ONE, ix], weight[iy + ONE, ix + ONE]
    total = gy * (gx * w00 + fx * w01) + fy * (gx * w10 + fx * w11)
    if min(w00, w01, w10, w11) <= F_ZERO:
        bad = F_ZERO
        bad += gx * gy if w00 <= F_ZERO else F_ZERO
        bad += fx * gy if w01 <= F_ZERO else F_ZERO
        bad += gx * fy if w10 <= F_ZERO else F_ZERO
        bad += fx * fy if w11 <= F_ZERO else F_ZERO
        if bad > TOLERATED_BAD_SHARE:
            return F_ZERO, F_ZERO
        total /= F_ONE - bad
    a, b = taps(fx), taps(fy)
    j, i = iy - TWO, ix - TWO
    value = (
        b[0] * _row(data, j, i, a)
        + b[1] * _row(data, j + ONE, i, a)
        + b[2] * _row(data, j + TWO, i, a)
        + b[3] * _row(data, j + THREE, i, a)
        + b[4] * _row(data, j + FOUR, i, a)
        + b[5] * _row(data, j + FIVE, i, a)
    )
    return value, total


@kernel
def _average(
    data: Image, weight: Image, x: float, y: float, sides: tuple[float, float, float, float], n: int
) -> tuple[np.float32, np.float32]:
    """Mean of n × n samples spread evenly over an output pixel; weight 0 if one of them has none.

    `sides`: dx/dcolumn, dy/dcolumn, dx/drow, dy/drow.
    """
    value_sum, weight_sum = F_ZERO, F_ZERO
    for sub in range(n * n):
        u, v = (sub % n + 0.5) / n - 0.5, (sub // n + 0.5) / n - 0.5
        value, here = _sample(data, weight, x + u * sides[0] + v * sides[2], y + u * sides[1] + v * sides[3])
        if here <= F_ZERO:
            return F_ZERO, F_ZERO
        value_sum += value
        weight_sum += here
    return value_sum / np.float32(n * n), weight_sum / np.float32(n * n)


@parallel_kernel
def _resample(
    data: Image,
    weight: Image,
    nodes: Floats,
    node_origin: tuple[int, int],
    step: int,
    flux_scale: float,
    oversample: int,
    tile_origin: tuple[int, int],
    bounds: tuple[int, int, int, int],
    out_value: Image,
    out_weight: Image,
) -> None:
    """Write samples with weight into the tile. See `resample_into`. `nodes`: (3, n_y, n_x) x, y, scale."""
    first_column, last_column, first_row, last_row = bounds
    first_cell = (first_column - node_origin[0]) // step
    last_cell = (last_column - 1 - node_origin[0]) // step
    inverse_step = 1.0 / step
    weight_factor = np.float32(1.0 / flux_scale)
    for row in prange(first_row, last_row):
        j = (row - node_origin[1]) // step
        v = (row - node_origin[1] - j * step) * inverse_step
        row_value, row_weight = out_value[row - tile_origin[1]], out_weight[row - tile_origin[1]]
        for i in range(first_cell, last_cell + 1):
            # Along a row within a cell everything is linear: a start and a slope.
            x0 = (1.0 - v) * nodes[0, j, i] + v * nodes[0, j + 1, i]
            y0 = (1.0 - v) * nodes[1, j, i] + v * nodes[1, j + 1, i]
            s0 = (1.0 - v) * nodes[2, j, i] + v * nodes[2, j + 1, i]
            x_slope = ((1.0 - v) * nodes[0, j, i + 1] + v * nodes[0, j + 1, i + 1] - x0) * inverse_step
            y_slope = ((1.0 - v) * nodes[1, j, i + 1] + v * nodes[1, j + 1, i + 1] - y0) * inverse_step
            s_slope = ((1.0 - v) * nodes[2, j, i + 1] + v * nodes[2, j + 1, i + 1] - s0) * inverse_step
            sides = (
                x_slope,
                y_slope,
                (nodes[0, j + 1, i] - nodes[0, j, i]) * inverse_step,
                (nodes[1, j + 1, i] - nodes[1, j, i]) * inverse_step,
            )
            cell = node_origin[0] + i * step
            for column in range(max(cell, first_column), min(cell + step, last_column)):
                u = column - cell
                x, y = x0 + u * x_slope, y0 + u * y_slope
                if oversample == 1:
                    value, here = _sample(data, weight, x, y)
                else:
                    value, here = _average(data, weight, x, y, sides, oversample)
                if here > F_ZERO:
                    scale = np.float32(s0 + u * s_slope)
                    # Variance of the flux: scale² / area = flux_scale² × area, see `resample_into`.
                    final = here * weight_factor / scale
                    place = column - tile_origin[0]
                    if final > row_weight[place]:
                        row_value[place] = value * scale
                        row_weight[place] = final


def resample_into(
    data: Image,
    weight: Image,
    mesh: Mesh,
    flux_scale: float,
    tile_origin: tuple[int, int],
    out_value: Image,
    out_weight: Image,
) -> None:
    """Resample one CCD into a tile of the output, in place.

    * data: float32, shape (ny, nx): background-subtracted adu, finite everywhere (unusable pixels
      filled from their neighbours).
    * weight: float32, shape (ny, nx): 1 / variance in adu⁻²; 0 = unusable.
    * flux_scale: factor from adu to the stack's unit (FLXSCALE), the one in the mesh.
    * tile_origin: zero-based output pixel (x, y) of the tile's first pixel.
    * out_value, out_weight: float32, shape of the tile: written where this CCD gives a sample of
      more weight than what stands there. Weight is 1 / variance of the flux per output pixel as it
      holds for sums over many pixels: area × flux_scale² × the input's variance, without the
      smoothing by the interpolation, which lowers the scatter from pixel to pixel but not that of a
      star's flux.
    """
    height, width = out_value.shape
    bounds = (
        max(mesh.window[0], tile_origin[0]),
        min(mesh.window[1], tile_origin[0] + width),
        max(mesh.window[2], tile_origin[1]),
        min(mesh.window[3], tile_origin[1] + height),
    )
    if bounds[1] <= bounds[0] or bounds[3] <= bounds[2]:
        return
    _resample(
        data, weight, mesh.nodes, (mesh.x0, mesh.y0), mesh.step, flux_scale,
        mesh.oversample, tile_origin, bounds, out_value, out_weight,
    )  # fmt: skip
