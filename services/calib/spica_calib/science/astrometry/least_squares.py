"""Robust linear least squares for two coordinates at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from spica_imaging.stats import SIGMA_PER_MAD

from spica_calib.science.stars import Floats

_HUBER = 2.0
"""Residuals beyond this many standard deviations count less than by their square."""
_CUT = 4.0
"""Beyond this many they do not count."""
_MAX_STEPS = 15


@dataclass(frozen=True, slots=True)
class RobustFit:
    """Result of `robust_lstsq`."""

    solution: Floats
    """Shape (terms, 2)."""
    weight: Floats
    """Final weights, shape (n,): 0 for points that were cut."""
    residual: Floats
    """Shape (n, 2): target minus model."""
    left_out: Floats
    """Residual of each point against the model without it, shape (n, 2)."""
    scatter: float
    """Robust standard deviation per axis, corrected for the freedom the fit took."""
    sigma: float
    """Standard error per axis that a typical point was given."""
    root: Floats
    """R of the QR decomposition of the weighted basis, shape (terms, terms)."""

    def model_error(self, basis: Floats) -> Floats:
        """Standard error per axis of the model at other points, from their rows of the basis."""
        if np.linalg.matrix_rank(self.root) < len(self.root):
            return np.full(len(basis), np.inf)
        spread = np.linalg.solve(self.root.T, basis.T)
        error: Floats = np.sqrt((spread**2).sum(axis=0))
        return error


def robust_lstsq(basis: Floats, targets: Floats, error: Floats) -> RobustFit:
    """Iteratively reweighted least squares (Huber 1964, with a cut), both axes with the same weights.

    `basis`, shape (n, terms); `targets`, shape (n, 2); `error`, standard error per axis of each point, shape (n,),
    to which a common scatter is added as the residuals demand. Points are never cut to fewer than terms + 1.
    """
    n_terms = basis.shape[1]
    factor, extra = np.ones(len(basis)), 0.0
    for _ in range(_MAX_STEPS):
        sigma = np.hypot(error, extra)
        weight = factor / sigma**2
        root_weight = np.sqrt(weight)[:, None]
        q, r = np.linalg.qr(basis * root_weight)
        solution = np.linalg.lstsq(r, q.T @ (targets * root_weight), rcond=None)[0]
        residual = targets - basis @ solution
        kept = factor > 0
        # Points used for a fit fall closer to it than others: allow for the freedom it took.
        freedom = max(1.0 - n_terms / np.count_nonzero(kept), 0.2)
        spread = SIGMA_PER_MAD * float(np.median(np.abs(residual[kept]))) / np.sqrt(freedom)
        new_extra = float(np.sqrt(max(spread**2 - float(np.median(error[kept])) ** 2, 0.0)))
        ratio = np.abs(residual).max(axis=1) / np.hypot(error, new_extra)
        new_factor = np.where(ratio <= _HUBER, 1.0, _HUBER / np.maximum(ratio, _HUBER))
        new_factor[ratio > _CUT] = 0.0
        if np.count_nonzero(new_factor) <= n_terms:
            break
        moved = np.abs(new_factor - factor).max() > 1e-3 or abs(new_extra - extra) > 1e-3 * spread
        factor, extra = new_factor, new_extra
        if not moved:
            break
    leverage = np.clip((q**2).sum(axis=1), 0.0, 0.999)
    return RobustFit(
        solution=solution,
        weight=weight,
        residual=residual,
        left_out=residual / (1.0 - leverage)[:, None],
        scatter=float(spread),
        sigma=float(np.median(sigma[kept])),
        root=r,
    )
