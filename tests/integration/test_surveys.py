"""Standing surveys and stale stacks, on real NATS and PostgreSQL: what changes is heard, and asked for once."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spica_proto.base import Pointing
from spica_proto.stacks import Grid, Selection, StackFailed, StackPlanned, StackRequested, StackStale
from spica_stack import staleness, surveys
from spica_stack.deciding import decide
from spica_stack.service import compose
from spica_stack.settings import StackSettings

from tests.support.command import Ended, spica
from tests.support.news import graded, say_calibrated, say_graded, solved_again
from tests.support.rig import Rig
from tests.support.seeding import insert, seed_grade, seed_image
from tests.unit.stack.field import Exposure, write_exposure
from tests.unit.stack.sky import scattered_stars

SETTINGS = StackSettings(workers=1, concurrency=3, retry_delays_s=(0.05,), max_attempts=2, shutdown_grace_s=5)
RULES = Selection(filter="r.MP9601", object="F1")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Exposure]]:
    root = tmp_path_factory.mktemp("field")
    rng = np.random.default_rng(3)
    stars = scattered_stars(rng, 16, 30, flux=(50, 2000))
    return root, [write_exposure(root / "images", k, stars, rng, side=64) for k in range(6)]


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


async def add(rig: Rig, name: str = "deep", *, debounce_s: float = 0.2, **changes: Any) -> None:
    request = StackRequested(selection=RULES, min_exposures=2).model_copy(update=changes)
    plain = request.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    await surveys.add(
        rig.pool,
        name,
        StackRequested.model_validate(plain),
        created_by="person:ann",
        debounce_s=debounce_s,
    )


async def asked(rig: Rig, count: int = 1) -> list[StackRequested]:
    return await rig.wait_for(StackRequested, count=count, where=lambda event: event.survey is not None)


async def seen(rig: Rig, like: str, name: str = "deep") -> None:
    await rig.until("SELECT last_seen LIKE $2 AND due_at IS NULL FROM surveys WHERE name = $1", name, like)


async def heard(rig: Rig, count: int) -> None:
    """Wait until the stack service has handled so many pieces of news."""
    await rig.until(
        "SELECT count(*) >= $1 FROM inbox WHERE service = 'stack' AND subject IN ('image.graded', 'image.calibrated')",
        count,
    )


async def test_a_survey_asks_when_there_is_enough_and_again_when_there_is_more(
    rig: Rig, exposures: list[Exposure]
) -> None:
    await rig.start("stack", SETTINGS, compose)
    first = await seed_image(rig, exposures[0])
    await add(rig)
    await seen(rig, "1 of 2 exposures, 1 missing.%")
    second = await seed_image(rig, exposures[1])
    await say_calibrated(rig, second)
    (request,) = await asked(rig)
    assert (request.survey, request.requested_by, request.name) == ("deep", "survey:deep", "deep")
    assert (request.replaces, request.extends) == (None, None)
    (planned,) = await rig.wait_for(StackPlanned)
    assert planned.image_ids == (first, second)
    assert (planned.survey, planned.request_id) == ("deep", request.request_id)

    # What changes nothing asks nothing: another filter, grade D, the same news again.
    other = await seed_image(rig, exposures[2], filter="g.MP9401")
    poor = await seed_image(rig, exposures[3], grade="D")
    for image_id in (other, poor, second, first):
        await say_calibrated(rig, image_id)
    await heard(rig, 5)
    await seen(rig, "nothing new: 2 exposures")
    assert len(await asked(rig)) == 1

    await graded(rig, poor, "B", "person:ann")
    (_, more) = await asked(rig, 2)
    assert more.replaces == planned.stack_id
    (_, larger) = await rig.wait_for(StackPlanned, count=2)
    assert larger.image_ids == (first, second, poor)
    row = (await surveys.listing(rig.pool))[0]
    assert (row["n_members"], row["n_stacks"], row["stack_id"]) == (3, 2, larger.stack_id)


async def test_news_are_gathered_and_only_what_they_may_concern_is_looked_at(
    rig: Rig, exposures: list[Exposure]
) -> None:
    await rig.start("stack", SETTINGS, compose)
    await add(rig, debounce_s=1.0)
    await add(rig, "elsewhere", selection=Selection(filter="r.MP9601", object="F2"))
    await seen(rig, "0 of 2%")
    await seen(rig, "0 of 2%", "elsewhere")
    images = [await seed_image(rig, exposure) for exposure in exposures]
    for image_id in images:
        await say_calibrated(rig, image_id)
        await say_graded(rig, image_id)
    await heard(rig, 2 * len(images))
    assert await rig.pool.fetchval("SELECT due_at > now() FROM surveys WHERE name = 'deep'")
    assert await rig.pool.fetchval("SELECT due_at IS NULL FROM surveys WHERE name = 'elsewhere'")
    (request,) = await asked(rig)
    (planned,) = await rig.wait_for(StackPlanned)
    assert planned.image_ids == tuple(images) and planned.request_id == request.request_id


async def test_the_first_change_waits_no_longer_than_ten_times_the_quiet_time(rig: Rig) -> None:
    await insert(rig, "surveys", {"name": "s", "request": {}, "debounce_s": 100.0})
    images = "INSERT INTO images (image_id, name, sha256, size_bytes, path, profile, instrument, run, filter, " \
        "exposure_time_s, ra_deg, dec_deg, wcs, n_ccds, header) VALUES ('i', 'i', 'x', 1, 'p', 'generic', 'c', 'r', 'f', " \
        "1, 0, 0, 'full', 1, '{}')"  # fmt: skip
    await rig.pool.execute(images)
    waits = "SELECT extract(epoch FROM due_at - now())::double precision FROM surveys"
    for waited_s, expected_s in ((0, 100), (50, 100), (950, 50), (2000, -1000)):
        await rig.pool.execute(
            "UPDATE surveys SET changed_since = now() - make_interval(secs => $1)", float(waited_s)
        )
        async with rig.pool.acquire() as connection, connection.transaction():
            assert await surveys.touched(connection, ["i", "unknown"]) == ("s",)
        assert await rig.pool.fetchval(waits) == pytest.approx(expected_s, abs=5)
    await rig.pool.execute("UPDATE surveys SET active = false, due_at = NULL")
    async with rig.pool.acquire() as connection, connection.transaction():
        assert await surveys.touched(connection, ["i"]) == ()
    assert await surveys.due(rig.pool) == []


async def test_any_number_that_look_at_once_ask_once(rig: Rig, exposures: list[Exposure]) -> None:
    for exposure in exposures[:3]:
        await seed_image(rig, exposure)
    await add(rig)
    looked = await asyncio.gather(
        *(surveys.look(rig.pool, SETTINGS, "deep", only_due=True) for _ in range(6))
    )
    assert [one.state for one in looked if one is not None] == ["asked"]
    rows = await rig.pool.fetch("SELECT body FROM outbox WHERE subject = 'stack.requested'")
    assert len(rows) == 1
    # Nobody looked meanwhile, and nothing changed.
    again = await surveys.look(rig.pool, SETTINGS, "deep")
    assert again is not None and again.state == "unchanged"
    # Two services, many news: one stack for each state of things.
    await rig.start("stack", SETTINGS, compose)
    await rig.start("stack", SETTINGS, compose)
    (planned,) = await rig.wait_for(StackPlanned)
    assert len(planned.image_ids) == 3
    fourth = await seed_image(rig, exposures[3])
    for _ in range(5):
        await say_calibrated(rig, fourth)
    await rig.wait_for(StackPlanned, count=2)
    await heard(rig, 5)
    await seen(rig, "%")
    assert len(await asked(rig)) == 2


async def test_a_look_that_does_not_commit_leaves_no_trace(rig: Rig, exposures: list[Exposure]) -> None:
    for exposure in exposures[:2]:
        await seed_image(rig, exposure)
    await add(rig)
    before = dict(await rig.pool.fetchrow("SELECT * FROM surveys") or {})
    # PostgreSQL itself ends the connection in the middle of it, as when the service is killed.
    await rig.pool.execute(
        "CREATE FUNCTION die() RETURNS trigger AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); "
        "RETURN NEW; END $$ LANGUAGE plpgsql"
    )
    await rig.pool.execute("CREATE TRIGGER die BEFORE UPDATE ON surveys FOR EACH ROW EXECUTE FUNCTION die()")
    with pytest.raises(Exception, match=r"terminat|closed"):
        await surveys.look(rig.pool, SETTINGS, "deep")
    await rig.pool.execute("DROP TRIGGER die ON surveys")
    assert dict(await rig.pool.fetchrow("SELECT * FROM surveys") or {}) == before
    assert await rig.pool.fetchval("SELECT count(*) FROM outbox") == 0
    looked = await surveys.look(rig.pool, SETTINGS, "deep", only_due=True)
    assert looked is not None and looked.state == "asked"


async def test_what_comes_while_one_looks_is_looked_at_after(
    rig: Rig, exposures: list[Exposure], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = [await seed_image(rig, exposure) for exposure in exposures[:2]]
    await add(rig)

    async def slow(*arguments: Any, **more: Any) -> Any:
        decision = await decide(*arguments, **more)
        third = await seed_image(rig, exposures[2])
        async with rig.pool.acquire() as connection, connection.transaction():
            await surveys.touched(connection, [third])
        return decision

    monkeypatch.setattr(surveys, "decide", slow)
    looked = await surveys.look(rig.pool, SETTINGS, "deep")
    monkeypatch.undo()
    assert looked is not None and looked.n_selected == 2
    await asyncio.sleep(0.25)
    assert await surveys.due(rig.pool) == ["deep"]
    after = await surveys.look(rig.pool, SETTINGS, "deep", only_due=True)
    assert after is not None and (after.state, after.n_selected) == ("asked", 3)
    assert first != second


async def test_rules_that_cannot_be_applied_are_told_and_stop_nothing(
    rig: Rig, exposures: list[Exposure]
) -> None:
    await rig.start("stack", SETTINGS, compose)
    for number, exposure in enumerate(exposures[:4]):
        await seed_image(rig, exposure, filter=("r.MP9601", "g.MP9401")[number % 2])
    await add(rig, "both", selection=Selection(object="F1"))
    await add(rig, "preset", preset="no-such-recipe")
    await add(rig, "good")
    await seen(rig, "%g.MP9401 (2), r.MP9601 (2)%", "both")
    await seen(rig, "%no-such-recipe%", "preset")
    (planned,) = await rig.wait_for(StackPlanned)
    assert planned.survey == "good"
    assert await rig.events(StackFailed) == []


async def test_a_member_solved_again_is_asked_for_again_unless_the_survey_keeps_stale_stacks(
    rig: Rig, exposures: list[Exposure]
) -> None:
    await rig.start("stack", SETTINGS, compose)
    images = [await seed_image(rig, exposure) for exposure in exposures[:2]]
    await add(rig)
    await surveys.add(
        rig.pool,
        "keeps",
        StackRequested(selection=RULES),
        created_by="person:ann",
        debounce_s=0.1,
        rebuild_stale=False,
    )
    first = {event.survey: event for event in await rig.wait_for(StackPlanned, count=2)}
    solution_id = await solved_again(rig, images[0])
    third = (await rig.wait_for(StackPlanned, count=3))[2]
    assert third.survey == "deep" and third.image_ids == tuple(images)
    members = await rig.pool.fetch("SELECT * FROM stack_members WHERE stack_id = $1", third.stack_id)
    assert {row["solution_id"] for row in members if row["image_id"] == images[0]} == {solution_id}
    stale = {event.stack_id: event for event in await rig.wait_for(StackStale, count=2)}
    assert set(stale) == {event.stack_id for event in first.values()}
    assert "700p was solved again, version 2 counts: measured anew" in stale[first["keeps"].stack_id].why
    await seen(rig, "nothing new%", "keeps")
    # The one that was made anew is stale no more, for people: the other one is.
    listed = await staleness.stale_stacks(rig.pool)
    assert [row["stack_id"] for row in listed] == [first["keeps"].stack_id]


async def test_a_stack_goes_stale_once_for_each_cause_and_fresh_again(
    rig: Rig, exposures: list[Exposure]
) -> None:
    await rig.start("stack", SETTINGS, compose)
    images = [await seed_image(rig, exposure) for exposure in exposures[:3]]
    await rig.publish(StackRequested(request_id="r1", selection=RULES))
    (planned,) = await rig.wait_for(StackPlanned)
    await graded(rig, images[1], "D", "person:ann")
    (event,) = await rig.wait_for(StackStale)
    assert (event.stack_id, event.image_id) == (planned.stack_id, images[1])
    assert event.why == "701p is not selected any more by `grades`: D by person:ann"
    # Again D, and again: the same cause. Another image's grade that is good enough: none.
    await graded(rig, images[1], "D", "person:bob")
    await graded(rig, images[0], "C", "person:ann")
    await solved_again(rig, images[1])
    await rig.wait_for(StackStale, count=2)
    await heard(rig, 4)
    row = await rig.pool.fetchrow("SELECT * FROM stacks")
    assert row is not None and row["stale_since"] is not None
    assert [(one["image_id"], one["cause"]) for one in row["stale_reasons"]] == [
        (images[1], "grades"),
        (images[1], "solution"),
    ]
    assert "person:bob" in row["stale_reasons"][0]["why"]
    await graded(rig, images[1], "A", "person:bob")
    await rig.until("SELECT jsonb_array_length(stale_reasons) = 1 FROM stacks")
    assert len(await rig.events(StackStale)) == 2
    # Where the older solution counts again, it would come out as it did.
    solutions = await rig.pool.fetch(
        "SELECT solution_id, superseded_by FROM solutions WHERE image_id = $1 ORDER BY version NULLS FIRST",
        images[1],
    )
    await rig.pool.execute(
        "UPDATE solutions SET superseded_by = NULL WHERE solution_id = $1", solutions[0]["solution_id"]
    )
    await rig.pool.execute(
        "UPDATE solutions SET superseded_by = $2 WHERE solution_id = $1",
        solutions[1]["solution_id"],
        solutions[0]["solution_id"],
    )
    await say_calibrated(rig, images[1])
    await rig.until("SELECT stale_since IS NULL AND stale_reasons = '[]' FROM stacks")


async def test_what_changed_while_a_stack_was_planned_is_found(rig: Rig, exposures: list[Exposure]) -> None:
    images = [await seed_image(rig, exposure) for exposure in exposures[:2]]
    await rig.publish(StackRequested(request_id="r1", selection=RULES))
    stop = await rig.start("stack", SETTINGS, compose)
    await rig.wait_for(StackPlanned)
    stop.set()
    # Its event was handled before the stack stood in the store: nobody heard of it afterwards.
    await seed_grade(rig, images[0], "D", "person:ann")
    await rig.start("stack", SETTINGS, compose)
    (event,) = await rig.wait_for(StackStale)
    assert event.image_id == images[0]


async def run(rig: Rig, *arguments: str) -> Ended:
    return await spica("survey", *arguments, settings=rig.settings, home=rig.data.root.parent)


async def test_what_people_do_with_surveys(rig: Rig, exposures: list[Exposure], tmp_path: Path) -> None:
    images = [await seed_image(rig, exposure) for exposure in exposures[:3]]
    empty = await run(rig, "list")
    assert empty.code == 0 and "No survey stands" in empty.out
    added = await run(
        rig, "add", "deep", "--filter", "r.MP9601", "--object", "F1", "--min-exposures", "4", "--paused",
        "--set", "selection.airmass_max=1.5", "--json",
    )  # fmt: skip
    assert added.json["request"]["selection"] == {"filter": "r.MP9601", "object": "F1", "airmass_max": 1.5}
    for arguments, words in (
        (("add", "deep"), "survey_exists"),
        (("add", "bad name"), "no name"),
        (("add", "x", "--set", "selection.airmas_max=1"), "airmass_max"),
        (("add", "x", "--set", "replaces=s1"), "leave it out"),
        (("show", "deeper"), "There are: deep."),
        (("rebuild",), "--stale"),
        (("rebuild", "nobody"), "nobody"),
    ):
        ended = await run(rig, *arguments)
        assert ended.code == 2, (arguments, ended.out, ended.err)
        assert words in ended.err or words == "survey_exists", ended.err
    missing = await run(rig, "run", "deep")
    assert missing.code == 0 and "3 of 4 exposures, 1 missing" in missing.out
    listed = await run(rig, "list")
    assert "paused" in listed.out and "3 of 4 exposures, 1 missing" in listed.out

    fourth = await seed_image(rig, exposures[3])
    ran = await run(rig, "run", "deep", "--json")
    assert (ran.json["state"], ran.json["n_selected"]) == ("asked", 4)
    assert (await run(rig, "run", "deep", "--json")).json["state"] == "unchanged"
    await rig.start("stack", SETTINGS, compose)
    (planned,) = await rig.wait_for(StackPlanned)
    assert planned.image_ids == (*images, fourth) and planned.request_id == ran.json["request_id"]
    anyway = await run(rig, "run", "deep", "--anyway", "--json")
    assert anyway.json["request_id"] != ran.json["request_id"]
    again = (await rig.wait_for(StackPlanned, count=2))[1]

    shown = await run(rig, "show", "deep")
    assert shown.code == 0 and again.stack_id in shown.out and "paused" in shown.out
    # Resumed, it hears of what changed meanwhile.
    await graded(rig, fourth, "D", "person:ann")
    await rig.wait_for(StackStale, count=2)
    rebuilt = await run(rig, "rebuild", "--stale", "--json")
    assert [one["left_to_survey"] for one in rebuilt.json] == [None], "a paused survey makes nothing anew"
    (request,) = await rig.wait_for(
        StackRequested, where=lambda one: one.request_id == rebuilt.json[0]["request_id"]
    )
    assert request.replaces == again.stack_id
    assert (await run(rig, "rebuild", "--stale", "--dry-run")).code == 0
    assert (await run(rig, "resume", "deep")).out == "Survey deep looks now.\n"
    await seen(rig, "3 of 4 exposures, 1 missing.%")
    assert (await run(rig, "pause", "deep", "--json")).json == {"name": "deep", "active": False}
    assert (await run(rig, "remove", "deep")).code == 0
    assert await rig.pool.fetchval("SELECT count(*) FROM surveys") == 0
    assert (await run(rig, "remove", "deep")).code == 2


NOBODY_CAN_READ = {"selection": {"airmass_max": "many"}}


async def test_what_stands_in_the_store_and_cannot_be_read_stops_nothing_else(
    rig: Rig, exposures: list[Exposure]
) -> None:
    """A survey and a stack of another version: news of images are handled, and the service lives."""
    images = [await seed_image(rig, exposure) for exposure in exposures[:2]]
    await insert(rig, "surveys", {"name": "broken", "request": NOBODY_CAN_READ, "debounce_s": 0.1})
    await planned_by_hand(rig, "old", images, request=NOBODY_CAN_READ)
    await rig.start("stack", SETTINGS, compose)
    await add(rig, "good")
    await rig.wait_for(StackPlanned)
    await seed_image(rig, exposures[2])
    await graded(rig, images[0], "D", "person:ann")
    await say_calibrated(rig, images[1])
    await rig.until(
        "SELECT count(*) = 2 FROM activities WHERE service = 'stack' AND subject IN ('image.graded', 'image.calibrated')"
    )
    await rig.wait_for(StackPlanned, count=2)
    assert await rig.pool.fetchval("SELECT count(*) FROM dead_letters") == 0
    # Whoever looks at the list sees why it does nothing.
    await rig.until("SELECT last_seen LIKE 'A fault inside Spica%' FROM surveys WHERE name = 'broken'")


async def test_a_survey_that_the_store_refuses_does_not_keep_the_others_waiting(
    rig: Rig, exposures: list[Exposure]
) -> None:
    for exposure in exposures[:2]:
        await seed_image(rig, exposure)
    await add(rig, "first")
    await rig.pool.execute(
        "CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'not this one'; END $$ LANGUAGE plpgsql"
    )
    await rig.pool.execute(
        "CREATE TRIGGER refuse BEFORE UPDATE ON surveys FOR EACH ROW WHEN (OLD.name = 'first') EXECUTE FUNCTION refuse()"
    )
    await add(rig, "second")
    await rig.start("stack", SETTINGS, compose)
    (planned,) = await rig.wait_for(StackPlanned, timeout_s=15)
    assert planned.survey == "second"


async def test_what_was_planned_counts_and_not_what_was_asked_for_a_moment_before(
    rig: Rig, exposures: list[Exposure]
) -> None:
    """An image came between asking and planning, and is found bad later: its stack is not what the rules say."""
    images = [await seed_image(rig, exposure) for exposure in exposures[:2]]
    await add(rig)
    first = await surveys.look(rig.pool, SETTINGS, "deep")
    assert first is not None and (first.state, first.n_selected) == ("asked", 2)
    late = await seed_image(rig, exposures[2])
    await rig.start("stack", SETTINGS, compose)
    (planned,) = await rig.wait_for(StackPlanned)
    assert set(planned.image_ids) == {*images, late}
    await graded(rig, late, "D", "person:ann")
    (_, again) = await rig.wait_for(StackPlanned, count=2)
    assert (set(again.image_ids), again.survey) == (set(images), "deep")


async def planned_by_hand(rig: Rig, stack_id: str, images: list[str], **changes: Any) -> None:
    """A stack in the store, planned of these images as they are."""
    row = {
        "stack_id": stack_id, "request_id": f"r-{stack_id}", "name": stack_id, "filter": "r.MP9601",
        "state": "calibrated", "request": {"selection": RULES.model_dump(exclude_unset=True)}, "combine": "weighted_mean",
        "requested_at": datetime(2026, 1, 1, tzinfo=UTC),
        "grid": Grid(
            crval_ra_deg=214.0, crval_dec_deg=52.5, crpix_x=50, crpix_y=50, width_px=100, height_px=100,
            pixel_scale_arcsec=0.2,
        ).model_dump(),
    }  # fmt: skip
    await insert(rig, "stacks", row | changes)
    for ordinal, image_id in enumerate(images):
        solution_id = await rig.pool.fetchval(
            "SELECT solution_id FROM solutions WHERE image_id = $1 AND superseded_by IS NULL", image_id
        )
        member = {
            "stack_id": stack_id,
            "image_id": image_id,
            "ordinal": ordinal,
            "selected": True,
            "rule": "all",
        }
        await insert(rig, "stack_members", {**member, "solution_id": solution_id})


@pytest.mark.parametrize("by_survey", [True, False], ids=["its own rebuild", "another's"])
async def test_a_stack_that_is_replaced_before_it_is_made_is_not_waited_for(
    rig: Rig, exposures: list[Exposure], by_survey: bool
) -> None:
    images = [await seed_image(rig, exposure) for exposure in exposures[:2]]
    await add(
        rig, combine="weighted_mean", solutions="own", centre=Pointing(ra_deg=214.0, dec_deg=52.5),
        width_px=100, height_px=100,
    )  # fmt: skip
    asked_for = await surveys.look(rig.pool, SETTINGS, "deep")
    assert asked_for is not None
    request = {"combine": "weighted_mean", "solutions": "own", "survey": "deep"}
    await planned_by_hand(rig, "s1", images, request_id=asked_for.request_id, survey="deep", request=request)
    third = await seed_image(rig, exposures[2])
    waits = await surveys.look(rig.pool, SETTINGS, "deep")
    assert waits is not None and waits.state == "waits"
    # A person has it made anew meanwhile: nobody goes on with it.
    await planned_by_hand(
        rig, "s2", [*images, third], replaces="s1", survey="deep" if by_survey else None, request=request
    )
    looked = await surveys.look(rig.pool, SETTINGS, "deep")
    assert looked is not None
    if by_survey:
        assert (looked.state, looked.words) == ("unchanged", "nothing new: 3 exposures")
        await seed_image(rig, exposures[3])
        more = await surveys.look(rig.pool, SETTINGS, "deep")
        assert more is not None and "waits until s2 is made" in more.words
    else:
        assert (looked.state, looked.extends) == ("asked", None)


async def test_stacks_that_others_were_made_instead_of_are_left_in_peace(
    rig: Rig, exposures: list[Exposure]
) -> None:
    """A survey of many nights leaves many stacks behind: a grade is told of the one that stands."""
    images = [await seed_image(rig, exposure) for exposure in exposures[:2]]
    await planned_by_hand(rig, "s1", images, state="exported")
    await planned_by_hand(rig, "s2", images, state="exported", replaces="s1")
    await planned_by_hand(rig, "s3", images, state="exported", replaces="s2")
    await planned_by_hand(rig, "s4", images, state="planned", replaces="s3")
    await rig.start("stack", SETTINGS, compose)
    await graded(rig, images[1], "D", "person:ann")
    await heard(rig, 1)
    told = {event.stack_id for event in await rig.wait_for(StackStale, count=2)}
    assert told == {"s3", "s4"}, "s4 is not made yet, and may never be"
