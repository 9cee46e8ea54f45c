"""Which event belongs to whom, and when all is over."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from spica_console.following import Progress
from spica_console.tailing import Event
from spica_proto.examples import EXAMPLES

_sequence = itertools.count(1)


def event(subject: str, data: dict[str, Any], *, trace: str = "", event_id: str = "") -> Event:
    number = next(_sequence)
    return Event(number, subject, event_id or f"e{number}", datetime.now(UTC), "/t", trace, data)


def example(subject: str, trace: str = "", **changes: Any) -> Event:
    body = EXAMPLES[subject].model_dump(mode="json", exclude_none=True)
    return event(subject, body | changes, trace=trace)


def test_an_image_is_followed_by_its_trace() -> None:
    progress = Progress()
    mine = progress.expect_image("a", uri="file:///a", trace_id="t1")
    other = progress.expect_image("b", uri="file:///b", trace_id="t2")
    for subject, state in (
        ("image.arrived", "arrived"),
        ("image.verified", "verified"),
        ("image.graded", "graded"),
        ("image.calibrated", "calibrated"),
    ):
        assert not mine.ended
        assert progress.hear(example(subject, "t1", uri="file:///elsewhere")) is mine
        assert mine.state == state
    assert mine.ended
    assert not mine.went_wrong
    assert mine.grade == "B"
    assert mine.id == EXAMPLES["image.graded"].image_id  # type: ignore[attr-defined]
    assert other.state == "submitted"
    assert progress.counts() == {"arrived": 1, "verified": 1, "graded": 1, "calibrated": 1}


def test_without_traces_it_is_followed_by_uri_content_and_id() -> None:
    arrived = EXAMPLES["image.arrived"]
    progress = Progress()
    mine = progress.expect_image("a", uri=arrived.uri, sha256=arrived.sha256)  # type: ignore[attr-defined]
    assert progress.hear(example("image.arrived")) is mine
    assert progress.hear(example("image.verified")) is mine, "by content"
    assert progress.hear(example("image.graded")) is mine, "by id"
    assert progress.hear(example("image.graded", image_id="another")) is None


def test_a_rejection_is_an_end_with_reasons() -> None:
    progress = Progress()
    mine = progress.expect_image("a", uri="file:///data/incoming/2387309p.fits.fz")
    progress.hear(example("image.rejected"))
    assert mine.ended
    assert mine.went_wrong
    assert [reason["code"] for reason in mine.why] == ["checksum_mismatch"]


def test_a_failure_is_an_end_until_the_letter_is_sent_again_and_goes_well() -> None:
    progress = Progress()
    mine = progress.expect_image("a", uri="u", trace_id="t")
    progress.hear(example("image.failed", "t"))
    assert mine.ended
    assert mine.went_wrong
    assert mine.why[0]["code"] == "too_few_matches"
    progress.hear(example("image.calibrated", "t"))
    assert mine.ended
    assert not mine.went_wrong


def test_a_stack_is_followed_from_its_request() -> None:
    progress = Progress()
    mine = progress.expect_stack("D1", request_id="d1-r-2019a")
    for subject in ("stack.requested", "stack.planned", "stack.calibrated", "stack.coadded", "stack.done"):
        assert progress.hear(example(subject)) is mine
        assert not mine.ended
    assert progress.hear(example("stack.exported")) is mine
    assert mine.ended
    assert mine.grade == "A"


def test_parts_of_a_stack_are_not_told_one_by_one_and_all_of_them_count() -> None:
    progress = Progress()
    mine = progress.expect_stack("D1", request_id="d1-r-2019a")
    for subject in ("stack.requested", "stack.planned", "stack.calibrated"):
        progress.hear(example(subject))
    stack_id = mine.id
    asked = [example("stack.part_wanted", stack_id=stack_id, number=number) for number in range(3)]
    for one in asked:
        assert progress.hear(one) is mine
    assert mine.state == "making"
    assert mine.parts == {one.id for one in asked}
    assert [heard.subject for heard in progress.recent] == [
        "stack.requested",
        "stack.planned",
        "stack.calibrated",
    ]
    assert progress.hear(example("stack.coadded")) is mine
    assert mine.state == "coadded" and not mine.parts


def test_what_becomes_of_a_stack_long_after_does_not_change_how_it_ended() -> None:
    progress = Progress()
    mine = progress.expect_stack("D1", request_id="d1-r-2019a")
    for subject in ("stack.planned", "stack.exported"):
        progress.hear(example(subject))
    assert progress.hear(example("stack.stale", stack_id=mine.id)) is None
    assert mine.ended and mine.state == "exported"


def test_a_failed_stack_stays_failed_while_the_rest_of_its_parts_is_put_aside() -> None:
    progress = Progress()
    mine = progress.expect_stack("D1", request_id="d1-r-2019a")
    for subject in ("stack.planned", "stack.calibrated"):
        progress.hear(example(subject))
    progress.hear(example("stack.failed", stack_id=mine.id))
    progress.hear(example("stack.part_wanted", stack_id=mine.id))
    assert mine.ended and mine.went_wrong
    progress.hear(example("stack.coadded", stack_id=mine.id))
    assert not mine.ended


def test_a_request_without_an_id_is_known_by_the_events() -> None:
    progress = Progress()
    mine = progress.expect_stack("it", request_id="e-17")
    assert progress.hear(event("stack.requested", {}, event_id="e-17")) is mine
    assert progress.hear(event("stack.requested", {}, event_id="e-18")) is None


def test_a_stack_that_an_image_called_for_does_not_count_as_the_image() -> None:
    """A standing survey's request carries the trace of the image that completed it."""
    progress = Progress()
    progress.expect_image("a", uri="u", trace_id="t")
    assert progress.hear(example("stack.requested", "t")) is None


def test_news_reopens_what_was_settled() -> None:
    progress = Progress()
    mine = progress.expect_image("a", uri="u", trace_id="t")
    progress.hear(example("image.graded", "t", grade="D"))
    mine.settled = True
    assert mine.ended
    progress.hear(example("image.graded", "t", grade="B"))
    assert not mine.ended


@given(st.permutations(["image.arrived", "image.verified", "image.graded", "image.calibrated"]))
def test_whatever_the_order_every_stage_is_counted_once(order: list[str]) -> None:
    progress = Progress()
    progress.expect_image("a", uri="u", trace_id="t")
    for subject in (*order, *order):
        progress.hear(example(subject, "t"))
    assert set(progress.counts().values()) == {1}
