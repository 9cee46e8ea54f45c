"""Looking back at pixels of stacks that were made: what comes out again is what stands in the files, to the last bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from spica_runtime.errors import NotRetriable, UsageError
from spica_stack.audit import AuditedPixel, audit_pixel
from spica_stack.making.order import Base, CoaddOrder, CoaddResult
from spica_stack.making.whole import coadd_stack
from spica_stack.science.parameters import Method, Parameters

from tests.unit.stack.field import Exposure, covering, order_for, write_exposure
from tests.unit.stack.sky import scattered_stars

METHODS: tuple[Method, ...] = (
    "clipped_mean", "sigma_clip", "weighted_mean", "average", "minimum", "maximum", "sum", "chi2",
)  # fmt: skip
PARAMETERS = Parameters(background_mesh_px=48)


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Exposure]]:
    """Six exposures of differing seeing."""
    root = tmp_path_factory.mktemp("audit")
    rng = np.random.default_rng(11)
    stars = scattered_stars(rng, 14, 60, flux=(50, 3000))
    return root, [
        write_exposure(root / "images", k, stars, rng, side=96, fwhm_px=4.0 + 0.3 * k) for k in range(6)
    ]


def made(root: Path, order: CoaddOrder) -> CoaddResult:
    return coadd_stack(order)


def look(root: Path, order: CoaddOrder, result: CoaddResult, x: int, y: int) -> AuditedPixel:
    files = root / result.products["image"].path, root / result.products["weight"].path
    return audit_pixel(order, result.left_out, files, x, y)


def places(root: Path, result: CoaddResult, rng: np.random.Generator, n: int = 12) -> list[tuple[int, int]]:
    """Some anywhere, the corners, and some that were clipped."""
    image = fits.getdata(root / result.products["image"].path)
    ny, nx = image.shape
    found = [(1, 1), (nx, ny), *zip(rng.integers(1, nx + 1, n), rng.integers(1, ny + 1, n), strict=True)]
    if "rejected" in result.products:
        rejected = fits.getdata(root / result.products["rejected"].path, 1)
        some = rng.choice(len(rejected), min(n, len(rejected)), replace=False)
        found += [(int(rejected["X"][k]), int(rejected["Y"][k])) for k in some]
    return [(int(x), int(y)) for x, y in found]


@pytest.mark.parametrize("method", METHODS)
def test_it_comes_out_as_it_stands(field: tuple[Path, list[Exposure]], method: Method) -> None:
    root, exposures = field
    order = order_for(root, exposures, covering(exposures), replace(PARAMETERS, combine=method))
    order = replace(order, folder=f"stacks/{method}")
    result = made(root, order)
    covered = fits.getdata(root / result.products["exposures"].path)
    for x, y in places(root, result, np.random.default_rng(5)):
        told = look(root, order, result, x, y)
        assert told.agrees, (x, y, told.stack, told.again)
        used = [one for one in told.contributions if one.weight > 0 and not one.clipped]
        assert len(used) == covered[y - 1, x - 1]
        assert len(told.contributions) + told.n_elsewhere == len(exposures)
        shares = [one.share for one in told.contributions]
        if used and None not in shares:
            assert sum(one for one in shares if one is not None) == pytest.approx(1.0)
        assert all(one.share == 0 for one in told.contributions if one.clipped)
        if used and method in ("clipped_mean", "sigma_clip", "weighted_mean", "average"):
            mean = sum((one.share or 0) * (one.value or 0) for one in used)
            assert mean == pytest.approx(told.stack.value, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("method", ["median", "weighted_median"])
def test_medians_come_out_as_they_stand(field: tuple[Path, list[Exposure]], method: Method) -> None:
    root, exposures = field
    order = order_for(root, exposures, covering(exposures), replace(PARAMETERS, combine=method))
    order = replace(order, folder=f"stacks/{method}")
    result = made(root, order)
    for x, y in places(root, result, np.random.default_rng(5)):
        told = look(root, order, result, x, y)
        assert told.agrees, (x, y, told.stack, told.again)
        assert all(one.share in (None, 0.0) for one in told.contributions)


def test_clipped_samples_are_those_of_the_rejection_table(field: tuple[Path, list[Exposure]]) -> None:
    root, exposures = field
    order = replace(order_for(root, exposures, covering(exposures), PARAMETERS), folder="stacks/table")
    result = made(root, order)
    with fits.open(root / result.products["rejected"].path) as hdus:
        table = hdus[1].data
        rows = np.random.default_rng(2).choice(len(table), 10, replace=False)
        for row in rows:
            x, y = int(table["X"][row]), int(table["Y"][row])
            here = table[(table["X"] == x) & (table["Y"] == y)]
            told = look(root, order, result, x, y)
            found = {
                (order.members.index(next(m for m in order.members if m.image_id == one.image_id)) + 1): one
                for one in told.contributions
                if one.clipped
            }
            assert set(found) == set(here["EXPOSURE"].tolist())
            for record in here:
                assert found[int(record["EXPOSURE"])].n_sigma == pytest.approx(float(record["N_SIGMA"]))


def test_a_place_is_where_its_exposures_say_it_is(field: tuple[Path, list[Exposure]]) -> None:
    root, exposures = field
    order = replace(order_for(root, exposures, covering(exposures), PARAMETERS), folder="stacks/places")
    result = made(root, order)
    grid = order.grid
    told = look(root, order, result, grid.width // 2 + 20, grid.height // 2)
    assert told.contributions
    for one in told.contributions:
        exposure = next(e for e in exposures if e.files.image_id == one.image_id)
        for seen in one.ccds:
            wcs = exposure.wcs[[size.name for size in exposure.sizes].index(seen.name)]
            ra, dec = wcs.pixel_to_sky(seen.x_px, seen.y_px)
            assert (float(ra), float(dec)) == pytest.approx((told.ra_deg, told.dec_deg), abs=1e-9)
    # The bad column of a CCD covers, and gives nothing.
    bad = next(
        (look(root, order, result, x, y), one)
        for one in [told.contributions[0]]
        for x, y in [_pixel_at(order, exposures, one.image_id, one.ccds[0].name, 41.0, 48.0)]
    )
    mine = next(one for one in bad[0].contributions if one.image_id == bad[1].image_id)
    assert mine.ccds[0].x_px == pytest.approx(41.0, abs=0.8)
    assert (mine.value, mine.weight, mine.share) == (None, 0.0, 0.0)


def _pixel_at(
    order: CoaddOrder, exposures: list[Exposure], image_id: str, ccd: str, x: float, y: float
) -> tuple[int, int]:
    exposure = next(e for e in exposures if e.files.image_id == image_id)
    wcs = exposure.wcs[[size.name for size in exposure.sizes].index(ccd)]
    found = order.grid.sky_to_pixel(*wcs.pixel_to_sky(x, y))
    return round(float(found[0])), round(float(found[1]))


def test_a_stack_that_goes_on_from_sums_is_told_with_all_its_members(
    field: tuple[Path, list[Exposure]],
) -> None:
    root, exposures = field
    parameters = replace(PARAMETERS, combine="weighted_mean", keep_sums=True)
    first = replace(
        order_for(root, exposures[:4], covering(exposures), parameters),
        folder="stacks/first",
        stack_id="first",
    )
    begun = made(root, first)
    base = Base(
        "first", root / begun.products["sums"].path, tuple(one.files.image_id for one in exposures[:4])
    )
    order = replace(
        order_for(root, exposures, covering(exposures), parameters),
        folder="stacks/more",
        stack_id="more",
        base=base,
    )
    result = made(root, order)
    for x, y in places(root, result, np.random.default_rng(8)):
        told = look(root, order, result, x, y)
        assert told.agrees, (x, y, told.stack, told.again)
    middle = look(root, order, result, order.grid.width // 2 + 20, order.grid.height // 2)
    assert {one.name for one in middle.contributions} >= {one.files.name for one in exposures[:4]}


def test_an_input_that_changed_since_is_seen(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    stars = scattered_stars(rng, 14, 60, flux=(50, 3000))
    own = [write_exposure(tmp_path / "images", k, stars, rng, side=96, compressed=False) for k in range(3)]
    order = order_for(tmp_path, own, covering(own), replace(PARAMETERS, combine="weighted_mean"))
    result = made(tmp_path, order)
    x, y = order.grid.width // 2 + 20, order.grid.height // 2
    assert look(tmp_path, order, result, x, y).agrees
    path = own[1].files.image
    with fits.open(path) as hdus:
        for hdu in hdus[1:]:
            hdu.data = hdu.data + np.float32(0.5) * np.arange(96, dtype=np.float32)[:, None]
        hdus.writeto(tmp_path / "other.fits")
    (tmp_path / "other.fits").replace(path)
    changed = look(tmp_path, order, result, x, y)
    assert not changed.agrees
    path.unlink()
    with pytest.raises(NotRetriable) as caught:
        look(tmp_path, order, result, x, y)
    assert path.name in caught.value.message


def test_a_pixel_outside_is_refused(field: tuple[Path, list[Exposure]]) -> None:
    root, exposures = field
    order = replace(order_for(root, exposures, covering(exposures), PARAMETERS), folder="stacks/outside")
    none = root / "none.fits"
    for x, y in ((0, 1), (1, 0), (order.grid.width + 1, 1), (1, order.grid.height + 1)):
        with pytest.raises(UsageError, match="is not in F1_r"):
            audit_pixel(order, (), (none, none), x, y)
