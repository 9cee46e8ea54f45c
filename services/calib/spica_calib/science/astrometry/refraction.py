"""Differential refraction: how the atmosphere bends the tangent plane of an exposure.

Refractivity of air after Filippenko (1982, PASP 94, 715), refraction at a zenith distance after Stone (1996, PASP
108, 1051). What is the same everywhere in the field (the shift) is left out: the pointing takes it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from spica_imaging.polynomial import design

from spica_calib.science.astrometry.problem import Zenith
from spica_calib.science.stars import Floats

Complex = NDArray[np.complex128]

AIR_DEGREE = 4
"""Of the polynomial that stands for refraction over a field: it leaves less than a microarcsecond at airmass 2."""
_MM_HG_PER_HPA = 0.750062
_SCALE_HEIGHT = 0.001254
"""Of the atmosphere, over the Earth's radius, at 0 °C (Stone 1996)."""
_HIGHEST_DEG = 85.0
"""Nearer to the horizon the formula means nothing."""
_GRID = 12


def refractivity(pressure_hpa: float, temperature_c: float, wavelength_um: float = 0.6) -> float:
    """Index of refraction of dry air, minus one (Filippenko 1982, equations 1 and 2)."""
    inverse2 = 1.0 / wavelength_um**2
    standard = 1e-6 * (64.328 + 29498.1 / (146.0 - inverse2) + 255.4 / (41.0 - inverse2))
    mm = pressure_hpa * _MM_HG_PER_HPA
    density: float = mm * (1.0 + (1.049 - 0.0157 * temperature_c) * 1e-6 * mm)
    return standard * density / (720.883 * (1.0 + 0.003661 * temperature_c))


def refraction_rad(tan_apparent: Floats, refractivity_air: float, temperature_c: float) -> Floats:
    """By how much an object looks higher than it is, from the tangent of its apparent zenith distance (Stone 1996, 4)."""
    gamma = refractivity_air
    beta = _SCALE_HEIGHT * (273.15 + temperature_c) / 273.15
    return gamma * (1.0 - beta) * tan_apparent - gamma * (beta - gamma / 2.0) * tan_apparent**3


def away_from_apparent(xi_rad: Floats, eta_rad: Floats, zenith: Zenith) -> tuple[Floats, Floats]:
    """True minus apparent place in the tangent plane, radians, 0 at the centre.

    (xi, eta): apparent place relative to the apparent centre, towards east and north. Shape as given.
    """
    distance = np.radians(min(abs(zenith.distance_deg), _HIGHEST_DEG))
    angle = np.radians(zenith.angle_deg)
    gamma = refractivity(zenith.pressure_hpa, zenith.temperature_c)
    # Axes: towards the zenith (up), to its right hand seen from inside (across), and out (along the line of sight).
    up = xi_rad * np.sin(angle) + eta_rad * np.cos(angle)
    across = xi_rad * np.cos(angle) - eta_rad * np.sin(angle)
    centre = float(refraction_rad(np.array([np.tan(distance)]), gamma, zenith.temperature_c)[0])
    apparent = distance - centre
    sin_a, cos_a = np.sin(apparent), np.cos(apparent)
    length = np.sqrt(1.0 + up**2 + across**2)
    # The direction in a frame whose third axis is the zenith: horizontal component away from it, and across.
    high = (cos_a + up * sin_a) / length
    out = (sin_a - up * cos_a) / length
    side = across / length
    flat = np.hypot(out, side)
    lift = refraction_rad(flat / np.maximum(high, 0.05), gamma, zenith.temperature_c)
    true = np.arctan2(flat, high) + lift
    stretch = np.sin(true) / np.maximum(flat, 1e-30)
    out, side, high = out * stretch, side * stretch, np.cos(true)
    # Back to the tangent plane at the true centre, which lies `centre` below the apparent one.
    towards = apparent + float(refraction_rad(np.array([np.tan(apparent)]), gamma, zenith.temperature_c)[0])
    sin_t, cos_t = np.sin(towards), np.cos(towards)
    depth = high * cos_t + out * sin_t
    d_up = (high * sin_t - out * cos_t) / depth - up
    d_across = side / depth - across
    return d_up * np.sin(angle) + d_across * np.cos(angle), d_up * np.cos(angle) - d_across * np.sin(angle)


def air_polynomial(zenith: Zenith, unit_arcsec: float) -> Complex:
    """Coefficients of `away_from_apparent` as a polynomial of (xi, eta) / unit: xi + i eta in arcsec, shape (terms,)."""
    side = np.linspace(-1.0, 1.0, _GRID)
    x, y = (grid.ravel() for grid in np.meshgrid(side, side))
    unit = np.radians(unit_arcsec / 3600.0)
    d_xi, d_eta = away_from_apparent(x * unit, y * unit, zenith)
    basis = design(x, y, AIR_DEGREE)
    bent = (d_xi + 1j * d_eta) * np.degrees(1.0) * 3600.0
    fit = np.linalg.lstsq(basis, bent, rcond=None)[0]
    return fit.astype(np.complex128)
