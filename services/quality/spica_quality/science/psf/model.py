"""The point spread function of a CCD: samples finer than the pixels, each a polynomial of the position.

The model is what a pixel sees of a star of flux 1 whose centre lies (dx, dy) px away from the pixel's
centre; the pixel's own width is in it. It is a quintic spline on a grid of m × m points, `step_px` apart, with the
star's centre on the middle one (see psfbasis). A cube or grid holds the spline's coefficients: linear operations
(sums, convolutions) act on them as on values, but values at the points are what `render` gives with step 1.

For kernels of others, the same as plain arrays, all of it compiled (no Python objects):

    cube, degree, zero, scale, step = model.arrays()    # float32 (n_coef, m, m), int, 2-tuple, 2-tuple, float
    grid = np.empty((m, m), np.float32)
    expand(cube, degree, (x - zero[0]) / scale[0], (y - zero[1]) / scale[1], grid)   # the model at x, y; sums to 1
    stamp = np.empty((k, k), np.float32)                # k odd
    render(grid, step, dx, dy, stamp)                   # star at (k // 2 + dx, k // 2 + dy) of the stamp
    render_gradient(grid, step, dx, dy, stamp, d_dx, d_dy)   # the same, and its derivatives by dx and dy

x and y are zero-based pixels of the frame. `expand` depends smoothly on the position: once per source is enough,
`render` as often as its centre moves. Pixels beyond the grid are 0: the stamp may be of any size, also
smaller than the model (`model.reach_px` is how far it goes).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit
from spica_quality.science.psf.basis import n_terms, powers, spline_row

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Pair = tuple[float, float]


@dataclass(frozen=True, slots=True)
class PsfModel:
    """A point spread function that varies over the frame."""

    cube: Pixels
    """Spline coefficients of the polynomials' terms, shape (n_coef, m, m), m odd. The sum of the first is 1, that of
    the others 0."""
    degree: int
    """Of the polynomials in x and y together, 0 to 3."""
    zero: Pair
    """(x, y) of the polynomials' origin, zero-based pixels."""
    scale: Pair
    """Pixels per unit of the polynomials' variables."""
    step_px: float
    """Distance between the grid's points."""
    fwhm_px: float
    """Of the profile in the middle of the frame, with the pixel's own width in it."""
    n_candidates: int = 0
    n_stars: int = 0
    """Stars that the model rests on."""
    chi2: float = float("nan")
    """Per degree of freedom, over the pixels of these stars."""

    @property
    def reach_px(self) -> float:
        """How far from the centre the samples go, px."""
        return (self.cube.shape[1] // 2) * self.step_px

    @property
    def full_size(self) -> int:
        """Side of the stamp that holds all of the model, px; odd."""
        return 2 * int(np.ceil(self.reach_px + 1.0)) + 1

    def arrays(self) -> tuple[Pixels, int, Pair, Pair, float]:
        """(cube, degree, zero, scale, step_px): what the kernels take."""
        return self.cube, self.degree, self.zero, self.scale, self.step_px

    def grid(self, x: float, y: float) -> Pixels:
        """Coefficients at a position, shape (m, m), summing to 1."""
        grid = np.empty(self.cube.shape[1:], dtype=np.float32)
        u, v = (x - self.zero[0]) / self.scale[0], (y - self.zero[1]) / self.scale[1]
        expand(self.cube, self.degree, u, v, grid)
        return grid

    def samples(self, x: float, y: float) -> Pixels:
        """What pixels `step_px` apart see at a position, shape (m, m), summing to 1."""
        values = np.empty(self.cube.shape[1:], dtype=np.float32)
        render(self.grid(x, y), 1.0, 0.0, 0.0, values)
        return values

    def at(self, x: float, y: float, size: int | None = None) -> Pixels:
        """A star of flux 1 at (x, y), as pixels of the frame, shape (size, size), size odd.

        The middle pixel is the one whose centre is nearest to (x, y); the star is off its centre by what is left.
        """
        stamp = np.empty((size or self.full_size,) * 2, dtype=np.float32)
        render(self.grid(x, y), self.step_px, x - np.floor(x + 0.5), y - np.floor(y + 0.5), stamp)
        return stamp

    def noise_area(self, x: float, y: float) -> float:
        """1 / sum of psf² over the pixels, px²: the area over which an optimal measurement collects noise."""
        stamp = self.at(float(np.floor(x)), float(np.floor(y))).astype(np.float64)
        return float(np.sum(stamp) ** 2 / np.sum(stamp**2))


@jit
def expand(cube: Pixels, degree: int, u: float, v: float, grid: Pixels) -> None:
    """The coefficients at scaled position (u, v), into `grid` of shape (m, m); normalised to a sum of 1.

    `cube`, shape (n_coef, m, m), has its terms in PSFEx's order: 1, u, u², …, v, uv, …, v².
    """
    n_coef, m, _ = cube.shape
    terms = np.empty(n_coef)
    powers(degree, u, v, terms)
    total = 0.0
    for j in range(m):
        for i in range(m):
            grid[j, i] = cube[0, j, i]
        for c in range(1, n_coef):
            t = np.float32(terms[c])
            for i in range(m):
                grid[j, i] += t * cube[c, j, i]
        for i in range(m):
            total += grid[j, i]
    factor = np.float32(1.0 / total)
    for j in range(m):
        for i in range(m):
            grid[j, i] *= factor


@jit
def render(grid: Pixels, step: float, dx: float, dy: float, stamp: Pixels) -> None:
    """Pixels of a star of flux 1 at (kx // 2 + dx, ky // 2 + dy) of `stamp`, shape (ky, kx); grid (m, m)."""
    ky, kx = stamp.shape
    m = grid.shape[0]
    weight = np.empty((kx, 6), np.float32)
    slope = np.empty(6, np.float32)
    first = np.empty(kx, np.int64)
    for i in range(kx):
        first[i] = spline_row((i - kx // 2 - dx) / step + m // 2, m, weight[i], slope)
    row = np.empty(6, np.float32)
    line = np.empty(m, np.float32)
    density = 1.0 / (step * step)
    for j in range(ky):
        top = spline_row((j - ky // 2 - dy) / step + m // 2, m, row, slope)
        line[:] = 0.0
        for q in range(6):
            w = np.float32(row[q] * density)
            for i in range(m):
                line[i] += w * grid[top + q, i]
        for i in range(kx):
            value = np.float32(0.0)
            for q in range(6):
                value += weight[i, q] * line[first[i] + q]
            stamp[j, i] = value


@jit
def render_gradient(
    grid: Pixels, step: float, dx: float, dy: float, stamp: Pixels, d_dx: Pixels, d_dy: Pixels
) -> None:
    """As `render`; also the derivatives of the pixels by dx and by dy, same shape."""
    ky, kx = stamp.shape
    m = grid.shape[0]
    weight = np.empty((kx, 6), np.float32)
    slope = np.empty((kx, 6), np.float32)
    first = np.empty(kx, np.int64)
    for i in range(kx):
        first[i] = spline_row((i - kx // 2 - dx) / step + m // 2, m, weight[i], slope[i])
    row = np.empty(6, np.float32)
    row_slope = np.empty(6, np.float32)
    line = np.empty(m, np.float32)
    line_slope = np.empty(m, np.float32)
    density = 1.0 / (step * step)
    along = np.float32(-1.0 / step)
    for j in range(ky):
        top = spline_row((j - ky // 2 - dy) / step + m // 2, m, row, row_slope)
        line[:] = 0.0
        line_slope[:] = 0.0
        for q in range(6):
            w, s = np.float32(row[q] * density), np.float32(row_slope[q] * density)
            for i in range(m):
                line[i] += w * grid[top + q, i]
                line_slope[i] += s * grid[top + q, i]
        for i in range(kx):
            value, by_x, by_y = np.float32(0.0), np.float32(0.0), np.float32(0.0)
            for q in range(6):
                value += weight[i, q] * line[first[i] + q]
                by_x += slope[i, q] * line[first[i] + q]
                by_y += weight[i, q] * line_slope[first[i] + q]
            stamp[j, i] = value
            d_dx[j, i] = along * by_x
            d_dy[j, i] = along * by_y


def check_cube(cube: Pixels, degree: int) -> None:
    """Raise ValueError where the cube is not one of this degree."""
    if cube.ndim != 3 or cube.shape[0] != n_terms(degree) or cube.shape[1] != cube.shape[2]:
        raise ValueError(
            f"a model of degree {degree} has {n_terms(degree)} square planes; found an array of shape {cube.shape}"
        )
