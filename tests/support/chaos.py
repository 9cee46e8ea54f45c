"""Chaos: while images flow, services, NATS and PostgreSQL are killed at random; nothing may be lost or doubled."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spica_proto.envelope import seal
from spica_proto.images import ImageArrived
from spica_proto.stacks import Selection, StackRequested
from spica_proto.streams import STREAM
from spica_runtime.bus import connect_bus
from spica_runtime.database import open_pool
from spica_runtime.pg import Pool
from spica_runtime.storage import sha256_of
from spica_runtime.supervisor import Supervisor

KILLS_OF_THE_STACK = 3
VICTIMS = ("ingest", "quality", "calib", "stack", "export", "nats", "postgres")


@dataclass
class Report:
    """What was done, and what was found afterwards."""

    kills: Counter[str] = field(default_factory=Counter)
    in_flow: int = 0
    """Kills while images were still being sent, or a stack being made."""
    flowing: bool = True
    elapsed_s: float = 0.0
    faults: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


async def publish_surely(platform: Supervisor, message: ImageArrived | StackRequested, event_id: str) -> None:
    """Publish until the stream has it: a publisher's part of at-least-once. Repeats carry the same id."""
    while True:
        try:
            async with connect_bus(platform.settings, name="chaos") as bus:
                await bus.ensure_stream()
                await bus.publish(seal(message, source="/chaos", event_id=event_id))
                return
        except Exception:  # the servers are being killed: whatever it is, try again
            await asyncio.sleep(0.3)


async def kill_at_random(
    platform: Supervisor, kills: int, pause_s: tuple[float, float], chance: random.Random, report: Report
) -> None:
    """Kill one part after the other with SIGKILL: each in turn first, then whichever chance says."""
    order = list(VICTIMS)
    chance.shuffle(order)
    while sum(report.kills.values()) < kills:
        await asyncio.sleep(chance.uniform(*pause_s))
        done = sum(report.kills.values())
        victim = order[done] if done < len(order) else chance.choice(VICTIMS)
        child = platform.child(victim)
        if child is None or child.exit_code() is not None:
            continue
        os.kill(child.pid, 9)
        report.kills[victim] += 1
        report.in_flow += report.flowing
        print(f"  kill {sum(report.kills.values()):2d}: {victim} (process {child.pid})", flush=True)


async def settled(platform: Supervisor, query: str, expected: int, timeout_s: float) -> int:
    """Wait until a count reaches what is expected; returns what it was in the end."""
    deadline = time.monotonic() + timeout_s
    found = -1
    while time.monotonic() < deadline:
        try:
            async with open_pool(platform.settings, max_size=1) as pool:
                while time.monotonic() < deadline:
                    found = await pool.fetchval(query)
                    if found >= expected:
                        return found
                    await asyncio.sleep(0.3)
        except Exception:  # as above
            await asyncio.sleep(0.3)
    return found


async def run_chaos(
    platform: Supervisor, frames: Sequence[Path], *, kills: int, pause_s: tuple[float, float], seed: int
) -> Report:
    """Send frames one after the other while parts are killed, then one stack per filter; look at the result."""
    begun = time.monotonic()
    report = Report()
    chance = random.Random(seed)
    killing = asyncio.create_task(kill_at_random(platform, kills, pause_s, chance, report), name="killing")
    for number, frame in enumerate(frames):
        await publish_surely(
            platform, ImageArrived(uri=str(frame), batch="chaos"), event_id=f"chaos-image-{number}"
        )
        # Frames are spread over the kills, so that each kill finds some in flight.
        while sum(report.kills.values()) < kills * (number + 1) // len(frames):
            await asyncio.sleep(0.05)
    ended = (
        "SELECT (SELECT count(*) FROM solutions WHERE stack_id IS NULL) + (SELECT count(*) FROM dead_letters)"
    )
    await settled(platform, ended, len(frames), 600)
    await publish_surely(
        platform,
        StackRequested(request_id="chaos-stack", name="chaos", selection=Selection(batch="chaos")),
        event_id="chaos-stack",
    )
    await killing
    # A few more, while the stack goes through its stages.
    more = asyncio.create_task(
        kill_at_random(platform, kills + KILLS_OF_THE_STACK, (0.5, 2.0), chance, report), name="more"
    )
    await settled(platform, "SELECT count(*) FROM stacks WHERE state = 'exported'", 1, 300)
    report.flowing = False
    await more
    await settled(platform, "SELECT (count(*) = 0)::int FROM outbox WHERE sent_at IS NULL", 1, 60)
    report.elapsed_s = time.monotonic() - begun
    async with open_pool(platform.settings) as pool:
        await examine(platform, pool, len(frames), report)
    return report


async def examine(platform: Supervisor, pool: Pool, images: int, report: Report) -> None:
    """Every image exactly one effect per stage, every stack once, every file named in the store whole."""
    expected = {
        "images": ("SELECT count(*) FROM images", images),
        "images by content": ("SELECT count(DISTINCT sha256) FROM images", images),
        "measurements of images": ("SELECT count(*) FROM measurements WHERE subject_kind = 'image'", images),
        "grades of images": ("SELECT count(*) FROM grades WHERE subject_kind = 'image'", images),
        "single solutions": ("SELECT count(*) FROM solutions WHERE stack_id IS NULL", images),
        "stacks": ("SELECT count(*) FROM stacks", 1),
        "stacks exported": ("SELECT count(*) FROM stacks WHERE state = 'exported'", 1),
        "members selected": ("SELECT count(*) FROM stack_members WHERE selected", images),
        "joint solutions": ("SELECT count(*) FROM solutions WHERE stack_id IS NOT NULL", images),
        "measurements of stacks": ("SELECT count(*) FROM measurements WHERE subject_kind = 'stack'", 1),
        "dead letters": ("SELECT count(*) FROM dead_letters", 0),
        "rejections": ("SELECT count(*) FROM rejections", 0),
        "events not sent": ("SELECT count(*) FROM outbox WHERE sent_at IS NULL", 0),
        "attempts left open": ("SELECT count(*) FROM attempts", 0),
    }
    for name, (query, wanted) in expected.items():
        found = await pool.fetchval(query)
        report.counts[name] = found
        if found != wanted:
            report.faults.append(f"{name}: {found} instead of {wanted}")
    parts = await pool.fetchval("SELECT count(*) FROM stack_parts WHERE done_at IS NOT NULL")
    report.counts["parts of the stack"] = parts
    for service, stages in (
        ("ingest", images),
        ("quality", images + 1),
        ("calib", images + 1),
        # A request, a joint solution, what is made of it, and each image's grade and solution (for standing surveys).
        ("stack", 2 + parts + 2 * images),
        ("export", 1),
    ):
        handled = await pool.fetchval("SELECT count(*) FROM inbox WHERE service = $1", service)
        acted = await pool.fetchval("SELECT count(*) FROM activities WHERE service = $1", service)
        if (handled, acted) != (stages, stages):
            report.faults.append(
                f"{service}: handled {handled} events in {acted} activities instead of {stages}"
            )
    await _examine_events(platform, images, parts, report)
    for row in await pool.fetch("SELECT path, sha256, size_bytes FROM products"):
        path = platform.settings.data / row["path"]
        if not path.exists() or path.stat().st_size != row["size_bytes"] or sha256_of(path) != row["sha256"]:
            report.faults.append(f"product {row['path']} is not the file that the store names")


async def _examine_events(platform: Supervisor, images: int, parts: int, report: Report) -> None:
    """The stream holds every event; one that was published twice carries one id."""
    ids: dict[str, set[str]] = {}
    async with connect_bus(platform.settings, name="chaos") as bus:
        subscription = await bus.js.subscribe(">", stream=STREAM, ordered_consumer=True)
        total = (await bus.js.stream_info(STREAM)).state.messages
        for _ in range(total):
            message = await subscription.next_msg(timeout=10)
            identity = (message.headers or {}).get("ce-id", "")
            about = json.loads(message.data)
            what = (
                about.get("image_id") or about.get("stack_id") or about.get("uri") or about.get("request_id")
            )
            if message.subject == "stack.part_wanted":
                what = f"{what}/{about['step']}/{about['number']}"
            ids.setdefault(f"{message.subject} {what}", set()).add(identity)
        await subscription.unsubscribe()
    by_subject = Counter(key.split(" ")[0] for key in ids)
    wanted = {
        **dict.fromkeys(("image.arrived", "image.verified", "image.graded", "image.calibrated"), images),
        **dict.fromkeys(
            (
                "stack.requested",
                "stack.planned",
                "stack.calibrated",
                "stack.coadded",
                "stack.done",
                "stack.exported",
            ),
            1,
        ),
        "stack.part_wanted": parts,
    }
    if by_subject != Counter(wanted):
        report.faults.append(f"events: {dict(by_subject)} instead of {wanted}")
    report.faults += [f"{key} has {len(found)} ids" for key, found in ids.items() if len(found) != 1]
    report.counts["events"] = sum(by_subject.values())


def show(report: Report, write: Callable[[str], object] = print) -> None:
    """Tell it in a few lines."""
    kills = ", ".join(f"{name} {count}" for name, count in sorted(report.kills.items()))
    total = sum(report.kills.values())
    write(f"{total} kills in {report.elapsed_s:.0f} s, {report.in_flow} of them with work in flight: {kills}")
    for name, count in report.counts.items():
        write(f"  {name}: {count}")
    for fault in report.faults:
        write(f"  FAULT {fault}")
