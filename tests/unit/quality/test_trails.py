"""Trails are found, whole, and nothing else is taken for one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_quality.science.background.sky import Sky, measure_sky, subtract
from spica_quality.science.flags import Bit
from spica_quality.science.masking import marking as masks
from spica_quality.science.masking.radon import brightest_segments, double
from spica_quality.science.masking.trailprofile import Streak
from spica_quality.science.masking.trails import mark_trails

from tests.support.ccdsim import Exposure, PsfField, Recipe, simulate, small

SHAPE = (768, 768)
FWHM_PX = 4.0


@pytest.fixture(scope="module")
def field() -> Exposure:
    return simulate(small(Recipe(psf=PsfField(fwhm_px=FWHM_PX)), SHAPE, star_mags=(15.0, 26.0)), 4)


@dataclass(frozen=True)
class Seen:
    trails: tuple[Streak, ...]
    marked: np.ndarray


def seen(data: np.ndarray, fwhm_px: float = FWHM_PX) -> Seen:
    data, flags = data.copy(), np.zeros(data.shape, np.uint16)
    flags[~np.isfinite(data)] = Bit.NO_VALUE
    masks.mark_saturated(data, flags, 64_000.0)
    sky: Sky = measure_sky(data, flags)
    subtract(data, flags, sky)
    masks.mark_bad_columns(data, flags, sky.median_rms)
    return Seen(mark_trails(data, flags, sky, fwhm_px), (flags & Bit.TRAIL) != 0)


def line(
    angle_deg: float,
    length: float,
    peak: float,
    fwhm: float = FWHM_PX,
    centre: tuple[float, float] = (384.0, 384.0),
) -> np.ndarray:
    y, x = np.ogrid[: SHAPE[0], : SHAPE[1]]
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    across, along = (x - centre[0]) * s - (y - centre[1]) * c, (x - centre[0]) * c + (y - centre[1]) * s
    return (peak * np.exp(-0.5 * (across * 2.3548 / fwhm) ** 2) * (np.abs(along) < length / 2)).astype(
        np.float32
    )


@pytest.mark.parametrize(
    ("angle_deg", "length", "height"),
    [
        (20.0, 3000.0, 0.8),
        (71.0, 3000.0, 3.0),
        (133.0, 3000.0, 30.0),
        (160.0, 400.0, 3.0),
        (48.0, 160.0, 4.0),
    ],
)
def test_trails_are_found_whole(field: Exposure, angle_deg: float, length: float, height: float) -> None:
    trail = line(angle_deg, length, height * field.noise_adu)
    found = seen(field.data + trail)
    assert len(found.trails) == 1
    (streak,) = found.trails
    there = trail > 0.3 * trail.max()
    assert found.marked[there].mean() > 0.9
    # Nothing far from it.
    assert np.count_nonzero(found.marked & (trail == 0)) < 0.5 * np.count_nonzero(found.marked)
    angle = np.degrees(np.arctan2(streak.y1 - streak.y0, streak.x1 - streak.x0)) % 180.0
    assert angle == pytest.approx(angle_deg, abs=1.0)
    assert streak.width_px == pytest.approx(FWHM_PX, rel=0.35)


def test_an_aircraft_leaves_two_broad_tracks_that_blink(field: Exposure) -> None:
    y, x = np.ogrid[: SHAPE[0], : SHAPE[1]]
    blink = 1.0 + 0.4 * np.sin((x + y) / 4.0)
    tracks = [line(35.0, 3000.0, 3 * field.noise_adu, 10.0, centre) for centre in ((384, 350), (384, 440))]
    data = field.data + (sum(tracks) * blink).astype(np.float32)
    found = seen(data)
    assert len(found.trails) == 2
    for track in tracks:
        assert found.marked[track > 0.5 * track.max()].mean() > 0.95


def test_several_trails_that_cross(field: Exposure) -> None:
    tracks = [line(angle, 3000.0, 2.5 * field.noise_adu) for angle in (15.0, 80.0, 140.0)]
    found = seen(field.data + sum(tracks))
    assert len(found.trails) == 3
    assert found.marked[sum(tracks) > field.noise_adu].mean() > 0.9


@pytest.mark.parametrize("fwhm_px", [2.7, 4.0, 10.0])
def test_sky_without_trails_has_none(fwhm_px: float) -> None:
    recipe = Recipe(psf=PsfField(fwhm_px=fwhm_px), n_cosmics=2000, star_mags=(14.5, 26.0))
    drawn = simulate(small(recipe, SHAPE), 30)
    assert seen(drawn.data, fwhm_px).trails == ()


def test_spikes_galaxies_columns_and_rims_are_no_trails(field: Exposure) -> None:
    y, x = np.ogrid[: SHAPE[0], : SHAPE[1]]
    light = (30_000.0 / (1.0 + (np.hypot(x - 300, y - 250) / 3.0) ** 2) ** 2.2).astype(np.float32)
    for angle in (45.0, 135.0):
        c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        across, along = (x - 300) * s - (y - 250) * c, np.abs((x - 300) * c + (y - 250) * s)
        light += (1500 / (1 + (along / 8.0) ** 1.5) * np.exp(-0.5 * (across / 1.9) ** 2)).astype(np.float32)
    c, s = np.cos(0.3), np.sin(0.3)
    across, along = (x - 520) * s - (y - 560) * c, np.abs((x - 520) * c + (y - 560) * s)
    light += (400 * np.exp(-along / 60.0) * np.exp(-np.abs(across) / 5.0)).astype(np.float32)
    light[:, :3] += 100.0
    light[200:500, 650] += 70.0
    light[:, 700:702] -= 40.0
    assert seen(field.data + light).trails == ()


def test_frames_of_nothing_have_no_trails() -> None:
    for data in (
        np.full((300, 300), np.nan, np.float32),
        np.zeros((300, 300), np.float32),
        np.ones((20, 20), np.float32),
    ):
        assert seen(data).trails == ()


# ---- the sums ----


def naive_double(cells: np.ndarray, height: int) -> np.ndarray:
    """Sums over segments of `height` rows, spelt out by what they mean."""
    ny, nx = cells.shape
    result = np.zeros_like(cells)
    for top in range(0, ny, height):
        for shift in range(height):
            for x in range(nx):
                total, row_x = 0.0, path(height, shift)
                for k in range(height):
                    if x + row_x[k] < nx:
                        total += cells[top + k, x + row_x[k]]
                result[top + shift, x] = total
    return result


def path(height: int, shift: int) -> list[int]:
    """Columns of the digital line that leans by `shift` over `height` rows."""
    if height == 1:
        return [0]
    half = path(height // 2, shift // 2)
    return half + [column + (shift + 1) // 2 for column in half]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_sums_agree_with_their_plain_twin(seed: int) -> None:
    cells = np.random.default_rng(seed).normal(size=(16, 11)).astype(np.float32)
    sums, height = cells, 1
    while height < 8:
        sums, height = double(sums, height), 2 * height
        np.testing.assert_allclose(sums, naive_double(cells, height), atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(
    st.floats(0.0, 180.0), st.floats(30.0, 90.0), st.floats(30.0, 90.0), st.integers(0, 2**32 - 1)
)  # fmt: skip
def test_a_line_at_any_angle_is_the_brightest_segment(angle: float, x0: float, y0: float, seed: int) -> None:
    cells = np.random.default_rng(seed).normal(size=(120, 120)).astype(np.float32)
    y, x = np.ogrid[:120, :120]
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    cells[np.abs((x - x0) * s - (y - y0) * c) < 0.8] += 3.0
    best = brightest_segments(cells, shortest=16, longest=64, least=5.0, most=2)[0]
    for end_x, end_y in ((best.x0, best.y0), (best.x1, best.y1)):
        if 0 <= end_x < 120 and 0 <= end_y < 120:
            assert abs((end_x - x0) * s - (end_y - y0) * c) < 5.0
