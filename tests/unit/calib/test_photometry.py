"""Zero points and flux scales."""

from __future__ import annotations

import numpy as np
import pytest
from spica_calib.science.photometry.fluxes import NOMINAL_ZEROPOINT_MAG, solve_fluxes
from spica_calib.science.photometry.zeropoint import choose_band, flux_scale, limiting_mag, zero_point

BANDS = {"g": np.zeros(1), "r": np.zeros(1)}


def test_bands() -> None:
    assert choose_band("r", BANDS) == "r"
    assert choose_band("z", BANDS) is None
    assert choose_band(None, BANDS) is None
    assert choose_band(None, {"V": np.zeros(1)}) == "V"
    assert choose_band("r", {"V": np.zeros(1)}) is None


def stars(n: int, scatter: float, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mag = rng.uniform(15, 20, n)
    flux = 120.0 * 10 ** (0.4 * (26.4 - mag + scatter * rng.standard_normal(n)))
    return mag, flux, 0.01 * flux


def test_zero_point_of_one_count_per_second() -> None:
    mag, flux, error = stars(200, 0.02)
    flux[:30] *= 3.0  # variables, blends
    clean = np.ones(200, dtype=bool)
    clean[30:60] = False
    flux[30:60] *= 0.2  # saturated
    found = zero_point("r", mag, flux, error, 120.0, clean)
    assert found is not None
    assert found.mag == pytest.approx(26.4, abs=0.006)
    assert found.error_mag == pytest.approx(0.025 / np.sqrt(140), rel=0.5)
    assert found.scatter_mag == pytest.approx(0.02, rel=0.3)
    assert 130 <= found.n <= 140
    assert found.band == "r"


@pytest.mark.parametrize("spoil", ["few", "unmeasured", "no_time"])
def test_no_zero_point_is_none(spoil: str) -> None:
    mag, flux, error = stars(2 if spoil == "few" else 20, 0.02)
    if spoil == "unmeasured":
        mag[:] = np.nan
    seconds = 0.0 if spoil == "no_time" else 60.0
    assert zero_point("r", mag, flux, error, seconds, np.ones(len(mag), dtype=bool)) is None


def test_scale_and_limit_mean_the_same_as_their_definitions() -> None:
    counts, zero, seconds = 5000.0, 26.4, 120.0
    magnitude = zero - 2.5 * np.log10(counts / seconds)
    assert -2.5 * np.log10(counts * flux_scale(zero, seconds)) + 30.0 == pytest.approx(magnitude)
    assert limiting_mag(zero, counts, seconds) == pytest.approx(magnitude)


def detections(
    zeros: list[float], pairs: list[tuple[int, int]], seed: int = 3
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """30 stars per pair of exposures that overlap; one in ten is spoiled in one exposure."""
    rng = np.random.default_rng(seed)
    mag, exposure, group = [], [], []
    for number, pair in enumerate(pairs):
        for star in range(30):
            true = rng.uniform(16, 20)
            for which in pair:
                spoiled = 0.8 if star % 10 == 0 and which == pair[0] else 0.0
                mag.append(true - zeros[which] + spoiled + 0.01 * rng.standard_normal())
                exposure.append(which)
                group.append(30 * number + star)
    return np.array(mag), np.full(len(mag), 0.01), np.array(exposure), np.array(group)


def test_relative_scales_hang_on_one_absolute_zero_point() -> None:
    zeros = [26.0, 26.3, 25.9, 26.1]
    own = np.array([26.0, np.nan, np.nan, np.nan])
    found = solve_fluxes(
        *detections(zeros, [(0, 1), (1, 2), (2, 3)]), own, np.array([0.01, np.nan, np.nan, np.nan])
    )
    assert np.abs(found.zeropoint_mag - zeros).max() < 0.02
    assert found.anchored
    assert found.scatter_mag == pytest.approx(0.01, rel=0.4)


def test_without_any_zero_point_the_scale_is_relative_and_says_so() -> None:
    zeros = [26.0, 26.3, 25.9]
    nothing = np.full(3, np.nan)
    found = solve_fluxes(*detections(zeros, [(0, 1), (1, 2)]), nothing, nothing)
    assert not found.anchored
    assert found.zeropoint_mag.mean() == pytest.approx(NOMINAL_ZEROPOINT_MAG)
    assert np.abs(np.diff(found.zeropoint_mag) - np.diff(zeros)).max() < 0.015


def test_parts_that_do_not_overlap_keep_their_own_zero_points() -> None:
    zeros = [26.0, 26.3, 25.9, 26.1]
    own = np.array([26.01, 26.29, 25.9, 26.1])
    found = solve_fluxes(*detections(zeros, [(0, 1), (2, 3)]), own, np.full(4, 0.02))
    assert np.abs(found.zeropoint_mag - zeros).max() < 0.02


def test_one_exposure_alone() -> None:
    empty = np.empty(0)
    nobody = np.empty(0, dtype=np.int64)
    found = solve_fluxes(empty, empty, nobody, nobody, np.array([26.2]), np.array([0.01]))
    assert found.zeropoint_mag.tolist() == [26.2]
    assert found.scatter_mag is None
