"""What a run remembers: images held as context, versions of models and of solutions, and what they would change."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spica_calib.handlers import Handlers
from spica_calib.science.astrometry.problem import InstrumentModel
from spica_calib.science.lessons import difference_mas
from spica_calib.service import compose
from spica_calib.settings import CalibSettings
from spica_console.calibrating import Images, improvements
from spica_proto.images import ImageCalibrated, ImageCalibrationRequested, ImageGraded
from spica_proto.stacks import StackCalibrated
from spica_runtime.handling import Delivery, Outcome, Transaction
from spica_runtime.service import Platform, Service

from tests.support.calibsky import Sky, plan
from tests.support.command import Ended, spica
from tests.support.rig import Rig

CONTEXT = "megasim|r.SIM|"
DELIVERY = Delivery("e", "image.graded", datetime(2026, 1, 1, tzinfo=UTC), "/test", "00-0-0-01")


@pytest.fixture
def sky(rig: Rig, tmp_path: Path) -> Sky:
    sky = Sky(rig, tmp_path)
    sky.write_reference()
    return sky


async def calibrated(rig: Rig, message: ImageGraded) -> ImageCalibrated:
    await rig.publish(message)
    (event,) = await rig.wait_for(ImageCalibrated, where=lambda event: event.image_id == message.image_id)
    return event


async def run(rig: Rig, *arguments: str) -> Ended:
    return await spica("calib", *arguments, settings=rig.settings, home=rig.data.root.parent)


async def models(rig: Rig) -> list[dict[str, Any]]:
    rows = await rig.pool.fetch("SELECT * FROM instrument_models ORDER BY version")
    return [dict(row) for row in rows]


async def test_a_run_is_remembered_and_improves_what_came_before(rig: Rig, sky: Sky) -> None:
    await rig.start("calib", sky.settings(), compose)
    images = [await sky.image(f"{100 + k}p", dither=0.002 * k) for k in range(3)]
    first, second, third = [await calibrated(rig, message) for message in images]
    assert [(one.version, one.model_version, one.n_context) for one in (first, second, third)] == [
        (1, 0, 0), (1, 1, 1), (1, 2, 2),
    ]  # fmt: skip
    assert first.context == CONTEXT
    assert first.internal_rms_ra_mas is None
    assert third.n_internal is not None and third.n_internal > 100
    assert third.internal_rms_ra_mas is not None and third.internal_rms_ra_mas < 12
    assert third.anchor == "reference"
    assert third.report is not None and rig.data.path(third.report.path).read_text().startswith(
        "<!doctype html>"
    )
    assert [row["started_from"] for row in await models(rig)] == [0, 1, 2]
    used = await rig.pool.fetch(
        "SELECT path FROM used JOIN activities USING (activity_id) JOIN products USING (product_id) WHERE about = $1",
        images[2].image_id,
    )
    assert {first.header.path, second.header.path} <= {row["path"] for row in used}

    # Graded again nothing is solved; asked for, it is solved again with what the run has taught since.
    planned = await plan(
        rig, [message.image_id for message in images], {e.image_id: e for e in (first, second, third)}
    )
    await rig.publish(images[0].model_copy(update={"grade": "B", "graded_by": "person:ann"}))
    await rig.until("SELECT count(*) FROM activities WHERE outcome LIKE 'measurement already calibrated%'")
    dry = await run(rig, "improve", "--context", CONTEXT, "--least-mas", "0", "--dry-run", "--json")
    told = {one["name"]: one for one in dry.json["images"]}
    assert dry.json["event_ids"] == [] and set(told) == {"100p", "101p"}
    assert told["100p"]["knows"] == 1 and told["100p"]["newest"] == 3 and told["100p"]["stacks"] == ["stack"]
    assert told["100p"]["moves_mas"] > 0
    assert len(await rig.events(ImageCalibrationRequested)) == 0
    done = await run(rig, "improve", "--image", "100p", "--least-mas", "0", "--json")
    assert len(done.json["event_ids"]) == 1
    (again,) = await rig.wait_for(ImageCalibrated, where=lambda event: event.version == 2)
    assert again.supersedes == first.solution_id
    assert again.reason is not None and again.reason.startswith("model 3 of its context is")
    assert (again.model_version, again.n_context) == (3, 2)
    assert len(await models(rig)) == 3, "an image teaches once"
    assert sky.off_mas(rig.data.path(again.header.path), "100p") < 40
    rows = await rig.pool.fetch(
        "SELECT version, superseded_by, superseded_why FROM solutions WHERE image_id = $1 ORDER BY version",
        images[0].image_id,
    )
    assert [(row["version"], row["superseded_by"]) for row in rows] == [(1, again.solution_id), (2, None)]
    assert rows[0]["superseded_why"] == again.reason
    await rig.publish(
        ImageCalibrationRequested(image_id=images[0].image_id, name="100p", reason="once more"),
        event_id="more",
    )
    await rig.until("SELECT count(*) FROM activities WHERE outcome LIKE 'nothing new%'")

    # The stack that was planned before is stale now, and says by how much.
    stale = await run(rig, "stale", "--json")
    (one,) = stale.json
    assert (one["stack"], one["n_members"]) == ("stack", 3)
    (moved,) = one["members"]
    assert (moved["image"], moved["old_version"], moved["new_version"]) == ("100p", 1, 2)
    assert 0 < one["moves_mas"] < 40
    assert abs(one["changes_mmag"]) < 10
    await rig.publish(planned)
    (joint,) = await rig.wait_for(StackCalibrated)
    assert joint.contexts == (CONTEXT,)
    assert joint.anchors
    await told_to_people(rig)


async def told_to_people(rig: Rig) -> None:
    """The tables: each command goes well, and names what there is."""
    for arguments, words in (
        (("list",), ("100p", "101p", "reference")),
        (("show", "100p"), ("version 1 counts no more: model 3", "with 101p, 102p", "in stack")),
        (("models",), (CONTEXT,)),
        (("models", CONTEXT), ("102p",)),
        (("anchors", "stack"), ("100p", "of 3 exposures are anchors")),
        (("stale", "stack"), ("1 → 2",)),
        (("improve", "--image", "100p"), ("Nothing to improve",)),
    ):
        ended = await run(rig, *arguments)
        assert ended.code == 0, ended.err
        assert all(word in ended.out for word in words), ended.out
    for arguments, code in (
        (("show", "nobody"), 2),
        (("models", "none"), 2),
        (("improve",), 2),
        (("anchors", "x"), 2),
    ):
        assert (await run(rig, *arguments)).code == code


async def prepared(rig: Rig, settings: CalibSettings) -> Handlers:
    """The handlers of a running service, to be called without messages."""
    held: list[Handlers] = []

    def keeping(platform: Platform[CalibSettings]) -> Service:
        held.append(Handlers(platform))
        return Service(routes={}, close=(held[0].close,))

    await rig.start("calib", settings, keeping)
    return held[0]


async def commit(rig: Rig, outcome: Outcome) -> Transaction:
    async with rig.pool.acquire() as connection, connection.transaction():
        transaction = Transaction(connection)
        assert outcome.save is not None
        await outcome.save(transaction)
        return transaction


async def test_two_that_learn_at_once_both_count(rig: Rig, sky: Sky) -> None:
    handlers = await prepared(rig, sky.settings())
    images = [await sky.image(f"{100 + k}p", dither=0.002 * k) for k in range(3)]
    await commit(rig, await handlers.image_graded(images[0], DELIVERY))
    # Both start from version 1; neither knows of the other.
    outcomes = [await handlers.image_graded(message, DELIVERY) for message in images[1:]]
    done = await asyncio.gather(*(commit(rig, outcome) for outcome in outcomes))
    assert sorted(len(one.notes) for one in done) == [0, 1]
    rows = await models(rig)
    assert [(row["version"], row["started_from"], row["merged_with"]) for row in rows] == [
        (1, 0, None), (2, 1, None), (3, 1, 2),
    ]  # fmt: skip
    first, second, both = [InstrumentModel.from_json(row["model"]) for row in rows]
    assert both.n_exposures == 3
    assert both.n_detections > second.n_detections > first.n_detections
    # One after the other teaches the same.
    await rig.pool.execute("DELETE FROM instrument_models WHERE version > 1")
    await rig.pool.execute("DELETE FROM solutions WHERE image_id <> $1", images[0].image_id)
    for message in images[1:]:
        await commit(rig, await handlers.image_graded(message, DELIVERY))
    in_turn = InstrumentModel.from_json((await models(rig))[-1]["model"])
    apart, step = difference_mas(both, in_turn), difference_mas(first, in_turn)
    assert apart is not None and step is not None
    assert apart < 15


async def test_the_same_measurement_twice_at_once_is_one_solution(rig: Rig, sky: Sky) -> None:
    handlers = await prepared(rig, sky.settings())
    message = await sky.image("100p")
    outcomes = [await handlers.image_graded(message, DELIVERY) for _ in range(2)]
    assert outcomes[0].made == outcomes[1].made, "the same inputs give the same bytes"
    done = await asyncio.gather(*(commit(rig, outcome) for outcome in outcomes))
    assert sorted(len(one.events) for one in done) == [0, 1]
    assert await rig.pool.fetchval("SELECT count(*) FROM solutions") == 1
    assert len(await models(rig)) == 1


async def test_a_file_that_is_gone_is_made_again_from_what_it_was_made_of(rig: Rig, sky: Sky) -> None:
    handlers = await prepared(rig, sky.settings())
    images = [await sky.image(f"{100 + k}p", dither=0.002 * k) for k in range(3)]
    heads = []
    for message in images:
        outcome = await handlers.image_graded(message, DELIVERY)
        await commit(rig, outcome)
        heads.append(outcome.made[0])
    path = rig.data.path(heads[1].path)
    path.unlink()
    again = await handlers.image_graded(images[1], DELIVERY)
    assert again.made[0] == heads[1], "though there is a third image, and a newer model, by now"
    assert (await commit(rig, again)).events == []
    # Neighbours whose files are gone are left out, and told.
    rig.data.path(heads[0].path).unlink()
    fourth = await handlers.image_graded(await sky.image("103p", dither=0.001), DELIVERY)
    assert any("100p is left out of the context" in line for line in fourth.log)
    (event,) = (await commit(rig, fourth)).events
    assert isinstance(event, ImageCalibrated) and event.n_context == 2


async def test_a_worker_that_is_killed_loses_nothing(rig: Rig, sky: Sky) -> None:
    await rig.start("calib", sky.settings().model_copy(update={"concurrency": 1}), compose)
    message = await sky.image("100p")
    await rig.publish(message)
    async with asyncio.timeout(60):
        while not (workers := [child.pid for child in multiprocessing.active_children() if child.pid]):
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)  # it reads its imports now, and then solves
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    (event,) = await rig.wait_for(ImageCalibrated)
    assert await rig.pool.fetchval("SELECT count(*) FROM dead_letters") == 0
    assert await rig.pool.fetchval("SELECT array_agg(solution_id) FROM solutions") == [event.solution_id]
    assert len(await models(rig)) == 1


async def test_what_is_unfit_teaches_nothing_and_is_solved_again_only_when_named(rig: Rig, sky: Sky) -> None:
    handlers = await prepared(rig, sky.settings())
    images = [await sky.image(f"{100 + k}p", dither=0.002 * k) for k in range(3)]
    for message in images[:2]:
        await commit(rig, await handlers.image_graded(message, DELIVERY))
    for message in (images[0], images[2]):
        await rig.pool.execute(
            "INSERT INTO grades (grade_id, subject_kind, subject_id, grade, graded_by) "
            "VALUES ($1, 'image', $1, 'D', 'person:ann')",
            message.image_id,
        )
    found = await improvements(rig.pool, Images(context=CONTEXT), 0.0)
    assert found == [], "101p knows the newest, and 100p is unfit"
    (named,) = await improvements(rig.pool, Images(image_ids=(images[0].image_id,)), 0.0)
    assert named.image_id == images[0].image_id
    wish = ImageCalibrationRequested(image_id=images[2].image_id, name="102p", reason="to see why")
    (event,) = (await commit(rig, await handlers.calibration_requested(wish, DELIVERY))).events
    assert isinstance(event, ImageCalibrated) and event.model_version == 2
    assert len(await models(rig)) == 2, "102p is solved, and taught nothing"


async def test_a_late_word_of_an_older_measurement_changes_nothing(rig: Rig, sky: Sky) -> None:
    handlers = await prepared(rig, sky.settings())
    old = await sky.image("100p")
    late = await handlers.image_graded(old, DELIVERY)  # solved, and committed below
    await rig.pool.execute(
        """INSERT INTO measurements (measurement_id, subject_kind, subject_id, metrics, per_ccd, catalogue_path,
               weight_path, preview_path)
           SELECT 'm-new', subject_kind, subject_id, metrics, per_ccd, catalogue_path, weight_path, preview_path
           FROM measurements"""
    )
    new = await handlers.image_graded(old.model_copy(update={"measurement_id": "m-new"}), DELIVERY)
    assert len((await commit(rig, new)).events) == 1
    done = await commit(rig, late)
    assert done.events == [] and "measured anew" in done.notes[0]
    outcome = await handlers.image_graded(old, DELIVERY)
    assert "measured anew" in outcome.summary and outcome.save is None
    assert await rig.pool.fetch("SELECT measurement_id FROM solutions") == [("m-new",)]


async def test_what_is_chosen_again_counts_again(rig: Rig, sky: Sky) -> None:
    settings = sky.settings().model_copy(update={"memory": False})
    message = await sky.image("100p")
    faint = settings.model_copy(update={"reference": sky.reference.with_name("other.parquet")})
    sky.write_reference(sky.stars.take(np.arange(len(sky.stars) - 1)))
    sky.reference.rename(faint.reference)
    sky.write_reference()
    for number, chosen in enumerate((settings, faint, settings, faint), start=1):
        handlers = await prepared(rig, chosen)
        (event,) = (await commit(rig, await handlers.image_graded(message, DELIVERY))).events
        assert isinstance(event, ImageCalibrated) and event.version == number
        again = await handlers.image_graded(message, DELIVERY)
        assert "already calibrated" in again.summary
        counts = await rig.pool.fetchval("SELECT solution_id FROM solutions WHERE superseded_by IS NULL")
        assert counts == event.solution_id
    # Nor is an image held to others that another catalogue put on another sky.
    handlers = await prepared(rig, settings)
    (event,) = (
        await commit(rig, await handlers.image_graded(await sky.image("101p", dither=0.002), DELIVERY))
    ).events
    assert isinstance(event, ImageCalibrated) and event.n_context == 0


async def test_without_memory_and_context_each_image_stands_alone(rig: Rig, sky: Sky) -> None:
    settings = sky.settings().model_copy(update={"memory": False, "context_images": 0})
    handlers = await prepared(rig, settings)
    for k in range(2):
        outcome = await handlers.image_graded(await sky.image(f"{100 + k}p"), DELIVERY)
        (event,) = (await commit(rig, outcome)).events
        assert isinstance(event, ImageCalibrated)
        assert (event.model_version, event.n_context) == (0, 0)
        assert json.loads(json.dumps(outcome.configuration))["context_solutions"] == []
    assert await models(rig) == []
