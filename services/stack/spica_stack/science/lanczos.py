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


_E0 = _coefficients(0.0244565457, -0.0881257336, -0.0568575127, 0.0780691184, -0.0233906081)
_O0 = _coefficients(-0.0639240766, 0.309972724, -0.241507861, 0.110070438, -0.049854566)
_E1 = _coefficients(-0.135869523, 0.570761727, -0.114024761, 0.02841519, -0.0354274009)
_O1 = _coefficients(0.181158561, -0.841472328, 0.524813207, -0.260760416, 0.123686252)
_E2 = _coefficients(0.611412977, -0.482635994, 0.170882274, -0.106484308, 0.058818009)
_O2 = _coefficients(-1.33666998, 1.5452081, -0.908498938, 0.517886494, -0.241400303)

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
