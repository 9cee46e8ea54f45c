"""One small stack beside SWarp's (Bertin et al. 2002), from the same files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray
from spica_imaging.head import add_cards, format_head
from spica_imaging.wcs import TpvWcs
from spica_runtime.storage import DataFolder
from spica_stack.making.order import CoaddOrder, MemberFiles
from spica_stack.making.whole import coadd_stack
from spica_stack.science.grid import TanGrid
from spica_stack.science.header import Label
from spica_stack.science.parameters import Parameters

from tests.support.realdata import peer_program
from tests.unit.stack.sky import Stars, grid_of, measure, render, scattered_stars, wcs_at

SIDE = 260


def distorted(wcs: TpvWcs) -> TpvWcs:
    """A cubic distortion that moves the corners by half a pixel."""
    pv1, pv2 = [0.0] * 40, [0.0] * 40
    pv1[1] = pv2[1] = 1.0
    pv1[7], pv1[9], pv2[7], pv2[9] = 50.0, 40.0, 45.0, 55.0
    return TpvWcs(wcs.crval, wcs.crpix, wcs.cd, tuple(pv1), tuple(pv2))


def write_inputs(folder: Path, stars: Stars) -> None:
    """Three exposures without sky: shifted, turned, distorted, with scales of their own and a dead column."""
    rng = np.random.default_rng(6)
    for number in range(3):
        wcs = distorted(wcs_at((SIDE, SIDE), rotation=1.5 * number, shift=tuple(rng.uniform(-6, 6, 2))))
        scale = (1.0, 0.5, 1.6)[number]
        data = render((SIDE, SIDE), wcs, Stars(stars.ra, stars.dec, stars.flux / scale), 5.0) + rng.normal(
            0, 0.1, (SIDE, SIDE)
        )
        weight = np.full((SIDE, SIDE), (1.0, 2.0, 0.7)[number], np.float32)
        weight[:, 50 + number] = 0
        head = wcs.to_header()
        add_cards(head, [("FLXSCALE", scale, "")])
        stem = folder / f"in{number}"
        fits.writeto(stem.with_suffix(".fits"), data.astype(np.float32))
        fits.writeto(folder / f"in{number}.weight.fits", weight)
        stem.with_suffix(".head").write_text(format_head([head]))


def ours(folder: Path, grid: TanGrid) -> tuple[NDArray, NDArray]:
    members = tuple(
        MemberFiles(
            image_id=str(k),
            name=f"in{k}",
            image=folder / f"in{k}.fits",
            profile="generic",
            weight=folder / f"in{k}.weight.fits",
            head=folder / f"in{k}.head",
            flux_scale=None,
            exposure_time_s=1.0,
            mjd_obs=None,
            fwhm_arcsec=None,
        )
        for k in range(3)
    )
    label = Label("s", "q", "ours", "r", "", "none", "weighted_mean", "2000-01-01T00:00:00", (), "truth", "0")
    parameters = Parameters(combine="weighted_mean", subtract_background=False, rescale_weights=False)
    result = coadd_stack(
        CoaddOrder(DataFolder(folder), "s", "ours", "ours", grid, parameters, members, label, None)
    )
    value, weight = (fits.getdata(folder / result.products[role].path) for role in ("image", "weight"))
    return value.astype(np.float64), weight


def swarps(folder: Path, program: str, grid: TanGrid) -> tuple[NDArray, NDArray]:
    options = {
        "IMAGEOUT_NAME": "out.fits",
        "WEIGHTOUT_NAME": "out.weight.fits",
        "WEIGHT_TYPE": "MAP_WEIGHT",
        "WEIGHT_SUFFIX": ".weight.fits",
        "RESCALE_WEIGHTS": "N",
        "COMBINE_TYPE": "WEIGHTED",
        "CELESTIAL_TYPE": "NATIVE",
        "PROJECTION_TYPE": "TAN",
        "CENTER_TYPE": "MANUAL",
        "CENTER": f"{grid.ra_deg},{grid.dec_deg}",
        "PIXELSCALE_TYPE": "MANUAL",
        "PIXEL_SCALE": str(grid.scale_arcsec),
        "IMAGE_SIZE": f"{grid.width},{grid.height}",
        "RESAMPLING_TYPE": "LANCZOS3",
        "FSCALASTRO_TYPE": "VARIABLE",
        "SUBTRACT_BACK": "N",
        "WRITE_XML": "N",
        "VERBOSE_TYPE": "QUIET",
    }
    command = [program, *(f"in{k}.fits" for k in range(3)), "-c", "/dev/null"]
    for key, value in options.items():
        command += [f"-{key}", value]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
    return fits.getdata(folder / "out.fits"), fits.getdata(folder / "out.weight.fits")


@pytest.mark.peer
def test_fluxes_and_positions_agree_with_swarps(tmp_path: Path) -> None:
    program = peer_program("SWarp", "swarp")
    stars = scattered_stars(np.random.default_rng(9), 25, 105, flux=(1e4, 1e6))
    write_inputs(tmp_path, stars)
    grid = grid_of(240)
    value, weight = ours(tmp_path, grid)
    theirs, their_weight = swarps(tmp_path, program, grid)
    assert theirs.shape == value.shape
    both = (weight > 0) & (their_weight > 0)
    assert both.mean() > 0.95
    value = np.where(both, value, 0)
    theirs = np.where(both, theirs, 0)
    x, y = grid.sky_to_pixel(stars.ra, stars.dec)
    ratios, offsets, errors = [], [], []
    for cx, cy, flux in zip(x - 1, y - 1, stars.flux, strict=True):
        around = np.s_[round(cy) - 12 : round(cy) + 13, round(cx) - 12 : round(cx) + 13]
        if weight[around].min() < 0.9 * weight.max():
            continue  # beside the dead columns: each fills holes in its own way
        mine, my_x, my_y = measure(value, cx, cy, 12)
        other, other_x, other_y = measure(theirs, cx, cy, 12)
        ratios.append(mine / other)
        offsets.append((my_x - cx, my_y - cy, other_x - cx, other_y - cy))
        errors.append((abs(mine / flux - 1), abs(other / flux - 1)))
    assert len(ratios) >= 15
    assert np.median(ratios) == pytest.approx(1, abs=3e-4)
    assert np.abs(np.array(ratios) - 1).max() < 1e-3
    # Positions: within 0.03 px of SWarp's, whose taps move a slope sideways (see resampling/taps.py), and nearer the truth.
    mine, theirs = np.array(offsets)[:, :2], np.array(offsets)[:, 2:]
    assert np.abs(mine).max() < 0.005 and np.abs(np.median(mine, axis=0)).max() < 0.001
    assert np.abs(mine - theirs).max() < 0.03
    assert np.std(mine) < 0.5 * np.std(theirs)
    # Fluxes too: the truth is on this side.
    mine_off, theirs_off = np.median(errors, axis=0)
    assert mine_off < 1e-3 and mine_off <= theirs_off + 2e-4
    inner = np.s_[60:180, 80:180]
    ratio = weight[inner] / their_weight[inner]
    assert np.median(ratio) == pytest.approx(1, abs=0.01)
