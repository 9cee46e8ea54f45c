"""The linear system: normal equations with the sources' magnitudes eliminated, priors, and their solution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import LinearOperator, cg

from spica_calib.science.photometry import kernels, sparse
from spica_calib.science.photometry.ties import Layout, Ties
from spica_calib.science.stars import Floats

_HARD = 1e10
"""Weight of what holds exactly, mag^-2."""
_PAIR_S, _PRODUCT_S = 1.5e-9, 1.0e-10
"""About what one pair and one multiply-add of a matrix product cost: only to choose between them."""
_ROWS_BYTES = 32e6


@dataclass(frozen=True, slots=True)
class Prior:
    """What is known of the unknowns before."""

    mean: Floats
    """Shape (unknowns,)."""
    weight: Floats
    """Shape (unknowns,): 1 / variance."""
    sums: tuple[tuple[NDArray[np.intp], Floats], ...] = ()
    """(unknowns, shares): weighted sums that are to be 0."""


@dataclass(frozen=True, slots=True)
class Solved:
    """Unknowns and their standard errors."""

    unknowns: Floats
    sigma: Floats
    """NaN where they were not asked for."""
    exact: bool = True
    """Otherwise errors are lower limits: those for all else known."""


@dataclass(slots=True)
class State:
    """Where the iteration stands; arrays are used again from round to round."""

    unknowns: Floats
    value: Floats
    weight: Floats
    factor: NDArray[np.float32]
    extra: Floats
    """Shape (exposures,): variance beyond photon noise, mag²."""
    reference_weight: Floats
    reference_factor: Floats
    reference_extra: float
    mean: Floats
    total: Floats


def begin(layout: Layout, ties: Ties, unknowns: Floats, extra_mag: float) -> State:
    """State before the first round: everything counts, with `extra_mag` beyond photon noise."""
    has = np.isfinite(ties.reference)
    return State(
        unknowns=unknowns.copy(),
        value=np.empty(len(ties)),
        weight=np.empty(len(ties)),
        factor=np.ones(len(ties), dtype=np.float32),
        extra=np.full(layout.n_exposures, extra_mag**2),
        reference_weight=np.zeros(ties.n_sources),
        reference_factor=has.astype(np.float64),
        reference_extra=extra_mag**2,
        mean=np.empty(ties.n_sources),
        total=np.empty(ties.n_sources),
    )


def refresh(layout: Layout, ties: Ties, state: State) -> None:
    """Calibrated magnitudes, weights and means for the present unknowns and factors."""
    kernels.calibrate(
        ties.start,
        ties.exposure,
        ties.slot,
        layout.context,
        ties.mag,
        ties.colour,
        state.unknowns,
        len(layout.slots),
        state.value,
    )
    kernels.weigh(ties.exposure, ties.variance, state.factor, state.extra, state.weight)
    state.reference_weight[:] = np.where(
        state.reference_factor > 0,
        state.reference_factor / (ties.reference_variance + state.reference_extra),
        0.0,
    )
    kernels.mean_magnitudes(
        ties.start,
        state.value,
        state.weight,
        ties.reference,
        state.reference_weight,
        state.mean,
        state.total,
    )


def step(
    layout: Layout, ties: Ties, state: State, prior: Prior, dense_limit: int, *, errors: bool = False
) -> Solved:
    """Solve for the unknowns that minimise the weighted squares; `refresh` must have been called."""
    if layout.n_unknowns <= dense_limit:
        return _dense(layout, ties, state, prior, errors=errors)
    if sparse.is_sparse(ties):
        return _sparse(layout, ties, state, prior, errors=errors)
    return _iterative(layout, ties, state, prior)


def _dense(layout: Layout, ties: Ties, state: State, prior: Prior, *, errors: bool) -> Solved:
    n = layout.n_unknowns
    normal, right = np.zeros((n, n)), np.zeros(n)
    kernels.add_diagonal(
        ties.start,
        ties.exposure,
        ties.slot,
        layout.context,
        ties.colour,
        state.value,
        state.weight,
        state.mean,
        len(layout.slots),
        normal,
        right,
    )
    if eliminate_by_pairs(ties.sizes, n):
        kernels.subtract_pairs(
            ties.start, ties.exposure, ties.slot, layout.context, ties.colour, state.weight, state.total,
            len(layout.slots), normal,
        )  # fmt: skip
    else:
        _subtract_products(layout, ties, state, normal)
    normal[np.diag_indices(n)] += prior.weight
    right += prior.weight * (prior.mean - state.unknowns)
    for index, share in prior.sums:
        # The lower triangle only, as everywhere: indices are ascending.
        normal[np.ix_(index, index)] += _HARD * np.tril(np.outer(share, share))
        right[index] -= _HARD * share * float(share @ state.unknowns[index])
    factor = cho_factor(normal, lower=True, overwrite_a=True, check_finite=False)
    unknowns = state.unknowns + cho_solve(factor, right, check_finite=False)
    if not errors:
        return Solved(unknowns, np.full(n, np.nan))
    covariance = cho_solve(factor, np.eye(n), overwrite_b=True, check_finite=False)
    return Solved(unknowns, np.sqrt(np.maximum(np.diag(covariance), 0.0)))


def eliminate_by_pairs(sizes: NDArray[np.int64], n_unknowns: int) -> bool:
    """Whether going through pairs of detections is cheaper than a product of matrices."""
    pairs = 2.0 * float((sizes.astype(np.float64) ** 2).sum())
    return pairs * _PAIR_S <= len(sizes) * float(n_unknowns) ** 2 * _PRODUCT_S


def _subtract_products(layout: Layout, ties: Ties, state: State, normal: Floats) -> None:
    n = layout.n_unknowns
    rows = np.empty((max(16, min(int(_ROWS_BYTES / 8 / n), ties.n_sources)), n))
    for first in range(0, ties.n_sources, len(rows)):
        kernels.source_rows(
            first, ties.start, ties.exposure, ties.slot, layout.context, ties.colour, state.weight, state.total,
            len(layout.slots), rows,
        )  # fmt: skip
        normal -= rows.T @ rows


def _sparse(layout: Layout, ties: Ties, state: State, prior: Prior, *, errors: bool) -> Solved:
    """For thousands of exposures that each overlap with some."""
    n_exposures = layout.n_exposures
    matrix = sparse.normal_matrix(layout, ties, state.weight, state.total)
    _, right = _gradient(layout, ties, state)
    right += prior.weight * (prior.mean - state.unknowns)
    matrix.inner.setdiag(matrix.inner.diagonal() + prior.weight[:n_exposures])
    matrix.rest[np.diag_indices(len(matrix.rest))] += prior.weight[n_exposures:]
    for index, share in prior.sums:
        place = index - n_exposures
        matrix.rest[np.ix_(place, place)] += _HARD * np.outer(share, share)
        right[index] -= _HARD * share * float(share @ state.unknowns[index])
    factored = sparse.factor(matrix)
    variances = factored.variances() if errors else None
    unknowns = state.unknowns + factored.solve(right)
    if variances is not None:
        return Solved(unknowns, np.sqrt(np.maximum(variances, 0.0)))
    diagonal = np.concatenate([matrix.inner.diagonal(), np.diag(matrix.rest)])
    return Solved(unknowns, 1.0 / np.sqrt(diagonal), exact=False)


def _iterative(layout: Layout, ties: Ties, state: State, prior: Prior) -> Solved:
    """Conjugate gradients, preconditioned with the diagonal: for thousands of exposures of one place."""
    n = layout.n_unknowns
    diagonal, right = _gradient(layout, ties, state)
    diagonal += prior.weight
    right += prior.weight * (prior.mean - state.unknowns)
    sums = _scaled_sums(prior.sums, diagonal)
    for index, share in sums:
        right[index] -= share * float(share @ state.unknowns[index])

    def times(vector: Floats) -> Floats:
        flat = np.ascontiguousarray(vector, dtype=np.float64).ravel()
        product = prior.weight * flat
        kernels.apply_normal(
            ties.start, ties.exposure, ties.slot, layout.context, ties.colour, state.weight, state.total,
            len(layout.slots), flat, product,
        )  # fmt: skip
        for index, share in sums:
            product[index] += share * float(share @ flat[index])
        return product

    root = np.sqrt(diagonal)
    operator = LinearOperator((n, n), matvec=lambda v: times(np.ravel(v) / root) / root, dtype=np.float64)
    change, _ = cg(operator, right / root, rtol=1e-9, atol=0.0, maxiter=2000)
    return Solved(state.unknowns + change / root, 1.0 / root, exact=False)


def _scaled_sums(
    sums: Sequence[tuple[NDArray[np.intp], Floats]], diagonal: Floats
) -> list[tuple[NDArray[np.intp], Floats]]:
    """Sums that are to be 0, as strong as the data: a hard weight would slow conjugate gradients down."""
    return [
        (index, share * np.sqrt(float(diagonal[index].sum()) / max(float(share @ share), 1e-12)))
        for index, share in sums
    ]


def _gradient(layout: Layout, ties: Ties, state: State) -> tuple[Floats, Floats]:
    """Diagonal (before the sources' magnitudes are eliminated) and right side."""
    context = layout.context[ties.exposure]
    columns = (
        ties.exposure,
        layout.n_exposures + ties.slot,
        layout.n_exposures + len(layout.slots) + context,
    )
    source = np.repeat(np.arange(ties.n_sources), ties.sizes)
    tone = ties.colour[source]
    pull = np.where(state.weight > 0, state.weight * (state.mean[source] - state.value), 0.0)
    n = layout.n_unknowns
    diagonal, right = np.zeros(n), np.zeros(n)
    for column, coefficient in zip(columns, (None, None, tone), strict=True):
        scale = 1.0 if coefficient is None else coefficient
        diagonal += np.bincount(column, state.weight * scale**2, n)
        right += np.bincount(column, pull * scale, n)
    return diagonal, right
