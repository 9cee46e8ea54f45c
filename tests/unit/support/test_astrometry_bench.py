"""The astrometric benchmark's own tools: a benchmark that measures wrongly is worse than none."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from spica_calib.science.stars import separation_deg
from spica_imaging.head import format_head
from spica_imaging.polynomial import as_matrix, design, tpv_from_polynomials
from spica_imaging.wcs import TpvWcs, tan_project

from tests.benchmarks import astrometry_frames as given
from tests.benchmarks import astrometry_job, astrometry_scaling
from tests.benchmarks import astrometry_truth as truth
from tests.support.skycat import Exposure, Recipe, Survey, make_survey

_RECIPE = Recipe(layout="small", n_exposures=2, star_density=20000.0, dec_deg=45.0, airmass=(1.2, 1.7))


@pytest.fixture(scope="module")
def survey() -> Survey:
    return make_survey(_RECIPE)


def _true_wcs(exposure: Exposure, number: int) -> TpvWcs:
    """The true map of a CCD as a TPV of third degree: with this camera exact to a few µas."""
    place, crval = exposure.aim.camera.places[number], exposure.aim.axis
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(1, place.nx, 12), np.linspace(1, place.ny, 12)))
    half = place.nx / 2
    basis = design((x - place.centre[0]) / half, (y - place.centre[1]) / half, 3)
    plane = np.column_stack(tan_project(*exposure.aim.pixel_to_sky(number, x, y), *crval))
    xi, eta = (as_matrix(c, 3) for c in np.linalg.lstsq(basis, plane, rcond=None)[0].T)
    return tpv_from_polynomials(crval, place.centre, xi, eta, half)


def test_the_true_map_is_found_to_be_true_and_a_shifted_one_is_off_by_the_shift(
    survey: Survey, tmp_path: Path
) -> None:
    for exposure in survey.exposures:
        wcs = [_true_wcs(exposure, number).moved(0.0, 0.0) for number in range(4)]
        (tmp_path / f"{exposure.name}.head").write_text(format_head([one.to_header() for one in wcs]))
    verdict = truth.judge(survey, tmp_path, (1.0, 2.0), (3.0, 4.0))
    assert verdict.mapped.p95 < 0.01
    assert 1.0 < verdict.measured.median < 6.0  # the noise of the measurement is left
    assert (verdict.internal_mas, verdict.external_mas) == ((1.0, 2.0), (3.0, 4.0))
    moved = [
        [
            replace(one, crval=(one.crval[0], one.crval[1] + 7e-3 / 3600))
            for one in (_true_wcs(exposure, n) for n in range(4))
        ]
        for exposure in survey.exposures
    ]
    shifted = truth.Worth.of(truth.deviations(survey, moved)[1])
    assert shifted.median == pytest.approx(7.0, abs=0.02)
    assert shifted.offset == pytest.approx((0.0, 7.0), abs=0.02)


def test_the_zenith_is_found_from_what_headers_tell(survey: Survey) -> None:
    for exposure in survey.exposures:
        found = astrometry_job.zenith_of(exposure.headers[0])
        assert found.distance_deg == pytest.approx(exposure.zenith[0], abs=0.05)
        assert found.angle_deg == pytest.approx(exposure.zenith[1], abs=0.1)


def test_shifted_headers_are_off_by_that(survey: Survey, tmp_path: Path) -> None:
    moved = given.shifted(survey, 10.0, tmp_path)
    for path, exposure in zip(moved.catalogues, survey.exposures, strict=True):
        told = astrometry_job.read(path, astrometry_job.load_profiles(None)["megacam"])
        before, after = TpvWcs.from_header(exposure.headers[0]).crval, told.ccds[0].wcs.crval
        away = separation_deg(np.array(before[:1]), np.array(before[1:]), *after)[0]
        assert 3600.0 * away == pytest.approx(10.0, abs=1e-6)


def test_the_memory_of_a_program_is_its_own() -> None:
    hold = (
        "import sys; kept = bytearray(80_000_000); kept[::4096] = b'x' * len(kept[::4096]); print(len(kept))"
    )
    ballast = np.ones(40_000_000)  # 320 MB of ours, which a child's rusage would count
    small = given.process([sys.executable, "-c", "import time; time.sleep(0.2)"])
    large = given.process([sys.executable, "-c", hold + "; import time; time.sleep(0.2)"])
    assert ballast.sum() > 0
    assert small.peak_mb < 60.0
    assert 60.0 < large.peak_mb - small.peak_mb < 110.0
    assert large.output.strip() == "80000000"
    with pytest.raises(RuntimeError, match="ended with 3"):
        given.process([sys.executable, "-c", "raise SystemExit(3)"])


def test_exposures_for_scaling_have_300_stars_per_ccd_and_their_truth() -> None:
    exposures, stars, aims = astrometry_scaling.make(2)
    counts = [len(ccd.sources) for exposure in exposures for ccd in exposure.ccds]
    assert len(counts) == 72
    assert np.mean(counts) == pytest.approx(300, rel=0.05)
    assert 0.3 < len(stars) / (300 * 36) < 1.5
    for exposure, aim in zip(exposures, aims, strict=True):
        for number, ccd in enumerate(exposure.ccds):
            ra, dec = aim.pixel_to_sky(number, ccd.sources.x, ccd.sources.y)
            there = ccd.wcs.pixel_to_sky(ccd.sources.x, ccd.sources.y)
            off = 3600.0 * np.hypot((there[0] - ra) * np.cos(np.radians(dec)), there[1] - dec)
            assert 0.05 < np.median(off) < 2.0
