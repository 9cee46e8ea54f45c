"""The astrometric solution on made-up catalogues of mosaic cameras: against the truth, and against itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import KDTree
from spica_calib.science.astrometry.problem import (
    AstrometricSolution,
    Exposure,
    InstrumentModel,
    Options,
    Zenith,
)
from spica_calib.science.astrometry.solve import solve
from spica_imaging.wcs import TpvWcs, tan_project

from tests.unit.calib.solver_skies import (
    Camera,
    Scene,
    Shot,
    make_scene,
    make_sky,
    observe,
    shuffled,
    through,
)

DITHERS = [(0.0, 0.0), (60.0, 30.0), (-40.0, 70.0), (90.0, -60.0), (-80.0, -50.0)]
SMALL = Camera(2, 2, bend_arcsec=2.0)


@cache
def small_scene() -> Scene:
    return make_scene(np.random.default_rng(5), SMALL, [*DITHERS, (10.0, 20.0)], per_ccd=250)


@cache
def small_solution() -> AstrometricSolution:
    return solve(small_scene().exposures, small_scene().sky.stars, Options(with_positions=True))


def deviations(scene: Scene, solution: AstrometricSolution) -> NDArray[np.float64]:
    return np.stack([scene.deviation_mas(k, e.wcs) for k, e in enumerate(solution.exposures)])


def held_at(exposures: Sequence[Exposure], solution: AstrometricSolution) -> list[Exposure]:
    return [
        replace(e, held=True, ccds=tuple(replace(c, wcs=w) for c, w in zip(e.ccds, found.wcs, strict=True)))
        for e, found in zip(exposures, solution.exposures, strict=False)
    ]


def apart_mas(a: Sequence[TpvWcs], b: Sequence[TpvWcs], camera: Camera) -> float:
    x, y = (c.ravel() for c in np.meshgrid(np.linspace(1, camera.nx, 5), np.linspace(1, camera.ny, 5)))
    worst = 0.0
    for one, two in zip(a, b, strict=True):
        ra, dec = one.pixel_to_sky(x, y)
        xi, eta = tan_project(*two.pixel_to_sky(x, y), float(ra[0]), float(dec[0]))
        xi0, eta0 = tan_project(ra, dec, float(ra[0]), float(dec[0]))
        worst = max(worst, float(np.hypot(xi - xi0, eta - eta0).max()))
    return 3.6e6 * worst


# ---- accuracy ----


def test_megacam_is_solved_to_a_few_mas() -> None:
    """36 CCDs of 2048×4612, cubic distortion of 8″, errors of Gaia, 5 % outliers, a tenth of the detections missing."""
    scene = make_scene(np.random.default_rng(1), Camera(), DITHERS[:3], per_ccd=120)
    found = solve(scene.exposures, scene.sky.stars, Options(with_positions=True))
    off = deviations(scene, found)
    assert max(found.internal_mas) <= 10.0
    assert max(found.external_mas) <= 25.0
    assert off.std() < 3.5
    worst = max(e.model_error_mas for e in found.exposures)
    assert np.abs(off).max() < 5.0 * worst
    assert found.notes == ()
    assert all(e.degree == 3 for e in found.exposures)


def test_errors_are_honest() -> None:
    scene, found = small_scene(), small_solution()
    assert found.chi2_internal == pytest.approx(1.0, abs=0.15)
    assert found.chi2_external == pytest.approx(0.95, abs=0.15)
    # What was added in quadrature to the errors: a floor of 0.02 px, of which 0.01 px had been allowed for.
    extra = np.median([e.extra_mas for e in found.exposures])
    assert extra == pytest.approx(186.0 * np.sqrt(0.02**2 - 0.01**2), rel=0.25)
    off = np.abs(deviations(scene, found))
    assert 0.2 < off.std() / np.median([e.model_error_mas for e in found.exposures]) < 0.9
    sources = found.sources
    assert sources is not None
    truth = np.stack(scene.sky.at(2020.0), axis=1)
    scale = np.array([np.cos(np.radians(2.2)), 1.0])
    place = np.stack((sources.ra_deg, sources.dec_deg), axis=1)
    distance, at = KDTree(truth * scale).query(place * scale)
    pull = 3.6e6 * (place - truth[at]) * scale / np.sqrt(sources.covariance_mas2[:, [0, 2]])
    good = (distance * 3600 < 0.5) & (sources.n_detections >= 2)
    assert good.mean() > 0.85
    spread = 1.4826 * float(np.median(np.abs(pull[good])))
    assert 0.9 < spread < 1.15
    assert 0.9 < pull[good][np.abs(pull[good]).max(axis=1) < 5].std() < 1.15


def test_residuals_are_what_the_wcs_say() -> None:
    scene, found = small_scene(), small_solution()
    d = found.detections
    stars = scene.sky.stars
    for e, exposure in enumerate(scene.exposures):
        for c, ccd in enumerate(exposure.ccds):
            mine = np.flatnonzero((d.exposure == e) & (d.ccd == c) & (d.star >= 0))
            ra, dec = (
                found.exposures[e].wcs[c].pixel_to_sky(ccd.sources.x[d.row[mine]], ccd.sources.y[d.row[mine]])
            )
            years = (exposure.epoch_year - 2016.0) / 3.6e6
            star = d.star[mine]
            star_dec = stars.dec_deg[star] + years * stars.pm_dec_mas_yr[star]
            star_ra = stars.ra_deg[star] + years * stars.pm_ra_mas_yr[star] / np.cos(np.radians(star_dec))
            expected = 3.6e6 * np.stack(((star_ra - ra) * np.cos(np.radians(dec)), star_dec - dec), axis=1)
            assert np.abs(expected - d.external_mas[mine]).max() < 0.01
            assert (
                np.abs(
                    np.stack(tan_project(ra, dec, *found.exposures[e].wcs[c].crval), axis=1)
                    - d.field_deg[mine]
                ).max()
                < 1e-9
            )
    assert np.isnan(d.external_mas[d.star < 0]).all()
    assert (np.diff(d.exposure) >= 0).all()
    crvals = {wcs.crval for wcs in found.exposures[0].wcs}
    assert len(crvals) == 1
    group_kept = d.kept & np.isfinite(d.internal_mas[:, 0])
    weight = 1.0 / d.sigma_mas**2
    total = np.bincount(d.group[group_kept], weight[group_kept])
    mean = np.bincount(d.group[group_kept], (weight * d.internal_mas[:, 0])[group_kept])
    assert np.abs(mean[total > 0] / total[total > 0]).max() < 0.01


@pytest.mark.parametrize(("told", "atmosphere"), [(True, "refraction"), (False, "polynomial")])
def test_refraction_at_airmass_two(told: bool, atmosphere: str) -> None:
    camera = Camera(3, 2, nx=4000, ny=4612, bend_arcsec=3.0, scale_arcsec=0.3)
    zenith = [Zenith(60.0, 40.0 * k) for k in range(3)]
    scene = make_scene(
        np.random.default_rng(8), camera, DITHERS[:3], per_ccd=600, zenith=zenith, told_zenith=told
    )
    found = solve(scene.exposures, scene.sky.stars, Options(atmosphere=atmosphere))  # type: ignore[arg-type]
    without = solve(scene.exposures, scene.sky.stars, Options(atmosphere="none"))
    assert deviations(scene, found).std() < 0.7 * deviations(scene, without).std()
    assert deviations(scene, found).std() < 5.0


def test_what_no_polynomial_is_costs_no_more_than_it_must() -> None:
    """A wave of 0.1″ over the field besides: what a cubic per CCD leaves of it is below the errors."""
    camera = replace(SMALL, wave_arcsec=0.1)
    scene = make_scene(np.random.default_rng(9), camera, DITHERS, per_ccd=250)
    found = solve(scene.exposures, scene.sky.stars)
    best = [through(camera, scene.shots[0], k, 3, (0.0, 0.0)) for k in range(4)]
    assert deviations(scene, found).std() < 1.3 * scene.deviation_mas(0, best).std() + 1.5
    higher = solve(scene.exposures, scene.sky.stars, Options(degree=5, degree_fixed=True))
    assert all(e.degree == 5 for e in higher.exposures)
    assert deviations(scene, higher).std() < 6.0


def test_stars_that_move_fast_tie_epochs() -> None:
    rng = np.random.default_rng(10)
    sky = make_sky(rng, (150.1, 2.2), 0.3, 2500, 0.5)
    pm = sky.pm * 40.0
    moved = replace(
        sky, pm=pm, stars=replace(sky.stars, pm_ra_mas_yr=pm[sky.star, 0], pm_dec_mas_yr=pm[sky.star, 1])
    )
    scene = Scene(SMALL, moved, [Shot((150.1, 2.2)), Shot((150.11, 2.21))])
    for k, year in enumerate((2014.0, 2023.0)):
        scene.exposures.append(observe(rng, scene, k, year=year))
    found = solve(scene.exposures, sky.stars)
    right = solve(scene.exposures, moved.stars)
    assert deviations(scene, right).std() < 4.0
    assert right.n_external > found.n_external
    assert deviations(scene, found).std() > 2.0 * deviations(scene, right).std()
    assert max(right.external_mas) < 7.0


# ---- order, memory ----


def test_order_of_exposures_and_ccds_does_not_matter() -> None:
    scene = small_scene()
    order = [3, 0, 5, 1, 4, 2]
    turned = [replace(scene.exposures[k], ccds=scene.exposures[k].ccds[::-1]) for k in order]
    found, again = small_solution(), solve(turned, scene.sky.stars)
    for place, k in enumerate(order):
        assert apart_mas(found.exposures[k].wcs, again.exposures[place].wcs[::-1], SMALL) < 1e-3
        assert found.exposures[k].n_external == again.exposures[place].n_external
    assert again.n_internal == found.n_internal


def test_same_input_same_bytes() -> None:
    scene = small_scene()
    again = solve(scene.exposures, scene.sky.stars, Options(with_positions=True))
    assert again.exposures == small_solution().exposures
    assert np.array_equal(again.detections.group, small_solution().detections.group)
    assert np.array_equal(
        again.detections.internal_mas, small_solution().detections.internal_mas, equal_nan=True
    )


def test_held_exposures_stay_and_help() -> None:
    scene = small_scene()
    first = solve(scene.exposures[:4], scene.sky.stars)
    held = held_at(scene.exposures[:4], first)
    few = scene.sky.stars.take(np.arange(0, len(scene.sky.stars), 20))
    found = solve([*held, scene.exposures[4]], few, Options(), first.models)
    for k in range(4):
        assert found.exposures[k].wcs == first.exposures[k].wcs
    alone = solve([scene.exposures[4]], few, Options())
    off = scene.deviation_mas(4, found.exposures[4].wcs)
    assert off.std() < 3.0
    assert off.std() < 0.5 * scene.deviation_mas(4, alone.exposures[0].wcs).std()
    # Those that are held have taught the model before.
    assert found.models["r"].n_exposures == first.models["r"].n_exposures + 1


def one_by_one(
    scene: Scene, order: Sequence[int]
) -> tuple[Mapping[str, InstrumentModel], list[AstrometricSolution]]:
    known: Mapping[str, InstrumentModel] = {}
    found = []
    for k in order:
        found.append(solve([scene.exposures[k]], scene.sky.stars, Options(), known))
        known = found[-1].models
    return known, found


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4, 5), (5, 3, 1, 0, 2, 4)])
def test_memory_grows_to_what_a_batch_knows(order: Sequence[int]) -> None:
    scene, batch = small_scene(), small_solution()
    known, found = one_by_one(scene, order)
    assert known["r"].n_exposures == 6
    errors = [solution.exposures[0].model_error_mas for solution in found]
    assert errors[-1] < 0.5 * errors[0]
    assert errors[-1] < 1.5 * batch.exposures[order[-1]].model_error_mas
    # Against the truth, and against the batch: within the errors.
    for place, k in enumerate(order):
        off = scene.deviation_mas(k, found[place].exposures[0].wcs)
        assert np.abs(off).max() < 4.5 * errors[place]
    last = found[-1].exposures[0]
    assert apart_mas(last.wcs, batch.exposures[order[-1]].wcs, SMALL) < 3.5 * last.model_error_mas
    again = InstrumentModel.from_json(known["r"].to_json())
    assert again.ccds["ccd00"].coefficients.tolist() == known["r"].ccds["ccd00"].coefficients.tolist()
    for plane in known["r"].ccds.values():
        assert np.linalg.eigvalsh(plane.covariance).min() > 0


def test_order_of_arrival_matters_little() -> None:
    scene = small_scene()
    models = [one_by_one(scene, order)[0] for order in ((0, 1, 2, 3, 4), (4, 2, 0, 3, 1))]
    found = [solve([scene.exposures[5]], scene.sky.stars, Options(), known).exposures[0] for known in models]
    assert apart_mas(found[0].wcs, found[1].wcs, SMALL) < 2.0 * found[0].model_error_mas


def test_a_known_instrument_needs_few_stars() -> None:
    scene = small_scene()
    known = solve(scene.exposures[:4], scene.sky.stars).models
    few = scene.sky.stars.take(np.arange(0, len(scene.sky.stars), 12))
    found = solve([scene.exposures[5]], few, Options(), known)
    assert found.exposures[0].n_external < 50
    assert scene.deviation_mas(5, found.exposures[0].wcs).std() < 6.0
    assert found.models["r"].ccds["ccd01"].degree == 3


# ---- what is missing ----


def test_shuffled_stars_are_refused() -> None:
    scene = small_scene()
    wrong = shuffled(np.random.default_rng(0), scene.sky.stars)
    found = solve(scene.exposures, wrong)
    assert found.n_external == 0
    assert any("no better than by chance" in note for note in found.notes)
    assert any("No reference star" in note for note in found.notes)
    assert (found.detections.star < 0).all()
    # Still one system, near where it began.
    assert max(found.internal_mas) < 10.5
    assert deviations(scene, found).std() < 1500


def test_missing_ccds_and_bare_ones() -> None:
    rng = np.random.default_rng(12)
    scene = make_scene(rng, SMALL, DITHERS[:3], per_ccd=200)
    scene.exposures[1] = replace(scene.exposures[1], ccds=scene.exposures[1].ccds[:3])
    scene.exposures[2] = replace(scene.exposures[2], ccds=scene.exposures[2].ccds[1:])
    stars = scene.sky.stars
    x, y = scene.exposures[0].ccds[3].wcs.sky_to_pixel(stars.ra_deg, stars.dec_deg)
    off = (x < -600) | (x > SMALL.nx + 600) | (y < -600) | (y > SMALL.ny + 600)
    found = solve(scene.exposures, stars.take(off))
    assert [len(e.wcs) for e in found.exposures] == [4, 3, 3]
    assert any("ccd03" in note for note in found.notes)
    for k in range(3):
        solid = [i for i, c in enumerate(scene.exposures[k].ccds) if c.name != "ccd03"]
        part = replace(scene.exposures[k], ccds=tuple(scene.exposures[k].ccds[i] for i in solid))
        one = Scene(SMALL, scene.sky, [scene.shots[k]], [part])
        assert one.deviation_mas(0, [found.exposures[k].wcs[i] for i in solid]).std() < 4.0


def test_a_small_camera_with_few_stars() -> None:
    """650×500 pixels of 5.17″, some thirty stars: the degree ends low."""
    camera = Camera(1, 1, 650, 500, 5.17, bend_arcsec=3.0)
    scene = make_scene(
        np.random.default_rng(3), camera, [(0, 0), (60, 200), (-400, 70)], per_ccd=40, star_share=0.8,
        outliers=0.02,
    )  # fmt: skip
    found = solve(scene.exposures, scene.sky.stars, Options(crossid_arcsec=25.0, reference_floor_mas=100.0))
    assert all(1 <= e.degree <= 3 for e in found.exposures)
    assert deviations(scene, found).std() < 250
    alone = solve(scene.exposures[:1], scene.sky.stars, Options(crossid_arcsec=25.0))
    assert alone.exposures[0].degree <= 2
    assert scene.deviation_mas(0, alone.exposures[0].wcs).std() < 500
    assert any("degree" in note for note in alone.notes)


def test_parts_that_do_not_overlap_are_told() -> None:
    scene = make_scene(
        np.random.default_rng(4), SMALL, [(0, 0), (30, 30), (4000, 0), (4030, 40)], per_ccd=120
    )
    found = solve(scene.exposures, scene.sky.stars)
    assert any("2 parts" in note for note in found.notes)
    assert deviations(scene, found).std() < 4.0


@pytest.mark.parametrize("centre", [(0.01, 0.0), (120.0, 89.7), (359.9, -70.0)])
def test_anywhere_on_the_sky(centre: tuple[float, float]) -> None:
    scene = make_scene(np.random.default_rng(6), SMALL, DITHERS[:2], centre=centre, per_ccd=150)
    found = solve(scene.exposures, scene.sky.stars)
    for k, e in enumerate(found.exposures):
        x, y = (c.ravel() for c in np.meshgrid(np.linspace(1, SMALL.nx, 5), np.linspace(1, SMALL.ny, 5)))
        for c, wcs in enumerate(e.wcs):
            ra, dec = scene.shots[k].sky(SMALL, c, x, y)
            xi, eta = tan_project(*wcs.pixel_to_sky(x, y), *scene.shots[k].pointing)
            xi0, eta0 = tan_project(ra, dec, *scene.shots[k].pointing)
            assert 3.6e6 * np.hypot(xi - xi0, eta - eta0).max() < 20.0


def test_nothing_to_solve() -> None:
    stars = small_scene().sky.stars
    none = solve([], stars)
    assert none.exposures == ()
    exposure = small_scene().exposures[0]
    bare = replace(
        exposure,
        ccds=tuple(replace(c, sources=c.sources.take(np.zeros(len(c.sources), bool))) for c in exposure.ccds),
    )
    found = solve([bare], stars)
    assert apart_mas(found.exposures[0].wcs, [c.wcs for c in exposure.ccds], SMALL) < 60.0
    assert found.n_external == found.n_internal == 0
    assert any("No match at all" in note for note in found.notes)
    held = solve([replace(exposure, held=True)], stars)
    assert held.exposures[0].wcs == tuple(c.wcs for c in exposure.ccds)
    assert held.models == {}


@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.integers(1, 3), st.integers(1, 7))
@settings(max_examples=15, deadline=None)
def test_hardly_anything_never_explodes(seed: int, n: int, n_exposures: int, degree: int) -> None:
    """A few sources, NaN among them, at any degree: WCS stay within the radius of cross-identification of the start."""
    rng = np.random.default_rng(seed)
    base = small_scene()
    exposures = []
    for e in base.exposures[:n_exposures]:
        ccds = []
        for c in e.ccds:
            s = c.sources.take(rng.permutation(len(c.sources))[:n])
            x = s.x.copy()
            x[: n // 5] = np.nan
            ccds.append(replace(c, sources=replace(s, x=x)))
        exposures.append(replace(e, ccds=tuple(ccds)))
    found = solve(exposures, base.sky.stars, Options(degree=degree, degree_fixed=bool(seed % 2)))
    for before, after in zip(exposures, found.exposures, strict=True):
        assert apart_mas([c.wcs for c in before.ccds], after.wcs, SMALL) < 20_000
    assert all(np.isfinite(e.model_error_mas) for e in found.exposures)


def test_a_shift_within_the_radius_is_recovered() -> None:
    """All start WCS off by 10″: found with a radius that allows it."""
    scene = make_scene(np.random.default_rng(14), SMALL, DITHERS[:3], per_ccd=60)
    moved = [
        replace(e, ccds=tuple(replace(c, wcs=c.wcs.moved(6.0 / 3600, -8.0 / 3600)) for c in e.ccds))
        for e in scene.exposures
    ]
    found = solve(moved, scene.sky.stars, Options(crossid_arcsec=14.0))
    assert deviations(scene, found).std() < 6.0


def jittered(scene: Scene, rng: np.random.Generator, mas: float) -> list[Exposure]:
    """Every CCD of every exposure stands off its place by so much per axis."""
    px = mas / 1000.0 / scene.camera.scale_arcsec
    return [
        replace(
            e,
            ccds=tuple(
                replace(
                    c,
                    sources=replace(
                        c.sources,
                        x=c.sources.x + px * rng.standard_normal(),
                        y=c.sources.y + px * rng.standard_normal(),
                    ),
                )
                for c in e.ccds
            ),
        )
        for e in scene.exposures
    ]


def test_how_well_an_instrument_repeats() -> None:
    """CCDs that move by 20 mas between exposures: the model knows, and does not take one exposure for the truth."""
    camera = Camera(4, 2, bend_arcsec=2.0)
    scene = make_scene(np.random.default_rng(15), camera, [*DITHERS, (20.0, -20.0)], per_ccd=250)
    exposures = jittered(scene, np.random.default_rng(16), 20.0)
    known = solve(exposures[:5], scene.sky.stars).models
    assert 10.0 < known["r"].repeat_mas < 30.0
    steady = solve(scene.exposures[:5], scene.sky.stars).models
    assert steady["r"].repeat_mas < 3.0
    one = solve(exposures[5:], scene.sky.stars, Options(), known)
    rigid = {"r": replace(known["r"], repeat_mas=0.0)}
    stiff = solve(exposures[5:], scene.sky.stars, Options(), rigid)
    # The one that may move fits its own places; the memory moves by a small part of it only.
    assert one.external_mas[0] < 0.7 * stiff.external_mas[0]
    for name, plane in one.models["r"].ccds.items():
        before = known["r"].ccds[name].coefficients[0]
        assert np.abs(plane.coefficients[0] - before).max() < 0.020
