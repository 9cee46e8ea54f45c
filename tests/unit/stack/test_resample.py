from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from spica_imaging.wcs import TpvWcs
from spica_stack.science.grid import TanGrid
from spica_stack.science.lanczos import TOLERATED_BAD_SHARE
from spica_stack.science.resample import make_mesh, resample_into

from tests.unit.stack.sky import grid_of, measure, render, scattered_stars, wcs_at
from tests.unit.stack.test_lanczos import definition

Image = NDArray[np.float32]


def resample(
    data: NDArray,
    weight: NDArray,
    grid: TanGrid,
    wcs: TpvWcs,
    flux_scale: float = 1.0,
    tile: int | None = None,
) -> tuple[Image, Image]:
    """The whole output in one piece, or in square tiles."""
    mesh = make_mesh(grid, wcs, data.shape, flux_scale)
    value, weights = (
        np.zeros((grid.height, grid.width), np.float32),
        np.zeros((grid.height, grid.width), np.float32),
    )
    side = tile or max(grid.height, grid.width)
    for y0 in range(0, grid.height, side):
        for x0 in range(0, grid.width, side):
            box = np.s_[y0 : y0 + side, x0 : x0 + side]
            part, part_weight = value[box].copy(), weights[box].copy()
            if mesh is not None:
                resample_into(
                    data.astype(np.float32),
                    weight.astype(np.float32),
                    mesh,
                    flux_scale,
                    (x0, y0),
                    part,
                    part_weight,
                )
            value[box], weights[box] = part, part_weight
    return value, weights


def slow_twin(
    data: NDArray, weight: NDArray, grid: TanGrid, wcs: TpvWcs, flux_scale: float
) -> tuple[NDArray, NDArray]:
    """Pixel by pixel, exact positions, the definition of the kernel, double precision."""
    ny, nx = data.shape
    value, weights = np.zeros((grid.height, grid.width)), np.zeros((grid.height, grid.width))

    def place(column: float, row: float) -> tuple[float, float]:
        x, y = wcs.sky_to_pixel(*grid.pixel_to_sky(column + 1, row + 1))
        return float(x) - 1, float(y) - 1

    for row in range(grid.height):
        for column in range(grid.width):
            x, y = place(column, row)
            ix, iy = int(np.floor(x)), int(np.floor(y))
            if ix < 2 or iy < 2 or ix + 3 >= nx or iy + 3 >= ny:
                continue
            fx, fy = x - ix, y - iy
            shares = np.outer([1 - fy, fy], [1 - fx, fx])
            around = weight[iy : iy + 2, ix : ix + 2]
            bad = shares[~(around > 0)].sum()
            if bad > TOLERATED_BAD_SHARE:
                continue
            (xr, yr), (xl, yl) = place(column + 0.5, row), place(column - 0.5, row)
            (xu, yu), (xd, yd) = place(column, row + 0.5), place(column, row - 0.5)
            area = abs((xr - xl) * (yu - yd) - (xu - xd) * (yr - yl))
            box = data[iy - 2 : iy + 4, ix - 2 : ix + 4]
            value[row, column] = definition(fy) @ box @ definition(fx) * area * flux_scale
            weights[row, column] = (
                (shares * np.where(around > 0, around, 0)).sum() / (1 - bad) / (area * flux_scale**2)
            )
    return value, weights


@pytest.mark.parametrize(
    ("rotation", "flipped", "scale"), [(0, False, 0.2), (33, False, 0.23), (181, True, 0.17)]
)
def test_it_does_what_its_slow_twin_does(rotation: float, flipped: bool, scale: float) -> None:
    rng = np.random.default_rng(3)
    shape = (60, 50)
    data, weight = rng.normal(100, 30, shape), rng.uniform(0.5, 2, shape)
    weight[rng.random(shape) < 0.03] = 0
    weight[20, 20:24] = 0
    wcs = wcs_at(shape, rotation=rotation, flipped=flipped, scale=scale, shift=(0.3, -0.4))
    grid = grid_of(70)
    value, weights = resample(data, weight, grid, wcs, 2.5)
    expected, expected_weights = slow_twin(data, weight, grid, wcs, 2.5)
    # Positions differ by less than 1e-3 px: samples at the brink of a rule may fall to either side.
    same = (weights > 0) == (expected_weights > 0)
    assert same.mean() > 0.998
    both = (weights > 0) & (expected_weights > 0)
    assert both.sum() > 1000
    np.testing.assert_allclose(value[both], expected[both], atol=0.5, rtol=2e-3)
    np.testing.assert_allclose(weights[both], expected_weights[both], rtol=2e-2)
    assert np.all(value[weights == 0] == 0)


def test_nan_weights_and_positions_give_no_sample() -> None:
    shape = (40, 40)
    weight = np.ones(shape)
    weight[10:14, 10:14] = np.nan
    value, weights = resample(np.ones(shape), weight, grid_of(40), wcs_at(shape))
    assert np.isfinite(value).all()
    assert not (weights[10:14, 10:14] > 0).any()
    far = TpvWcs((34.0, -52.5), (20.0, 20.0), ((-5e-5, 0.0), (0.0, 5e-5)))
    assert make_mesh(grid_of(40), far, shape, 1.0) is None


frames = st.fixed_dictionaries(
    {
        "rotation": st.floats(-180, 180),
        "flipped": st.booleans(),
        "scale": st.floats(0.15, 0.24),
        "shift": st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    }
)


@settings(max_examples=25, deadline=None)
@given(frames, st.integers(0, 2**31))
def test_fluxes_and_centroids_survive_shift_rotation_flip_and_scale(frame: dict, seed: int) -> None:
    shape, seeing = (190, 190), 1.2
    stars = scattered_stars(np.random.default_rng(seed), 4, 36)
    wcs = wcs_at(shape, **frame)
    grid = grid_of(130)
    data = render(shape, wcs, stars, seeing / frame["scale"])
    value, weights = resample(data, np.ones(shape), grid, wcs, 3.0)
    x, y = grid.sky_to_pixel(stars.ra, stars.dec)
    for cx, cy, flux in zip(x - 1, y - 1, stars.flux, strict=True):
        found, found_x, found_y = measure(value, cx, cy, 14)
        assert found == pytest.approx(3.0 * flux, rel=1e-3)
        assert (found_x, found_y) == pytest.approx((cx, cy), abs=0.01)
    assert (weights[30:100, 30:100] > 0).all()


@pytest.mark.parametrize("ratio", [1.6, 2.0, 3.3])
def test_fluxes_survive_much_larger_output_pixels(ratio: float) -> None:
    shape = (400, 400)
    stars = scattered_stars(np.random.default_rng(5), 4, 90)
    wcs = wcs_at(shape, rotation=20, shift=(0.4, 0.2))
    side = int(300 / ratio)
    grid = grid_of(side, 0.2 * ratio)
    # Noise of 2 adu in each input pixel, so that the weights can be looked at too.
    noise = np.random.default_rng(1).normal(0, 2, shape)
    signal, weights = resample(render(shape, wcs, stars, 5), np.full(shape, 0.25), grid, wcs)
    x, y = grid.sky_to_pixel(stars.ra, stars.dec)
    for cx, cy, flux in zip(x - 1, y - 1, stars.flux, strict=True):
        assert measure(signal, cx, cy, 24 / ratio)[0] == pytest.approx(flux, rel=2e-3)
    scatter, _ = resample(noise, np.full(shape, 0.25), grid, wcs)
    inner = np.s_[5:-5, 5:-5]
    assert np.std(scatter[inner] * np.sqrt(weights[inner])) == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize(("rotation", "scale"), [(0, 0.2), (27, 0.2), (0, 0.17), (45, 0.26)])
def test_weights_tell_the_noise_of_fluxes(rotation: float, scale: float) -> None:
    """Summed over blocks much larger than the kernel, the noise is what the weights say."""
    shape = (620, 620)
    data = np.random.default_rng(11).normal(0, 5, shape)
    wcs = wcs_at(shape, rotation=rotation, scale=scale, shift=(0.37, 0.21))
    value, weights = resample(data, np.full(shape, 1 / 25), grid_of(340), wcs, 0.3)
    block = 10
    sums = value[10:330, 10:330].reshape(32, block, 32, block).sum((1, 3))
    variance = (1 / weights[10:330, 10:330]).reshape(32, block, 32, block).sum((1, 3))
    assert np.std(sums / np.sqrt(variance)) == pytest.approx(1, abs=0.09)


def test_tiles_leave_no_trace() -> None:
    rng = np.random.default_rng(0)
    shape = (150, 130)
    data, weight = rng.normal(size=shape), rng.uniform(0, 1, shape)
    wcs = wcs_at(shape, rotation=12, shift=(3.3, 1.2))
    whole = resample(data, weight, grid_of(160), wcs)
    for tile in (17, 64):
        tiled = resample(data, weight, grid_of(160), wcs, tile=tile)
        np.testing.assert_array_equal(tiled[0], whole[0])
        np.testing.assert_array_equal(tiled[1], whole[1])


def test_two_ccds_in_one_layer_leave_the_heavier_sample() -> None:
    shape = (60, 60)
    wcs, grid = wcs_at(shape), grid_of(50)
    mesh = make_mesh(grid, wcs, shape, 1.0)
    assert mesh is not None
    value, weights = np.zeros((50, 50), np.float32), np.zeros((50, 50), np.float32)
    for level, weight in ((1.0, 2.0), (5.0, 1.0), (3.0, 4.0)):
        data, map_ = np.full(shape, level, np.float32), np.full(shape, weight, np.float32)
        resample_into(data, map_, mesh, 1.0, (0, 0), value, weights)
    np.testing.assert_allclose(value[10:40, 10:40], 3.0, rtol=1e-6)
    np.testing.assert_allclose(weights[10:40, 10:40], 4.0, rtol=1e-6)


def test_the_mesh_becomes_finer_where_the_mapping_bends() -> None:
    shape = (300, 300)
    pv = [0.0] * 40
    pv[1], pv[7] = 1.0, 200.0
    bent = TpvWcs((214.0, 52.5), (150.5, 150.5), ((-5e-3, 0.0), (0.0, 5e-3)), tuple(pv))
    grid = grid_of(280, 18.0)
    fine, straight = make_mesh(grid, bent, shape, 1.0), make_mesh(grid, wcs_at(shape, scale=18.0), shape, 1.0)
    assert fine is not None and straight is not None
    assert fine.step < straight.step == 32


def test_overscan_is_cut_off_by_its_origin() -> None:
    shape = (80, 80)
    stars = scattered_stars(np.random.default_rng(2), 1, 10)
    wcs = wcs_at(shape)
    data = render(shape, wcs, stars, 4)
    cut = data[7:, 12:].astype(np.float32)
    mesh = make_mesh(grid_of(60), wcs, cut.shape, 1.0, origin=(12, 7))
    assert mesh is not None
    value, weights = np.zeros((60, 60), np.float32), np.zeros((60, 60), np.float32)
    resample_into(cut, np.ones_like(cut), mesh, 1.0, (0, 0), value, weights)
    expected, _ = resample(data, np.ones(shape), grid_of(60), wcs)
    np.testing.assert_allclose(value[15:45, 15:45], expected[15:45, 15:45], atol=1e-2)
