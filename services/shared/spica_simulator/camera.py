"""The simulated camera: where its CCDs stand, how its optics distort, and what its headers claim.

The optics keep directions and stretch distances from the axis, r' = r (1 + k r²), a pure cubic radial
distortion. That is a TPV polynomial with three equal coefficients per axis (PV_1 = 1, PV_7 = PV_9 = k in
the TPV convention), so that the true WCS of every CCD can be written as a FITS header and read by others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from astropy.io import fits
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Matrix = tuple[tuple[float, float], tuple[float, float]]

PIXEL_SCALE_ARCSEC = 0.186
GAP_PX = 70
"""Space between neighbouring CCDs, as MegaCam's smaller gaps (13 arcsec)."""
REFRACTION = 2.8e-4
"""Refraction constant (58.3 arcsec at 1 atm, 0 °C, in radians): compresses the field by this much times sec²z."""


def tangent_plane(ra_deg: ArrayLike, dec_deg: ArrayLike, crval: tuple[float, float]) -> tuple[Floats, Floats]:
    """Gnomonic projection (Calabretta & Greisen 2002, section 5.1.3): (xi, eta) in degrees."""
    ra, dec = np.radians(np.asarray(ra_deg, float)), np.radians(np.asarray(dec_deg, float))
    ra0, dec0 = math.radians(crval[0]), math.radians(crval[1])
    down = np.sin(dec) * math.sin(dec0) + np.cos(dec) * math.cos(dec0) * np.cos(ra - ra0)
    xi = np.cos(dec) * np.sin(ra - ra0) / down
    eta = (np.sin(dec) * math.cos(dec0) - np.cos(dec) * math.sin(dec0) * np.cos(ra - ra0)) / down
    return np.degrees(xi), np.degrees(eta)


def sky_of_plane(xi_deg: ArrayLike, eta_deg: ArrayLike, crval: tuple[float, float]) -> tuple[Floats, Floats]:
    """Inverse of `tangent_plane`: (ra, dec) in degrees, ra in [0, 360)."""
    xi, eta = np.radians(np.asarray(xi_deg, float)), np.radians(np.asarray(eta_deg, float))
    ra0, dec0 = math.radians(crval[0]), math.radians(crval[1])
    down = math.cos(dec0) - eta * math.sin(dec0)
    ra = ra0 + np.arctan2(xi, down)
    dec = np.arctan2(math.sin(dec0) + eta * math.cos(dec0), np.hypot(xi, down))
    return np.degrees(ra) % 360.0, np.degrees(dec)


@dataclass(frozen=True, slots=True)
class CcdWcs:
    """Pixel (FITS convention: first centre = 1) to sky: CD matrix, cubic radial term, gnomonic projection."""

    crval: tuple[float, float]
    crpix: tuple[float, float]
    cd: Matrix
    """Degrees per pixel."""
    cubic_per_deg2: float = 0.0

    def pixel_to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
        """Sky position (ra, dec in deg) of pixel positions."""
        dx, dy = np.asarray(x, float) - self.crpix[0], np.asarray(y, float) - self.crpix[1]
        (a, b), (c, d) = self.cd
        u, v = a * dx + b * dy, c * dx + d * dy
        stretch = 1.0 + self.cubic_per_deg2 * (u * u + v * v)
        return sky_of_plane(u * stretch, v * stretch, self.crval)

    def sky_to_pixel(self, ra_deg: ArrayLike, dec_deg: ArrayLike) -> tuple[Floats, Floats]:
        """Pixel position of sky positions; the cubic in r is inverted by Newton's method."""
        xi, eta = tangent_plane(ra_deg, dec_deg, self.crval)
        distorted = np.hypot(xi, eta)
        radius = distorted.copy()
        k = self.cubic_per_deg2
        for _ in range(6):  # quadratic convergence: far below a nanopixel for k r² < 0.05
            radius = radius - (radius * (1.0 + k * radius**2) - distorted) / (1.0 + 3.0 * k * radius**2)
        shrink = np.divide(radius, distorted, out=np.ones_like(radius), where=distorted > 0)
        u, v = xi * shrink, eta * shrink
        (a, b), (c, d) = self.cd
        determinant = a * d - b * c
        return (
            (d * u - b * v) / determinant + self.crpix[0],
            (a * v - c * u) / determinant + self.crpix[1],
        )

    def header(self) -> fits.Header:
        """WCS cards: TPV where there is distortion, TAN otherwise."""
        code = "TPV" if self.cubic_per_deg2 else "TAN"
        header = fits.Header()
        for axis, (name, value) in enumerate(zip(("RA---", "DEC--"), self.crval, strict=True), start=1):
            header[f"CTYPE{axis}"] = name + code
            header[f"CUNIT{axis}"] = "deg"
            header[f"CRVAL{axis}"] = value
            header[f"CRPIX{axis}"] = self.crpix[axis - 1]
            header[f"CD{axis}_1"], header[f"CD{axis}_2"] = self.cd[axis - 1]
        if self.cubic_per_deg2:
            for axis in (1, 2):
                header[f"PV{axis}_1"] = 1.0
                header[f"PV{axis}_7"] = header[f"PV{axis}_9"] = self.cubic_per_deg2
        return header

    @classmethod
    def from_header(cls, header: fits.Header) -> Self:
        """Read back what `header` wrote."""
        return cls(
            (header["CRVAL1"], header["CRVAL2"]),
            (header["CRPIX1"], header["CRPIX2"]),
            ((header["CD1_1"], header["CD1_2"]), (header["CD2_1"], header["CD2_2"])),
            header.get("PV1_7", 0.0),
        )


@dataclass(frozen=True, slots=True)
class Chip:
    """One CCD in the focal plane."""

    name: str
    offset_px: tuple[float, float]
    """Nominal place of the optical axis in this CCD's pixels (its CRPIX)."""
    shift_px: tuple[float, float]
    """How far it really stands from there."""
    twist_deg: float
    """How far it is really turned."""
    bad_columns: tuple[tuple[int, float], ...]
    """Zero-based column, and its value: 0 for a dead one, a positive surplus (adu) for a hot one."""


@dataclass(frozen=True, slots=True)
class Camera:
    """A mosaic of equal CCDs in rows, optical axis in the middle."""

    shape: tuple[int, int]
    """Rows and columns of one CCD."""
    chips: tuple[Chip, ...]
    cubic_per_deg2: float
    size_px: tuple[int, int]
    """Width and height of the mosaic, gaps included."""

    def true_wcs(self, chip: Chip, axis: tuple[float, float], rotation_deg: float, airmass: float) -> CcdWcs:
        """Where the pixels of this CCD really look, refraction's compression included (zenith up)."""
        scale = PIXEL_SCALE_ARCSEC / 3600.0
        squeeze = (1.0 + REFRACTION, 1.0 + REFRACTION * airmass**2)
        angle = math.radians(rotation_deg + chip.twist_deg)
        cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
        cd = ((-cos * squeeze[0], sin * squeeze[0]), (sin * squeeze[1], cos * squeeze[1]))
        crpix = (chip.offset_px[0] + chip.shift_px[0], chip.offset_px[1] + chip.shift_px[1])
        return CcdWcs(axis, crpix, cd, self.cubic_per_deg2)

    def nominal_wcs(self, chip: Chip, pointing: tuple[float, float]) -> CcdWcs:
        """What the acquisition system writes: linear, ideal places, north up, east left."""
        scale = PIXEL_SCALE_ARCSEC / 3600.0
        return CcdWcs(pointing, chip.offset_px, ((-scale, 0.0), (0.0, scale)))


def make_camera(n_ccds: int, shape: tuple[int, int], rng: np.random.Generator) -> Camera:
    """Place `n_ccds` CCDs in a near-square mosaic; their displacements are a few pixels, as in real ones.

    The distortion is 2 arcsec at the mosaic's corner, whatever its size, so that a linear solution fails.
    """
    ny, nx = shape
    columns = math.ceil(math.sqrt(n_ccds))
    rows = math.ceil(n_ccds / columns)
    width, height = columns * nx + (columns - 1) * GAP_PX, rows * ny + (rows - 1) * GAP_PX
    chips = []
    for number in range(n_ccds):
        row, column = divmod(number, columns)
        centre = (0.5 + width / 2 - column * (nx + GAP_PX), 0.5 + height / 2 - row * (ny + GAP_PX))
        shift_x, shift_y = rng.uniform(-6.0, 6.0, 2)
        places = rng.choice(np.arange(20, nx - 20), size=3, replace=False)
        levels = (0.0, 0.0, float(rng.uniform(300, 900)))
        chips.append(
            Chip(
                name=f"ccd{number:02d}",
                offset_px=centre,
                shift_px=(float(shift_x), float(shift_y)),
                twist_deg=float(rng.normal(0.0, 0.02)),
                bad_columns=tuple(zip(map(int, places), levels, strict=True)),
            )
        )
    corner_deg = math.hypot(width, height) / 2 * PIXEL_SCALE_ARCSEC / 3600.0
    return Camera(shape, tuple(chips), (2.0 / 3600.0) / corner_deg**3, (width, height))
