"""Point spread functions, and a fast way of adding many stars to an image.

A star is its flux times a radial profile of elliptical radius, integrated over each pixel: by Gauss-Legendre
quadrature where it is steep, 4×4 points (2×2 for images wider than ten pixels), by the value at the centre in
the far wings, where that is exact to 1e-5 of the peak.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOFFAT_BETA = 4.5
"""Close to the 4.765 that fits turbulence (Trujillo et al. 2001, MNRAS 328, 977)."""
_STEP = 0.02
_NODES_4, _WEIGHTS_4 = (array / 2.0 for array in np.polynomial.legendre.leggauss(4))
_NODES_2, _WEIGHTS_2 = (array / 2.0 for array in np.polynomial.legendre.leggauss(2))


@dataclass(frozen=True, slots=True)
class RadialProfile:
    """Surface brightness of a unit-flux star against radius: `values[i]` at `i * step` FWHM."""

    values: Floats
    step: float = _STEP

    @property
    def reach(self) -> float:
        """Largest tabulated radius, FWHM."""
        return float(self.step * (len(self.values) - 2))


def _normalised(values: Floats, radii: Floats) -> RadialProfile:
    total = 2.0 * math.pi * np.trapezoid(values * radii, radii)
    return RadialProfile(values / total)


def moffat(beta: float = MOFFAT_BETA) -> RadialProfile:
    """Moffat (1969) profile of unit FWHM and unit flux (to infinity)."""
    radii = np.arange(0.0, 30.0 + 2 * _STEP, _STEP)
    core = 1.0 / (2.0 * math.sqrt(2.0 ** (1.0 / beta) - 1.0))
    return RadialProfile((beta - 1) / (math.pi * core**2) * (1 + (radii / core) ** 2) ** -beta)


def donut() -> RadialProfile:
    """An image far out of focus: the pupil with its central obstruction, edges softened by seeing.

    The unit of radius is the blurred diameter, so that "FWHM" stays a fair name.
    """
    radii = np.arange(0.0, 1.5, _STEP)
    soft = 0.04
    outer = 1.0 / (1.0 + np.exp((radii - 0.5) / soft))
    inner = 1.0 / (1.0 + np.exp((radii - 0.2) / soft))
    return _normalised(outer - 0.95 * inner, radii)


@dataclass(frozen=True, slots=True)
class Psf:
    """A PSF that varies over the field: size grows with distance from the axis, shape turns slowly."""

    profile: RadialProfile
    fwhm_px: float
    """At the optical axis."""
    growth: float
    """Relative growth of the FWHM at the mosaic's corner."""
    shear: tuple[float, float]
    """(e1, e2) at the axis, in the sense of reduced shear: e = (a - b)/(a + b)."""
    shear_slope: tuple[float, float]
    """What is added to e1 along x and to e2 along y, at the mosaic's edge."""

    def at(self, u: Floats | float, v: Floats | float) -> tuple[Any, Any, Any]:
        """FWHM (pixels), e1 and e2 at mosaic places; u and v run from -1 to 1 over the mosaic."""
        fwhm = self.fwhm_px * (1.0 + self.growth * 0.5 * (u * u + v * v))
        return fwhm, self.shear[0] + self.shear_slope[0] * u, self.shear[1] + self.shear_slope[1] * v


@njit(cache=True, nogil=True)
def add_stars(
    image: NDArray[np.float64],
    x: Floats,
    y: Floats,
    flux: Floats,
    fwhm: Floats,
    e1: Floats,
    e2: Floats,
    radius: NDArray[np.int64],
    values: Floats,
    step: float,
) -> None:
    """Add stars to `image` (shape ny, nx) in place; x, y are FITS pixels, radius the half-size of the stamp."""
    ny, nx = image.shape
    last = len(values) - 2
    for star in range(len(x)):
        # The area-preserving shear that makes a circle of the ellipse, in units of the FWHM.
        norm = 1.0 / (fwhm[star] * math.sqrt(1.0 - e1[star] ** 2 - e2[star] ** 2))
        m11, m22, m12 = (1.0 - e1[star]) * norm, (1.0 + e1[star]) * norm, -e2[star] * norm
        cx, cy = x[star] - 1.0, y[star] - 1.0
        reach = radius[star]
        column, row = round(cx), round(cy)
        fine2 = (3.0 * fwhm[star]) ** 2
        nodes, weights = (_NODES_4, _WEIGHTS_4) if fwhm[star] < 10.0 else (_NODES_2, _WEIGHTS_2)
        for j in range(max(0, row - reach), min(ny, row + reach + 1)):
            for i in range(max(0, column - reach), min(nx, column + reach + 1)):
                dx, dy = i - cx, j - cy
                fine = dx * dx + dy * dy < fine2
                total = 0.0
                for sj in range(len(nodes) if fine else 1):
                    sy = dy + nodes[sj] if fine else dy
                    for si in range(len(nodes) if fine else 1):
                        sx = dx + nodes[si] if fine else dx
                        place = math.hypot(m11 * sx + m12 * sy, m12 * sx + m22 * sy) / step
                        index = int(place)
                        if index < last:
                            part = place - index
                            value = values[index] * (1.0 - part) + values[index + 1] * part
                            total += value * weights[si] * weights[sj] if fine else value
                # The table is per FWHM²; the shear keeps areas.
                image[j, i] += flux[star] * total / fwhm[star] ** 2


def stamp_radius(flux: Floats, fwhm: Floats, noise: float, profile: RadialProfile) -> NDArray[np.int64]:
    """Half-size of each star's stamp: out to where it is fainter than a fiftieth of the noise per pixel."""
    brightness = np.maximum.accumulate(profile.values[::-1])[::-1]
    wanted = 0.02 * noise * fwhm**2 / np.maximum(flux, 1e-9)
    index = np.searchsorted(-brightness, -wanted)
    return np.clip(np.ceil((index * profile.step + 1.0) * fwhm), 8, 200).astype(np.int64)
