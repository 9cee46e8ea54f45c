"""What exactly-once costs: one full hop of Spica against a bare JetStream consume-and-publish.

The hop: consume, transaction with inbox mark and outbox, publish, acknowledge. The peer does consume,
publish, acknowledge, with the same server, stream, consumer settings and number in flight. Both
servers are real and sync every message to disk, as the embedded default does. Negative control: the peer
against itself must give a ratio of one, or the run ends with an error and no figures.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from importlib.metadata import version
from pathlib import Path

import numpy as np
from nats.aio.msg import Msg
from spica_proto.base import Reason
from spica_proto.envelope import seal
from spica_proto.images import ImageArrived, ImageRejected
from spica_proto.streams import STREAM
from spica_runtime.bus import Bus, connect_bus
from spica_runtime.database import open_pool
from spica_runtime.handling import Delivery, Outcome
from spica_runtime.home import HomeSettings
from spica_runtime.pg import Pool
from spica_runtime.service import Platform, Service, serve
from spica_runtime.settings import PlatformSettings, ServiceSettings
from spica_runtime.supervisor import Supervisor

from tests.benchmarks.harness import Figure, Missing, alternating, figure

_EVENTS = 400
_PAIRS = 7
_IN_FLIGHT = 16
_LATENCY_SAMPLES = 200
_LATENCY_BATCHES = 5
_CONTROL = (0.9, 1.1)


def _answer(message: ImageArrived) -> ImageRejected:
    return ImageRejected(
        name="bench", uri=message.uri, reasons=(Reason(code="bench", message="A benchmark."),)
    )


async def _fill(bus: Bus, events: int) -> None:
    envelopes = [seal(ImageArrived(uri=f"/{number}.fits"), source="/bench") for number in range(events)]
    for start in range(0, events, 100):
        await asyncio.gather(*(bus.publish(envelope) for envelope in envelopes[start : start + 100]))


async def _until_published(bus: Bus, before: int, events: int) -> None:
    while True:
        info = await bus.js.stream_info(STREAM, subjects_filter="image.rejected")
        if (info.state.subjects or {}).get("image.rejected", 0) - before >= events:
            return
        await asyncio.sleep(0.002)


async def _published(bus: Bus) -> int:
    info = await bus.js.stream_info(STREAM, subjects_filter="image.rejected")
    return (info.state.subjects or {}).get("image.rejected", 0)


async def _spica(settings: PlatformSettings, bus: Bus) -> float:
    """Events per second through one service with a handler that only answers."""

    async def handle(message: ImageArrived, _delivery: Delivery) -> Outcome:
        return Outcome(events=(_answer(message),))

    def compose(_platform: Platform[ServiceSettings]) -> Service:
        return Service(routes={"image.arrived": handle})

    await _fill(bus, _EVENTS)
    before = await _published(bus)
    stop, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(
        serve(
            "ingest",
            ServiceSettings(concurrency=_IN_FLIGHT),
            compose,
            platform_settings=settings,
            stop=stop,
            ready=ready,
        )
    )
    await ready.wait()
    begun = time.perf_counter()
    await _until_published(bus, before, _EVENTS)
    elapsed = time.perf_counter() - begun
    stop.set()
    await task
    return _EVENTS / elapsed


async def _bare(settings: PlatformSettings, bus: Bus) -> float:
    """Events per second with nats-py alone: pull, publish, acknowledge."""
    await _fill(bus, _EVENTS)
    before = await _published(bus)
    # The same durable that the service reads, so that each run finds exactly its own events.
    await bus.ensure_consumers("ingest")
    async with connect_bus(settings, name="bare") as own:
        subscription = await own.js.pull_subscribe_bind("ingest-image-arrived", stream=STREAM)
        slots = asyncio.Semaphore(_IN_FLIGHT)

        async def hop(message: Msg) -> None:
            body = ImageArrived.model_validate_json(message.data)
            await own.publish(seal(_answer(body), source="/bench", event_id=str(uuid.uuid4())))
            await message.ack()
            slots.release()

        tasks = []
        begun = time.perf_counter()
        done = 0
        while done < _EVENTS:
            for message in await subscription.fetch(min(_IN_FLIGHT, _EVENTS - done), timeout=5):
                await slots.acquire()
                tasks.append(asyncio.create_task(hop(message)))
                done += 1
        await asyncio.gather(*tasks)
        await _until_published(bus, before, _EVENTS)
        return _EVENTS / (time.perf_counter() - begun)


async def _latency_ms(settings: PlatformSettings, bus: Bus) -> list[float]:
    """Milliseconds from before the publish to the handler's first line, one event at a time."""
    arrived: asyncio.Queue[float] = asyncio.Queue()

    async def handle(_message: ImageArrived, _delivery: Delivery) -> Outcome:
        arrived.put_nowait(time.perf_counter())
        return Outcome()

    def compose(_platform: Platform[ServiceSettings]) -> Service:
        return Service(routes={"image.arrived": handle})

    stop, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(
        serve("ingest", ServiceSettings(), compose, platform_settings=settings, stop=stop, ready=ready)
    )
    await ready.wait()
    samples = []
    for number in range(_LATENCY_SAMPLES):
        begun = time.perf_counter()
        await bus.publish(seal(ImageArrived(uri=f"/{number}.fits"), source="/bench"))
        samples.append(1000 * (await arrived.get() - begun))
        await asyncio.sleep(0.005)
    stop.set()
    await task
    return samples


async def _overhead_ms(pool: Pool) -> float:
    """Milliseconds of one empty transaction of this store, synced: the floor under every hop."""
    begun = time.perf_counter()
    for number in range(100):
        await pool.execute(
            "INSERT INTO bookmarks (name, value) VALUES ('bench', $1) ON CONFLICT (name) DO UPDATE SET value = $1",
            number,
        )
    return 10 * (time.perf_counter() - begun)


async def run() -> tuple[list[Figure], list[Missing]]:
    with tempfile.TemporaryDirectory(prefix="spica-bench-") as folder:
        home = HomeSettings(home=Path(folder), nats_port=0, postgres_port=0, console_port=0)
        platform = Supervisor(home, PlatformSettings(), services=())
        await platform.start()
        try:
            settings = platform.settings
            async with connect_bus(settings, name="bench") as bus, open_pool(settings) as pool:
                await bus.ensure_stream()
                await bus.ensure_consumers("ingest")
                for warm_up in (_spica, _bare):  # once before it counts: connections, caches
                    await warm_up(settings, bus)
                ours, bare = await alternating(
                    lambda: _spica(settings, bus), lambda: _bare(settings, bus), _PAIRS
                )
                first, second = await alternating(
                    lambda: _bare(settings, bus), lambda: _bare(settings, bus), _PAIRS
                )
                latency = [await _latency_ms(settings, bus) for _ in range(_LATENCY_BATCHES)]
                floor = [await _overhead_ms(pool) for _ in range(5)]
        finally:
            await platform.stop()
    peer = {"peer": "nats-py", "peer_version": version("nats-py")}
    control = figure(
        "bus.hop.negative_control",
        [a / b for a, b in zip(first, second, strict=True)],
        "ratio",
        note="the peer against itself",
        **peer,
    )
    if not _CONTROL[0] <= control.value <= _CONTROL[1]:
        raise RuntimeError(
            f"The peer against itself gives {control.value:.2f} instead of 1: the machine is too restless "
            "for these figures to mean anything. Run again when it is quiet."
        )
    return [
        figure("bus.hop.events_per_s", ours, "1/s"),
        figure("bus.bare_hop.events_per_s", bare, "1/s", **peer),
        figure("bus.hop.ratio", [a / b for a, b in zip(ours, bare, strict=True)], "ratio", **peer),
        control,
        figure(
            "bus.hop.overhead_ms",
            [1000 / a - 1000 / b for a, b in zip(ours, bare, strict=True)],
            "ms",
            note="what exactly-once adds per event, with this many in flight: " + str(_IN_FLIGHT),
        ),
        figure("store.transaction_ms", floor, "ms", note="one synced transaction, nothing else"),
        *(
            figure(
                f"bus.latency.p{percentile}_ms",
                [float(np.percentile(batch, percentile)) for batch in latency],
                "ms",
                note=f"from publish to handler, {_LATENCY_SAMPLES} events a run",
            )
            for percentile in (50, 99)
        ),
    ], []
