"""Messages on the wire: what goes in comes out, readers are tolerant, and JSON stays JSON."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from spica_proto.envelope import child_traceparent, derived_id, header, new_traceparent, seal
from spica_proto.examples import EXAMPLES, GRADED, VERIFIED
from spica_proto.images import ImageArrived, ImageFailed, ImageVerified, Metrics
from spica_proto.stacks import Selection, StackRequested
from spica_proto.subjects import BY_NAME


def strict(text: bytes) -> Any:
    """Parse JSON as the standard has it: no NaN, no Infinity."""

    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_message_comes_out_of_its_envelope_as_it_went_in(name: str) -> None:
    envelope = seal(EXAMPLES[name], source="/spica/test", event_id="the-id")
    assert envelope.subject == name
    assert BY_NAME[name].model.model_validate_json(envelope.body) == EXAMPLES[name]
    headers = envelope.headers
    assert headers["Nats-Msg-Id"] == headers["ce-id"] == "the-id"
    assert headers["ce-type"] == f"spica.{name}.v{EXAMPLES[name].schema_version}"
    assert headers["ce-time"].endswith("Z")
    assert "null" not in strict(envelope.body).values()


@pytest.mark.parametrize("name", EXAMPLES)
def test_readers_ignore_fields_they_do_not_know(name: str) -> None:
    def with_more(node: Any) -> Any:
        if isinstance(node, dict) and node:
            more = {key: with_more(value) for key, value in node.items()}
            return (
                more
                if "n_needed" in node or "n_selected" in node
                else more | {"added_later": [1, {"a": None}]}
            )
        return [with_more(value) for value in node] if isinstance(node, list) else node

    body = with_more(json.loads(seal(EXAMPLES[name], source="/t").body))
    assert BY_NAME[name].model.model_validate(body) == EXAMPLES[name]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_body_holds_nan_or_infinity(value: float) -> None:
    with pytest.raises(ValidationError):
        Metrics(fwhm_arcsec=value)
    with pytest.raises(ValidationError):
        Metrics(saturated_fraction=value)
    # Where a model does not look, the body says null.
    body = seal(VERIFIED.model_copy(update={"airmass": value}), source="/t").body
    assert strict(body)["airmass"] is None
    assert ImageVerified.model_validate_json(body).airmass is None
    failed = ImageFailed(
        stage="s", code="c", message="m", dead_letter_id="d", heard="h", numbers={"rms": value}
    )
    assert strict(seal(failed, source="/t").body)["numbers"] == {"rms": None}


def test_the_least_that_may_be_said() -> None:
    assert ImageArrived.model_validate_json('{"uri": "/a.fits"}').source == "other"
    assert StackRequested.model_validate_json("{}").selection == Selection()
    for model, body in ((ImageArrived, "{}"), (ImageArrived, '{"uri": ""}'), (StackRequested, "[]")):
        with pytest.raises(ValidationError):
            model.model_validate_json(body)


def test_a_product_name_cannot_leave_its_folder() -> None:
    for name in ("../etc", "/a", "a/b", "", ".hidden", "a b", "a\n"):
        with pytest.raises(ValidationError):
            StackRequested(name=name)
    assert StackRequested(name="D1.r_2019+A-1").name == "D1.r_2019+A-1"


def test_messages_do_not_change() -> None:
    with pytest.raises(ValidationError):
        GRADED.grade = "A"  # type: ignore[misc]


@given(st.lists(st.text(), min_size=1), st.lists(st.text(), min_size=1))
def test_derived_ids_follow_from_their_parts_alone(parts: list[str], others: list[str]) -> None:
    separated = [[part for part in these if "\x1f" not in part] for these in (parts, others)]
    assert derived_id(*separated[0]) == derived_id(*separated[0])
    if len(separated[0]) == len(separated[1]):
        assert (derived_id(*separated[0]) == derived_id(*separated[1])) == (separated[0] == separated[1])


def test_a_child_stays_in_its_trace() -> None:
    parent = new_traceparent()
    child = child_traceparent(parent)
    assert child.split("-")[1] == parent.split("-")[1]
    assert child.split("-")[2] != parent.split("-")[2]
    for broken in (None, "", "00-short-1-01", "nonsense"):
        assert len(child_traceparent(broken)) == 55


def test_headers_are_found_whatever_their_case() -> None:
    assert header({"CE-ID": "a"}, "ce-id") == "a"
    assert header({"other": "a"}, "ce-id") is None
    assert header(None, "ce-id") is None


def test_times_are_sent_in_utc() -> None:
    east = datetime(2026, 3, 1, 2, 30, tzinfo=timezone(timedelta(hours=2)))
    sent = seal(EXAMPLES["image.arrived"], source="/t", time=east).headers["ce-time"]
    assert sent == "2026-03-01T00:30:00Z"
    assert datetime.fromisoformat(sent) == east.astimezone(UTC)
