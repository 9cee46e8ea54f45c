"""Stacks whose members are taken as they are solved: nothing is solved anew, sums are gone on from, pixels looked at."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from astropy.io import fits
from spica_calib.service import compose as compose_calib
from spica_calib.settings import CalibSettings
from spica_console import pixels as looking
from spica_console.settings import ConsoleSettings
from spica_console.store import Store
from spica_console.web.app import Site, make_app
from spica_proto.stacks import (
    Processing,
    Selection,
    StackCalibrated,
    StackCoadded,
    StackFailed,
    StackPlanned,
    StackRequested,
)
from spica_runtime.locating import Files
from spica_runtime.nodes import open_node
from spica_runtime.service import Platform
from spica_stack import surveys
from spica_stack.service import compose
from spica_stack.settings import StackSettings

from tests.support.command import Ended, begin, end
from tests.support.news import graded, say_calibrated, solved_again
from tests.support.rig import Rig
from tests.support.seeding import seed_image
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
CALIB = CalibSettings(workers=1, concurrency=2, retry_delays_s=(0.05,), max_attempts=2)
RULES = Selection(filter="r.MP9601", object="F1")
GRID: dict[str, Any] = {
    "centre": {"ra_deg": 214.0, "dec_deg": 52.5},
    "width_px": 160,
    "height_px": 100,
    "pixel_scale_arcsec": 0.2,
}
OWN = {"combine": "weighted_mean", "solutions": "own", **GRID}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Exposure]]:
    root = tmp_path_factory.mktemp("field")
    rng = np.random.default_rng(7)
    stars = scattered_stars(rng, 16, 60, flux=(50, 2000))
    return root, [write_exposure(root / "images", k, stars, rng, side=96) for k in range(4)]


@pytest.fixture
def exposures(rig: Rig, written: tuple[Path, list[Exposure]]) -> list[Exposure]:
    root, found = written
    shutil.copytree(root / "images", rig.data.root / "images")
    moved = []
    for one in found:
        places = {
            name: rig.data.root / getattr(one.files, name).relative_to(root)
            for name in ("image", "weight", "head")
        }
        moved.append(replace(one, files=replace(one.files, **places)))
    return moved


async def seed(rig: Rig, exposure: Exposure, **changes: Any) -> str:
    """An image as `seed_image` has it, with numbers of its own solution."""
    image_id = await seed_image(rig, exposure, **changes)
    quality = {
        "n_matched": 100,
        "n_internal": 20,
        "rms_mas": [8.0, 9.0],
        "internal_rms_mas": [5.0, 6.0],
        "chi2_external": 1.1,
        "chi2_internal": 0.9,
        "epoch_year": 2016.5,
        "anchor": "reference",
    }
    await rig.pool.execute(
        "UPDATE solutions SET quality = $2, context = 'testcam|r', version = 1 WHERE image_id = $1",
        image_id,
        quality,
    )
    return image_id


def request(request_id: str, **changes: Any) -> StackRequested:
    body = {"request_id": request_id, "selection": RULES.model_dump(exclude_unset=True), **OWN, **changes}
    return StackRequested.model_validate(body)


async def coadded(rig: Rig, request_id: str) -> tuple[StackPlanned, StackCoadded]:
    (planned,) = await rig.wait_for(StackPlanned, where=lambda event: event.request_id == request_id)
    (made,) = await rig.wait_for(
        StackCoadded, where=lambda event: event.stack_id == planned.stack_id, timeout_s=240
    )
    return planned, made


async def start(rig: Rig) -> None:
    await rig.start("stack", SETTINGS, compose)
    await rig.start("calib", CALIB, compose_calib)


async def test_members_are_taken_with_the_solutions_they_have(rig: Rig, exposures: list[Exposure]) -> None:
    images = [await seed(rig, exposure) for exposure in exposures[:3]]
    await start(rig)
    await rig.publish(request("r1"))
    planned, made = await coadded(rig, "r1")
    (said,) = await rig.events(StackCalibrated)
    assert (said.n_members, said.n_internal_matches, said.n_reference) == (3, 60, 300)
    assert (said.internal_rms_ra_mas, said.internal_rms_dec_mas) == (5.0, 6.0)
    assert (said.external_rms_ra_mas, said.external_rms_dec_mas) == (8.0, 9.0)
    assert (said.chi2_internal, said.chi2_external, said.contexts) == (0.9, 1.1, ("testcam|r",))
    assert (said.reference.name, said.reference.epoch_year) == ("truth", 2016.5)
    assert said.anchors == tuple(images)
    assert made.sums is not None and made.n_exposures == 3
    rows = await rig.pool.fetch(
        "SELECT s.*, o.header_path AS own_path FROM solutions s "
        "JOIN solutions o ON o.solution_id = s.quality ->> 'own_solution' WHERE s.stack_id = $1",
        planned.stack_id,
    )
    assert {row["image_id"] for row in rows} == set(images)
    for row in rows:
        assert (
            row["header_path"] == row["own_path"] and row["version"] is None and row["superseded_by"] is None
        )
        assert row["flux_scale"] == pytest.approx(
            next(e for e in exposures if e.files.image.name[:4] == row["image_id"][:4]).files.flux_scale
        )
    # The images' own ones are what they were, and no activity says that it made a header.
    own = await rig.pool.fetchval(
        "SELECT count(*) FROM solutions WHERE stack_id IS NULL AND superseded_by IS NULL AND version = 1"
    )
    assert own == 3
    made_by_calib = await rig.pool.fetchval(
        "SELECT count(*) FROM was_generated_by JOIN activities USING (activity_id) WHERE service = 'calib'"
    )
    assert made_by_calib == 0
    (outcome,) = await rig.pool.fetch("SELECT outcome, configuration FROM activities WHERE service = 'calib'")
    assert outcome["outcome"] == "3 members with the solutions that they have"
    # The same event again changes nothing.
    await rig.publish(planned, event_id="again")
    await rig.until("SELECT count(*) = 2 FROM activities WHERE service = 'calib'")
    assert len(await rig.events(StackCalibrated)) == 1


async def test_a_member_without_a_zero_point_is_told(rig: Rig, exposures: list[Exposure]) -> None:
    images = [await seed(rig, exposure) for exposure in exposures[:2]]
    await rig.pool.execute("UPDATE solutions SET flux_scale = NULL WHERE image_id = $1", images[1])
    await start(rig)
    await rig.publish(request("r1"))
    (failed,) = await rig.wait_for(StackFailed)
    assert (failed.stage, failed.code) == ("calib", "no_flux_scale")
    assert "1 of 2 members" in failed.message and "701p" in failed.message


async def test_the_solution_of_planning_counts_though_there_is_a_newer_one(
    rig: Rig, exposures: list[Exposure]
) -> None:
    (image_id,) = [await seed(rig, exposure) for exposure in exposures[:1]]
    stop = await rig.start("stack", SETTINGS, compose)
    await rig.publish(request("r1"))
    (planned,) = await rig.wait_for(StackPlanned)
    stop.set()
    before = await rig.pool.fetchval("SELECT solution_id FROM stack_members")
    await solved_again(rig, image_id)
    await rig.start("calib", CALIB, compose_calib)
    await rig.wait_for(StackCalibrated)
    own = await rig.pool.fetchval(
        "SELECT quality ->> 'own_solution' FROM solutions WHERE stack_id = $1", planned.stack_id
    )
    assert own == before


def pixels(rig: Rig, made: StackCoadded) -> tuple[bytes, bytes]:
    """Image and weight, as bytes."""
    return tuple(fits.getdata(rig.data.path(product.path)).tobytes() for product in (made.image, made.weight))


async def test_a_survey_that_only_gains_goes_on_from_the_sums(rig: Rig, exposures: list[Exposure]) -> None:
    for exposure in exposures[:3]:
        await seed(rig, exposure)
    await start(rig)
    await surveys.add(
        rig.pool,
        "deep",
        StackRequested.model_validate({"selection": {"filter": "r.MP9601", "object": "F1"}, **OWN}),
        created_by="person:ann",
        debounce_s=0.2,
    )
    (first,) = await rig.wait_for(StackRequested)
    planned, base = await coadded(rig, first.request_id or "")
    fourth = await seed(rig, exposures[3])
    await say_calibrated(rig, fourth)
    second = (await rig.wait_for(StackRequested, count=2))[1]
    assert (second.extends, second.replaces) == (planned.stack_id, planned.stack_id)
    more, made = await coadded(rig, second.request_id or "")
    assert more.image_ids == (*planned.image_ids, fourth) and more.grid == planned.grid
    assert made.n_exposures == 4 and [gain.image_id for gain in made.gains] == [fourth]
    assert (
        await rig.pool.fetchval("SELECT extends FROM stacks WHERE stack_id = $1", more.stack_id)
        == planned.stack_id
    )
    # To the bit what all four give at once.
    await rig.publish(request("whole"))
    _, whole = await coadded(rig, "whole")
    assert pixels(rig, made) == pixels(rig, whole) != pixels(rig, base)

    # What loses a member is made whole again.
    await graded(rig, fourth, "D", "person:ann")
    third = (await rig.wait_for(StackRequested, where=lambda event: event.survey == "deep", count=3))[2]
    assert (third.extends, third.replaces) == (None, more.stack_id)
    _, smaller = await coadded(rig, third.request_id or "")
    assert pixels(rig, smaller) == pixels(rig, base)

    # What does not fit is refused in words, at planning.
    for request_id, changes, words in (
        ("x1", {"combine": "median"}, "weighted mean"),
        ("x2", {"width_px": 161}, "its `width_px` is 160, not 161"),
        (
            "x3",
            {"processing": Processing(resampling="bilinear").model_dump(exclude_unset=True)},
            "resampling",
        ),
        ("x4", {}, "is not selected any more"),
    ):
        await rig.publish(request(request_id, extends=more.stack_id, **changes))
        (failed,) = await rig.wait_for(
            StackFailed,
            where=lambda event, wanted=request_id: event.request_id == wanted,  # type: ignore[misc]
        )
        assert failed.code in ("cannot_extend", "invalid_request") and words in failed.message, failed.message


async def pixel(rig: Rig, *arguments: str) -> Ended:
    """Run the command; kernels may have to be compiled first."""
    process = await begin("pixel", *arguments, settings=rig.settings, home=rig.data.root.parent)
    return await end(process, 240)


async def test_one_pixel_told_to_people_and_programs(
    rig: Rig, exposures: list[Exposure], tmp_path: Path
) -> None:
    for exposure in exposures:
        await seed(rig, exposure)
    await start(rig)
    await rig.publish(request("r1", combine="clipped_mean", name="pair"))
    await coadded(rig, "r1")
    seen = await pixel(rig, "pair", "--xy", "80", "50", "--json")
    assert seen.code == 0, seen.err
    row = seen.json
    assert row["agrees"] and (row["x"], row["y"], row["combine"]) == (80, 50, "clipped_mean")
    assert {one["name"] for one in row["contributions"]} <= {"700p", "701p", "702p", "703p"}
    assert len(row["contributions"]) + row["n_elsewhere"] == 4
    place = (f"{row['ra_deg']:.7f}", f"{row['dec_deg']:.7f}")
    plot = tmp_path / "pixel.svg"
    shown = await pixel(rig, "pair", *place, "--plot", str(plot))
    assert shown.code == 0, shown.err
    assert "the same to the last bit" in shown.out and row["contributions"][0]["name"] in shown.out
    assert plot.read_text().startswith("<?xml") and "pixel 80, 50" in plot.read_text()
    for arguments, words in (
        (("pair",), "Say where"),
        (("pair", "12", "--xy", "1", "1"), "Say where"),
        (("pair", "north", "50"), "is no angle"),
        (("pair", "14:16:00", "-52:30:00"), "is not in pair"),
        (("pair", "--xy", "500", "1"), "160 x 100 pixels"),
        (("nobody", "--xy", "1", "1"), "nobody"),
        (("pair", *place, "--plot", str(tmp_path / "pixel.gif")), ".svg or .png"),
    ):
        ended = await pixel(rig, *arguments)
        assert (ended.code, words in ended.err) == (2, True), (arguments, ended.err)
    await over_http(rig, row)


async def over_http(rig: Rig, row: dict[str, Any]) -> None:
    node = await open_node(rig.settings, rig.data.root)
    files = Files(rig.data, rig.pool, node, rig.settings)
    platform: Platform[Any] = Platform(
        "console",
        rig.settings,
        ConsoleSettings(),
        rig.pool,
        rig.data,
        looking.NO_WORKERS,
        rig.bus,
        node,
        files,
    )
    site = Site(rig.bus, rig.pool, Store(rig.pool), rig.data, asyncio.Event(), files=files, platform=platform)
    transport = httpx.ASGITransport(app=make_app(site))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.get("/api/stacks/pair/pixel", params={"x": 80, "y": 50})
        assert answer.status_code == 200 and answer.json() == json.loads(json.dumps(row))
        drawn = await client.get("/api/stacks/pair/pixel", params={"x": 80, "y": 50, "format": "svg"})
        assert drawn.headers["content-type"].startswith("image/svg+xml")
        for wanted, code in (
            ({"x": 80}, 422),
            ({"ra": "x", "dec": "1"}, 422),
            ({"x": 999, "y": 1}, 422),
            ({"x": 1, "y": 1, "format": "gif"}, 422),
        ):
            assert (await client.get("/api/stacks/pair/pixel", params=wanted)).status_code == code  # type: ignore[arg-type]
        assert (await client.get("/api/stacks/nobody/pixel", params={"x": 1, "y": 1})).status_code == 404
