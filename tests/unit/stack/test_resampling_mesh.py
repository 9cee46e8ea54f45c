from __future__ import annotations

import pickle

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from spica_imaging.wcs import TpvWcs, WcsError
from spica_stack.science.grid import Grid, TanGrid, Wcs
from spica_stack.science.pixels import Box
from spica_stack.science.resampling import AstropyWcs, Mesh, make_mesh, wcs_from_header, window_of
from spica_stack.science.resampling.mesh import MAX_POSITION_ERROR_PX

from tests.unit.stack.sky import CENTRE, fill, grid_of, measure, render, resampled, scattered_stars, wcs_at


def distorted(shape: tuple[int, int], strength: float = 1.0, **frame: float) -> TpvWcs:
    """A corner CCD of a wide-field camera: cubic distortion of some per cent, half a degree off the axis."""
    plain = wcs_at(shape, **frame)  # type: ignore[arg-type]
    pv = [0.0] * 40
    pv[0], pv[1], pv[4], pv[5], pv[6] = 1e-4, 1.002, 2e-3 * strength, -1e-3 * strength, 1e-3 * strength
    pv[7], pv[8], pv[9], pv[10] = 2.0 * strength, 0.1 * strength, 2.0 * strength, -0.1 * strength
    return TpvWcs(plain.crval, (plain.crpix[0] - 900, plain.crpix[1] + 1200), plain.cd, tuple(pv), tuple(pv))


def over(wcs: Wcs, shape: tuple[int, int], side: int, scale: float = 0.2) -> TanGrid:
    """A square grid around the middle of a CCD."""
    ra, dec = wcs.pixel_to_sky(0.5 * (shape[1] + 1), 0.5 * (shape[0] + 1))
    return grid_of(side, scale, (float(ra), float(dec)))


def exact(grid: Grid, wcs: Wcs, columns: NDArray, rows: NDArray) -> tuple[NDArray, NDArray]:
    x, y = wcs.sky_to_pixel(*grid.pixel_to_sky(columns + 1, rows + 1))
    return x - 1, y - 1


def on_mesh(mesh: Mesh, columns: NDArray, rows: NDArray) -> NDArray:
    """Bilinear values at any output pixels, the slow way. Shape (3, n)."""
    u, v = (columns - mesh.x0) / mesh.step, (rows - mesh.y0) / mesh.step
    i, j = np.floor(u).astype(int), np.floor(v).astype(int)
    u, v = u - i, v - j
    nodes = mesh.nodes
    low = (1 - u) * nodes[:, j, i] + u * nodes[:, j, i + 1]
    return (1 - v) * low + v * ((1 - u) * nodes[:, j + 1, i] + u * nodes[:, j + 1, i + 1])


@pytest.mark.parametrize("rotation", [0.0, 37.0, 90.0, 181.0])
@pytest.mark.parametrize("projection", ["TAN", "SIN", "CAR"])
def test_positions_and_areas_are_those_of_the_mapping(rotation: float, projection: str) -> None:
    shape = (500, 400)
    wcs = distorted(shape, rotation=rotation)
    around = over(wcs, shape, 520)
    grid = Grid(around.ra_deg, around.dec_deg, 260.5, 260.5, 0.2, 520, 520, 12.0, True, projection)  # type: ignore[arg-type]
    mesh = make_mesh(grid, wcs, shape, 2.0)
    assert mesh is not None
    rng = np.random.default_rng(0)
    columns, rows = rng.integers(mesh.window[0], mesh.window[1], 400), rng.integers(*mesh.window[2:], 400)
    x, y = exact(grid, wcs, columns, rows)
    found = on_mesh(mesh, columns, rows)
    assert np.hypot(found[0] - x, found[1] - y).max() < MAX_POSITION_ERROR_PX
    right, left = exact(grid, wcs, columns + 0.5, rows), exact(grid, wcs, columns - 0.5, rows)
    up, down = exact(grid, wcs, columns, rows + 0.5), exact(grid, wcs, columns, rows - 0.5)
    (dx, dy), (ex, ey) = np.subtract(right, left), np.subtract(up, down)
    np.testing.assert_allclose(found[2], 2.0 * np.abs(dx * ey - ex * dy), rtol=2e-5)


def test_nodes_are_exact() -> None:
    shape = (900, 800)
    wcs = distorted(shape, 3.0)
    grid = over(wcs, shape, 900)
    mesh = make_mesh(grid, wcs, shape, 1.0)
    assert mesh is not None
    columns = mesh.x0 + mesh.step * np.arange(mesh.nodes.shape[2])
    rows = mesh.y0 + mesh.step * np.arange(mesh.nodes.shape[1])
    x, y = exact(grid, wcs, *np.meshgrid(columns, rows))
    np.testing.assert_allclose(mesh.nodes[0], x, atol=1e-5)
    np.testing.assert_allclose(mesh.nodes[1], y, atol=1e-5)


def test_it_becomes_finer_where_the_mapping_bends() -> None:
    shape = (300, 300)
    pv = [0.0] * 40
    pv[1], pv[7] = 1.0, 200.0
    bent = TpvWcs(CENTRE, (150.5, 150.5), ((-5e-3, 0.0), (0.0, 5e-3)), tuple(pv))
    grid = grid_of(280, 18.0)
    fine, straight = make_mesh(grid, bent, shape, 1.0), make_mesh(grid, wcs_at(shape, scale=18.0), shape, 1.0)
    assert fine is not None and straight is not None
    assert fine.step < straight.step == 32


class Kinked:
    """A mapping with a jump of 5 pixels in a narrow strip, which no second difference of nodes sees."""

    def __init__(self, plain: TpvWcs) -> None:
        self.plain = plain

    def pixel_to_sky(self, x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
        return self.plain.pixel_to_sky(x - self._kink(y), y)

    def sky_to_pixel(self, ra: NDArray, dec: NDArray) -> tuple[NDArray, NDArray]:
        x, y = self.plain.sky_to_pixel(ra, dec)
        return x + self._kink(y), y

    @staticmethod
    def _kink(y: NDArray) -> NDArray:
        return 5.0 * np.exp(-0.5 * (((np.asarray(y) + 8) % 32 - 16) / 4) ** 2)


def test_it_becomes_finer_where_it_is_not_smooth() -> None:
    shape = (300, 300)
    mesh = make_mesh(grid_of(280), Kinked(wcs_at(shape)), shape, 1.0)
    assert mesh is not None and mesh.step < 32


boxes = st.tuples(st.integers(-20, 150), st.integers(1, 90), st.integers(-20, 150), st.integers(1, 90)).map(
    lambda b: (b[0], b[0] + b[1], b[2], b[2] + b[3])
)


@settings(max_examples=60, deadline=None)
@given(
    boxes,
    boxes,
    st.floats(-180, 180),
    st.floats(0.1, 0.5),
    st.sampled_from(["nearest", "bilinear", "lanczos4"]),
    st.sampled_from([None, 3]),
)
def test_a_box_needs_what_lies_in_it_and_little_more(
    box: Box, other: Box, rotation: float, scale: float, kernel: str, oversampling: int | None
) -> None:
    shape = (120, 140)
    grid, wcs = grid_of(150), wcs_at(shape, rotation=rotation, scale=scale)
    mesh = make_mesh(grid, wcs, shape, 1.0, kernel=kernel, oversampling=oversampling)  # type: ignore[arg-type]
    assert mesh is not None
    needed = mesh.needs(box)
    inside = (
        max(box[0], mesh.window[0]),
        min(box[1], mesh.window[1]),
        max(box[2], mesh.window[2]),
        min(box[3], mesh.window[3]),
    )
    if inside[0] >= inside[1] or inside[2] >= inside[3]:
        assert needed is None
        return
    x, y = exact(grid, wcs, *np.meshgrid(np.arange(*inside[:2]), np.arange(*inside[2:])))
    reach = {"nearest": 1, "bilinear": 1, "lanczos4": 4}[kernel]
    half = 0.0 if oversampling is None and mesh.oversample == 1 else 0.75 * 0.2 / scale
    low = np.array([np.floor(x.min() - half), np.floor(y.min() - half)]) - reach - 2
    high = np.array([np.floor(x.max() + half), np.floor(y.max() + half)]) + reach + 3
    if needed is None:
        assert not fill(mesh, np.ones(shape), np.ones(shape), 150, 150)[1][
            inside[2] : inside[3], inside[0] : inside[1]
        ].any()
        return
    assert 0 <= needed[0] < needed[1] <= 140 and 0 <= needed[2] < needed[3] <= 120
    assert needed[0] >= max(low[0], 0) and needed[2] >= max(low[1], 0)
    assert needed[1] <= min(high[0], 140) and needed[3] <= min(high[1], 120)
    union = (min(box[0], other[0]), max(box[1], other[1]), min(box[2], other[2]), max(box[3], other[3]))
    larger = mesh.needs(union)
    assert larger is not None
    assert larger[0] <= needed[0] and larger[1] >= needed[1]
    assert larger[2] <= needed[2] and larger[3] >= needed[3]


def test_a_mesh_goes_to_another_process() -> None:
    shape = (150, 130)
    wcs = wcs_at(shape, rotation=12)
    mesh = make_mesh(grid_of(160), wcs, shape, 2.0, kernel="lanczos2")
    assert mesh is not None
    again = pickle.loads(pickle.dumps(mesh))
    data = np.random.default_rng(0).normal(size=shape)
    for one, other in zip(
        fill(mesh, data, np.ones(shape), 160, 160), fill(again, data, np.ones(shape), 160, 160), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    for name in ("x0", "y0", "step", "window", "shape", "flux_scale", "kernel", "oversample", "turned"):
        assert getattr(again, name) == getattr(mesh, name)


def test_the_far_side_of_the_sky_is_no_place() -> None:
    shape = (40, 40)
    far = TpvWcs((34.0, -52.5), (20.0, 20.0), ((-5e-5, 0.0), (0.0, 5e-5)))
    assert make_mesh(grid_of(40), far, shape, 1.0) is None
    aside = TpvWcs((124.0, 0.0), (20.0, 20.0), ((-5e-5, 0.0), (0.0, 5e-5)))
    assert make_mesh(grid_of(40), aside, shape, 1.0) is None
    assert window_of(grid_of(40), aside, shape) is None


@settings(deadline=None, max_examples=50)
@given(st.floats(-180, 180), st.floats(0.1, 0.5), st.tuples(st.floats(-99, 99), st.floats(-99, 99)))
def test_the_window_is_known_without_a_mesh(
    rotation: float, scale: float, shift: tuple[float, float]
) -> None:
    shape, grid = (70, 90), grid_of(100)
    wcs = wcs_at(shape, rotation=rotation, scale=scale, shift=shift)
    mesh, window = make_mesh(grid, wcs, shape, 1.0, (3, 5)), window_of(grid, wcs, shape, (3, 5))
    assert window == (None if mesh is None else mesh.window)
    if window is None:
        return
    rows, columns = np.nonzero(fill(mesh, np.ones(shape), np.ones(shape), 100, 100)[1])
    assert not len(rows) or (window[0] <= columns.min() and columns.max() < window[1])
    assert not len(rows) or (window[2] <= rows.min() and rows.max() < window[3])


def test_overscan_is_cut_off_by_its_origin() -> None:
    shape = (80, 80)
    stars = scattered_stars(np.random.default_rng(2), 1, 10)
    wcs = wcs_at(shape)
    data = render(shape, wcs, stars, 4)
    mesh = make_mesh(grid_of(60), wcs, (73, 68), 1.0, origin=(12, 7))
    value, _ = fill(mesh, data[7:, 12:], np.ones((73, 68)), 60, 60)
    expected, _ = resampled(data, np.ones(shape), grid_of(60), wcs)
    np.testing.assert_allclose(value[15:45, 15:45], expected[15:45, 15:45], atol=1e-2)


# ---- world coordinates of other kinds ----


def header_of(projection: str, centre: tuple[float, float] = CENTRE, **more: object) -> fits.Header:
    step = 0.2 / 3600
    header = fits.Header()
    header.update(
        NAXIS=2,
        NAXIS1=300,
        NAXIS2=280,
        CTYPE1=f"RA---{projection}",
        CTYPE2=f"DEC--{projection}",
        CRVAL1=centre[0],
    )
    header.update(
        CRVAL2=centre[1],
        CRPIX1=150.5,
        CRPIX2=140.5,
        CD1_1=-step,
        CD1_2=step / 50,
        CD2_1=step / 40,
        CD2_2=step,
    )
    header.update(**{"RADESYS": "ICRS", **more})
    return header


GALACTIC = header_of("TAN", (120.0, 30.0), CTYPE1="GLON-TAN", CTYPE2="GLAT-TAN")
SWAPPED = header_of("ARC", (30.0, 60.0), CTYPE1="DEC--ARC", CTYPE2="RA---ARC")
KINDS = {
    "TAN": header_of("TAN"),
    "ZPN": header_of("ZPN", PV2_1=1.0, PV2_3=40.0),
    "CAR": header_of("CAR", (10.0, 0.0)),
    "STG": header_of("STG", (10.0, 90.0)),
    "TAN-SIP": header_of("TAN-SIP", A_ORDER=2, B_ORDER=2, A_2_0=2e-5, B_1_1=1e-5, A_0_2=-1e-5),
    "SIP9": header_of("TAN-SIP", A_ORDER=9, B_ORDER=2, A_9_0=1e-22, A_2_0=1e-5, B_2_0=2e-6),
    "FK4": header_of("TAN", RADESYS="FK4", EQUINOX=1950.0),
    "galactic": GALACTIC,
    "swapped": SWAPPED,
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_world_coordinates_are_read(kind: str) -> None:
    wcs = wcs_from_header(KINDS[kind])
    assert isinstance(wcs, TpvWcs) == (kind in ("TAN", "TAN-SIP"))
    x, y = np.meshgrid([1.0, 150.5, 300.0], [1.0, 280.0])
    ra, dec = wcs.pixel_to_sky(x, y)
    assert ra.shape == x.shape
    back = wcs.sky_to_pixel(ra, dec)
    np.testing.assert_allclose(back[0], x, atol=1e-5)
    np.testing.assert_allclose(back[1], y, atol=1e-5)
    theirs = WCS(KINDS[kind]).pixel_to_world(x - 1, y - 1).icrs
    np.testing.assert_allclose((ra - theirs.ra.deg + 180) % 360 - 180, 0, atol=1e-8)
    np.testing.assert_allclose(dec, theirs.dec.deg, atol=1e-8)
    again = pickle.loads(pickle.dumps(wcs))
    np.testing.assert_array_equal(again.pixel_to_sky(x, y)[0], ra)


@pytest.mark.parametrize("kind", KINDS)
def test_stars_seen_through_any_world_coordinates_keep_place_and_flux(kind: str) -> None:
    shape = (280, 300)
    wcs = wcs_from_header(KINDS[kind])
    ra, dec = wcs.pixel_to_sky(150.5, 140.5)
    grid = grid_of(200, 0.2, (float(ra), float(dec)))
    stars = scattered_stars(np.random.default_rng(1), 9, 70, centre=(float(ra), float(dec)))
    value, weights = resampled(render(shape, wcs, stars, 5), np.ones(shape), grid, wcs)
    assert (weights[20:180, 20:180] > 0).all()
    x, y = grid.sky_to_pixel(stars.ra, stars.dec)
    for cx, cy, flux in zip(x - 1, y - 1, stars.flux, strict=True):
        found, found_x, found_y = measure(value, cx, cy, 15)
        assert found == pytest.approx(flux, rel=1e-3)
        assert (found_x, found_y) == pytest.approx((cx, cy), abs=0.005)


def test_what_the_sky_does_not_have_is_nan() -> None:
    wcs = AstropyWcs(header_of("SIN"))
    x, y = wcs.sky_to_pixel([34.0, CENTRE[0], np.nan], [-52.5, CENTRE[1], 0.0])
    np.testing.assert_array_equal(np.isfinite(x), [False, True, False])
    np.testing.assert_array_equal(np.isfinite(y), [False, True, False])
    assert make_mesh(grid_of(30, centre=(34.0, -52.5)), wcs, (280, 300), 1.0) is None


@pytest.mark.parametrize(
    "change",
    [
        {"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"},
        {"CTYPE1": "RA---XYZ"},
        {"CD1_1": 1e-5, "CD1_2": 2e-5, "CD2_1": 1e-5, "CD2_2": 2e-5},
    ],
)
def test_a_header_that_says_no_place_is_an_error(change: dict) -> None:
    header = header_of("ZPN", PV2_1=1.0)
    header.update(change)
    with pytest.raises(WcsError):
        wcs_from_header(header)
    with pytest.raises(WcsError):
        wcs_from_header({})
