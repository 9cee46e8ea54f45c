"""Stacks made in parts: by one or several, killed or not, a stack is made once and has the same bytes."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from spica_proto.base import Pointing, Product
from spica_proto.stacks import (
    StackCoadded,
    StackFailed,
    StackPartWanted,
    StackPlanned,
    StackProgress,
    StackRequested,
)
from spica_runtime.deadletters import resend
from spica_runtime.storage import DataFolder, sha256_of
from spica_stack.service import compose
from spica_stack.settings import StackSettings

from tests.support.nodes import node_settings
from tests.support.realdata import peer_program
from tests.support.rig import Rig
from tests.support.seeding import insert, seed_image
from tests.support.stackprocess import StackProcess, calibrate, copied, solved
from tests.unit.stack.field import Exposure, write_exposure
from tests.unit.stack.sky import CENTRE, scattered_stars

SETTINGS = StackSettings(
    workers=1,
    concurrency=3,
    retry_delays_s=(0.05, 0.2),
    max_attempts=30,
    background_mesh_px=48,
    shutdown_grace_s=5,
    whole_below_megasamples=0,
    tile_megasamples=0.1,
)
WHOLE = SETTINGS.model_copy(update={"whole_below_megasamples": 1000})
WIDTH, HEIGHT = 400, 2200
"""Wider and higher than the exposures: the outermost tiles see none of them."""
N_EXPOSURES = 4
COLD_S = 150.0
"""The first stack of all may find no kernel compiled."""
HIGHER = 5_000
DONE_ANEW = "SELECT count(done_at) FROM stack_parts JOIN stacks USING (stack_id) WHERE plan -> 'making' ->> 'token' = 'anew'"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Exposure]]:
    """Some exposures of one field; copied into the data folder of each test."""
    root = tmp_path_factory.mktemp("field")
    rng = np.random.default_rng(5)
    stars = scattered_stars(rng, 30, 150, flux=(50, 2000))
    return root, [write_exposure(root / "images", k, stars, rng, side=192) for k in range(N_EXPOSURES)]


@pytest.fixture
def exposures(rig: Rig, written: tuple[Path, list[Exposure]]) -> list[Exposure]:
    return copied(rig, written)


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    """Ends what a test started."""
    with ExitStack() as stack:
        yield stack


def request(name: str = "r1", **changes: Any) -> StackRequested:
    centre = Pointing(ra_deg=CENTRE[0], dec_deg=CENTRE[1])
    shape = {"width_px": WIDTH, "height_px": HEIGHT, "pixel_scale_arcsec": 0.2}
    return StackRequested(request_id=name, centre=centre, **{**shape, **changes})


async def plan(
    rig: Rig, exposures: list[Exposure], **changes: Any
) -> tuple[StackPlanned, dict[str, Exposure]]:
    """Images in the store, and a stack planned of them by a service that is stopped again."""
    images = {await seed_image(rig, exposure): exposure for exposure in exposures}
    stop = await rig.start("stack", SETTINGS, compose)
    await rig.publish(request(**changes))
    (planned,) = await rig.wait_for(StackPlanned)
    stop.set()
    return planned, images


def products(coadded: StackCoadded) -> dict[str, Product]:
    found = {role: getattr(coadded, role) for role in ("image", "weight", "exposures", "rejected", "sums")}
    return {role: product for role, product in found.items() if product is not None}


def process(rig: Rig, processes: ExitStack, log: Path) -> StackProcess:
    made = StackProcess(rig.settings, SETTINGS, log)
    processes.callback(made.stop)
    made.start()
    return made


async def tiles(rig: Rig) -> int:
    """How many there are."""
    return int(await rig.pool.fetchval("SELECT count(*) FROM stack_parts WHERE step = 'tile'"))


async def no_traces(rig: Rig, planned: StackPlanned, made: dict[str, Product]) -> None:
    """Nothing is left but the products, and these are the files that the store names."""
    folder = rig.data.path(f"stacks/{planned.stack_id}")
    wanted = {Path(product.path).name for product in made.values()}
    for _ in range(100):
        if {path.name for path in folder.iterdir()} == wanted:
            break
        await asyncio.sleep(0.1)
    found = {path.name for path in folder.iterdir()}
    assert {name for name in found if not name.startswith(".part-")} == wanted
    for product in made.values():
        assert sha256_of(rig.data.path(product.path)) == product.sha256
    assert await rig.pool.fetchval("SELECT count(*) FROM stack_parts WHERE done_at IS NULL") == 0
    assert await rig.pool.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_a_stack_in_parts_has_the_bytes_of_one_made_whole(rig: Rig, exposures: list[Exposure]) -> None:
    planned, images = await plan(rig, exposures)
    stop = await rig.start("stack", WHOLE, compose)
    await calibrate(rig, planned, images)
    (whole,) = await rig.wait_for(StackCoadded, timeout_s=COLD_S)
    assert set(products(whole)) == {"image", "weight", "exposures", "rejected"}
    assert [(part.step, part.number, part.of) for part in await rig.events(StackPartWanted)] == [
        ("assemble", 0, 1)
    ]
    stop.set()

    heard: list[StackProgress] = []

    async def on_message(message: Any) -> None:
        heard.append(StackProgress.model_validate_json(message.data))

    await rig.bus.nc.subscribe("progress.stack", cb=on_message)
    await rig.start("stack", SETTINGS, compose)
    await rig.publish(solved(planned))
    (_, parts) = await rig.wait_for(StackCoadded, count=2, timeout_s=COLD_S)
    assert products(parts) == products(whole)
    assert parts == whole
    await no_traces(rig, planned, products(parts))

    n_tiles = await tiles(rig)
    assert n_tiles > 5
    asked = [(part.step, part.number, part.of) for part in (await rig.events(StackPartWanted))[1:]]
    assert asked == [
        *(("prepare", number, N_EXPOSURES) for number in range(N_EXPOSURES)),
        *(("tile", number, n_tiles) for number in range(n_tiles)),
        ("assemble", 0, 1),
    ]
    rows = await rig.pool.fetch("SELECT * FROM stack_parts ORDER BY step, number")
    assert len(rows) == len(asked)
    assert all(row["host"] and row["elapsed_s"] >= 0 for row in rows)
    assert all(len(row["sha256"]) == 64 and row["path"] for row in rows if row["step"] != "assemble")

    for _ in range(100):
        if heard and heard[-1].ended:
            break
        await asyncio.sleep(0.1)
    assert heard[-1].ended and {told.stack_id for told in heard} == {planned.stack_id}
    assert {told.step for told in heard} <= {"prepare", "tile", "assemble"}
    steps = [("prepare", "tile", "assemble").index(told.step) for told in heard]
    assert steps == sorted(steps)

    kept = await rig.pool.fetchval("SELECT result -> 'coadd' FROM stacks")
    for role, product in products(parts).items():
        assert Product.model_validate(kept[role]) == product
    assert kept["members"] == list(planned.image_ids)
    assert (kept["n_exposures"], kept["rejected_pixels"]) == (N_EXPOSURES, parts.rejected_pixels)
    assert set(kept["elapsed_s"]) >= {"assemble"}


async def test_provenance_is_that_of_the_whole_stack(rig: Rig, exposures: list[Exposure]) -> None:
    planned, images = await plan(rig, exposures)
    await rig.start("stack", SETTINGS, compose)
    await calibrate(rig, planned, images)
    (coadded,) = await rig.wait_for(StackCoadded, timeout_s=COLD_S)
    activities = await rig.pool.fetch(
        "SELECT a.activity_id, a.configuration, a.log FROM activities a JOIN was_generated_by USING (activity_id) "
        "WHERE a.about = $1 AND a.subject = 'stack.part_wanted' GROUP BY a.activity_id",
        planned.stack_id,
    )
    assert len(activities) == 1, "the products are made by one activity"
    (activity,) = activities
    used = await rig.pool.fetch(
        "SELECT path, role FROM used JOIN products USING (product_id) WHERE activity_id = $1",
        activity["activity_id"],
    )
    assert {exposure.files.image.name for exposure in images.values()} <= {
        Path(row["path"]).name for row in used
    }
    made = await rig.pool.fetch(
        "SELECT path, sha256 FROM was_generated_by JOIN products USING (product_id) WHERE activity_id = $1",
        activity["activity_id"],
    )
    assert {(row["path"], row["sha256"]) for row in made} == {
        (product.path, product.sha256) for product in products(coadded).values()
    }
    assert activity["configuration"]["clip_sigma"] == 4.0
    assert activity["configuration"]["resampling"] == "lanczos3"


@pytest.mark.slow
async def test_killed_at_random_moments_it_is_made_once_with_the_same_bytes(
    rig: Rig, exposures: list[Exposure], processes: ExitStack, tmp_path: Path
) -> None:
    planned, images = await plan(rig, exposures, height_px=HIGHER)
    service = process(rig, processes, tmp_path / "stack.log")
    await calibrate(rig, planned, images)
    (undisturbed,) = await rig.wait_for(StackCoadded, timeout_s=COLD_S)
    service.stop()

    chance = random.Random(11)
    await rig.publish(solved(planned), event_id="anew")
    total = await rig.pool.fetchval("SELECT count(*) FROM stack_parts")
    # Before anything is done, while members are prepared, between steps, and in the midst of tiles.
    moments = sorted(
        [0, 1, N_EXPOSURES, N_EXPOSURES + 1, *chance.sample(range(N_EXPOSURES + 2, total - 1), 6)]
    )
    seen = []
    for moment in moments:
        service = process(rig, processes, tmp_path / "stack.log")
        await rig.until(f"SELECT ({DONE_ANEW}) >= $1", moment, timeout_s=60)
        await asyncio.sleep(chance.uniform(0.0, 0.1))
        if chance.random() < 0.3:
            service.kill_a_worker()
            await asyncio.sleep(chance.uniform(0.0, 0.3))
        service.kill()
        seen.append(await rig.pool.fetchval(DONE_ANEW))
    process(rig, processes, tmp_path / "stack.log")
    (_, again) = await rig.wait_for(StackCoadded, count=2, timeout_s=COLD_S)
    assert sum(done < total for done in seen) >= 6, f"of {total} parts were done at the kills: {seen}"
    assert products(again) == products(undisturbed)
    await no_traces(rig, planned, products(again))
    await rig.until("SELECT count(*) = 0 FROM attempts", timeout_s=60)
    assert len(await rig.events(StackCoadded)) == 2
    # Every part counted once, though some were done more than once.
    assert await rig.pool.fetchval("SELECT count(done_at) FROM stack_parts") == total


@pytest.mark.slow
async def test_three_services_share_the_parts_and_give_the_same_bytes(
    rig: Rig, exposures: list[Exposure], processes: ExitStack, tmp_path: Path
) -> None:
    planned, images = await plan(rig, exposures)
    alone = process(rig, processes, tmp_path / "stack.log")
    await calibrate(rig, planned, images)
    (by_one,) = await rig.wait_for(StackCoadded, timeout_s=COLD_S)
    alone.stop()

    logs = [tmp_path / f"{number}.log" for number in range(3)]
    for log in logs:
        process(rig, processes, log)
    await rig.until(
        "SELECT count(*) = 3 FROM node_services WHERE service = 'stack' AND seen_at > now() - interval '5 s'",
        timeout_s=60,
    )
    await rig.publish(solved(planned))
    (_, by_three) = await rig.wait_for(StackCoadded, count=2, timeout_s=COLD_S)
    assert products(by_three) == products(by_one)
    await no_traces(rig, planned, products(by_three))
    assert len(await rig.events(StackCoadded)) == 2
    shares = [
        log.read_text().count(" result='tile ") + log.read_text().count('"result": "tile ') for log in logs
    ]
    assert sum(shares) == await tiles(rig)
    assert sorted(shares)[1] > 0, f"tiles done by each: {shares}"


async def test_parts_that_come_twice_do_no_harm(rig: Rig, exposures: list[Exposure]) -> None:
    planned, images = await plan(rig, exposures)
    await rig.start("stack", SETTINGS, compose)
    await calibrate(rig, planned, images)
    await rig.wait_for(StackPartWanted, count=N_EXPOSURES + 1)
    # As anybody may publish them, with ids of their own; some too early, some too late, and one that there is not.
    for part in await rig.events(StackPartWanted):
        await rig.publish(part)
    await rig.publish(
        StackPartWanted(stack_id=planned.stack_id, name=planned.name, step="assemble", number=0, of=1)
    )
    await rig.publish(
        StackPartWanted(stack_id=planned.stack_id, name=planned.name, step="tile", number=999, of=1000)
    )
    (first,) = await rig.wait_for(StackCoadded, timeout_s=COLD_S)
    await rig.until(
        "SELECT count(*) = 0 FROM outbox WHERE sent_at IS NULL AND subject = 'stack.part_wanted'",
    )
    for part in (await rig.events(StackPartWanted))[:3]:
        await rig.publish(part)
    sent = len(await rig.events(StackPartWanted))
    await rig.until(
        "SELECT count(*) = $1 FROM inbox WHERE service = 'stack' AND subject = 'stack.part_wanted'", sent
    )
    assert await rig.events(StackCoadded) == [first]
    await no_traces(rig, planned, products(first))
    told = await rig.pool.fetch("SELECT outcome FROM activities WHERE subject = 'stack.part_wanted'")
    said = " / ".join(row["outcome"] for row in told)
    assert "not done: stack is made already" in said
    assert "not done: not wanted any more" in said
    await rig.publish(StackPartWanted(stack_id="nobody's", name="x", step="tile", number=0, of=1))
    assert (await rig.wait_for(StackFailed))[0].code == "unknown_stack"


async def test_a_broken_member_fails_the_stack_and_sent_again_only_what_is_missing_is_done(
    rig: Rig, exposures: list[Exposure]
) -> None:
    planned, images = await plan(rig, exposures)
    weight = exposures[1].files.weight
    sound = weight.read_bytes()
    weight.write_bytes(b"this is no FITS file")
    await rig.start("stack", SETTINGS, compose)
    await calibrate(rig, planned, images)
    (failed,) = await rig.wait_for(StackFailed)
    assert (failed.code, failed.stack_id, failed.heard) == (
        "input_unreadable",
        planned.stack_id,
        "stack.part_wanted",
    )
    assert weight.name in failed.message
    await rig.until("SELECT state = 'failed' FROM stacks")
    # The other members are prepared, or were put aside since the stack had failed by then.
    await rig.until(
        "SELECT count(*) = $1 FROM inbox WHERE service = 'stack' AND subject = 'stack.part_wanted'",
        N_EXPOSURES,
    )
    before = {
        row["number"]: row["done_at"]
        for row in await rig.pool.fetch("SELECT number, done_at FROM stack_parts WHERE step = 'prepare'")
    }
    assert before[1] is None
    await asyncio.sleep(0.5)
    assert len(await rig.events(StackPartWanted)) == N_EXPOSURES, "nothing follows while it has failed"

    weight.write_bytes(sound)
    assert failed.dead_letter_id is not None
    await resend(rig.pool, failed.dead_letter_id)
    (coadded,) = await rig.wait_for(StackCoadded, timeout_s=COLD_S)
    assert coadded.n_exposures == N_EXPOSURES
    after = {
        row["number"]: row["done_at"]
        for row in await rig.pool.fetch("SELECT number, done_at FROM stack_parts WHERE step = 'prepare'")
    }
    assert all(after[number] == moment for number, moment in before.items() if moment is not None)
    assert all(after.values())
    state, failure = await rig.pool.fetchrow("SELECT state, result -> 'failure' FROM stacks")  # type: ignore[misc]
    assert (state, failure) == ("coadded", None)
    assert len(await rig.events(StackCoadded)) == 1


async def test_members_that_fail_together_are_all_to_be_sent_again(
    rig: Rig, exposures: list[Exposure]
) -> None:
    """One letter sent again does not make a stack go on whose other member is still broken."""
    planned, images = await plan(rig, exposures)
    sound = {number: exposures[number].files.weight.read_bytes() for number in (0, 1)}
    for number in sound:
        exposures[number].files.weight.write_bytes(b"this is no FITS file")
    # Two failures before the first is heard of: the service that hears of failures is away.
    await rig.start("stack", SETTINGS.model_copy(update={"workers": 2}), compose)
    await calibrate(rig, planned, images)
    failures = await rig.wait_for(StackFailed, count=1)
    await rig.until(
        "SELECT count(*) = $1 FROM inbox WHERE service = 'stack' AND subject = 'stack.part_wanted'",
        N_EXPOSURES,
    )
    await rig.until("SELECT state = 'failed' FROM stacks")
    failures = await rig.events(StackFailed)
    for number, content in sound.items():
        exposures[number].files.weight.write_bytes(content)
    for failure in failures:
        assert failure.dead_letter_id is not None
        await resend(rig.pool, failure.dead_letter_id)
    (coadded,) = await rig.wait_for(StackCoadded, timeout_s=COLD_S)
    assert coadded.n_exposures == N_EXPOSURES
    assert await rig.pool.fetchval("SELECT count(*) FROM stack_parts WHERE done_at IS NULL") == 0


async def test_files_of_parts_that_are_gone_are_made_once_more(rig: Rig, exposures: list[Exposure]) -> None:
    planned, images = await plan(rig, exposures)
    stop = await rig.start("stack", SETTINGS, compose)
    await calibrate(rig, planned, images)
    (first,) = await rig.wait_for(StackCoadded, timeout_s=COLD_S)
    stop.set()
    # As if it stood before its last step, and the disk had lost what was done before.
    shutil.rmtree(rig.data.path(f"stacks/{planned.stack_id}/.parts"), ignore_errors=True)
    await rig.pool.execute("UPDATE stack_parts SET done_at = NULL WHERE step = 'assemble'")
    await rig.pool.execute(
        "UPDATE stacks SET plan = jsonb_set(plan, '{making,ended}', 'false'), state = 'calibrated'"
    )
    await rig.start("stack", SETTINGS, compose)
    await rig.publish(
        StackPartWanted(stack_id=planned.stack_id, name=planned.name, step="assemble", number=0, of=1)
    )
    (_, again) = await rig.wait_for(StackCoadded, count=2, timeout_s=COLD_S)
    assert products(again) == products(first)
    log = await rig.pool.fetch("SELECT outcome FROM activities WHERE outcome LIKE '%are missing'")
    assert len(log) >= 1


@pytest.mark.parametrize("how", ["replaced", "failed", "planned"])
async def test_parts_of_a_stack_that_is_no_longer_wanted_are_dropped_with_a_word(
    rig: Rig, exposures: list[Exposure], how: str
) -> None:
    planned, images = await plan(rig, exposures)
    stop = await rig.start("stack", SETTINGS, compose)
    await calibrate(rig, planned, images)
    (first,) = await rig.wait_for(StackCoadded, timeout_s=COLD_S)
    stop.set()
    await rig.pool.execute("UPDATE stack_parts SET done_at = NULL WHERE step = 'tile'")
    await rig.pool.execute(
        "UPDATE stacks SET plan = jsonb_set(plan, '{making,ended}', 'false'), state = 'calibrated'"
    )
    if how == "replaced":
        row = dict(
            (await rig.pool.fetchrow("SELECT request, requested_at, grid, filter, combine FROM stacks")) or {}
        )
        await insert(
            rig,
            "stacks",
            {
                **row,
                "stack_id": "newer",
                "request_id": "r2",
                "name": "n",
                "state": "planned",
                "replaces": planned.stack_id,
            },
        )
    else:
        await rig.pool.execute("UPDATE stacks SET state = $1", how)
    await rig.start("stack", SETTINGS, compose)
    n_tiles = await tiles(rig)
    before = await rig.pool.fetchval("SELECT count(*) FROM inbox WHERE service = 'stack'")
    for number in range(3):
        await rig.publish(
            StackPartWanted(
                stack_id=planned.stack_id, name=planned.name, step="tile", number=number, of=n_tiles
            )
        )
    await rig.until("SELECT count(*) = $1 FROM inbox WHERE service = 'stack'", before + 3)
    told = await rig.pool.fetch(
        "SELECT outcome FROM activities WHERE subject = 'stack.part_wanted' ORDER BY started_at DESC LIMIT 3"
    )
    words = {
        "replaced": "stack is replaced by newer",
        "failed": "stack has failed",
        "planned": "stack is planned",
    }
    assert all(words[how] in row["outcome"] for row in told), [row["outcome"] for row in told]
    assert (
        await rig.pool.fetchval("SELECT count(*) FROM stack_parts WHERE step = 'tile' AND done_at IS NULL")
        == n_tiles
    )
    assert await rig.events(StackCoadded) == [first]


async def test_a_stack_that_is_begun_anew_takes_nothing_of_the_time_before(
    rig: Rig, exposures: list[Exposure]
) -> None:
    """Its members were solved anew: what was made with the old solutions has no effect."""
    planned, images = await plan(rig, exposures)
    stop = await rig.start("stack", SETTINGS, compose)
    await calibrate(rig, planned, images)
    await rig.until("SELECT count(done_at) >= 2 FROM stack_parts")
    head = exposures[0].files.head
    head.write_text(head.read_text().replace("FLXSCALE=", "FLXSCALX="))
    await rig.pool.execute(
        "UPDATE solutions SET flux_scale = flux_scale * 2 WHERE image_id = $1", planned.image_ids[0]
    )
    await rig.publish(solved(planned))
    await rig.until("SELECT count(*) = 2 FROM inbox WHERE subject = 'stack.calibrated' AND service = 'stack'")
    token = await rig.pool.fetchval("SELECT plan -> 'making' ->> 'token' FROM stacks")
    coadded = (await rig.wait_for(StackCoadded, timeout_s=COLD_S))[-1]
    await rig.until("SELECT (plan -> 'making' ->> 'ended')::boolean FROM stacks")
    stop.set()
    assert await rig.pool.fetchval("SELECT plan -> 'making' ->> 'token' FROM stacks") == token
    await asyncio.sleep(0.2)
    coadded = (await rig.events(StackCoadded))[-1]
    shutil.rmtree(rig.data.path(f"stacks/{planned.stack_id}"))
    await rig.start("stack", WHOLE, compose)
    n_before = len(await rig.events(StackCoadded))
    await rig.publish(solved(planned))
    fresh = (await rig.wait_for(StackCoadded, count=n_before + 1, timeout_s=COLD_S))[-1]
    assert products(fresh) == products(coadded)


async def test_a_stack_that_goes_on_from_another_works_on_what_it_adds_alone(
    rig: Rig, exposures: list[Exposure]
) -> None:
    how = {"combine": "weighted_mean", "solutions": "own"}
    for exposure in exposures[:-1]:
        await seed_image(rig, exposure)
    await rig.start("stack", SETTINGS, compose)
    await rig.publish(request("base", **how))
    (base,) = await rig.wait_for(StackPlanned)
    await rig.publish(solved(base))
    (first,) = await rig.wait_for(StackCoadded, timeout_s=COLD_S)
    assert first.sums is not None and first.n_exposures == N_EXPOSURES - 1

    added = await seed_image(rig, exposures[-1])
    await rig.publish(request("more", extends=base.stack_id, **how))
    await rig.publish(request("all", **how))
    more, anew = sorted(
        (await rig.wait_for(StackPlanned, count=3))[1:], key=lambda plan: plan.request_id, reverse=True
    )
    assert more.extends == base.stack_id and more.image_ids == (*base.image_ids, added)
    for planned in (more, anew):
        await rig.publish(solved(planned))
    by_id = {event.stack_id: event for event in await rig.wait_for(StackCoadded, count=3, timeout_s=COLD_S)}
    extended, whole = by_id[more.stack_id], by_id[anew.stack_id]
    assert extended.n_exposures == whole.n_exposures == N_EXPOSURES
    prepared = [
        part.number
        for part in await rig.events(StackPartWanted)
        if part.step == "prepare" and part.stack_id == more.stack_id
    ]
    assert prepared == [N_EXPOSURES - 1]
    for role in ("image", "weight", "exposures"):
        pixels = [fits.getdata(rig.data.path(products(event)[role].path)) for event in (extended, whole)]
        assert np.array_equal(*pixels, equal_nan=True), role
    assert [gain.image_id for gain in extended.gains] == [added]
    assert extended.gains[0].depth_mag is not None and extended.gains[0].depth_mag > 0
    used = await rig.pool.fetch(
        "SELECT path FROM used JOIN products USING (product_id) JOIN activities USING (activity_id) WHERE about = $1",
        more.stack_id,
    )
    assert first.sums.path in {row["path"] for row in used}
    row = await rig.pool.fetchrow("SELECT extends, plan FROM stacks WHERE stack_id = $1", more.stack_id)
    assert row is not None and row["extends"] == base.stack_id
    assert row["plan"]["solutions"] == "own" and row["plan"]["processing"]["resampling"] == "lanczos3"


@pytest.mark.peer
async def test_another_engine_makes_all_of_it_in_one_part(rig: Rig, exposures: list[Exposure]) -> None:
    peer_program("SWarp", "swarp")
    planned, images = await plan(rig, exposures, engine="swarp", combine="median")
    assert planned.engine == "swarp"
    await rig.start("stack", SETTINGS, compose)
    await calibrate(rig, planned, images)
    (coadded,) = await rig.wait_for(StackCoadded, timeout_s=COLD_S)
    assert (coadded.engine, coadded.n_exposures) == ("swarp", N_EXPOSURES)
    assert [part.step for part in await rig.events(StackPartWanted)] == ["assemble"]
    await no_traces(rig, planned, products(coadded))


async def test_on_a_node_its_services_do_the_parts(rig: Rig, written: tuple[Path, list[Exposure]]) -> None:
    settings = node_settings(rig, "a")
    at_a = replace(rig, data=DataFolder(settings.data))
    exposures = copied(at_a, written)
    images = {await seed_image(at_a, exposure): exposure for exposure in exposures}
    await rig.start("stack", SETTINGS, compose, settings)
    await rig.pool.execute("UPDATE images SET node_id = 'a'")
    await rig.publish(request())
    (planned,) = await rig.wait_for(StackPlanned)
    await calibrate(at_a, planned, images)
    (coadded,) = await rig.wait_for(StackCoadded, timeout_s=COLD_S)
    await no_traces(at_a, planned, products(coadded))
    done = await rig.pool.fetchval("SELECT count(*) FROM activities WHERE subject = 'stack.part_wanted'")
    assert done == await rig.pool.fetchval("SELECT count(*) FROM stack_parts") > N_EXPOSURES + 1
    assert set(await rig.pool.fetchval("SELECT array_agg(node_id) FROM activities")) == {"a"}


async def test_parts_of_nobody_are_swept(rig: Rig, exposures: list[Exposure]) -> None:
    planned, images = await plan(rig, exposures)
    stop = await rig.start("stack", SETTINGS, compose)
    await calibrate(rig, planned, images)
    await rig.wait_for(StackCoadded, timeout_s=COLD_S)
    stop.set()
    folders = {
        name: rig.data.root / "stacks" / name / ".parts" for name in (planned.stack_id, "strange", "old")
    }
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tile-00000.part").write_bytes(b"x")
    os.utime(folders["old"], (1e9, 1e9))
    stop = await rig.start("stack", SETTINGS, compose)
    for _ in range(100):
        if not (folders["old"].exists() or folders[planned.stack_id].exists()):
            break
        await asyncio.sleep(0.05)
    assert [name for name, folder in folders.items() if folder.exists()] == ["strange"]
    stop.set()
    # A failed one is kept, until nobody will send it again.
    folders[planned.stack_id].mkdir()
    await rig.pool.execute(
        "UPDATE stacks SET state = 'failed', plan = '{}', updated_at = now() - interval '2 h'"
    )
    stop = await rig.start("stack", SETTINGS, compose)
    await asyncio.sleep(1.0)
    assert folders[planned.stack_id].exists()
    stop.set()
    await rig.start("stack", SETTINGS.model_copy(update={"keep_parts_h": 1.0}), compose)
    for _ in range(100):
        if not folders[planned.stack_id].exists():
            break
        await asyncio.sleep(0.05)
    assert not folders[planned.stack_id].exists()


async def half_made(rig: Rig, exposures: list[Exposure]) -> StackPlanned:
    """A stack whose tiles are done again but for the last, and that is not put together; its service is stopped."""
    planned, images = await plan(rig, exposures)
    stop = await rig.start("stack", SETTINGS, compose)
    await calibrate(rig, planned, images)
    await rig.wait_for(StackCoadded, timeout_s=COLD_S)
    stop.set()
    await rig.pool.execute("UPDATE stack_parts SET done_at = NULL WHERE step = 'assemble'")
    await rig.pool.execute(
        "UPDATE stack_parts SET done_at = NULL "
        "WHERE step = 'tile' AND number = (SELECT max(number) FROM stack_parts WHERE step = 'tile')"
    )
    await rig.pool.execute(
        "UPDATE stacks SET plan = jsonb_set(plan, '{making,ended}', 'false'), state = 'calibrated', result = '{}'"
    )
    return planned


async def test_what_was_put_aside_is_taken_up_though_the_part_sent_again_has_nothing_to_do(
    rig: Rig, exposures: list[Exposure]
) -> None:
    """A part failed, and another found files missing: these were asked for, but came to a stack that had failed."""
    planned = await half_made(rig, exposures)
    last = await tiles(rig) - 1
    part = {"stack_id": planned.stack_id, "name": planned.name}
    body = StackPartWanted(**part, step="tile", number=last, of=last + 1).model_dump_json()
    letter = {
        "dead_letter_id": "d1", "service": "stack", "event_id": "e1", "subject": "stack.part_wanted", "headers": {},
        "body": body, "code": "disk", "message": "The disk went away.", "attempts": 5,
    }  # fmt: skip
    await insert(rig, "dead_letters", letter)
    await rig.pool.execute(
        'UPDATE stacks SET state = \'failed\', result = \'{"failure": {"dead_letter_id": "d1"}}\''
    )
    await rig.pool.execute("UPDATE stack_parts SET done_at = NULL WHERE step = 'prepare' AND number = 0")
    await rig.start("stack", SETTINGS, compose)
    await rig.publish(StackPartWanted(**part, step="prepare", number=0, of=N_EXPOSURES))
    await rig.until("SELECT numbers ? 'put_aside' FROM stack_parts WHERE step = 'prepare' AND number = 0")
    await resend(rig.pool, "d1")
    await rig.wait_for(StackCoadded, count=2, timeout_s=COLD_S)
    assert await rig.pool.fetchval("SELECT state FROM stacks") == "coadded"


async def test_a_stack_in_work_goes_on_when_what_was_to_replace_it_fails(
    rig: Rig, exposures: list[Exposure]
) -> None:
    planned = await half_made(rig, exposures)
    row = dict(
        (await rig.pool.fetchrow("SELECT request, requested_at, grid, filter, combine FROM stacks")) or {}
    )
    newer = {"stack_id": "newer", "request_id": "r2", "name": "n", "state": "planned"}
    await insert(rig, "stacks", {**row, **newer, "replaces": planned.stack_id})
    await rig.start("stack", SETTINGS, compose)
    last = await tiles(rig) - 1
    await rig.publish(
        StackPartWanted(stack_id=planned.stack_id, name=planned.name, step="tile", number=last, of=last + 1)
    )
    await rig.until("SELECT count(*) = 1 FROM activities WHERE outcome LIKE '%stack is replaced by newer'")
    failure = {"stage": "calib", "code": "no_solution", "message": "None.", "heard": "stack.planned"}
    await rig.publish(StackFailed(stack_id="newer", dead_letter_id="d1", **failure))
    await rig.wait_for(StackCoadded, count=2, timeout_s=COLD_S)
    assert len(await rig.events(StackCoadded)) == 2
