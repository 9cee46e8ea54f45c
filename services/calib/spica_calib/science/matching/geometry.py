"""Where CCDs point: centres, extents, a WCS from a pointing alone, and moving a WCS over the sky."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from spica_imaging.polynomial import substitute
from spica_imaging.wcs import N_PV, TPV_POWERS, TpvWcs, tan_deproject, tan_project

from spica_calib.science.stars import CcdField, Floats, separation_deg

Direction = tuple[float, float]
"""RA and Dec, deg."""

_ARCSEC = 3600.0
_STEP_DEG = 1e-3
"""Over which local turns of the tangent planes against each other are taken: at that distance they are flat to 1e-10."""


class NoMatch(Exception):
    """The sources cannot be told to be these stars."""

    def __init__(self, message: str, numbers: dict[str, float | int | str | None]) -> None:
        super().__init__(message)
        self.message = message
        self.numbers = numbers

    def __reduce__(self) -> tuple[type[NoMatch], tuple[str, dict[str, float | int | str | None]]]:
        return type(self), (self.message, self.numbers)


def pointing_wcs(
    ra_deg: float, dec_deg: float, nx: int, ny: int, scale_arcsec: float, rotation_deg: float, mirrored: bool
) -> TpvWcs:
    """A TAN WCS from a pointing of the CCD's centre; rotation is the position angle of +y, east of north."""
    angle, scale = np.radians(rotation_deg), scale_arcsec / 3600.0
    sin, cos = float(np.sin(angle)) * scale, float(np.cos(angle)) * scale
    # Usual parity: seen with north up, east is left: +x is 90° clockwise of +y, towards west.
    sign = 1.0 if mirrored else -1.0
    return TpvWcs((ra_deg, dec_deg), ((nx + 1) / 2, (ny + 1) / 2), ((sign * cos, sin), (-sign * sin, cos)))


def unit_vectors(ra_deg: Floats, dec_deg: Floats) -> Floats:
    """Directions as unit vectors, shape (n, 3)."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    cos = np.cos(dec)
    return np.column_stack((cos * np.cos(ra), cos * np.sin(ra), np.sin(dec)))


def direction(vector: Floats) -> Direction:
    """RA and Dec, deg, of a vector of any length."""
    x, y, z = (float(part) for part in vector)
    return float(np.degrees(np.arctan2(y, x)) % 360.0), float(np.degrees(np.arctan2(z, np.hypot(x, y))))


def ccd_centre(field: CcdField) -> Direction:
    """Where the centre of a CCD is thought to point."""
    ra, dec = field.wcs.pixel_to_sky(*field.centre)
    return float(ra), float(dec)


def field_centre(fields: Sequence[CcdField]) -> Direction:
    """Mean direction of the CCDs' centres: RA and Dec, deg."""
    sky = np.array([ccd_centre(f) for f in fields])
    return direction(unit_vectors(sky[:, 0], sky[:, 1]).mean(axis=0))


def field_radius(fields: Sequence[CcdField], ra_deg: float, dec_deg: float) -> float:
    """Angle from a centre to the farthest corner, deg."""
    corners = [f.wcs.pixel_to_sky([1, f.nx, f.nx, 1], [1, 1, f.ny, f.ny]) for f in fields]
    return max(float(separation_deg(ra, dec, ra_deg, dec_deg).max()) for ra, dec in corners)


@dataclass(frozen=True, slots=True)
class Motion:
    """A map of the sky near one direction onto the sky near another, linear in the tangent planes there."""

    origin: Direction
    target: Direction
    matrix: Floats
    """Shape (2, 2): tangent plane at `origin` -> tangent plane at `target`."""
    offset_arcsec: Floats
    """Shape (2,): where the origin comes to lie in the target's plane."""

    @classmethod
    def still(cls, at: Direction) -> Motion:
        """Nothing moves."""
        return cls(at, at, np.eye(2), np.zeros(2))

    def apply(self, ra_deg: Floats, dec_deg: Floats) -> tuple[Floats, Floats]:
        """Move directions, deg."""
        plane = np.stack(tan_project(ra_deg, dec_deg, *self.origin))
        moved = np.tensordot(self.matrix, plane, axes=1)
        shift = self.offset_arcsec / _ARCSEC
        return tan_deproject(moved[0] + shift[0], moved[1] + shift[1], *self.target)

    def at(self, origin: Direction) -> Motion:
        """The same motion told from another origin, without an offset: from there to where it comes to lie."""
        ra, dec = tan_deproject(np.array([0.0, _STEP_DEG, 0.0]), np.array([0.0, 0.0, _STEP_DEG]), *origin)
        moved = self.apply(ra, dec)
        target = float(moved[0][0]), float(moved[1][0])
        xi, eta = tan_project(*moved, *target)
        matrix = np.array([[xi[1], xi[2]], [eta[1], eta[2]]]) / _STEP_DEG
        return Motion(origin, target, matrix, np.zeros(2))

    def then(self, matrix: Floats, offset_arcsec: Floats) -> Motion:
        """Followed by an affine map in the target's plane, with the target moved to where the origin comes to lie."""
        after = Motion(
            self.origin, self.target, matrix @ self.matrix, matrix @ self.offset_arcsec + offset_arcsec
        )
        return after.at(self.origin)

    def move(self, wcs: TpvWcs) -> TpvWcs:
        """The WCS of what this motion makes of the pixels' assumed places."""
        here = self.at(wcs.crval)
        return _turned(replace(wcs, crval=here.target), here.matrix)


def _turned(wcs: TpvWcs, matrix: Floats) -> TpvWcs:
    """Apply a linear map after the distortion: Q(v) = J P(J⁻¹ v) with CD replaced by J CD."""
    (a, b), (c, d) = (tuple(float(v) for v in row) for row in matrix @ np.array(wcs.cd))
    if wcs.degree == 0:
        return replace(wcs, cd=((a, b), (c, d)))
    size = 1 + max(
        own + other for k, (own, other) in TPV_POWERS.items() if k < N_PV and (wcs.pv1[k] or wcs.pv2[k])
    )
    first, second = np.zeros((size, size)), np.zeros((size, size))
    for k, (own, other) in TPV_POWERS.items():
        if own + other < size:
            first[own, other], second[other, own] = wcs.pv1[k], wcs.pv2[k]
    first, second = substitute((first, second), np.linalg.inv(matrix).astype(np.float64))
    first, second = (row[0] * first + row[1] * second for row in matrix)
    # Terms in r are even under turns; under the little shear and scale that is left they are taken for so.
    scale = float(np.sqrt(abs(np.linalg.det(matrix))))
    pv1, pv2 = np.zeros(N_PV), np.zeros(N_PV)
    for k in range(N_PV):
        if k not in TPV_POWERS:
            power = {3: 1, 11: 3, 23: 5, 39: 7}[k]
            pv1[k], pv2[k] = matrix @ np.array([wcs.pv1[k], wcs.pv2[k]]) / scale**power
            continue
        own, other = TPV_POWERS[k]
        if own + other < size:
            pv1[k], pv2[k] = first[own, other], second[other, own]
    return replace(wcs, cd=((a, b), (c, d)), pv1=tuple(pv1.tolist()), pv2=tuple(pv2.tolist()))


def polygon(field: CcdField, half_px: tuple[float, float], centre: Direction) -> Floats:
    """Corners of the middle of a CCD, so far from its centre along x and y, in the tangent plane at a direction.

    Shape (4, 2), arcsec, in order around it.
    """
    (cx, cy), (dx, dy) = field.centre, half_px
    sky = field.wcs.pixel_to_sky([cx - dx, cx + dx, cx + dx, cx - dx], [cy - dy, cy - dy, cy + dy, cy + dy])
    return np.column_stack(tan_project(*sky, *centre)) * _ARCSEC
