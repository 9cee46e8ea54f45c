"""Stacks, archives and commands where images lie on nodes."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from spica_proto.envelope import derived_id
from spica_proto.images import ImageArrived, ImageCalibrated, ImageGraded, ImageVerified, Reference
from spica_proto.placement import PlacementLost
from spica_proto.stacks import StackCalibrated, StackCoadded, StackExported, StackPlanned, StackRequested
from spica_runtime.compute import Compute
from spica_runtime.nodes import MARKER
from spica_runtime.service import Platform, Service
from spica_runtime.settings import ServiceSettings
from spica_runtime.storage import DataFolder, sha256_of
from spica_stack.service import compose as compose_stack
from spica_stack.settings import StackSettings

from tests.support.cadc import CadcStandIn
from tests.support.command import Ended, spica
from tests.support.nodes import INGEST, Nodes, in_a_thread, make_frame, node_settings
from tests.support.rig import Rig
from tests.support.seeding import insert, seed_image
from tests.unit.ingest.frames import frame
from tests.unit.stack.field import Exposure, write_exposure
from tests.unit.stack.sky import scattered_stars

STACK = StackSettings(
    workers=1,
    concurrency=2,
    retry_delays_s=(0.05,),
    max_attempts=2,
    background_mesh_px=48,
    shutdown_grace_s=5,
)
REFERENCE = Reference(name="truth", sha256="0" * 64, epoch_year=2016.0)


@pytest.fixture
def nodes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    monkeypatch.setattr(Compute, "run", in_a_thread)
    return Nodes(rig)


async def register(rig: Rig, about: str, *paths: Path) -> None:
    """Say in the store what was made of an image, as a service does."""
    activity_id = derived_id("test", about, *paths)
    await rig.pool.execute(
        "INSERT INTO activities (activity_id, service, name, version, configuration, about, started_at, ended_at, host,"
        " outcome) VALUES ($1, 's', 'n', 'v', '{}', $2, now(), now(), 'h', 'done')",
        activity_id,
        about,
    )
    for path in paths:
        product = rig.data.product(path, "file")
        product_id = await rig.pool.fetchval(
            "INSERT INTO products (path, sha256, size_bytes, kind) VALUES ($1, $2, $3, 'file') RETURNING product_id",
            product.path,
            product.sha256,
            product.size_bytes,
        )
        await rig.pool.execute(
            "INSERT INTO was_generated_by VALUES ($1, $2, 'file')", product_id, activity_id
        )


async def joint(rig: Rig, stack_id: str, image_id: str, exposure: Exposure) -> None:
    """A joint solution, whose header lies with the stack."""
    head = rig.data.path(f"calib/joint-{image_id}/{exposure.files.head.name}")
    head.parent.mkdir(parents=True)
    shutil.copy(exposure.files.head, head)
    await insert(
        rig,
        "solutions",
        {
            "solution_id": f"joint-{image_id}",
            "image_id": image_id,
            "stack_id": stack_id,
            "header_path": head.relative_to(rig.data.root).as_posix(),
            "reference_name": "truth",
            "reference_sha256": "0" * 64,
            "zeropoint_mag": 25.0,
            "flux_scale": 1.0,
            "limiting_mag": 24.0,
            "quality": {},
        },
    )


@pytest.mark.parametrize("reachable", [True, False])
async def test_members_on_other_nodes_are_read_where_they_are_or_brought_into_the_cache(
    rig: Rig, reachable: bool
) -> None:
    roots = {name: rig.settings.data / name for name in "ab"}
    at_a = replace(rig, data=DataFolder(roots["a"]))
    rng = np.random.default_rng(3)
    stars = scattered_stars(rng, 16, 100, flux=(50, 2000))
    exposures = [write_exposure(roots["a"] / "images", k, stars, rng, side=128) for k in range(3)]
    for name in "ab":
        # A service of each node, for its files.
        await rig.start("quality", ServiceSettings(), _nothing, node_settings(rig, name))
    images = {await seed_image(at_a, exposure): exposure for exposure in exposures}
    heads = {image_id: sha256_of(exposure.files.head) for image_id, exposure in images.items()}
    await rig.pool.execute("UPDATE images SET node_id = 'a'")
    for image_id, exposure in images.items():
        files = exposure.files
        await register(at_a, image_id, files.image, files.weight, files.head)
    far, exposure = next(iter(images.items()))
    await rig.pool.execute("UPDATE images SET node_id = 'b' WHERE image_id = $1", far)
    await rig.start("stack", STACK, compose_stack, node_settings(rig, "a"))
    for path in (exposure.files.image, exposure.files.weight, exposure.files.head):
        target = roots["b"] / path.relative_to(roots["a"])
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    if not reachable:
        (roots["b"] / MARKER).rename(roots["b"] / f"{MARKER}.hidden")

    await rig.publish(StackRequested(request_id="r1"))
    (planned,) = await rig.wait_for(StackPlanned)
    assert set(planned.image_ids) == set(images)
    assert await rig.pool.fetchval("SELECT node_id FROM stacks") == "a"  # two of three members
    for image_id, exposure in images.items():
        if image_id == far:
            files = replace(exposure.files, head=roots["b"] / exposure.files.head.relative_to(roots["a"]))
            exposure = replace(exposure, files=files)  # noqa: PLW2901
        assert sha256_of(exposure.files.head) == heads[image_id]
        await joint(at_a, planned.stack_id, image_id, exposure)
    await rig.publish(
        StackCalibrated(
            stack_id=planned.stack_id,
            name=planned.name,
            reference=REFERENCE,
            n_members=3,
            n_internal_matches=100,
        )
    )
    (coadded,) = await rig.wait_for(StackCoadded)
    assert coadded.n_exposures == 3
    assert (roots["a"] / coadded.image.path).is_file()
    cached = sorted(path.name for path in roots["a"].glob("cache/*/*"))
    assert len(cached) == (0 if reachable else 3)
    assert await rig.pool.fetchval("SELECT count(*) FROM dead_letters") == 0


def _nothing(_platform: Platform[ServiceSettings]) -> Service:
    return Service(routes={})


async def test_a_stack_that_was_being_made_on_a_dead_node_is_made_on_a_living_one(
    rig: Rig, nodes: Nodes, tmp_path: Path
) -> None:
    await nodes.start("a", stacks=True)
    await nodes.start("b", stacks=True)
    await rig.pool.execute("INSERT INTO placements VALUES ('25BQ07', 'r.SIM', 'b')")
    for number in range(2):
        path = make_frame(tmp_path / f"incoming/90000{number}p.fits", number)
        await rig.publish(ImageArrived(uri=str(path)))
    await rig.wait_for(ImageCalibrated, count=2)
    nodes.stop("b")
    await rig.until("SELECT count(*) = 0 FROM node_services WHERE node_id = 'b'")
    await rig.pool.execute("UPDATE nodes SET seen_at = now() WHERE node_id = 'b'")
    await rig.publish(StackRequested(request_id="r1", name="deep"))
    (planned,) = await rig.wait_for(StackPlanned)
    assert await rig.pool.fetchval("SELECT node_id FROM stacks") == "b"
    await rig.wait_for(StackExported, timeout_s=30)
    assert await rig.pool.fetchval("SELECT node_id FROM stacks") == "a"
    assert len(await rig.events(StackPlanned)) == 2
    assert (nodes.root("a") / f"stacks/{planned.stack_id}/deep.fits").is_file()
    # The node comes back, and what was waiting there has no effect any more.
    await nodes.start("b", stacks=True)
    await asyncio.sleep(1.5)
    assert len(await rig.events(StackExported)) == 1
    assert await rig.pool.fetchval("SELECT count(*) FROM dead_letters") == 0


@pytest.fixture
async def cadc() -> AsyncIterator[CadcStandIn]:
    async with CadcStandIn() as cadc:
        yield cadc


async def test_what_is_lost_with_a_node_is_fetched_again_from_its_archive(
    rig: Rig, nodes: Nodes, cadc: CadcStandIn, tmp_path: Path
) -> None:
    uri = "cadc:CFHT/900001p.fits"
    pixels = np.random.default_rng(1).poisson(300, (40, 48)).astype(np.uint16)
    cadc.add(uri, frame(ccds=1, pixels=pixels))
    ingest = INGEST.model_copy(update={"archive_registry_url": cadc.registry_url, "fetch_reserve_bytes": 0})
    await nodes.start("a", settings_of_ingest=ingest)
    await nodes.start("b", settings_of_ingest=ingest)
    await rig.pool.execute("INSERT INTO placements VALUES ('25BQ07', 'r.SIM', 'b')")
    await rig.publish(ImageArrived(uri=uri))
    (first,) = await rig.wait_for(ImageCalibrated)
    await nodes.until_sound()
    nodes.stop("b")
    away = nodes.root("b").rename(tmp_path / "the disk of b")
    (lost,) = await rig.wait_for(PlacementLost, timeout_s=30)
    assert (lost.node, lost.uri) == ("b", uri)
    await rig.wait_for(ImageCalibrated, count=2, timeout_s=30)
    row = await rig.pool.fetchrow("SELECT * FROM images")
    assert (row["image_id"], row["node_id"], row["lost_since"]) == (first.image_id, "a", None)
    # All that was made of it was made again, from the same bytes.
    assert len(await rig.events(ImageVerified)) == len(await rig.events(ImageGraded)) == 2
    assert await nodes.examine() == []
    away.rename(nodes.root("b"))
    await nodes.start("b", settings_of_ingest=ingest)
    await nodes.until_sound()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


async def run(rig: Rig, home: Path, *arguments: str) -> Ended:
    return await spica(*arguments, settings=rig.settings, home=home)


async def test_people_see_the_nodes_and_place_runs_on_them(
    rig: Rig, nodes: Nodes, home: Path, tmp_path: Path
) -> None:
    await nodes.start("a")
    await nodes.start("b")
    await rig.pool.execute("INSERT INTO placements VALUES ('25BQ07', 'r.SIM', 'a')")
    for number in range(3):
        path = make_frame(tmp_path / f"incoming/90000{number}p.fits", number)
        await rig.publish(ImageArrived(uri=str(path)))
    await rig.wait_for(ImageCalibrated, count=3)
    view = (await run(rig, home, "nodes", "--json")).json
    a, b = view["nodes"]
    assert (a["node_id"], a["state"], a["images"], b["images"]) == ("a", "alive", 3, 0)
    assert a["services"] == ["calib", "ingest", "quality"]
    (placement,) = view["placements"]
    assert (placement["run"], placement["images"], placement["on_the_way"]) == ("25BQ07", 3, 0)
    shown = await run(rig, home, "nodes", "--placements")
    assert "not running: stack, export" in shown.out and "25BQ07" in shown.out
    detail = await run(rig, home, "show", "900001p")
    assert "on node a" in detail.out

    ended = await run(rig, home, "place", "25BQ07", "r.SIM", "b", "--wait", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert (len(ended.json["moving"]), ended.json["stuck"]) == (3, [])
    assert await rig.pool.fetchval("SELECT count(*) FROM images WHERE node_id = 'b'") == 3
    again = await run(rig, home, "place", "25BQ07", "r.SIM", "b", "--wait")
    assert "are on b already" in again.out
    other = await run(rig, home, "place", "25BQ07", "g.SIM", "a")
    assert (other.code, "Filters of run 25BQ07 are: r.SIM" in other.out) == (0, True)
    unknown = await run(rig, home, "place", "25BQ07", "r.SIM", "c")
    assert (unknown.code, "There are: a, b" in unknown.err) == (2, True)
    status = (await run(rig, home, "status", "--json")).json
    heard = [row for row in status["backlog"] if row["subject"] != "image.calibration_requested"]
    assert {row["waiting"] for row in heard if row["service"] in ("quality", "calib")} == {0}
    # An image that cannot come is named, and the command fails.
    file = next(nodes.root("b").glob("images/*/*/900000p*"))
    file.unlink()
    stuck = await run(rig, home, "place", "25BQ07", "r.SIM", "a", "--wait", "--json")
    assert stuck.code == 1
    assert [row["name"] for row in stuck.json["stuck"]] == ["900000p"]
    assert "does not have images/" in stuck.json["stuck"][0]["failure"]
    nodes.stop("b")
    await rig.until("SELECT count(*) = 0 FROM node_services WHERE node_id = 'b'")
    await rig.pool.execute("UPDATE nodes SET seen_at = now() - interval '1 hour' WHERE node_id = 'b'")
    dead = await run(rig, home, "place", "25BQ07", "r.SIM", "b")
    assert (dead.code, "has been silent" in dead.err) == (2, True)


async def test_images_of_a_shared_folder_are_adopted(rig: Rig, nodes: Nodes, tmp_path: Path) -> None:
    """The way from one shared data folder to nodes: the folder becomes that of a node."""
    await nodes.start("a", placement="shared", data=nodes.root("a"))
    for number in range(2):
        path = make_frame(tmp_path / f"incoming/90000{number}p.fits", number)
        await rig.publish(ImageArrived(uri=str(path)))
    await rig.wait_for(ImageCalibrated, count=2)
    assert await rig.pool.fetchval("SELECT count(*) FROM images WHERE node_id IS NULL") == 2
    nodes.stop("a")
    await rig.until("SELECT count(*) = 0 FROM node_services")
    await nodes.start("b")
    await nodes.start("a")
    await rig.until("SELECT count(*) = 2 FROM images WHERE node_id = 'a'")
    assert json.loads((nodes.root("a") / MARKER).read_text())["node"] == "a"
    assert await rig.pool.fetchval("SELECT node_id FROM placements") == "a"
    await asyncio.sleep(1.0)
    # Nothing was done again, though the queues begin with the first event.
    assert len(await rig.events(ImageGraded)) == 2
    assert await rig.pool.fetchval("SELECT count(*) FROM activities WHERE service = 'quality'") == 2
