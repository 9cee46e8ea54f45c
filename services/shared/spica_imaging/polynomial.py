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


def tpv_family(
    crval: tuple[float, float],
    centres_px: Floats,
    units_px: Floats,
    coefficients_deg: Floats,
    degree: int,
) -> list[TpvWcs]:
    """WCS of the CCDs of one exposure, all with the same tangent point, as SCAMP writes them.

    `coefficients_deg`, shape (n, terms, 2): tangent-plane coordinates as polynomials of (pixel - centre) / unit, terms in
    the order of `terms`; `centres_px`, shape (n, 2); `units_px`, shape (n,). CD is the linear part at the CCD's centre
    and CRPIX is where it comes to zero, so that CD · (pixel - CRPIX) is close to the tangent-plane coordinates: the
    polynomial is rewritten in those, degree for degree, without any loss but rounding.
    """
    if degree > MAX_DEGREE:
        raise ValueError(f"TPV goes up to degree {MAX_DEGREE}.")
    n, size = len(coefficients_deg), degree + 1
    constant, linear = coefficients_deg[:, 0], coefficients_deg[:, 1:3].transpose(0, 2, 1)
    inverse = np.linalg.inv(linear)
    start = np.einsum("nij,nj->ni", inverse, constant)
    crpix = centres_px - units_px[:, None] * start
    cd = linear / units_px[:, None, None]
    pixel = np.zeros((2, n, size, size))
    pixel[:, :, 0, 0] = -start.T
    if degree:
        pixel[:, :, 1, 0], pixel[:, :, 0, 1] = inverse[:, :, 0].T, inverse[:, :, 1].T
    powers = [_powers_of(pixel[axis], degree) for axis in (0, 1)]
    bend = np.zeros((2, n, size, size))
    for place, (i, j) in enumerate(terms(degree)):
        if i + j >= 2:
            term = _multiply_many(powers[0][i], powers[1][j], degree)
            for axis in (0, 1):
                bend[axis] += coefficients_deg[:, place, axis, None, None] * term
    pv = np.zeros((2, n, N_PV))
    for index, (own, other) in TPV_POWERS.items():
        if own + other <= degree:
            pv[0, :, index], pv[1, :, index] = bend[0][:, own, other], bend[1][:, other, own]
    pv[:, :, 1] += 1.0
    return [
        TpvWcs(
            crval=crval,
            crpix=(place[0], place[1]),
            cd=((matrix[0][0], matrix[0][1]), (matrix[1][0], matrix[1][1])),
            pv1=tuple(first),
            pv2=tuple(second),
        )
        for place, matrix, first, second in zip(
            crpix.tolist(), cd.tolist(), pv[0].tolist(), pv[1].tolist(), strict=True
        )
    ]


def _multiply_many(a: Floats, b: Floats, degree: int) -> Floats:
    """Products of polynomials, shape (n, degree + 1, degree + 1) each; terms beyond the total degree are dropped."""
    product = np.zeros_like(a)
    for i, j in terms(degree):
        rest = degree - i - j + 1
        product[:, i : i + rest, j : j + rest] += a[:, i, j, None, None] * b[:, :rest, :rest]
    return product


def _powers_of(polynomial: Floats, degree: int) -> list[Floats]:
    """Powers 0 to `degree` of polynomials of degree 1."""
    chain = [np.zeros_like(polynomial)]
    chain[0][:, 0, 0] = 1.0
    for _ in range(degree):
        chain.append(_multiply_many(chain[-1], polynomial, degree))
    return chain
