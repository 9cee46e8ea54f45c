"""The six taps of Lanczos-3 interpolation, as polynomials of the position between two pixels.

Lanczos-3 (Duchon 1979, J. Appl. Meteor. 18, 1016): L(x) = sinc(x) sinc(x/3) for |x| < 3. Taken as
it is, its taps do not even keep a constant (they sum to 1 ± 0.6 %); divided by their sum, they still
move a slope sideways by up to 0.02 pixel, and fluxes of well sampled stars ripple by 0.5 % where the
output scale beats with the input's (see Bernstein & Gruen 2014, PASP 126, 287, section 4). The taps
used here are the closest ones (least squares) that reproduce polynomials up to the third degree.
What remains of ripple for a Gaussian of FWHM 4 pixels is 0.13 % at worst, and an undersampled star
fares no worse than before: the response at high frequencies stays that of Lanczos-3.

The taps are smooth in the fraction f between two pixels, and tap k at f equals tap 5-k at 1-f. With
t = f - 1/2, tap k is E(t²) + t O(t²) and tap 5-k is E(t²) - t O(t²): three pairs of polynomials
with five coefficients each, fitted on Chebyshev nodes, follow them to 1e-8, without any sine.

All kernels of the resampling stand in this one file: numba's cache notices a change of the file in
which a kernel stands, not of files from which it calls others.
"""

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from spica_stack.science._jit import kernel, parallel_kernel

Image = NDArray[np.float32]
Floats = NDArray[np.float64]

TOLERATED_BAD_SHARE = np.float32(0.05)
"""A sample this close (bilinear share) to an unusable pixel still counts; beyond it has no weight."""

F_ZERO, F_ONE = np.float32(0.0), np.float32(1.0)
ONE, TWO, THREE, FOUR, FIVE = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4), np.uint64(5)


def _coefficients(*values: float) -> tuple[np.float32, ...]:
    return tuple(np.float32(value) for value in values)


_E0 = _coefficients(0.0237825759, -0.101136092, 0.0187333574, 0.0231687789, -0.00803908456)
_O0 = _coefficients(-0.0221933744, 0.105520753, -0.0712594126, 0.0177323641, -0.00260325038)
_E1 = _coefficients(-0.133847728, 0.553408277, -0.0562000723, -0.0695063367, 0.0241172537)
_O1 = _coefficients(0.152633539, -0.694270429, 0.356297063, -0.0886618203, 0.0130162519)
_E2 = _coefficients(0.610065152, -0.452272185, 0.0374667148, 0.0463375578, -0.0160781691)
_O2 = _coefficients(-1.34693374, 1.55520753, -0.712594126, 0.177323641, -0.0260325038)

HALF = np.float32(0.5)


@kernel
def _horner(c: tuple[np.float32, ...], u: np.float32) -> np.float32:
    return c[0] + u * (c[1] + u * (c[2] + u * (c[3] + u * c[4])))


@kernel
def taps(
    fraction: np.float32,
) -> tuple[np.float32, np.float32, np.float32, np.float32, np.float32, np.float32]:
    """Weights of the pixels at -2, -1, 0, 1, 2, 3 from the one at or before the position; float32.

    `fraction` is the distance to that pixel's centre, in [0, 1].
    """
    t = fraction - HALF
    u = t * t
    e0, o0 = _horner(_E0, u), t * _horner(_O0, u)
    e1, o1 = _horner(_E1, u), t * _horner(_O1, u)
    e2, o2 = _horner(_E2, u), t * _horner(_O2, u)
    return e0 + o0, e1 + o1, e2 + o2, e2 - o2, e1 - o1, e0 - o0


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
def resample_rows(
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
    """Write samples with weight into the tile. See `resample.resample_into`. `nodes`: (3, n_y, n_x) x, y, scale."""
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
                    # Variance of the flux: scale² / area = flux_scale² × area, see `resample.resample_into`.
                    final = here * weight_factor / scale
                    place = column - tile_origin[0]
                    if final > row_weight[place]:
                        row_value[place] = value * scale
                        row_weight[place] = final
