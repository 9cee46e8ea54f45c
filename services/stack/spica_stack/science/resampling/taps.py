"""Interpolation kernels: how much each pixel around a position counts, as polynomials of the fraction of a pixel.

`nearest` takes the pixel that the position lies in, `bilinear` the four around it. Lanczos-n (Duchon 1979, J. Appl.
Meteor. 18, 1016) is L(x) = sinc(x) sinc(x/n) for |x| < n, in x times in y: 2n × 2n pixels. Taken as it is, its taps do
not even keep a constant (Lanczos-3's sum to 1 ± 0.6 %). Divided by their sum, they still move a slope sideways by up
to 0.02 pixel, and fluxes of well sampled stars ripple by 0.5 % where the output scale beats with the input's
(Bernstein & Gruen 2014, PASP 126, 287, section 4). That ripple is the kernel's response near one cycle per pixel, and
each degree of polynomials that the taps reproduce adds an order to the zero there (Strang & Fix 1971). So the taps used
here are the closest ones (least squares) to Lanczos-n's that reproduce polynomials up to a degree:

* Lanczos-3: 3. Taps differ from Lanczos-3's by 0.009 at most, and the response at high frequencies stays its.
* Lanczos-4: 5, at most 0.013 away.
* Lanczos-2: 3. Four taps have no freedom left then: this is the cubic through four pixels, up to 0.057 away. With degree
  1, which would stay within 0.012, fluxes and positions of stars of 5 pixels ripple twice as much, and it is
  hardly sharper (half a pixel between pixels, at a quarter of a cycle per pixel, 0.90 is left instead of 0.88).

Two variables only. With t = f - 1/2, u = t², the taps at distance k - 1/2 on either side of the middle are
E_k(u) ± t O_k(u), k = 1..n. Reproducing 1, x², … up to degree 2n - 4 binds the n even parts by n - 1 linear equations,
reproducing x, x³, … up to 2n - 3 the odd ones by as many. So each follows from the outermost: E_k = P_k(u) + p_k E_n,
O_k = Q_k(u) + q_k O_n, with P, Q rational polynomials, and only E_n and O_n are fitted (`fitted`, on Chebyshev nodes).
The fit's error (below 1e-6 in any tap) thus moves the taps' shape and never what they reproduce, and most of the
arithmetic is saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from spica_stack.science.parameters import Kernel
from spica_stack.science.resampling.simd import FLOATS, constants, fused

Floats = NDArray[np.float64]

N_TAPS: dict[Kernel, int] = {"nearest": 1, "bilinear": 2, "lanczos2": 4, "lanczos3": 6, "lanczos4": 8}
"""Pixels that count, per axis: also what tells the kernels apart below."""

REPRODUCED = {2: 3, 3: 3, 4: 5}
"""Degree of polynomials that the taps of Lanczos-n reproduce."""

FIT_DEGREE = {2: 1, 3: 3, 4: 3}
"""Degree in u of the outermost pair's polynomials: taps follow the definition to 1e-6."""

OUTERMOST: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
    2: ((-1 / 16, 1 / 4), (-1 / 24, 1 / 6)),
    3: (
        (0.0237828212, -0.101167495, 0.0193614109, 0.0191492366),
        (0.0221932969, -0.105510646, 0.07105653, -0.0164318734),
    ),
    4: (
        (-0.00791421513, 0.0362460943, -0.0185744121, 0.000868281808),
        (-0.00424979584, 0.0204482079, -0.0147054669, 0.00363849722),
    ),
}
"""Coefficients of E_n and O_n, from u⁰ on, as `fitted` finds them."""


def lanczos(n: int, fraction: float) -> Floats:
    """The taps as they are written in the literature: pixels at 1 - n ... n from the one before the position."""
    x = fraction - np.arange(1 - n, n + 1.0)
    result: Floats = np.where(np.abs(x) < n, np.sinc(x) * np.sinc(x / n), 0.0)
    return result


def definition(n: int, fraction: float) -> Floats:
    """Those closest to Lanczos-n's that reproduce polynomials up to their degree. Shape (2n,)."""
    raw = lanczos(n, fraction)
    powers = (fraction - np.arange(1 - n, n + 1.0)) ** np.arange(REPRODUCED[n] + 1)[:, None]
    missing = np.eye(len(powers))[0] - powers @ raw
    result: Floats = raw + powers.T @ np.linalg.solve(powers @ powers.T, missing)
    return result


def fitted(n: int) -> tuple[Floats, Floats]:
    """Coefficients of E_n and O_n in powers of u, interpolated on Chebyshev nodes of u in [0, 1/4]."""
    nodes = np.cos(np.pi * (np.arange(64) + 0.5) / 64)
    t = np.sqrt((nodes + 1) / 8)
    ends = np.array([definition(n, 0.5 + value)[[0, -1]] for value in t])
    even, odd = ends.sum(1) / 2, (ends[:, 1] - ends[:, 0]) / (2 * t)
    series = [np.polynomial.Chebyshev.fit(nodes, y, FIT_DEGREE[n], domain=[-1, 1]) for y in (even, odd)]
    # From z in [-1, 1] to u = (z + 1) / 8.
    of_u = np.polynomial.Polynomial([-1.0, 8.0])
    first, second = (one.convert(kind=np.polynomial.Polynomial)(of_u).coef for one in series)
    return np.asarray(first, np.float64), np.asarray(second, np.float64)


@dataclass(frozen=True, slots=True)
class Family:
    """How the inner pairs follow from the outermost one, for one parity."""

    polynomials: Floats
    """Shape (n - 1, n - 1): pair, power of u."""
    shares: Floats
    """Shape (n - 1,): factor on the outermost one."""


def family(n: int, odd: bool) -> Family:
    """Solve the conditions: the sum over pairs of 2 E_k m_k^p = u^(p/2), or 2 O_k m_k^p = u^((p-1)/2), m_k = k - 1/2."""
    powers = np.arange(int(odd), 2 * n - 2, 2)
    conditions = 2.0 * (np.arange(n) + 0.5) ** powers[:, None]
    inverse = np.linalg.inv(conditions[:, :-1])
    return Family(inverse, -inverse @ conditions[:, -1])


def _horner(builder: Any, coefficients: Sequence[float], u: Any) -> Any:
    total = constants(coefficients[-1])
    for value in coefficients[-2::-1]:
        total = fused(builder, total, u, constants(value))
    return total


def _pairs(builder: Any, n: int, u: Any, odd: bool) -> list[Any]:
    """Even or odd parts of all pairs, the innermost first."""
    outermost, rule = _horner(builder, OUTERMOST[n][int(odd)], u), family(n, odd)
    inner = [
        fused(builder, constants(share), outermost, _horner(builder, polynomial, u))
        for polynomial, share in zip(rule.polynomials, rule.shares, strict=True)
    ]
    return [*inner, outermost]


@intrinsic
def taps(_context: Any, n_taps: Any, fraction: Any) -> Any:
    """Weights of the pixels at 1 - n ... n from the one at or before the position, for eight positions.

    `n_taps` is a tuple of as many integers as there are taps (its type says which kernel), `fraction` the
    distance to that pixel's centre, in [0, 1]. Not for `nearest`, which needs none.
    """
    count = n_taps.count

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        f = arguments[1]
        if count == 2:
            found = [builder.fsub(constants(1.0), f), f]
        else:
            t = builder.fsub(f, constants(0.5))
            u = builder.fmul(t, t)
            even, odd = (_pairs(builder, count // 2, u, parity) for parity in (False, True))
            minus = builder.fneg(t)
            left = [fused(builder, minus, o, e) for e, o in zip(even, odd, strict=True)]
            right = [fused(builder, t, o, e) for e, o in zip(even, odd, strict=True)]
            found = [*left[::-1], *right]
        return context.make_tuple(builder, signature.return_type, found)

    return types.UniTuple(FLOATS, count)(n_taps, FLOATS), code
