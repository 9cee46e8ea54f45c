"""From the sphere to a plane and back: the projections a stack may have (FITS WCS paper II).

Calabretta & Greisen 2002, A&A 395, 1077, section 5. Directions are vectors (c, e, n): along the reference point, and
along the east and the north there. That does what paper II does with native angles. The reference point is the native pole
of the zenithal projections (TAN, STG, SIN, ZEA, ARC; LONPOLE 180) and native (0, 0) of the others (CAR, CEA, SFL, AIT,
MOL), whose native equator then runs east and west through it. North is up there either way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Projection = Literal["TAN", "STG", "SIN", "ZEA", "ARC", "CAR", "CEA", "SFL", "AIT", "MOL"]
"""As in the contract (`spica_proto.stacks.Projection`)."""

ZENITHAL: frozenset[Projection] = frozenset({"TAN", "STG", "SIN", "ZEA", "ARC"})

_MOLLWEIDE_STEPS = 60


@dataclass(frozen=True, slots=True)
class Frame:
    """Directions at a point of the sky: itself, its east, its north. Rows of `axes`, shape (3, 3)."""

    axes: Floats

    @classmethod
    def at(cls, ra_deg: float, dec_deg: float) -> Frame:
        """The frame of one point."""
        ra, dec = np.radians(ra_deg), np.radians(dec_deg)
        return cls(
            np.array(
                [
                    [np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)],
                    [-np.sin(ra), np.cos(ra), 0.0],
                    [-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)],
                ]
            )
        )

    def into(self, vectors: Floats) -> Floats:
        """(c, e, n) of equatorial vectors; both of shape (3, ...)."""
        turned: Floats = np.tensordot(self.axes, vectors, 1)
        return turned

    def out_of(self, vectors: Floats) -> Floats:
        """Equatorial vectors of (c, e, n)."""
        turned: Floats = np.tensordot(self.axes.T, vectors, 1)
        return turned


def vectors_of(ra_deg: Floats, dec_deg: Floats) -> Floats:
    """Unit vectors, shape (3, ...)."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])


def angles_of(vectors: Floats) -> tuple[Floats, Floats]:
    """RA in [0, 360) and Dec (deg) of vectors of any length."""
    ra = np.mod(np.degrees(np.arctan2(vectors[1], vectors[0])), 360.0)
    dec = np.degrees(np.arctan2(vectors[2], np.hypot(vectors[0], vectors[1])))
    return np.where(ra >= 360.0, 0.0, ra), dec


def to_plane(projection: Projection, vectors: Floats) -> tuple[Floats, Floats]:
    """Plane coordinates (towards east and north, deg) of unit vectors (c, e, n); NaN where there are none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        if projection in _RADIUS:
            c, e, n = vectors
            factor = np.degrees(_RADIUS[projection][0](c, np.hypot(e, n)))
            return e * factor, n * factor
        phi = np.arctan2(vectors[1], vectors[0])
        theta = np.arctan2(vectors[2], np.hypot(vectors[0], vectors[1]))
        x, y = _FLAT[projection][0](phi, theta)
        return np.degrees(x), np.degrees(y)


def from_plane(projection: Projection, x_deg: Floats, y_deg: Floats) -> Floats:
    """Inverse of `to_plane`: vectors (c, e, n), of any length; NaN where the plane is empty."""
    x, y = np.radians(x_deg), np.radians(y_deg)
    with np.errstate(invalid="ignore", divide="ignore"):
        if projection in _RADIUS:
            c, factor = _RADIUS[projection][1](np.hypot(x, y))
            return np.stack([c + 0.0 * x, x * factor, y * factor])
        phi, theta = _FLAT[projection][1](x, y)
        return np.stack([np.cos(theta) * np.cos(phi), np.cos(theta) * np.sin(phi), np.sin(theta)])


# ---- zenithal: radius in the plane over sin(distance), and the way back: cos, and sin over radius ----


def _ratio(angle: Floats, sine: Floats) -> Floats:
    """Angle over sine; 1 at the centre, NaN opposite to it."""
    return np.where(sine > 0.0, angle / np.where(sine > 0.0, sine, 1.0), np.where(angle < 1.0, 1.0, np.nan))


def _zea_back(r: Floats) -> tuple[Floats, Floats]:
    rest = 1.0 - 0.25 * r * r
    return np.where(rest >= 0.0, 1.0 - 0.5 * r * r, np.nan), np.sqrt(rest)


_RADIUS: dict[
    Projection, tuple[Callable[[Floats, Floats], Floats], Callable[[Floats], tuple[Floats, Floats]]]
] = {
    "TAN": (lambda c, s: 1.0 / np.where(c > 0.0, c, np.nan), lambda r: (np.ones_like(r), np.ones_like(r))),
    "STG": (
        lambda c, s: 2.0 / np.where(c > -1.0, 1.0 + c, np.nan),
        lambda r: (1.0 - 0.25 * r * r, np.ones_like(r)),
    ),
    "SIN": (lambda c, s: np.where(c >= 0.0, 1.0, np.nan), lambda r: (np.sqrt(1.0 - r * r), np.ones_like(r))),
    "ZEA": (lambda c, s: np.sqrt(2.0 / np.where(c > -1.0, 1.0 + c, np.nan)), _zea_back),
    "ARC": (
        lambda c, s: _ratio(np.arctan2(s, c), s),
        lambda r: (np.where(r <= np.pi, np.cos(r), np.nan), np.sinc(r / np.pi)),
    ),
}


# ---- the others: native longitude and latitude ----


def _sfl_back(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    phi = x / np.cos(y)
    inside = (np.abs(y) < 0.5 * np.pi) & (np.abs(phi) <= np.pi)
    return np.where(inside, phi, np.nan), y


def _ait(phi: Floats, theta: Floats) -> tuple[Floats, Floats]:
    gamma = np.sqrt(2.0 / (1.0 + np.cos(theta) * np.cos(0.5 * phi)))
    return 2.0 * gamma * np.cos(theta) * np.sin(0.5 * phi), gamma * np.sin(theta)


def _ait_back(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    squared = 1.0 - (0.25 * x) ** 2 - (0.5 * y) ** 2
    z = np.sqrt(np.where(squared >= 0.5, squared, np.nan))
    return 2.0 * np.arctan2(0.5 * z * x, 2.0 * squared - 1.0), np.arcsin(y * z)


def _mol(phi: Floats, theta: Floats) -> tuple[Floats, Floats]:
    """Solve 2 gamma + sin 2 gamma = pi sin theta by halving: Newton's steps fail at the poles."""
    low, high = np.full(theta.shape, -0.5 * np.pi), np.full(theta.shape, 0.5 * np.pi)
    target = np.pi * np.sin(theta)
    for _ in range(_MOLLWEIDE_STEPS):
        gamma = 0.5 * (low + high)
        below = 2.0 * gamma + np.sin(2.0 * gamma) < target
        low, high = np.where(below, gamma, low), np.where(below, high, gamma)
    gamma = 0.5 * (low + high)
    return (2.0 * np.sqrt(2.0) / np.pi) * phi * np.cos(gamma), np.sqrt(2.0) * np.sin(gamma)


def _mol_back(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    gamma = np.arcsin(y / np.sqrt(2.0))
    phi = np.pi * x / (2.0 * np.sqrt(2.0) * np.cos(gamma))
    theta = np.arcsin((2.0 * gamma + np.sin(2.0 * gamma)) / np.pi)
    return np.where(np.abs(phi) <= np.pi, phi, np.nan), theta


_FLAT: dict[
    Projection,
    tuple[
        Callable[[Floats, Floats], tuple[Floats, Floats]], Callable[[Floats, Floats], tuple[Floats, Floats]]
    ],
] = {
    # Beyond 180 degrees of longitude the sky begins anew: meshes of CCDs at the seam need what lies behind it.
    "CAR": (lambda phi, theta: (phi, theta), lambda x, y: (x, np.where(np.abs(y) <= 0.5 * np.pi, y, np.nan))),
    "CEA": (lambda phi, theta: (phi, np.sin(theta)), lambda x, y: (x, np.arcsin(y))),
    "SFL": (lambda phi, theta: (phi * np.cos(theta), theta), _sfl_back),
    "AIT": (_ait, _ait_back),
    "MOL": (_mol, _mol_back),
}
