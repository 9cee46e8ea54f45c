"""What an affine map leaves of a CCD's distortion: a polynomial on top, where the matches bear one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from spica_imaging.polynomial import as_matrix, design, terms, tpv_from_polynomials
from spica_imaging.wcs import TpvWcs, tan_deproject, tan_project

from spica_calib.science.matching.geometry import Motion
from spica_calib.science.matching.neighbours import Grid, grid_of, mutual_pairs
from spica_calib.science.matching.search import PlaneMatch, Stage
from spica_calib.science.stars import CcdField, Floats

_DEGREES = (2, 3)
_PER_TERM = 4
"""Matches per term that a polynomial needs."""
_ROUNDS = 6
_BETTER = 0.85
"""A polynomial is taken if it leaves so much of the residuals, or finds as many more matches."""
_ARCSEC = 3600.0


@dataclass(frozen=True, slots=True)
class Bend:
    """A polynomial in the tangent plane: where points lie after it."""

    degree: int
    half: float
    coefficients: Floats
    """Shape (terms, 2), arcsec, of coordinates in units of `half`."""
    n_matched: int
    sigma_arcsec: float
    """Per axis, of what is left."""
    radius_arcsec: float
    corner_arcsec: float
    """Standard error per axis where it is largest of the frame's corners."""

    def apply(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Map points, arcsec."""
        mapped = design(x / self.half, y / self.half, self.degree) @ self.coefficients
        return mapped[..., 0], mapped[..., 1]


def _fitted(
    x: Floats, y: Floats, grid: Grid, start: Bend, degree: int, widest: float, pixel: float, corners: Floats
) -> Bend | None:
    """Neighbours and polynomial in turn; None with too few matches."""
    bend, radius, previous = start, widest, -1
    edge = design(corners[:, 0] / start.half, corners[:, 1] / start.half, degree)
    for _ in range(_ROUNDS):
        px, py = bend.apply(x, y)
        first, second = mutual_pairs(px, py, grid, np.eye(2), np.zeros(2), radius)
        n_terms = len(terms(degree))
        if len(first) < _PER_TERM * n_terms:
            return None
        matrix = design(x[first] / start.half, y[first] / start.half, degree)
        goal = np.column_stack((grid.x[second], grid.y[second]))
        coefficients: Floats = np.linalg.lstsq(matrix, goal, rcond=None)[0].astype(np.float64)
        residual = np.hypot(*(matrix @ coefficients - goal).T)
        # The median of a Rayleigh distribution is 1.177 sigma.
        sigma = float(np.median(residual)) / 1.177
        normal = np.linalg.pinv(matrix.T @ matrix)
        error = sigma * float(np.sqrt(np.einsum("ij,jk,ik->i", edge, normal, edge).max()))
        bend = Bend(degree, start.half, coefficients, len(first), sigma, radius, error)
        radius = min(radius, max(pixel, 4.0 * sigma))
        if len(first) == previous and radius == bend.radius_arcsec:
            break
        previous = len(first)
    return bend


def bend_of(stage: Stage, match: PlaneMatch) -> Bend | None:
    """The polynomial that fits a match's neighbourhood better than its affine map; None where none does."""
    pixel = stage.frame.pixel_arcsec
    half = stage.frame.half_diagonal
    x, y = stage.image.x, stage.image.y
    corners = stage.frame.corners.reshape(-1, 2)
    grid = grid_of(stage.stars.x, stage.stars.y, 3.0 * max(match.radius_arcsec, pixel))
    linear = np.column_stack((match.offset, half * match.matrix)).T
    best = _fitted(
        x, y, grid, Bend(1, half, linear, 0, 0.0, 0.0, 0.0), 1, match.radius_arcsec, pixel, corners
    )
    taken: Bend | None = None
    for degree in _DEGREES:
        if best is None:
            break
        found = _fitted(x, y, grid, best, degree, 2.0 * max(match.radius_arcsec, pixel), pixel, corners)
        if (
            found is not None
            and found.corner_arcsec <= max(pixel, 2.0 * found.sigma_arcsec)
            and (
                (
                    found.sigma_arcsec < _BETTER * best.sigma_arcsec
                    and found.n_matched >= 0.95 * best.n_matched
                )
                or _BETTER * found.n_matched > best.n_matched
            )
        ):
            best = taken = found
    return taken


def bent_wcs(field: CcdField, told: Motion, bend: Bend) -> TpvWcs:
    """The WCS of a CCD whose sources lie, in the tangent plane at a motion's target, where a polynomial puts them."""
    degree = max(bend.degree, field.wcs.degree, 3)
    half = 0.5 * max(field.nx, field.ny)
    knots = np.linspace(-1.0, 1.0, degree + 3)
    u, v = (c.ravel() for c in np.meshgrid(knots * field.nx / 2.0 / half, knots * field.ny / 2.0 / half))
    x, y = np.append(u, 0.0) * half + field.centre[0], np.append(v, 0.0) * half + field.centre[1]
    assumed = np.stack(tan_project(*field.wcs.pixel_to_sky(x, y), *told.origin)) * _ARCSEC
    linear = told.matrix @ assumed + told.offset_arcsec[:, None]
    xi, eta = bend.apply(linear[0], linear[1])
    ra, dec = tan_deproject(xi / _ARCSEC, eta / _ARCSEC, *told.target)
    crval = float(ra[-1]), float(dec[-1])
    plane = np.column_stack(tan_project(ra[:-1], dec[:-1], *crval))
    coefficients = np.linalg.lstsq(design(u, v, degree), plane, rcond=None)[0].astype(np.float64)
    first, second = (as_matrix(coefficients[:, axis], degree) for axis in (0, 1))
    wcs = tpv_from_polynomials(crval, field.centre, first, second, half)
    # The constant is what the polynomial leaves at the centre: far below a mas, but kept.
    return replace(wcs, pv1=(float(first[0, 0]), *wcs.pv1[1:]), pv2=(float(second[0, 0]), *wcs.pv2[1:]))
