"""Where the output's pixels fall on a CCD: exact at the nodes of a mesh, bilinear between them.

Positions are zero-based array indices here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from spica_imaging.wcs import TpvWcs

from spica_stack.science.grid import Grid, Wcs
from spica_stack.science.parameters import Kernel
from spica_stack.science.pixels import Box
from spica_stack.science.projections import Frame, from_plane
from spica_stack.science.resampling.taps import N_TAPS

Floats = NDArray[np.float64]

NODE_STEP = 32
"""Distance of mesh nodes in output pixels, halved where the mapping bends too much for it."""

MIN_NODE_STEP = 4

MAX_POSITION_ERROR_PX = 1e-3
"""Largest error of bilinear interpolation between nodes that is let pass."""

OVERSAMPLE_FROM = 1.5
"""Output pixels larger than this many input pixels are averages of several samples."""

_OUTLINE_POINTS = 33
_SOLVED_EVERY = 4
_NEAR_PX = 0.02
"""Output pixels: a step by the gradient from so near leaves less than 1e-5 px."""

_CHECKED_CELLS = 9
"""Per axis: cells in whose middle the mesh is held against the exact mapping."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """Where output pixels fall on one CCD, and how it is to be sampled there."""

    x0: int
    y0: int
    step: int
    """Nodes stand every `step` output pixels from (x0, y0) on."""
    nodes: Floats
    """Shape (3, n_y, n_x): column and row on the CCD, and flux scale times area ratio (input pixels per output pixel)."""
    window: Box
    """Output pixels that may see the CCD."""
    shape: tuple[int, int]
    """Rows and columns of the CCD."""
    flux_scale: float
    """From adu to the stack's unit (FLXSCALE)."""
    kernel: Kernel
    oversample: int
    """Samples per output pixel and axis."""
    turned: bool
    """Whether output rows run rather along the CCD's columns than its rows."""

    @property
    def pixel_area(self) -> float:
        """Input pixels per output pixel: the median of the nodes."""
        return float(np.nanmedian(self.nodes[2])) / self.flux_scale

    def needs(self, box: Box) -> Box | None:
        """Pixels of the CCD that samples in this output box may need, the kernel's support included.

        None where the box does not see the CCD. Depends on the box only through its corners: a larger box needs more.
        """
        inside = overlap(box, self.window)
        if inside is None:
            return None
        ny, nx = self.shape
        columns = _stops(inside[0], inside[1], self.x0, self.step)
        rows = _stops(inside[2], inside[3], self.y0, self.step)
        x, y = (_between(plane, columns, rows) for plane in self.nodes[:2])
        if not np.any(np.isfinite(x) & np.isfinite(y)):
            return None
        # One more pixel on each side, for rounding and for positions half a pixel off (`nearest`).
        after = N_TAPS[self.kernel] // 2 + 1
        before = max(after - 1, 1)
        # Samples of one output pixel lie up to half of it away from its centre.
        spread_x, spread_y = (0.0, 0.0) if self.oversample == 1 else self._half_pixel()
        return overlap(
            (
                int(np.floor(np.nanmin(x) - spread_x)) - before,
                int(np.floor(np.nanmax(x) + spread_x)) + after + 1,
                int(np.floor(np.nanmin(y) - spread_y)) - before,
                int(np.floor(np.nanmax(y) + spread_y)) + after + 1,
            ),
            (0, nx, 0, ny),
        )

    def _half_pixel(self) -> tuple[float, float]:
        """How far (input pixels) the corners of an output pixel lie from its centre, at most."""
        spans = []
        for plane in self.nodes[:2]:
            across = np.nanmax(np.abs(np.diff(plane, axis=1))) + np.nanmax(np.abs(np.diff(plane, axis=0)))
            spans.append(0.5 * float(across) / self.step)
        return spans[0], spans[1]


def overlap(a: Box, b: Box) -> Box | None:
    """What two boxes share."""
    x0, x1, y0, y1 = max(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), min(a[3], b[3])
    return (x0, x1, y0, y1) if x1 > x0 and y1 > y0 else None


def _stops(first: int, end: int, origin: int, step: int) -> Floats:
    """First and last pixel of a range and the nodes between, in cells: a bilinear function has its extremes there."""
    nodes = np.arange((first - origin) // step + 1, (end - 2 - origin) // step + 1)
    stops: Floats = np.concatenate([[(first - origin) / step], nodes, [(end - 1 - origin) / step]])
    return stops


def _between(plane: Floats, columns: Floats, rows: Floats) -> Floats:
    """Bilinear values at 1-D columns × 1-D rows, in units of cells."""
    i = np.minimum(columns.astype(np.intp), plane.shape[1] - 2)
    j = np.minimum(rows.astype(np.intp), plane.shape[0] - 2)
    u, v = columns - i, (rows - j)[:, None]
    low, high = plane[j], plane[j + 1]
    lines = (1.0 - v) * low + v * high
    values: Floats = (1.0 - u) * lines[:, i] + u * lines[:, i + 1]
    return values


def _window(mapping: _Mapping, nx: int, ny: int) -> Box | None:
    """Output pixels that the CCD covers; None where there are none."""
    along_x, along_y = (np.linspace(-0.5, size - 0.5, _OUTLINE_POINTS) for size in (nx, ny))
    x, y = np.meshgrid(along_x, along_y)
    out_x, out_y = mapping.to_output(x, y)
    if not np.any(np.isfinite(out_x) & np.isfinite(out_y)):
        return None
    return overlap(
        (
            int(np.floor(np.nanmin(out_x))) - 1,
            int(np.ceil(np.nanmax(out_x))) + 2,
            int(np.floor(np.nanmin(out_y))) - 1,
            int(np.ceil(np.nanmax(out_y))) + 2,
        ),
        (0, mapping.grid.width, 0, mapping.grid.height),
    )


@dataclass(frozen=True, slots=True)
class _Mapping:
    """Between output and input, both zero-based."""

    grid: Grid
    wcs: Wcs
    origin: tuple[int, int]

    def to_input(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        in_x, in_y = self.wcs.sky_to_pixel(*self.grid.pixel_to_sky(x + 1.0, y + 1.0))
        return in_x - 1.0 - self.origin[0], in_y - 1.0 - self.origin[1]

    def to_output(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        x, y = x + (1.0 + self.origin[0]), y + (1.0 + self.origin[1])
        if isinstance(self.wcs, TpvWcs) and self.grid.projection == "TAN":
            # From plane to plane, without any angle.
            xi, eta = self.wcs.pixel_to_plane(x, y)
            direction = Frame.at(*self.wcs.crval).out_of(from_plane("TAN", xi, eta))
            ahead, east, north = Frame.at(self.grid.ra_deg, self.grid.dec_deg).into(direction)
            ahead = np.degrees(1.0) / np.where(ahead > 0.0, ahead, np.nan)
            out_x, out_y = self.grid.plane_to_pixel(east * ahead, north * ahead)
        else:
            out_x, out_y = self.grid.sky_to_pixel(*self.wcs.pixel_to_sky(x, y))
        return out_x - 1.0, out_y - 1.0

    def on_nodes(self, columns: Floats, rows: Floats) -> tuple[Floats, Floats]:
        """Input positions of 1-D columns × 1-D rows.

        Solving for them is slow: it is done for every fourth, cubics lie between, and one step with the mapping that
        needs no solving takes away what they leave. That step is also the proof: where it fails, all are solved for.
        """
        if min(len(columns), len(rows)) > 3 * _SOLVED_EVERY:
            sparse_columns, in_x = _sparse(columns)
            sparse_rows, in_y = _sparse(rows)
            guess_x, guess_y = (
                in_y @ part @ in_x.T for part in self.to_input(*np.meshgrid(sparse_columns, sparse_rows))
            )
            out_x, out_y = self.to_output(guess_x, guess_y)
            off_x, off_y = columns - out_x, rows[:, None] - out_y
            if np.max(np.hypot(off_x, off_y)) < _NEAR_PX:
                return _moved(guess_x, off_x, off_y, columns, rows), _moved(
                    guess_y, off_x, off_y, columns, rows
                )
        x, y = self.to_input(*np.meshgrid(columns, rows))
        # What did not converge may look like a place on the CCD.
        out_x, out_y = self.to_output(x, y)
        right = np.hypot(columns - out_x, rows[:, None] - out_y) < _NEAR_PX
        return np.where(right, x, np.nan), np.where(right, y, np.nan)


def _sparse(nodes: Floats) -> tuple[Floats, Floats]:
    """Every fourth node, and the cubics (Lagrange) that lead back: shape (n, n_sparse)."""
    step = (nodes[1] - nodes[0]) * _SOLVED_EVERY
    count = int(np.ceil((len(nodes) - 1) / _SOLVED_EVERY)) + 1
    place = np.arange(len(nodes)) / _SOLVED_EVERY
    first = np.clip(place.astype(int) - 1, 0, count - 4)
    matrix = np.zeros((len(nodes), count))
    for k in range(4):
        others = [m for m in range(4) if m != k]
        matrix[np.arange(len(nodes)), first + k] = np.prod(
            [(place - first - m) / (k - m) for m in others], axis=0
        )
    return nodes[0] + step * np.arange(count), matrix


def _moved(values: Floats, off_x: Floats, off_y: Floats, columns: Floats, rows: Floats) -> Floats:
    """Values at places (off_x, off_y) away, by their gradient."""
    along_y, along_x = np.gradient(values, rows, columns)
    moved: Floats = values + along_x * off_x + along_y * off_y
    return moved


def window_of(grid: Grid, wcs: Wcs, shape: tuple[int, int], origin: tuple[int, int] = (0, 0)) -> Box | None:
    """Output pixels that may see a CCD (see `make_mesh`): what its mesh has for a window, at a tenth of the cost."""
    return _window(_Mapping(grid, wcs, origin), shape[1], shape[0])


def make_mesh(
    grid: Grid,
    wcs: Wcs,
    shape: tuple[int, int],
    flux_scale: float,
    origin: tuple[int, int] = (0, 0),
    kernel: Kernel = "lanczos3",
    oversampling: int | None = None,
) -> Mesh | None:
    """Compute the mesh of one CCD; None where the CCD does not touch the grid.

    `shape` is (ny, nx) of the CCD's light-sensitive part, `origin` the zero-based pixel (x, y) of the WCS's grid at
    which that part begins. `oversampling`: samples per output pixel and axis; None: one, or as many as the output pixel
    is large in input pixels where that is more than `OVERSAMPLE_FROM`.
    """
    ny, nx = shape
    mapping = _Mapping(grid, wcs, origin)
    window = _window(mapping, nx, ny)
    if window is None:
        return None
    step = NODE_STEP
    while True:
        x0, y0, x, y = _positions(mapping, window, step)
        if step <= MIN_NODE_STEP or _bends_little(mapping, (x0, y0, step), x, y, shape):
            break
        step //= 2
    area = _area(x, y, step)
    side = float(np.sqrt(np.nanmedian(area)))
    if oversampling is None:
        oversampling = 1 if not side >= OVERSAMPLE_FROM else int(np.ceil(side))
    return Mesh(
        x0=x0,
        y0=y0,
        step=step,
        nodes=np.stack([x, y, area * flux_scale]),
        window=window,
        shape=shape,
        flux_scale=flux_scale,
        kernel=kernel,
        oversample=oversampling,
        turned=_along_columns(x, y),
    )


def _positions(mapping: _Mapping, window: Box, step: int) -> tuple[int, int, Floats, Floats]:
    """Exact positions at nodes that enclose the window: origin of the nodes, x, y.

    Nodes stand at multiples of `step` of the whole output image, so that a result does not depend on the tiles in which the
    image is made.
    """
    x0, y0 = window[0] // step * step - step, window[2] // step * step - step
    columns = np.arange(x0, window[1] + 2 * step, step, dtype=np.float64)
    rows = np.arange(y0, window[3] + 2 * step, step, dtype=np.float64)
    return x0, y0, *mapping.on_nodes(columns, rows)


def _area(x: Floats, y: Floats, step: int) -> Floats:
    """Area of output pixels in input pixels at the nodes, from the differences between nodes."""
    x_along, x_across = np.gradient(x, step, axis=1, edge_order=2), np.gradient(x, step, axis=0, edge_order=2)
    y_along, y_across = np.gradient(y, step, axis=1, edge_order=2), np.gradient(y, step, axis=0, edge_order=2)
    area: Floats = np.abs(x_along * y_across - x_across * y_along)
    return area


def _along_columns(x: Floats, y: Floats) -> bool:
    """Whether a step along an output row is rather one from row to row on the CCD."""
    in_x, in_y = (float(np.nanmedian(np.abs(np.diff(plane, axis=1)))) for plane in (x, y))
    return in_y > in_x


def _bends_little(
    mapping: _Mapping,
    place: tuple[int, int, int],
    x: Floats,
    y: Floats,
    shape: tuple[int, int],
) -> bool:
    """Whether bilinear positions are good everywhere on the CCD.

    By the second differences of all nodes (in the middle of a cell the error is an eighth of their sum), and, for mappings
    that are not smooth, against the exact mapping in the middle of some cells.
    """
    x0, y0, step = place
    ny, nx = shape
    near = (x > -step) & (x < nx + step) & (y > -step) & (y < ny + step)
    bend = np.zeros(x.shape)
    for axis in (0, 1):
        bend[(slice(1, -1), slice(None))[:: 1 - 2 * axis]] += 0.125 * np.hypot(
            np.diff(x, 2, axis=axis), np.diff(y, 2, axis=axis)
        )
    if float(np.nanmax(bend[near], initial=0.0)) > MAX_POSITION_ERROR_PX:
        return False
    j, i = (np.unique(np.linspace(0, n - 2, _CHECKED_CELLS).astype(int)) + 0.5 for n in x.shape)
    found_x, found_y = _between(x, i, j), _between(y, i, j)
    out_x, out_y = mapping.to_output(found_x, found_y)
    # How far that is in input pixels, at most.
    side = (
        max(float(np.nanmax(np.abs(np.diff(plane, axis=axis)))) for plane in (x, y) for axis in (0, 1)) / step
    )
    errors = np.hypot(out_x - (x0 + step * i), out_y - (y0 + step * j)[:, None]) * (side * np.sqrt(2.0))
    inside = (found_x > -step) & (found_x < nx + step) & (found_y > -step) & (found_y < ny + step)
    return float(np.nanmax(errors[inside], initial=0.0)) <= MAX_POSITION_ERROR_PX
