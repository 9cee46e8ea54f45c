"""A solution found elsewhere, in our terms: against truth, and against slow twins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from spica_calib.scamp_residuals import as_solution, mutual_nearest, sources_on_sky
from spica_calib.science.astrometry.problem import AstrometricSolution, Exposure, Options
from spica_calib.science.matching.geometry import unit_vectors
from spica_calib.science.stars import Stars
from spica_imaging.wcs import TpvWcs

from tests.support.skies import Scene, distorted_wcs, make_stars, observe

Floats = NDArray[np.float64]
ARCSEC = np.radians(1.0 / 3600.0)


def slow_pairs(a: Floats, b: Floats, radius: float) -> set[tuple[int, int]]:
    """Points that are each other's nearest, by comparing all with all."""
    found = set()
    for i in range(len(a)):
        distance = [float(np.linalg.norm(a[i] - b[j])) for j in range(len(b))]
        if not distance or min(distance) > radius:
            continue
        j = int(np.argmin(distance))
        if int(np.argmin([float(np.linalg.norm(a[k] - b[j])) for k in range(len(a))])) == i:
            found.add((i, j))
    return found


@given(st.integers(0, 25), st.integers(0, 25), st.integers(0, 10_000), st.floats(0.5, 30.0))
@settings(max_examples=60, deadline=None)
def test_nearest_as_the_slow_twin(n: int, m: int, seed: int, radius_arcsec: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = (unit_vectors(rng.uniform(0, 0.01, k), rng.uniform(79.99, 80.0, k)) for k in (n, m))
    i, j = mutual_nearest(a, b, radius_arcsec * ARCSEC)
    assert set(zip(i.tolist(), j.tolist(), strict=True)) == slow_pairs(a, b, radius_arcsec * ARCSEC)


@given(st.lists(st.integers(0, 3), min_size=0, max_size=60), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_a_source_has_one_detection_per_exposure(exposures: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = len(exposures)
    place = unit_vectors(359.999 + rng.uniform(0, 0.002, n), rng.uniform(-0.001, 0.001, n))
    exposure = np.array(exposures, dtype=np.int64)
    source = sources_on_sky(place, exposure, 2.0 * ARCSEC)
    assert len(set(zip(source.tolist(), exposures, strict=True))) == n
    assert set(source.tolist()) == set(range(int(source.max()) + 1 if n else 0))
    for number in np.unique(source):
        members = place[source == number]
        # Each joined within the radius of the mean so far: no two are further apart than twice that and a bit.
        assert np.linalg.norm(members - members[0], axis=1).max() < 6.0 * ARCSEC


def scene_of(
    centre: tuple[float, float], seed: int, n: int = 2, noise_px: float = 0.03
) -> tuple[list[Exposure], list[tuple[TpvWcs, ...]], Stars, list[Scene]]:
    rng = np.random.default_rng(seed)
    stars = make_stars(rng, 400, centre, 0.05)
    exposures, truth, scenes = [], [], []
    for number in range(n):
        wcs = distorted_wcs(centre).moved(0.001 * number, 0.0)
        scene = observe(rng, stars, wcs, wcs, strangers=20, noise_px=noise_px)
        exposures.append(Exposure(f"{number}", "r", (scene.field,), 2016.0))
        truth.append((wcs,))
        scenes.append(scene)
    return exposures, truth, stars, scenes


def told(
    exposures: list[Exposure], wcs: list[tuple[TpvWcs, ...]], stars: Stars, options: Options | None = None
) -> AstrometricSolution:
    return as_solution(exposures, wcs, stars, options or Options(), models={}, rounds=2, notes=("a",))


@pytest.mark.parametrize("centre", [(150.0, 2.0), (0.0, 60.0), (30.0, -89.9)])
def test_the_truth_has_the_residuals_of_its_noise(centre: tuple[float, float]) -> None:
    exposures, truth, stars, scenes = scene_of(centre, 3, n=4)
    solution = told(exposures, truth, stars, Options(with_positions=True))
    # 0.03 px of 0.2 arcsec are 6 mas; the mean of four follows each by a quarter.
    assert solution.external_mas == pytest.approx((6.0, 6.0), rel=0.15)
    assert solution.internal_mas == pytest.approx((6.0 * np.sqrt(0.75),) * 2, rel=0.15)
    assert 0.6 < solution.chi2_external < 1.1
    assert 0.6 < solution.chi2_internal < 1.1
    real = np.concatenate([scene.star for scene in scenes])
    detections = solution.detections
    seen = real >= 0
    assert np.mean(detections.star[seen] == real[seen]) > 0.98
    assert detections.kept[seen].mean() > 0.98
    assert np.isnan(detections.external_mas[detections.star < 0]).all()
    assert solution.notes == ("a",)
    assert solution.sources is not None
    groups = {g: k for k, g in enumerate(solution.sources.group.tolist())}
    four = np.flatnonzero(solution.sources.n_detections == 4)
    assert len(four) > 50
    spread = np.sqrt(solution.sources.covariance_mas2[four, 0])
    assert np.median(spread) == pytest.approx(6.3 / 2, rel=0.2)
    assert set(detections.group[detections.kept].tolist()) >= set(groups)


def test_a_shift_shows_where_it_is() -> None:
    exposures, truth, stars, _ = scene_of((150.0, 2.0), 3, noise_px=0.01)
    shifted = [truth[0], (truth[1][0].moved(0.05 / 3600.0, 0.0),)]
    solution = told(exposures, shifted, stars)
    left = solution.detections
    one = (left.exposure == 1) & left.kept & (left.star >= 0)
    assert np.median(left.external_mas[one, 0]) == pytest.approx(-50.0, abs=1.0)
    assert np.median(left.external_mas[one, 1]) == pytest.approx(0.0, abs=1.0)
    both = one & np.isfinite(left.internal_mas[:, 0])
    assert np.median(left.internal_mas[both, 0]) == pytest.approx(-25.0, abs=1.0)
    assert solution.chi2_internal > 10.0


def test_outliers_are_cut() -> None:
    exposures, truth, stars, scenes = scene_of((150.0, 2.0), 5)
    field = exposures[0].ccds[0]
    astray = np.flatnonzero(scenes[0].star >= 0)[:5]
    x = field.sources.x.copy()
    x[astray] += 1.5
    moved = replace(exposures[0], ccds=(replace(field, sources=replace(field.sources, x=x)),))
    solution = told([moved, exposures[1]], truth, stars)
    assert not solution.detections.kept[astray].any()
    assert max(solution.external_mas) < 8.0


def test_proper_motions_go_to_each_exposures_epoch() -> None:
    exposures, truth, stars, _ = scene_of((150.0, 2.0), 3)
    fast = replace(
        stars,
        ra_deg=stars.ra_deg - 1.0 / 3600.0 / np.cos(np.radians(stars.dec_deg)),
        epoch_year=np.full(len(stars), 2006.0),
        pm_ra_mas_yr=np.full(len(stars), 100.0),
    )
    assert told(exposures, truth, fast).external_mas == pytest.approx((6.0, 6.0), rel=0.15)


def test_nothing_to_go_by() -> None:
    exposures, truth, stars, _ = scene_of((150.0, 2.0), 3, n=1)
    nothing = np.zeros(0, dtype=np.intp)
    solution = told(exposures, truth, stars.take(nothing))
    assert (solution.n_external, solution.n_internal) == (0, 0)
    assert np.isnan(solution.external_mas).all()
    assert np.isnan(solution.internal_mas).all()
    empty = replace(exposures[0].ccds[0], sources=exposures[0].ccds[0].sources.take(nothing))
    solution = told([replace(exposures[0], ccds=(empty,))], truth, stars)
    assert len(solution.detections.exposure) == 0
    assert np.isnan(solution.chi2_external)
