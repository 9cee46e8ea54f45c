"""The linear system against its obvious twin: every star's magnitude an unknown of its own, all dense."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_calib.science.photometry import judging, kernels, rounds, system
from spica_calib.science.photometry.problem import (
    ColourTerm,
    Options,
    PhotometricDetections,
    PhotometricExposure,
)
from spica_calib.science.photometry.ties import Layout, Ties, tie

from tests.unit.calib.photometric_skies import make

OPTIONS = Options(
    colour_terms={"a": ColourTerm(0.0, 0.2, 0.5), "b": ColourTerm(0.1, 0.1)},
    floor_mag=0.003,
    reference_floor_mag=0.004,
)


def problem(seed: int, n: int = 60) -> tuple[list[PhotometricExposure], PhotometricDetections]:
    """Detections thrown together at random: any exposure, any CCD, stars seen once, twice in one exposure, not at all."""
    rng = np.random.default_rng(seed)
    exposures = [
        PhotometricExposure(f"e{i}", "ab"[i % 2], 10.0, ccds=("x", "y", "z")[: 1 + i % 3], filter="r")
        for i in range(4)
    ]
    exposure = rng.integers(0, 4, n).astype(np.int32)
    ccd = np.array([rng.integers(0, len(exposures[e].ccds)) for e in exposure], dtype=np.int32)
    group = rng.integers(0, n // 3, n).astype(np.int32)
    reference = np.where(rng.random(n // 3) < 0.5, rng.normal(20, 1, n // 3), np.nan)[group]
    error = rng.uniform(0.002, 0.1, n)
    error[rng.random(n) < 0.05] = np.nan
    return exposures, PhotometricDetections(
        exposure,
        ccd,
        group,
        rng.normal(-6.0, 0.3, n),
        error,
        reference,
        np.full(n, 0.01),
        rng.normal(0.8, 0.4, n // 3)[group],
    )


def prior_for(layout: Layout, seed: int) -> system.Prior:
    rng = np.random.default_rng(seed + 1)
    index = layout.n_exposures + np.flatnonzero(layout.slot_context() == 0)
    share = rng.random(len(index))
    return system.Prior(
        rng.normal(0, 0.1, layout.n_unknowns)
        + np.where(np.arange(layout.n_unknowns) < layout.n_exposures, 26, 0),
        rng.uniform(1.0, 100.0, layout.n_unknowns),
        ((index, share / share.sum()),),
    )


def naive(
    layout: Layout, ties: Ties, state: system.State, prior: system.Prior
) -> tuple[np.ndarray, np.ndarray]:
    """Unknowns and their covariance from the full design matrix, a row per measurement and prior."""
    n, rows, values, weights = layout.n_unknowns, [], [], []
    n_all = n + ties.n_sources
    for g in range(ties.n_sources):
        for i in range(ties.start[g], ties.start[g + 1]):
            e = int(ties.exposure[i])
            row = np.zeros(n_all)
            row[e] -= 1
            row[layout.n_exposures + int(ties.slot[i])] -= 1
            row[layout.n_exposures + len(layout.slots) + int(layout.context[e])] -= ties.colour[g]
            row[n + g] = 1
            rows.append(row)
            values.append(ties.mag[i])
            weights.append(state.factor[i] / (float(ties.variance[i]) + state.extra[e]))
        if np.isfinite(ties.reference[g]) and state.reference_factor[g] > 0:
            row = np.zeros(n_all)
            row[n + g] = 1
            rows.append(row)
            values.append(ties.reference[g])
            weights.append(state.reference_factor[g] / (ties.reference_variance[g] + state.reference_extra))
    for u in range(n):
        rows.append(np.eye(n_all)[u])
        values.append(prior.mean[u])
        weights.append(prior.weight[u])
    for index, share in prior.sums:
        row = np.zeros(n_all)
        row[index] = share
        rows.append(row)
        values.append(0.0)
        weights.append(1e10)
    design, weight = np.array(rows), np.array(weights)
    # Sources all of whose measurements are cut have no magnitude.
    seen = np.abs(design * weight[:, None]).sum(axis=0) > 0
    design = design[:, seen]
    covariance = np.linalg.inv(design.T @ (weight[:, None] * design))
    solution = covariance @ (design.T @ (weight * np.array(values)))
    return solution[:n], covariance[:n, :n]


def started(seed: int) -> tuple[Layout, Ties, system.State, system.Prior]:
    exposures, detections = problem(seed)
    layout, ties = tie(exposures, detections, OPTIONS)
    prior = prior_for(layout, seed)
    state = system.begin(layout, ties, prior.mean, 0.01)
    rng = np.random.default_rng(seed + 2)
    state.factor[:] = np.where(rng.random(len(ties)) < 0.2, 0.0, rng.random(len(ties)))
    state.extra[:] = rng.uniform(0.0, 1e-3, layout.n_exposures)
    state.reference_factor *= rng.random(ties.n_sources) > 0.2
    system.refresh(layout, ties, state)
    return layout, ties, state, prior


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_eliminating_magnitudes_gives_what_keeping_them_gives(seed: int) -> None:
    layout, ties, state, prior = started(seed)
    unknowns, covariance = naive(layout, ties, state, prior)
    found = system.step(layout, ties, state, prior, 1000, errors=True)
    assert np.allclose(found.unknowns, unknowns, rtol=0, atol=1e-6)
    assert np.allclose(found.sigma, np.sqrt(np.diag(covariance)), rtol=1e-3, atol=1e-6)
    assert found.exact
    between = system.step(layout, ties, state, prior, 0, errors=True)
    assert np.allclose(between.unknowns, unknowns, rtol=0, atol=1e-6)
    assert np.allclose(between.sigma, np.sqrt(np.diag(covariance)), rtol=1e-3, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_pairs_products_and_conjugate_gradients_agree(seed: int) -> None:
    layout, ties, state, prior = started(seed)
    n = layout.n_unknowns
    by_pairs, by_products = np.zeros((n, n)), np.zeros((n, n))
    arguments = (ties.start, ties.exposure, ties.slot, layout.context, ties.colour, state.weight, state.total)
    kernels.subtract_pairs(*arguments, len(layout.slots), by_pairs)
    system._subtract_products(layout, ties, state, by_products)
    assert np.allclose(by_pairs, np.tril(by_products), rtol=1e-9, atol=1e-6)
    soft = replace(prior, sums=())
    dense = system.step(layout, ties, state, soft, 1000)
    assert np.allclose(system._iterative(layout, ties, state, soft).unknowns, dense.unknowns, atol=1e-5)


def test_many_exposures_are_solved_without_a_dense_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """A strip of sky: each exposure overlaps with the next few only. All ways, to the same end."""
    from spica_calib.science.photometry import sparse as module
    from spica_calib.science.photometry.solve import solve

    rng = np.random.default_rng(4)
    n, per = 120, 40
    group = np.repeat(np.arange(n * per, dtype=np.int32), 3)
    exposure = ((group // per + np.tile(np.arange(3), n * per)) % n).astype(np.int32)
    zero = 26 + 0.1 * rng.standard_normal(n)
    true = rng.uniform(16, 20, n * per)
    detections = PhotometricDetections(
        exposure,
        np.zeros(len(group), np.int32),
        group,
        true[group] - zero[exposure] + 0.005 * rng.standard_normal(len(group)),
        np.full(len(group), 0.005),
        np.where(group % 50 == 0, true[group], np.nan),
        np.full(len(group), 0.002),
        np.zeros(len(group)),
    )
    exposures = [PhotometricExposure(f"e{i}", "c", 1.0, ccds=("x",)) for i in range(n)]
    dense = solve(exposures, detections)
    sparse = solve(exposures, detections, options=Options(dense_limit=10))
    monkeypatch.setattr(module, "MOST_PAIRS", 0.0)
    iterative = solve(exposures, detections, options=Options(dense_limit=10))
    for other in (sparse, iterative):
        away = np.array([a.mag for a in other.exposures], dtype=float) - [b.mag for b in dense.exposures]
        assert np.abs(away).max() < 2e-5
        assert np.abs(np.array([a.mag for a in other.exposures], dtype=float) - zero).max() < 0.005
    for a, b in zip(sparse.exposures, dense.exposures, strict=True):
        assert a.sigma_mag == pytest.approx(b.sigma_mag, rel=1e-3)
    assert not dense.notes
    assert not sparse.notes
    assert any("lower limits" in note for note in iterative.notes)


@pytest.mark.parametrize("thin_overlap", [False, True])
def test_some_of_many_sources_first_leads_to_the_same_end(
    monkeypatch: pytest.MonkeyPatch, thin_overlap: bool
) -> None:
    """Also where two parts of the sky hang together by stars that are not among the first."""
    from spica_calib.science.photometry.solve import solve

    truth = make(6, 3, 400, with_reference=not thin_overlap, blocks=2 if thin_overlap else 1, clouds={1: 0.4})
    detections = truth.detections
    if thin_overlap:
        # Stars 1, 11, 21 ... to 191 of the second part are seen by an exposure of the first as well: none of every fourth.
        also = np.flatnonzero(
            (detections.exposure == 1) & (detections.group % 20 == 1) & (detections.group < 400)
        )
        copy = {name: getattr(detections, name)[also] for name in PhotometricDetections.__slots__}
        copy["mag"] = copy["mag"] + truth.zero[1] - truth.zero[0]
        copy["exposure"] = np.zeros(len(also), np.int32)
        detections = PhotometricDetections(
            *(
                np.concatenate([getattr(detections, name), copy[name]])
                for name in PhotometricDetections.__slots__
            )
        )
    whole = solve(truth.exposures, detections)
    monkeypatch.setattr(rounds, "_ENOUGH", 500)
    monkeypatch.setattr(rounds, "_ENOUGH_EACH", 100)
    by_parts = solve(truth.exposures, detections)
    zeros = [
        np.array([one.relative_mag if one.mag is None else one.mag for one in found.exposures], dtype=float)
        for found in (whole, by_parts)
    ]
    assert np.abs(zeros[0] - zeros[1]).max() < 5e-4
    away = zeros[1] - truth.zero
    assert np.abs(away - away.mean()).max() < (0.006 if thin_overlap else 0.002)


def test_every_other_source() -> None:
    _, ties, _, _ = started(5)
    some = ties.every(2)
    assert some.sizes.tolist() == ties.sizes[::2].tolist()
    assert len(some) == some.start[-1]
    assert np.array_equal(some.mag[: some.sizes[0]], ties.mag[: ties.sizes[0]])
    third = slice(int(some.start[1]), int(some.start[2]))
    assert np.array_equal(some.order[third], ties.order[int(ties.start[2]) : int(ties.start[3])])


def test_the_cheaper_way_is_chosen() -> None:
    assert system.eliminate_by_pairs(np.full(100_000, 5), 1000)
    assert not system.eliminate_by_pairs(np.full(1000, 1000), 1036)


def test_judging_takes_each_detection_against_all_others() -> None:
    _, ties, state, _ = started(11)
    reference = np.where(np.isfinite(ties.reference), ties.reference, 0.0)
    for huber, cut in ((2.0, np.inf), (1.0, 1e9)):
        factor = state.factor.copy()
        expected = []
        for g in range(ties.n_sources):
            rows = range(ties.start[g], ties.start[g + 1])
            for i in rows:
                own = float(ties.variance[i]) + state.extra[ties.exposure[i]]
                w, s = state.reference_weight[g], state.reference_weight[g] * reference[g]
                for j in rows:
                    if j != i:
                        one = state.factor[j] / (float(ties.variance[j]) + state.extra[ties.exposure[j]])
                        w, s = w + one, s + one * state.value[j]
                if w == 0:
                    expected.append(1.0 if state.factor[i] > 0 else 0.0)
                    continue
                ratio = abs(state.value[i] - s / w) / np.sqrt(own + 1 / w)
                expected.append(1.0 if ratio <= huber else huber / ratio)
        judging.judge(
            ties.start, ties.exposure, state.value, ties.variance, state.extra, reference,
            state.reference_weight, huber, cut, factor,
        )  # fmt: skip
        assert np.allclose(factor, expected, rtol=1e-4)


def test_spread_is_that_of_the_residuals() -> None:
    rng = np.random.default_rng(8)
    n, sigma = 20_000, (0.01, 0.03)
    group = np.repeat(np.arange(n, dtype=np.int32), 4)
    exposure = np.tile(np.arange(4, dtype=np.int32) // 2, n)
    exposures = [PhotometricExposure(name, "c", 1.0, ccds=("x",)) for name in "ab"]
    mag = rng.uniform(-8, -6, n)[group] + np.array(sigma)[exposure] * rng.standard_normal(4 * n)
    nothing = np.full(4 * n, np.nan)
    detections = PhotometricDetections(
        exposure, np.zeros(4 * n, np.int32), group, mag, np.full(4 * n, 0.005), nothing, nothing, nothing
    )
    layout, ties = tie(exposures, detections, Options(floor_mag=0.0))
    state = system.begin(layout, ties, np.zeros(layout.n_unknowns), 0.0)
    state.extra[:] = np.array(sigma) ** 2 - 0.005**2
    system.refresh(layout, ties, state)
    found, extra = rounds.measure_spread(layout, ties, state)
    assert found.sigma_mag == pytest.approx(sigma, rel=0.03)
    assert np.sqrt(extra + 0.005**2) == pytest.approx(sigma, rel=0.03)
    assert found.numbers.tolist() == [2 * n, 2 * n]
    assert found.chi2 == pytest.approx(np.mean([4.0, 36.0]), rel=0.03)


def test_sources_that_tie_nothing_are_left_out() -> None:
    exposures = [
        PhotometricExposure("a", "c", 1.0, filter="r"),
        PhotometricExposure("b", "c", 1.0, filter="g"),
    ]
    nan = np.nan
    detections = PhotometricDetections(
        np.array([0, 1, 0, 0, 1, 1], np.int32),
        np.array([0, 0, 2, 0, 0, 1], np.int32),
        # 10**9: numbers need not be small. Group 0 is seen in two filters, 1 twice in one, 2 once with a reference.
        np.array([0, 0, 1, 1, 2, 10**9], np.int32),
        np.zeros(6),
        np.full(6, 0.01),
        np.array([nan, nan, nan, nan, 17.0, nan]),
        np.full(6, 0.01),
        np.full(6, nan),
    )
    layout, ties = tie(exposures, detections, Options())
    assert sorted(ties.order.tolist()) == [2, 3, 4]
    assert ties.sizes.tolist() == [2, 1]
    assert [ccd for _, ccd in layout.slots] == ["ccd00", "ccd01", "ccd02"]
    assert ties.reference[1] == 17.0
