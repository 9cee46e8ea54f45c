"""Stars and galaxies found against those expected."""

from __future__ import annotations

from dataclasses import replace
from math import log10

import numpy as np
import pytest
from spica_quality.science.metrics import counts
from spica_quality.science.metrics.counts import Census, band_of, census, ratios
from spica_quality.science.metrics.figures import number


def test_stars_towards_the_pole_are_as_published() -> None:
    # Bahcall & Soneira 1980, table of the standard model at the pole: some 100 at V < 15, 1,400 at V < 20.
    assert counts.stars_per_square_degree(15.0, 90.0, 90.0) == pytest.approx(100.0, rel=0.1)
    assert counts.stars_per_square_degree(20.0, 90.0, 90.0) == pytest.approx(1440.0, rel=0.05)


def test_stars_grow_towards_the_plane_and_the_centre_and_do_not_care_for_the_hemisphere() -> None:
    high, low = (counts.stars_per_square_degree(20.0, 90.0, b) for b in (80.0, 25.0))
    assert low > 3.0 * high
    assert counts.stars_per_square_degree(20.0, 0.0, 30.0) > counts.stars_per_square_degree(20.0, 180.0, 30.0)
    assert counts.stars_per_square_degree(20.0, 40.0, -30.0) == counts.stars_per_square_degree(
        20.0, 40.0, 30.0
    )


def test_galaxies_go_through_what_was_counted() -> None:
    # McCracken et al. 2003: 90,729 on 1.2 square degrees at 18 < I < 24. Strauss et al. 2002: 92 at r < 17.77.
    deep = counts.galaxies_per_square_degree(24.0) - counts.galaxies_per_square_degree(18.0)
    assert deep == pytest.approx(75_600.0, rel=0.1)
    assert counts.galaxies_per_square_degree(17.37) == pytest.approx(92.0, rel=0.1)


@pytest.mark.parametrize("mag", [16.0, 17.37, 19.0, 20.0, 22.0, 23.9, 24.0, 26.0])
def test_galaxies_add_up_without_a_step(mag: float) -> None:
    below, at, above = (counts.galaxies_per_square_degree(mag + d) for d in (-0.05, 0.0, 0.05))
    assert 0.25 < (log10(above) - log10(at)) / 0.05 < 0.62
    assert 0.25 < (log10(at) - log10(below)) / 0.05 < 0.62


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("r.MP9601", "r"),
        ("r DECam SDSS c0001 6415.0 1480.0", "r"),
        ("g'", "g"),
        ("u*", "u"),
        ("V", "v"),
        ("i2.MP", "i"),
    ]
    + [(other, None) for other in ("Clear", "Ha", "red", "", None, "OIII")],
)
def test_bands_are_known_by_the_names_of_filters(name: str | None, band: str | None) -> None:
    assert band_of(name) == band


def field(n_stars: int, n_galaxies: int, **changes: object) -> Census | None:
    flux = np.concatenate([np.full(n_stars, 5000.0), np.full(n_galaxies, 5000.0), np.full(50, 100.0)])
    is_star = np.arange(flux.size) < n_stars
    arguments = {
        "zeropoint_mag": 33.0, "limiting_flux_adu": 1000.0, "brightest_adu": 5e6, "area_square_deg": 0.1,
        "band": "r", "galactic_deg": (90.0, 60.0),
    }  # fmt: skip
    return census(flux, is_star, **{**arguments, **changes})  # type: ignore[arg-type]


def test_what_is_expected_gives_a_ratio_of_one() -> None:
    empty = field(0, 0)
    assert empty is not None and empty.faint_mag == pytest.approx(33.0 - 2.5 * log10(4000.0))
    as_expected = replace(empty, stars=round(empty.stars_expected), galaxies=round(empty.galaxies_expected))
    found = ratios([as_expected, None, as_expected], 0.2)
    assert number(found, "counts_ratio_stars") == pytest.approx(1.0, abs=0.02)
    assert number(found, "counts_ratio_galaxies") == pytest.approx(1.0, abs=0.02)
    assert 0.3 < number(found, "counts_ratio_stars_error") < 0.5


def test_only_what_is_told_apart_is_counted() -> None:
    found = field(30, 20)
    assert found is not None and (found.stars, found.galaxies) == (30, 20), "and none of the 50 faint ones"
    saturated = field(30, 20, brightest_adu=9000.0)
    assert saturated is not None and saturated.stars == 30
    assert field(30, 20, brightest_adu=4500.0) is None, "nothing between the limits"


def test_an_empty_sky_still_has_an_error() -> None:
    found = ratios([field(0, 0)])
    assert found["counts_ratio_stars"] == 0.0
    assert number(found, "counts_ratio_stars_error") > 0.3


def test_without_a_zero_point_or_a_known_band_nothing_is_said() -> None:
    assert field(30, 20, zeropoint_mag=float("nan")) is None
    assert field(30, 20, band=None) is None
    assert field(30, 20, limiting_flux_adu=float("nan")) is None
    assert ratios([None, None]) == {}


def test_in_the_milky_way_only_galaxies_are_compared() -> None:
    found = ratios([field(30, 20, galactic_deg=(90.0, 5.0))])
    assert found["counts_ratio_stars"] is None and found["counts_ratio_galaxies"] is not None
