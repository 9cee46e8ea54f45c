"""From catalogue columns to sources, and to stars at an epoch."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from spica_calib.science.sources import flux_outside, sources_from_columns
from spica_calib.science.stars import Stars, julian_year, separation_deg

N = 40


def columns(**changes: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    base = {
        "X_IMAGE": rng.uniform(1, 100, N),
        "Y_IMAGE": rng.uniform(1, 100, N),
        "FLUX_AUTO": np.full(N, 1000.0),
        "FLUXERR_AUTO": np.full(N, 10.0),
        "FLUX_RADIUS": np.full(N, 2.0),
        "FLAGS": np.zeros(N, dtype=np.int16),
        "ELLIPTICITY": np.full(N, 0.1),
    }
    return {**base, **changes}


def test_what_is_clean_and_what_is_usable() -> None:
    flags = np.zeros(N, dtype=np.int16)
    flags[:4] = [2, 4, 8, 1]
    radius = np.full(N, 2.0)
    radius[4] = 0.6  # a hot pixel
    ellipticity = np.full(N, 0.1)
    ellipticity[5] = 0.95  # a trail
    flux = np.full(N, 1000.0)
    flux[6:8] = [20.0, -5.0]
    found = sources_from_columns(
        columns(FLAGS=flags, FLUX_RADIUS=radius, ELLIPTICITY=ellipticity, FLUX_AUTO=flux)
    )
    assert found.usable[:9].tolist() == [True, True, False, True, False, False, False, False, True]
    assert found.clean[:9].tolist() == [False, False, False, True, False, False, False, False, True]
    assert (found.weight_error_px[:2] > 3 * found.weight_error_px[3]).all()


def test_windowed_positions_where_they_are() -> None:
    given = columns()
    windowed = given["X_IMAGE"] + 0.25
    windowed[3] = np.nan
    found = sources_from_columns({**given, "XWIN_IMAGE": windowed, "YWIN_IMAGE": given["Y_IMAGE"]})
    assert found.x[3] == given["X_IMAGE"][3]
    assert found.x[4] == given["X_IMAGE"][4] + 0.25


def test_stars_are_measured_in_apertures_and_made_whole() -> None:
    aperture = {"FLUX_APER": np.full(N, 900.0), "FLUXERR_APER": np.full(N, 9.0)}
    found = sources_from_columns(columns(**aperture), aperture_loss=0.1)
    assert found.star_flux_adu == pytest.approx(np.full(N, 1000.0))
    assert found.star_flux_error_adu == pytest.approx(np.full(N, 10.0))
    assert sources_from_columns(columns(), aperture_loss=0.1).star_flux_adu == pytest.approx(
        np.full(N, 1000.0)
    )


@pytest.mark.parametrize("beta", [2.5, 3.5, 4.5])
def test_flux_outside_of_an_aperture(beta: float) -> None:
    fwhm, radius = 3.7, 6.0
    alpha = 0.5 * fwhm / np.sqrt(2 ** (1 / beta) - 1)

    def ring(r: float) -> float:
        return r * (1 + (r / alpha) ** 2) ** -beta

    total = quad(ring, 0, np.inf)[0]
    assert flux_outside(radius, fwhm, beta) == pytest.approx(quad(ring, radius, np.inf)[0] / total, rel=1e-6)
    assert flux_outside(radius, fwhm, np.inf) == 0.0


@pytest.mark.parametrize("missing", ["X_IMAGE", "FLUX_AUTO"])
def test_columns_that_must_be_there(missing: str) -> None:
    given = columns()
    del given[missing]
    with pytest.raises(KeyError):
        sources_from_columns(given)


def test_proper_motion_over_the_years() -> None:
    one = np.array([1.0])
    barnard = Stars(
        269.45402305 * one, 4.66828815 * one, one, 1991.25 * one, -797.84 * one, 10326.93 * one, {}
    ).at_epoch(2000.0)
    # Where other catalogues have it in 2000.
    assert barnard.ra_deg[0] == pytest.approx(269.452075, abs=5e-6)
    assert barnard.dec_deg[0] == pytest.approx(4.693391, abs=5e-6)
    assert julian_year(51544.5) == 2000.0


def test_separation_across_zero_hours_and_at_the_pole() -> None:
    assert separation_deg(np.array([359.9]), np.array([0.0]), 0.1, 0.0)[0] == pytest.approx(0.2)
    assert separation_deg(np.array([0.0]), np.array([89.9]), 180.0, 89.9)[0] == pytest.approx(0.2)
