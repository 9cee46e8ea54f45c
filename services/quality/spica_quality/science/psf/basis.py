"""What the model of the point spread function is made of: quintic B-splines and polynomials of the position.

Between the samples of a grid the model is a spline of the fifth degree: a value is a sum over six B-splines a side,
as many as Lanczos-3 takes (Bertin 2011, ADASS XX, 435), which moves a star of FWHM 4 samples to and fro by 0.008
samples and is off by 0.4 % of the peak; the spline's best approximation is right to 0.03 %. What stands on the grid
are the B-splines' coefficients, not the values at the grid's points; `coefficients` goes from these to those. Weights
and slopes are tabulated at 1/256 of a sample and interpolated linearly: the weights are right to 1e-5.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]

TAPS = 6
_PHASES = 256
_AT_POINTS = (1 / 120, 26 / 120, 66 / 120, 26 / 120, 1 / 120)


def spline_weights(phase: Floats) -> tuple[Floats, Floats]:
    """Values of the B-splines of the samples -2, -1, 0, 1, 2, 3 at positions `phase` in [0, 1], and their derivatives.

    Both of shape (n, 6). The quintic B-spline is sum (-1)^k C(6, k) max(t + 3 - k, 0)^5 / 120 over k from 0 to 6.
    """
    t = np.asarray(phase, dtype=np.float64)[:, None] - np.arange(-2, 4)[None, :]
    signed = (1.0, -6.0, 15.0, -20.0, 15.0, -6.0, 1.0)
    ramps = [np.maximum(t + 3.0 - k, 0.0) for k in range(7)]
    value = sum(c * ramp**5 for c, ramp in zip(signed, ramps, strict=True))
    slope = sum(c * ramp**4 for c, ramp in zip(signed, ramps, strict=True))
    return np.asarray(value) / 120.0, np.asarray(slope) / 24.0


@cache
def to_coefficients(m: int) -> Pixels:
    """The matrix K, shape (m, m), with which K V K^T are the coefficients of the spline through the values V."""
    splines = sum(
        np.diag(np.full(m - abs(k), value), k) for k, value in zip(range(-2, 3), _AT_POINTS, strict=True)
    )
    return np.linalg.inv(np.asarray(splines)).astype(np.float32)


def coefficients(values: Pixels) -> Pixels:
    """Coefficients whose spline goes through the values, shape (m, m) or (n, m, m); beyond them are zeros."""
    matrix = to_coefficients(values.shape[-1])
    return np.asarray(matrix @ values @ matrix.T)


_WEIGHT, _SLOPE = (
    table.astype(np.float32) for table in spline_weights(np.arange(_PHASES + 1, dtype=np.float64) / _PHASES)
)


@jit
def spline_row(position: float, m: int, weight: Pixels, slope: Pixels) -> int:
    """Weights of six of m samples for a value at `position` (in samples), and their derivatives by it.

    Returns the first of the six. Beyond the samples is zero: near an end the six lie within and those that do not
    take part have weight 0. `weight` and `slope` have shape (6,); m is at least 6.
    """
    whole = int(np.floor(position))
    first = whole - 2
    if first < -5 or first > m - 1 or not abs(position) < 1e6:
        weight[:] = 0.0
        slope[:] = 0.0
        return 0
    scaled = (position - whole) * _PHASES
    k = min(int(scaled), _PHASES - 1)
    part = np.float32(scaled - k)
    start = min(max(first, 0), m - 6)
    shift = start - first
    for q in range(6):
        source = q + shift
        if 0 <= source < 6:
            weight[q] = _WEIGHT[k, source] + part * (_WEIGHT[k + 1, source] - _WEIGHT[k, source])
            slope[q] = _SLOPE[k, source] + part * (_SLOPE[k + 1, source] - _SLOPE[k, source])
        else:
            weight[q] = 0.0
            slope[q] = 0.0
    return start


def n_terms(degree: int) -> int:
    """Number of terms of a polynomial of two variables."""
    return (degree + 1) * (degree + 2) // 2


@jit
def powers(degree: int, u: float, v: float, terms: Floats) -> None:
    """1, u, u², …, v, uv, …, v² into `terms`: the order in which PSFEx keeps them."""
    c = 0
    y = 1.0
    for b in range(degree + 1):
        x = 1.0
        for _ in range(degree + 1 - b):
            terms[c] = x * y
            x *= u
            c += 1
        y *= v


def vandermonde(degree: int, u: Floats, v: Floats) -> Floats:
    """All terms at many positions, shape (n, n_terms)."""
    return np.stack([u**a * v**b for b in range(degree + 1) for a in range(degree + 1 - b)], axis=1)
