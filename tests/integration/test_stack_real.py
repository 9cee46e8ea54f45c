"""Real frames into stacks: a night of a small telescope grows deeper as it should, and a short exposure mends a long one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import sep
from astropy.io import fits
from numpy.typing import NDArray
from spica_calib.photometrywork import calibrate_exposures, photometric_exposure
from spica_calib.science.astrometry.problem import Exposure, Options
from spica_calib.science.astrometry.solve import solve
from spica_calib.science.matching.geometry import pointing_wcs
from spica_calib.science.matching.locate import locate
from spica_calib.science.matching.search import Prior
from spica_calib.science.sources import sources_from_columns
from spica_calib.science.stars import CcdField, julian_year
from spica_imaging.head import add_cards, format_head
from spica_imaging.profiles import load_profiles
from spica_imaging.references import stars_in_cone
from spica_imaging.stats import robust_sigma
from spica_imaging.wcs import TpvWcs
from spica_runtime.storage import DataFolder
from spica_stack.making.order import CoaddOrder, MemberFiles
from spica_stack.making.whole import coadd_stack
from spica_stack.science.grid import Grid, covering_grid, outline
from spica_stack.science.header import Label
from spica_stack.science.parameters import Method, Parameters

from tests.support.realdata import real_data

PROFILE = load_profiles()["microobservatory"]
Image = NDArray[np.float32]


def stacked(
    root: Path,
    name: str,
    members: Sequence[MemberFiles],
    grid: Grid,
    method: Method = "clipped_mean",
    **other: object,
) -> tuple[Image, Image, NDArray[np.int16]]:
    """Image, weight and number of exposures."""
    parameters = Parameters(combine=method, psf_weight_power=0.0, background_mesh_px=64)
    order = CoaddOrder(
        data=DataFolder(root),
        stack_id=name,
        folder=f"stacks/{name}",
        name=name,
        grid=grid,
        parameters=replace(parameters, **other),  # type: ignore[arg-type]
        members=tuple(members),
        label=Label(
            name,
            "q",
            name,
            "f",
            "o",
            "i",
            method,
            "2017-12-20T00:00:00",
            tuple(m.name for m in members),
            "truth",
            "1",
        ),
        profiles=None,
        memory_bytes=300_000_000,
    )
    result = coadd_stack(order)
    assert result.n_exposures == len(members)
    planes = [fits.getdata(root / result.products[role].path) for role in ("image", "weight", "exposures")]
    return planes[0].astype(np.float32), planes[1].astype(np.float32), planes[2]


def member(
    folder: Path, stem: str, image: Path, weight: Image, wcs: TpvWcs, flux_scale: float, **about: object
) -> MemberFiles:
    """Write what goes with an image: weight map and solved header."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"{stem}.weight.fits", folder / f"{stem}.head"
    fits.writeto(paths[0], weight)
    paths[1].write_text(format_head([add_cards(wcs.to_header(), [("FLXSCALE", flux_scale, "")])]))
    files = MemberFiles(stem, stem, image, "generic", *paths, None, 60.0, None, None)
    return replace(files, **about)  # type: ignore[arg-type]


# ---- hatp32 ----


@dataclass(frozen=True)
class Night:
    """Frames that are solved together, and the grid that they have in common."""

    members: tuple[MemberFiles, ...]
    grid: Grid


def sources_of(data: Image) -> dict[str, NDArray[np.float64]]:
    background = sep.Background(data)
    signal = data - background.back()
    found = sep.extract(signal, 2.0, err=background.globalrms, minarea=4)
    x, y, failed = sep.winpos(signal, found["x"], found["y"], 1.0)
    flux, error, _ = sep.sum_circle(signal, found["x"], found["y"], 4.0, err=background.globalrms, gain=2.0)
    radius, _ = sep.flux_radius(signal, found["x"], found["y"], np.full(len(x), 6.0), 0.5)
    full = found["peak"] + background.globalback > PROFILE.detector.saturation_adu
    return {
        "XWIN_IMAGE": np.where(failed == 0, x, found["x"]) + 1,
        "YWIN_IMAGE": np.where(failed == 0, y, found["y"]) + 1,
        "FLUX_AUTO": flux,
        "FLUXERR_AUTO": error,
        "FLUX_RADIUS": radius,
        "FLAGS": (4 * full).astype(np.int16),
    }


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    """All frames, solved together for astrometry and photometry as the calib service solves a stack's members."""
    reference = real_data("refcats/stars.bigsky.mag11.parquet")
    paths = sorted(real_data("hatp32").glob("*.FITS"))
    assert len(paths) == 40
    error = PROFILE.pointing
    prior = Prior(60.0 * error.radius_arcmin, error.rotation_tolerance_deg, error.scale_tolerance)
    exposures, planes, stars = [], [], None
    for path in paths:
        with fits.open(path) as hdus:
            header, data = hdus[0].header.copy(), np.ascontiguousarray(hdus[0].data, np.float32)
        ny, nx = data.shape
        pointing, epoch = (float(header["RA"]), float(header["DEC"])), julian_year(float(header["MJD-OBS"]))
        start = pointing_wcs(
            *pointing, nx, ny, float(header["IM_SCALE"]), error.rotation_deg, error.flip == "yes"
        )
        sources = sources_from_columns(sources_of(data))
        field = CcdField(0, "ccd00", nx, ny, sources.take(sources.usable), start)
        stars = stars or stars_in_cone(reference, "", *pointing, 2.0).at_epoch(epoch)
        found = locate([field], stars, None, prior, rigid=False, limit_log10=-6.0)
        exposures.append(Exposure(path.stem, "camera", (replace(field, wcs=found.wcs[0]),), epoch))
        planes.append(data)
    assert stars is not None
    solution = solve(exposures, stars, Options(degree=PROFILE.astrometry.distortion_degree))
    asked = [
        photometric_exposure(
            name=path.stem, context="night", filter="Clear", exposure_time_s=60.0, ccds=("ccd00",), facts=None
        )
        for path in paths
    ]
    zero = calibrate_exposures(
        asked, [list(one.ccds) for one in exposures], solution.detections, stars, PROFILE
    ).solution
    folder = tmp_path_factory.mktemp("hatp32")
    members, outlines = [], []
    for path, data, solved, told in zip(paths, planes, solution.exposures, zero.exposures, strict=True):
        wcs = solved.wcs[0]
        weight = np.where(data < PROFILE.detector.saturation_adu, 1.0, 0.0).astype(np.float32)
        scale = 10.0 ** (-0.4 * (told.mag + 2.5 * np.log10(60.0) - 30.0))
        members.append(member(folder, path.stem, path, weight, wcs, scale))
        outlines.append(outline(wcs, 0, data.shape[1], 0, data.shape[0]))
    return Night(tuple(members), covering_grid(outlines, 5.17))


def interleaved(night: Night, n: int, start: int) -> list[MemberFiles]:
    """`n` frames spread over the night; those of starts 0 and 1 have none in common."""
    step = len(night.members) // n
    return list(night.members[start * step // 2 :: step])[:n]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("method", ["clipped_mean", "weighted_mean"])
def test_depth_grows_with_the_root_of_the_number_of_frames(
    night: Night, tmp_path: Path, method: Method
) -> None:
    """Noise is what differs between stacks: stars too faint to be seen, of which the field is full, do not count.

    Of two stacks of n frames each, none in common: √2 times the noise of one. For all 40: what the second twenty
    change, which is √(1/20 - 1/40) = √(1/40) times the noise of one frame.
    """
    made = {
        (n, start): stacked(tmp_path, f"n{n}-{start}", interleaved(night, n, start), night.grid, method)
        for n, start in ((5, 0), (5, 1), (10, 0), (10, 1), (20, 0), (20, 1), (40, 0))
    }
    covered = made[40, 0][2] >= 36
    for n in (5, 10, 20):
        covered &= (made[n, 0][2] >= 0.8 * n) & (made[n, 1][2] >= 0.8 * n)
    assert covered.mean() > 0.5
    # Away from stars, whose light flickers.
    dark = covered & (
        made[40, 0][0] < np.median(made[40, 0][0][covered]) + 2.0 * robust_sigma(made[40, 0][0][covered])
    )

    def noise(one: tuple[int, int], other: tuple[int, int]) -> float:
        return robust_sigma((made[one][0] - made[other][0])[dark])

    found = {n: noise((n, 0), (n, 1)) / np.sqrt(2.0) for n in (5, 10, 20)}
    found[40] = 0.5 * (noise((40, 0), (20, 0)) + noise((40, 0), (20, 1)))
    print(
        {
            n: f"{value:.0f} ({found[5] / value / np.sqrt(n / 5):.3f} of the root)"
            for n, value in found.items()
        }
    )
    for n in (10, 20, 40):
        assert found[5] / found[n] == pytest.approx(np.sqrt(n / 5), rel=0.10), n
    # And what the stacks themselves show grows fainter with every doubling, stars too faint to be seen included.
    sky = [robust_sigma(made[n, 0][0][dark]) for n in (5, 10, 20, 40)]
    assert all(later < 0.85 * earlier for earlier, later in pairwise(sky)), sky


# ---- ngc7789 ----

FULL_ADU = 45_000.0


def grown(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    for _ in range(by):
        wider = mask.copy()
        wider[1:] |= mask[:-1]
        wider[:-1] |= mask[1:]
        wider[:, 1:] |= mask[:, :-1]
        wider[:, :-1] |= mask[:, 1:]
        mask = wider
    return mask


@pytest.mark.real
@pytest.mark.parametrize("method", ["weighted_mean", "clipped_mean", "median"])
def test_cores_that_the_long_exposure_saturates_come_from_the_short_one(
    tmp_path: Path, method: Method
) -> None:
    members, blind, outlines = [], [], []
    for seconds, scale in ((30, 1.0), (300, 0.098)):
        path = real_data(f"ngc7789/stack_V_{seconds}.fit")
        with fits.open(path) as hdus:
            header, data = hdus[0].header, np.ascontiguousarray(hdus[0].data, np.float32)
        wcs = TpvWcs.from_header(header)
        full = grown(data > FULL_ADU, 2)
        assert full.any() == (seconds == 300)
        about = {"exposure_time_s": float(seconds), "fwhm_arcsec": 3.2}
        for known, to in ((full, members), (np.zeros_like(full), blind)):
            weight = np.where(known, 0.0, 1.0).astype(np.float32)
            stem = f"{seconds}-{'masked' if to is members else 'blind'}"
            to.append(member(tmp_path / "in", stem, path, weight, wcs, scale, **about))
        outlines.append(outline(wcs, 0, data.shape[1], 0, data.shape[0]))
    grid = covering_grid(outlines, 0.975)
    short, _, _ = stacked(tmp_path, "short", members[:1], grid, method)
    long, _, _ = stacked(tmp_path, "long", members[1:], grid, method)
    both, _, count = stacked(tmp_path, "both", members, grid, method)
    wrong, _, _ = stacked(tmp_path, "wrong", blind, grid, method)
    core = np.isnan(long) & np.isfinite(short)
    # Inside the frames: beyond their edges there is nothing of the long one either.
    core[:20], core[-20:], core[:, :20], core[:, -20:] = False, False, False, False
    segments = sep.extract(core.astype(np.float32), 0.5, minarea=4)
    stars = np.flatnonzero(segments["npix"] < 400)
    assert len(stars) >= 30
    assert (count[core] == 1).all()
    assert np.array_equal(both[core], short[core])
    # Their whole light is right, and is not where the long exposure goes in as it is.
    clean = np.nan_to_num(both), np.nan_to_num(short), np.nan_to_num(wrong)
    fluxes = [
        sep.sum_circle(plane, segments["x"][stars], segments["y"][stars], 7.0, bkgann=(12.0, 16.0))[0]
        for plane in clean
    ]
    mended, expected, spoilt = fluxes
    bright = expected > np.percentile(expected, 20)
    assert np.median(mended[bright] / expected[bright]) == pytest.approx(1.0, abs=0.02)
    assert np.median(spoilt[bright] / expected[bright]) < 0.97
    # Elsewhere both are taken.
    assert (count == 2).mean() > 0.8


# ---- as large as they get ----

MEMORY_LIMIT_MB = 1500.0


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Path]:
    """A folder for gigabytes, which pytest would keep for some runs."""
    folder = tmp_path / "large"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_stack_of_a_whole_field_stays_within_its_memory(roomy: Path) -> None:
    """19354×19354 px, two exposures of 36 CCDs, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.stack_large", str(roomy), "2"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{told['peak_mb']:.0f} MB, {told['seconds']:.1f} s, cpu {told['cpu_s']:.1f} s, {told['elapsed_s']}"
    )
    assert told["peak_mb"] <= MEMORY_LIMIT_MB
    folder = next(roomy.glob("stacks/*"))
    with fits.open(next(folder.glob("*.nexp.fits")), memmap=True) as hdus:
        assert hdus[0].data.shape == (19_354, 19_354)
        count = np.array(hdus[0].data[::16, ::16])
    # They lie over each other nearly everywhere.
    assert count.max() == 2 and (count == 2).mean() > 0.75
    with fits.open(next(path for path in folder.glob("*.fits") if "." not in path.stem), memmap=True) as hdus:
        value = np.array(hdus[0].data[8000:9000, 8000:9000], np.float64)
    assert abs(np.nanmedian(value)) < 0.05 * robust_sigma(value)
