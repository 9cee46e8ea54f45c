"""Images of one run and filter lie together on one node: two nodes with a data root each, on one machine."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import shutil
from pathlib import Path

import pytest
from spica_ingest.placement.keeping import Keeping
from spica_ingest.placement.moving import Moving
from spica_ingest.placement.placing import place
from spica_ingest.store import FolderLedger
from spica_proto.images import ImageArrived, ImageCalibrated, ImageGraded, ImageVerified
from spica_proto.placement import PlacementLost, PlacementMoved
from spica_runtime.compute import Compute
from spica_runtime.errors import Retriable
from spica_runtime.nodes import MARKER, open_node

from tests.support.nodes import IngestProcess, Nodes, in_a_thread, make_frame, node_settings
from tests.support.rig import Rig

KILLS = int(os.environ.get("SPICA_NODES_KILLS", "6"))
IMAGES = 16


@pytest.fixture
def nodes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    monkeypatch.setattr(Compute, "run", in_a_thread)
    return Nodes(rig)


async def arrive(rig: Rig, tmp_path: Path, count: int, **changes: str) -> None:
    for number in range(count):
        path = make_frame(tmp_path / "incoming" / f"{900000 + number}p.fits", number, **changes)
        await rig.publish(ImageArrived(uri=str(path)), event_id=f"arrived {number} {changes}")


async def placed(rig: Rig, run: str, filter_name: str, node: str) -> None:
    await rig.pool.execute("INSERT INTO placements VALUES ($1, $2, $3)", run, filter_name, node)


async def move(rig: Rig, run: str, filter_name: str, node: str) -> list[str]:
    async with rig.pool.acquire() as connection, connection.transaction():
        return await place(connection, run, filter_name, node)


@pytest.mark.parametrize("reachable", [True, False])
async def test_images_of_one_run_and_filter_end_on_one_node_and_are_processed_there(
    rig: Rig, nodes: Nodes, tmp_path: Path, reachable: bool
) -> None:
    await nodes.start("a")
    await nodes.start("b")
    if not reachable:  # as if each were on a disk of its own host: they must ask each other over HTTP
        keys = {name: (nodes.root(name) / MARKER).read_text() for name in "ab"}
        for name in "ab":
            (nodes.root(name) / MARKER).write_text("{}")
    await arrive(rig, tmp_path, 6)
    await rig.wait_for(ImageCalibrated, count=6)
    holders = await rig.pool.fetch("SELECT DISTINCT node_id FROM images")
    assert len(holders) == 1
    (row,) = await rig.pool.fetch("SELECT * FROM placements")
    assert (row["run"], row["filter"], row["node_id"]) == ("25BQ07", "r.SIM", holders[0]["node_id"])
    # Whoever took them in: all work was done where they are.
    assert {
        (row["service"], row["node_id"])
        for row in await rig.pool.fetch("SELECT service, node_id FROM activities WHERE service <> 'ingest'")
    } == {("quality", holders[0]["node_id"]), ("calib", holders[0]["node_id"])}
    await nodes.until_sound()
    assert len(await rig.events(ImageVerified)) == 6
    moved = await rig.events(PlacementMoved)
    taken_elsewhere = await rig.pool.fetchval(
        "SELECT count(*) FROM activities WHERE subject = 'image.arrived' AND node_id <> $1",
        holders[0]["node_id"],
    )
    assert len(moved) == taken_elsewhere
    assert await rig.pool.fetchval("SELECT count(*) FROM dead_letters") == 0
    if not reachable:
        for name, key in keys.items():
            (nodes.root(name) / MARKER).write_text(key)


async def test_a_path_is_read_by_the_node_whose_disk_it_is_on(rig: Rig, nodes: Nodes, tmp_path: Path) -> None:
    await nodes.start("a")
    await nodes.start("b")
    for number in range(8):
        path = make_frame(tmp_path / f"incoming/90000{number}p.fits", number)
        node = "ab"[number % 2] if number < 6 else ("c" if number == 6 else None)
        await rig.publish(ImageArrived(uri=str(path), node=node))
    await rig.wait_for(ImageVerified, count=8)  # a name that nobody has is no reason to wait for ever
    rows = await rig.pool.fetch(
        "SELECT left(about, 6) AS name, node_id FROM activities WHERE subject = 'image.arrived'"
    )
    taken = {row["name"]: row["node_id"] for row in rows}
    assert [taken[f"90000{number}"] for number in range(6)] == ["a", "b"] * 3


async def test_the_same_path_on_two_hosts_is_two_files(rig: Rig, tmp_path: Path) -> None:
    file = (str(tmp_path / "x.fits"), 10, 20)
    ledgers = {name: FolderLedger(rig.pool, name) for name in "ab"}
    for name, ledger in ledgers.items():
        assert await ledger.known(tmp_path) == set()
        assert await ledger.announce(file, ImageArrived(uri=file[0]), f"event {name}")
        assert not await ledger.announce(file, ImageArrived(uri=file[0]), f"again {name}")
        assert await ledger.known(tmp_path) == {file}
    bodies = await rig.pool.fetch("SELECT body::jsonb ->> 'node' AS node FROM outbox ORDER BY outbox_id")
    assert [row["node"] for row in bodies] == ["a", "b"]


@pytest.mark.parametrize("reachable", [True, False])
async def test_what_is_there_moves_with_all_that_was_made_of_it(
    rig: Rig, nodes: Nodes, tmp_path: Path, reachable: bool
) -> None:
    await nodes.start("a")
    await nodes.start("b")
    await placed(rig, "25BQ07", "r.SIM", "a")
    await arrive(rig, tmp_path, 3)
    await rig.wait_for(ImageCalibrated, count=3)
    await nodes.until_sound()
    if not reachable:
        (nodes.root("a") / MARKER).rename(nodes.root("a") / f"{MARKER}.hidden")
    assert len(await move(rig, "25BQ07", "r.SIM", "b")) == 3
    moved = await rig.wait_for(PlacementMoved, count=3)
    assert {(event.from_node, event.to_node) for event in moved[-3:]} == {("a", "b")}
    # The file, a catalogue, a weight map, a preview, a header.
    assert {event.files for event in moved[-3:]} == {5}
    assert await rig.pool.fetchval("SELECT count(*) FROM images WHERE node_id = 'b'") == 3
    await nodes.until_sound()
    assert not list(nodes.root("a").glob("images/*"))
    # Nothing was done again, and what comes from now on is done on b.
    assert len(await rig.events(ImageGraded)) == 3
    path = make_frame(tmp_path / "incoming/900100p.fits", 100)
    await rig.publish(ImageArrived(uri=str(path)))
    await rig.wait_for(ImageCalibrated, count=4)
    assert (
        await rig.pool.fetchval(
            "SELECT node_id FROM activities WHERE about LIKE '900100p%' AND service = 'calib'"
        )
        == "b"
    )
    assert await rig.pool.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_back_and_forth_while_work_goes_on(rig: Rig, nodes: Nodes, tmp_path: Path) -> None:
    await nodes.start("a")
    await nodes.start("b")
    await placed(rig, "25BQ07", "r.SIM", "a")
    arriving = asyncio.create_task(arrive(rig, tmp_path, 12))
    for turn in range(8):
        await move(rig, "25BQ07", "r.SIM", "ba"[turn % 2])
        await asyncio.sleep(0.25)
    await arriving
    await rig.wait_for(ImageCalibrated, count=12)
    await rig.until("SELECT count(*) = 12 FROM images WHERE node_id = 'a'")
    await nodes.until_sound()
    await rig.until("SELECT count(*) = 0 FROM leftovers")
    for model in (ImageVerified, ImageGraded, ImageCalibrated):
        events = await rig.events(model)
        assert len(events) == len({event.image_id for event in events}) == 12
    assert await rig.pool.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_copies_of_a_move_that_was_given_up_are_removed(
    rig: Rig, nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await nodes.start("a")
    await nodes.start("b")
    await placed(rig, "25BQ07", "r.SIM", "a")
    await arrive(rig, tmp_path, 1)
    await rig.wait_for(ImageCalibrated)
    given_up = []

    async def placed_back_meanwhile(moving: Moving, *_: object) -> None:
        given_up.append(list(nodes.root("b").glob("images/*/*/*")))
        await move(rig, "25BQ07", "r.SIM", "a")
        raise Retriable("more_files", "More was made of the image meanwhile.")

    monkeypatch.setattr(Moving, "_switch", placed_back_meanwhile)
    await move(rig, "25BQ07", "r.SIM", "b")
    async with asyncio.timeout(10):
        while not given_up:
            await asyncio.sleep(0.05)
    assert given_up[0], "the copy was made"
    await nodes.until_sound()
    await rig.until("SELECT count(*) = 0 FROM leftovers")
    assert not list(nodes.root("b").glob("images/*/*/*"))


async def test_copies_that_nobody_knows_of_are_found_and_removed(
    rig: Rig, nodes: Nodes, tmp_path: Path
) -> None:
    await nodes.start("a")
    await nodes.start("b")
    await placed(rig, "25BQ07", "r.SIM", "a")
    await arrive(rig, tmp_path, 2)
    await rig.wait_for(ImageCalibrated, count=2)
    for name in ("images", "quality", "calib"):
        shutil.copytree(nodes.root("a") / name, nodes.root("b") / name, dirs_exist_ok=True)
    (nodes.root("b") / "images/25BQ07/r.SIM/of nobody.fits").touch()
    for name, found in (("a", 0), ("b", 2)):
        settings = node_settings(rig, name, node_keep_s=0.0)  # however new they are
        keeping = Keeping(await open_node(settings, nodes.root(name)), rig.pool, settings)
        assert await keeping.find_strays() == found
    await nodes.until_sound()
    left = [path.name for path in nodes.root("b").rglob("*") if path.is_file() and path.name != MARKER]
    assert left == ["of nobody.fits"]


async def test_a_dead_nodes_images_are_placed_again_from_where_its_folder_can_be_reached(
    rig: Rig, nodes: Nodes, tmp_path: Path
) -> None:
    await nodes.start("a")
    await nodes.start("b")
    await placed(rig, "25BQ07", "r.SIM", "b")
    await arrive(rig, tmp_path, 3)
    await rig.wait_for(ImageCalibrated, count=3)
    nodes.stop("b")
    await rig.until("SELECT count(*) = 3 FROM images WHERE node_id = 'a'", timeout_s=30)
    assert await rig.pool.fetchval("SELECT node_id FROM placements") == "a"
    assert not await rig.events(PlacementLost)
    # The dead node is not there to clean up. Once it is back, it does.
    assert await rig.pool.fetchval("SELECT count(*) FROM leftovers WHERE node_id = 'b'") == 3
    await nodes.start("b")
    await nodes.until_sound()


async def test_images_out_of_reach_are_lost_until_their_node_is_back_or_the_file_comes_again(
    rig: Rig, nodes: Nodes, tmp_path: Path
) -> None:
    await nodes.start("a")
    await nodes.start("b")
    await placed(rig, "25BQ07", "r.SIM", "b")
    await arrive(rig, tmp_path, 3)
    await rig.wait_for(ImageCalibrated, count=3)
    await nodes.until_sound()
    nodes.stop("b")
    away = nodes.root("b").rename(tmp_path / "the disk of b")
    lost = await rig.wait_for(PlacementLost, count=3)
    assert {(event.node, event.uri) for event in lost} == {("b", None)}
    assert await rig.pool.fetchval("SELECT count(*) FROM images WHERE lost_since IS NOT NULL") == 3
    # One file comes again: its image is here again, measured anew, since what was made of it is out of reach, too.
    await rig.publish(ImageArrived(uri=str(tmp_path / "incoming/900000p.fits")))
    await rig.until("SELECT count(*) = 1 FROM images WHERE node_id = 'a' AND lost_since IS NULL")
    await rig.wait_for(ImageGraded, count=4)
    await rig.until("SELECT count(*) = 0 FROM outbox WHERE sent_at IS NULL")
    # The node comes back: what it alone has is brought to where it is placed by now.
    away.rename(nodes.root("b"))
    await nodes.start("b")
    await rig.until("SELECT count(*) = 3 FROM images WHERE node_id = 'a' AND lost_since IS NULL")
    await nodes.until_sound()
    assert await rig.pool.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_moves_withstand_kills_at_any_moment(
    rig: Rig, nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("bus", "receiving", "sorting"):
        monkeypatch.setattr(f"spica_runtime.{module}.ACK_WAIT_S", 2.0)
    chance = random.Random(7)
    processes = {}
    for name in "ab":
        await nodes.start(name, ingest=False, node_dead_after_s=60.0)
        settings = node_settings(rig, name, node_dead_after_s=60.0)
        processes[name] = IngestProcess(settings, tmp_path / f"ingest {name}.log")
        processes[name].start()
    try:
        await placed(rig, "25BQ07", "r.SIM", "a")
        await rig.until("SELECT count(DISTINCT node_id) = 2 FROM node_services WHERE service = 'ingest'")
        await arrive(rig, tmp_path, IMAGES)
        await rig.until("SELECT count(*) > 3 FROM images", timeout_s=60)
        for turn in range(KILLS):
            await move(rig, "25BQ07", "r.SIM", "ba"[turn % 2])
            await asyncio.sleep(chance.uniform(0.02, 0.6))
            victim = chance.choice("ab")
            processes[victim].kill()
            processes[victim].start()
            await asyncio.sleep(chance.uniform(0.5, 2.5))
        await move(rig, "25BQ07", "r.SIM", "b")
        await rig.wait_for(ImageCalibrated, count=IMAGES, timeout_s=120)
        await rig.until(f"SELECT count(*) = {IMAGES} FROM images WHERE node_id = 'b'", timeout_s=120)
        # A process that was killed between filing a file and committing leaves a copy that nobody knows of.
        for name in "ab":
            node = await open_node(node_settings(rig, name), nodes.root(name))
            await Keeping(node, rig.pool, node_settings(rig, name)).find_strays()
        await rig.until("SELECT count(*) = 0 FROM leftovers", timeout_s=60)
        await nodes.until_sound()
    finally:
        for process in processes.values():
            process.kill()
    for model in (ImageVerified, ImageGraded, ImageCalibrated):
        events = await rig.events(model)
        assert len(events) == len({event.image_id for event in events}) == IMAGES
    assert await rig.pool.fetchval("SELECT count(*) FROM dead_letters") == 0
    rows = await rig.pool.fetch(
        "SELECT body FROM outbox WHERE subject = 'placement.moved' ORDER BY outbox_id"
    )
    moved = [PlacementMoved.model_validate_json(row["body"]) for row in rows]
    # Each image went from where it was to where it was next: no move is missing, none was told twice.
    for image_id in {event.image_id for event in moved}:
        steps = [(event.from_node, event.to_node) for event in moved if event.image_id == image_id]
        assert all(before[1] == after[0] for before, after in itertools.pairwise(steps))
        assert steps[-1][1] == "b"
