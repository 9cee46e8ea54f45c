"""The joint solution: exposures agree with each other and with the sky."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spica_calib.science.astrometry.association import associate, group_medians, mean_positions
from spica_calib.science.astrometry.joint import solve_joint
from spica_calib.science.astrometry.joint_model import Exposure
from spica_calib.science.matching.frame import solve_frame
from spica_calib.science.matching.search import Prior
from spica_imaging.wcs import tan_deproject

from tests.support.skies import ZEROPOINT, deviation_mas, distorted_wcs, make_stars, observe, separation_mas

CENTRE = (214.85, 52.65)


def test_groups_are_what_belongs_together() -> None:
    rng = np.random.default_rng(1)
    places = np.array([(20.0 * i, 20.0 * j) for i in range(6) for j in range(6)])
    x, y, exposure, truth = [], [], [], []
    for number in range(5):
        seen = rng.permutation(36)[:30]
        at = places[seen] + 0.5 * rng.standard_normal((30, 2))
        x.append(at[:, 0])
        y.append(at[:, 1])
        exposure.append(np.full(30, number))
        truth.append(seen)
    group = associate(np.concatenate(x), np.concatenate(y), np.concatenate(exposure), 4.0)
    pairs = {(int(g), int(t)) for g, t in zip(group, np.concatenate(truth), strict=True)}
    assert len(pairs) == len({g for g, _ in pairs}) == len({t for _, t in pairs})


def test_an_exposure_never_joins_a_group_twice() -> None:
    group = associate(np.array([0.0, 0.1, 0.2]), np.zeros(3), np.array([0, 1, 1]), 1.0)
    assert group.tolist() == [0, 0, 1]


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-10, 10)), max_size=40))
def test_medians_by_hand(entries: list[tuple[int, float]]) -> None:
    group = np.array([g for g, _ in entries], dtype=np.int64)
    values = np.array([v for _, v in entries], dtype=np.float64)
    found = group_medians(values, group, 6)
    for number in range(6):
        mine = values[group == number]
        assert np.isnan(found[number]) if len(mine) == 0 else found[number] == pytest.approx(np.median(mine))


def test_two_that_disagree_both_go() -> None:
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(100), 2)
    x = 0.1 * rng.standard_normal(200)
    x[0] = 3.0
    found = mean_positions(x, 0.1 * rng.standard_normal(200), np.full(200, 0.1), group)
    assert not found.kept[:2].any()
    assert found.count[0] == 0


def test_means_leave_out_what_lies_far() -> None:
    rng = np.random.default_rng(2)
    n_groups, n_each = 200, 6
    group = np.repeat(np.arange(n_groups), n_each)
    x, y = 10.0 * group + 0.1 * rng.standard_normal(group.size), 0.1 * rng.standard_normal(group.size)
    x[::60] += 5.0
    found = mean_positions(x, y, np.full(group.size, 0.05), group)
    assert not found.kept[::60].any()
    assert found.kept.mean() > 0.97
    assert np.abs(found.x - 10.0 * np.arange(n_groups)).max() < 0.2
    assert found.rms == pytest.approx((0.1, 0.1), rel=0.15)


def exposures(rng: np.random.Generator, stars, reference, dithers) -> tuple[list[Exposure], list]:  # type: ignore[no-untyped-def,type-arg]
    made, truths = [], []
    for number, (dx, dy) in enumerate(dithers):
        truth = distorted_wcs(CENTRE, bend_px=5.0, rotation_deg=0.1 * number).moved(dx, dy)
        scene = observe(rng, stars, truth, truth.moved(1e-3, 0), zeropoint=ZEROPOINT + 0.1 * number)
        own = solve_frame(
            [scene.field], reference, "r", Prior(60.0, 2.0, 0.02), rigid=True, max_degree=3, limit_log10=-6
        )
        field = scene.field.__class__(0, "ccd00", 1024, 1024, scene.field.sources, own.ccds[0].wcs)
        made.append(
            Exposure("r", 60.0, (field,), ZEROPOINT if number == 0 else None, 0.01 if number == 0 else None)
        )
        truths.append(truth)
    return made, truths


def test_exposures_agree_better_together_than_alone() -> None:
    """600 sources in common, of which the reference knows 60, with errors of 20 mas."""
    rng = np.random.default_rng(3)
    stars = make_stars(rng, 1400, CENTRE, 0.05)
    chosen = stars.take(np.sort(rng.permutation(1400)[:150]))
    shift = 20.0 / 3.6e6 * rng.standard_normal((2, 150))
    reference = chosen.__class__(
        chosen.ra_deg + shift[0] / np.cos(np.radians(CENTRE[1])),
        chosen.dec_deg + shift[1],
        np.full(150, 20.0),
        chosen.epoch_year,
        chosen.pm_ra_mas_yr,
        chosen.pm_dec_mas_yr,
        chosen.mags,
    )
    dithers = [(0, 0), (5e-3, 2e-3), (-4e-3, 5e-3), (3e-3, -6e-3)]
    members, truths = exposures(rng, stars, reference, dithers)
    found = solve_joint(members, reference, 3)
    sky = tan_deproject(*(0.022 * np.mgrid[-1:1:9j, -1:1:9j].reshape(2, -1)), *CENTRE)
    alone = np.array([deviation_mas(e.fields[0].wcs, t, *sky) for e, t in zip(members, truths, strict=True)])
    together = np.array([deviation_mas(ccds[0], t, *sky) for ccds, t in zip(found.wcs, truths, strict=True)])
    # Between exposures (what decides the width of stars in a stack), and on the sky.
    assert together.std(axis=0).mean() < 1.0
    assert alone.std(axis=0).mean() > 3.0 * together.std(axis=0).mean()
    assert together.std() < alone.std()
    assert together.std() < 10.0
    assert found.n_internal > 400
    assert found.internal_rms_mas is not None
    # 0.03 px of 0.2 arcsec are 6 mas.
    assert found.internal_rms_mas == pytest.approx((6.0, 6.0), rel=0.2)
    assert found.distortion_degree == 3
    assert found.fluxes.anchored
    assert np.abs(found.fluxes.zeropoint_mag - ZEROPOINT - 0.1 * np.arange(4)).max() < 0.005


def test_one_exposure_alone_keeps_its_solution() -> None:
    rng = np.random.default_rng(4)
    stars = make_stars(rng, 400, CENTRE, 0.05)
    members, truths = exposures(rng, stars, stars, [(0, 0)])
    found = solve_joint(members, stars, 3)
    assert separation_mas(found.wcs[0][0], truths[0]) < 30
    assert found.internal_rms_mas is None
    assert found.fluxes.scatter_mag is None
