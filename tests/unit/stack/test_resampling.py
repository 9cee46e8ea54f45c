from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from spica_imaging.wcs import TpvWcs
from spica_stack.science.grid import TanGrid
from spica_stack.science.parameters import Kernel
from spica_stack.science.pixels import Patch
from spica_stack.science.resampling import make_mesh, resample_into
from spica_stack.science.resampling.rows import TOLERATED_BAD_SHARE
from spica_stack.science.resampling.taps import N_TAPS, definition

from tests.unit.stack.sky import CENTRE, fill, grid_of, patch_of, resampled, wcs_at

KERNELS: list[Kernel] = ["nearest", "bilinear", "lanczos2", "lanczos3", "lanczos4"]


def plain_taps(kernel: Kernel, fraction: float) -> NDArray[np.float64]:
    n = N_TAPS[kernel] // 2
    return np.array([1 - fraction, fraction]) if n == 1 else definition(n, fraction)


def slow_sample(data: NDArray, weight: NDArray, x: float, y: float, kernel: Kernel) -> tuple[float, float]:
    """One sample: exact position, the definition of the kernel, double precision. Weight 0: none."""
    ny, nx = data.shape
    if kernel == "nearest":
        ix, iy = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
        inside = 0 <= ix < nx and 0 <= iy < ny
        return (data[iy, ix], max(np.nan_to_num(weight[iy, ix]), 0)) if inside else (0.0, 0.0)
    ix, iy, n = int(np.floor(x)), int(np.floor(y)), N_TAPS[kernel] // 2
    if min(ix, iy) < n - 1 or ix + n >= nx or iy + n >= ny:
        return 0.0, 0.0
    fx, fy = x - ix, y - iy
    shares = np.outer([1 - fy, fy], [1 - fx, fx])
    around = weight[iy : iy + 2, ix : ix + 2]
    bad = shares[~(around > 0)].sum()
    if bad > TOLERATED_BAD_SHARE:
        return 0.0, 0.0
    box = data[iy - n + 1 : iy + n + 1, ix - n + 1 : ix + n + 1]
    value = plain_taps(kernel, fy) @ box @ plain_taps(kernel, fx)
    return value, (shares * np.where(around > 0, around, 0)).sum() / (1 - bad)


def slow_twin(
    data: NDArray,
    weight: NDArray,
    grid: TanGrid,
    wcs: TpvWcs,
    flux_scale: float,
    kernel: Kernel,
    side: int = 1,
) -> tuple[NDArray, NDArray]:
    """Pixel by pixel, sample by sample."""
    value, weights = np.zeros((grid.height, grid.width)), np.zeros((grid.height, grid.width))

    def place(column: float, row: float) -> tuple[float, float]:
        x, y = wcs.sky_to_pixel(*grid.pixel_to_sky(column + 1, row + 1))
        return float(x) - 1, float(y) - 1

    offsets = (np.arange(side) + 0.5) / side - 0.5
    for row in range(grid.height):
        for column in range(grid.width):
            samples = [
                slow_sample(data, weight, *place(column + u, row + v), kernel)
                for v in offsets
                for u in offsets
            ]
            if min(one[1] for one in samples) <= 0:
                continue
            (xr, yr), (xl, yl) = place(column + 0.5, row), place(column - 0.5, row)
            (xu, yu), (xd, yd) = place(column, row + 0.5), place(column, row - 0.5)
            area = abs((xr - xl) * (yu - yd) - (xu - xd) * (yr - yl))
            value[row, column] = np.mean([one[0] for one in samples]) * area * flux_scale
            weights[row, column] = np.mean([one[1] for one in samples]) / (area * flux_scale**2)
    return value, weights


def assert_alike(found: tuple[NDArray, NDArray], expected: tuple[NDArray, NDArray], at_least: int) -> None:
    value, weights = found
    # Positions differ by less than 1e-3 px: samples at the brink of a rule may fall to either side.
    assert ((weights > 0) == (expected[1] > 0)).mean() > 0.998
    both = (weights > 0) & (expected[1] > 0)
    assert both.sum() > at_least
    np.testing.assert_allclose(value[both], expected[0][both], atol=0.5, rtol=2e-3)
    np.testing.assert_allclose(weights[both], expected[1][both], rtol=2e-2)
    assert np.all(value[weights == 0] == 0)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("rotation", "flipped", "scale"),
    [(0, False, 0.2), (0.4, True, 0.2), (180.3, False, 0.2), (33, False, 0.23), (90.5, True, 0.17)],
)
def test_it_does_what_its_slow_twin_does(
    rotation: float, flipped: bool, scale: float, kernel: Kernel
) -> None:
    rng = np.random.default_rng(3)
    shape = (60, 50)
    data, weight = rng.normal(100, 30, shape), rng.uniform(0.5, 2, shape)
    weight[rng.random(shape) < 0.03] = 0
    weight[20, 20:24] = 0
    weight[40, 10] = np.nan
    wcs = wcs_at(shape, rotation=rotation, flipped=flipped, scale=scale, shift=(0.3, -0.4))
    grid = grid_of(64)
    found = resampled(data, weight, grid, wcs, 2.5, kernel=kernel)
    expected = slow_twin(data, weight, grid, wcs, 2.5, kernel)
    assert_alike(found, expected, 1000)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("rotation", "oversampling"), [(0, 2), (20, 3)])
def test_several_samples_do_what_their_slow_twin_does(
    rotation: float, oversampling: int, kernel: Kernel
) -> None:
    rng = np.random.default_rng(4)
    shape = (60, 50)
    data, weight = rng.normal(100, 30, shape), rng.uniform(0.5, 2, shape)
    weight[rng.random(shape) < 0.01] = 0
    wcs = wcs_at(shape, rotation=rotation, shift=(0.3, -0.4))
    grid = grid_of(26, 0.5)
    found = resampled(data, weight, grid, wcs, 2.5, kernel=kernel, oversampling=oversampling)
    assert_alike(found, slow_twin(data, weight, grid, wcs, 2.5, kernel, oversampling), 180)


orientations = st.fixed_dictionaries(
    {
        "rotation": st.one_of(st.floats(-180, 180), st.sampled_from([0.0, 0.1, 90.0, 179.9, -90.2])),
        "flipped": st.booleans(),
        "scale": st.one_of(st.floats(0.1, 0.4), st.just(0.2)),
        "shift": st.tuples(st.floats(-9, 9), st.floats(-9, 9)),
    }
)


@settings(max_examples=40, deadline=None)
@given(
    orientations,
    st.sampled_from(KERNELS),
    st.integers(5, 70),
    st.sampled_from([None, 1, 2]),
    st.integers(0, 2**31),
)
def test_neither_tiles_nor_patches_leave_a_trace(
    frame: dict, kernel: Kernel, tile: int, oversampling: int | None, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = (110, 90)
    data, weight = rng.normal(size=shape), rng.uniform(0, 1, shape) * (rng.random(shape) > 0.02)
    mesh = make_mesh(
        grid_of(96), wcs_at(shape, **frame), shape, 2.0, kernel=kernel, oversampling=oversampling
    )
    whole = fill(mesh, data, weight, 96, 96)
    tiled = fill(mesh, data, weight, 96, 96, tile)
    np.testing.assert_array_equal(tiled[0].view(np.int32), whole[0].view(np.int32))
    np.testing.assert_array_equal(tiled[1].view(np.int32), whole[1].view(np.int32))


def test_a_patch_that_lacks_pixels_is_refused() -> None:
    shape = (80, 80)
    mesh = make_mesh(grid_of(60), wcs_at(shape, rotation=3), shape, 1.0)
    assert mesh is not None
    needed = mesh.needs((20, 40, 10, 30))
    assert needed is not None
    x0, x1, y0, y1 = needed
    value, weight = np.zeros((20, 20), np.float32), np.zeros((20, 20), np.float32)
    for box in ((x0 + 2, x1, y0, y1), (x0, x1 - 2, y0, y1), (x0, x1, y0 + 2, y1), (x0, x1, y0, y1 - 2)):
        with pytest.raises(ValueError, match="lacks pixels"):
            resample_into(patch_of(np.ones(shape), np.ones(shape), box), mesh, (20, 10), value, weight)
    resample_into(patch_of(np.ones(shape), np.ones(shape), needed), mesh, (20, 10), value, weight)
    assert (weight > 0).all()


def test_planes_that_cannot_be_written_are_refused() -> None:
    shape = (40, 40)
    mesh = make_mesh(grid_of(30), wcs_at(shape), shape, 1.0)
    assert mesh is not None
    patch = patch_of(np.ones(shape), np.ones(shape))
    good = np.zeros((30, 30), np.float32)
    for bad in (np.zeros((30, 30)), np.zeros((30, 60), np.float32)[:, ::2], np.zeros((29, 30), np.float32)):
        with pytest.raises(ValueError, match="tile"):
            resample_into(patch, mesh, (0, 0), good, bad)
    with pytest.raises(ValueError, match="patch"):
        resample_into(Patch(patch.data, patch.weight[:, 1:], 0, 0), mesh, (0, 0), good, good.copy())


def test_a_tile_may_be_part_of_a_larger_array() -> None:
    shape = (40, 40)
    mesh = make_mesh(grid_of(30), wcs_at(shape, rotation=5), shape, 1.0)
    assert mesh is not None
    data = np.random.default_rng(0).normal(size=shape)
    value, weight = fill(mesh, data, np.ones(shape), 30, 30)
    layers = np.zeros((2, 50, 64), np.float32)
    layers[:, 5:35, 7:37] = 0
    resample_into(patch_of(data, np.ones(shape)), mesh, (0, 0), layers[0, 5:35, 7:37], layers[1, 5:35, 7:37])
    np.testing.assert_array_equal(layers[0, 5:35, 7:37], value)
    np.testing.assert_array_equal(layers[1, 5:35, 7:37], weight)
    layers[:, 5:35, 7:37] = 0
    assert not layers.any()


def test_read_only_patches_of_any_layout_are_read() -> None:
    shape = (40, 40)
    mesh = make_mesh(grid_of(30), wcs_at(shape, rotation=5), shape, 1.0)
    assert mesh is not None
    patch = patch_of(np.random.default_rng(0).normal(size=shape), np.ones(shape))
    expected = fill(mesh, patch.data, patch.weight, 30, 30)
    odd = Patch(np.asfortranarray(patch.data), patch.weight.repeat(2, 1)[:, ::2], 0, 0)
    odd.data.flags.writeable = False
    value, weight = np.zeros((30, 30), np.float32), np.zeros((30, 30), np.float32)
    resample_into(odd, mesh, (0, 0), value, weight)
    np.testing.assert_array_equal(value, expected[0])
    np.testing.assert_array_equal(weight, expected[1])


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_edge_of_a_ccd_gives_samples_as_far_as_the_kernel_reaches(kernel: Kernel) -> None:
    shape = (40, 50)
    # Output pixel 10 falls a quarter of a pixel behind the CCD's pixel 0.
    wcs = TpvWcs(CENTRE, (1.25, 1.25), ((-0.2 / 3600, 0.0), (0.0, 0.2 / 3600)))
    grid = TanGrid(*CENTRE, 11.0, 11.0, 0.2, 70, 60)
    value, weights = resampled(np.ones(shape), np.ones(shape), grid, wcs, kernel=kernel)
    n = N_TAPS[kernel] // 2
    first, last = max(n - 1, 0), n
    expected = np.zeros((60, 70))
    expected[10 + first : 50 - last, 10 + first : 60 - last] = 1
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_infinite_data_stay_where_they_are() -> None:
    """Not what callers should give; but it must not spread beyond the kernel, nor crash."""
    shape = (40, 40)
    data = np.zeros(shape)
    data[20, 20], data[10, 10] = np.inf, np.nan
    value, weights = resampled(data, np.ones(shape), grid_of(40), wcs_at(shape))
    assert np.isfinite(value).mean() > 0.9
    assert (weights[5:35, 5:35] > 0).all()
    np.testing.assert_array_equal(value[26:], 0)


def test_nan_weights_give_no_sample() -> None:
    shape = (40, 40)
    weight = np.ones(shape)
    weight[10:14, 10:14] = np.nan
    weight[20:24, 20:24] = -1.0
    value, weights = resampled(np.ones(shape), weight, grid_of(40), wcs_at(shape))
    assert np.isfinite(value).all()
    assert not (weights[10:14, 10:14] > 0).any()
    assert not (weights[20:24, 20:24] > 0).any()
    assert (weights >= 0).all()


def test_two_ccds_in_one_layer_leave_the_heavier_sample() -> None:
    shape = (60, 60)
    mesh = make_mesh(grid_of(50), wcs_at(shape), shape, 1.0)
    assert mesh is not None
    value, weights = np.zeros((50, 50), np.float32), np.zeros((50, 50), np.float32)
    for level, weight in ((1.0, 2.0), (5.0, 1.0), (3.0, 4.0)):
        patch = patch_of(np.full(shape, level), np.full(shape, weight))
        resample_into(patch, mesh, (0, 0), value, weights)
    np.testing.assert_allclose(value[10:40, 10:40], 3.0, rtol=1e-6)
    np.testing.assert_allclose(weights[10:40, 10:40], 4.0, rtol=1e-6)
