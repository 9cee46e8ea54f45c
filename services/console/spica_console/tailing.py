"""Events of the stream, one after the other, from anywhere in its history, across restarts of the server."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from spica_proto.envelope import header
from spica_proto.streams import STREAM, STREAM_SUBJECTS
from spica_runtime.bus import Bus
from spica_runtime.errors import UsageError
from spica_runtime.receiving import read_delivery

_BATCH = 256
_POLL_S = 5.0
_RETRY_S = 0.5
# Looks in a row at which events should have come and none did: then another consumer is made.
_PATIENCE = 2
# A consumer nobody asks any more is removed by the server after this long.
_INACTIVE_S = 60.0
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)$")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it was heard."""

    sequence: int
    subject: str
    id: str
    time: datetime
    source: str
    trace_id: str
    data: dict[str, Any]
    pending: int = 0
    """How many more stood in the stream behind it at that moment."""

    def as_dict(self) -> dict[str, Any]:
        """What programs see of it."""
        return {
            "subject": self.subject,
            "id": self.id,
            "time": self.time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "source": self.source,
            "sequence": self.sequence,
            "data": self.data,
        }


@dataclass(frozen=True, slots=True)
class Start:
    """Where in the stream to begin: after everything (default), at a sequence, at a time, at the start."""

    sequence: int | None = None
    time: datetime | None = None
    everything: bool = False

    def config(self, after: int | None) -> dict[str, Any]:
        """Settings of a consumer that begins here, or behind the sequence seen last."""
        if after is not None:
            return {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": after + 1}
        if self.sequence is not None:
            return {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": self.sequence}
        if self.time is not None:
            return {"deliver_policy": DeliverPolicy.BY_START_TIME, "opt_start_time": self.time}
        if self.everything:
            return {"deliver_policy": DeliverPolicy.ALL}
        return {"deliver_policy": DeliverPolicy.NEW}


NOW = Start()


def parse_since(text: str | None, now: datetime) -> Start:
    """Read `10m`, `2h`, an ISO 8601 time, `start`, or nothing (from now on).

    Raises
    ------
    UsageError
        The text is none of these.

    """
    if text is None or text == "now":
        return NOW
    if text in ("start", "all", "beginning"):
        return Start(everything=True)
    if match := _DURATION.match(text):
        return Start(time=now - timedelta(seconds=float(match[1]) * _SECONDS[match[2]]))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            "bad_since", f"{text!r} is no time: say 10m, 2h, 2026-03-01T20:00:00 (UTC) or start."
        ) from error
    return Start(time=moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def read_event(message: Msg) -> Event:
    """Read a message of the stream; a body that is no JSON object is shown as it is.

    Id, time and source are those that services give it, also where a message came without headers.
    """
    delivery = read_delivery(message.subject, message)
    try:
        body = json.loads(message.data or b"{}")
    except ValueError:
        body = message.data.decode(errors="replace")
    trace = (header(message.headers, "traceparent") or "").split("-")
    return Event(
        sequence=int(message.metadata.sequence.stream),
        subject=message.subject,
        id=delivery.event_id,
        time=delivery.time,
        source=delivery.source,
        trace_id=trace[1] if len(trace) == 4 else "",
        data=body if isinstance(body, dict) else {"body": body},
        pending=int(message.metadata.num_pending),
    )


async def last_sequence(bus: Bus) -> int:
    """Sequence of the newest event; 0 in an empty stream."""
    info = await bus.js.stream_info(STREAM)
    return int(info.state.last_seq)


async def events(
    bus: Bus, subjects: tuple[str, ...] = (), start: Start = NOW, *, follow: bool = True
) -> AsyncIterator[Event]:
    """Yield events in the order of the stream, each once.

    A short-lived consumer of its own, which acknowledges nothing and takes nothing away from the
    services. If the server restarts and forgets it, another begins behind the last event seen.
    Without `follow`, ends with the last event there is.
    """
    wanted = list(subjects or STREAM_SUBJECTS)
    last: int | None = None
    if start == NOW:
        # A consumer made anew after a restart must not skip what was said meanwhile.
        last = await last_sequence(bus)
        if not follow:
            return
    while True:
        try:
            async with aclosing(_of_one_consumer(bus, wanted, start.config(last), follow=follow)) as found:
                async for event in found:
                    last = event.sequence
                    yield event
            return
        except nats.js.errors.BadRequestError as error:
            raise UsageError("bad_subject", f"NATS does not take {', '.join(wanted)}: {error}") from error
        except (nats.js.errors.Error, nats.errors.Error, OSError) as error:
            # Nothing of Spica's there at all is for the caller to say; a stream that was lost comes back.
            if bus.nc.is_closed or (last is None and isinstance(error, nats.js.errors.NotFoundError)):
                raise
            await asyncio.sleep(_RETRY_S)


async def _of_one_consumer(
    bus: Bus, subjects: list[str], begin: dict[str, Any], *, follow: bool
) -> AsyncGenerator[Event, None]:
    """Yield events until the server forgets the consumer; without `follow` until none waits."""
    config = ConsumerConfig(
        filter_subjects=subjects,
        ack_policy=AckPolicy.NONE,
        inactive_threshold=_INACTIVE_S,
        mem_storage=True,
        **begin,
    )
    info = await bus.js.add_consumer(STREAM, config)
    subscription = await bus.js.pull_subscribe_bind(stream=STREAM, consumer=info.name)
    waiting, held_back = int(info.num_pending or 0), 0
    try:
        while follow or waiting:
            messages = await _fetch(subscription, waiting)
            if messages is None:
                # Nothing was said; ask whether the consumer is still there. A server that forgot it, or holds
                # back what it has, and events lost on the way would leave us waiting in silence for ever.
                info = await subscription.consumer_info()
                held_back = held_back + 1 if info.num_pending or waiting else 0
                if held_back >= _PATIENCE:
                    raise nats.errors.Error("events wait and none comes")
                continue
            held_back = 0
            for message in messages:
                event = read_event(message)
                waiting = event.pending
                yield event
    finally:
        # The reader of a pipe may be gone, and the connection with it.
        with suppress(nats.errors.Error):
            await subscription.unsubscribe()


async def _fetch(subscription: Any, waiting: int) -> list[Msg] | None:
    """Fetch what waits, or the next one; None where nothing came for a while.

    The client's fetch of more than one lingers until the batch is full: so one at a time when
    nothing waits, and never more than are known to wait.
    """
    try:
        messages: list[Msg] = await subscription.fetch(max(1, min(waiting, _BATCH)), timeout=_POLL_S)
    except TimeoutError:
        return None
    return messages
