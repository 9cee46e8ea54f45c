"""Images placed on nodes: two nodes with a data root each, on one machine."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from nats.js.errors import NotFoundError
from spica_proto import examples
from spica_proto.images import ImageArrived, ImageFailed, ImageVerified
from spica_proto.streams import NODE_STREAM, Consumer
from spica_runtime.errors import NotRetriable, UsageError
from spica_runtime.handling import Delivery, Outcome
from spica_runtime.nodes import open_node
from spica_runtime.service import Platform, Service, serve
from spica_runtime.settings import PlatformSettings, ServiceSettings
from spica_runtime.sorting import key_of
from spica_runtime.storage import DataFolder

from tests.support.rig import Rig

QUICK = ServiceSettings(retry_delays_s=(0.05,), max_attempts=2, shutdown_grace_s=5, concurrency=4)

KILLS = int(os.environ.get("SPICA_NODES_KILLS", "4"))
FLIPPED = 400


def node_settings(rig: Rig, name: str, **changes: object) -> PlatformSettings:
    """Settings of one node: its own data root, quick to be taken for dead."""
    return rig.settings.model_copy(
        update={
            "placement": "nodes",
            "node": name,
            "data": rig.settings.data / name,
            "node_heartbeat_s": 0.3,
            "node_dead_after_s": 2.0,
            "node_keep_s": 0.0,
            **changes,
        }
    )


def image_event(number: int) -> ImageVerified:
    return examples.VERIFIED.model_copy(update={"image_id": f"i{number}", "name": f"n{number}"})


async def add_image(rig: Rig, number: int, node: str | None, run: str = "run", filter: str = "r") -> None:
    await rig.pool.execute(
        """INSERT INTO images (image_id, name, sha256, size_bytes, path, profile, instrument, run, filter,
                               exposure_time_s, ra_deg, dec_deg, wcs, n_ccds, header, node_id)
           VALUES ($1, $2, $3, 1, $4, 'p', 'I', $5, $6, 60, 150, 2, 'full', 1, '{}', $7)""",
        f"i{number}",
        f"n{number}",
        f"{number:064d}",
        f"images/run/r/n{number}.fits",
        run,
        filter,
        node,
    )


async def add_node(rig: Rig, name: str, silent_s: float = 0.0) -> None:
    await rig.pool.execute(
        "INSERT INTO nodes (node_id, host, data_root, mode, marker, free_bytes, cores, seen_at)"
        " VALUES ($1, 'h', $2, 'nodes', $3, 1, 1, now() - make_interval(secs => $4))",
        name,
        f"/nowhere/{name}",
        f"marker of {name}",
        silent_s,
    )


class Recorder:
    """A service `quality` on several nodes that says which node handled what."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.handled: list[tuple[str, str]] = []
        self.begun: list[tuple[str, str]] = []
        self.go = asyncio.Event()
        self.go.set()
        self.fail = False

    async def start(self, node: str) -> asyncio.Event:
        async def verified(message: ImageVerified, _delivery: Delivery) -> Outcome:
            self.begun.append((node, message.image_id))
            await self.go.wait()
            if self.fail:
                raise NotRetriable("gone", "The file went away under my hands.")

            async def save(_transaction: object) -> None:
                self.handled.append((node, message.image_id))

            return Outcome(save=save, about=message.image_id)

        def compose(_platform: Platform[ServiceSettings]) -> Service:
            return Service(routes={"image.verified": verified})

        return await self.rig.start("quality", QUICK, compose, node_settings(self.rig, node))

    async def until_handled(self, count: int, timeout_s: float = 20) -> None:
        async with asyncio.timeout(timeout_s):
            while len(self.handled) < count:
                await asyncio.sleep(0.02)
        await self.rig.until("SELECT count(*) >= $1 FROM inbox", count)


async def waiting(rig: Rig, node: str) -> int:
    consumer = Consumer("quality", "image.verified")
    info = await rig.bus.js.consumer_info(NODE_STREAM, consumer.node_durable(node))
    return (info.num_pending or 0) + (info.num_ack_pending or 0)


async def test_each_node_handles_what_it_holds_and_nobody_handles_anything_twice(rig: Rig) -> None:
    quality = Recorder(rig)
    await quality.start("a")
    await quality.start("b")
    for number in range(40):
        await add_image(rig, number, "ab"[number % 2])
        await rig.publish(image_event(number))
    await quality.until_handled(40)
    assert Counter(quality.handled) == Counter(("ab"[number % 2], f"i{number}") for number in range(40))
    await asyncio.sleep(0.2)
    assert len(quality.handled) == 40
    assert [await waiting(rig, node) for node in "ab"] == [0, 0]


async def test_an_image_that_nobody_holds_is_handled_where_it_is_heard(rig: Rig) -> None:
    quality = Recorder(rig)
    await quality.start("a")
    await rig.publish(image_event(1))
    await quality.until_handled(1)
    await rig.publish(ImageArrived(uri="/x"))  # of another service: nothing here minds


async def test_what_moves_while_it_waits_is_sent_on(rig: Rig) -> None:
    quality = Recorder(rig)
    stop = await quality.start("a")
    for number in range(10):
        await add_image(rig, number, "a")
    quality.go.clear()
    for number in range(10):
        await rig.publish(image_event(number))
    async with asyncio.timeout(10):
        while len(quality.begun) < 4:  # the others stand in the queue
            await asyncio.sleep(0.02)
    await add_node(rig, "b")
    await rig.pool.execute("UPDATE images SET node_id = 'b'")
    quality.go.set()
    async with asyncio.timeout(10):
        while not await _queued_for(rig, "b", 10):
            await asyncio.sleep(0.05)
    # Neither what stood in the queue nor what was being worked on had any effect here.
    assert quality.handled == []
    left = await rig.pool.fetch("SELECT node_id, image_id FROM leftovers")
    assert {(row["node_id"], row["image_id"]) for row in left} == set(quality.begun)
    stop.set()
    await rig.pool.execute("UPDATE nodes SET marker = NULL WHERE node_id = 'b'")
    await quality.start("b")
    await quality.until_handled(10)
    assert Counter(quality.handled) == Counter(("b", f"i{number}") for number in range(10))


async def _queued_for(rig: Rig, node: str, count: int) -> bool:
    subject = Consumer("quality", "image.verified").node_subject(node)
    try:
        info = await rig.bus.js.stream_info(NODE_STREAM, subjects_filter=subject)
    except NotFoundError:
        return False
    return (info.state.subjects or {}).get(subject, 0) >= count


async def test_work_that_fails_because_its_image_went_away_is_no_failure(rig: Rig) -> None:
    quality = Recorder(rig)
    await quality.start("a")
    await quality.start("b")
    await add_image(rig, 1, "a")
    quality.go.clear()
    quality.fail = True
    await rig.publish(image_event(1))
    async with asyncio.timeout(10):
        while not quality.begun:
            await asyncio.sleep(0.02)
    await rig.pool.execute("UPDATE images SET node_id = 'b'")
    quality.go.set()
    async with asyncio.timeout(10):
        while len(quality.begun) < 2:
            await asyncio.sleep(0.02)
    (failed,) = await rig.wait_for(ImageFailed)  # by b, whose it is
    assert quality.begun == [("a", "i1"), ("b", "i1")]
    assert failed.code == "gone"
    assert await rig.pool.fetchval("SELECT count(*) FROM dead_letters") == 1


async def test_what_waits_for_a_dead_node_goes_to_who_holds_it_now(rig: Rig) -> None:
    quality = Recorder(rig)
    await add_node(rig, "dead", silent_s=60)
    for number in range(3):
        await add_image(rig, number, "dead")
    await quality.start("a")
    for number in range(3):
        await rig.publish(image_event(number))
    async with asyncio.timeout(10):
        while not await _queued_for(rig, "dead", 3):
            await asyncio.sleep(0.05)
    assert quality.begun == []
    await rig.pool.execute("UPDATE images SET node_id = 'a' WHERE image_id <> 'i2'")
    await quality.until_handled(2)
    await asyncio.sleep(1.0)
    assert sorted(quality.handled) == [("a", "i0"), ("a", "i1")]  # i2 waits for its node
    assert await waiting(rig, "dead") == 1


async def test_no_event_is_passed_by_while_images_go_back_and_forth_and_nodes_are_killed(
    rig: Rig, tmp_path: Path
) -> None:
    chance = random.Random(11)
    await rig.pool.execute("CREATE TABLE done (image_id text, by text, holder text)")
    running: dict[str, subprocess.Popen[bytes]] = {}

    def start(node: str) -> None:
        arguments = (node, rig.settings.nats_url, rig.settings.database_url, str(tmp_path / "nodes" / node))
        with (tmp_path / f"{node}.log").open("ab") as log:
            running[node] = subprocess.Popen(
                [sys.executable, "-m", "tests.support.worker", *arguments], stdout=log, stderr=log
            )

    async def flip() -> None:
        while True:
            await rig.pool.execute(
                "UPDATE images SET node_id = CASE node_id WHEN 'a' THEN 'b' ELSE 'a' END"
                " WHERE image_id IN (SELECT image_id FROM images ORDER BY random() LIMIT 40)"
            )
            await asyncio.sleep(0.02)

    for node in "ab":
        start(node)
    try:
        await rig.until("SELECT count(DISTINCT node_id) = 2 FROM node_services")
        for number in range(FLIPPED):
            await add_image(rig, number, "ab"[number % 2])
        flipping = asyncio.create_task(flip())
        for number in range(FLIPPED):
            await rig.publish(image_event(number))
        for _ in range(KILLS):
            await asyncio.sleep(chance.uniform(0.2, 1.0))
            victim = chance.choice("ab")
            running[victim].kill()
            running[victim].wait()
            start(victim)
            await asyncio.sleep(chance.uniform(0.5, 1.5))
        flipping.cancel()
        await rig.until(f"SELECT count(*) >= {FLIPPED} FROM done", timeout_s=60)
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    rows = await rig.pool.fetch("SELECT * FROM done")
    assert Counter(row["image_id"] for row in rows) == Counter(f"i{number}" for number in range(FLIPPED))
    # Whatever moved meanwhile: the work was committed by who held the image at that moment.
    assert [row for row in rows if row["by"] != row["holder"]] == []
    assert await rig.pool.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_queues_that_were_lost_are_filled_again(rig: Rig) -> None:
    quality = Recorder(rig)
    await quality.start("a")
    await add_node(rig, "away")
    for number in range(6):
        await add_image(rig, number, "a" if number < 3 else "away")
    for number in range(6):
        await rig.publish(image_event(number))
    await quality.until_handled(3)
    async with asyncio.timeout(10):
        while not await _queued_for(rig, "away", 3):
            await asyncio.sleep(0.05)
    await rig.bus.js.delete_stream(NODE_STREAM)
    async with asyncio.timeout(30):
        while not await _queued_for(rig, "away", 3):
            await asyncio.sleep(0.1)
    assert len(quality.handled) == 3


async def test_a_data_folder_is_one_nodes_and_a_name_is_one_folders(rig: Rig) -> None:
    def compose(_platform: Platform[ServiceSettings]) -> Service:
        return Service(routes={})

    first = node_settings(rig, "a")
    await rig.start("quality", QUICK, compose, first)
    with pytest.raises(UsageError, match="belongs to the node 'a'"):
        await open_node(first.model_copy(update={"node": "b"}), DataFolder(first.data).root)
    other = first.model_copy(update={"data": rig.settings.data / "another"})
    with pytest.raises(UsageError, match="SPICA_NODE"):
        await serve("quality", QUICK, compose, platform_settings=other, stop=asyncio.Event())


@pytest.mark.parametrize(
    ("subject", "body", "key"),
    [
        ("image.verified", b'{"image_id": "i"}', "i"),
        ("image.arrived", b'{"uri": "/x", "node": "a"}', "a"),
        ("image.arrived", b'{"uri": "/x"}', None),
        ("stack.done", b'{"stack_id": "s", "image_id": "i"}', "s"),
        ("placement.wanted", b'{"image_id": "i"}', "i"),
        ("image.wanted", b'{"image_id": "i", "node": "a"}', None),
        ("image.verified", b"no JSON", None),
        ("image.verified", b"[1]", None),
        ("image.verified", b'{"image_id": 7}', None),
        ("image.verified", b'{"image_id": "\\u0000"}', None),
        ("image.verified", b'{"image_id": "\\ud800"}', None),
        ("image.verified", b"", None),
    ],
)
def test_what_a_message_is_about(subject: str, body: bytes, key: str | None) -> None:
    assert key_of(subject, body) == key


async def test_a_message_that_nobody_can_read_is_a_dead_letter_here_too(rig: Rig) -> None:
    quality = Recorder(rig)
    await quality.start("a")
    await rig.bus.js.publish("image.verified", b"no JSON")
    assert await rig.until("SELECT code FROM dead_letters") == "invalid_message"


async def test_a_host_with_a_shared_file_system_is_in_the_list_too(rig: Rig) -> None:
    def compose(_platform: Platform[ServiceSettings]) -> Service:
        return Service(routes={})

    stop = await rig.start("quality", QUICK, compose)
    row = await rig.pool.fetchrow("SELECT * FROM nodes JOIN node_services USING (node_id)")
    assert row["mode"] == "shared"
    assert row["data_root"] == str(rig.data.root)
    assert row["service"] == "quality"
    assert row["free_bytes"] > 0 and row["cores"] > 0
    assert not (rig.data.root / ".spica-node").exists()
    stop.set()
    await rig.until("SELECT count(*) = 0 FROM node_services")
