"""The astrometric solution of one CCD: a polynomial from pixels to the tangent plane, robustly fitted.

The degree is what the matches can bear: judged by leave-one-out prediction, and by how well the
polynomial is held at the CCD's corners.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from spica_imaging.polynomial import as_matrix, design, terms, tpv_from_polynomials
from spica_imaging.stats import SIGMA_PER_MAD
from spica_imaging.wcs import TpvWcs, tan_deproject, tan_project

from spica_calib.science.matching import Index, mutual_nearest
from spica_calib.science.stars import CcdField, Floats, Stars

_HUBER = 2.0
"""Residuals beyond this many standard deviations count less than by their square."""
_CUT = 4.0
"""Beyond this many they do not count."""
_WORTH = 0.97
"""A higher degree must predict left-out stars better by this factor."""
_MAX_CORNER_LEVERAGE = 1.0
"""At the corners the model's error must stay below that of one star's position."""


@dataclass(frozen=True, slots=True)
class PolynomialFit:
    """A robust fit of two coordinates by polynomials of normalised pixel coordinates."""

    degree: int
    xi: Floats
    eta: Floats
    """Coefficients in the order of `spica_imaging.polynomial.terms`."""
    weight: Floats
    """Final weights, shape (n,): 0 for points that were cut."""
    residual: Floats
    """Shape (n, 2): target minus model, in the targets' unit."""
    left_out: Floats
    """Residuals of each point against the model without it, shape (n, 2)."""
    scatter: float
    """Robust standard deviation per axis."""
    corner_leverage: float


def robust_polynomial(u: Floats, v: Floats, targets: Floats, error: Floats, degree: int) -> PolynomialFit:
    """Iteratively reweighted least squares (Huber, with a cut), both axes with the same weights.

    `u`, `v` in about [-1, 1], shape (n,); `targets`, shape (n, 2); `error`, standard error per axis of
    each point in the targets' unit, to which a common scatter is added as the residuals demand.
    """
    basis = design(u, v, degree)
    factor = np.ones(len(u))
    extra = 0.0
    for _ in range(12):
        sigma = np.sqrt(error**2 + extra**2)
        weight = factor / sigma**2
        root = np.sqrt(weight)[:, None]
        q, r = np.linalg.qr(basis * root)
        solution = np.linalg.lstsq(r, q.T @ (targets * root), rcond=None)[0]
        residual = targets - basis @ solution
        normal = np.abs(residual).max(axis=1)
        kept = factor > 0
        # Points used for the fit fall closer to it than others: allow for the freedom it took.
        freedom = max(1.0 - basis.shape[1] / max(kept.sum(), 1), 0.2)
        spread = SIGMA_PER_MAD * np.median(np.abs(residual[kept])) / np.sqrt(freedom)
        extra_new = np.sqrt(max(spread**2 - np.median(error[kept]) ** 2, 0.0))
        sigma = np.sqrt(error**2 + extra_new**2)
        ratio = normal / sigma
        factor_new = np.where(ratio <= _HUBER, 1.0, _HUBER / np.maximum(ratio, 1e-12))
        factor_new = np.where(ratio > _CUT, 0.0, factor_new)
        if np.count_nonzero(factor_new) < basis.shape[1] + 1:
            break
        moved = np.abs(factor_new - factor).max() > 1e-3 or abs(extra_new - extra) > 1e-3 * spread
        factor, extra = factor_new, extra_new
        if not moved:
            break
    leverage = np.clip((q**2).sum(axis=1), 0.0, 0.999)
    return PolynomialFit(
        degree=degree,
        xi=solution[:, 0],
        eta=solution[:, 1],
        weight=weight,
        residual=residual,
        left_out=residual / (1.0 - leverage)[:, None],
        scatter=float(spread),
        corner_leverage=_corner_leverage(r, degree, float(np.median(sigma[kept]))),
    )


def _corner_leverage(r: Floats, degree: int, sigma: float) -> float:
    """Largest standard error of the model at the corners, over that of a typical point."""
    corner = np.array([-1.0, -1.0, 1.0, 1.0]), np.array([-1.0, 1.0, -1.0, 1.0])
    if np.linalg.matrix_rank(r) < r.shape[1]:
        return np.inf
    spread = np.linalg.solve(r.T, design(*corner, degree).T)
    return float(np.sqrt((spread**2).sum(axis=0).max()) / sigma)


def choose_degree(u: Floats, v: Floats, targets: Floats, error: Floats, max_degree: int) -> PolynomialFit:
    """Raise the degree as long as it predicts left-out points better and is held at the corners."""
    best = robust_polynomial(u, v, targets, error, 1)
    limit = 3.0 * max(best.scatter, 1e-12)

    def score(fit: PolynomialFit) -> float:
        return float(np.sqrt(np.mean(np.minimum(np.abs(fit.left_out), limit) ** 2)))

    for degree in range(2, max_degree + 1):
        if len(u) < 2 * len(terms(degree)) + 2:
            break
        fit = robust_polynomial(u, v, targets, error, degree)
        if fit.corner_leverage <= _MAX_CORNER_LEVERAGE and score(fit) < _WORTH * score(best):
            best = fit
    return best


@dataclass(frozen=True, slots=True)
class CcdSolution:
    """The solution of one CCD and the matches it stands on."""

    wcs: TpvWcs
    degree: int
    source: Index
    star: Index
    """Matched pairs (indices into the CCD's sources and into the stars)."""
    weight: Floats
    """0 for pairs that were cut."""
    residual_arcsec: Floats
    """Shape (n, 2): star minus source along RA·cos(Dec) and Dec."""
    scatter_arcsec: float


def _scale(field: CcdField) -> float:
    return max(field.nx, field.ny) / 2.0


def to_wcs(field: CcdField, crval: tuple[float, float], fit: PolynomialFit) -> TpvWcs:
    """Turn a fit (arcsec in the plane at `crval`) into a TPV WCS with CRPIX at the CCD's centre.

    The constant term moves the tangent point: what is left of it by the change of plane is of
    second order, and the caller iterates.
    """
    xi, eta = as_matrix(fit.xi / 3600.0, fit.degree), as_matrix(fit.eta / 3600.0, fit.degree)
    ra, dec = tan_deproject(xi[0, 0], eta[0, 0], *crval)
    xi[0, 0] = eta[0, 0] = 0.0
    return tpv_from_polynomials((float(ra), float(dec)), field.centre, xi, eta, _scale(field))


def solve_ccd(
    field: CcdField,
    stars: Stars,
    first_guess: TpvWcs,
    radius_arcsec: float,
    max_degree: int,
    fixed_degree: int | None = None,
) -> CcdSolution | None:
    """Match and fit in turn, from a first guess good to `radius_arcsec`; None with fewer than 4 matches.

    The matching radius follows the residuals and never falls below one pixel.
    """
    sources = field.sources
    wcs, radius = first_guess, radius_arcsec
    pixel = first_guess.scale_at(*field.centre)
    u = (sources.x - field.centre[0]) / _scale(field)
    v = (sources.y - field.centre[1]) / _scale(field)
    error = sources.weight_error_px * pixel
    star_error = np.where(np.isfinite(stars.error_mas), stars.error_mas, 20.0) / 1000.0
    solution: CcdSolution | None = None
    allowed = 1
    for step in range(10):
        crval = tuple(float(value) for value in wcs.pixel_to_sky(*field.centre))
        plane = np.column_stack(tan_project(stars.ra_deg, stars.dec_deg, crval[0], crval[1])) * 3600.0
        near = np.flatnonzero(np.hypot(*plane.T) < 1.5 * _scale(field) * 1.5 * pixel + radius)
        if len(near) < 4:
            return None
        x, y = (c * 3600.0 for c in tan_project(*wcs.pixel_to_sky(sources.x, sources.y), crval[0], crval[1]))
        i, near_j = mutual_nearest(x, y, KDTree(plane[near]), radius)
        if len(i) < 4:
            return None
        j = near[near_j]
        errors = np.hypot(error[i], star_error[j])
        if fixed_degree is None:
            fit = choose_degree(u[i], v[i], plane[j], errors, min(max_degree, allowed))
        else:
            fit = robust_polynomial(u[i], v[i], plane[j], errors, fixed_degree)
        previous, wcs = wcs, to_wcs(field, (crval[0], crval[1]), fit)
        settled = (
            solution is not None
            and np.array_equal(solution.source, i)
            and np.array_equal(solution.star, j)
            and _moved_arcsec(previous, wcs, field) < 1e-6
        )
        solution = CcdSolution(
            wcs, fit.degree, i, j, fit.weight, _residuals(field, stars, wcs, i, j), fit.scatter
        )
        if settled and allowed >= max_degree:
            break
        allowed = max_degree if step >= 1 else 1
        radius = float(np.clip(5.0 * fit.scatter, pixel, radius))
    return solution


def _moved_arcsec(a: TpvWcs, b: TpvWcs, field: CcdField) -> float:
    """How far corners and centre of the CCD lie apart in two solutions."""
    x = np.array([1.0, field.nx, 1.0, field.nx, field.centre[0]])
    y = np.array([1.0, 1.0, field.ny, field.ny, field.centre[1]])
    ra, dec = a.pixel_to_sky(x, y)
    xi, eta = tan_project(*b.pixel_to_sky(x, y), float(ra[4]), float(dec[4]))
    xi0, eta0 = tan_project(ra, dec, float(ra[4]), float(dec[4]))
    return 3600.0 * float(np.hypot(xi - xi0, eta - eta0).max())


def _residuals(field: CcdField, stars: Stars, wcs: TpvWcs, i: Index, j: Index) -> Floats:
    ra, dec = wcs.pixel_to_sky(field.sources.x[i], field.sources.y[i])
    d_ra = np.mod(stars.ra_deg[j] - ra + 180.0, 360.0) - 180.0
    return np.column_stack((d_ra * np.cos(np.radians(dec)), stars.dec_deg[j] - dec)) * 3600.0


@dataclass(frozen=True, slots=True)
class ResidualStatistics:
    """How well a solution fits, over all CCDs, in mas. Matches cut as outliers do not count."""

    n: int
    median_ra: float
    median_dec: float
    """Median absolute residual per axis."""
    rms_ra: float
    rms_dec: float
    """Robust standard deviation per axis."""


def residual_statistics(solutions: list[CcdSolution]) -> ResidualStatistics:
    """Combine the residuals of all CCDs."""
    parts: list[NDArray[np.float64]] = [s.residual_arcsec[s.weight > 0] for s in solutions]
    residual = np.concatenate(parts) if parts else np.empty((0, 2))
    if not len(residual):
        return ResidualStatistics(0, np.nan, np.nan, np.nan, np.nan)
    absolute = 1000.0 * np.median(np.abs(residual), axis=0)
    spread = 1000.0 * SIGMA_PER_MAD * np.median(np.abs(residual - np.median(residual, axis=0)), axis=0)
    return ResidualStatistics(
        len(residual), float(absolute[0]), float(absolute[1]), float(spread[0]), float(spread[1])
    )
