"""From pixels to the sky: gnomonic projection (TAN) with polynomial distortion (TPV).

Conventions: FITS pixel coordinates (the first pixel's centre is 1), angles in degrees, ICRS.
Standards: Calabretta & Greisen 2002 (A&A 395, 1077; FITS WCS paper II) for TAN, the registered
FITS convention "TPV World Coordinate System" for the polynomial, Shupe et al. 2012 (SPIE 8451)
for the relation of SIP and TPV polynomials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

N_PV = 40
MAX_DEGREE = 7
_RADIAL = {3: 1, 11: 3, 23: 5, 39: 7}
"""TPV index -> odd power of r = sqrt(xi² + eta²)."""


def _powers() -> dict[int, tuple[int, int]]:
    """TPV index -> powers of (own coordinate, other coordinate), for the terms without r."""
    table, index = {}, 0
    for degree in range(MAX_DEGREE + 1):
        for other in range(degree + 1):
            table[index] = (degree - other, other)
            index += 1
        if degree % 2:
            index += 1  # the place of r**degree
    return table


TPV_POWERS = _powers()
IDENTITY_PV = tuple(1.0 if index == 1 else 0.0 for index in range(N_PV))
_NEWTON_STEPS = 30
_NEWTON_TOLERANCE_DEG = 1e-14


class WcsError(ValueError):
    """The header has no WCS, or one of a kind that is not known here."""


def n_pv_for(degree: int) -> int:
    """How many TPV coefficients (PVi_0 ... ) a polynomial of this degree has, radial terms included."""
    return 1 + max(
        *(index for index, (own, other) in TPV_POWERS.items() if own + other <= degree),
        *(index for index, power in _RADIAL.items() if power <= degree),
        0,
    )


def tan_project(
    ra_deg: ArrayLike, dec_deg: ArrayLike, ra0_deg: float, dec0_deg: float
) -> tuple[Floats, Floats]:
    """Gnomonic projection to the tangent plane at (ra0, dec0).

    Returns xi (towards east) and eta (north) in degrees, shaped as the input; NaN for points 90°
    or more from the tangent point. Paper II, equations 12, 13, 54, with LONPOLE = 180°.
    """
    ra = np.radians(np.asarray(ra_deg, dtype=np.float64) - ra0_deg)
    dec, dec0 = np.radians(np.asarray(dec_deg, dtype=np.float64)), np.radians(dec0_deg)
    sin_dec, cos_dec, cos_ra = np.sin(dec), np.cos(dec), np.cos(ra)
    denominator = np.sin(dec0) * sin_dec + np.cos(dec0) * cos_dec * cos_ra
    denominator = np.where(denominator > 0.0, denominator, np.nan)
    xi = cos_dec * np.sin(ra) / denominator
    eta = (np.cos(dec0) * sin_dec - np.sin(dec0) * cos_dec * cos_ra) / denominator
    return np.degrees(xi), np.degrees(eta)


def tan_deproject(
    xi_deg: ArrayLike, eta_deg: ArrayLike, ra0_deg: float, dec0_deg: float
) -> tuple[Floats, Floats]:
    """Inverse of `tan_project`: RA in [0, 360) and Dec, degrees."""
    xi = np.radians(np.asarray(xi_deg, dtype=np.float64))
    eta = np.radians(np.asarray(eta_deg, dtype=np.float64))
    dec0 = np.radians(dec0_deg)
    along = np.cos(dec0) - eta * np.sin(dec0)
    ra = ra0_deg + np.degrees(np.arctan2(xi, along))
    dec = np.degrees(np.arctan2(np.sin(dec0) + eta * np.cos(dec0), np.hypot(xi, along)))
    ra = np.mod(ra, 360.0)
    return np.where(ra >= 360.0, 0.0, ra), dec


def _coefficients(pv: tuple[float, ...], swap: bool) -> Floats:
    """TPV coefficients as a matrix c[i, j] of xi**i * eta**j; `swap` for the second axis."""
    degree = max((sum(p) for k, p in TPV_POWERS.items() if k < len(pv) and pv[k]), default=0)
    matrix = np.zeros((degree + 1, degree + 1))
    for index, (own, other) in TPV_POWERS.items():
        if index < len(pv) and pv[index]:
            matrix[(other, own) if swap else (own, other)] = pv[index]
    return matrix


def _derivative(matrix: Floats, axis: int) -> Floats:
    """Differentiate the polynomial c[i, j] xi**i eta**j along one axis; same layout."""
    moved = np.moveaxis(matrix, axis, 0)
    steps = np.arange(1, len(moved), dtype=np.float64).reshape(-1, 1)
    return np.moveaxis(moved[1:] * steps, 0, axis) if len(moved) > 1 else np.zeros((1, 1))


def _evaluate(matrix: Floats, xi: Floats, eta: Floats) -> Floats:
    """Horner's rule in both variables, leaving out what is zero."""
    total = np.zeros_like(xi)
    for row in matrix[::-1]:
        nonzero = np.flatnonzero(row)
        inner: Any = 0.0
        for value in row[: nonzero[-1] + 1][::-1] if len(nonzero) else ():
            inner = inner * eta + value
        total *= xi
        total += inner
    return total


@dataclass(frozen=True)
class TpvWcs:
    """World coordinates of one CCD: x, y -> CD matrix -> TPV polynomial -> gnomonic -> RA, Dec."""

    crval: tuple[float, float]
    """RA and Dec (deg) of the tangent point."""
    crpix: tuple[float, float]
    cd: tuple[tuple[float, float], tuple[float, float]]
    """Degrees per pixel: ((dxi/dx, dxi/dy), (deta/dx, deta/dy))."""
    pv1: tuple[float, ...] = IDENTITY_PV
    """Coefficients PV1_0 ... of the xi axis, `N_PV` of them."""
    pv2: tuple[float, ...] = IDENTITY_PV
    """Coefficients PV2_0 ... of the eta axis (whose own coordinate is eta)."""

    def __post_init__(self) -> None:
        (a, b), (c, d) = self.cd
        numbers = (*self.crval, *self.crpix, a, b, c, d, *self.pv1, *self.pv2)
        if not np.all(np.isfinite(numbers)) or a * d == b * c:
            raise WcsError(f"WCS is singular or not finite: CD = {self.cd}, CRVAL = {self.crval}.")
        for name in ("pv1", "pv2"):
            pv = tuple(float(value) for value in getattr(self, name))
            object.__setattr__(self, name, (pv + (0.0,) * N_PV)[:N_PV])

    # ---- headers ----

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> TpvWcs:
        """Read TAN, TPV, TPV terms under CTYPE `RA---TAN` (old SCAMP), and SIP up to degree 7.

        RA and Dec may stand on either axis. FK5 at equinox 2000 is taken for ICRS (they agree to
        about 0.02″). Raises `WcsError` for anything else.
        """
        from spica_imaging.wcs_headers import wcs_from_header

        return wcs_from_header(header)

    def to_header(self) -> fits.Header:
        """WCS cards, all real numbers with a decimal point (SWarp 2.41 misreads ``2E-05``).

        Numbers are written in FITS fixed format: 20 characters, at least 13 digits.
        """
        from spica_imaging.wcs_headers import wcs_to_header

        return wcs_to_header(self)

    # ---- pixels to sky ----

    def pixel_to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
        """RA and Dec (deg) of FITS pixel positions; arrays of any (broadcastable) shape."""
        xi, eta = self.pixel_to_plane(x, y)
        return tan_deproject(xi, eta, *self.crval)

    def pixel_to_plane(self, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
        """Tangent-plane coordinates xi, eta (deg), distortion applied."""
        return self.distort(*self.pixel_to_linear(x, y))

    def pixel_to_linear(self, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
        """Intermediate coordinates (deg) before the distortion: CD times (pixel - CRPIX)."""
        dx = np.asarray(x, dtype=np.float64) - self.crpix[0]
        dy = np.asarray(y, dtype=np.float64) - self.crpix[1]
        (a, b), (c, d) = self.cd
        return a * dx + b * dy, c * dx + d * dy

    def distort(self, xi: ArrayLike, eta: ArrayLike) -> tuple[Floats, Floats]:
        """Apply the TPV polynomial."""
        u, v = np.broadcast_arrays(np.asarray(xi, dtype=np.float64), np.asarray(eta, dtype=np.float64))
        if self.degree == 0:
            return u.copy(), v.copy()
        first, second = self._polynomials
        out1, out2 = _evaluate(first, u, v), _evaluate(second, u, v)
        for index, power in _RADIAL.items():
            if self.pv1[index] or self.pv2[index]:
                radius = np.hypot(u, v) ** power
                out1 += self.pv1[index] * radius
                out2 += self.pv2[index] * radius
        return out1, out2

    # ---- sky to pixels ----

    def sky_to_pixel(self, ra_deg: ArrayLike, dec_deg: ArrayLike) -> tuple[Floats, Floats]:
        """FITS pixel positions of sky positions; NaN where there is none (far side, no convergence)."""
        return self.plane_to_pixel(*tan_project(ra_deg, dec_deg, *self.crval))

    def plane_to_pixel(self, xi: ArrayLike, eta: ArrayLike) -> tuple[Floats, Floats]:
        """Inverse of `pixel_to_plane`, by Newton iteration."""
        u, v = self._undistort(np.asarray(xi, dtype=np.float64), np.asarray(eta, dtype=np.float64))
        (a, b), (c, d) = self.cd
        determinant = a * d - b * c
        return (
            self.crpix[0] + (d * u - b * v) / determinant,
            self.crpix[1] + (a * v - c * u) / determinant,
        )

    def _undistort(self, xi: Floats, eta: Floats) -> tuple[Floats, Floats]:
        xi, eta = np.broadcast_arrays(xi, eta)
        if self.degree == 0:
            return xi.copy(), eta.copy()
        shape, target1, target2 = xi.shape, xi.ravel(), eta.ravel()
        u, v = target1.copy(), target2.copy()
        step = np.zeros_like(u)
        for _ in range(_NEWTON_STEPS):
            f1, f2 = self.distort(u, v)
            f1 -= target1
            f2 -= target2
            j11, j12, j21, j22 = self._jacobian(u, v)
            determinant = j11 * j22 - j12 * j21
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                du = (j22 * f1 - j12 * f2) / determinant
                dv = (j11 * f2 - j21 * f1) / determinant
                u -= du
                v -= dv
                step = np.maximum(np.abs(du), np.abs(dv))
            open_ends = step > _NEWTON_TOLERANCE_DEG * (1.0 + np.abs(target1) + np.abs(target2))
            if not np.any(open_ends & np.isfinite(step)):
                break
        # Rounding keeps the last steps of converged points near 1e-15; a point without solution wanders.
        lost = ~(step < 1e-11)
        u[lost] = np.nan
        v[lost] = np.nan
        return u.reshape(shape), v.reshape(shape)

    def _jacobian(self, u: Floats, v: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Partial derivatives of `distort`: d1/du, d1/dv, d2/du, d2/dv."""
        parts = [_evaluate(matrix, u, v) for matrix in self._derivatives]
        for index, power in _RADIAL.items():
            if self.pv1[index] or self.pv2[index]:
                radius = np.maximum(np.hypot(u, v), 1e-300)
                factor = power * radius ** (power - 2)
                for pv, place in ((self.pv1[index], 0), (self.pv2[index], 2)):
                    parts[place] = parts[place] + pv * factor * u
                    parts[place + 1] = parts[place + 1] + pv * factor * v
        return parts[0], parts[1], parts[2], parts[3]

    # ---- what it is like ----

    @cached_property
    def _polynomials(self) -> tuple[Floats, Floats]:
        return _coefficients(self.pv1, swap=False), _coefficients(self.pv2, swap=True)

    @cached_property
    def _derivatives(self) -> tuple[Floats, ...]:
        first, second = self._polynomials
        return (
            _derivative(first, 0),
            _derivative(first, 1),
            _derivative(second, 0),
            _derivative(second, 1),
        )

    @cached_property
    def degree(self) -> int:
        """Highest degree of the polynomial; 0 where there is none (pure TAN)."""
        if self.pv1 == IDENTITY_PV and self.pv2 == IDENTITY_PV:
            return 0
        used = [index for index in range(N_PV) if self.pv1[index] or self.pv2[index]]
        powers = [_RADIAL.get(index) or sum(TPV_POWERS.get(index, (0, 0))) for index in used]
        return max(1, *powers) if powers else 1

    def local_matrix(self, x: float, y: float) -> Floats:
        """Compute d(xi, eta)/d(x, y), degrees per pixel, at a pixel. Shape (2, 2)."""
        u, v = self.pixel_to_linear(x, y)
        if self.degree == 0:
            return np.array(self.cd)
        parts = [float(part) for part in self._jacobian(u, v)]
        matrix: Floats = np.array(parts).reshape(2, 2) @ np.array(self.cd)
        return matrix

    def scale_at(self, x: float, y: float) -> float:
        """Pixel scale (arcsec; square root of the pixel's solid angle in the tangent plane) at a pixel."""
        return 3600.0 * float(np.sqrt(abs(np.linalg.det(self.local_matrix(x, y)))))

    @property
    def pixel_scale_arcsec(self) -> float:
        """Pixel scale at the tangent point."""
        return self.scale_at(*self.crpix)

    @property
    def rotation_deg(self) -> float:
        """Position angle of the +y axis, east of north, in (-180, 180], at the tangent point."""
        matrix = self.local_matrix(*self.crpix)
        angle = float(np.degrees(np.arctan2(matrix[0, 1], matrix[1, 1])))
        return 180.0 if angle <= -180.0 else angle

    @property
    def mirrored(self) -> bool:
        """False where east is left when north is up, as one sees the sky."""
        return bool(np.linalg.det(self.local_matrix(*self.crpix)) > 0.0)

    def moved(self, d_xi_deg: float, d_eta_deg: float) -> TpvWcs:
        """Point the same frame (d_xi, d_eta) elsewhere: the tangent point moves along."""
        ra, dec = tan_deproject(d_xi_deg, d_eta_deg, *self.crval)
        return replace(self, crval=(float(ra), float(dec)))
