"""Kernels of matching against their slow, plain twins."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import KDTree
from spica_calib.science.matching.kernels import Mask, Range, Verdict, mask_near, pair_table, seek
from spica_calib.science.matching.neighbours import (
    coincidences,
    converge,
    fit_map,
    grid_of,
    mutual_pairs,
    nearest,
    stepped,
)
from spica_calib.science.matching.search import mutual_nearest

Floats = NDArray[np.float64]
SEEDS = st.integers(0, 2**32 - 1)
NONE = np.empty(0)
ONE = np.eye(2)
STILL = np.zeros(2)


def turned(points: Floats, real: float, imag: float, shift: Floats) -> Floats:
    """Points of shape (2, n) under a similarity."""
    matrix = np.array([[real, -imag], [imag, real]])
    return matrix @ points + shift[:, None]


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_a_table_holds_every_pair_in_its_bin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-50, 50, (2, 30))
    table = pair_table(x, y, 20.0, 60.0, 8, 12, 10_000)
    expected = {
        (i, j)
        for i in range(30)
        for j in range(30)
        if i != j and 20.0 <= math.hypot(x[j] - x[i], y[j] - y[i]) < 60.0
    }
    assert sorted(zip(table.first.tolist(), table.second.tolist(), strict=True)) == sorted(expected)
    for cell, (begin, end) in enumerate(pairwise(table.starts.tolist())):
        for k in range(begin, end):
            dx, dy = x[table.second[k]] - x[table.first[k]], y[table.second[k]] - y[table.first[k]]
            assert int((math.hypot(dx, dy) - 20.0) / 5.0) == cell // 12
            # The other half of a pair stands opposite by counting, not by its angle: the same but for rounding.
            assert (math.atan2(dy, dx) + math.pi) * 12 / (2 * math.pi) == pytest.approx(
                cell % 12 + 0.5, abs=0.5001
            )


def test_a_table_of_nothing_and_of_no_numbers() -> None:
    assert len(pair_table(NONE, NONE, 1.0, 2.0, 4, 4, 100).first) == 0
    lost = np.array([0.0, np.nan, 1.5, np.inf])
    table = pair_table(lost, np.zeros(4), 1.0, 2.0, 4, 4, 100)
    assert sorted(zip(table.first.tolist(), table.second.tolist(), strict=True)) == [(0, 2), (2, 0)]


def test_a_full_table_leaves_pairs_out() -> None:
    x, y = np.random.default_rng(1).uniform(-50, 50, (2, 30))
    assert len(pair_table(x, y, 20.0, 60.0, 8, 12, 100).first) == 100


def is_near(mask: Mask, i: int, j: int) -> bool:
    at = j * mask.n_side + i
    return bool(mask.bits[at >> 3] >> (at & 7) & 1)


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_a_mask_by_hand(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-12, 12, (2, 6))
    x[0] = np.nan
    mask = mask_near(x, y, 10.0, 0.7, 2.0)
    for j in range(mask.n_side):
        for i in range(mask.n_side):
            cx, cy = (i + 0.5) * 0.7 - 10.0, (j + 0.5) * 0.7 - 10.0
            near = any((a - cx) ** 2 + (b - cy) ** 2 <= 4.0 for a, b in zip(x[1:], y[1:], strict=True))
            assert is_near(mask, i, j) == near


def hypotheses(
    points: Floats, pairs: list[tuple[int, int]], stars: Floats, lengths: tuple[float, float], allowed: Range
) -> list[tuple[int, int, float, float, Floats]]:
    """All that a pair of points and a pair of stars can mean, within a range."""
    found = []
    z, w = points[0] + 1j * points[1], stars[0] + 1j * stars[1]
    for i, j in pairs:
        for p in range(len(w)):
            for q in range(len(w)):
                if p == q or not lengths[0] <= abs(w[q] - w[p]) < lengths[1]:
                    continue
                turn = (w[q] - w[p]) / (z[j] - z[i])
                shift = w[p] - turn * z[i]
                angle = abs((np.angle(turn) - allowed.turn + np.pi) % (2 * np.pi) - np.pi)
                if (
                    allowed.low_scale <= abs(turn) <= allowed.high_scale
                    and angle <= allowed.rotation
                    and abs(shift) <= allowed.shift
                ):
                    found.append((i, j, turn.real, turn.imag, np.array([shift.real, shift.imag])))
    return found


def ratio_by_hand(
    points: Floats, i: int, j: int, mask: Mask, verdict: Verdict, real: float, imag: float, shift: Floats
) -> float:
    half, total = mask.n_side * mask.cell / 2, 0.0
    for m, (px, py) in enumerate(turned(points, real, imag, shift).T):
        if m in (i, j):
            continue
        a, b = int((px + half) // mask.cell), int((py + half) // mask.cell)
        inside = 0 <= a < mask.n_side and 0 <= b < mask.n_side
        total += verdict.hit if inside and is_near(mask, a, b) else verdict.miss
        if total < verdict.reject:
            break
    return total


@given(SEEDS, st.sampled_from([0.2, 1.0, np.pi]), st.sampled_from([0.0, np.pi]))
@settings(max_examples=20, deadline=None)
def test_seeking_tries_all_that_is_allowed(seed: int, rotation: float, turn: float) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-50, 50, (2, 8))
    # A true solution among strangers.
    angle = turn + rng.uniform(-0.9, 0.9) * rotation
    real, imag = 1.1 * math.cos(angle), 1.1 * math.sin(angle)
    stars = np.hstack((turned(points, real, imag, np.array([3.0, -4.0])), rng.uniform(-70, 70, (2, 6))))
    pairs = [
        (i, j) for i in range(8) for j in range(i) if 30 <= np.hypot(*(points[:, i] - points[:, j])) < 80
    ]
    if not pairs:
        return
    lengths = 20.0, 100.0
    table = pair_table(stars[0], stars[1], *lengths, 16, 36, 10_000)
    mask = mask_near(stars[0], stars[1], 100.0, 1.0, 2.0)
    allowed = Range(turn, rotation, 0.8, 1.2, 20.0)
    verdict = Verdict(2.0, -0.3, -3.0, 1000.0)
    first, second = (np.array(index, dtype=np.int32) for index in zip(*pairs, strict=True))
    kept = np.zeros((5, 5))
    after, tried, _, enough = seek(
        points[0], points[1], first, second, 0, table, mask, allowed, verdict, 1_000_000, kept
    )
    by_hand = hypotheses(points, pairs, stars, lengths, allowed)
    assert (after, tried, enough) == (len(pairs), len(by_hand), False)
    ratios = [ratio_by_hand(points, i, j, mask, verdict, a, b, shift) for i, j, a, b, shift in by_hand]
    assert kept[:, 0].max() == pytest.approx(max(ratios))
    best = kept[kept[:, 0].argmax()]
    # Three hits in four at random are beyond the dice: the best is the truth.
    assert best[1:] == pytest.approx([real, imag, 3.0, -4.0], abs=1e-6)


def test_seeking_stops_when_told() -> None:
    points = np.random.default_rng(2).uniform(-50, 50, (2, 8))
    table = pair_table(points[0], points[1], 20.0, 100.0, 16, 36, 10_000)
    mask = mask_near(points[0], points[1], 100.0, 1.0, 2.0)
    first, second = (i.astype(np.int32) for i in np.tril_indices(8, -1))
    verdict = Verdict(2.0, -0.3, -3.0, 10.0)
    everything = Range(0.0, np.pi, 0.5, 2.0, 50.0)
    after, _, _, enough = seek(
        points[0], points[1], first, second, 0, table, mask, everything, verdict, 10**6, np.zeros((5, 5))
    )
    assert enough
    assert after < len(first)
    after, _, asked, _ = seek(
        points[0],
        points[1],
        first,
        second,
        0,
        table,
        mask,
        everything,
        verdict._replace(enough=1e9),
        5,
        np.zeros((5, 5)),
    )
    assert asked >= 5
    assert after < len(first)


@given(SEEDS, st.integers(0, 40), st.floats(0.1, 3.0))
@settings(max_examples=40, deadline=None)
def test_mutual_pairs_are_those_of_trees(seed: int, n: int, radius: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, 10, (2, n))
    stars = rng.uniform(0, 10, (2, 30))
    grid = grid_of(stars[0], stars[1], 3.0)
    first, second = mutual_pairs(x, y, grid, ONE, STILL, radius)
    expected = mutual_nearest(x, y, KDTree(stars.T), radius)
    assert first.tolist() == expected[0].tolist()
    assert second.tolist() == expected[1].tolist()


def test_neighbours_of_nothing() -> None:
    empty = grid_of(NONE, NONE, 1.0)
    assert nearest(empty, 0.0, 0.0, 1.0)[0] == -1
    assert len(mutual_pairs(np.zeros(3), np.zeros(3), empty, ONE, STILL, 1.0)[0]) == 0
    assert coincidences(np.zeros(3), np.zeros(3), empty, ONE, STILL, 1.0) == 0.0
    some = grid_of(np.zeros(1), np.zeros(1), 1.0)
    assert nearest(some, math.nan, 0.0, 1.0)[0] == -1
    assert len(mutual_pairs(NONE, NONE, some, ONE, STILL, 1.0)[0]) == 0
    assert len(converge(NONE, NONE, some, ONE, STILL, 1.0, 0.1, 10)[2]) == 0


@given(SEEDS, st.integers(3, 20), st.sampled_from([1.0, -1.0]))
@settings(max_examples=40, deadline=None)
def test_maps_are_those_of_least_squares(seed: int, n: int, sign: float) -> None:
    rng = np.random.default_rng(seed)
    x, y, u, v = rng.uniform(-10, 10, (4, n))
    grid = grid_of(u, v, 1.0)
    index = np.arange(n, dtype=np.int32)
    design = np.column_stack((x, y, np.ones(n)))
    plain = np.linalg.lstsq(design, np.column_stack((u, v)), rcond=None)[0].T
    matrix, shift = fit_map(x, y, grid, index, index, True, sign)
    if np.linalg.cond(design[:, :2] - design[:, :2].mean(axis=0)) < 20:
        assert matrix == pytest.approx(plain[:, :2], rel=1e-6, abs=1e-6)
        assert shift == pytest.approx(plain[:, 2], rel=1e-6, abs=1e-6)
    matrix, shift = fit_map(x, y, grid, index, index, False, sign)
    # A similarity of sign x, y: columns (real, imag) of stacked equations.
    zero, one = np.zeros(n), np.ones(n)
    rows = np.vstack((np.column_stack((sign * x, -y, one, zero)), np.column_stack((y, sign * x, zero, one))))
    real, imag, du, dv = np.linalg.lstsq(rows, np.concatenate((u, v)), rcond=None)[0]
    assert matrix == pytest.approx(np.array([[sign * real, -imag], [sign * imag, real]]), abs=1e-9)
    assert shift == pytest.approx([du, dv], abs=1e-8)


@given(SEEDS, st.sampled_from([1.0, -1.0]))
@settings(max_examples=25, deadline=None)
def test_from_near_it_converges(seed: int, sign: float) -> None:
    rng = np.random.default_rng(seed)
    truth = 1.05 * np.array([[sign, -0.02], [sign * 0.021, 1.001]])
    points = rng.uniform(-500, 500, (2, 60))
    stars = np.hstack((truth @ points + 7.0, rng.uniform(-600, 600, (2, 60))))
    grid = grid_of(stars[0], stars[1], 20.0)
    start = truth @ np.array([[1.0, 0.004], [-0.004, 1.0]])
    matrix, shift, first, second, radius = converge(
        points[0], points[1], grid, start, np.full(2, 6.0), 8.0, 0.1, 10
    )
    assert radius == pytest.approx(0.1)
    assert matrix == pytest.approx(truth, abs=1e-6)
    assert shift == pytest.approx([7.0, 7.0], abs=1e-3)
    assert (first == second).sum() >= 59


@given(st.floats(0.0, 100.0))
def test_radii_are_few(radius: float) -> None:
    found = stepped(radius, 0.2)
    assert 0.2 <= found <= max(0.2, 1.2501 * radius)
    assert found >= radius * (1 - 1e-6)
    power = math.log(found / 0.2) / math.log(1.25)
    assert power == pytest.approx(round(power), abs=1e-6)


def test_coincidences_by_hand() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.uniform(0, 100, (2, 50))
    stars = rng.uniform(0, 100, (2, 80))
    tree = KDTree(stars.T)
    total = 0
    for k in range(16):
        a = 2 * math.pi * k / 16
        ring = np.column_stack((x + 12.0 * math.cos(a), y + 12.0 * math.sin(a)))
        total += sum(len(near) > 0 for near in tree.query_ball_point(ring, 3.0))
    grid = grid_of(stars[0], stars[1], 4.0)
    assert coincidences(x, y, grid, ONE, STILL, 3.0) == pytest.approx(total / 16)
