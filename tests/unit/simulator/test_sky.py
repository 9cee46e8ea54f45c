"""Number counts, motions, and a reference catalogue whose errors are what it says."""

from __future__ import annotations

import numpy as np
import pytest
from spica_simulator.night import REFERENCE_STARS_PER_CCD
from spica_simulator.sky import (
    REFERENCE_EPOCH_YEAR,
    REFERENCE_LIMIT_MAG,
    Sky,
    draw_magnitudes,
    join,
    make_galaxies,
    make_stars,
    reference_catalogue,
)

CENTRE = (214.85, 52.65)


@pytest.fixture(scope="module")
def stars() -> Sky:
    return make_stars(CENTRE, (0.2, 0.2), 20000.0, 25.0, np.random.default_rng(1))


def test_counts_follow_the_two_slopes() -> None:
    mags = draw_magnitudes(200_000, 14.0, 19.0, 25.0, (0.3, 0.15), np.random.default_rng(1))
    assert mags.min() >= 14 and mags.max() <= 25

    def below(mag: float) -> int:
        return int((mags < mag).sum())

    assert np.log10(below(18.5) / below(17.5)) == pytest.approx(0.3, abs=0.02)
    # Beyond the knee the differential counts have the second slope.
    assert np.log10((below(24) - below(23)) / (below(23) - below(22))) == pytest.approx(0.15, abs=0.01)


def test_density_is_as_ordered(stars: Sky) -> None:
    bright = (stars.mags["r"] < REFERENCE_LIMIT_MAG).sum()
    assert bright == pytest.approx(20000 * 0.16, rel=0.1)


def test_stars_move_and_galaxies_do_not(stars: Sky) -> None:
    galaxies = make_galaxies(CENTRE, (0.1, 0.1), 20000.0, np.random.default_rng(2))
    sky = join(stars, galaxies)
    ra, dec = sky.at(REFERENCE_EPOCH_YEAR + 10.0)
    moved = 3.6e6 * np.hypot((ra - sky.ra_deg) * np.cos(np.radians(sky.dec_deg)), dec - sky.dec_deg)
    expected = 10 * np.hypot(sky.pmra_mas_yr, sky.pmdec_mas_yr)
    assert moved == pytest.approx(expected, abs=1e-4)
    assert moved[~sky.is_star].max() == 0
    assert np.median(moved[sky.is_star]) > 10


def test_reference_errors_are_what_the_catalogue_says(stars: Sky) -> None:
    table = reference_catalogue(stars, np.random.default_rng(3))
    assert set(table) == {
        "ra_deg",
        "dec_deg",
        "pmra_mas_yr",
        "pmdec_mas_yr",
        "epoch_year",
        "ra_err_mas",
        "dec_err_mas",
        "mag_g",
        "mag_r",
        "mag_i",
    }
    chosen = np.flatnonzero(stars.mags["r"] < REFERENCE_LIMIT_MAG)
    chosen = chosen[np.argsort(stars.dec_deg[chosen], kind="stable")]
    pull = (table["dec_deg"] - stars.dec_deg[chosen]) * 3.6e6 / table["dec_err_mas"]
    assert pull.std() == pytest.approx(1.0, abs=0.05)
    assert pull.mean() == pytest.approx(0.0, abs=0.08)
    assert table["ra_err_mas"].min() >= 0.02 and table["ra_err_mas"].max() < 2.0
    unknown = np.isnan(table["pmra_mas_yr"])
    assert 0 < unknown.sum() < 0.05 * len(unknown)
    assert (table["mag_r"][unknown] > 20).all()


def test_every_ccd_has_enough_reference_stars() -> None:
    assert REFERENCE_STARS_PER_CCD - 2.7 * REFERENCE_STARS_PER_CCD**0.5 >= 60
