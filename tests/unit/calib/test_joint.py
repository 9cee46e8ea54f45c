"""Exposures of one sky, solved together: they agree with each other better than each by itself with the reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from spica_calib.science.astrometry.problem import Exposure, Options
from spica_calib.science.astrometry.solve import solve
from spica_imaging.wcs import tan_deproject

from tests.support.skies import deviation_mas, distorted_wcs, make_stars, observe, separation_mas

CENTRE = (214.85, 52.65)


def members(rng, stars, dithers):  # type: ignore[no-untyped-def]
    made, truths = [], []
    for number, (dx, dy) in enumerate(dithers):
        truth = distorted_wcs(CENTRE, bend_px=5.0, rotation_deg=0.1 * number).moved(dx, dy)
        start = distorted_wcs(CENTRE, bend_px=3.0, rotation_deg=0.1 * number).moved(dx + 1e-4, dy)
        scene = observe(rng, stars, truth, start)
        made.append(Exposure(f"{number}", "r", (scene.field,), 2016.0))
        truths.append(truth)
    return made, truths


def test_exposures_agree_better_together_than_alone() -> None:
    """Some 600 sources in common, of which the reference knows 60, with errors of 20 mas."""
    rng = np.random.default_rng(3)
    stars = make_stars(rng, 1400, CENTRE, 0.05)
    chosen = stars.take(np.sort(rng.permutation(1400)[:150]))
    shift = 20.0 / 3.6e6 * rng.standard_normal((2, 150))
    reference = replace(
        chosen,
        ra_deg=chosen.ra_deg + shift[0] / np.cos(np.radians(CENTRE[1])),
        dec_deg=chosen.dec_deg + shift[1],
        error_mas=np.full(150, 20.0),
    )
    exposures, truths = members(rng, stars, [(0, 0), (5e-3, 2e-3), (-4e-3, 5e-3), (3e-3, -6e-3)])
    found = solve(exposures, reference, Options(floor_px=0.0))
    single = [solve([e], reference, Options(floor_px=0.0)).exposures[0] for e in exposures]
    sky = tan_deproject(*(0.022 * np.mgrid[-1:1:9j, -1:1:9j].reshape(2, -1)), *CENTRE)
    together = np.array(
        [deviation_mas(e.wcs[0], t, *sky) for e, t in zip(found.exposures, truths, strict=True)]
    )
    alone = np.array([deviation_mas(e.wcs[0], t, *sky) for e, t in zip(single, truths, strict=True)])
    # Between exposures (what decides the width of stars in a stack), and on the sky.
    assert together.std(axis=0).mean() < 1.2
    assert alone.std(axis=0).mean() > 3.0 * together.std(axis=0).mean()
    assert together.std() < alone.std()
    assert together.std() < 12.0
    assert found.n_internal > 400
    # 0.03 px of 0.2 arcsec are 6 mas.
    assert found.internal_mas == pytest.approx((6.0, 6.0), rel=0.2)
    assert found.exposures[0].degree == 3


def test_one_exposure_alone_needs_no_other() -> None:
    rng = np.random.default_rng(4)
    stars = make_stars(rng, 400, CENTRE, 0.05)
    exposures, truths = members(rng, stars, [(0, 0)])
    found = solve(exposures, stars)
    assert separation_mas(found.exposures[0].wcs[0], truths[0]) < 30
    assert np.isnan(found.internal_mas).all()
    assert found.n_internal == 0
