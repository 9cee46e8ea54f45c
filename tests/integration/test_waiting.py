"""Work that waits for something comes again when that asks for it; what a service holds is given back at its end."""

from __future__ import annotations

import time
from typing import Any

from spica_proto.images import ImageArrived
from spica_runtime.errors import Unavailable
from spica_runtime.handling import Delivery, Outcome
from spica_runtime.service import Platform, Service
from spica_runtime.settings import ServiceSettings

from tests.support.rig import Rig


async def test_an_error_may_say_when_to_ask_again(rig: Rig) -> None:
    tries: dict[str, list[float]] = {"soon": [], "later": []}
    waits = {"soon": 0.2, "later": 3.0}
    closed: list[str] = []

    async def handle(message: ImageArrived, _: Delivery) -> Outcome:
        tries[message.uri].append(time.monotonic())
        if len(tries[message.uri]) == 1:
            raise Unavailable("away", "Away.", after_s=waits[message.uri])
        return Outcome()

    async def close() -> None:
        closed.append("archive")

    def compose(_: Platform[Any]) -> Service:
        return Service({"image.arrived": handle}, close=(close,))

    stop = await rig.start("ingest", ServiceSettings(), compose)
    for uri in tries:
        await rig.publish(ImageArrived(uri=uri))
    await rig.until("SELECT count(*) = 2 FROM inbox")
    pauses = {uri: times[1] - times[0] for uri, times in tries.items()}
    assert pauses["soon"] < 1.8  # without a word it would be two seconds
    assert pauses["later"] > 2.9
    assert await rig.pool.fetchval("SELECT count(*) FROM attempts") == 0
    assert closed == []
    stop.set()
    await rig.stack.aclose()
    assert closed == ["archive"]
