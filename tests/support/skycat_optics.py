"""Where the pixels of a made-up camera truly look: CCDs that lie not quite as drawn, distortion, and the air.

Pixel (x, y) of a CCD, FITS counting -> focal plane (pixels from the optical axis: the CCD's place and tilt, and what no
polynomial describes) -> distortion -> tangent plane at the apparent pointing (scale and rotation of the exposure) ->
apparent direction -> true direction (refraction). None of it shares code with what solves for it, but the gnomonic
projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from spica_imaging.wcs import tan_deproject, tan_project

Floats = NDArray[np.float64]
Shape = Literal["polynomial", "rings", "bump"]

SCALE_ARCSEC = 0.186
LATITUDE_DEG = 19.8253
_ROUNDS = 12
"""Of fixed-point iterations: each gains two digits or more, for distortions change the scale by less than 1 %."""
_RING_PX = 0.04
_EDGE_PX = 0.25
_BUMP_PX = 3.0


@dataclass(frozen=True, slots=True)
class Place:
    """A CCD in the focal plane: where drawings put it, and where it is."""

    name: str
    nx: int
    ny: int
    drawn: tuple[float, float]
    """Its centre, px from the optical axis."""
    turned: bool
    """Upside down, as the upper rows of mosaics are."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Its centre is off the drawing by this, px."""
    tilt_rad: float = 0.0

    @property
    def centre(self) -> tuple[float, float]:
        return (self.nx + 1) / 2, (self.ny + 1) / 2


@dataclass(frozen=True, slots=True)
class Camera:
    """CCDs behind optics; the same for all exposures of a run."""

    places: tuple[Place, ...]
    radius_px: float
    """Of the corner farthest from the axis."""
    cubic: Floats
    """Shape (2, 4, 4): px at `radius_px`, of u**i v**j in units of it."""
    shape: Shape = "polynomial"
    """rings: of trees in the silicon, and edges that bend fields; bump: a smooth hump that no cubic follows."""

    def wobble(self, place: Place, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Displacement within the CCD that no polynomial describes, px."""
        if self.shape != "rings":
            return np.zeros_like(x), np.zeros_like(y)
        # Rings of a wafer have their centre outside of the CCD; their period shrinks outwards.
        dx, dy = x + 0.3 * place.nx, y + 0.2 * place.ny
        r = np.hypot(dx, dy)
        ring = _RING_PX * np.sin(2 * np.pi * (r / 260.0 + (r / 2600.0) ** 2)) / r
        edge = np.exp(-x / 25.0) - np.exp(-(place.nx - x) / 25.0)
        return ring * dx + _EDGE_PX * edge, ring * dy

    def distortion(self, p: Floats, q: Floats) -> tuple[Floats, Floats]:
        """Displacement by the optics, px, at focal-plane positions before it."""
        u, v = p / self.radius_px, q / self.radius_px
        du, dv = (np.polynomial.polynomial.polyval2d(u, v, c) for c in self.cubic)
        if self.shape == "bump":
            hump = _BUMP_PX * np.exp(-((u - 0.25) ** 2 + (v + 0.15) ** 2) / (2 * 0.28**2))
            du, dv = du + hump * (u - 0.25) / 0.28, dv + hump * (v + 0.15) / 0.28
        return du, dv

    def to_plane(self, place: Place, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Pixels to the distorted focal plane, px."""
        wx, wy = self.wobble(place, x, y)
        dx, dy = x + wx - place.centre[0], y + wy - place.centre[1]
        angle = place.tilt_rad + (np.pi if place.turned else 0.0)
        cos, sin = np.cos(angle), np.sin(angle)
        p = cos * dx - sin * dy + place.drawn[0] + place.shift[0]
        q = sin * dx + cos * dy + place.drawn[1] + place.shift[1]
        dp, dq = self.distortion(p, q)
        return p + dp, q + dq

    def first_order(self, place: Place) -> tuple[Floats, Floats]:
        """A linear model of a CCD in the distorted focal plane: its CRPIX, shape (2,), and slopes, shape (2, 2)."""
        cx, cy = place.centre
        dx, dy = place.nx / 4, place.ny / 4
        x, y = np.array([cx, cx + dx, cx - dx, cx, cx]), np.array([cy, cy, cy, cy + dy, cy - dy])
        p, q = self.to_plane(place, x, y)
        slopes = np.array([[(a[1] - a[2]) / (2 * dx), (a[3] - a[4]) / (2 * dy)] for a in (p, q)])
        return np.array([cx, cy]) - np.linalg.solve(slopes, [p[0], q[0]]), slopes

    def undistorted(self, p: Floats, q: Floats) -> tuple[Floats, Floats]:
        """Focal plane without the optics' displacement."""
        p0, q0 = p, q
        for _ in range(_ROUNDS):
            dp, dq = self.distortion(p0, q0)
            p0, q0 = p - dp, q - dq
        return p0, q0

    def to_pixel(self, place: Place, p0: Floats, q0: Floats) -> tuple[Floats, Floats]:
        """Undistorted focal plane to pixels of a CCD."""
        dp, dq = p0 - place.drawn[0] - place.shift[0], q0 - place.drawn[1] - place.shift[1]
        angle = place.tilt_rad + (np.pi if place.turned else 0.0)
        cos, sin = np.cos(angle), np.sin(angle)
        x1, y1 = cos * dp + sin * dq + place.centre[0], -sin * dp + cos * dq + place.centre[1]
        if self.shape != "rings":
            return x1, y1
        x, y = x1, y1
        for _ in range(_ROUNDS):
            wx, wy = self.wobble(place, np.clip(x, 1, place.nx), np.clip(y, 1, place.ny))
            x, y = x1 - wx, y1 - wy
        return x, y


def _cubic(rng: np.random.Generator, edge_px: float) -> Floats:
    """Mostly radial, as lenses are, with some of every other term of second and third degree."""
    c = np.zeros((2, 4, 4))
    for i in range(4):
        for j in range(4 - i):
            if i + j >= 2:
                c[:, i, j] = 0.06 * edge_px * rng.standard_normal(2)
    c[0, 3, 0] += edge_px
    c[0, 1, 2] += edge_px
    c[1, 0, 3] += edge_px
    c[1, 2, 1] += edge_px
    return c


def camera(
    rng: np.random.Generator,
    layout: Literal["four", "megacam", "small"],
    *,
    edge_arcsec: float = 4.0,
    shape: Shape = "polynomial",
    shift_px: float = 4.0,
    tilt_deg: float = 0.05,
) -> Camera:
    """Four CCDs of 2048 × 4612; the 36 of MegaCam (9 × 4, wide gaps above and below the middle rows); or four small."""
    columns, rows, nx, ny, gaps = {
        "four": (2, 2, 2048, 4612, (70.0, 80.0, 80.0)),
        "megacam": (9, 4, 2048, 4612, (76.0, 430.0, 80.0)),
        "small": (2, 2, 1024, 1024, (40.0, 40.0, 40.0)),
    }[layout]
    gap_x, gap_outer, gap_middle = gaps
    offsets = np.cumsum([0.0] + [ny + (gap_middle if r == rows // 2 else gap_outer) for r in range(1, rows)])
    offsets -= offsets.mean()
    places = []
    for number in range(columns * rows):
        row, column = divmod(number, columns)
        drawn = ((column - (columns - 1) / 2) * (nx + gap_x), float(-offsets[row]))
        shift = rng.uniform(-shift_px, shift_px, 2)
        tilt = np.radians(rng.uniform(-tilt_deg, tilt_deg))
        places.append(
            Place(
                f"ccd{number:02d}", nx, ny, drawn, row < rows // 2, (float(shift[0]), float(shift[1])), tilt
            )
        )
    radius = max(np.hypot(abs(p.drawn[0]) + nx / 2, abs(p.drawn[1]) + ny / 2) for p in places)
    return Camera(tuple(places), float(radius), _cubic(rng, edge_arcsec / SCALE_ARCSEC), shape)


# ---- the air ----


def vector(ra_deg: Floats, dec_deg: Floats) -> Floats:
    """Unit vectors, shape (3, n)."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    return np.array([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])


def angles(v: Floats) -> tuple[Floats, Floats]:
    """RA and Dec, degrees, of vectors of shape (3, n)."""
    ra = np.degrees(np.arctan2(v[1], v[0])) % 360.0
    return ra, np.degrees(np.arctan2(v[2], np.hypot(v[0], v[1])))


@dataclass(frozen=True, slots=True)
class Air:
    """Refraction: A tan z + B tan³ z of the apparent zenith distance (Smart, Spherical Astronomy), for 616 hPa and 2 °C."""

    zenith: Floats
    """Unit vector, shape (3,)."""
    a_rad: float = 58.294 / 206264.806 * (616.0 / 1010.0) * (283.0 / 275.0)
    b_rad: float = -0.0668 / 206264.806 * (616.0 / 1010.0) * (283.0 / 275.0)

    def _lift(self, v: Floats, angle: Floats) -> Floats:
        """Turn vectors towards the zenith by an angle (rad)."""
        cos = np.einsum("k,kn->n", self.zenith, v)
        up = self.zenith[:, None] - cos * v
        length = np.sqrt((up**2).sum(axis=0))
        up /= np.maximum(length, 1e-12)
        return np.asarray(np.cos(angle) * v + np.sin(angle) * up)

    def _tan(self, v: Floats) -> Floats:
        cos = np.einsum("k,kn->n", self.zenith, v)
        across = np.cross(self.zenith, v, axisb=0, axisc=0)
        return np.asarray(np.sqrt((across**2).sum(axis=0)) / cos)

    def true(self, apparent: Floats) -> Floats:
        """Directions without the air."""
        tan = self._tan(apparent)
        return self._lift(apparent, -(self.a_rad * tan + self.b_rad * tan**3))

    def apparent(self, true: Floats) -> Floats:
        """Directions as seen through it."""
        seen = true
        for _ in range(6):
            tan = self._tan(seen)
            seen = self._lift(true, self.a_rad * tan + self.b_rad * tan**3)
        return seen


def hour_angle(airmass: float, dec_deg: float) -> float:
    """Hour angle (deg, positive) at which a declination has this airmass; 0 where it never is as low."""
    dec, latitude = np.radians(dec_deg), np.radians(LATITUDE_DEG)
    cos = (1.0 / airmass - np.sin(latitude) * np.sin(dec)) / (np.cos(latitude) * np.cos(dec))
    return float(np.degrees(np.arccos(np.clip(cos, -1.0, 1.0))))


# ---- an exposure ----


@dataclass(frozen=True, slots=True)
class Aim:
    """How one exposure looks at the sky, truly."""

    camera: Camera
    pointing: tuple[float, float]
    """Apparent RA and Dec (deg) of the optical axis."""
    rotation_deg: float
    scale_arcsec: float
    air: Air

    @property
    def axis(self) -> tuple[float, float]:
        """True RA and Dec (deg) of the optical axis."""
        ra, dec = angles(self.air.true(vector(*(np.array([angle]) for angle in self.pointing))))
        return float(ra[0]), float(dec[0])

    def turn(self) -> Floats:
        """Focal plane (px) to tangent plane (deg): east is left when north is up."""
        angle, scale = np.radians(self.rotation_deg), self.scale_arcsec / 3600.0
        cos, sin = np.cos(angle), np.sin(angle)
        return scale * np.array([[-cos, sin], [sin, cos]])

    def pixel_to_sky(self, ccd: int, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """True RA and Dec (deg) of FITS pixels of a CCD."""
        p, q = self.camera.to_plane(
            self.camera.places[ccd], np.asarray(x, np.float64), np.asarray(y, np.float64)
        )
        t = self.turn()
        seen = tan_deproject(t[0, 0] * p + t[0, 1] * q, t[1, 0] * p + t[1, 1] * q, *self.pointing)
        return angles(self.air.true(vector(*seen)))

    def undistorted(self, ra_deg: Floats, dec_deg: Floats) -> tuple[Floats, Floats]:
        """Focal-plane positions (px, distortion taken out) of true sky positions."""
        xi, eta = tan_project(*angles(self.air.apparent(vector(ra_deg, dec_deg))), *self.pointing)
        t = np.linalg.inv(self.turn())
        return self.camera.undistorted(t[0, 0] * xi + t[0, 1] * eta, t[1, 0] * xi + t[1, 1] * eta)

    def sky_to_pixel(self, ccd: int, ra_deg: Floats, dec_deg: Floats) -> tuple[Floats, Floats]:
        """Pixels of a CCD (also beyond its edges) of true sky positions near the field."""
        return self.camera.to_pixel(self.camera.places[ccd], *self.undistorted(ra_deg, dec_deg))

    def falls_on(self, ccd: int, p0: Floats, q0: Floats) -> NDArray[np.intp]:
        """Which undistorted focal-plane positions lie on a CCD or close by."""
        place = self.camera.places[ccd]
        near = np.abs(p0 - place.drawn[0]) < place.nx / 2 + 30.0
        near &= np.abs(q0 - place.drawn[1]) < place.ny / 2 + 30.0
        return np.flatnonzero(near)
