"""The shift of a header's WCS against a reference catalogue."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from spica_quality.science.metrics.offset import Offset, find_offset

Floats = NDArray[np.float64]


def on_sky(plane_arcsec: Floats, ra: float, dec: float) -> tuple[Floats, Floats]:
    """From arcsec east and north of a point to RA and Dec, on the sphere."""
    x, y = np.radians(plane_arcsec / 3600.0).T
    dec0 = np.radians(dec)
    depth = np.cos(dec0) - y * np.sin(dec0)
    away = np.arctan2(x, depth)
    declination = np.arctan2((np.sin(dec0) + y * np.cos(dec0)) * np.cos(away), depth)
    return np.mod(ra + np.degrees(away), 360.0), np.degrees(declination)


def look(
    seed: int = 1,
    *,
    n: int = 120,
    shift: tuple[float, float] = (0.0, 0.0),
    rotation_deg: float = 0.0,
    ra: float = 203.0,
    dec: float = 38.0,
    noise: float = 0.1,
    found: float = 0.7,
    others: int = 40,
) -> Offset | None:
    random = np.random.default_rng(seed)
    half = 600.0
    reference = random.uniform(-half - 300, half + 300, (3 * n, 2))
    mag = random.uniform(14.0, 21.0, 3 * n)
    angle = np.radians(rotation_deg)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    inside = (np.abs(reference).max(axis=1) < half) & (random.random(3 * n) < found)
    stars = reference[inside] @ turn + shift + random.normal(0.0, noise, (np.count_nonzero(inside), 2))
    flux = 10.0 ** (-0.4 * mag[inside] + random.normal(0.0, 0.1, len(stars)))
    stars = np.concatenate([stars, random.uniform(-half, half, (others, 2))])
    flux = np.concatenate([flux, np.full(others, float(np.median(flux)) if len(flux) else 1.0)])
    return find_offset(*on_sky(stars, ra, dec), flux, *on_sky(reference, ra, dec), mag, precision_arcsec=0.5)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (1.3, -0.4), (-75.0, 140.0), (250.0, -250.0)])
def test_a_shift_is_measured(shift: tuple[float, float]) -> None:
    found = look(shift=shift)
    assert found is not None
    assert (found.ra_arcsec, found.dec_arcsec) == pytest.approx(shift, abs=0.3)
    assert found.sigma_ra_arcsec == pytest.approx(0.1, abs=0.1)
    assert found.n > 40


@pytest.mark.parametrize(("ra", "dec"), [(359.99, 0.0), (0.01, -60.0), (120.0, 85.0)])
def test_it_holds_all_over_the_sky(ra: float, dec: float) -> None:
    found = look(shift=(20.0, -5.0), ra=ra, dec=dec)
    assert found is not None and (found.ra_arcsec, found.dec_arcsec) == pytest.approx((20.0, -5.0), abs=0.3)


def test_a_rotation_shows_as_scatter() -> None:
    found = look(shift=(25.0, -60.0), rotation_deg=0.3)
    assert found is not None
    assert (found.ra_arcsec, found.dec_arcsec) == pytest.approx((25.0, -60.0), abs=2.0)
    assert 1.0 < found.sigma_ra_arcsec < 6.0


def test_few_stars_are_enough() -> None:
    found = look(n=15, found=0.9, others=3, shift=(12.0, 3.0))
    assert found is not None and (found.ra_arcsec, found.dec_arcsec) == pytest.approx((12.0, 3.0), abs=0.3)


def test_chance_is_not_taken_for_a_match() -> None:
    assert all(look(seed, found=0.0, others=120) is None for seed in range(12))


def test_without_reference_or_stars_there_is_no_offset() -> None:
    none, some = np.empty(0), np.array([10.0, 10.1])
    assert find_offset(none, none, none, some, some, some) is None
    assert find_offset(some, some, some, none, none, none) is None
    nan = np.full(2, np.nan)
    assert find_offset(nan, nan, some, some, some, some) is None


def test_figures_have_their_names() -> None:
    figures = Offset(1.0, -2.0, 0.1, 0.2, 30).figures()
    assert figures["offset_dec_arcsec"] == -2.0 and figures["n_reference"] == 30
