"""Times people give, and messages as events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import DeliverPolicy
from spica_console import tailing
from spica_console.tailing import NOW, Start, parse_since, read_event
from spica_runtime.errors import UsageError

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10m", 600), ("2h", 7200), ("1.5h", 5400), ("30s", 30), ("250ms", 0.25), ("1d", 86400)],
)
def test_a_length_of_time_is_counted_back_from_now(text: str, seconds: float) -> None:
    assert parse_since(text, NOON) == Start(time=NOON - timedelta(seconds=seconds))


@pytest.mark.parametrize("text", ["2026-03-01T20:00:00", "2026-03-01T20:00:00Z", "2026-03-01T21:00:00+01:00"])
def test_a_time_is_utc_unless_it_says_otherwise(text: str) -> None:
    assert parse_since(text, NOON) == Start(time=datetime(2026, 3, 1, 20, tzinfo=UTC))


def test_the_start_and_nothing() -> None:
    assert parse_since("start", NOON) == Start(everything=True)
    assert parse_since(None, NOON) == parse_since("now", NOON) == NOW


@pytest.mark.parametrize("text", ["yesterday", "10 m", "5x", "", "-5m", "2026-13-01"])
def test_anything_else_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match="is no time"):
        parse_since(text, NOON)


def test_after_a_break_reading_goes_on_behind_the_last_event_whatever_the_start_was() -> None:
    for start in (NOW, Start(everything=True), Start(sequence=3), Start(time=NOON)):
        config = start.config(after=41)
        assert config == {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": 42}
    assert Start(sequence=3).config(None)["opt_start_seq"] == 3
    assert NOW.config(None) == {"deliver_policy": DeliverPolicy.NEW}


def message(data: bytes, headers: dict[str, str] | None) -> Msg:
    reply = "$JS.ACK.SPICA.someone.1.17.5.1772366400000000000.3"
    return Msg(Client(), "image.arrived", reply, data, headers)


def test_an_event_is_read_from_its_headers() -> None:
    event = read_event(
        message(
            b'{"uri": "/a.fits"}',
            {
                "ce-id": "the-id",
                "ce-source": "/spica/console",
                "ce-time": "2026-03-01T12:00:00.5Z",
                "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
            },
        )
    )
    assert (event.id, event.source, event.sequence, event.pending) == ("the-id", "/spica/console", 17, 3)
    assert event.trace_id == "a" * 32
    assert event.as_dict() == {
        "subject": "image.arrived",
        "id": "the-id",
        "time": "2026-03-01T12:00:00.500000Z",
        "source": "/spica/console",
        "sequence": 17,
        "data": {"uri": "/a.fits"},
    }


def test_an_event_without_headers_has_the_id_that_services_give_it() -> None:
    from spica_runtime.receiving import read_delivery

    bare = message(b'{"uri": "/a.fits"}', None)
    event = read_event(bare)
    assert event.id == read_delivery("image.arrived", bare).event_id
    assert event.source == "anyone"
    assert event.trace_id == ""
    assert event.time == datetime.fromtimestamp(1772366400, UTC)


@pytest.mark.parametrize("body", [b"no json", b"[1, 2]", b"\xff\xfe", b'"text"'])
def test_a_body_that_is_no_object_is_shown_as_it_is(body: bytes) -> None:
    assert set(read_event(message(body, None)).data) == {"body"}


def test_broken_headers_do_not_matter() -> None:
    event = read_event(message(b"{}", {"ce-time": "soon", "traceparent": "x"}))
    assert event.time == datetime.fromtimestamp(1772366400, UTC)
    assert event.trace_id == ""


def test_tailing_asks_for_what_the_stream_keeps() -> None:
    assert tailing.STREAM_SUBJECTS == ("image.>", "auxiliary.>", "placement.>", "stack.>")
