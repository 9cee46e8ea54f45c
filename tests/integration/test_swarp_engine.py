"""The engine swarp with the real SWarp: the same orders as for our own engine, and what comes out beside it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray
from spica_imaging.head import format_head, parse_head
from spica_runtime.errors import NotRetriable
from spica_stack.making.order import CoaddOrder, CoaddResult
from spica_stack.making.swarpwork import SwarpSettings, coadd_with_swarp
from spica_stack.making.whole import coadd_stack
from spica_stack.science.grid import Grid
from spica_stack.science.parameters import Method

from tests.benchmarks.stack_frames import Frames, Kind, Recipe, frames
from tests.benchmarks.stack_job import job_of, order_of
from tests.benchmarks.stack_worth import Stars, measure
from tests.support.realdata import peer_program

pytestmark = pytest.mark.peer

SMALL = Recipe(n_exposures=3, shape=(300, 260), width=700, height=800)
Planes = dict[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    peer_program("swarp", "SWarp")
    return frames(SMALL, tmp_path_factory.mktemp("frames"))


def order_for(told: Frames, root: Path, method: Method = "weighted_mean", **other: object) -> CoaddOrder:
    order = order_of(job_of(told, root / "data", method, memory_bytes=200_000_000))
    parameters = replace(order.parameters, background_mesh_px=64)
    return replace(order, **{"parameters": parameters} | other)  # type: ignore[arg-type]


def opened(order: CoaddOrder, result: CoaddResult) -> Planes:
    """Pixels of all files, whose checksums must be right."""
    planes = {}
    for role, product in result.products.items():
        with fits.open(order.data.path(product.path), checksum=True) as hdus:
            hdus.verify("exception")
            planes[role] = np.array(hdus[1 if role == "rejected" else 0].data)
    return planes


def both(order: CoaddOrder) -> tuple[Planes, Planes]:
    """SWarp's and ours."""
    own = replace(order, folder="stacks/own")
    return opened(order, coadd_with_swarp(order)), opened(own, coadd_stack(own))


def stars_of(told: Frames, grid: Grid) -> Stars:
    sky = told.scene.sky
    point = np.flatnonzero((sky.size_arcsec == 0) & (sky.flux > 400.0) & (sky.flux < 40_000.0))
    x, y = grid.sky_to_pixel(sky.ra[point], sky.dec[point])
    return Stars(x - 1.0, y - 1.0, sky.flux[point])


def test_the_same_stack_as_ours_in_the_same_form(told: Frames, tmp_path: Path) -> None:
    order = order_for(told, tmp_path, "clipped_mean")
    steps: list[tuple[str, int, int]] = []
    result = coadd_with_swarp(order, lambda *step: steps.append(step))
    planes = opened(order, result)
    assert set(planes) == {"image", "weight", "exposures", "rejected"}
    assert (result.n_exposures, result.exposure_time_s, result.left_out) == (3, 900.0, ())
    value, weight, count = planes["image"], planes["weight"], planes["exposures"]
    assert value.shape == weight.shape == count.shape == (800, 700)
    assert np.array_equal(np.isnan(value), weight == 0)
    assert np.array_equal(count > 0, weight > 0)
    assert count.max() == 3 and np.mean(count == 3) > 0.15
    header = fits.getheader(order.data.path(result.products["image"].path))
    own = replace(order, folder="stacks/own")
    mine = coadd_stack(own)
    ours = fits.getheader(own.data.path(mine.products["image"].path))
    different = {"SOFTNAME", "SOFTVERS", "GAIN", "SATURATE", "SATURMAX", "CHECKSUM", "DATASUM", "HISTORY"}
    assert {card.keyword for card in header.cards} == {card.keyword for card in ours.cards}
    for keyword in set(ours) - different:
        assert header[keyword] == ours[keyword], keyword
    assert header["SOFTNAME"] == "SWarp" and header["COMBINET"] == "CLIPPED"
    assert header["GAIN"] == pytest.approx(ours["GAIN"], rel=0.05)
    assert header["SATURATE"] == pytest.approx(ours["SATURATE"], rel=0.01)
    # What both list as clipped: cosmic rays, by exposure and pixel.
    table = opened(own, mine)["rejected"]
    assert planes["rejected"].dtype.names == table.dtype.names
    assert result.n_rejected == len(planes["rejected"])
    theirs, own_list = (
        {(int(r["X"]), int(r["Y"]), int(r["EXPOSURE"])) for r in rows if r["N_SIGMA"] > 15.0}
        for rows in (planes["rejected"], table)
    )
    common = len(theirs & own_list)
    assert common > 30 and common > 0.5 * min(len(theirs), len(own_list))
    for dx, dy, exposure in ((12, 0, 0), (-12, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)):
        moved = {(x + dx, y + dy, number + exposure) for x, y, number in theirs}
        assert len(moved & own_list) < 0.9 * common
    # Nothing of SWarp's stays, and progress goes one way.
    assert {path.name for path in order.data.path(order.folder).iterdir()} == {
        Path(product.path).name for product in result.products.values()
    }
    assert steps[0] == ("prepare", 0, 3)
    assert steps[-1] == ("assemble", 1, 1)
    resampled = [done for step, done, _ in steps if step == "resample"]
    assert resampled == sorted(resampled)


@pytest.mark.parametrize(
    "change",
    [{}, {"rotation_deg": 30.0}, {"mirrored": True, "rotation_deg": -100.0}, {"projection": "STG"}],
    ids=["plain", "turned", "mirrored", "stereographic"],
)
def test_fluxes_places_and_weights_beside_ours(
    told: Frames, tmp_path: Path, change: dict[str, object]
) -> None:
    grid = replace(told.scene.grid, **change)  # type: ignore[arg-type]
    order = order_for(told, tmp_path, grid=grid)
    theirs, ours = both(order)
    good = (theirs["exposures"] == 3) & (ours["exposures"] == 3)
    assert good.mean() > 0.1
    ratio = theirs["weight"][good] / ours["weight"][good]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.05)
    stars = stars_of(told, grid)
    seen, mine = (
        measure(np.where(planes["weight"] > 0, planes["image"], np.nan), stars) for planes in (theirs, ours)
    )
    flux = seen.flux / mine.flux - 1.0
    found = np.isfinite(flux) & np.isfinite(seen.x) & np.isfinite(mine.x)
    assert found.sum() >= 20
    assert abs(np.median(flux[found])) < 1e-3
    for one, other in ((seen.x, mine.x), (seen.y, mine.y)):
        assert abs(np.median((one - other)[found])) < 0.01
        assert np.median(np.abs((one - other)[found])) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("method", ["average", "median", "minimum", "maximum", "sum", "chi2"])
def test_methods_mean_the_same(told: Frames, tmp_path: Path, method: Method) -> None:
    theirs, ours = both(order_for(told, tmp_path, method))
    good = (theirs["exposures"] == 3) & (ours["exposures"] == 3)
    value, own = theirs["image"][good], ours["image"][good]
    # Each fills holes and interpolates in its own way: a thousandth of what there is.
    assert np.corrcoef(value, own)[0, 1] > 0.9995
    assert np.median(np.abs(value - own)) < 0.12 * np.median(np.abs(own - np.median(own)))
    if method not in ("minimum", "maximum"):
        assert np.median(theirs["weight"][good] / ours["weight"][good]) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("kind", ["int16", "rice"])
def test_compressed_and_integer_members(told: Frames, tmp_path: Path, kind: Kind) -> None:
    other = frames(replace(SMALL, kind=kind), tmp_path / "frames")
    order, plain = order_for(other, tmp_path), order_for(told, tmp_path / "plain")
    planes, expected = opened(order, coadd_with_swarp(order)), opened(plain, coadd_with_swarp(plain))
    both_there = (planes["weight"] > 0) & (expected["weight"] > 0)
    assert both_there.sum() > 0.999 * (expected["weight"] > 0).sum()
    # Rounded to whole adu, of noise 30 adu.
    error = (planes["image"] - expected["image"])[both_there] * np.sqrt(expected["weight"][both_there])
    assert np.std(error) < 0.03


def with_overscan(member: Path, to: Path, **cards: str) -> None:
    """Copy a file with four columns more on the left and three rows more below, filled with what spoils."""
    hdus = [fits.PrimaryHDU(header=fits.getheader(member))]
    with fits.open(member) as old:
        for hdu in old[1:]:
            data = np.pad(hdu.data, ((3, 0), (4, 0)), constant_values=50_000.0)
            header = hdu.header.copy()
            header.update(cards)
            hdus.append(fits.ImageHDU(data, header))
    fits.HDUList(hdus).writeto(to)


def test_overscan_ccds_without_solution_and_exposures_without_weight(told: Frames, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    profiles = folder / "profiles"
    profiles.mkdir()
    (profiles / "cut.toml").write_text(
        'name = "cut"\ntitle = "With overscan"\n[match]\nINSTRUME = "^Cut$"\n[layout]\nccds = "extensions"\n'
        'section_keyword = "DATASEC"\n[keywords]\nrequired = []\n[detector]\ngain_e_per_adu = 1.6\n'
        "saturation_adu = 60000.0\n"
    )
    order = order_for(told, tmp_path)
    members = []
    for number, member in enumerate(order.members):
        image, weight, head = (folder / f"{number}{suffix}" for suffix in (".fits", ".weight.fits", ".head"))
        with_overscan(member.image, image, DATASEC="[5:264,4:303]")
        with_overscan(member.weight, weight)
        blocks = parse_head(member.head.read_text())
        for block in blocks:
            block["CRPIX1"] += 4
            block["CRPIX2"] += 3
        head.write_text(format_head(blocks[:3] if number == 1 else blocks))
        members.append(
            replace(
                member,
                image=image,
                weight=weight,
                head=head,
                profile="cut",
                weight_factor=0.0 if number == 2 else 1.0,
            )
        )
    cut = replace(order, members=tuple(members), profiles=profiles)
    result = coadd_with_swarp(cut)
    assert result.n_exposures == 2 and result.left_out == ("e002",)
    assert any("1.fits[ccd03] left out: no solution" in line for line in result.log)
    assert sum("weight 0 was asked for" in line for line in result.log) == 4
    fewer = replace(order, members=order.members[:2])
    planes, whole = (
        opened(cut, result),
        opened(fewer, coadd_with_swarp(replace(fewer, folder="stacks/fewer"))),
    )
    # Away from the CCD that has no solution it is what the files without overscan give.
    same = planes["exposures"] == whole["exposures"]
    assert 0.7 < same[whole["exposures"] > 0].mean() < 1.0
    there = same & (whole["exposures"] > 0)
    difference = (planes["image"] - whole["image"])[there] * np.sqrt(whole["weight"][there])
    assert np.median(np.abs(difference)) < 0.02
    assert planes["exposures"].max() == 2


def test_refusals_and_failures_leave_nothing(told: Frames, tmp_path: Path) -> None:
    order = order_for(told, tmp_path, "sigma_clip")
    with pytest.raises(NotRetriable) as refused:
        coadd_with_swarp(order)
    assert refused.value.code == "not_with_swarp"
    failing = tmp_path / "swarp-like"
    failing.write_text("#!/bin/sh\n[ \"$1\" = -v ] && exit 0\necho 'no such luck'; exit 7\n")
    failing.chmod(0o755)
    order = order_for(told, tmp_path)
    with pytest.raises(NotRetriable, match=r"status 7.*no such luck") as failed:
        coadd_with_swarp(order, settings=SwarpSettings(programs=(str(failing),)))
    assert failed.value.code == "swarp_failed"
    far = replace(order, grid=Grid(**asdict(order.grid) | {"dec_deg": -60.0}))
    with pytest.raises(NotRetriable) as nothing:
        coadd_with_swarp(far)
    assert nothing.value.code == "no_overlap"
    spoilt = replace(order.members[1], image=tmp_path / "no such file.fits")
    with pytest.raises(NotRetriable, match=r"no such file\.fits") as unreadable:
        coadd_with_swarp(replace(order, members=(order.members[0], spoilt)))
    assert unreadable.value.code == "input_unreadable"
    assert list(order.data.path(order.folder).iterdir()) == []
