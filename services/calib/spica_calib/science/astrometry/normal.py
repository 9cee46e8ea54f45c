"""Solving the normal equations: conjugate gradients, and what stands in for the inverse matrix.

Small problems (a stack of tens of exposures) have their matrix factorised, from all groups or from a sample of them that
is large enough; large ones have the matrix of the planes, from which all exposures are eliminated one by one, as if
sources' positions came from elsewhere. Either is exact enough for the conjugate gradients to need few steps, and
gives covariances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from spica_calib.science.astrometry.kernels import Index, Singles
from spica_calib.science.astrometry.normal_kernels import (
    Complex,
    apply_normal,
    arrow_blocks,
    chosen_groups,
    dense_normal,
    residual_gradient,
    unit_information,
)
from spica_calib.science.stars import Floats, Ints

DENSE_UNKNOWNS = 1600
_DENSE_WORK = 3e7
"""Complex products that filling a dense matrix may take."""
_MAX_STEPS = 200


@dataclass(frozen=True, slots=True)
class Linear:
    """The linear problem of one round, in the order of groups. Arrays of shape (m,) belong to members of groups."""

    offsets: Ints
    turn: Singles
    weight: Singles
    u: Singles
    v: Singles
    focal: Singles
    """Shape (m, 2), in units of the field's radius."""
    plane: Index
    exposure: Index
    """Among those that are free; -1: held."""
    unit: Index
    whole: Floats
    """Weight of each group, star included."""
    maps: Floats
    """Shape (exposures, 2): turn and scale of each free exposure."""
    context: Index
    """Of each plane."""
    context_of_exposure: Index
    degree: int
    n_terms: int
    n_planes: int
    n_own: int
    prior: Floats
    """Information on the planes from before, shape (planes, T, T)."""
    damping: Floats
    """On the diagonal of all unknowns, shape (p,)."""

    @property
    def n_exposures(self) -> int:
        """Exposures that are not held."""
        return len(self.maps)

    @property
    def first_own(self) -> int:
        """Where the unknowns of exposures begin."""
        return self.n_planes * self.n_terms

    @property
    def n_unknowns(self) -> int:
        """Complex numbers to find."""
        return self.first_own + self.n_exposures * self.n_own

    def arguments(self, *more: Any) -> tuple[Any, ...]:
        """What all kernels of the normal equations take, and then what this one does."""
        return (
            self.offsets, self.turn, self.weight, self.u, self.v, self.focal, self.plane, self.exposure,
            self.maps, self.degree, self.n_terms, self.n_own, self.first_own, *more,
        )  # fmt: skip

    def gradient(self, pull: Singles) -> Complex:
        """Right-hand side for pulls (mean minus detection), shape (p,)."""
        x, y = np.zeros(self.n_unknowns), np.zeros(self.n_unknowns)
        residual_gradient(*self.arguments(pull, x, y))
        return x + 1j * y

    def times(self, vector: Complex) -> Complex:
        """Normal matrix, prior and damping included, times a vector."""
        x, y = np.zeros(self.n_unknowns), np.zeros(self.n_unknowns)
        real, imaginary = np.ascontiguousarray(vector.real), np.ascontiguousarray(vector.imag)
        apply_normal(*self.arguments(self.whole, real, imaginary, x, y))
        result: Complex = x + 1j * y + self.damping * vector
        planes = vector[: self.first_own].reshape(self.n_planes, self.n_terms, 1)
        result[: self.first_own] += (self.prior @ planes).ravel()
        return result


class Inverse(Protocol):
    """An approximate inverse of the normal matrix: the covariance of the unknowns, per axis."""

    def solve(self, vector: Complex) -> Complex:
        """Inverse times a vector."""

    def plane(self, number: int) -> Complex:
        """Covariance of a plane's coefficients, shape (T, T)."""

    def own(self, exposure: int) -> Complex:
        """Covariance of an exposure's unknowns, shape (Q, Q)."""

    def between(self, plane: int, exposure: int) -> Complex:
        """Covariance of a plane's coefficients with an exposure's unknowns, shape (T, Q)."""

    def mean_own(self, exposures: Index) -> tuple[Complex, Complex]:
        """Of the mean unknowns of exposures of one context: covariance with the planes' unknowns, and with itself.

        Shapes (planes · T, Q) and (Q, Q).
        """


class DenseInverse:
    """From the whole matrix."""

    def __init__(self, linear: Linear) -> None:
        size = linear.n_unknowns
        matrix = np.zeros((size, size), np.complex128)
        dense_normal(*linear.arguments(linear.whole, _sample(linear), matrix))
        matrix[np.arange(size), np.arange(size)] += linear.damping
        t = linear.n_terms
        for number, block in enumerate(linear.prior):
            matrix[number * t : (number + 1) * t, number * t : (number + 1) * t] += block
        self._t, self._q, self._first = t, linear.n_own, linear.first_own
        self._factor = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)

    def solve(self, vector: Complex) -> Complex:
        """Inverse times a vector."""
        return np.asarray(cho_solve(self._factor, vector, check_finite=False), dtype=np.complex128)

    @cached_property
    def _covariance(self) -> Complex:
        return self.solve(np.eye(len(self._factor[0]), dtype=np.complex128))

    def _of_plane(self, number: int) -> slice:
        return slice(number * self._t, (number + 1) * self._t)

    def _of_exposure(self, number: int) -> slice:
        return slice(self._first + number * self._q, self._first + (number + 1) * self._q)

    def plane(self, number: int) -> Complex:
        """Covariance of a plane's coefficients, shape (T, T)."""
        return self._covariance[self._of_plane(number), self._of_plane(number)]

    def own(self, exposure: int) -> Complex:
        """Covariance of an exposure's unknowns, shape (Q, Q)."""
        return self._covariance[self._of_exposure(exposure), self._of_exposure(exposure)]

    def between(self, plane: int, exposure: int) -> Complex:
        """Covariance of a plane's coefficients with an exposure's unknowns, shape (T, Q)."""
        return self._covariance[self._of_plane(plane), self._of_exposure(exposure)]

    def mean_own(self, exposures: Index) -> tuple[Complex, Complex]:
        """Of the mean unknowns of exposures: covariance with the planes, and with itself."""
        columns = np.mean([self._covariance[:, self._of_exposure(int(e))] for e in exposures], axis=0)
        rows = np.mean([columns[self._of_exposure(int(e))] for e in exposures], axis=0)
        return columns[: self._first], rows


class ArrowInverse:
    """From the planes' matrices, one per context, with every exposure eliminated by itself."""

    def __init__(self, linear: Linear) -> None:
        t, q, n_planes = linear.n_terms, linear.n_own, linear.n_planes
        self._t, self._q, self._first = t, q, linear.first_own
        self._context, self._home = linear.context, linear.context_of_exposure
        self._local = np.zeros(n_planes, np.int32)
        n_contexts = int(linear.context.max(initial=-1)) + 1
        self._members = [np.flatnonzero(linear.context == c) for c in range(n_contexts)]
        for members in self._members:
            self._local[members] = np.arange(len(members))
        room = max((len(members) for members in self._members), default=0) * t
        planes = np.zeros((n_planes, t, t))
        own = np.zeros((linear.n_exposures, q, q), np.complex128)
        cross = np.zeros((linear.n_exposures, q, room), np.complex128)
        arrow_blocks(*linear.arguments(linear.whole, self._local, planes, own, cross))
        planes = planes + np.tril(planes, -1).transpose(0, 2, 1) + linear.prior
        planes[:, np.arange(t), np.arange(t)] += linear.damping[: self._first].reshape(n_planes, t)
        own = own + np.conj(np.tril(own, -1)).transpose(0, 2, 1)
        own[:, np.arange(q), np.arange(q)] += linear.damping[self._first :].reshape(-1, q)
        self._inverse_own = np.linalg.inv(own) if len(own) else own
        self._cross = cross
        self._factors = []
        for c, members in enumerate(self._members):
            width = len(members) * t
            matrix = np.zeros((width, width), np.complex128)
            for k, number in enumerate(members):
                matrix[k * t : (k + 1) * t, k * t : (k + 1) * t] = planes[number]
            mine = np.flatnonzero(self._home == c)
            right = (self._inverse_own[mine] @ cross[mine][:, :, :width]).reshape(-1, width)
            matrix -= np.conj(cross[mine][:, :, :width].reshape(-1, width)).T @ right
            self._factors.append(cho_factor(matrix, lower=True, check_finite=False))

    def _columns(self, context: int) -> Ints:
        """Places of a context's planes among all unknowns."""
        return (self._members[context][:, None] * self._t + np.arange(self._t)).ravel()

    def solve(self, vector: Complex) -> Complex:
        """Inverse times a vector."""
        result = np.empty_like(vector)
        own = vector[self._first :].reshape(-1, self._q)
        half = np.einsum("eij,ej->ei", self._inverse_own, own)
        out = half.copy()
        for c, factor in enumerate(self._factors):
            columns = self._columns(c)
            mine = np.flatnonzero(self._home == c)
            cross = self._cross[mine][:, :, : len(columns)]
            right = vector[columns] - np.einsum("eqp,eq->p", np.conj(cross), half[mine])
            planes = cho_solve(factor, right, check_finite=False)
            result[columns] = planes
            out[mine] -= np.einsum("eij,ej->ei", self._inverse_own[mine], cross @ planes)
        result[self._first :] = out.ravel()
        return result

    @cached_property
    def _covariances(self) -> list[Complex]:
        return [
            np.asarray(cho_solve(f, np.eye(len(f[0]), dtype=np.complex128), check_finite=False))
            for f in self._factors
        ]

    def _of_plane(self, number: int) -> slice:
        return slice(int(self._local[number]) * self._t, (int(self._local[number]) + 1) * self._t)

    def plane(self, number: int) -> Complex:
        """Covariance of a plane's coefficients, shape (T, T)."""
        mine = self._of_plane(number)
        return self._covariances[int(self._context[number])][mine, mine]

    def _to_planes(self, exposure: int) -> Complex:
        """How an exposure's unknowns follow the planes', shape (Q, planes of its context · T)."""
        width = len(self._covariances[int(self._home[exposure])])
        return self._inverse_own[exposure] @ self._cross[exposure][:, :width]

    def own(self, exposure: int) -> Complex:
        """Covariance of an exposure's unknowns, shape (Q, Q)."""
        follow = self._to_planes(exposure)
        covariance = self._covariances[int(self._home[exposure])]
        return self._inverse_own[exposure] + follow @ covariance @ np.conj(follow).T

    def between(self, plane: int, exposure: int) -> Complex:
        """Covariance of a plane's coefficients with an exposure's unknowns, shape (T, Q)."""
        covariance = self._covariances[int(self._context[plane])]
        return -covariance[self._of_plane(plane)] @ np.conj(self._to_planes(exposure)).T

    def mean_own(self, exposures: Index) -> tuple[Complex, Complex]:
        """Of the mean unknowns of exposures of one context: covariance with the planes, and with itself."""
        context = int(self._home[int(exposures[0])])
        covariance = self._covariances[context]
        follow = np.mean([self._to_planes(int(e)) for e in exposures], axis=0)
        columns = np.zeros((self._first, self._q), np.complex128)
        columns[self._columns(context)] = -covariance @ np.conj(follow).T
        alone = self._inverse_own[exposures].mean(axis=0) / len(exposures)
        return columns, alone + follow @ covariance @ np.conj(follow).T


def _sample(linear: Linear) -> Floats:
    """How often each group counts in a dense matrix: all once if the work allows, else a sample."""
    count = np.diff(linear.offsets).astype(np.float64)
    wide = linear.n_terms + linear.n_own
    touched = np.minimum(count * linear.n_own + np.minimum(count, 4.0) * linear.n_terms, linear.n_unknowns)
    work = float((count * wide**2 + touched**2).sum())
    factor = np.ones(len(count))
    if work <= _DENSE_WORK:
        return factor
    n_units = int(linear.unit.max(initial=-1)) + 1
    information = np.zeros(n_units)
    unit_information(linear.offsets, linear.weight, linear.unit, linear.exposure, linear.whole, information)
    n_members = len(linear.unit)
    wanted = max(30.0, _DENSE_WORK / work * n_members / max(n_units, 1))
    chosen_groups(
        linear.offsets, linear.weight, linear.unit, linear.exposure, linear.whole, information, wanted, factor
    )
    return factor


def inverse_of(linear: Linear) -> Inverse:
    """What fits the size of the problem."""
    small = linear.n_unknowns <= DENSE_UNKNOWNS and linear.n_exposures <= 100
    return DenseInverse(linear) if small else ArrowInverse(linear)


def conjugate_gradients(
    times: Callable[[Complex], Complex], right: Complex, inverse: Inverse, tolerance: float
) -> tuple[Complex, int]:
    """Solve `times(x) = right`, preconditioned (Hestenes & Stiefel 1952).

    Ends when chi² is within about `tolerance` squared of its minimum: no unknown is then farther than `tolerance` times its
    standard error from its solution. Returns the solution and the number of steps.
    """
    solution = np.zeros_like(right)
    residual = right.copy()
    step = inverse.solve(residual)
    energy = float(np.vdot(residual, step).real)
    limit = max(tolerance**2, 1e-26 * energy)
    direction, steps = step, 0
    while energy > limit and steps < _MAX_STEPS:
        steps += 1
        image = times(direction)
        length = energy / float(np.vdot(direction, image).real)
        solution = solution + length * direction
        residual = residual - length * image
        step = inverse.solve(residual)
        new = float(np.vdot(residual, step).real)
        direction = step + new / energy * direction
        energy = new
    return solution, steps
