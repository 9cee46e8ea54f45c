"""Resampling of one CCD onto the pixel grid of the stack.

For every output pixel: where it falls on the CCD (exact on a coarse mesh of nodes, bilinear between
them), Lanczos-3 interpolation there, times the flux scale and the ratio of pixel areas, so that
fluxes summed over a star stay what they were. Positions are zero-based array indices here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spica_stack.science.grid import TanGrid, Wcs
from spica_stack.science.lanczos import resample_rows

Image = NDArray[np.float32]
Floats = NDArray[np.float64]

NODE_STEP = 32
"""Distance of mesh nodes in output pixels, halved where the mapping bends too much for it."""

MAX_POSITION_ERROR_PX = 1e-3
"""Largest error of bilinear interpolation between nodes that is let pass."""

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
    resample_rows(
        data, weight, mesh.nodes, (mesh.x0, mesh.y0), mesh.step, flux_scale,
        mesh.oversample, tile_origin, bounds, out_value, out_weight,
    )  # fmt: skip
