"""Which sources are taken for stars."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from spica_quality.science.photometry.shapes import AdaptiveMoments
from spica_quality.science.psf.stamps import cut_stamps
from spica_quality.science.psf.stars import core_clean, isolated, on_locus, strongest, telling, whole

Floats = NDArray[np.float64]
SHAPE = (4000, 2000)


def sky(
    n_stars: int = 150, n_galaxies: int = 500, variation: float = 0.15, seed: int = 0
) -> tuple[AdaptiveMoments, NDArray[np.bool_]]:
    """Sources whose stars grow by `variation` from the middle to the right edge, and shrink to the left."""
    random = np.random.default_rng(seed)
    n = n_stars + n_galaxies
    star = np.arange(n) < n_stars
    x, y = random.uniform(0, SHAPE[1], n), random.uniform(0, SHAPE[0], n)
    u, v = 2 * x / SHAPE[1] - 1, 2 * y / SHAPE[0] - 1
    snr = np.where(star, np.exp(random.uniform(np.log(20), np.log(2000), n)), 20 * random.pareto(1.0, n) + 20)
    sigma = 1.9 * (1.0 + variation * u)
    e1, e2 = 0.03 * u, 0.05 * v
    sigma[~star] *= np.exp(np.abs(random.normal(0.45, 0.25, n_galaxies)) + 0.03)
    e1[~star] += random.normal(0, 0.2, n_galaxies)
    e2[~star] += random.normal(0, 0.2, n_galaxies)
    sigma *= np.exp(random.normal(0, 1, n) / (np.sqrt(2) * snr))
    e1 += random.normal(0, 1, n) / snr
    e2 += random.normal(0, 1, n) / snr
    t = sigma**2 / np.sqrt(np.maximum(1 - e1**2 - e2**2, 0.1))
    return AdaptiveMoments(x, y, t * (1 + e1), t * (1 - e1), t * e2, snr), star


def test_stars_of_a_varying_profile_are_found_into_the_corners() -> None:
    moments, star = sky()
    chosen = on_locus(moments, np.ones(star.shape, np.bool_), SHAPE)
    assert np.count_nonzero(chosen & star) > 0.93 * np.count_nonzero(star)
    assert np.count_nonzero(chosen & ~star) < 0.1 * np.count_nonzero(chosen)
    edge = star & (np.abs(2 * moments.x / SHAPE[1] - 1) > 0.8)
    assert np.count_nonzero(chosen & edge) > 0.9 * np.count_nonzero(edge)


def test_what_may_not_be_a_star_is_none() -> None:
    moments, star = sky()
    usable = np.zeros(star.shape, np.bool_)
    usable[::2] = True
    chosen = on_locus(moments, usable, SHAPE, least_snr=50.0)
    assert not np.any(chosen & ~usable)
    assert moments.snr[chosen].min() >= 50.0


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5])
def test_a_few_stars_are_enough(n: int) -> None:
    moments, _ = sky(n, 0, variation=0.0)
    assert np.count_nonzero(on_locus(moments, np.ones(n, np.bool_), SHAPE)) == n


def test_sources_without_a_shape_are_no_stars() -> None:
    moments, star = sky()
    moments.xx[:20] = np.nan
    chosen = on_locus(moments, np.ones(star.shape, np.bool_), SHAPE)
    assert not chosen[:20].any()
    assert np.count_nonzero(chosen) > 100


def test_neighbours_that_shine_in_are_seen() -> None:
    fwhm = 4.0
    x = np.array([100.0, 108.0, 300.0, 306.0, 500.0, 520.0, 700.0, 701.0])
    y = np.full(8, 50.0)
    flux = np.array([1e4, 1e4, 1e4, 20.0, 1e4, 1e6, 1e4, np.nan])
    asked = np.array([True, False, True, False, True, False, True, False])
    # So many others that the strict limit counts.
    more = np.arange(40) * 100.0
    alone = isolated(
        np.r_[x, more], np.r_[y, more * 0 + 900.0], np.r_[flux, more * 0 + 1.0], np.r_[asked, more >= 0], fwhm
    )
    assert alone[:8].tolist() == [False, False, True, False, False, False, True, False]
    assert alone[8:].all()


def test_in_a_crowd_the_limit_gives_way() -> None:
    x, y = np.array([50.0, 60.0]), np.array([50.0, 50.0])
    assert isolated(x, y, np.ones(2), np.array([True, True]), 4.0).all()
    close = np.array([50.0, 53.0])
    assert not isolated(close, y, np.ones(2), np.array([True, True]), 4.0).any()


def test_the_brightest_tell_nearly_all() -> None:
    snr = np.r_[np.full(200, 250.0), np.full(1500, 21.0), np.full(5, 9e9)]
    kept = telling(snr, np.r_[np.ones(1700, np.bool_), np.zeros(5, np.bool_)], share=0.98)
    assert kept[:200].all()
    assert np.count_nonzero(kept) < 1200
    assert not kept[1700:].any()
    few = telling(snr[:40], np.ones(40, np.bool_))
    assert few.all()
    assert not telling(snr, np.zeros(1705, np.bool_)).any()


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(0, 9))
def test_a_choice_is_spread_over_the_frame(most: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    n = 200
    x, y = random.uniform(0, 100, n), random.uniform(0, 200, n)
    snr, chosen = random.uniform(20, 900, n), random.random(n) < 0.7
    kept = strongest(x, y, snr, chosen, most, (200, 100))
    assert np.count_nonzero(kept) == min(most, np.count_nonzero(chosen))
    assert not np.any(kept & ~chosen)
    cell = (x // 25).astype(int) * 4 + (y // 50).astype(int)
    counts = [np.count_nonzero(kept & (cell == c)) for c in range(16)]
    there = [np.count_nonzero(chosen & (cell == c)) for c in range(16)]
    for c in range(16):
        assert counts[c] >= min(there[c], most // 16)
        if 0 < counts[c] < there[c]:
            inside = cell == c
            assert snr[kept & inside].min() > snr[chosen & ~kept & inside].max()


@settings(deadline=None)
@given(st.floats(-5, 45), st.floats(-5, 35), st.floats(0.5, 6.0), st.integers(0, 9))
def test_a_clean_core_has_no_flag(x: float, y: float, radius: float, seed: int) -> None:
    flags = (np.random.default_rng(seed).random((30, 40)) < 0.01).astype(np.uint16) * 8
    found = core_clean(flags, np.array([x]), np.array([y]), radius, np.ones(1, np.bool_))[0]
    jj, ii = np.mgrid[:30, :40]
    near = np.hypot(ii - x, jj - y) <= radius
    low_x, high_x, low_y, high_y = (
        np.ceil(x - radius),
        np.floor(x + radius),
        np.ceil(y - radius),
        np.floor(y + radius),
    )
    inside = low_x >= 0 and low_y >= 0 and high_x < 40 and high_y < 30
    assert found == (inside and not flags[near].any())


def test_nowhere_is_no_clean_core() -> None:
    flags = np.zeros((30, 40), np.uint16)
    x, y = np.array([np.nan, 20.0, np.inf]), np.array([15.0, np.nan, 15.0])
    assert not core_clean(flags, x, y, 2.0, np.ones(3, np.bool_)).any()


def test_whole_stamps() -> None:
    data, flags = np.ones((100, 100), np.float32), np.zeros((100, 100), np.uint16)
    flags[50, 52] = 32  # in the core of the first
    flags[20, 28] = 32  # in the wing of the second
    x, y = np.array([50.0, 20.0, 2.0]), np.array([50.0, 20.0, 2.0])  # the third is cut by the frame's corner
    stamps = cut_stamps(data, flags, x, y, np.ones(3), 21)
    assert whole(stamps, 4.0).tolist() == [False, True, False]
