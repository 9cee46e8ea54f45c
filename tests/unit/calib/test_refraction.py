"""Differential refraction against erfa's, and as a polynomial."""

from __future__ import annotations

import erfa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_calib.science.astrometry.problem import Zenith
from spica_calib.science.astrometry.refraction import (
    AIR_DEGREE,
    air_polynomial,
    away_from_apparent,
    refraction_rad,
    refractivity,
)
from spica_imaging.polynomial import design

from tests.unit.calib.solver_skies import Shot, _lifted

AXIS = np.radians(0.5)


@pytest.mark.parametrize(("pressure", "temperature"), [(1013.25, 15.0), (620.0, 0.0), (770.0, 10.0)])
def test_refraction_is_erfas(pressure: float, temperature: float) -> None:
    a, b = erfa.refco(pressure, temperature, 0.0, 0.6)
    tan = np.tan(np.radians([10.0, 40.0, 60.0, 70.0]))
    ours = refraction_rad(tan, refractivity(pressure, temperature), temperature)
    assert ours == pytest.approx(a * tan + b * tan**3, rel=3e-3)


def test_air_at_sea_level_is_as_in_the_paper() -> None:
    # Filippenko 1982: (n - 1) of 0.6 µm at 15 °C and 760 mm Hg.
    assert refractivity(1013.25, 15.0) == pytest.approx(2.7698e-4, rel=1e-3)


@pytest.mark.parametrize("distance", [0.0, 20.0, 45.0, 60.0])
@pytest.mark.parametrize("angle", [0.0, 35.0, -120.0])
def test_field_bends_as_the_simulator_says(distance: float, angle: float) -> None:
    """Places lifted by another refraction and put back by ours: apart from shift, turn and shear, as they were."""
    zenith = Zenith(distance, angle)
    side = np.linspace(-0.5, 0.5, 9)
    xi, eta = (c.ravel() for c in np.meshgrid(side, side))
    from spica_imaging.wcs import tan_deproject, tan_project

    ra, dec = tan_deproject(xi, eta, 40.0, 20.0)
    seen = np.radians(tan_project(*_lifted(ra, dec, Shot((40.0, 20.0), zenith=zenith)), 40.0, 20.0))
    back = seen + np.stack(away_from_apparent(seen[0], seen[1], zenith))
    off = np.degrees(back - np.radians(np.stack((xi, eta)))) * 3.6e6
    basis = np.column_stack((np.ones_like(xi), xi, eta))
    rest = off.T - basis @ np.linalg.lstsq(basis, off.T, rcond=None)[0]
    assert np.abs(rest).max() < 0.3
    # All of it, scale included: constants of the two formulae differ by 0.2 %.
    assert np.abs(off).max() < 25.0


def test_second_order_matters_at_airmass_two() -> None:
    side = np.linspace(-1, 1, 7)
    x, y = (c.ravel() for c in np.meshgrid(side * AXIS, side * AXIS))
    d = np.degrees(np.stack(away_from_apparent(x, y, Zenith(60.0, 0.0)), axis=1)) * 3.6e6
    basis = np.column_stack((np.ones_like(x), x, y))
    rest = d - basis @ np.linalg.lstsq(basis, d, rcond=None)[0]
    assert 5.0 < np.abs(rest).max() < 60.0


@given(st.floats(0, 65), st.floats(-180, 180), st.floats(-0.7, 0.7), st.floats(-0.7, 0.7))
@settings(deadline=None)
def test_polynomial_is_the_formula(distance: float, angle: float, x: float, y: float) -> None:
    zenith, unit = Zenith(distance, angle), 3600.0
    air = design(np.array([x]), np.array([y]), AIR_DEGREE) @ air_polynomial(zenith, unit)
    scale = np.radians(unit / 3600.0)
    d_xi, d_eta = away_from_apparent(np.array([x * scale]), np.array([y * scale]), zenith)
    assert abs(air[0] - 206264.80624709636 * (d_xi[0] + 1j * d_eta[0])) < 1e-4
    assert np.abs(np.stack(away_from_apparent(np.zeros(1), np.zeros(1), zenith))).max() < 1e-15
