"""The astrometric solution of one CCD: a polynomial from pixels to the tangent plane, robustly fitted.

The degree is what the matches can bear: judged by leave-one-out prediction, and by how well the
polynomial is held at the CCD's corners.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from spica_imaging.polynomial import as_matrix, design, terms, tpv_from_polynomials
from spica_imaging.stats import SIGMA_PER_MAD
from spica_imaging.wcs import TpvWcs, tan_deproject, tan_project

from spica_calib.science.astrometry.least_squares import RobustFit, robust_lstsq
from spica_calib.science.matching.search import Index, mutual_nearest
from spica_calib.science.stars import CcdField, Floats, Stars

_WORTH = 0.97
"""A higher degree must predict left-out stars better by this factor."""
_WIDE_PX, _WIDE_ROUNDS = 4.0, 4
"""Radius and number of the rounds that look for stars far from a linear guess."""
_MAX_ROUNDS = 12


@dataclass(frozen=True, slots=True)
class PolynomialFit:
    """Two coordinates as polynomials of normalised pixel coordinates."""

    degree: int
    fit: RobustFit

    @property
    def matrices(self) -> tuple[Floats, Floats]:
        """Coefficients as matrices c[i, j] of u**i v**j."""
        xi, eta = self.fit.solution.T
        return as_matrix(xi, self.degree), as_matrix(eta, self.degree)

    @property
    def corner_error(self) -> float:
        """Largest standard error of the model at the corners, in the targets' unit."""
        u, v = np.array([-1.0, -1.0, 1.0, 1.0]), np.array([-1.0, 1.0, -1.0, 1.0])
        return float(self.fit.model_error(design(u, v, self.degree)).max())


def fit_polynomial(u: Floats, v: Floats, targets: Floats, error: Floats, degree: int) -> PolynomialFit:
    """Robust fit; `u`, `v` in about [-1, 1], shape (n,); `targets`, shape (n, 2); `error`, shape (n,)."""
    return PolynomialFit(degree, robust_lstsq(design(u, v, degree), targets, error))


def candidates(u: Floats, v: Floats, targets: Floats, error: Floats, max_degree: int) -> list[PolynomialFit]:
    """Fits of degree 1 and up that the points can bear: two per term, and spread enough to hold the corners.

    There a higher degree must be surer of itself than the lower one is of a star anywhere.
    """
    fits = [fit_polynomial(u, v, targets, error, 1)]
    for degree in range(2, max_degree + 1):
        if len(u) < 2 * len(terms(degree)) + 2:
            break
        fit = fit_polynomial(u, v, targets, error, degree)
        if fit.corner_error <= fits[-1].fit.scatter:
            fits.append(fit)
    return fits


def most_predictive(fits: Sequence[PolynomialFit]) -> PolynomialFit:
    """The lowest degree after which no higher one predicts left-out points notably better."""
    limit = 3.0 * max(fits[0].fit.scatter, 1e-12)

    def score(candidate: PolynomialFit) -> float:
        return float(np.sqrt(np.mean(np.minimum(np.abs(candidate.fit.left_out), limit) ** 2)))

    best = fits[0]
    for higher in fits[1:]:
        if score(higher) < _WORTH * score(best):
            best = higher
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


def to_wcs(field: CcdField, crval: tuple[float, float], polynomial: PolynomialFit) -> TpvWcs:
    """Turn a fit (arcsec in the plane at `crval`) into a TPV WCS with CRPIX at the CCD's centre.

    The constant term moves the tangent point: what is left of it by the change of plane is of
    second order, and the caller iterates.
    """
    xi, eta = (matrix / 3600.0 for matrix in polynomial.matrices)
    ra, dec = tan_deproject(xi[0, 0], eta[0, 0], *crval)
    xi[0, 0] = eta[0, 0] = 0.0
    return tpv_from_polynomials((float(ra), float(dec)), field.centre, xi, eta, _scale(field))


def wcs_through(
    field: CcdField, sky_of: Callable[[Floats, Floats], tuple[Floats, Floats]], degree: int
) -> TpvWcs:
    """Put a WCS through any smooth map from pixels to the sky, sampled on a grid over the CCD.

    Use degree 3 or more where the map belongs to another tangent point: going over to the CCD's own
    tangent plane bends the coordinates a little.
    """
    u, v = (
        c.ravel()
        for c in np.meshgrid(
            np.linspace(-1.0, 1.0, degree + 4) * field.nx / 2.0 / _scale(field),
            np.linspace(-1.0, 1.0, degree + 4) * field.ny / 2.0 / _scale(field),
        )
    )
    ra, dec = sky_of(field.centre[0] + _scale(field) * u, field.centre[1] + _scale(field) * v)
    middle = sky_of(np.array([field.centre[0]]), np.array([field.centre[1]]))
    crval = float(middle[0][0]), float(middle[1][0])
    plane = np.column_stack(tan_project(ra, dec, *crval)) * 3600.0
    coefficients: Floats = np.linalg.lstsq(design(u, v, degree), plane, rcond=None)[0].astype(np.float64)
    xi, eta = (as_matrix(coefficients[:, axis] / 3600.0, degree) for axis in (0, 1))
    wcs = tpv_from_polynomials(crval, field.centre, xi, eta, _scale(field))
    # The constant is what the polynomial leaves at the centre: far below a mas, but kept.
    return replace(wcs, pv1=(float(xi[0, 0]), *wcs.pv1[1:]), pv2=(float(eta[0, 0]), *wcs.pv2[1:]))


def solve_ccd(
    field: CcdField, stars: Stars, first_guess: TpvWcs, radius_arcsec: float, max_degree: int
) -> CcdSolution | None:
    """Match and fit in turn, from a first guess good to `radius_arcsec`; None with fewer than 4 matches.

    The degree is the highest that the matches can bear until all are found, then the most predictive one, up to
    `max_degree`. The radius stays wide for some rounds, so that stars at the corners, where a linear guess is off by the
    distortion, are met once the polynomial bends there; then it follows the residuals down to one pixel.
    """
    sources = field.sources
    pixel = first_guess.scale_at(*field.centre)
    # Wide, but one source in ten at most meets a stranger.
    lonely = float(np.sqrt(0.1 * field.nx * field.ny / (np.pi * max(len(sources), 1))))
    wide = pixel * max(1.0, min(_WIDE_PX, lonely))
    radius = max(radius_arcsec, wide)
    wcs, solution = first_guess, None
    for step in range(_MAX_ROUNDS):
        crval = tuple(float(value) for value in wcs.pixel_to_sky(*field.centre))
        pairs = _neighbours(field, stars, wcs, (crval[0], crval[1]), radius)
        if len(pairs.source) < 4:
            return None
        fits = candidates(
            (sources.x[pairs.source] - field.centre[0]) / _scale(field),
            (sources.y[pairs.source] - field.centre[1]) / _scale(field),
            pairs.target,
            np.hypot(sources.weight_error_px[pairs.source] * pixel, stars.error_arcsec[pairs.star]),
            max_degree if step else 1,
        )
        # While stars at the corners may still be missing, only the highest degree reaches out for them.
        fit = fits[-1] if step <= _WIDE_ROUNDS else most_predictive(fits)
        if step > _WIDE_ROUNDS:
            max_degree = fit.degree
        previous, wcs = wcs, to_wcs(field, (crval[0], crval[1]), fit)
        settled = (
            solution is not None
            and step > _WIDE_ROUNDS
            and np.array_equal(solution.source, pairs.source)
            and np.array_equal(solution.star, pairs.star)
            and _moved_arcsec(previous, wcs, field) < 1e-6
        )
        solution = CcdSolution(
            wcs,
            fit.degree,
            pairs.source,
            pairs.star,
            fit.fit.weight,
            _residuals(field, stars, wcs, pairs),
            fit.fit.scatter,
        )
        if settled:
            break
        floor = wide if fit.degree > 1 and step < _WIDE_ROUNDS else pixel
        radius = float(np.clip(4.0 * fit.fit.scatter, floor, max(radius, floor)))
    return solution


@dataclass(frozen=True, slots=True)
class _Pairs:
    source: Index
    star: Index
    target: Floats
    """The stars in the tangent plane, arcsec, shape (n, 2)."""


def _neighbours(
    field: CcdField, stars: Stars, wcs: TpvWcs, crval: tuple[float, float], radius: float
) -> _Pairs:
    """Sources and stars that are each other's nearest, in the plane at `crval`."""
    plane = np.column_stack(tan_project(stars.ra_deg, stars.dec_deg, *crval)) * 3600.0
    reach = 1.1 * wcs.scale_at(*field.centre) * np.hypot(field.nx, field.ny) / 2.0 + radius
    near = np.flatnonzero(np.hypot(*plane.T) < reach)
    x, y = tan_project(*wcs.pixel_to_sky(field.sources.x, field.sources.y), *crval)
    i, j = mutual_nearest(3600.0 * x, 3600.0 * y, KDTree(plane[near]), radius)
    return _Pairs(i, near[j], plane[near[j]])


def _moved_arcsec(a: TpvWcs, b: TpvWcs, field: CcdField) -> float:
    """How far corners and centre of the CCD lie apart in two solutions."""
    x = np.array([1.0, field.nx, 1.0, field.nx, field.centre[0]])
    y = np.array([1.0, 1.0, field.ny, field.ny, field.centre[1]])
    ra, dec = a.pixel_to_sky(x, y)
    xi, eta = tan_project(*b.pixel_to_sky(x, y), float(ra[4]), float(dec[4]))
    xi0, eta0 = tan_project(ra, dec, float(ra[4]), float(dec[4]))
    return 3600.0 * float(np.hypot(xi - xi0, eta - eta0).max())


def _residuals(field: CcdField, stars: Stars, wcs: TpvWcs, pairs: _Pairs) -> Floats:
    ra, dec = wcs.pixel_to_sky(field.sources.x[pairs.source], field.sources.y[pairs.source])
    d_ra = np.mod(stars.ra_deg[pairs.star] - ra + 180.0, 360.0) - 180.0
    return np.column_stack((d_ra * np.cos(np.radians(dec)), stars.dec_deg[pairs.star] - dec)) * 3600.0


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


def residual_statistics(solutions: Sequence[CcdSolution]) -> ResidualStatistics:
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
