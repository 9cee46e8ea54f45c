"""Elliptical Moffat profiles integrated over pixels, and their fit to samples of a point spread function.

A pixel sees the mean of the profile over its area. Fitted so, the width is that of the light itself: the seeing
(with the optics), not that of the seeing and the pixel.

    I(rho) = A (1 + (2^b - 1) rho²)^(-1/b),   rho² = p_xx dx² + p_yy dy² + 2 p_xy dx dy

falls to A/2 at rho = 1; b = 1/beta, so that the Gaussian is an ordinary point, b = 0 (Moffat 1969, A&A 3, 455).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]

LEAST_B, MOST_B = 1e-3, 0.9
"""1/beta: from practically Gaussian to wings that hold more light than the core."""

MOST_BETA = 50.0

# Gauss-Legendre on a pixel, with two, three and five nodes.
_NODES2 = np.array([-0.2886751345948129, 0.2886751345948129])
_WEIGHTS2 = np.array([0.5, 0.5])
_NODES = np.array([-0.3872983346207417, 0.0, 0.3872983346207417])
_WEIGHTS = np.array([5.0 / 18.0, 8.0 / 18.0, 5.0 / 18.0])
_NODES5 = np.array([-0.453089922969332, -0.2692346550528416, 0.0, 0.2692346550528416, 0.453089922969332])
_WEIGHTS5 = np.array(
    [0.1184634425280945, 0.2393143352496832, 0.2844444444444444, 0.2393143352496832, 0.1184634425280945]
)
_NARROW_PX, _WIDE_PX = 2.5, 5.0
_PARAMETERS = 7


@dataclass(frozen=True, slots=True)
class Moffat:
    """A fitted profile."""

    amplitude: float
    """At the centre, in units of the samples."""
    x: float
    """Centre, px."""
    y: float
    fwhm_px: float
    """Geometric mean of the axes, without the pixel's own width."""
    beta: float
    """50 stands for all that is as good as a Gaussian."""
    elongation: float
    """Major over minor axis, 1 or more."""
    angle_deg: float
    """Of the major axis, from +x towards +y, in (-90, 90]."""
    parameters: Floats
    """Those of the kernel: amplitude, x, y, p_xx, p_yy, p_xy, b."""
    converged: bool

    @property
    def ellipticity(self) -> float:
        """1 - b/a."""
        return 1.0 - 1.0 / self.elongation


@jit
def moffat_pixel(
    p: Floats, x: float, y: float, pixel: float, nodes: Floats, weights: Floats, slope: Floats
) -> float:
    """Mean over a pixel of side `pixel` centred at (x, y), for amplitude 1; derivatives by parameters 1 to 6."""
    b = p[6]
    power = 2.0**b
    c = power - 1.0
    c_slope = power * 0.6931471805599453
    value = 0.0
    slope[:] = 0.0
    for a in range(nodes.size):
        dy = y + nodes[a] * pixel - p[2]
        for e in range(nodes.size):
            dx = x + nodes[e] * pixel - p[1]
            rho2 = p[3] * dx * dx + p[4] * dy * dy + 2.0 * p[5] * dx * dy
            q = 1.0 + c * rho2
            log_q = np.log(q)
            part = weights[a] * weights[e] * np.exp(-log_q / b)
            value += part
            by_rho2 = -part * c / (b * q)
            slope[1] -= by_rho2 * 2.0 * (p[3] * dx + p[5] * dy)
            slope[2] -= by_rho2 * 2.0 * (p[4] * dy + p[5] * dx)
            slope[3] += by_rho2 * dx * dx
            slope[4] += by_rho2 * dy * dy
            slope[5] += by_rho2 * 2.0 * dx * dy
            slope[6] += part * (log_q / (b * b) - rho2 * c_slope / (b * q))
    return value


@jit
def _normal_equations(
    samples: Pixels, weight: Pixels, step: float, pixel: float, nodes: Floats, weights: Floats, p: Floats,
    matrix: Floats, vector: Floats,
) -> float:  # fmt: skip
    """Matrix and right-hand side of the linearised fit; returns the sum of w residual²."""
    m = samples.shape[0]
    slope = np.empty(_PARAMETERS)
    matrix[:] = 0.0
    vector[:] = 0.0
    total = 0.0
    for j in range(m):
        for i in range(m):
            w = float(weight[j, i])
            if not w > 0.0:
                continue
            value = moffat_pixel(p, (i - m // 2) * step, (j - m // 2) * step, pixel, nodes, weights, slope)
            residual = samples[j, i] - p[0] * value
            total += w * residual * residual
            slope[0] = value
            for a in range(1, _PARAMETERS):
                slope[a] *= p[0]
            for a in range(_PARAMETERS):
                vector[a] += w * slope[a] * residual
                for e in range(a + 1):
                    matrix[a, e] += w * slope[a] * slope[e]
    for a in range(_PARAMETERS):
        for e in range(a):
            matrix[e, a] = matrix[a, e]
    return total


@jit
def _sound(p: Floats, reach: float) -> bool:
    """Whether these parameters describe a profile that fits into the samples."""
    if not (p[0] > 0.0 and p[3] > 0.0 and p[4] > 0.0 and p[3] * p[4] > p[5] * p[5]):
        return False
    if not (LEAST_B <= p[6] <= MOST_B):
        return False
    return (
        abs(p[1]) < reach and abs(p[2]) < reach and 1.0 / np.sqrt(p[3] * p[4] - p[5] * p[5]) < reach * reach
    )


@jit
def damped_system(
    matrix: Floats, vector: Floats, damping: float, place: int, b: float
) -> tuple[Floats, Floats]:
    """The system of one step; the exponent's parameter stays where it stands at a limit and would go beyond."""
    damped, right = matrix.copy(), vector.copy()
    if (b <= LEAST_B and vector[place] < 0.0) or (b >= MOST_B and vector[place] > 0.0):
        damped[place, :] = 0.0
        damped[:, place] = 0.0
        damped[place, place] = 1.0
        right[place] = 0.0
    for a in range(len(right)):
        damped[a, a] = damped[a, a] * (1.0 + damping) + 1e-300
    return damped, right


@jit
def _fit(
    samples: Pixels, weight: Pixels, step: float, pixel: float, nodes: Floats, weights: Floats, p: Floats,
    most: int,
) -> bool:  # fmt: skip
    """Levenberg-Marquardt from `p`, which is overwritten."""
    matrix, trial_matrix = np.empty((7, 7)), np.empty((7, 7))
    vector, trial_vector = np.empty(7), np.empty(7)
    reach = (samples.shape[0] // 2 + 1) * step
    damping = 1e-3
    cost = _normal_equations(samples, weight, step, pixel, nodes, weights, p, matrix, vector)
    for _ in range(most):
        change = np.linalg.solve(*damped_system(matrix, vector, damping, 6, p[6]))
        trial = p + change
        # The exponent stops at its limits instead of turning the whole step down.
        trial[6] = min(max(trial[6], LEAST_B), MOST_B)
        better = False
        if _sound(trial, reach):
            new = _normal_equations(
                samples, weight, step, pixel, nodes, weights, trial, trial_matrix, trial_vector
            )
            better = new <= cost
        if better:
            gained = cost - new
            p[:] = trial
            matrix[:] = trial_matrix
            vector[:] = trial_vector
            damping = max(damping * 0.1, 1e-9)
            if gained <= 1e-6 * cost:
                return True
            cost = new
        else:
            damping *= 10.0
            if damping > 1e8:
                return True
    return False


def quadrature(p: Floats, pixel_px: float) -> tuple[Floats, Floats]:
    """Nodes and weights for means over pixels: the narrower the profile, the more it bends over one."""
    if pixel_px == 0.0:
        return np.zeros(1), np.ones(1)
    narrow_px = 2.0 / np.sqrt(max(p[3], p[4])) / pixel_px
    if narrow_px > _WIDE_PX:
        return _NODES2, _WEIGHTS2
    return (_NODES, _WEIGHTS) if narrow_px > _NARROW_PX else (_NODES5, _WEIGHTS5)


def fit_moffat(
    samples: Pixels,
    step_px: float,
    start: Floats,
    weight: Pixels | None = None,
    pixel_px: float = 1.0,
    most_iterations: int = 60,
) -> Moffat:
    """Fit an elliptical Moffat profile to samples of what pixels see.

    Args:
        samples: shape (m, m), m odd: values of pixels of side `pixel_px` centred `step_px` apart.
        step_px: distance between samples.
        start: parameters to begin with, see `start_parameters`.
        weight: of each sample, same shape; None: all equal.
        pixel_px: side of a pixel; 0 fits the profile to the samples as they are.
        most_iterations: the fit is given back as it stands after so many.

    """
    p = np.array(start, dtype=np.float64)
    w = np.ones(samples.shape, np.float32) if weight is None else weight
    nodes, weights = quadrature(p, pixel_px)
    samples = np.ascontiguousarray(samples, dtype=np.float32)
    fine = bool(_fit(samples, w, step_px, pixel_px, nodes, weights, p, most_iterations))
    return described(p, fine)


def described(p: Floats, converged: bool) -> Moffat:
    """The kernel's parameters in people's words."""
    mean, half = 0.5 * (p[3] + p[4]), 0.5 * (p[3] - p[4])
    root = float(np.hypot(half, p[5]))
    largest, smallest = mean + root, max(mean - root, 1e-12)  # of 1/radius²
    angle = 0.5 * float(np.degrees(np.arctan2(-2.0 * p[5], -(p[3] - p[4]))))
    return Moffat(
        amplitude=float(p[0]),
        x=float(p[1]),
        y=float(p[2]),
        fwhm_px=2.0 * float((largest * smallest) ** -0.25),
        beta=min(1.0 / float(p[6]), MOST_BETA),
        elongation=float(np.sqrt(largest / smallest)),
        angle_deg=angle,
        parameters=p,
        converged=converged,
    )


def start_parameters(peak: float, fwhm_px: float, beta: float = 3.5) -> Floats:
    """Parameters of a round profile at the centre."""
    p = 4.0 / fwhm_px**2
    return np.array([peak, 0.0, 0.0, p, p, 0.0, 1.0 / beta])


@jit
def _samples(p: Floats, step: float, pixel: float, nodes: Floats, weights: Floats, samples: Floats) -> None:
    m = samples.shape[0]
    slope = np.empty(_PARAMETERS)
    for j in range(m):
        for i in range(m):
            samples[j, i] = p[0] * moffat_pixel(
                p, (i - m // 2) * step, (j - m // 2) * step, pixel, nodes, weights, slope
            )


def moffat_samples(parameters: Floats, m: int, step_px: float, pixel_px: float = 1.0) -> Floats:
    """What pixels of side `pixel_px` see of the profile, at m × m positions `step_px` apart; shape (m, m)."""
    samples = np.empty((m, m))
    _samples(np.asarray(parameters, np.float64), step_px, pixel_px, _NODES5, _WEIGHTS5, samples)
    return samples
