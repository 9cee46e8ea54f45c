"""The six taps of Lanczos-3 interpolation as polynomials of the position between two pixels.

Lanczos-3 (Duchon 1979, J. Appl. Meteor. 18, 1016): L(x) = sinc(x) sinc(x/3) for |x| < 3. Its six
taps do not sum to one (they ripple by up to 1 %), so they are divided by their sum: a constant
stays a constant. The normalised taps are smooth in the fraction f between two pixels, and tap k
at f equals tap 5-k at 1-f. With t = f - 1/2, tap k is E(t²) + t O(t²) and tap 5-k is
E(t²) - t O(t²): three pairs of polynomials with five coefficients each, fitted on Chebyshev nodes,
follow them to 8e-8 (below float32's own rounding), without any sine.
"""

from __future__ import annotations

import numpy as np

from spica_stack.science._jit import kernel


def _coefficients(*values: float) -> tuple[np.float32, ...]:
    return tuple(np.float32(value) for value in values)


_E0 = _coefficients(0.02445654571899163, -0.08812573362366927, -0.05685751266805944, 0.07806911840745885, -0.0233906081086783)  # fmt: skip
_O0 = _coefficients(-0.06392407663055229, 0.3099727244436146, -0.2415078605680682, 0.11007043800179418, -0.04985456602270646)  # fmt: skip
_E1 = _coefficients(-0.1358695230838153, 0.5707617273306397, -0.11402476113584673, 0.028415189987344654, -0.035427400912240906)  # fmt: skip
_O1 = _coefficients(0.18115856073598782, -0.8414723275962159, 0.5248132074534789, -0.2607604157487975, 0.12368625201801224)  # fmt: skip
_E2 = _coefficients(0.611412977364824, -0.4826359937069707, 0.17088227380391466, -0.10648430839489326, 0.058818009021173075)  # fmt: skip
_O2 = _coefficients(-1.3366699812382847, 1.5452080952928067, -0.9084989380939435, 0.5178864935536205, -0.2414003032842753)  # fmt: skip

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
