"""How a stack is cut: into tiles, blocks, pieces; and the files of its parts."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_runtime.errors import Unavailable
from spica_runtime.storage import DataFolder
from spica_stack.making.gains import added_depth, lattice
from spica_stack.making.layers import area, common, pieces, touches
from spica_stack.making.order import CoaddOrder, MemberFiles
from spica_stack.making.partfile import REJECTED, PartFile, PartWriter, disk_full_waits, standing
from spica_stack.making.tiling import BYTES_PER_SAMPLE, layer_bytes, order_key, prepared_path, tiles_of
from spica_stack.science.grid import TanGrid
from spica_stack.science.header import Label
from spica_stack.science.parameters import Parameters
from spica_stack.science.resampling import make_mesh

from tests.unit.stack.sky import grid_of, wcs_at


def order_of(n_members: int, side: int, folder: Path = Path("/nowhere"), **other) -> CoaddOrder:
    """An order whose files nobody opens."""
    members = tuple(
        MemberFiles(
            image_id=f"{k}",
            name=f"{k}p",
            image=folder / f"{k}p.fits.fz",
            profile="generic",
            weight=folder / f"{k}p.weight.fits.fz",
            head=folder / f"{k}p.head",
            flux_scale=1.0,
            exposure_time_s=1.0,
            mjd_obs=None,
            fwhm_arcsec=0.8,
        )
        for k in range(n_members)
    )
    label = Label("s", "q", "n", "r", "o", "i", "clipped_mean", "2000-01-01T00:00:00", (), "truth", "0")
    grid = TanGrid(10.0, 20.0, 1.0, 1.0, 0.186, side, side)
    return replace(
        CoaddOrder(DataFolder(folder), "s", "stacks/s", "n", grid, Parameters(), members, label, None),
        **other,
    )


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 300), st.integers(1, 25_000), st.integers(20, 34), st.integers(0, 9))
def test_tiles_cover_the_grid_once(n: int, side: int, memory: int, samples: int) -> None:
    order = order_of(n, side, memory_bytes=2**memory, tile_samples=10**samples)
    tiles = tiles_of(order)
    assert sum(area(tile) for tile in tiles) == side * side
    corners = {(x0, y0) for x0, _, y0, _ in tiles}
    assert len(corners) == len(tiles) and (0, 0) in corners
    # Each begins where others end, in rows and columns that all have in common.
    assert {x0 for x0, *_ in tiles} == ({x1 for _, x1, *_ in tiles} | {0}) - {side}
    assert {tile[2] for tile in tiles} == ({tile[3] for tile in tiles} | {0}) - {side}


def test_a_megacam_field_is_cut_into_wide_and_low_parts() -> None:
    order = order_of(50, 19_354)
    tiles = tiles_of(order)
    widths = {x1 - x0 for x0, x1, *_ in tiles}
    assert min(widths) > 2 * 2048, "rows of compressed CCDs would be decoded for nothing"
    assert 20 < len(tiles) < 400
    # What is held at a time is a fraction of a tile: at least some dozen rows.
    rows = layer_bytes(order) / (BYTES_PER_SAMPLE * 50 * max(widths))
    assert rows > 60


def test_ten_thousand_members_have_tiles_and_a_key() -> None:
    order = order_of(10_000, 19_354)
    tiles = tiles_of(order)
    assert len(tiles) < 20_000
    other = replace(order, members=(*order.members[:-1], replace(order.members[-1], fwhm_arcsec=0.9)))
    assert order_key(order) != order_key(other)


def test_folders_memory_and_threads_do_not_change_the_key() -> None:
    order = order_of(3, 100)
    elsewhere = order_of(3, 100, Path("/other"), memory_bytes=5, threads=3, tile_samples=7)
    assert order_key(order) == order_key(elsewhere)
    assert prepared_path(order, 1).name == prepared_path(elsewhere, 1).name
    for change in (
        {"stack_id": "t"},
        {"grid": replace(order.grid, rotation_deg=1.0)},
        {"parameters": Parameters(resampling="lanczos2")},
        {"parameters": Parameters(ccd_weights={"a": 0.5})},
        {"label": replace(order.label, software="1")},
    ):
        changed = replace(order, **change)
        assert order_key(changed) != order_key(order)
        assert prepared_path(changed, 1).name != prepared_path(order, 1).name


@pytest.mark.parametrize("rotation", [0.0, 3.0, 45.0, 90.0, 200.0])
@pytest.mark.parametrize("scale", [0.2, 1.1])
def test_pieces_cover_a_box_once_and_spare_reading(rotation: float, scale: float) -> None:
    wcs = wcs_at((2000, 1500), rotation=rotation)
    mesh = make_mesh(grid_of(2600, scale), wcs, (2000, 1500), 1.0)
    assert mesh is not None
    x0, x1, y0, y1 = mesh.window
    box = (x0, x1, (y0 + y1) // 2, min((y0 + y1) // 2 + 128, y1))
    seen, read = np.zeros((box[3] - box[2], box[1] - box[0]), int), 0
    for piece, needed in pieces(mesh, box):
        assert needed == mesh.needs(piece)
        seen[piece[2] - box[2] : piece[3] - box[2], piece[0] - box[0] : piece[1] - box[0]] += 1
        read += area(needed)
    needed = mesh.needs(box)
    assert needed is not None and seen.max() == 1
    # What is left out sees nothing of the CCD.
    for y, x in np.argwhere(seen == 0)[::997]:
        assert mesh.needs((box[0] + x, box[0] + x + 1, box[2] + y, box[2] + y + 1)) is None
    if rotation == 45.0:
        assert read < (0.6 if scale == 0.2 else 1.0) * area(needed)
    else:
        assert read < 1.3 * area(needed)


def test_boxes() -> None:
    assert touches((0, 4, 0, 4), (3, 9, 3, 9)) and not touches((0, 4, 0, 4), (4, 9, 0, 4))
    assert common((0, 4, 0, 4), (3, 9, 1, 9)) == (3, 4, 1, 4)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.lists(st.integers(0, 60), min_size=1, max_size=3), st.integers(0, 30))
def test_the_lattice_is_that_of_the_whole_image(step: int, cuts: list[int], x0: int) -> None:
    whole = np.add.outer(1000 * np.arange(61), np.arange(80))
    rows, columns = lattice((0, 80, 0, 61), step)
    expected = set(whole[rows, columns].ravel().tolist())
    found: list[int] = []
    for y0, y1 in zip(sorted({0, *cuts}), [*sorted({0, *cuts})[1:], 61], strict=True):
        for a, b in ((0, x0), (x0, 80)):
            rows, columns = lattice((a, b, y0, y1), step)
            found += whole[y0:y1, a:b][rows, columns].ravel().tolist()
    assert sorted(found) == sorted(expected)


def test_depth_that_is_added() -> None:
    weight = np.array([[1.0, 0.0, 2.0], [3.0, 1.0, 0.0]], np.float32)
    gains = added_depth(weight, [1.0, 1.0], None)
    assert gains[0, [0, 2]].tolist() == [np.inf, np.inf] and np.isnan(gains[0, 1])
    assert (
        gains[1, 0] == pytest.approx(1.25 * np.log10(4)) and gains[1, 1] == np.inf and np.isnan(gains[1, 2])
    )
    # A factor on all priorities changes nothing; an unfair one costs depth.
    np.testing.assert_allclose(added_depth(weight, [7.0, 7.0], None), gains, rtol=1e-6)
    assert added_depth(weight, [1.0, 100.0], None)[1, 0] < gains[1, 0]
    base = (np.array([4.0, 0.0, 0.0]), np.array([4.0, 0.0, 0.0]))
    assert added_depth(weight, [1.0, 1.0], base)[0, 0] == pytest.approx(1.25 * np.log10(5 / 4))


def test_a_tiles_file_gives_back_what_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    image = rng.normal(size=(9, 7)).astype(np.float32)
    count = rng.integers(-5, 100, (9, 7)).astype(np.int16)
    records = np.zeros(5, REJECTED)
    records["x"], records["y"], records["n_sigma"] = [9, 3, 4, 5, 6], [6, 6, 7, 7, 8], np.nan
    path, box, gains = tmp_path / "parts/tile", (13, 20, 5, 14), np.ones((2, 3), np.float32)
    planes = {"image": np.dtype(np.float32), "exposures": np.dtype(np.int16)}
    with PartWriter(path, "key", box, 101, planes, sync=True) as writer:
        # Pieces in any order, wide ones and narrow ones.
        writer.put("image", 16, 8, image[3:, 3:].copy())
        writer.put("image", 13, 5, image[:3].copy())
        writer.put("image", 13, 8, image[3:, :3].copy())
        for y in (8, 5):
            writer.put("exposures", 13, y, count[y - 5 : y - 2 if y == 5 else None].copy())
        writer.put_rejected(17, 5, records[[0]])
        writer.put_rejected(13, 5, records[1:])
        writer.count_rejected(5)
        writer.put_gains(gains)
        assert not path.exists()
    part = standing(path, "key", box, doubted=True)
    assert part is not None
    np.testing.assert_array_equal(part.rows("image", 0, 9), image)
    np.testing.assert_array_equal(part.rows("exposures", 2, 5), count[2:5])
    assert part.rejected()["x"].tolist() == [3, 9, 4, 5, 6] and part.n_rejected == 5
    np.testing.assert_array_equal(part.gains(), gains)
    assert standing(path, "other", box) is None and standing(path, "key", (0, 7, 5, 14)) is None
    assert [file.name for file in path.parent.iterdir()] == ["tile"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40))
def test_records_of_pieces_come_in_the_order_of_rows_whichever_are_asked_for(seed: int, side: int) -> None:
    """Pieces of unlike height and width, written in any order."""
    rng = np.random.default_rng(seed)
    hit = rng.random((side, side)) < rng.choice([0.0, 0.02, 0.5])
    y0 = int(rng.integers(0, 1000))
    box = (7, 7 + side, y0, y0 + side)
    edges_x = sorted({0, side, *rng.integers(0, side + 1, 2).tolist()})
    pieces = []
    for left, right in pairwise(edges_x):
        edges_y = sorted({0, side, *rng.integers(0, side + 1, 4).tolist()})
        for low, high in pairwise(edges_y):
            y, x = np.nonzero(hit[low:high, left:right])
            records = np.zeros(len(x), REJECTED)
            records["x"], records["y"] = x + left + 8, y + low + y0 + 1
            pieces.append((left + 7, low + y0, records))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tile"
        with PartWriter(path, "key", box, 90, {}, sync=False) as writer:
            for k in rng.permutation(len(pieces)):
                writer.put_rejected(*pieces[k])
        part = standing(path, "key", box, doubted=True)
        assert part is not None and part.n_records == hit.sum()
        y, x = np.nonzero(hit)
        found = part.rejected()
        assert (found["y"] - y0 - 1).tolist() == y.tolist() and (found["x"] - 8).tolist() == x.tolist()
        first, last = sorted(rng.integers(y0, y0 + side + 1, 2).tolist())
        some = part.rejected(first, last)
        assert some["x"].tolist() == found["x"][(found["y"] > first) & (found["y"] <= last)].tolist()


@pytest.mark.parametrize("at", ["first", "image", "rejected", "end", "gains"])
def test_a_torn_tile_does_not_stand(tmp_path: Path, at: str) -> None:
    path, box = tmp_path / "tile", (0, 8, 0, 8)
    records = np.zeros(3, REJECTED)
    with PartWriter(path, "key", box, 8, {"image": np.dtype(np.float32)}, sync=False) as writer:
        writer.put("image", 0, 0, np.ones((8, 8), np.float32))
        writer.put_rejected(0, 0, records)
        writer.put_gains(np.ones((2, 3 if at == "gains" else 0), np.float32))
    assert standing(path, "key", box, doubted=True) is not None
    content = bytearray(path.read_bytes())
    place = {
        "first": 0,
        "image": 8192 + 17,
        "rejected": len(content) - 3,
        "gains": len(content) - 3,
        "end": None,
    }[at]
    if place is None:
        del content[-1]
    else:
        content[place] ^= 0xFF
    path.write_bytes(content)
    assert standing(path, "key", box, doubted=True) is None


def test_an_unfinished_tile_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "parts/tile"
    with (
        pytest.raises(ZeroDivisionError),
        PartWriter(path, "key", (0, 8, 0, 8), 8, {"image": np.dtype(np.float32)}, sync=False),
    ):
        raise ZeroDivisionError
    assert list(path.parent.iterdir()) == []
    with pytest.raises(OSError, match="tile"):
        PartFile(path)


def test_a_full_disk_is_waited_for(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No space left") as caught, disk_full_waits(tmp_path / "x"):
        Path("/dev/full").write_bytes(b"x" * 100_000)
    assert caught.value.code == "disk_full"
    with pytest.raises(FileNotFoundError), disk_full_waits(tmp_path / "x"):
        (tmp_path / "none" / "x").read_bytes()
