"""The same linear system for thousands of exposures: sparse between exposures, dense in what all of them share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csc_array, csr_array
from scipy.sparse.linalg import SuperLU, splu

from spica_calib.science.photometry.ties import Layout, Ties
from spica_calib.science.stars import Floats

MOST_PAIRS = 5e8
"""With more pairs of detections that share a source, the matrix is hardly sparse and takes too long to make."""
_CHUNK = 256
_MOST_WORK = 2e10
"""Multiply-adds that standard errors of all exposures may cost."""


@dataclass(frozen=True, slots=True)
class Bordered:
    """A symmetric matrix: sparse between exposures, dense in the rest (offsets and colour terms)."""

    inner: csc_array
    border: Floats
    """Shape (exposures, rest)."""
    rest: Floats
    """Shape (rest, rest)."""


def is_sparse(ties: Ties) -> bool:
    """Whether exposures share sources with few others only."""
    return float((ties.sizes.astype(np.float64) ** 2).sum()) <= MOST_PAIRS


def normal_matrix(layout: Layout, ties: Ties, weight: Floats, total: Floats) -> Bordered:
    """Normal equations with the sources' magnitudes eliminated; arguments as in `kernels.subtract_pairs`."""
    n, n_exposures = layout.n_unknowns, layout.n_exposures
    source = np.repeat(np.arange(ties.n_sources), ties.sizes)
    term = n_exposures + len(layout.slots) + layout.context[ties.exposure]
    columns = (ties.exposure, n_exposures + ties.slot, term)
    coefficients = (None, None, ties.colour[source])
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(weight > 0, weight / np.sqrt(total[source]), 0.0)
    rows = _collected(source, columns, coefficients, scaled, (ties.n_sources, n))
    inner_rows, other_rows = rows[:, :n_exposures], rows[:, n_exposures:]
    own = np.bincount(ties.exposure, weight, n_exposures)
    place = np.arange(n_exposures)
    inner = csc_array((own, (place, place)), shape=(n_exposures, n_exposures)) - inner_rows.T @ inner_rows
    border = np.zeros((n_exposures, n - n_exposures))
    rest = np.zeros((n - n_exposures, n - n_exposures))
    for one, factor in zip(columns[1:], coefficients[1:], strict=True):
        part = weight if factor is None else weight * factor
        np.add.at(border, (ties.exposure, one - n_exposures), part)
        for two, other in zip(columns[1:], coefficients[1:], strict=True):
            both = part if other is None else part * other
            np.add.at(rest, (one - n_exposures, two - n_exposures), both)
    border -= (inner_rows.T @ other_rows).toarray()
    rest -= (other_rows.T @ other_rows).toarray()
    return Bordered(csc_array(inner), border, rest)


def _collected(
    source: NDArray[np.int64],
    columns: tuple[NDArray[np.int32], ...],
    coefficients: tuple[Floats | None, ...],
    scaled: Floats,
    shape: tuple[int, int],
) -> csr_array:
    values = [scaled if one is None else scaled * one for one in coefficients]
    return csr_array(
        (np.concatenate(values), (np.tile(source, len(columns)), np.concatenate(columns))), shape=shape
    )


@dataclass(frozen=True, slots=True)
class Factored:
    """A bordered matrix, ready to be solved with."""

    inner: SuperLU
    across: Floats
    """Inverse of the inner part times the border."""
    schur: tuple[Floats, bool]
    n_exposures: int

    def solve(self, right: Floats) -> Floats:
        """The solution for a right side, shape (unknowns,)."""
        first, second = right[: self.n_exposures], right[self.n_exposures :]
        rest = cho_solve(self.schur, second - self.across.T @ first, check_finite=False)
        return np.concatenate([self.inner.solve(first) - self.across @ rest, rest])

    def variances(self) -> Floats | None:
        """Diagonal of the inverse, shape (unknowns,); None where that would take too long."""
        n = self.n_exposures
        if float(self.inner.nnz) * n > _MOST_WORK:
            return None
        rest = cho_solve(self.schur, np.eye(self.across.shape[1]), check_finite=False)
        inner = np.concatenate(list(self._inner_variances()))
        inner += np.einsum("ij,jk,ik->i", self.across, rest, self.across, optimize=True)
        return np.concatenate([inner, np.diag(rest)])

    def _inner_variances(self) -> Iterator[Floats]:
        n = self.n_exposures
        for low in range(0, n, _CHUNK):
            place = np.arange(low, min(low + _CHUNK, n))
            unit = np.zeros((n, len(place)))
            unit[place, np.arange(len(place))] = 1.0
            yield self.inner.solve(unit)[place, np.arange(len(place))]


def factor(matrix: Bordered) -> Factored:
    """Factor it; it must be positive definite (as priors make it)."""
    inner = splu(
        matrix.inner,
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    across = inner.solve(matrix.border)
    schur = cho_factor(matrix.rest - matrix.border.T @ across, lower=True, check_finite=False)
    return Factored(inner, across, schur, matrix.inner.shape[0])
