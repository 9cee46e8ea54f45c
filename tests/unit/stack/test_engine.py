"""The engine as a whole: how it is cut, by whom it is made and who was killed meanwhile leave no trace in the bytes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from spica_runtime.errors import NotRetriable, Retriable
from spica_stack.making.assembling import assemble
from spica_stack.making.layers import Desk
from spica_stack.making.order import Base, CoaddOrder, CoaddResult
from spica_stack.making.partfile import standing
from spica_stack.making.tile import blocks, make_tile
from spica_stack.making.tiling import order_key, prepared_path, tile_path, tiles_of
from spica_stack.making.whole import coadd_stack, remove_parts
from spica_stack.science.grid import TanGrid
from spica_stack.science.parameters import Clipping

from tests.unit.stack import engine_worker
from tests.unit.stack.field import PARAMETERS, Exposure, covering, order_for, write_exposure
from tests.unit.stack.sky import Stars, scattered_stars

N = 4
SMALL = {"memory_bytes": 300_000, "tile_samples": 100_000}
"""Many tiles, and several blocks in each."""

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.unit.stack.engine_worker"])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def exposures(root: Path) -> list[Exposure]:
    rng, stars = (
        np.random.default_rng(2),
        scattered_stars(np.random.default_rng(1), 100, 300, flux=(20, 2000)),
    )
    return [
        write_exposure(root / "in", k, stars, rng, fwhm_px=4 + 0.3 * k, ccds=4, compressed=k % 2 == 0)
        for k in range(N)
    ]


@pytest.fixture(scope="module")
def grid(exposures: list[Exposure]) -> TanGrid:
    return covering(exposures)


@pytest.fixture
def order(root: Path, exposures: list[Exposure], grid: TanGrid, tmp_path: Path) -> CoaddOrder:
    return order_for(root, exposures, grid, folder=f"stacks/{tmp_path.name}")


@pytest.fixture(scope="module")
def whole(root: Path, exposures: list[Exposure], grid: TanGrid) -> CoaddResult:
    """The stack made at one go."""
    return coadd_stack(order_for(root, exposures, grid, folder="stacks/whole"))


def sums(result: CoaddResult) -> dict[str, str]:
    return {role: product.sha256 for role, product in result.products.items()}


def run(task: Callable[..., None], *arguments: Any) -> int | None:
    """In a process of its own; its exit code."""
    process = processes.Process(target=task, args=arguments)
    process.start()
    process.join(120)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


@pytest.mark.parametrize(
    "cut",
    [
        {**SMALL, "threads": 1},
        {"memory_bytes": 2_000_000, "tile_samples": 200_000, "threads": 3},
        {"memory_bytes": 40_000, "tile_samples": 1, "threads": 2},
        {"threads": 1},
        {"threads": 5},
    ],
)
def test_memory_threads_and_tiles_leave_no_trace(order: CoaddOrder, whole: CoaddResult, cut) -> None:
    cut_order = replace(order, **cut)
    result = coadd_stack(cut_order)
    assert sums(result) == sums(whole)
    if "memory_bytes" in cut:
        assert len(tiles_of(cut_order)) >= 4
        with Desk(cut_order, engine_worker.load(cut_order)) as desk:
            assert any(len(list(blocks(cut_order, desk, box))) > 1 for box in tiles_of(cut_order))
    assert (result.n_rejected, result.n_exposures) == (whole.n_rejected, N)


def test_blocks_of_unlike_height_side_by_side_leave_no_trace(tmp_path: Path) -> None:
    """Where one half of a tile is seen by more exposures than the other, it is cut otherwise."""
    rng, stars = np.random.default_rng(3), scattered_stars(np.random.default_rng(1), 20, 300, flux=(20, 2000))
    unlike = [
        write_exposure(tmp_path / "in", k, stars, rng, side=200, ccds=2 if k < 4 else 1, compressed=False)
        for k in range(6)
    ]
    parameters = replace(PARAMETERS, clipping=Clipping(n_sigma=2.5, n_sigma_grown=1.5))
    order = order_for(tmp_path, unlike, covering(unlike), parameters)
    at_once = coadd_stack(replace(order, folder="stacks/whole"))
    assert at_once.n_rejected > 1000
    for memory in (400_000, 600_000, 800_000):
        cut = replace(order, memory_bytes=memory, folder=f"stacks/{memory}")
        assert sums(coadd_stack(cut)) == sums(at_once)
        with Desk(cut, engine_worker.load(cut)) as desk:
            heights = {(box[2], box[3]) for tile in tiles_of(cut) for box in blocks(cut, desk, tile)}
        assert any(a[0] < b[0] < a[1] for a in heights for b in heights), "all halves are cut alike"


@pytest.mark.parametrize("method", ["median", "weighted_mean", "clipped_mean"])
def test_tiles_made_backwards_give_the_same(order: CoaddOrder, method) -> None:
    order = replace(order, parameters=replace(order.parameters, combine=method))
    at_once = coadd_stack(replace(order, folder=order.folder + "-whole"))
    order = replace(order, **SMALL)
    engine_worker.prepare(order, range(N))
    prepared = engine_worker.load(order)
    numbers = [make_tile(order, prepared, number) for number in reversed(range(len(tiles_of(order))))]
    assert sums(assemble(order, prepared)) == sums(at_once)
    assert sum(tile.n_rejected for tile in numbers) == at_once.n_rejected
    assert max(tile.n_layers for tile in numbers) == N


def test_tiles_cover_the_grid_once_and_follow_from_the_order(order: CoaddOrder) -> None:
    for memory, samples in ((10**4, 1), (10**6, 10**5), (10**9, 10**8)):
        cut = replace(order, memory_bytes=memory, tile_samples=samples)
        seen = np.zeros((order.grid.height, order.grid.width), int)
        for x0, x1, y0, y1 in tiles_of(cut):
            seen[y0:y1, x0:x1] += 1
        assert seen.min() == seen.max() == 1
        assert tiles_of(cut) == tiles_of(replace(cut, threads=7, folder="elsewhere"))


def test_three_processes_share_the_parts(order: CoaddOrder, whole: CoaddResult) -> None:
    order = replace(order, **SMALL, threads=1)
    tiles = range(len(tiles_of(order)))
    for task, parts in ((engine_worker.prepare, range(N)), (engine_worker.tiles, tiles)):
        workers = [processes.Process(target=task, args=(order, parts[k::3])) for k in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
        assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert sums(assemble(order, engine_worker.load(order))) == sums(whole)


def test_killed_twenty_times_it_goes_on_and_gives_the_same(order: CoaddOrder, whole: CoaddResult) -> None:
    order, rng, killed = replace(order, **SMALL), np.random.default_rng(11), 0
    steps = N + len(tiles_of(order)) + 4
    for _ in range(20):
        code = run(engine_worker.killed_at, order, int(rng.integers(1, steps)), float(rng.uniform(0, 0.02)))
        assert code in (0, -9)
        killed += code == -9
        if rng.random() < 0.4:  # so that later kills find work to do
            standing_parts = sorted(order.data.path(order.parts).glob("*-*"))
            for path in rng.permutation(np.array(standing_parts, object))[: len(standing_parts) // 2]:
                path.unlink()
    assert killed >= 10
    told: list[tuple[str, int, int]] = []
    result = coadd_stack(order, lambda *step: told.append(step))
    assert sums(result) == sums(whole)
    assert told[-1] == ("assemble", 1, 1) and ("tile", len(tiles_of(order)), len(tiles_of(order))) in told


def test_what_stands_is_not_made_again_and_what_is_torn_is(order: CoaddOrder) -> None:
    order = replace(order, **SMALL)
    first = coadd_stack(order)
    paths = [tile_path(order, number) for number in range(len(tiles_of(order)))]
    made = [path.stat().st_mtime_ns for path in paths]
    assert coadd_stack(order).products == first.products
    assert [path.stat().st_mtime_ns for path in paths] == made
    torn = bytearray(paths[1].read_bytes())
    torn[20_000] ^= 1
    paths[1].write_bytes(torn)
    os.truncate(paths[2], 30_000)
    paths[3].write_bytes(b"")
    prepared_path(order, 0).write_bytes(b"what is this")
    assert coadd_stack(order).products == first.products
    assert [path.stat().st_mtime_ns == then for path, then in zip(paths, made, strict=True)] == [
        number not in (1, 2, 3) for number in range(len(paths))
    ]


def test_parts_of_another_order_are_neither_taken_nor_removed(order: CoaddOrder) -> None:
    order = replace(order, **SMALL)
    first = coadd_stack(order)
    other = replace(order, parameters=replace(order.parameters, combine="median"))
    assert order_key(other) != order_key(order)
    assert order_key(replace(order, threads=9, memory_bytes=5, folder="x")) == order_key(order)
    assert standing(tile_path(order, 0), order_key(other), tiles_of(order)[0]) is None
    changed = coadd_stack(other)
    assert sums(changed)["image"] != sums(first)["image"]
    assert prepared_path(order, 0).is_file() and prepared_path(other, 0).is_file()
    foreign = order.data.path(f"{order.folder}/kept.txt")
    foreign.write_text("mine")
    remove_parts(other)
    assert not order.data.path(order.parts).exists() and foreign.is_file()


def test_a_missing_tile_is_told(order: CoaddOrder) -> None:
    order = replace(order, **SMALL)
    coadd_stack(order)
    tile_path(order, 2).unlink()
    with pytest.raises(Retriable, match="Tile 2") as caught:
        assemble(order, engine_worker.load(order))
    assert caught.value.code == "tile_missing"


@pytest.mark.parametrize("number", range(N))
def test_a_member_that_fails_is_named_whenever_it_fails(
    order: CoaddOrder, number: int, tmp_path: Path
) -> None:
    """Its image is whole when it is prepared, and torn when the tiles are made."""
    copy = tmp_path / order.members[number].image.name
    copy.write_bytes(order.members[number].image.read_bytes())
    members = list(order.members)
    members[number] = replace(members[number], image=copy)
    order = replace(order, members=tuple(members), **SMALL)
    engine_worker.prepare(order, range(N))
    prepared = engine_worker.load(order)
    copy.write_bytes(copy.read_bytes()[:-20_000])
    with pytest.raises(NotRetriable, match=copy.name[:4]) as caught:
        for tile in range(len(tiles_of(order))):
            make_tile(order, prepared, tile)
    assert caught.value.code == "input_unreadable"
    assert not list(order.data.path(order.parts).glob(".part-*")), "unfinished files stay behind"
    copy.unlink()
    with pytest.raises(NotRetriable, match=copy.name):
        coadd_stack(replace(order, folder=order.folder + "-gone"))


def test_the_files_stand_up_to_their_checksums(order: CoaddOrder, root: Path) -> None:
    result = coadd_stack(replace(order, **SMALL))
    assert set(result.products) == {"image", "weight", "exposures", "rejected"}
    for role, product in result.products.items():
        path = root / product.path
        assert (product.kind, product.size_bytes) == (role, path.stat().st_size)
        assert order.data.product(path, role) == product, "the sum is not the file's"
        # A wrong checksum warns, and a warning is an error here.
        with fits.open(path, checksum=True) as hdus:
            hdus.verify("exception")
            assert hdus[0].header["ROLE"] == role.upper()
            assert all(hdu.verify_checksum() == hdu.verify_datasum() == 1 for hdu in hdus)


def test_rejected_samples_are_listed_with_their_exposure(order: CoaddOrder, root: Path) -> None:
    result = coadd_stack(replace(order, **SMALL))
    image, count = (fits.getdata(root / result.products[role].path) for role in ("image", "exposures"))
    with fits.open(root / result.products["rejected"].path) as hdus:
        table, names = hdus["REJECTED"].data, hdus["EXPOSURES"].data
    assert len(table) == result.n_rejected > 100
    place = (table["Y"].astype(int), table["X"].astype(int), table["EXPOSURE"].astype(int))
    order_of_rows = np.lexsort(place[::-1])
    np.testing.assert_array_equal(order_of_rows, np.arange(len(table)))
    assert list(names["NAME"]) == [member.image.name for member in order.members]
    assert list(names["NUMBER"]) == [1, 2, 3, 4] and set(place[2]) <= {1, 2, 3, 4} and all(names["USED"] == 1)
    assert (
        (table["X"].min() >= 1)
        and (table["X"].max() <= image.shape[1])
        and (table["Y"].max() <= image.shape[0])
    )
    # Where a sample is left out, the count is less than without clipping.
    plain = replace(
        order, folder=order.folder + "-plain", parameters=replace(order.parameters, combine="weighted_mean")
    )
    all_of_them = fits.getdata(root / coadd_stack(plain).products["exposures"].path)
    lost = np.zeros_like(count)
    np.add.at(lost, (place[0] - 1, place[1] - 1), 1)
    np.testing.assert_array_equal(count + lost, all_of_them)


def test_no_list_of_rejected_samples_where_none_is_asked_for(order: CoaddOrder, whole: CoaddResult) -> None:
    order = replace(order, parameters=replace(order.parameters, rejection_map=False))
    result = coadd_stack(order)
    assert set(result.products) == {"image", "weight", "exposures"} and result.n_rejected == whole.n_rejected
    assert all(sums(result)[role] == sums(whole)[role] for role in result.products)


SUMS = replace(PARAMETERS, combine="weighted_mean", keep_sums=True, psf_weight_power=1.5)


@pytest.mark.parametrize("first", [1, 3])
def test_adding_exposures_gives_the_bytes_of_all_at_once(order: CoaddOrder, root: Path, first: int) -> None:
    order = replace(order, parameters=SUMS)
    everything = coadd_stack(replace(order, folder=order.folder + "-all"))
    before = coadd_stack(replace(order, folder=order.folder + "-before", members=order.members[:first]))
    base = Base(
        "before", root / before.products["sums"].path, tuple(m.image_id for m in order.members[:first])
    )
    # What is in the sums is not looked at again: its files may be gone.
    gone = tuple(
        replace(member, image=root / f"gone-{k}" / member.image.name) if k < first else member
        for k, member in enumerate(order.members)
    )
    after = coadd_stack(replace(order, members=gone, base=base, **SMALL))
    assert sums(after) == sums(everything)
    assert (after.n_exposures, after.exposure_time_s) == (everything.n_exposures, everything.exposure_time_s)
    assert after.left_out == ()
    assert [gain.image_id for gain in after.gains] == [m.image_id for m in order.members[first:]]
    for gain, at_once in zip(after.gains, everything.gains[first:], strict=True):
        assert gain.depth_mag == pytest.approx(at_once.depth_mag, abs=1e-3)
        assert gain.coverage == pytest.approx(at_once.coverage, abs=1e-9)
        assert gain.fwhm_arcsec == pytest.approx(at_once.fwhm_arcsec, abs=1e-9)


def test_what_each_exposure_adds_is_told(order: CoaddOrder, root: Path) -> None:
    order = replace(order, parameters=replace(SUMS, psf_weight_power=0.0))
    gains = coadd_stack(order).gains
    assert len(gains) == N
    assert (gains[0].depth_mag, gains[0].fwhm_arcsec) == (None, None)
    # N equal exposures are 1.25 log10 N deeper than one; these have weights of 50² flux units, times 1, 0.64, 1.5625.
    weights = np.cumsum([1, 0.8**2, 1.25**2, 1])
    expected = 1.25 * np.log10(weights[1:] / weights[:-1])
    assert [gain.depth_mag for gain in gains[1:]] == pytest.approx(expected.tolist(), abs=0.05)
    assert all(gain.fwhm_arcsec > 0 for gain in gains[1:]), "the seeing grows worse from one to the next"
    count = fits.getdata(root / coadd_stack(order).products["exposures"].path)
    assert sum(gain.coverage for gain in gains) == pytest.approx(np.mean(count > 0), abs=1e-9)


def test_weights_of_exposures_are_as_asked_for(order: CoaddOrder, root: Path) -> None:
    order = replace(order, parameters=replace(PARAMETERS, combine="weighted_mean"))
    without = coadd_stack(replace(order, members=order.members[1:], folder=order.folder + "-without"))
    first = replace(order.members[0], weight_factor=0.0)
    zero = coadd_stack(replace(order, members=(first, *order.members[1:])))
    assert zero.left_out == (first.image_id,) and zero.n_exposures == N - 1
    for role in ("image", "weight", "exposures"):
        assert sums(zero)[role] == sums(without)[role]
    heavy = replace(order.members[0], weight_factor=1e6)
    one = coadd_stack(replace(order, members=(heavy, *order.members[1:]), folder=order.folder + "-heavy"))
    alone = coadd_stack(replace(order, members=order.members[:1], folder=order.folder + "-alone"))
    heavy_image, alone_image = (fits.getdata(root / r.products["image"].path) for r in (one, alone))
    there = np.isfinite(alone_image)
    np.testing.assert_allclose(heavy_image[there], alone_image[there], atol=1e-3)


@pytest.mark.slow
def test_memory_stays_within_its_bound(root: Path, tmp_path: Path, stars_of_many: list[Exposure]) -> None:
    bound = 120_000_000
    grid = covering(stars_of_many)
    small = order_for(root, stars_of_many[:2], grid, folder="stacks/few", threads=2, memory_bytes=10_000_000)
    # All members are the same file with other headers: what is held goes with the number of layers, not of files.
    members = tuple(
        replace(member.files, image_id=f"{member.files.image_id}-{k}")
        for k in range(20)
        for member in stars_of_many
    )
    large = replace(small, members=members, folder="stacks/many", memory_bytes=bound)
    all_layers = len(members) * grid.width * grid.height * 8
    assert all_layers > 4 * bound, "it would fit without being bounded"
    answer = tmp_path / "peaks"
    assert run(engine_worker.peaks, small, large, answer) == 0
    before, after = map(int, answer.read_text().split())
    assert after - before < bound, f"{before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after"


@pytest.fixture(scope="module")
def stars_of_many(root: Path) -> list[Exposure]:
    rng, stars = np.random.default_rng(5), Stars(np.array([214.0]), np.array([52.5]), np.array([1e3]))
    return [
        write_exposure(root / "many", k, stars, rng, side=900, ccds=1, compressed=False) for k in range(4)
    ]
