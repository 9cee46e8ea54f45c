"""From files to files: what a worker process does for one stack."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from spica_imaging.head import format_head
from spica_runtime.errors import NotRetriable
from spica_stack.inputs import head_for
from spica_stack.jobs import coadd_stack, footprints
from spica_stack.science.coadd import MIN_TILE_SIDE_PX, TILE_SIDE_PX, tile_side
from spica_stack.science.grid import covering_grid

from tests.unit.stack.field import SCALE, Exposure, order_for, write_exposure
from tests.unit.stack.sky import Stars, measure, scattered_stars

N = 5


@pytest.fixture(scope="module")
def stars() -> Stars:
    return scattered_stars(np.random.default_rng(1), 36, 150, flux=(20, 2000))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def exposures(root: Path, stars: Stars) -> list[Exposure]:
    rng = np.random.default_rng(2)
    return [write_exposure(root / "in", k, stars, rng, fwhm_px=4.2 + 0.15 * k) for k in range(N)]


@pytest.fixture(scope="module")
def grid(exposures: list[Exposure]):
    found = footprints([(e.files.image_id, e.files.head, e.sizes) for e in exposures])
    assert all(ccd.scale_arcsec == pytest.approx(SCALE, rel=1e-6) for part in found for ccd in part.ccds)
    return covering_grid([(ccd.ra_deg, ccd.dec_deg) for part in found for ccd in part.ccds], SCALE)


def isolated(stars: Stars, x: np.ndarray, y: np.ndarray, count: np.ndarray) -> list[int]:
    """Stars whose surroundings all exposures saw."""
    inside = (x > 25) & (x < count.shape[1] - 25) & (y > 25) & (y < count.shape[0] - 25)
    return [
        k
        for k in np.flatnonzero(inside)
        if count[round(y[k]) - 12 : round(y[k]) + 13, round(x[k]) - 12 : round(x[k]) + 13].min() >= N - 2
    ]


def test_fluxes_positions_and_noise_of_the_stack_are_the_truth(
    root: Path, exposures: list[Exposure], grid, stars: Stars
) -> None:
    result = coadd_stack(order_for(root, exposures, grid))
    assert (result.n_exposures, result.exposure_time_s, result.left_out, result.log) == (N, 250.0, (), ())
    with (
        fits.open(root / result.image.path, checksum=True) as image,
        fits.open(root / result.weight.path) as weight,
    ):
        data, header = image[0].data.astype(np.float64), image[0].header
        weights = weight[0].data
    count = fits.getdata(root / result.exposures.path)
    assert result.image.path == "stacks/s1/F1_r.fits" and result.weight.path == "stacks/s1/F1_r.weight.fits"
    x, y = WCS(header).all_world2pix(stars.ra, stars.dec, 0)
    chosen = isolated(stars, x, y, count)
    assert len(chosen) >= 15
    noise = 1 / np.sqrt(np.median(weights[count == N]))
    errors, offsets = [], []
    for k in chosen:
        flux, found_x, found_y = measure(data, x[k], y[k], 9)
        errors.append((flux - stars.flux[k]) / np.hypot(19 * noise, 3e-3 * stars.flux[k]))
        if stars.flux[k] > 300:
            offsets.append((found_x - x[k], found_y - y[k]))
    assert np.std(errors) < 1.6 and abs(np.mean(errors)) < 1.0
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.02
    # Cosmic rays (120 of them, 4 px long) are gone.
    assert result.rejected > 300
    empty = np.isfinite(data) & (count == N)
    sky = data[empty]
    assert np.std(sky[np.abs(sky) < 5 * noise]) == pytest.approx(noise, rel=0.2)
    assert header["NCOMBINE"] == N and header["TEXPTIME"] == 250.0
    np.testing.assert_array_equal(np.isnan(data), weights == 0)
    np.testing.assert_array_equal(count == 0, weights == 0)


def test_the_same_order_gives_the_same_bytes_however_it_is_cut(
    root: Path, exposures: list[Exposure], grid
) -> None:
    first = coadd_stack(order_for(root, exposures, grid))
    # Tiles of 64 px instead of one, and inputs in scratch files instead of memory.
    second = coadd_stack(order_for(root, exposures, grid, memory_bytes=0, tile_memory_bytes=1))
    assert first == second
    assert not list((root / "stacks/s1").glob(".*")), "scratch files stay behind"


@pytest.mark.parametrize("method", ["weighted_mean", "median"])
def test_the_other_ways_to_combine(root: Path, exposures: list[Exposure], grid, method) -> None:
    order = replace(order_for(root, exposures, grid, combine=method), folder=f"stacks/{method}")
    result = coadd_stack(order)
    data = fits.getdata(root / result.image.path)
    count = fits.getdata(root / result.exposures.path)
    plain = fits.getdata(root / coadd_stack(order_for(root, exposures, grid)).image.path)
    rays = int(np.count_nonzero((data - plain)[count == N] > 1))
    assert result.rejected == 0
    assert rays > 100 if method == "weighted_mean" else rays < 5


def test_what_cannot_be_used_is_left_out_and_said(root: Path, exposures: list[Exposure], grid) -> None:
    blind = replace(exposures[0].files, weight=root / "in/blind.fits")
    with fits.open(exposures[0].files.weight) as weights:
        hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(hdu.data * 0, name=hdu.name) for hdu in weights[1:])]
        fits.HDUList(hdus).writeto(blind.weight, overwrite=True)
    order = replace(order_for(root, exposures, grid), folder="stacks/s2")
    result = coadd_stack(replace(order, members=(blind, *order.members[1:])))
    assert result.n_exposures == N - 1 and result.left_out == (blind.image_id,)
    assert [line for line in result.log if "0 pixels have weight" in line] == list(result.log) and len(
        result.log
    ) == 2


def test_a_ccd_without_solution_is_left_out(
    root: Path, exposures: list[Exposure], grid, tmp_path: Path
) -> None:
    head = tmp_path / "one.head"
    head.write_text(format_head([fits.Header.fromstring(_block(exposures[0].files.head, 1), sep="\n")]))
    member = replace(exposures[0].files, head=head)
    order = replace(order_for(root, exposures[:1], grid), folder="stacks/s3", members=(member,))
    result = coadd_stack(order)
    assert result.n_exposures == 1
    assert result.log == ("700p.fits.fz[CCD00] left out: no solution or no weight map",)


def _block(path: Path, index: int) -> str:
    return path.read_text().split("END\n")[index]


def test_errors_name_the_file_and_the_reason(
    root: Path, exposures: list[Exposure], grid, tmp_path: Path
) -> None:
    order = replace(order_for(root, exposures[:1], grid), folder="stacks/s4")
    for change, text in (
        ({"image": root / "in/none.fits"}, "none.fits"),
        ({"head": root / "in/none.head"}, "none.head"),
        ({"weight": root / "in/none.weight.fits"}, "none.weight"),
    ):
        with pytest.raises(NotRetriable, match=text) as caught:
            coadd_stack(replace(order, members=(replace(order.members[0], **change),)))
        assert caught.value.code == "input_unreadable"
    small = tmp_path / "small.weight.fits"
    names = [size.name for size in exposures[0].sizes]
    fits.HDUList([fits.PrimaryHDU(), *(fits.ImageHDU(np.ones((5, 5)), name=name) for name in names)]).writeto(
        small
    )
    for change, code in (
        ({"weight": small}, "weight_does_not_fit"),
        ({"profile": "none"}, "unknown_profile"),
    ):
        with pytest.raises(NotRetriable) as caught:
            coadd_stack(replace(order, members=(replace(order.members[0], **change),)))
        assert caught.value.code == code
    elsewhere = replace(grid, ra_deg=30.0)
    with pytest.raises(NotRetriable) as caught:
        coadd_stack(replace(order, grid=elsewhere))
    assert caught.value.code == "no_overlap"
    without_scale = tmp_path / "scale.head"
    without_scale.write_text("".join(
        line for line in exposures[0].files.head.read_text().splitlines(keepends=True) if "FLXSCALE" not in line
    ))  # fmt: skip
    member = replace(order.members[0], head=without_scale, flux_scale=None)
    with pytest.raises(NotRetriable) as caught:
        coadd_stack(replace(order, members=(member,)))
    assert caught.value.code == "no_joint_solution"


def test_header_blocks_find_their_ccds(tmp_path: Path) -> None:
    path = tmp_path / "x.head"
    named = [fits.Header([("EXTNAME", name)]) for name in ("b", "a")]
    assert head_for(named, ["a", "b", "c"], path) == [named[1], named[0], None]
    plain = [fits.Header([("A", 1)]), fits.Header([("A", 2)])]
    assert head_for(plain, ["a", "b"], path) == plain
    with pytest.raises(NotRetriable, match="2 header blocks, its image 3 CCDs"):
        head_for(plain, ["a", "b", "c"], path)


@pytest.mark.parametrize("name", ["../../escaped", "/escaped", "a/b", "a\\b", "", "a\0"])
def test_a_name_leads_to_no_other_folder(root: Path, exposures: list[Exposure], grid, name: str) -> None:
    with pytest.raises(NotRetriable) as caught:
        coadd_stack(replace(order_for(root, exposures, grid), name=name))
    assert caught.value.code == "unsafe_name"


def test_tiles_fit_the_memory_they_are_given() -> None:
    assert tile_side(1, 10**12) == TILE_SIDE_PX
    assert tile_side(1000, 1) == MIN_TILE_SIDE_PX
    assert tile_side(40, 256_000_000) ** 2 * 40 * 9 <= 256_000_000
