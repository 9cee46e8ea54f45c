"""Matching: found where it must be, refused where it must be."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import KDTree
from scipy.stats import binom
from spica_calib.science.matching.chance import WIDENED, log10_false_match, log10_maps
from spica_calib.science.matching.geometry import Motion, NoMatch, field_centre, pointing_wcs, unit_vectors
from spica_calib.science.matching.locate import locate
from spica_calib.science.matching.search import Frame, Prior, mutual_nearest
from spica_imaging.wcs import TpvWcs

from tests.support.skies import distorted_wcs, make_stars, observe, separation_mas, shuffled

CENTRE = (214.85, 52.65)
LIMIT = -6.0


def test_mutual_nearest_is_mutual() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.uniform(0, 10, (40, 2)), rng.uniform(0, 10, (60, 2))
    i, j = mutual_nearest(a[:, 0], a[:, 1], KDTree(b), 1.0)
    distance = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1))
    # By hand: b is a's nearest, and no other a whose nearest is b lies closer.
    expected = {
        (p, int(distance[p].argmin()))
        for p in range(40)
        if distance[p].min() <= 1.0
        and all(
            distance[q, distance[p].argmin()] >= distance[p].min()
            for q in range(40)
            if distance[q].argmin() == distance[p].argmin()
        )
    }
    assert set(zip(i.tolist(), j.tolist(), strict=True)) == expected
    assert len(expected) > 10


@given(st.integers(1, 100), st.floats(0.001, 0.5), st.data())
def test_the_odds_are_never_understated(n: int, p: float, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    exact = binom.logsf(k - 1, n, p) / math.log(10)
    bound = log10_false_match(k, n, p, 1.0, 0)
    assert bound >= exact - 1e-9
    assert bound <= 0.0


def test_hypotheses_and_freedom_cost() -> None:
    plain = log10_false_match(20, 40, 0.05, 1, 0)
    assert log10_false_match(20, 40, 0.05, 1e6, 0) == pytest.approx(plain + 6)
    assert log10_false_match(20, 40, 0.05, 1, 3) > plain
    assert log10_false_match(2, 40, 0.05, 1, 3) == 0.0


def test_frame_geometry() -> None:
    frame = Frame(
        np.array([[[0, 0], [4, 0], [4, 2], [0, 2]], [[5, 0], [9, 0], [9, 2], [5, 2]]], dtype=float), 0.2
    )
    assert frame.area == 16.0
    assert frame.half_diagonal == pytest.approx(math.hypot(9.0, 2.0))
    assert frame.mapped(2.0 * np.eye(2), np.array([1.0, 0.0])).area == 64.0
    inside = frame.contains(np.array([1.0, 4.5, 8.9]), np.array([1.0, 1.0, 1.9]))
    assert inside.tolist() == [True, False, True]


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_no_map_lies_far_from_the_grid_that_is_counted(seed: int, sheared: bool) -> None:
    rng = np.random.default_rng(seed)
    shift, rotation, scale, shear, half, radius = 30.0, 0.1, 0.05, 0.02 if sheared else 0.0, 400.0, 1.0
    spans = [shift, shift, rotation, scale, *([shear, shear] if sheared else [])]
    units = [1.0, 1.0, *[half * (1 + scale)] * (len(spans) - 2)]
    count = 10 ** log10_maps(shift, rotation, scale, shear, half, radius)
    step = 0.5 * radius / (3.0 / math.sqrt(2.0) if sheared else math.sqrt(2.0))
    # No fewer than the points of that grid.
    assert count >= math.prod(math.ceil(2 * s * u / step) for s, u in zip(spans, units, strict=True))
    basis = [
        np.array([[0.0, 0, 1], [0, 0, 0]]), np.array([[0.0, 0, 0], [0, 0, 1]]),
        np.array([[0.0, -1, 0], [1, 0, 0]]), np.array([[1.0, 0, 0], [0, 1, 0]]),
        np.array([[1.0, 0, 0], [0, -1, 0]]), np.array([[0.0, 1, 0], [1, 0, 0]]),
    ]  # fmt: skip
    off = [rng.uniform(-0.5, 0.5) * step / unit for unit in units]
    difference = sum((d * b for d, b in zip(off, basis, strict=False)), np.zeros((2, 3)))
    angle = rng.uniform(0, 2 * np.pi, 50)
    points = np.vstack((half * (1 + scale) * np.array([np.cos(angle), np.sin(angle)]), np.ones(50)))
    assert np.hypot(*(difference @ points)).max() <= (WIDENED - 1.0) * radius * (1 + 1e-9)


def test_a_motion_moves_pixels_as_it_moves_the_sky() -> None:
    rng = np.random.default_rng(12)
    for centre in ((214.85, 52.65), (0.001, -30.0), (120.0, 89.9), (33.0, -89.99)):
        for bend, mirrored in ((0.0, False), (3.0, True)):
            wcs = distorted_wcs(centre, rotation_deg=17.0, bend_px=bend, mirrored=mirrored)
            angle = rng.uniform(-np.pi, np.pi)
            matrix = 1.1 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            motion = Motion.still(centre).then(matrix, rng.uniform(-600, 600, 2))
            x, y = rng.uniform(1, 1024, (2, 20))
            told = unit_vectors(*motion.apply(*wcs.pixel_to_sky(x, y)))
            moved = unit_vectors(*motion.move(wcs).pixel_to_sky(x, y))
            assert np.degrees(np.abs(told - moved).max()) * 3.6e6 < 0.1


def test_a_motion_told_from_elsewhere_is_the_same() -> None:
    motion = Motion.still((30.0, 60.0)).then(np.array([[0.99, 0.05], [-0.05, 0.99]]), np.array([40.0, -25.0]))
    ra, dec = np.array([30.2, 30.21]), np.array([60.1, 60.11])
    here = motion.at((30.2, 60.1))
    assert np.abs(unit_vectors(*motion.apply(ra, dec)) - unit_vectors(*here.apply(ra, dec))).max() < 1e-8


def test_the_centre_is_found_across_the_meridian_and_at_the_pole() -> None:
    stars = make_stars(np.random.default_rng(1), 30, CENTRE, 0.06)
    for a, b, expected in (
        ((359.9, 0.0), (0.1, 0.0), (0.0, 0.0)),
        ((0.0, 89.9), (180.0, 89.9), (None, 90.0)),
    ):
        scenes = [
            observe(np.random.default_rng(2), stars, distorted_wcs(CENTRE), distorted_wcs(c)) for c in (a, b)
        ]
        ra, dec = field_centre([scene.field for scene in scenes])
        assert dec == pytest.approx(expected[1], abs=1e-6)
        assert expected[0] is None or (ra + 1e-6) % 360.0 == pytest.approx(1e-6, abs=1e-5)


PRIOR = Prior(shift_arcsec=120.0, rotation_deg=5.0, scale=0.05)


def test_a_shift_of_ten_arcsec_is_recovered() -> None:
    rng = np.random.default_rng(5)
    stars = make_stars(rng, 1200, CENTRE, 0.06)
    truth = distorted_wcs(CENTRE)
    scene = observe(rng, stars, truth, truth.moved(10.0 / 3600, -3.0 / 3600))
    found = locate([scene.field], stars, "r", PRIOR, rigid=True, limit_log10=LIMIT)
    assert found.offset_arcsec == pytest.approx(math.hypot(10, 3), abs=0.1)
    assert found.log10_false < -20
    assert separation_mas(found.wcs[0], truth) < 15


@pytest.mark.parametrize("rigid", [True, False])
def test_a_shuffled_catalogue_is_refused(rigid: bool) -> None:
    rng = np.random.default_rng(6)
    stars = make_stars(rng, 300, CENTRE, 0.06)
    truth = distorted_wcs(CENTRE)
    scene = observe(rng, stars, truth, truth)
    for _ in range(3):
        with pytest.raises(NoMatch) as refused:
            locate([scene.field], shuffled(rng, stars), "r", PRIOR, rigid=rigid, limit_log10=LIMIT)
        assert refused.value.numbers["n_reference"] == 300
        assert float(refused.value.numbers["log10_false_match"] or 0) > LIMIT


def test_too_few_sources_are_refused() -> None:
    rng = np.random.default_rng(7)
    stars = make_stars(rng, 300, CENTRE, 0.06)
    truth = distorted_wcs(CENTRE)
    scene = observe(rng, stars, truth, truth, strangers=0)
    field = replace(scene.field, sources=scene.field.sources.take(np.arange(2)))
    with pytest.raises(NoMatch, match="too few"):
        locate([field], stars, "r", PRIOR, rigid=False, limit_log10=LIMIT)


@pytest.mark.parametrize(
    ("rotation", "mirrored", "prior"),
    [
        (4.0, False, Prior(90.0, 5.0, 0.05)),
        (178.0, True, Prior(90.0, 180.0, 0.03, (False, True))),
        (-95.0, False, Prior(90.0, 180.0, 0.03, (False, True))),
    ],
)
def test_a_rough_pointing_is_enough(rotation: float, mirrored: bool, prior: Prior) -> None:
    rng = np.random.default_rng(8)
    stars = make_stars(rng, 1600, CENTRE, 0.08)
    truth = distorted_wcs(CENTRE, rotation_deg=rotation, mirrored=mirrored, scale_arcsec=0.203)
    start = pointing_wcs(CENTRE[0] + 0.02, CENTRE[1] - 0.015, 1024, 1024, 0.2, 0.0, False)
    scene = observe(rng, stars, truth, start)
    found = locate([scene.field], stars, "r", prior, rigid=False, limit_log10=LIMIT)
    assert separation_mas(found.wcs[0], truth) < 20
    assert found.wcs[0].mirrored == mirrored


def mosaic(rng: np.random.Generator, stars: object, pointing_only: bool) -> tuple[list, list[TpvWcs]]:  # type: ignore[type-arg]
    """Four CCDs; headers know the nominal places, truth is shifted and each CCD misplaced by some pixels."""
    scenes, truths = [], []
    for k, (dx, dy) in enumerate(((-1, -1), (1, -1), (-1, 1), (1, 1))):
        ideal = pointing_wcs(*CENTRE, 1024, 1024, 0.2, 0.0, False)
        nominal = replace(ideal, crpix=(512.5 - 550 * dx, 512.5 - 550 * dy))
        ra, dec = nominal.pixel_to_sky(512.5 + rng.uniform(-5, 5), 512.5 + rng.uniform(-5, 5))
        truth = distorted_wcs(
            (float(ra), float(dec)), rotation_deg=float(rng.normal(0, 0.02)), bend_px=2.0
        ).moved(4e-3, -2e-3)
        scenes.append(observe(rng, stars, truth, ideal if pointing_only else nominal, name=f"ccd{k:02d}"))  # type: ignore[arg-type]
        truths.append(truth)
    return [scene.field for scene in scenes], truths


@pytest.mark.parametrize("pointing_only", [False, True])
def test_a_mosaic(pointing_only: bool) -> None:
    rng = np.random.default_rng(9)
    stars = make_stars(rng, 900, CENTRE, 0.1)
    fields, truths = mosaic(rng, stars, pointing_only)
    prior = Prior(300.0 if pointing_only else 60.0, 5.0, 0.05)
    found = locate(fields, stars, "r", prior, rigid=not pointing_only, limit_log10=LIMIT)
    assert all(found.found)
    for wcs, truth in zip(found.wcs, truths, strict=True):
        assert separation_mas(wcs, truth) < 25
