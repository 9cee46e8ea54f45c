"""The calib service on real NATS and PostgreSQL: graded images in, solutions out."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spica_calib.reference.area import ReferenceArea
from spica_calib.reference.file import identify
from spica_calib.service import compose
from spica_console.store import Store
from spica_proto.images import ImageCalibrated, ImageFailed, ImageGraded
from spica_proto.stacks import StackCalibrated
from spica_runtime.storage import sha256_of

from tests.support.calibsky import Sky, plan
from tests.support.rig import Rig
from tests.support.skies import ZEROPOINT, shuffled


@pytest.fixture
def sky(rig: Rig, tmp_path: Path) -> Sky:
    return Sky(rig, tmp_path)


async def test_a_plausible_but_wrong_wcs_is_solved_from_the_pointing(rig: Rig, sky: Sky) -> None:
    sky.write_reference()
    await rig.start("calib", sky.settings(), compose)
    await rig.publish(await sky.image("100p", turned_deg=20.0))
    (event,) = await rig.wait_for(ImageCalibrated)
    assert event.start == "pointing"
    assert sky.off_mas(rig.data.path(event.header.path), "100p") < 50


async def test_images_are_calibrated_once_and_only_if_fit_for_use(rig: Rig, sky: Sky) -> None:
    sky.write_reference()
    await rig.start("calib", sky.settings(), compose)
    full, rough = await sky.image("100p"), await sky.image("101p", wcs="pointing")
    bad = await sky.image("102p", grade="D")
    for message in (full, rough, bad):
        await rig.publish(message)
    found = {event.name: event for event in await rig.wait_for(ImageCalibrated, count=2)}
    assert {name: event.start for name, event in found.items()} == {"100p": "wcs", "101p": "pointing"}
    for name, event in found.items():
        path = rig.data.path(event.header.path)
        assert sha256_of(path) == event.header.sha256
        assert sky.off_mas(path, name) < 50
        assert event.zeropoint_mag == pytest.approx(ZEROPOINT, abs=0.01)
        assert event.n_matched > 100
        assert event.rms_ra_mas < 15
        assert event.distortion_degree == 3
        assert event.limiting_mag == pytest.approx(ZEROPOINT - 2.5 * np.log10(100 / 60), abs=0.01)
        assert event.reference.sha256 == sha256_of(sky.reference)
        assert event.reference.epoch_year == pytest.approx(2025.83, abs=0.01)
        assert event.batch == "night"
    row = await rig.pool.fetchrow("SELECT * FROM solutions WHERE image_id = $1", full.image_id)
    assert row is not None
    assert row["solution_id"] == found["100p"].solution_id
    assert row["quality"]["measurement_id"] == "m-100p"
    assert row["flux_scale"] == pytest.approx(10 ** (0.4 * (30 - row["zeropoint_mag"])) / 60)
    assert (await outcome(rig, bad)).startswith("grade D")

    # A person thinks better of the bad one, and again of a good one: only the first is work.
    await rig.publish(bad.model_copy(update={"grade": "B", "graded_by": "person:ann"}))
    await rig.wait_for(ImageCalibrated, where=lambda event: event.name == "102p")
    await rig.publish(full.model_copy(update={"grade": "C", "graded_by": "person:ann"}))
    await rig.until(
        "SELECT count(*) FROM activities WHERE about = $1 AND outcome LIKE 'measurement already calibrated%'",
        full.image_id,
    )
    assert len(await rig.events(ImageCalibrated)) == 3
    assert await rig.pool.fetchval("SELECT count(*) FROM solutions") == 3


async def outcome(rig: Rig, message: ImageGraded) -> str:
    text: str = await rig.until("SELECT outcome FROM activities WHERE about = $1", message.image_id)
    return text


async def test_without_reference_images_wait_and_then_go_on(
    rig: Rig, sky: Sky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spica_runtime.dispatch._UNAVAILABLE_DELAY_S", 0.1)
    asked = 0

    def counting(path: Path | None, *more: Any) -> ReferenceArea:
        nonlocal asked
        asked += 1
        return identify(path, *more)

    monkeypatch.setattr("spica_calib.reference.source.identify", counting)
    await rig.start("calib", sky.settings(), compose)
    message = await sky.image("100p")
    await rig.publish(message)
    async with asyncio.timeout(20):
        while asked < 5:  # more than max_attempts
            await asyncio.sleep(0.05)
    assert await rig.events(ImageFailed) == []
    sky.write_reference()
    (event,) = await rig.wait_for(ImageCalibrated)
    assert event.image_id == message.image_id


async def test_another_sky_is_refused_with_the_numbers(rig: Rig, sky: Sky) -> None:
    sky.write_reference(shuffled(sky.rng, sky.stars))
    await rig.start("calib", sky.settings(), compose)
    message = await sky.image("100p", wcs="pointing")
    await rig.publish(message)
    (failed,) = await rig.wait_for(ImageFailed)
    assert (failed.stage, failed.code, failed.attempts) == ("calib", "no_match", 1)
    assert failed.image_id == message.image_id
    assert {"n_sources", "n_reference", "limit_log10_false_match"} <= set(failed.numbers)
    assert await rig.pool.fetchval("SELECT count(*) FROM solutions") == 0


async def test_members_of_a_stack_are_solved_together_once(rig: Rig, sky: Sky) -> None:
    sky.write_reference()
    await rig.start("calib", sky.settings(), compose)
    images = [await sky.image(f"{100 + k}p", dither=0.002 * k) for k in range(3)]
    for message in images:
        await rig.publish(message)
    single = {event.image_id: event for event in await rig.wait_for(ImageCalibrated, count=3)}
    planned = await plan(rig, [message.image_id for message in images], single)
    await rig.publish(planned, event_id="first")
    (event,) = await rig.wait_for(StackCalibrated)
    assert event.n_members == 3
    assert event.n_internal_matches > 150
    assert event.internal_rms_ra_mas == pytest.approx(6.0, rel=0.3)
    assert event.flux_scatter_mag == pytest.approx(0.007, rel=0.5)
    rows = await rig.pool.fetch("SELECT * FROM solutions WHERE stack_id = 's1' ORDER BY image_id")
    assert [row["image_id"] for row in rows] == [message.image_id for message in images]
    for row, message in zip(rows, images, strict=True):
        assert sky.off_mas(rig.data.path(row["header_path"]), message.name) < 40
        assert row["zeropoint_mag"] == pytest.approx(ZEROPOINT, abs=0.01)
        assert row["quality"]["flux_scale"] == "absolute"
    assert await rig.pool.fetchval("SELECT state FROM stacks") == "calibrated"

    # Whoever looks at the image or the stack in the console is led to the pages.
    seen = await Store(rig.pool).image(images[0].image_id)
    own, joint = (rig.data.path(row["report_path"]) for row in seen["solutions"])
    assert own.name == "100p.html"
    assert joint == rig.data.path((await Store(rig.pool).stack("s1"))["calibration_report"])
    assert all(page.read_text().startswith("<!doctype html>") for page in (own, joint))
    assert own.with_suffix(".png").read_bytes().startswith(b"\x89PNG")

    await rig.publish(planned, event_id="again")
    await rig.until("SELECT count(*) FROM activities WHERE outcome = 'stack is calibrated already'")
    assert len(await rig.events(StackCalibrated)) == 1
