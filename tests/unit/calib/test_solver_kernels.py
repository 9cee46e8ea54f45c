"""Kernels of the astrometric solver against slow plain twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import KDTree
from spica_calib.science.astrometry.crossid import Groups, StarField, associate
from spica_calib.science.astrometry.kernels import monomials, place
from spica_calib.science.astrometry.means import settle
from spica_calib.science.astrometry.normal import (
    ArrowInverse,
    DenseInverse,
    Linear,
    conjugate_gradients,
)
from spica_calib.science.astrometry.normal_kernels import chosen_groups, unit_information
from spica_calib.science.astrometry.refraction import AIR_DEGREE
from spica_calib.science.astrometry.sky import ARCSEC_PER_RAD, axes, coordinates_deg, project, unit_vectors
from spica_imaging.polynomial import design, terms, tpv_family
from spica_imaging.wcs import tan_deproject, tan_project

Floats = NDArray[np.float64]


def no_stars() -> StarField:
    return StarField(np.empty((0, 3)), np.empty((0, 3)), np.empty(0), 2016.0)


# ---- polynomials ----


@given(st.integers(1, 7), st.floats(-1, 1), st.floats(-1, 1))
@settings(deadline=None)
def test_monomials_are_the_design(degree: int, u: float, v: float) -> None:
    out = np.empty(len(terms(degree)))
    monomials(u, v, degree, out)
    assert out == pytest.approx(design(np.array([u]), np.array([v]), degree)[0], rel=1e-12, abs=1e-300)


def test_places_are_polynomial_map_and_air() -> None:
    rng = np.random.default_rng(1)
    degree, n = 4, 50
    u, v = rng.uniform(-1, 1, (2, n))
    planes = rng.normal(size=(2, 2, len(terms(degree)))) * 100
    maps = rng.normal(size=(3, 6))
    air = rng.normal(size=(3, 2, len(terms(AIR_DEGREE))))
    starts, unit_plane = np.array([0, 20, 35, 50]), np.array([1, -1, 0], np.int32)
    unit_exposure, on = np.array([0, 1, 2], np.int32), np.array([1, 1, 0], np.uint8)
    focal, out = np.zeros((n, 2), np.float32), np.full((n, 2), 7.0)
    place(
        starts, unit_plane, unit_exposure, u, v, planes, degree, maps, air, on, AIR_DEGREE, 300.0, focal, out
    )
    for k, (p, e) in enumerate(zip(unit_plane, unit_exposure, strict=True)):
        mine = slice(starts[k], starts[k + 1])
        if p < 0:
            assert (out[mine] == 7.0).all()
            continue
        f = design(u[mine], v[mine], degree) @ (planes[p, 0] + 1j * planes[p, 1])
        s, turn, shear = (complex(*maps[e, 2 * j : 2 * j + 2]) for j in range(3))
        goal = s + turn * f + shear * np.conj(f)
        if on[e]:
            goal = goal + design(goal.real / 300, goal.imag / 300, AIR_DEGREE) @ (air[e, 0] + 1j * air[e, 1])
        assert np.allclose(out[mine, 0] + 1j * out[mine, 1], goal, rtol=1e-12)
        assert np.allclose(focal[mine, 0] + 1j * focal[mine, 1], f, rtol=1e-5)


@given(st.integers(1, 7), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_family_of_wcs_is_its_polynomials(degree: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    crval, n = (359.99, 62.0), 3
    centres, units = rng.uniform(500, 2000, (n, 2)), np.array([1000.0, 2306.0, 512.0])
    c = 1e-5 * rng.normal(size=(n, len(terms(degree)), 2))
    c[:, 0] = rng.uniform(-0.6, 0.6, (n, 2))
    c[:, 1:3] += units[:, None, None] * 5e-5 * np.array([[-1.0, 0.05], [0.05, 1.0]])
    family = tpv_family(crval, centres, units, c, degree)
    x, y = rng.uniform(1, 2048, (2, 40))
    for k, wcs in enumerate(family):
        plane = design((x - centres[k, 0]) / units[k], (y - centres[k, 1]) / units[k], degree) @ c[k]
        xi, eta = wcs.pixel_to_plane(x, y)
        assert np.abs(np.stack((xi, eta), 1) - plane).max() < 1e-5 / 3600
        assert wcs.crval == crval


def test_astropy_reads_the_family_alike() -> None:
    from astropy.wcs import WCS

    c = np.zeros((1, 10, 2))
    c[0, 0], c[0, 1], c[0, 2] = (0.4, -0.3), (-0.1, 0.001), (0.002, 0.11)
    c[0, 3:] = 1e-4 * np.arange(14).reshape(7, 2)
    wcs = tpv_family((150.0, 2.0), np.array([[1024.5, 2306.5]]), np.array([2306.0]), c, 3)[0]
    x, y = (g.ravel() for g in np.meshgrid(np.linspace(1, 2048, 5), np.linspace(1, 4612, 5)))
    theirs = WCS(wcs.to_header()).all_pix2world(x, y, 1)
    assert np.abs(np.array(theirs) - np.array(wcs.pixel_to_sky(x, y))).max() * 3.6e6 < 0.01


# ---- sky ----


@given(st.floats(0, 359.9), st.floats(-89, 89), st.floats(-1, 1), st.floats(-1, 1))
@settings(deadline=None)
def test_frames_project_as_the_library_does(ra: float, dec: float, x: float, y: float) -> None:
    sky = tan_deproject(x, y, ra, dec)
    xy = project(unit_vectors(np.array([sky[0]]), np.array([sky[1]])), axes(ra, dec))[0]
    assert xy / 3600 == pytest.approx([x, y], abs=1e-9)
    back = coordinates_deg(np.array([1.0, np.radians(x), np.radians(y)]) @ axes(ra, dec))
    assert tan_project(*back, ra, dec) == pytest.approx((x, y), abs=1e-9)


# ---- cross-identification ----


def naive_groups(exposures: list[Floats], stars: Floats, radius: float) -> list[set[tuple[int, int]]]:
    """Mutual nearest neighbours of unit vectors, exposure by exposure, with KD-trees."""
    centres = [s.copy() for s in stars]
    members: list[list[tuple[int, int]]] = [[] for _ in stars]
    for e, points in enumerate(exposures):
        fresh = []
        if centres and len(points):
            there, here = KDTree(np.array(centres)), KDTree(points)
            d, to = there.query(points, distance_upper_bound=radius)
            back = here.query(np.array(centres), distance_upper_bound=radius)[1]
            fresh = [i for i in range(len(points)) if not (np.isfinite(d[i]) and back[to[i]] == i)]
            for i in range(len(points)):
                if i not in fresh:
                    g = int(to[i])
                    members[g].append((e, i))
                    if g >= len(stars):
                        count = len(members[g])
                        centres[g] = centres[g] + (points[i] - centres[g]) / count
        else:
            fresh = list(range(len(points)))
        for i in fresh:
            centres.append(points[i].copy())
            members.append([(e, i)])
    return [set(m) for k, m in enumerate(members) if len(m) >= 2 or (k < len(stars) and m)]


@given(st.integers(0, 2**32 - 1), st.sampled_from([(10.0, 0.0), (359.9999, 89.9995), (0.0, -45.0)]))
@settings(max_examples=30, deadline=None)
def test_groups_are_mutual_nearest_neighbours(seed: int, centre: tuple[float, float]) -> None:
    rng = np.random.default_rng(seed)
    sources = rng.uniform(-60, 60, (150, 2)) / 3600
    exposures = []
    for _ in range(4):
        seen = sources[rng.uniform(size=150) < 0.8] + rng.normal(size=(1, 2)) * 0.0001
        seen = seen + 0.3 / 3600 * rng.standard_normal(seen.shape)
        exposures.append(unit_vectors(*tan_deproject(seen[:, 0], seen[:, 1], *centre)))
    stars = unit_vectors(*tan_deproject(sources[:40, 0], sources[:40, 1], *centre))
    spans = np.concatenate(([0], np.cumsum([len(e) for e in exposures])))
    every = np.concatenate(exposures)
    field = StarField(stars, np.zeros_like(stars), np.zeros(len(stars)), 2016.0)
    found = associate(every, np.ones(len(every), np.float32), spans, np.zeros(4), field, 2.0, 2.0)
    exposure = np.searchsorted(spans, np.arange(len(every)), side="right") - 1
    ours = [
        {(int(exposure[i]), int(i - spans[exposure[i]])) for i in found.members[a:b]}
        for a, b in zip(found.offsets[:-1], found.offsets[1:], strict=True)
    ]
    expected = naive_groups(exposures, stars, 2.0 / ARCSEC_PER_RAD)
    assert sorted(map(sorted, ours)) == sorted(map(sorted, expected))
    assert (found.star[: np.count_nonzero(found.star >= 0)] >= 0).all()
    for group in ours:
        assert len({e for e, _ in group}) == len(group)


def test_stars_that_move_are_found_where_they_are() -> None:
    star = unit_vectors(np.array([10.0]), np.array([0.0]))
    motion = np.array([[0.0, 1.0, 0.0]]) / ARCSEC_PER_RAD * 0.5
    places = np.concatenate([star + years * motion for years in (-3.0, 0.0, 3.0)])
    field = StarField(star, motion, np.zeros(1), 2016.0)
    found = associate(
        places, np.ones(3, np.float32), np.array([0, 1, 2, 3]), np.array([-3.0, 0.0, 3.0]), field, 0.5, 0.5
    )
    assert len(found) == 1
    assert found.count.tolist() == [3]


def test_nothing_makes_no_groups() -> None:
    found = associate(
        np.empty((0, 3)), np.empty(0, np.float32), np.array([0, 0]), np.zeros(1), no_stars(), 1.0, 1.0
    )
    assert len(found) == 0
    assert found.members.shape == (0,)


# ---- means ----


def test_means_leave_out_what_disagrees() -> None:
    frames = np.array([axes(10.0, 0.0)] * 5)
    places = np.array([[0.0, 0.0], [0.01, 0.0], [-0.01, 0.01], [0.0, -0.01], [5.0, 0.0]])
    groups = Groups(np.array([0, 5]), np.arange(5, dtype=np.int32), np.array([-1], np.int32))
    variance = np.full(5, 1e-4, np.float32)
    found = settle(
        groups,
        no_stars(),
        places,
        np.arange(5, dtype=np.int32),
        frames,
        np.zeros(5),
        variance,
        np.empty(0),
        4.0,
    )
    assert (found.weight > 0).tolist() == [True, True, True, True, False]
    assert found.mean[0] == pytest.approx([0.0, 0.0], abs=1e-12)
    assert found.inner[4] == pytest.approx([-5.0, 0.0])


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_means_by_hand(seed: int) -> None:
    """Groups without outliers, in two exposures pointing apart: weighted means in the first one's plane, star included."""
    rng = np.random.default_rng(seed)
    pointing = [(40.0, 60.0), (40.6, 60.3)]
    frames = np.array([axes(*p) for p in pointing])
    truth = np.stack(
        tan_deproject(rng.uniform(-0.3, 0.3, 20), rng.uniform(-0.3, 0.3, 20), *pointing[0]), axis=1
    )
    error = rng.uniform(0.01, 0.05, 40)
    noise = error[:, None] * np.clip(rng.standard_normal((40, 2)), -2, 2)
    places = (
        np.concatenate([3600 * np.stack(tan_project(truth[:, 0], truth[:, 1], *p), axis=1) for p in pointing])
        + noise
    )
    exposure = np.repeat(np.array([0, 1], np.int32), 20)
    stars = StarField(unit_vectors(truth[:, 0], truth[:, 1]), np.zeros((20, 3)), np.full(20, 0.002), 2016.0)
    members = np.stack((np.arange(20), np.arange(20, 40)), axis=1).ravel().astype(np.int32)
    star = np.where(np.arange(20) < 10, np.arange(20), -1).astype(np.int32)
    groups = Groups(np.arange(0, 41, 2), members, star)
    found = settle(
        groups,
        stars,
        places,
        exposure,
        frames,
        np.zeros(2),
        (error**2).astype(np.float32),
        np.full(20, 0.002**2),
        8.0,
    )
    second = coordinates_deg(np.column_stack((np.ones(20), places[20:] / ARCSEC_PER_RAD)) @ frames[1])
    brought = 3600 * np.stack(tan_project(*second, *pointing[0]), axis=1)
    w = 1 / error**2
    mean = (w[:20, None] * places[:20] + w[20:, None] * brought) / (w[:20] + w[20:])[:, None]
    assert np.allclose(found.mean, mean, atol=1e-6)
    assert np.allclose(found.inner[0::2], mean - places[:20], atol=1e-6)
    true = 3600 * np.stack(tan_project(truth[:, 0], truth[:, 1], *pointing[0]), axis=1)
    assert np.allclose(found.outer[:10], (true - mean)[:10], atol=1e-6)
    total = w[:20] + w[20:]
    whole = (total[:, None] * mean + 0.002**-2 * true) / (total + 0.002**-2)[:, None]
    assert np.allclose(found.pull[0::2][:10], (whole - places[:20])[:10], atol=1e-5)
    # A small step east at the second pointing, seen from the first.
    step = coordinates_deg(np.array([1.0, 1e-6, 0.0]) @ frames[1])
    base = np.stack(tan_project(*pointing[1], *pointing[0]))
    turned = complex(*(np.stack(tan_project(*step, *pointing[0])) - base))
    turn = complex(*found.turn[1])
    assert abs(turn - turned / abs(turned)) < 1e-4


def test_bad_numbers_count_for_nothing() -> None:
    places = np.array([[0.0, 0.0], [np.nan, 0.0], [0.001, 0.0]])
    groups = Groups(np.array([0, 3]), np.arange(3, dtype=np.int32), np.array([-1], np.int32))
    found = settle(
        groups, no_stars(), places, np.arange(3, dtype=np.int32), np.array([axes(1.0, 2.0)] * 3), np.zeros(3),
        np.full(3, 1e-4, np.float32), np.empty(0), 4.0,
    )  # fmt: skip
    assert found.weight[1] == 0
    assert np.isfinite(found.mean).all()


# ---- normal equations ----


def a_problem(
    seed: int, *, degree: int = 2, n_own: int = 3, coupled: bool = True, held: bool = True
) -> Linear:
    """Random groups of detections of 3 exposures on 2 planes."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, 60) if coupled else np.ones(60, np.int64)
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    m, n_terms = int(offsets[-1]), len(terms(degree))
    weight = rng.uniform(0.5, 3.0, m).astype(np.float32) * (rng.uniform(size=m) > 0.1)
    angle = rng.uniform(-0.3, 0.3, m)
    turn = np.stack((np.cos(angle), np.sin(angle)), axis=1).astype(np.float32)
    exposure = rng.integers(-1 if held else 0, 3, m).astype(np.int32)
    plane = np.where(exposure < 0, -1, rng.integers(0, 2, m)).astype(np.int32)
    whole = np.add.reduceat(weight.astype(float), offsets[:-1]) + rng.uniform(0.5, 3.0, 60)
    maps = np.stack((rng.uniform(0.9, 1.1, 3), rng.uniform(-0.3, 0.3, 3)), axis=1)
    prior = np.zeros((2, n_terms, n_terms))
    prior[1] = 2.0 * np.eye(n_terms) + 0.5
    n_unknowns = 2 * n_terms + 3 * n_own
    return Linear(
        offsets=offsets, turn=turn, weight=weight.astype(np.float32),
        u=rng.uniform(-1, 1, m).astype(np.float32), v=rng.uniform(-1, 1, m).astype(np.float32),
        focal=rng.uniform(-1, 1, (m, 2)).astype(np.float32), plane=plane, exposure=exposure,
        unit=np.where(exposure < 0, 0, exposure * 2 + plane).astype(np.int32), whole=whole, maps=maps,
        context=np.zeros(2, np.int32), context_of_exposure=np.zeros(3, np.int32), degree=degree, n_terms=n_terms,
        n_planes=2, n_own=n_own, prior=prior, damping=np.full(n_unknowns, 0.3),
    )  # fmt: skip


def naive_jacobian(p: Linear) -> NDArray[np.complex128]:
    jacobian = np.zeros((len(p.plane), p.n_unknowns), np.complex128)
    for i in range(len(p.plane)):
        e = p.exposure[i]
        if e < 0:
            continue
        turn, scale, f = complex(*p.turn[i]), complex(*p.maps[e]), complex(*p.focal[i])
        own = [1.0, f, f.conjugate()]
        if p.n_own > 3:
            at = scale * f
            own += list(design(np.array([at.real]), np.array([at.imag]), 3)[0, 3:])
        jacobian[i, p.first_own + e * p.n_own : p.first_own + (e + 1) * p.n_own] = turn * np.array(own)
        phi = design(np.array([p.u[i]], float), np.array([p.v[i]], float), p.degree)[0]
        jacobian[i, p.plane[i] * p.n_terms : (p.plane[i] + 1) * p.n_terms] = turn * scale * phi
    return jacobian


def naive_normal(p: Linear) -> NDArray[np.complex128]:
    jacobian, weight = naive_jacobian(p), p.weight.astype(float)
    matrix = jacobian.conj().T @ (weight[:, None] * jacobian)
    for g in range(len(p.whole)):
        mine = slice(p.offsets[g], p.offsets[g + 1])
        total = weight[mine] @ jacobian[mine]
        matrix -= np.outer(total.conj(), total) / p.whole[g]
    matrix += np.diag(p.damping)
    for k in range(p.n_planes):
        mine = slice(k * p.n_terms, (k + 1) * p.n_terms)
        matrix[mine, mine] += p.prior[k]
    return matrix


@pytest.mark.parametrize(("degree", "n_own"), [(1, 3), (3, 3), (2, 10)])
def test_normal_equations_without_and_with_a_matrix(degree: int, n_own: int) -> None:
    problem = a_problem(1, degree=degree, n_own=n_own)
    rng = np.random.default_rng(2)
    matrix = naive_normal(problem)
    vector = rng.normal(size=problem.n_unknowns) + 1j * rng.normal(size=problem.n_unknowns)
    assert np.allclose(problem.times(vector), matrix @ vector, rtol=1e-5, atol=1e-6)
    pull = rng.normal(size=(len(problem.plane), 2)).astype(np.float32)
    gradient = naive_jacobian(problem).conj().T @ (problem.weight * (pull[:, 0] + 1j * pull[:, 1]))
    assert np.allclose(problem.gradient(pull), gradient, rtol=1e-5, atol=1e-6)
    inverse = DenseInverse(problem)
    assert np.allclose(inverse.solve(matrix @ vector), vector, rtol=1e-4, atol=1e-4)
    covariance = np.linalg.inv(matrix)
    first, t, q = problem.first_own, problem.n_terms, problem.n_own
    assert np.allclose(inverse.plane(1), covariance[t : 2 * t, t : 2 * t], rtol=1e-4, atol=1e-5)
    assert np.allclose(inverse.own(2), covariance[first + 2 * q :, first + 2 * q :], rtol=1e-4, atol=1e-5)
    assert np.allclose(inverse.between(0, 1), covariance[:t, first + q : first + 2 * q], rtol=1e-4, atol=1e-5)


def test_arrow_is_exact_where_exposures_share_no_sources() -> None:
    problem = a_problem(3, coupled=False, held=False)
    dense, arrow = DenseInverse(problem), ArrowInverse(problem)
    rng = np.random.default_rng(4)
    vector = rng.normal(size=problem.n_unknowns) + 1j * rng.normal(size=problem.n_unknowns)
    assert np.allclose(arrow.solve(vector), dense.solve(vector), rtol=1e-5, atol=1e-7)
    for k in range(2):
        assert np.allclose(arrow.plane(k), dense.plane(k), rtol=1e-5, atol=1e-7)
        for e in range(3):
            assert np.allclose(arrow.between(k, e), dense.between(k, e), rtol=1e-5, atol=1e-7)
            assert np.allclose(arrow.own(e), dense.own(e), rtol=1e-5, atol=1e-7)
    every = np.arange(3, dtype=np.int32)
    for a, b in zip(arrow.mean_own(every), dense.mean_own(every), strict=True):
        assert np.allclose(a, b, rtol=1e-5, atol=1e-7)


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=20, deadline=None)
def test_conjugate_gradients_solve(seed: int, rough: bool) -> None:
    problem = a_problem(seed % 1000, degree=2)
    right = np.random.default_rng(seed).normal(size=problem.n_unknowns) + 0j
    inverse = ArrowInverse(problem) if rough else DenseInverse(problem)
    found, steps = conjugate_gradients(problem.times, right, inverse, 1e-5)
    assert np.allclose(found, np.linalg.solve(naive_normal(problem), right), atol=1e-4)
    assert steps <= (60 if rough else 4)


def test_a_sample_of_groups_tells_the_same_on_average() -> None:
    problem = a_problem(7)
    information = np.zeros(6)
    unit_information(
        problem.offsets, problem.weight, problem.unit, problem.exposure, problem.whole, information
    )
    factor = np.empty(len(problem.whole))
    chosen_groups(
        problem.offsets,
        problem.weight,
        problem.unit,
        problem.exposure,
        problem.whole,
        information,
        1e9,
        factor,
    )
    informative = problem.whole > 0
    assert (factor[informative] <= 1).all()
    many = [a_problem(k) for k in range(200)]
    ratio = []
    for p in many:
        information[:] = 0
        unit_information(p.offsets, p.weight, p.unit, p.exposure, p.whole, information)
        chosen_groups(p.offsets, p.weight, p.unit, p.exposure, p.whole, information, 3.0, factor)
        assert np.count_nonzero(factor) < 60
        count = np.diff(p.offsets)
        own = np.array(
            [
                sum(
                    p.weight[i] * (1 - p.weight[i] / p.whole[g])
                    for i in range(p.offsets[g], p.offsets[g + 1])
                    if p.exposure[i] >= 0
                )
                for g in range(len(count))
            ]
        )
        ratio.append((factor * own).sum() / own.sum())
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.05)
