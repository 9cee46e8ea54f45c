"""Polynomials in two variables, and as TPV."""

from __future__ import annotations

import numpy as np
import pytest
from spica_imaging.polynomial import as_matrix, design, multiply, substitute, terms, tpv_from_polynomials


def value(matrix: np.ndarray, u: float, v: float) -> float:
    return sum(matrix[i, j] * u**i * v**j for i in range(matrix.shape[0]) for j in range(matrix.shape[1]))


def test_terms_design_and_matrix_speak_of_the_same() -> None:
    rng = np.random.default_rng(1)
    coefficients = rng.normal(size=len(terms(3)))
    u, v = rng.normal(size=(2, 5))
    slow = [value(as_matrix(coefficients, 3), a, b) for a, b in zip(u, v, strict=True)]
    assert np.allclose(design(u, v, 3) @ coefficients, slow)


def test_multiply_and_substitute_against_values() -> None:
    rng = np.random.default_rng(2)
    a, b = np.zeros((2, 6, 6))
    a[:3, :1], a[0, 1], b[:2, :2] = rng.normal(size=(3, 1)), 0.7, rng.normal(size=(2, 2))
    assert value(multiply(a, b), 0.3, -0.8) == pytest.approx(value(a, 0.3, -0.8) * value(b, 0.3, -0.8))
    linear = np.array([[0.5, -0.2], [0.1, 2.0]])
    (changed,) = substitute((b,), linear)
    u, v = linear @ [0.4, 0.9]
    assert value(changed, 0.4, 0.9) == pytest.approx(value(b, u, v))


def test_a_polynomial_becomes_the_same_map_as_tpv() -> None:
    rng = np.random.default_rng(3)
    xi, eta = (as_matrix(rng.normal(size=len(terms(4))) * 1e-4, 4) for _ in range(2))
    xi[0, 0] = eta[0, 0] = 0.0
    xi[1, 0], xi[0, 1], eta[1, 0], eta[0, 1] = -0.05, 0.002, 0.003, 0.05
    wcs = tpv_from_polynomials((10.0, 20.0), (500.0, 600.0), xi, eta, 512.0)
    x, y = rng.uniform(1, 1024, (2, 30))
    u, v = (x - 500.0) / 512.0, (y - 600.0) / 512.0
    got = wcs.pixel_to_plane(x, y)
    for plane, matrix in zip(got, (xi, eta), strict=True):
        assert np.allclose(plane, [value(matrix, a, b) for a, b in zip(u, v, strict=True)], atol=1e-14)


def test_tpv_ends_at_degree_seven() -> None:
    with pytest.raises(ValueError, match="degree 7"):
        tpv_from_polynomials((0, 0), (1, 1), np.eye(9), np.eye(9))
