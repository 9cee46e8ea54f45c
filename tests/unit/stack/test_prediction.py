from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from spica_stack.science import combining
from spica_stack.science.choosing.table import Footprints
from spica_stack.science.combining import seeing_priorities
from spica_stack.science.coverage import cover
from spica_stack.science.grid import Grid
from spica_stack.science.prediction import (
    Exposures,
    efficiency,
    mean_fwhm,
    median_efficiency,
    predict,
    priorities,
    weights_of,
)

Floats = NDArray[np.float64]

GRID = Grid(214.0, 52.5, 200.5, 150.5, 1.0, 400, 300)


def boxes(*places: tuple[float, float, float, float], angle_deg: float = 0.0) -> Floats:
    """CCDs of one exposure on the sky: lower left corner, width and height in pixels of the grid."""
    turn = np.radians(angle_deg)
    ccds = []
    for x, y, width, height in places:
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
        turned = corners @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        ccds.append(np.stack(GRID.pixel_to_sky(x + turned[:, 0], y + turned[:, 1]), axis=-1))
    return np.array(ccds)


def exposures(n: int, **known: float | Floats) -> Exposures:
    values = {
        "limiting_mag": 25.0,
        "fwhm_arcsec": 0.8,
        "ellipticity": 0.0,
        "exposure_time_s": 100.0,
        "factor": 1.0,
    }
    return Exposures(
        **{name: np.broadcast_to(value, n).astype(np.float64) for name, value in (values | known).items()}
    )


# ---- coverage ----


def test_cells_are_counted_where_their_middle_lies_in_a_ccd() -> None:
    places = Footprints.of(
        [boxes((0.5, 0.5, 100, 300), (110.5, 0.5, 50, 300)), boxes((50.5, 100.5, 400, 100))]
    )
    found = cover(GRID, places, np.array([2.0, 5.0]))
    assert found.cell_px == pytest.approx(400 / 192)
    x = (np.arange(found.exposures.shape[1]) + 0.5) * found.cell_px + 0.5
    y = (np.arange(found.exposures.shape[0]) + 0.5) * found.cell_px + 0.5
    first = ((x < 100.5) | ((x > 110.5) & (x < 160.5)))[None, :] & np.ones(len(y), bool)[:, None]
    second = (x > 50.5)[None, :] & ((y > 100.5) & (y < 200.5))[:, None]
    np.testing.assert_array_equal(found.exposures, first.astype(int) + second)
    np.testing.assert_allclose(found.sums[0], 2.0 * first + 5.0 * second, atol=1e-9)


def _holds(quad: Floats, x: float, y: float) -> bool:
    """The slow twin: a point lies in a convex quadrilateral if it is on one side of all edges."""
    sides = [
        (bx - ax) * (y - ay) - (by - ay) * (x - ax)
        for (ax, ay), (bx, by) in zip(quad, np.roll(quad, -1, axis=0), strict=True)
    ]
    return bool(min(sides) > 0 or max(sides) < 0)


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.floats(-150, 420), st.floats(-150, 320), st.floats(20, 300), st.floats(20, 300)),
        min_size=1,
        max_size=3,
    ),
    st.floats(-180, 180),
)
def test_any_ccds_are_as_one_cell_after_the_other(
    places: list[tuple[float, float, float, float]], angle: float
) -> None:
    footprints = Footprints.of([boxes(place, angle_deg=angle) for place in places])
    found = cover(GRID, footprints)
    rng = np.random.default_rng(1)
    for row, column in zip(
        rng.integers(0, found.exposures.shape[0], 200),
        rng.integers(0, found.exposures.shape[1], 200),
        strict=True,
    ):
        x, y = (column + 0.5) * found.cell_px + 0.5, (row + 0.5) * found.cell_px + 0.5
        near = min(np.abs(np.hypot(x - found.outlines_px[..., 0], y - found.outlines_px[..., 1])).min(), 1.0)
        count = sum(_holds(quad, x, y) for quad in found.outlines_px)
        assert found.exposures[row, column] == count or near < 1e-6


def test_what_lies_beyond_the_grid_or_the_sky_covers_nothing() -> None:
    opposite = np.array([[[34.0, -52.5], [34.1, -52.5], [34.1, -52.4], [34.0, -52.4]]])
    found = cover(GRID, Footprints.of([boxes((500, 0, 50, 50)), opposite]))
    assert not found.covered.any()
    assert not cover(GRID, Footprints.of([])).covered.any()


# ---- depth and seeing ----


def test_equal_exposures_go_as_their_number() -> None:
    whole = boxes((-10, -10, 500, 400))
    for n in (1, 4, 25):
        told = predict(GRID, Footprints.of([whole] * n), exposures(n), "clipped_mean", 1.5)
        assert told.depth_mag == pytest.approx(25.0 + 1.25 * np.log10(n), abs=1e-6)
        assert told.fwhm_arcsec == pytest.approx(0.8, abs=1e-6)
        assert (told.covered, told.exposures_most, told.exposure_time_s) == (1.0, n, 100.0 * n)
    median = predict(GRID, Footprints.of([whole] * 25), exposures(25), "median", 1.5)
    assert median.depth_mag == pytest.approx(25.0 + 1.25 * np.log10(25 * 2 / np.pi), abs=0.02)
    none = predict(GRID, Footprints.of([whole] * 3), exposures(3), "chi2", 1.5)
    assert none.depth_mag is None and none.fwhm_arcsec is not None


def test_depth_is_where_the_exposures_are() -> None:
    half, whole = boxes((-10, -10, 210.5, 400)), boxes((-10, -10, 500, 400))
    told = predict(GRID, Footprints.of([whole, half, half, half]), exposures(4), "weighted_mean", 0.0)
    assert told.deepest_mag == pytest.approx(25.0 + 1.25 * np.log10(4), abs=1e-6)
    assert told.depth_map_mag[:, -1] == pytest.approx(25.0, abs=1e-6)
    assert told.exposures_most == 4 and told.exposures_median in (1.0, 2.5, 4.0)


def test_what_is_not_known_is_said() -> None:
    whole = boxes((-10, -10, 500, 400))
    depth = np.array([25.0, np.nan])
    told = predict(GRID, Footprints.of([whole] * 2), exposures(2, limiting_mag=depth), "average", 0.0)
    assert told.n_depth_unknown == 1 and told.exposures_most == 2
    nothing = exposures(2, limiting_mag=np.nan, fwhm_arcsec=np.nan, ellipticity=np.nan)
    told = predict(GRID, Footprints.of([whole] * 2), nothing, "clipped_mean", 1.5)
    assert (told.depth_mag, told.fwhm_arcsec, told.n_depth_unknown) == (None, None, 2)
    left_out = exposures(2, factor=np.array([1.0, 0.0]))
    assert predict(
        GRID, Footprints.of([whole] * 2), left_out, "clipped_mean", 0.0
    ).depth_mag == pytest.approx(25.0)


def gaussian(fwhm: float, half: int = 60, px: float = 0.05) -> Floats:
    """A PSF in pixels of 0.05 arcsec, of sum 1."""
    y, x = np.mgrid[-half : half + 1, -half : half + 1] * px
    sigma = fwhm / np.sqrt(8 * np.log(2))
    psf = np.exp(-0.5 * (x**2 + y**2) / sigma**2)
    return np.asarray(psf / psf.sum())


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5])
@pytest.mark.parametrize("method", ["weighted_mean", "average"])
def test_the_depth_of_a_mean_is_that_of_its_psf_and_noise(method: str, power: float) -> None:
    """Against pictures of the PSFs, stacked: (sum of P²) / variance is the squared signal-to-noise of a star."""
    fwhm = np.array([0.6, 0.7, 0.9, 1.2, 0.8])
    noise = np.array([1.0, 1.3, 0.8, 1.1, 2.0])
    psfs = np.array([gaussian(width) for width in fwhm])
    own = np.sum(psfs**2, axis=(1, 2)) / noise**2
    members = exposures(5, fwhm_arcsec=fwhm, limiting_mag=25.0 + 1.25 * np.log10(own / own[0]))
    weights = weights_of(members, method, power)  # type: ignore[arg-type]
    share = weights / weights.sum()
    stacked = np.tensordot(share, psfs, axes=1)
    attained = np.sum(stacked**2) / np.sum(share**2 * noise**2)
    squared = 10 ** (0.8 * (members.limiting_mag - 25.0))
    assert efficiency(members, squared, weights) == pytest.approx(attained / own.sum(), rel=0.01)


def test_psf_weights_of_the_first_power_are_about_deepest() -> None:
    members = exposures(
        4, fwhm_arcsec=np.array([0.6, 0.8, 1.0, 1.4]), limiting_mag=np.array([25.5, 25.0, 24.8, 24.4])
    )
    squared = 10 ** (0.8 * (members.limiting_mag - 25.0))
    found = {
        power: efficiency(members, squared, weights_of(members, "clipped_mean", power))
        for power in (0.0, 1.0, 3.0)
    }
    assert 0.9 < found[1.0] <= 1.0
    assert found[1.0] > found[0.0] and found[1.0] > found[3.0]


def test_the_mean_of_two_widths_lies_between_them_and_nearer_the_sharper() -> None:
    found = mean_fwhm(np.array([0.6, 1.0]), np.ones(2))
    assert found is not None and 0.6 < found < 0.8
    assert mean_fwhm(np.array([0.6, np.nan]), np.ones(2)) == pytest.approx(0.6)
    assert mean_fwhm(np.array([np.nan]), np.ones(1)) is None


@given(
    st.lists(st.floats(0.3, 3.0), min_size=1, max_size=6),
    st.lists(st.floats(20.0, 27.0), min_size=6, max_size=6),
    st.sampled_from([0.0, 1.0, 1.5, 4.0]),
)
def test_no_weights_do_better_than_all_of_the_signal(
    widths: list[float], depths: list[float], power: float
) -> None:
    n = len(widths)
    members = exposures(n, fwhm_arcsec=np.array(widths), limiting_mag=np.array(depths[:n]))
    squared = 10 ** (0.8 * (members.limiting_mag - 25.0))
    for method in ("clipped_mean", "average"):
        weights = weights_of(members, method, power)
        assert 0.0 < efficiency(members, squared, weights) <= 1.0 + 1e-3
        seeing = mean_fwhm(members.fwhm_arcsec, weights)
        assert seeing is not None and min(widths) - 1e-9 <= seeing <= max(widths) + 1e-9
    assert efficiency(replace(members, factor=np.zeros(n)), squared, np.zeros(n)) == 1.0


@given(
    st.lists(st.none() | st.floats(0.3, 3.0), min_size=1, max_size=6),
    st.lists(st.floats(0, 0.9), min_size=6, max_size=6),
    st.sampled_from([0.0, 1.0, 1.5, 4.0]),
)
def test_priorities_are_those_that_the_stack_is_made_with(
    widths: list[float | None], ellipticities: list[float], power: float
) -> None:
    fwhm, ellipticity = np.array(widths, dtype=np.float64), np.array(ellipticities[: len(widths)])
    members = exposures(len(widths), fwhm_arcsec=fwhm, ellipticity=ellipticity)
    expected = seeing_priorities(fwhm, ellipticity, power)
    np.testing.assert_allclose(priorities(members, power), expected, rtol=1e-6)


def test_medians_lose_as_the_stack_says_it() -> None:
    n = np.arange(0, 300)
    expected = combining.median_efficiency(n.astype(np.int16))
    np.testing.assert_allclose(median_efficiency(n.astype(np.int32)), expected, rtol=1e-6)
