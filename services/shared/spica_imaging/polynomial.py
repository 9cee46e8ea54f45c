"""Polynomials in two variables, as matrices c[i, j] of u**i * v**j, and what they are as a TPV WCS."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spica_imaging.wcs import IDENTITY_PV, MAX_DEGREE, N_PV, TPV_POWERS, TpvWcs

Floats = NDArray[np.float64]


def terms(degree: int) -> list[tuple[int, int]]:
    """Powers (i, j) of all terms up to a total degree, lowest first."""
    return [(total - j, j) for total in range(degree + 1) for j in range(total + 1)]


def design(u: Floats, v: Floats, degree: int) -> Floats:
    """Values of all terms: shape (n, number of terms)."""
    return np.stack([u**i * v**j for i, j in terms(degree)], axis=-1)


def as_matrix(coefficients: Floats, degree: int) -> Floats:
    """Coefficients in the order of `terms` as a matrix c[i, j], shape (degree + 1, degree + 1)."""
    matrix = np.zeros((degree + 1, degree + 1))
    for (i, j), value in zip(terms(degree), coefficients, strict=True):
        matrix[i, j] = value
    return matrix


def multiply(a: Floats, b: Floats) -> Floats:
    """Product of two polynomials of the same layout; terms beyond it are dropped."""
    product = np.zeros_like(a)
    for i, j in zip(*np.nonzero(a), strict=True):
        product[i:, j:] += a[i, j] * b[: b.shape[0] - i, : b.shape[1] - j]
    return product


def substitute(polynomials: tuple[Floats, ...], linear: Floats) -> tuple[Floats, ...]:
    """Put u = linear[0] · (s, t), v = linear[1] · (s, t) into polynomials; results in s and t."""
    size = max(len(polynomial) for polynomial in polynomials)
    powers: list[list[Floats]] = []
    for row in linear:
        chain = [np.zeros((size, size))]
        chain[0][0, 0] = 1.0
        if size > 1:
            factor = np.zeros((size, size))
            factor[1, 0], factor[0, 1] = row
            for _ in range(size - 1):
                chain.append(multiply(chain[-1], factor))
        powers.append(chain)
    results = []
    for polynomial in polynomials:
        result = np.zeros((size, size))
        for i, j in zip(*np.nonzero(polynomial), strict=True):
            result += polynomial[i, j] * multiply(powers[0][i], powers[1][j])
        results.append(result)
    return tuple(results)


def tpv_from_polynomials(
    crval: tuple[float, float], crpix: tuple[float, float], xi: Floats, eta: Floats, unit_px: float = 1.0
) -> TpvWcs:
    """WCS whose tangent-plane coordinates (deg) are polynomials of (pixel - CRPIX) / unit_px.

    `xi` and `eta` are matrices c[i, j] of degree up to 7 with an invertible linear part. Exact: the
    linear part becomes CD, and the polynomial is rewritten in CD's coordinates, degree for degree.
    """
    if max(len(xi), len(eta)) > MAX_DEGREE + 1:
        raise ValueError(f"TPV goes up to degree {MAX_DEGREE}.")
    linear = np.array([[xi[1, 0], xi[0, 1]], [eta[1, 0], eta[0, 1]]])
    cd = linear / unit_px
    first, second = substitute((xi, eta), np.linalg.inv(linear))
    pv1, pv2 = np.array(IDENTITY_PV), np.array(IDENTITY_PV)
    for index in range(N_PV):
        own, other = TPV_POWERS.get(index, (-1, -1))
        # The linear part is the unit matrix by construction, but for rounding: it stays exactly that.
        if own + other in (-2, 1):
            continue
        if max(own, other) < len(first):
            pv1[index], pv2[index] = first[own, other], second[other, own]
    return TpvWcs(
        crval=crval,
        crpix=crpix,
        cd=((float(cd[0, 0]), float(cd[0, 1])), (float(cd[1, 0]), float(cd[1, 1]))),
        pv1=tuple(pv1.tolist()),
        pv2=tuple(pv2.tolist()),
    )
