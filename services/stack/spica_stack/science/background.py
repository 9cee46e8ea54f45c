"""The sky under a CCD: its level on a mesh, seen between the stars, and the smooth surface through it.

How boxes are measured is told in `spica_imaging.skyboxes`: as source-extractor and SWarp do it. Here the pixels come in
bands of rows, one band per row of boxes, so that no CCD has to be in memory; and the surface is evaluated for any
part of it, with the same bits as the same pixels of the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from spica_imaging.meshspline import bend_of, smoothed, spline_part
from spica_imaging.skyboxes import LEAST_SHARE, measure_boxes

from spica_stack.science._jit import jit
from spica_stack.science.pixels import Image

Floats = NDArray[np.float64]
Edges = NDArray[np.int64]

LEAST_BOX_PX = 16
LEAST_BOXES = 4
"""A side: a small frame must not have its sky taken from one value."""

MOST_DEGREE = 4
"""Of the trend that is taken off the mesh while it is filtered."""

_FULL, _HALF = 0.9, 0.5
_REWEIGHTINGS = 8


@dataclass(frozen=True, slots=True)
class Background:
    """Level of the sky in adu, a bicubic spline through a mesh."""

    level: Image
    """Filled and filtered, shape (my, mx): at the centres of boxes that divide the frame evenly."""
    shape: tuple[int, int]
    """(ny, nx) of the frame."""
    bend: Floats
    """Second derivatives along y at the mesh's nodes."""

    @classmethod
    def through(cls, level: Image, shape: tuple[int, int]) -> Background:
        """The surface through a mesh."""
        return cls(level, shape, bend_of(level))

    @property
    def typical(self) -> float:
        """Median level."""
        return float(np.median(self.level))

    def rows(self, y0: int, y1: int, x0: int = 0, x1: int | None = None) -> Image:
        """Level of a box of pixels, shape (y1 - y0, x1 - x0)."""
        out = np.empty((y1 - y0, (self.shape[1] if x1 is None else x1) - x0), np.float32)
        _level_rows(self.level, self.bend, self.shape, y0, x0, out)
        return out


def box_edges(shape: tuple[int, int], mesh_px: int) -> tuple[Edges, Edges]:
    """Edges of the boxes along y and x: of about `mesh_px`, smaller on small frames."""
    side = int(np.clip(min(shape) // LEAST_BOXES, LEAST_BOX_PX, max(mesh_px, LEAST_BOX_PX)))
    edges = [np.rint(np.linspace(0, n, max(1, round(n / side)) + 1)).astype(np.int64) for n in shape]
    return edges[0], edges[1]


class BoxMeter:
    """Measures the boxes of a frame, one row of them at a time."""

    def __init__(self, edges_y: Edges, edges_x: Edges, least_share: float = LEAST_SHARE) -> None:
        """Take the edges of the boxes; of one's pixels `least_share` must be usable."""
        self.edges_y, self._edges_x, self._least = edges_y, edges_x, least_share
        self.level = np.full((len(edges_y) - 1, len(edges_x) - 1), np.nan, np.float32)
        """Shape (my, mx); NaN where too few pixels are usable."""
        self._noise = np.empty_like(self.level)
        height = int(np.diff(edges_y).max())
        # Pixels that are not to be used come as NaN.
        self._flags = np.zeros((height, int(edges_x[-1])), np.uint16)

    def measure(self, row: int, band: Image) -> None:
        """Measure one row of boxes. `band`: its pixels, shape (height, nx), NaN where one is not to be used."""
        rows, edges_y = slice(row, row + 1), np.array([0, len(band)])
        measure_boxes(
            band, self._flags[: len(band)], edges_y, self._edges_x, self.level[rows], self._noise[rows],
            self._least,
        )  # fmt: skip

    def background(self) -> Background | None:
        """The surface through the boxes: empty ones filled from the nearest, 3×3 median. None if all are empty.

        A median over neighbours takes the tops off waves, and the nearest box is a poor guess on a slope: both are done
        to what is left when the large-scale trend is taken off, which is put back. Any smooth trend would do.
        """
        if not np.isfinite(self.level).any():
            return None
        trend = trend_of(self.level)
        level = trend + smoothed(self.level - trend)
        return Background.through(level, (int(self.edges_y[-1]), int(self._edges_x[-1])))


def trend_of(level: Image) -> Image:
    """A polynomial surface through boxes, of which NaN ones and outliers do not count; same shape.

    Up to the fourth degree: less on coarse meshes, and none worth the name where many boxes are empty, since
    it would lead anywhere there.
    """
    known = np.isfinite(level).mean()
    most = MOST_DEGREE if known >= _FULL else 1 if known >= _HALF else 0
    degrees = min(most, (level.shape[0] - 1) // 2), min(most, (level.shape[1] - 1) // 2)
    trend = np.empty_like(level)
    _fit(level, degrees, most, trend)
    return trend


@jit
def _level_rows(level: Image, bend: Floats, shape: tuple[int, int], y0: int, x0: int, out: Image) -> None:
    mx = level.shape[1]
    work = np.empty(mx), np.empty(mx), np.empty(mx)
    for j in range(out.shape[0]):
        spline_part(level, bend, shape, y0 + j, x0, work, out[j])


@jit
def _legendre(n: int, size: int, i: int) -> float:
    """Legendre polynomial of degree n at the centre of part i of [-1, 1] cut into `size`."""
    x = (2.0 * i + 1.0) / size - 1.0
    before, now = 0.0, 1.0
    for k in range(n):
        before, now = now, ((2 * k + 1) * x * now - k * before) / (k + 1)
    return now


@jit
def _fit(level: Image, degrees: tuple[int, int], most: int, trend: Image) -> None:
    """Fit a polynomial by least squares, reweighted so that outliers pull like their sign only (Huber)."""
    ny, nx = level.shape
    basis = np.empty(((most + 1) * (most + 1), ny * nx))
    n = 0
    for a in range(degrees[0] + 1):
        for b in range(min(degrees[1], most - a) + 1):
            for j in range(ny):
                for i in range(nx):
                    basis[n, j * nx + i] = _legendre(a, ny, j) * _legendre(b, nx, i)
            n += 1
    basis = basis[:n]
    flat = level.astype(np.float64).ravel()
    weight = np.where(np.isfinite(flat), 1.0, 0.0)
    values = np.where(np.isfinite(flat), flat, 0.0)
    found, residual = np.zeros(n), np.empty(ny * nx)
    for _ in range(_REWEIGHTINGS):
        _solve(basis, values, weight, found)
        for k in range(ny * nx):
            model = 0.0
            for m in range(n):
                model += found[m] * basis[m, k]
            trend[k // nx, k % nx] = model
            residual[k] = abs(values[k] - model)
        usual = np.median(residual[weight > 0.0])
        for k in range(ny * nx):
            if weight[k] > 0.0:
                weight[k] = 1.0 if residual[k] <= usual else usual / residual[k]
        if not usual > 0.0:
            break


@jit
def _solve(basis: Floats, values: Floats, weight: Floats, found: Floats) -> None:
    """Weighted least squares by normal equations and their Cholesky factors; the basis is nearly orthogonal."""
    n = found.size
    factor = np.zeros((n, n))
    for a in range(n):
        found[a] = 0.0
        for k in range(values.size):
            found[a] += weight[k] * basis[a, k] * values[k]
        for b in range(a + 1):
            for k in range(values.size):
                factor[a, b] += weight[k] * basis[a, k] * basis[b, k]
    _factorise(factor, 1e-9 * values.size)
    for a in range(n):
        for k in range(a):
            found[a] -= factor[a, k] * found[k]
        found[a] /= factor[a, a]
    for a in range(n - 1, -1, -1):
        for k in range(a + 1, n):
            found[a] -= factor[k, a] * found[k]
        found[a] /= factor[a, a]


@jit
def _factorise(matrix: Floats, least: float) -> None:
    """Cholesky factor of a symmetric matrix, in its lower half; terms that cannot be told from others are left out."""
    for a in range(matrix.shape[0]):
        for b in range(a + 1):
            total = matrix[a, b]
            for k in range(b):
                total -= matrix[a, k] * matrix[b, k]
            matrix[a, b] = total / matrix[b, b] if b < a else np.sqrt(total) if total > least else np.inf
