"""How many exposures cover each part of an output grid, before any pixel is made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spica_stack.science.choosing.table import Footprints
from spica_stack.science.grid import Grid

Floats = NDArray[np.float64]

MAX_CELLS = 192
"""Along the longer side of the grid."""
_MOST_ROWS = 400_000
"""Rows of cells in all CCDs together: with very many exposures cells are larger, so that the map stays quick."""


@dataclass(frozen=True)
class Coverage:
    """Sums over exposures in square cells of the grid; row 0 is at its lower edge.

    CCDs of one exposure are taken not to overlap.
    """

    cell_px: float
    """Side of a cell in output pixels."""
    outlines_px: Floats
    """Corners of all CCDs on the grid, (n, 4, 2): x and y as FITS counts them; NaN where the projection does not reach."""
    owner: NDArray[np.int64]
    """Which exposure each CCD is of."""
    exposures: NDArray[np.int32]
    """How many exposures hold each cell's middle. Shape: (ny, nx)."""
    sums: tuple[Floats, ...]
    """Of each quantity of the exposures that do."""

    @property
    def covered(self) -> NDArray[np.bool_]:
        """Cells with any exposure."""
        return np.asarray(self.exposures > 0)


def cover(grid: Grid, footprints: Footprints, *quantities: Floats) -> Coverage:
    """Count exposures, and add up quantities of them (one value each), cell by cell.

    A cell counts as covered by a CCD whose corners, joined by straight lines on the grid, hold its middle.
    """
    x, y = grid.sky_to_pixel(footprints.corners_deg[..., 0], footprints.corners_deg[..., 1])
    outlines = np.stack([x, y], axis=-1)
    on_grid = np.isfinite(outlines).all(axis=(1, 2))
    heights = np.ptp(y[on_grid], axis=1) if on_grid.any() else np.zeros(1)
    longest = max(grid.width, grid.height)
    # Not finer than pixels, and not so fine that it takes long.
    cell = max(1.0, longest / MAX_CELLS, float(np.minimum(heights, grid.height).sum()) / _MOST_ROWS)
    nx, ny = int(np.ceil(grid.width / cell)), int(np.ceil(grid.height / cell))
    rows, first, last, quad = _spans((outlines[on_grid] - 0.5) / cell, nx, ny)
    owner = footprints.owner[on_grid][quad]
    weights = [np.ones(len(rows)), *(quantity[owner] for quantity in quantities)]
    maps = [_filled(rows, first, last, weight, nx, ny) for weight in weights]
    return Coverage(cell, outlines, footprints.owner, np.rint(maps[0]).astype(np.int32), tuple(maps[1:]))


def _spans(quads: Floats, nx: int, ny: int) -> tuple[NDArray[np.int64], ...]:
    """Rows of cells in convex quadrilaterals (n, 4, 2): row, first cell, one after the last, and which quadrilateral."""
    low = np.clip(np.ceil(quads[..., 1].min(axis=1, initial=np.inf) - 0.5), 0, ny).astype(np.int64)
    high = np.clip(np.ceil(quads[..., 1].max(axis=1, initial=-np.inf) - 0.5), 0, ny).astype(np.int64)
    count = np.maximum(high - low, 0)
    quad = np.repeat(np.arange(len(quads)), count)
    row = np.arange(len(quad)) - np.repeat(np.cumsum(count) - count, count) + low[quad]
    middle = row + 0.5
    left, right = np.full(len(row), np.inf), np.full(len(row), -np.inf)
    for number in range(4):
        (ax, ay), (bx, by) = quads[:, number].T, quads[:, (number + 1) % 4].T
        crosses = (ay[quad] > middle) != (by[quad] > middle)
        which = quad[crosses]
        share = (middle[crosses] - ay[which]) / (by[which] - ay[which])
        place = ax[which] + share * (bx[which] - ax[which])
        left[crosses] = np.minimum(left[crosses], place)
        right[crosses] = np.maximum(right[crosses], place)
    inside = left < right
    first = np.clip(np.ceil(left[inside] - 0.5), 0, nx).astype(np.int64)
    last = np.clip(np.ceil(right[inside] - 0.5), 0, nx).astype(np.int64)
    return row[inside], first, last, quad[inside]


def _filled(
    rows: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    weight: Floats,
    nx: int,
    ny: int,
) -> Floats:
    """Sum of weights over spans of cells: what begins and what ends at each, added up along the rows."""
    size = ny * (nx + 1)
    begins = np.bincount(rows * (nx + 1) + first, weight, size)
    ends = np.bincount(rows * (nx + 1) + last, weight, size)
    return np.asarray(np.cumsum((begins - ends).reshape(ny, nx + 1), axis=1)[:, :nx])
