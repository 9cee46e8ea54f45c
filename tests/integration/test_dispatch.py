"""The dispatcher's promises, on real NATS and PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
from nats.js.client import JetStreamContext
from spica_proto.base import Reason
from spica_proto.images import ImageArrived, ImageFailed, ImageRejected
from spica_proto.stacks import StackFailed
from spica_proto.streams import STREAM
from spica_runtime import deadletters
from spica_runtime.bus import connect_bus
from spica_runtime.database import migrate
from spica_runtime.embedded.nats import EmbeddedNats
from spica_runtime.errors import NotRetriable, Retriable, Unavailable, UsageError
from spica_runtime.handling import Delivery, Outcome, Transaction
from spica_runtime.outbox import ensure_stream
from spica_runtime.receiving import Puller
from spica_runtime.service import Platform, Service, serve
from spica_runtime.settings import ServiceSettings

from tests.support.rig import Rig

Handle = Callable[[ImageArrived, Delivery], Awaitable[Outcome]]
QUICK = ServiceSettings(retry_delays_s=(0.05,), max_attempts=3, shutdown_grace_s=5)


def rejected(message: ImageArrived) -> ImageRejected:
    return ImageRejected(
        name="n", uri=message.uri, reasons=(Reason(code="test", message="A test rejects all."),)
    )


async def start(rig: Rig, handle: Handle, settings: ServiceSettings = QUICK) -> asyncio.Event:
    def compose(_platform: Platform[ServiceSettings]) -> Service:
        return Service(routes={"image.arrived": handle})

    return await rig.start("ingest", settings, compose)


async def test_a_message_without_headers_is_handled_once_and_leaves_all_its_marks(rig: Rig) -> None:
    calls: list[Delivery] = []

    async def handle(message: ImageArrived, delivery: Delivery) -> Outcome:
        calls.append(delivery)

        async def save(transaction: Transaction) -> None:
            await transaction.connection.execute(
                "INSERT INTO bookmarks (name, value) VALUES ('seen', $1)", {"uri": message.uri}
            )
            transaction.emit(rejected(message))

        return Outcome(save=save, about=message.uri, summary="rejected")

    await start(rig, handle)
    await rig.bus.nc.publish("image.arrived", b'{"uri": "/a.fits", "unknown": 1}')
    await rig.wait_for(ImageRejected)
    assert len(calls) == 1
    assert await rig.pool.fetchval("SELECT value FROM bookmarks") == {"uri": "/a.fits"}
    assert await rig.pool.fetchval("SELECT outcome FROM activities") == "rejected"
    assert await rig.pool.fetchval("SELECT count(*) FROM inbox") == 1
    assert await rig.pool.fetchval("SELECT count(*) FROM attempts") == 0


async def test_the_same_event_again_has_no_second_effect(rig: Rig) -> None:
    calls = 0

    async def handle(message: ImageArrived, _delivery: Delivery) -> Outcome:
        nonlocal calls
        calls += 1
        return Outcome(events=(rejected(message),))

    await start(rig, handle)
    message = ImageArrived(uri="/a.fits")
    await rig.publish(message, event_id="one")
    await rig.wait_for(ImageRejected)
    # Another Nats-Msg-Id, so that the stream itself does not drop it.
    await rig.bus.js.publish(
        "image.arrived", message.model_dump_json().encode(), headers={"ce-id": "one", "Nats-Msg-Id": "other"}
    )
    await rig.publish(ImageArrived(uri="/b.fits"))
    await rig.wait_for(ImageRejected, where=lambda event: event.uri == "/b.fits")
    assert calls == 2
    assert len(await rig.events(ImageRejected)) == 2


async def test_two_replicas_share_the_work(rig: Rig) -> None:
    calls = [0, 0]

    def replica(number: int) -> Handle:
        async def handle(message: ImageArrived, _delivery: Delivery) -> Outcome:
            calls[number] += 1
            await asyncio.sleep(0.05)
            return Outcome(events=(rejected(message),))

        return handle

    await start(rig, replica(0))
    await start(rig, replica(1))
    for number in range(40):
        await rig.publish(ImageArrived(uri=f"/{number}.fits"))
    events = await rig.wait_for(ImageRejected, count=40)
    assert sorted(event.uri for event in events) == sorted(f"/{number}.fits" for number in range(40))
    assert sum(calls) == 40
    assert min(calls) > 0


async def test_long_work_is_not_delivered_to_another_while_it_runs(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("spica_runtime.receiving", "spica_runtime.bus"):
        monkeypatch.setattr(f"{module}.ACK_WAIT_S", 1.0)
    calls = 0

    async def handle(message: ImageArrived, _delivery: Delivery) -> Outcome:
        nonlocal calls
        calls += 1
        await asyncio.sleep(4)
        return Outcome(events=(rejected(message),))

    await start(rig, handle)
    await start(rig, handle)
    await rig.publish(ImageArrived(uri="/a.fits"))
    await rig.wait_for(ImageRejected)
    assert calls == 1


@pytest.mark.parametrize("body", [b"not json", b'{"uri": ""}', b"[]", b'{"uri": 7}', b""])
async def test_a_body_that_does_not_fit_is_a_dead_letter_at_once(rig: Rig, body: bytes) -> None:
    async def handle(message: ImageArrived, _delivery: Delivery) -> Outcome:
        raise AssertionError("must not be called")

    await start(rig, handle)
    await rig.bus.nc.publish("image.arrived", body)
    (failed,) = await rig.wait_for(ImageFailed)
    assert failed.code == "invalid_message"
    assert "schema" in failed.message
    assert failed.attempts == 1
    (letter,) = await deadletters.waiting(rig.pool)
    assert letter["body"] == body.decode()
    assert letter["dead_letter_id"] == failed.dead_letter_id


async def test_retries_then_a_dead_letter_that_can_be_sent_again(rig: Rig) -> None:
    calls = 0
    mended = False

    async def handle(message: ImageArrived, _delivery: Delivery) -> Outcome:
        nonlocal calls
        calls += 1
        if not mended:
            raise Retriable("no_luck", "It did not work.", {"calls": calls})
        return Outcome(events=(rejected(message),))

    await start(rig, handle)
    await rig.publish(ImageArrived(uri="/a.fits", batch="night"), event_id="one")
    (failed,) = await rig.wait_for(ImageFailed)
    assert (failed.code, failed.attempts, failed.batch, failed.numbers) == (
        "no_luck",
        3,
        "night",
        {"calls": 3},
    )
    assert calls == 3
    mended = True
    await deadletters.resend(rig.pool, failed.dead_letter_id)
    await rig.wait_for(ImageRejected)
    assert await deadletters.waiting(rig.pool) == []


async def test_a_bug_is_a_dead_letter_with_the_place(rig: Rig) -> None:
    async def handle(_message: ImageArrived, _delivery: Delivery) -> Outcome:
        raise ZeroDivisionError("oops")

    await start(rig, handle)
    await rig.publish(ImageArrived(uri="/a.fits"))
    (failed,) = await rig.wait_for(ImageFailed)
    assert failed.code == "internal_error"
    assert "oops" in failed.message
    assert "test_dispatch" in str(failed.numbers["where"])


async def test_an_oserror_of_the_handler_is_not_taken_for_the_store_being_away(rig: Rig) -> None:
    async def handle(_message: ImageArrived, _delivery: Delivery) -> Outcome:
        raise FileNotFoundError("gone")

    await start(rig, handle)
    await rig.publish(ImageArrived(uri="/a.fits"))
    (failed,) = await rig.wait_for(ImageFailed)
    assert "gone" in failed.message


async def test_what_is_unavailable_is_waited_for_without_counting(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spica_runtime.dispatch._UNAVAILABLE_DELAY_S", 0.02)
    calls = 0

    async def handle(message: ImageArrived, _delivery: Delivery) -> Outcome:
        nonlocal calls
        calls += 1
        if calls < 10:
            raise Unavailable("no_reference", "The reference catalogue is away.")
        return Outcome(events=(rejected(message),))

    await start(rig, handle)
    await rig.publish(ImageArrived(uri="/a.fits"))
    await rig.wait_for(ImageRejected)
    assert calls == 10


async def test_effects_and_events_go_together_or_not_at_all(rig: Rig) -> None:
    async def handle(message: ImageArrived, _delivery: Delivery) -> Outcome:
        async def save(transaction: Transaction) -> None:
            await transaction.connection.execute("INSERT INTO bookmarks (name, value) VALUES ('x', '1')")
            raise NotRetriable("changed_my_mind", "The save itself refuses.")

        return Outcome(events=(rejected(message),), save=save)

    await start(rig, handle)
    await rig.publish(ImageArrived(uri="/a.fits"))
    (failed,) = await rig.wait_for(ImageFailed)
    assert failed.code == "changed_my_mind"
    assert await rig.pool.fetchval("SELECT count(*) FROM bookmarks") == 0
    assert await rig.events(ImageRejected) == []


async def test_a_stop_lets_work_in_flight_end_and_publish(rig: Rig) -> None:
    begun = asyncio.Event()

    async def handle(message: ImageArrived, _delivery: Delivery) -> Outcome:
        begun.set()
        await asyncio.sleep(0.5)
        return Outcome(events=(rejected(message),))

    stop = await start(rig, handle)
    await rig.publish(ImageArrived(uri="/a.fits"))
    await asyncio.wait_for(begun.wait(), timeout=10)
    stop.set()
    await rig.wait_for(ImageRejected, timeout_s=10)
    assert await rig.pool.fetchval("SELECT count(*) FROM inbox") == 1


async def test_bus_killed_and_back(rig: Rig, nats_server: EmbeddedNats) -> None:
    async def handle(message: ImageArrived, _delivery: Delivery) -> Outcome:
        return Outcome(events=(rejected(message),))

    await start(rig, handle)
    await rig.publish(ImageArrived(uri="/1.fits"))
    await rig.wait_for(ImageRejected)
    assert nats_server.child is not None
    nats_server.child.kill()
    await asyncio.sleep(0.5)
    await nats_server.start()
    await asyncio.sleep(1)
    await rig.publish(ImageArrived(uri="/2.fits"))
    await rig.wait_for(ImageRejected, count=2, timeout_s=20)


async def test_a_lost_stream_is_filled_again_from_the_outbox_without_new_effects(rig: Rig) -> None:
    calls = 0

    async def handle(message: ImageArrived, _delivery: Delivery) -> Outcome:
        nonlocal calls
        calls += 1
        return Outcome(events=(rejected(message),))

    stop = await start(rig, handle)
    for number in range(3):
        await rig.publish_from_outbox(ImageArrived(uri=f"/{number}.fits"))
    await rig.wait_for(ImageRejected, count=3)
    stop.set()
    await asyncio.sleep(0.5)
    await rig.bus.js.delete_stream("SPICA")
    await start(rig, handle)
    await rig.wait_for(ImageRejected, count=3)
    assert len(await rig.events(ImageArrived)) == 3
    await asyncio.sleep(0.5)
    assert calls == 3


async def test_headers_of_an_event_are_cloudevents(rig: Rig) -> None:
    async def handle(message: ImageArrived, _delivery: Delivery) -> Outcome:
        return Outcome(events=(rejected(message),))

    await start(rig, handle)
    subscription = await rig.bus.js.subscribe("image.rejected", ordered_consumer=True)
    before = datetime.now(UTC)
    await rig.bus.js.publish(
        "image.arrived",
        json.dumps({"uri": "/a.fits"}).encode(),
        headers={"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
    )
    message = await subscription.next_msg(timeout=10)
    headers = message.headers or {}
    assert headers["ce-id"] == headers["Nats-Msg-Id"]
    assert headers["ce-type"] == "spica.image.rejected.v1"
    assert headers["ce-source"] == "/spica/ingest"
    assert datetime.fromisoformat(headers["ce-time"]) >= before
    assert headers["traceparent"].startswith("00-4bf92f3577b34da6a3ce929d0e0e4736-")


async def test_an_event_that_the_bus_refuses_does_not_stand_in_the_way(rig: Rig) -> None:
    async def handle(message: ImageArrived, _delivery: Delivery) -> Outcome:
        return Outcome(events=(rejected(message),))

    await rig.publish_from_outbox(ImageArrived(uri="/" + "x" * 9_000_000))
    await rig.publish_from_outbox(ImageArrived(uri="/small.fits"))
    await start(rig, handle)
    await rig.wait_for(ImageRejected)
    refused = await rig.pool.fetch("SELECT refused, sent_at FROM outbox WHERE refused IS NOT NULL")
    assert len(refused) == 1
    assert "Payload" in refused[0]["refused"]
    assert refused[0]["sent_at"] is None


async def test_a_stream_lost_while_services_run_is_made_and_filled_again(rig: Rig) -> None:
    calls = 0

    async def handle(message: ImageArrived, _delivery: Delivery) -> Outcome:
        nonlocal calls
        calls += 1
        return Outcome(events=(rejected(message),))

    await start(rig, handle)
    await rig.publish_from_outbox(ImageArrived(uri="/1.fits"))
    await rig.wait_for(ImageRejected)
    await rig.bus.js.delete_stream("SPICA")
    await rig.until("SELECT count(*) = 0 FROM outbox WHERE sent_at IS NULL")
    for _ in range(200):
        if await rig.bus.has_stream() and len(await rig.events(ImageRejected)) == 1:
            break
        await asyncio.sleep(0.1)
    else:
        pytest.fail("the stream did not come back with its events")
    await rig.publish_from_outbox(ImageArrived(uri="/2.fits"))
    await rig.wait_for(ImageRejected, count=2, timeout_s=20)
    assert calls == 2


async def test_a_stream_is_made_only_after_its_events_are_marked(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> str:
        raise ConnectionRefusedError("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(type(rig.pool), "execute", fail)
        with pytest.raises(ConnectionRefusedError):
            await ensure_stream(rig.bus, rig.pool)
    assert not await rig.bus.has_stream()
    await ensure_stream(rig.bus, rig.pool)
    assert await rig.bus.has_stream()


@pytest.mark.parametrize("header", [None, "ce-id", "x-anything"])
async def test_nul_characters_become_a_dead_letter_not_a_loop(rig: Rig, header: str | None) -> None:
    async def handle(message: ImageArrived, _delivery: Delivery) -> Outcome:
        raise NotRetriable("odd", f"Cannot take {message.uri}.", {"uri": message.uri, "depth": float("nan")})

    await start(rig, handle)
    headers = {header: "a\x00b"} if header else None
    await rig.bus.js.publish("image.arrived", b'{"uri": "/a\\u0000b"}', headers=headers)
    (failed,) = await rig.wait_for(ImageFailed, timeout_s=10)
    assert failed.code == "odd"
    assert failed.numbers["uri"] == "/a\N{REPLACEMENT CHARACTER}b"


async def test_a_dead_letter_is_sent_again_once(rig: Rig) -> None:
    async def handle(_message: ImageArrived, _delivery: Delivery) -> Outcome:
        raise NotRetriable("no", "No.")

    await start(rig, handle)
    await rig.publish(ImageArrived(uri="/a.fits"))
    (failed,) = await rig.wait_for(ImageFailed)
    await deadletters.resend(rig.pool, failed.dead_letter_id)
    with pytest.raises(UsageError, match="already"):
        await deadletters.resend(rig.pool, failed.dead_letter_id)
    (_, second) = await rig.wait_for(ImageFailed, count=2)
    await deadletters.resend(rig.pool, second.dead_letter_id)
    await rig.wait_for(ImageFailed, count=3)


async def test_a_fault_of_the_client_does_not_end_the_listening(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = 2

    async def handle(message: ImageArrived, _delivery: Delivery) -> Outcome:
        return Outcome(events=(rejected(message),))

    sound = JetStreamContext.PullSubscription.fetch

    async def fetch(self: JetStreamContext.PullSubscription, *arguments: object, **named: object) -> object:
        nonlocal faults
        if faults:
            faults -= 1
            raise AttributeError("a fault inside the client")
        return await sound(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(JetStreamContext.PullSubscription, "fetch", fetch)
    await start(rig, handle)
    await rig.publish(ImageArrived(uri="/a.fits"))
    await rig.wait_for(ImageRejected)
    assert faults == 0


async def test_a_service_that_waits_for_the_bus_can_be_stopped(rig: Rig) -> None:
    def compose(_platform: Platform[ServiceSettings]) -> Service:
        raise AssertionError("there is no bus")

    nowhere = rig.settings.model_copy(update={"nats_url": "nats://127.0.0.1:9"})

    async def stopped_after(seconds: float) -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(serve("ingest", QUICK, compose, platform_settings=nowhere, stop=stop))
        await asyncio.sleep(seconds)
        stop.set()
        await asyncio.wait_for(task, timeout=10)

    # At many moments: some cancellations meet a connection that is being refused, and are lost.
    await asyncio.gather(*(stopped_after(0.005 * number) for number in range(100)))


async def test_the_bus_password_is_not_told(rig: Rig) -> None:
    secret = rig.settings.model_copy(update={"nats_url": "nats://spica:SECRET@127.0.0.1:9"})
    with pytest.raises(Unavailable) as caught:
        async with connect_bus(secret):
            pass
    assert "SECRET" not in caught.value.message


async def test_migrations_take_the_urls_that_services_take(rig: Rig) -> None:
    url = rig.settings.database_url.replace("postgresql://", "postgres://") + "?sslmode=disable"
    await asyncio.to_thread(migrate, url)


async def test_a_failure_to_hear_of_a_failure_is_not_told_again(rig: Rig) -> None:
    async def handle(_message: StackFailed, _delivery: Delivery) -> Outcome:
        raise NotRetriable("deaf", "Not even this can be handled.")

    def compose(_platform: Platform[ServiceSettings]) -> Service:
        return Service(routes={"stack.failed": handle})

    await rig.start("stack", QUICK, compose)
    await rig.publish(StackFailed(stage="x", code="y", message="z", heard="stack.planned"))
    await rig.until("SELECT count(*) FROM dead_letters WHERE code = 'deaf'")
    await asyncio.sleep(1.5)
    assert len(await rig.events(StackFailed)) == 1


async def test_what_came_while_a_consumer_is_bound_again_comes_again_at_once(rig: Rig) -> None:
    await rig.bus.ensure_stream()
    await rig.bus.ensure_consumers("ingest")

    async def ensure() -> str:
        return "ingest-image-arrived"

    async def mend() -> None:
        raise AssertionError("the stream is there")

    puller = Puller(rig.bus, STREAM, ensure=ensure, mend=mend)
    await rig.publish(ImageArrived(uri="/1"))
    first = await puller.fetch()
    assert first is not None
    await first.ack()
    # A request whose answer nobody waits for, as one that ran out of time at that very moment.
    subscription = puller._subscription
    assert subscription is not None
    await rig.bus.nc.publish(subscription._nms, b'{"batch": 1}', subscription._deliver)
    await rig.publish(ImageArrived(uri="/2"))
    async with asyncio.timeout(5):
        while subscription._sub._pending_queue.empty():
            await asyncio.sleep(0.01)
    puller.bind_again()
    async with asyncio.timeout(4):
        second = await puller.fetch()
    assert second is not None
    assert second.data == b'{"uri":"/2","source":"other"}'
    await second.ack()
