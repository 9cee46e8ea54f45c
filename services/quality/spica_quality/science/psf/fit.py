"""The linear problem behind the model of the point spread function, and its solution.

Star s, of flux f_s at sub-pixel offset d_s, is seen as f_s Y_s (sum over c of phi_c(x_s, y_s) B_c) X_s^T: B_c are the
spline coefficients of term c, phi_c the polynomials of the position, Y_s and X_s the B-splines at the pixels.
Wanted are the B that minimise

    sum over stars and pixels of w (data - model)²  +  sum over samples of (B - B0)² / tau²,

B0 being a smooth profile and tau how far the real one may be expected to differ from it: both of the splines' values
at the grid's points, which are the unknowns, rather than their coefficients. With B = B0 + tau z this
is a well conditioned system, which conjugate gradients solve in some ten steps without its matrix ever
being built: one step goes once through the stars' pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit
from spica_quality.science.psf.basis import TAPS, coefficients, spline_row, to_coefficients

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(slots=True)
class Taps:
    """B-splines at all stars' pixel rows and columns."""

    x: Pixels
    """Shape (n, k, 6)."""
    x_first: NDArray[np.int32]
    """First sample of each six, shape (n, k)."""
    y: Pixels
    y_first: NDArray[np.int32]


@jit
def _all_taps(offset: Floats, k: int, m: int, step: float, weight: Pixels, first: NDArray[np.int32]) -> None:
    slope = np.empty(6, np.float32)
    for s in range(offset.size):
        for i in range(k):
            first[s, i] = spline_row((i - k // 2 - offset[s]) / step + m // 2, m, weight[s, i], slope)
            for q in range(6):
                weight[s, i, q] /= np.float32(step)


def make_taps(dx: Floats, dy: Floats, k: int, m: int, step: float) -> Taps:
    """Weights for stars at (dx, dy) from the middle of stamps of k × k pixels, from m × m samples `step` px apart."""
    n = len(dx)
    taps = Taps(
        np.empty((n, k, TAPS), np.float32),
        np.empty((n, k), np.int32),
        np.empty((n, k, TAPS), np.float32),
        np.empty((n, k), np.int32),
    )
    _all_taps(dx, k, m, step, taps.x, taps.x_first)
    _all_taps(dy, k, m, step, taps.y, taps.y_first)
    return taps


@jit
def _to_pixels(
    grid: Pixels, x: Pixels, x_first: NDArray[np.int32], y: Pixels, y_first: NDArray[np.int32], line: Pixels,
    stamp: Pixels,
) -> None:  # fmt: skip
    """Stamp = Y grid X^T."""
    k = stamp.shape[0]
    m = grid.shape[0]
    for j in range(k):
        top = y_first[j]
        w0, w1, w2, w3, w4, w5 = y[j, 0], y[j, 1], y[j, 2], y[j, 3], y[j, 4], y[j, 5]
        for i in range(m):
            line[i] = (
                w0 * grid[top, i] + w1 * grid[top + 1, i] + w2 * grid[top + 2, i]
                + w3 * grid[top + 3, i] + w4 * grid[top + 4, i] + w5 * grid[top + 5, i]
            )  # fmt: skip
        for i in range(k):
            f = x_first[i]
            stamp[j, i] = (
                x[i, 0] * line[f] + x[i, 1] * line[f + 1] + x[i, 2] * line[f + 2]
                + x[i, 3] * line[f + 3] + x[i, 4] * line[f + 4] + x[i, 5] * line[f + 5]
            )  # fmt: skip


@jit
def _to_samples(
    stamp: Pixels, x: Pixels, x_first: NDArray[np.int32], y: Pixels, y_first: NDArray[np.int32], line: Pixels,
    grid: Pixels,
) -> None:  # fmt: skip
    """Grid = Y^T stamp X, the transpose of `_to_pixels`."""
    k = stamp.shape[0]
    m = grid.shape[0]
    grid[:] = 0.0
    for j in range(k):
        line[:] = 0.0
        for i in range(k):
            f, value = x_first[i], stamp[j, i]
            line[f] += x[i, 0] * value
            line[f + 1] += x[i, 1] * value
            line[f + 2] += x[i, 2] * value
            line[f + 3] += x[i, 3] * value
            line[f + 4] += x[i, 4] * value
            line[f + 5] += x[i, 5] * value
        top = y_first[j]
        for q in range(6):
            w = y[j, q]
            for i in range(m):
                grid[top + q, i] += w * line[i]


@jit
def apply_normal(
    cube: Pixels, terms: Pixels, flux: Pixels, weight: Pixels,
    x: Pixels, x_first: NDArray[np.int32], y: Pixels, y_first: NDArray[np.int32], used: NDArray[np.bool_],
    result: Pixels,
) -> None:  # fmt: skip
    """Result = A^T W A cube, both of shape (n_coef, m, m); terms (n, n_coef), weight (n, k, k)."""
    n, k, _ = weight.shape
    n_coef, m, _ = cube.shape
    grid, line = np.empty((m, m), np.float32), np.empty(m, np.float32)
    stamp = np.empty((k, k), np.float32)
    result[:] = 0.0
    for s in range(n):
        if not used[s]:
            continue
        for j in range(m):
            for i in range(m):
                grid[j, i] = terms[s, 0] * cube[0, j, i]
            for c in range(1, n_coef):
                t = terms[s, c]
                for i in range(m):
                    grid[j, i] += t * cube[c, j, i]
        _to_pixels(grid, x[s], x_first[s], y[s], y_first[s], line, stamp)
        f2 = flux[s] * flux[s]
        for j in range(k):
            for i in range(k):
                stamp[j, i] *= f2 * weight[s, j, i]
        _to_samples(stamp, x[s], x_first[s], y[s], y_first[s], line, grid)
        for j in range(m):
            for c in range(n_coef):
                t = terms[s, c]
                for i in range(m):
                    result[c, j, i] += t * grid[j, i]


@jit
def gradient(
    cube: Pixels, terms: Pixels, flux: Pixels, weight: Pixels, data: Pixels,
    x: Pixels, x_first: NDArray[np.int32], y: Pixels, y_first: NDArray[np.int32], used: NDArray[np.bool_],
    result: Pixels,
) -> None:  # fmt: skip
    """Result = A^T W (data - A cube), shape (n_coef, m, m); data (n, k, k)."""
    n, k, _ = weight.shape
    n_coef, m, _ = cube.shape
    grid, line = np.empty((m, m), np.float32), np.empty(m, np.float32)
    stamp = np.empty((k, k), np.float32)
    result[:] = 0.0
    for s in range(n):
        if not used[s]:
            continue
        for j in range(m):
            for i in range(m):
                grid[j, i] = terms[s, 0] * cube[0, j, i]
            for c in range(1, n_coef):
                t = terms[s, c]
                for i in range(m):
                    grid[j, i] += t * cube[c, j, i]
        _to_pixels(grid, x[s], x_first[s], y[s], y_first[s], line, stamp)
        for j in range(k):
            for i in range(k):
                stamp[j, i] = flux[s] * weight[s, j, i] * (data[s, j, i] - flux[s] * stamp[j, i])
        _to_samples(stamp, x[s], x_first[s], y[s], y_first[s], line, grid)
        for j in range(m):
            for c in range(n_coef):
                t = terms[s, c]
                for i in range(m):
                    result[c, j, i] += t * grid[j, i]


@jit
def information(
    terms: Pixels, flux: Pixels, weight: Pixels,
    x: Pixels, x_first: NDArray[np.int32], y: Pixels, y_first: NDArray[np.int32], used: NDArray[np.bool_],
    result: Pixels,
) -> None:  # fmt: skip
    """Weight of the pixels at each point, times flux² and the terms' squares; shape (n_coef, m, m)."""
    n = weight.shape[0]
    n_coef, m, _ = result.shape
    grid, line = np.empty((m, m), np.float32), np.empty(m, np.float32)
    result[:] = 0.0
    for s in range(n):
        if not used[s]:
            continue
        _to_samples(weight[s], x[s], x_first[s], y[s], y_first[s], line, grid)
        f2 = flux[s] * flux[s]
        for j in range(m):
            for c in range(n_coef):
                t = f2 * terms[s, c] * terms[s, c]
                for i in range(m):
                    result[c, j, i] += t * grid[j, i]


@dataclass(slots=True)
class Problem:
    """n stars and their part in the fit; shapes as in the kernels."""

    data: Pixels
    weight: Pixels
    """1/adu²; 0 where a pixel has no say."""
    flux: Pixels
    terms: Pixels
    """Polynomials at the stars' positions, shape (n, n_coef)."""
    taps: Taps
    used: NDArray[np.bool_]
    step_px: float

    def apply(self, values: Pixels) -> Pixels:
        """N values, N being the matrix of the normal equations."""
        result = np.empty_like(values)
        t = self.taps
        apply_normal(
            coefficients(values), self.terms, self.flux, self.weight, t.x, t.x_first, t.y, t.y_first, self.used,
            result,
        )  # fmt: skip
        return self._back(result)

    def gradient(self, values: Pixels) -> Pixels:
        """What is left of the right-hand side at these values."""
        result = np.empty_like(values)
        t = self.taps
        gradient(
            coefficients(values), self.terms, self.flux, self.weight, self.data, t.x, t.x_first, t.y, t.y_first,
            self.used, result,
        )  # fmt: skip
        return self._back(result)

    def diagonal(self, m: int) -> Pixels:
        """Diagonal of N, nearly: splines through one value and through zeros elsewhere are as good as sharp."""
        result = np.empty((self.terms.shape[1], m, m), np.float32)
        t = self.taps
        information(self.terms, self.flux, self.weight, t.x, t.x_first, t.y, t.y_first, self.used, result)
        return np.asarray(result / np.float32(self.step_px**2))

    @staticmethod
    def _back(gradient: Pixels) -> Pixels:
        """From derivatives by coefficients to those by values."""
        matrix = to_coefficients(gradient.shape[-1])
        return np.asarray(matrix.T @ gradient @ matrix)


def solve(
    problem: Problem, prior: Pixels, tau: Pixels, start: Pixels, steps: int = 15, tolerance: float = 2e-3
) -> tuple[Pixels, Pixels]:
    """The values that fit the stars and do not stray from `prior` by more than some `tau` without need.

    Args:
        problem: the stars.
        prior: expected cube, shape (n_coef, m, m).
        tau: standard deviation of the truth about it, same shape, positive.
        start: cube to begin with.
        steps: most steps of conjugate gradients.
        tolerance: of the residual of the normal equations, relative to that of the prior.

    Returns:
        The cube, and how much the stars say about each of its values (diagonal of A^T W A), both (n_coef, m, m).

    """
    known = problem.diagonal(prior.shape[1])
    scale = (1.0 + tau * tau * known).astype(np.float32)  # diagonal of the system: preconditions it
    z = ((start - prior) / tau).astype(np.float32)
    residual = tau * problem.gradient(start) - z
    at_prior = residual if start is prior else tau * problem.gradient(prior)
    goal = tolerance**2 * float(np.sum(at_prior * at_prior / scale, dtype=np.float64))
    ahead = residual / scale
    rho = float(np.sum(residual * ahead, dtype=np.float64))
    direction = ahead.copy()
    for _ in range(steps):
        if not rho > goal:
            break
        image = direction + tau * problem.apply(tau * direction)
        alpha = np.float32(rho / float(np.sum(direction * image, dtype=np.float64)))
        z += alpha * direction
        residual -= alpha * image
        ahead = residual / scale
        previous, rho = rho, float(np.sum(residual * ahead, dtype=np.float64))
        direction = ahead + np.float32(rho / previous) * direction
    return (prior + tau * z).astype(np.float32), known
