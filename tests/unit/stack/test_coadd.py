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
from spica_stack.making.whole import coadd_stack

from tests.unit.stack.field import PARAMETERS, Exposure, covering, order_for, write_exposure
from tests.unit.stack.sky import Stars, measure, scattered_stars

N = 5
SATURATION_ADU = 60000.0
"""As the headers of the inputs say."""


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
    return covering(exposures)


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
        fits.open(root / result.products["image"].path, checksum=True) as image,
        fits.open(root / result.products["weight"].path) as weight,
    ):
        data, header = image[0].data.astype(np.float64), image[0].header
        weights = weight[0].data
    count = fits.getdata(root / result.products["exposures"].path)
    assert (
        result.products["image"].path == "stacks/s1/F1_r.fits"
        and result.products["weight"].path == "stacks/s1/F1_r.weight.fits"
    )
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
    assert result.n_rejected > 300
    empty = np.isfinite(data) & (count == N)
    sky = data[empty]
    assert np.std(sky[np.abs(sky) < 5 * noise]) == pytest.approx(noise, rel=0.2)
    assert header["NCOMBINE"] == N and header["TEXPTIME"] == 250.0
    np.testing.assert_array_equal(np.isnan(data), weights == 0)
    np.testing.assert_array_equal(count == 0, weights == 0)


@pytest.mark.parametrize("method", ["weighted_mean", "median"])
def test_the_other_ways_to_combine(root: Path, exposures: list[Exposure], grid, method) -> None:
    parameters = replace(PARAMETERS, combine=method)
    result = coadd_stack(order_for(root, exposures, grid, parameters, folder=f"stacks/{method}"))
    data = fits.getdata(root / result.products["image"].path)
    count = fits.getdata(root / result.products["exposures"].path)
    plain = fits.getdata(root / coadd_stack(order_for(root, exposures, grid)).products["image"].path)
    rays = int(np.count_nonzero((data - plain)[count == N] > 1))
    assert result.n_rejected == 0 and "rejected" not in result.products
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
    assert result.log == ("700p.fits.fz[CCD00] left out: no solution",)


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


@pytest.mark.parametrize("name", ["../../escaped", "/escaped", "a/b", "a\\b", "", "a\0"])
def test_a_name_leads_to_no_other_folder(root: Path, exposures: list[Exposure], grid, name: str) -> None:
    with pytest.raises(NotRetriable) as caught:
        coadd_stack(replace(order_for(root, exposures, grid), name=name))
    assert caught.value.code == "unsafe_name"


@pytest.mark.parametrize(("factor", "subtracted"), [(1, True), (2, True), (1, False)])
def test_the_saturation_level_is_that_of_the_stacks_pixels(
    root: Path, exposures: list[Exposure], grid, factor: int, subtracted: bool
) -> None:
    """Twice the side of a pixel: four times its flux. The sky counts where it was left in."""
    coarse = replace(
        grid,
        scale_arcsec=factor * grid.scale_arcsec,
        width=grid.width // factor,
        height=grid.height // factor,
        crpix_x=grid.crpix_x / factor,
        crpix_y=grid.crpix_y / factor,
    )
    parameters = replace(PARAMETERS, subtract_background=subtracted)
    order = order_for(root, exposures[:1], coarse, parameters, folder=f"stacks/saturated{factor}{subtracted}")
    header = fits.getheader(root / coadd_stack(order).products["image"].path)
    # The sky is 300 adu and rises by 0.05 a pixel; one count of the stack is 50 adu.
    sky = 300 + 0.05 * 96 if subtracted else 0.0
    level = float(header["SATURATE"])
    assert level == pytest.approx((SATURATION_ADU - sky) / 50 * factor**2, rel=1e-4)


def test_members_without_a_usable_pixel_are_told_from_those_elsewhere(
    root: Path, exposures: list[Exposure], grid, tmp_path: Path
) -> None:
    order = order_for(root, exposures[:1], grid, folder="stacks/masked")
    masked = tmp_path / "masked.fits"
    with fits.open(order.members[0].weight) as hdus:
        fits.HDUList(
            [fits.PrimaryHDU(), *(fits.ImageHDU(np.zeros_like(hdu.data), name=hdu.name) for hdu in hdus[1:])]
        ).writeto(masked)
    member = replace(order.members[0], weight=masked)
    with pytest.raises(NotRetriable, match=r"CCD00.*0 pixels have weight.*1 more") as caught:
        coadd_stack(replace(order, members=(member,)))
    assert caught.value.code == "no_usable_pixels"
