"""Which degree the distortion gets, and what becomes of the bend that exposures come with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from spica_calib.science.astrometry.degrees import choose_degrees, set_degrees
from spica_calib.science.astrometry.layout import lay_out
from spica_calib.science.astrometry.problem import AstrometricSolution, Exposure, Options
from spica_calib.science.astrometry.rounds import Rounds
from spica_calib.science.astrometry.solve import solve
from spica_calib.science.astrometry.start import begin
from spica_calib.science.stars import Floats
from spica_imaging.polynomial import design, terms, tpv_family
from spica_imaging.wcs import TpvWcs, tan_project

from tests.unit.calib.solver_skies import Camera, Scene, make_scene

DITHERS = [(0.0, 0.0), (60.0, 30.0), (-40.0, 70.0), (90.0, -60.0), (-80.0, -50.0)]
SMALL = Camera(2, 2, bend_arcsec=2.0)


@cache
def scene_of(bend_arcsec: float, per_ccd: int, seed: int = 5) -> Scene:
    camera = replace(SMALL, bend_arcsec=bend_arcsec)
    return make_scene(np.random.default_rng(seed), camera, DITHERS, per_ccd=per_ccd)


def bent(wcs: TpvWcs, camera: Camera, rng: np.random.Generator, arcsec: float) -> TpvWcs:
    """A WCS of degree 3 whose terms of degree 2 and 3 are off by so much, as a fit to few stars leaves them."""
    centre, half = (camera.nx / 2.0, camera.ny / 2.0), max(camera.nx, camera.ny) / 2.0
    u, v = (c.ravel() for c in np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9)))
    place = np.column_stack(
        tan_project(*wcs.pixel_to_sky(centre[0] + half * u, centre[1] + half * v), *wcs.crval)
    )
    coefficients = np.linalg.lstsq(design(u, v, 3), place, rcond=None)[0].astype(np.float64)
    coefficients[3:] += arcsec / 3600.0 * rng.standard_normal((len(coefficients) - 3, 2))
    return tpv_family(wcs.crval, np.array([centre]), np.array([half]), coefficients[None], 3)[0]


def with_bends(scene: Scene, arcsec: float) -> list[Exposure]:
    rng = np.random.default_rng(8)
    return [
        replace(e, ccds=tuple(replace(c, wcs=bent(c.wcs, scene.camera, rng, arcsec)) for c in e.ccds))
        for e in scene.exposures
    ]


def spread(scene: Scene, solution: AstrometricSolution) -> float:
    return float(np.std([scene.deviation_mas(k, e.wcs) for k, e in enumerate(solution.exposures)]))


def rounds_of(exposures: Sequence[Exposure], scene: Scene, options: Options) -> Rounds:
    layout = lay_out(exposures, scene.sky.stars, options, {})
    state, goal, information = begin(layout, options, {})
    return Rounds(layout, state, options, goal, information, layout.stars)


@pytest.mark.parametrize("per_ccd", [60, 250])
def test_a_noisy_bend_of_the_start_is_not_kept(per_ccd: int) -> None:
    """WCS whose bend is off by 100 mas per term: the solution is as good as from straight ones, at the same degree."""
    scene = scene_of(2.0, per_ccd)
    clean = solve(scene.exposures, scene.sky.stars)
    found = solve(with_bends(scene, 0.1), scene.sky.stars)
    assert [e.degree for e in found.exposures] == [e.degree for e in clean.exposures] == [3] * len(DITHERS)
    assert spread(scene, found) < 1.2 * spread(scene, clean) + 0.2


def test_a_bend_that_is_not_there_is_removed() -> None:
    """Straight optics and WCS with a bend of 100 mas per term: whatever degree is chosen, it goes."""
    scene = scene_of(0.0, 120)
    for degree in (1, 2, 3, 5):
        found = solve(with_bends(scene, 0.1), scene.sky.stars, Options(degree=degree))
        assert spread(scene, found) < 4.0


def test_higher_degrees_must_show_their_worth() -> None:
    """A cubic bend gets degree 3 where 5 is allowed, and is found as well as where 3 is told."""
    scene = scene_of(2.0, 250)
    five = solve(scene.exposures, scene.sky.stars, Options(degree=5))
    three = solve(scene.exposures, scene.sky.stars, Options(degree=3, degree_fixed=True))
    assert {e.degree for e in five.exposures} == {3}
    assert {wcs.degree for e in five.exposures for wcs in e.wcs} == {3}
    assert five.models["r"].ccds["ccd00"].degree == 3
    assert any("degree 3 of 5" in note for note in five.notes)
    assert spread(scene, five) < 1.1 * spread(scene, three)


def test_terms_above_the_degree_are_nothing() -> None:
    scene = scene_of(2.0, 60)
    rounds = rounds_of(with_bends(scene, 0.1), scene, Options(degree=3))
    assert np.abs(rounds.state.planes[:, :, len(terms(1)) :]).max() > 0.05
    set_degrees(rounds, np.array([2], dtype=np.int32))
    assert not rounds.state.planes[:, :, len(terms(2)) :].any()
    assert rounds.state.planes[:, :, len(terms(1)) : len(terms(2))].any()


def test_choosing_leaves_the_model_alone() -> None:
    """Trying degrees moves nothing below the degree that is chosen."""
    scene = scene_of(2.0, 60)
    rounds = rounds_of(scene.exposures, scene, Options(degree=5))
    ties = rounds.associate()
    rounds.weigh(ties)
    before = rounds.state.planes.copy()
    choose_degrees(rounds, ties)
    count = len(terms(int(rounds.degrees[0])))
    assert np.array_equal(rounds.state.planes[:, :, :count], before[:, :, :count])


def bend_after(planes: Floats, goal: Floats, degree: int) -> float:
    first, last = len(terms(degree - 1)), len(terms(degree))
    return float(np.sqrt(np.mean((planes - goal)[:, :, first:last] ** 2)))


def test_the_scatter_of_bends_is_learnt() -> None:
    """From WCS without any bend it becomes what the planes show; nothing is held closer than detections tell."""
    scene = scene_of(2.0, 250)
    rounds = rounds_of(scene.exposures, scene, Options(degree=3))
    assert rounds.bend[0, 2] == pytest.approx(0.5)
    ties = rounds.associate()
    for _ in range(6):
        rounds.step(ties, rounds.weigh(ties), 1e-2, fresh=True)
        rounds.learn_bend()
    for degree in (2, 3):
        shown = bend_after(rounds.state.planes, rounds.bend_goal, degree)
        least = 3.0 * float(np.hypot(np.median(rounds.error), np.median(rounds.extra)))
        assert rounds.bend[0, degree] == pytest.approx(max(shown, least), rel=0.2)
        assert rounds.bend[0, degree] >= least
