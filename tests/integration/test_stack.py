"""The stack service on real NATS and PostgreSQL: from a request to a plan, from a solution to pixels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from spica_proto.base import Product
from spica_proto.stacks import (
    Selection,
    StackCoadded,
    StackFailed,
    StackPlanned,
    StackRequested,
)
from spica_runtime.storage import sha256_of
from spica_stack.service import compose
from spica_stack.settings import StackSettings

from tests.support.rig import Rig
from tests.support.seeding import seed_grade, seed_image, seed_solution
from tests.support.stackprocess import calibrate, copied, solved
from tests.unit.stack.field import Exposure, write_exposure
from tests.unit.stack.sky import scattered_stars

SETTINGS = StackSettings(
    workers=1,
    concurrency=3,
    retry_delays_s=(0.05,),
    max_attempts=2,
    background_mesh_px=48,
    shutdown_grace_s=5,
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Exposure]]:
    """Four exposures of one field; copied into the data folder of each test."""
    root = tmp_path_factory.mktemp("field")
    rng = np.random.default_rng(3)
    stars = scattered_stars(rng, 16, 100, flux=(50, 2000))
    return root, [write_exposure(root / "images", k, stars, rng, side=128) for k in range(4)]


@pytest.fixture
def exposures(rig: Rig, written: tuple[Path, list[Exposure]]) -> list[Exposure]:
    return copied(rig, written)


async def test_from_a_request_to_pixels(rig: Rig, exposures: list[Exposure]) -> None:
    images = {await seed_image(rig, exposure): exposure for exposure in exposures[:3]}
    poor = await seed_image(rig, exposures[3], grade="D")
    await rig.start("stack", SETTINGS, compose)
    await rig.publish(StackRequested(request_id="r1", selection=Selection(batch="b1"), requested_by="test"))
    (planned,) = await rig.wait_for(StackPlanned)
    assert planned.image_ids == tuple(images) and planned.n_left_out == 1
    assert (planned.request_id, planned.filter, planned.name) == (
        "r1",
        "r.MP9601",
        "F1_r_" + planned.name[5:],
    )
    members = {row["image_id"]: row for row in await rig.pool.fetch("SELECT * FROM stack_members")}
    assert (members[poor]["selected"], members[poor]["rule"], members[poor]["found"]) == (
        False,
        "grades",
        "D by policy:default@1",
    )
    assert [members[image_id]["ordinal"] for image_id in images] == [0, 1, 2]

    await calibrate(rig, planned, images)
    (coadded,) = await rig.wait_for(StackCoadded)
    assert (coadded.stack_id, coadded.n_exposures, coadded.exposure_time_s) == (planned.stack_id, 3, 150.0)
    path = rig.data.path(coadded.image.path)
    assert sha256_of(path) == coadded.image.sha256
    header = fits.getheader(path)
    assert (header["NAXIS1"], header["NAXIS2"]) == (planned.grid.width_px, planned.grid.height_px)
    assert (header["NCOMBINE"], header["PHOTZP"], header["STACKID"]) == (3, 30.0, planned.stack_id)
    row = await rig.pool.fetchrow("SELECT * FROM stacks")
    assert row is not None
    assert header["DATE"] == row["requested_at"].strftime("%Y-%m-%dT%H:%M:%S")
    assert row["state"] == "coadded" and row["result"]["coadd"]["n_exposures"] == 3
    used = await rig.pool.fetch(
        "SELECT p.path FROM used JOIN products p USING (product_id) JOIN activities a USING (activity_id) "
        "WHERE a.about = $1 AND a.subject = 'stack.part_wanted'",
        planned.stack_id,
    )
    assert {exposure.files.image.name for exposure in images.values()} <= {Path(r["path"]).name for r in used}
    made = await rig.pool.fetchval(
        "SELECT count(*) FROM was_generated_by JOIN activities USING (activity_id) WHERE service = 'stack'"
    )
    assert made == 4  # image, weight, exposures, rejected


async def test_the_same_request_is_one_stack_however_often_it_comes(
    rig: Rig, exposures: list[Exposure]
) -> None:
    await seed_image(rig, exposures[0])
    await rig.start("stack", SETTINGS, compose)
    # Five events with one request_id, handled at the same time; the store decides which one counts.
    for _ in range(5):
        await rig.publish(StackRequested(request_id="again"))
    await rig.until("SELECT count(*) = 5 FROM inbox WHERE service = 'stack'")
    assert len(await rig.events(StackPlanned)) == 1
    assert await rig.pool.fetchval("SELECT count(*) FROM stacks") == 1
    # Later images do not make it another stack; another request does.
    await seed_image(rig, exposures[1])
    await rig.publish(StackRequested(request_id="again"))
    await rig.publish(StackRequested(), event_id="its-own-id")
    (_, second) = await rig.wait_for(StackPlanned, count=2)
    assert second.request_id == "its-own-id" and len(second.image_ids) == 2


async def test_an_empty_body_without_any_header_is_a_request(rig: Rig, exposures: list[Exposure]) -> None:
    await seed_image(rig, exposures[0])
    await rig.start("stack", SETTINGS, compose)
    await rig.bus.js.publish("stack.requested", b"{}")
    (planned,) = await rig.wait_for(StackPlanned)
    assert planned.request_id and len(planned.image_ids) == 1


async def test_a_request_that_nothing_fulfils_says_why(rig: Rig, exposures: list[Exposure]) -> None:
    await seed_image(rig, exposures[0])
    uncalibrated = await seed_image(rig, exposures[1], calibrated=False)
    await seed_image(rig, exposures[2], filter="g.MP9401")
    await rig.start("stack", SETTINGS, compose)
    await rig.publish(StackRequested(request_id="x", selection=Selection(fwhm_max_arcsec=0.1)))
    await rig.publish(StackRequested(request_id="y", selection=Selection(filter="r.MP9601"), min_exposures=2))
    await rig.publish(StackRequested(request_id="z"))
    failed = {event.request_id: event for event in await rig.wait_for(StackFailed, count=3)}
    assert {key: event.code for key, event in failed.items()} == {
        "x": "nothing_selected",
        "y": "too_few_exposures",
        "z": "several_filters",
    }
    assert "`fwhm_max_arcsec` left out most" in failed["x"].message
    assert uncalibrated.split(".")[0] in failed["y"].message and "calibrated" in failed["y"].message
    assert "g.MP9401 (1), r.MP9601 (1)" in failed["z"].message
    assert await rig.pool.fetchval("SELECT count(*) FROM stacks") == 0


async def test_a_persons_grade_counts_over_a_later_one_of_a_policy(
    rig: Rig, exposures: list[Exposure]
) -> None:
    rejected, saved = [await seed_image(rig, exposures[k], grade=grade) for k, grade in enumerate("AD")]
    await seed_grade(rig, rejected, "D", "person:Mireille")
    await seed_grade(rig, saved, "B", "person:Mireille")
    await seed_grade(rig, rejected, "A", "policy:default@2")
    await rig.start("stack", SETTINGS, compose)
    await rig.publish(StackRequested())
    (planned,) = await rig.wait_for(StackPlanned)
    assert planned.image_ids == (saved,)
    found = await rig.pool.fetchval("SELECT found FROM stack_members WHERE image_id = $1", rejected)
    assert found == "D by person:Mireille"


async def test_an_exposure_delivered_anew_counts_once(rig: Rig, exposures: list[Exposure]) -> None:
    old = await seed_image(rig, exposures[0])
    new = await seed_image(rig, exposures[0], image_id="700p.ffffffffffff", sha256="f" * 64)
    await rig.start("stack", SETTINGS, compose)
    await rig.publish(StackRequested(request_id="latest"))
    (planned,) = await rig.wait_for(StackPlanned)
    assert planned.image_ids == (new,)
    await rig.publish(StackRequested(request_id="that one", selection=Selection(images=(old,))))
    (_, asked_for) = await rig.wait_for(StackPlanned, count=2)
    assert asked_for.image_ids == (old,)


async def test_a_member_without_joint_solution_is_left_out_and_a_broken_file_fails_the_stack(
    rig: Rig, exposures: list[Exposure]
) -> None:
    images = {await seed_image(rig, exposure): exposure for exposure in exposures[:3]}
    await rig.start("stack", SETTINGS, compose)
    await rig.publish(StackRequested(request_id="first"))
    (planned,) = await rig.wait_for(StackPlanned)
    for image_id in planned.image_ids[:2]:
        await seed_solution(rig, images[image_id], image_id, planned.stack_id)
    done = solved(planned, n_members=2)
    await rig.publish(done)
    (coadded,) = await rig.wait_for(StackCoadded)
    assert coadded.n_exposures == 2

    await rig.publish(StackRequested(request_id="second"))
    second = (await rig.wait_for(StackPlanned, count=2))[1]
    exposures[0].files.weight.write_bytes(b"this is no FITS file")
    await calibrate(rig, second, images)
    (failed,) = await rig.wait_for(StackFailed)
    assert (failed.code, failed.stack_id) == ("input_unreadable", second.stack_id)
    assert exposures[0].files.weight.name in failed.message
    await rig.until("SELECT state = 'failed' FROM stacks WHERE stack_id = $1", second.stack_id)
    told = await rig.pool.fetchval(
        "SELECT result -> 'failure' FROM stacks WHERE stack_id = $1", second.stack_id
    )
    assert (told["stage"], told["code"]) == ("stack", "input_unreadable")
    assert (
        await rig.pool.fetchval("SELECT state FROM stacks WHERE stack_id = $1", planned.stack_id) == "coadded"
    )

    await rig.publish(done.model_copy(update={"stack_id": "no-such-stack"}))
    assert (await rig.wait_for(StackFailed, count=2))[1].code == "unknown_stack"


async def test_the_same_request_gives_the_same_bytes_elsewhere(rig: Rig, exposures: list[Exposure]) -> None:
    """Made again from the same event after everything of it is lost, a product is the same file."""
    images = {await seed_image(rig, exposure): exposure for exposure in exposures[:2]}
    await rig.start("stack", SETTINGS, compose)
    await rig.publish(StackRequested(request_id="r"))
    (planned,) = await rig.wait_for(StackPlanned)
    await calibrate(rig, planned, images)
    (first,) = await rig.wait_for(StackCoadded)
    products: dict[str, Product] = {"image": first.image, "weight": first.weight}
    shutil.rmtree(rig.data.path(f"stacks/{planned.stack_id}"))
    await rig.publish(solved(planned))
    again = (await rig.wait_for(StackCoadded, count=2))[1]
    assert {"image": again.image, "weight": again.weight} == products
