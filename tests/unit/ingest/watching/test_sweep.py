"""Reading a window of times to its end, whatever stands in it; and what is decided about each file."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spica_ingest.watching.adql import MILLISECOND
from spica_ingest.watching.deciding import Version, after, decide
from spica_ingest.watching.discovery import Policy, sweeps_of
from spica_ingest.watching.found import Found
from spica_ingest.watching.model import Watch
from spica_ingest.watching.sweep import Bookmark, Place, check, next_place, place_before
from spica_runtime.errors import Retriable

T = datetime(2026, 3, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def found(uri: str, at: datetime, **more: object) -> Found:
    whole_ms = at.replace(microsecond=at.microsecond // 1000 * 1000)
    return replace(Found(uri, "md5:" + "0" * 32, 1, whole_ms, whole_ms, T), **more)  # type: ignore[arg-type]


def answer(rows: list[tuple[datetime, str]], place: Place, end: datetime, page_rows: int) -> list[Found]:
    """What the archive answers: it compares microseconds, and shows milliseconds."""
    begin, until = place.window(end)
    inside = [row for row in rows if begin <= row[0] < until and (place.uri is None or row[1] > place.uri)]
    inside.sort(key=(lambda row: (row[0], row[1])) if place.uri is None else (lambda row: row[1]))
    return [found(uri, time) for time, uri in inside[:page_rows]]


ROWS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 4000), st.integers(0, 4).map(lambda ms: ms * 1000), st.just(2500)),
        st.integers(0, 60),
    ),
    max_size=60,
    unique_by=lambda row: row[1],
)


@given(ROWS, st.integers(1, 7))
def test_everything_is_read_and_reading_ends(rows: list[tuple[int, int]], page_rows: int) -> None:
    there = [(T + n * MICROSECOND, f"{uri:03d}") for n, uri in rows]
    end = T + 4 * MILLISECOND
    place: Place | None = Place(time=T)
    met: set[str] = set()
    for _ in range(6 * len(rows) + 20):
        if place is None:
            break
        page = answer(there, place, end, page_rows)
        check(page, "changed", place, end)
        met |= {row.uri for row in page}
        place = next_place(page, "changed", place, page_rows)
    assert place is None
    assert met == {uri for time, uri in there if time < end}


@given(ROWS, st.integers(1, 7), st.integers(1, 5))
def test_a_page_that_is_left_in_its_middle_is_gone_on_with(
    rows: list[tuple[int, int]], page_rows: int, allowed: int
) -> None:
    there = [(T + n * MICROSECOND, f"{uri:03d}") for n, uri in rows]
    end = T + 5 * MILLISECOND
    place: Place | None = Place(time=T)
    taken: list[str] = []
    for _ in range(30 * len(rows) + 30):
        if place is None:
            break
        page, left, previous = answer(there, place, end, page_rows), allowed, None
        following = next_place(page, "changed", place, page_rows)
        for row in page:
            if row.uri not in taken:
                if not left:
                    following = place_before(row, "changed", place, previous)
                    break
                left -= 1
                taken.append(row.uri)
            previous = row
        place = following
    assert place is None
    assert sorted(taken) == sorted(uri for _, uri in there)


def test_answers_outside_the_window_or_out_of_order_are_refused() -> None:
    place, end = Place(time=T), T + timedelta(hours=1)
    good = [found("a", T), found("b", T), found("c", T + MILLISECOND)]
    check(good, "changed", place, end)
    for bad in (
        [good[2], good[0]],
        [found("a", T - MILLISECOND)],
        [found("a", end)],
    ):
        with pytest.raises(Retriable, match="asked for again"):
            check(bad, "changed", place, end)
    with pytest.raises(Retriable, match="outside"):
        check([good[2]], "changed", Place(time=T, uri="a"), end)
    with pytest.raises(Retriable, match="without the time"):
        check([found("a", T, released_at=None)], "released", place, end)


def begun(bookmark: Bookmark, end: datetime, now: datetime) -> Bookmark:
    return bookmark.begun(end, look_back=timedelta(minutes=10), recheck=timedelta(days=7), now=now)


def test_each_sweep_looks_back_and_one_a_day_far_back() -> None:
    start, day = T - timedelta(days=30), timedelta(days=1)
    bookmark = Bookmark.at(start, T, T)
    first = begun(bookmark, T + day / 2, T)
    assert first.place == Place(time=T - timedelta(minutes=10)) and first.end == T + day / 2
    done = first.moved(None)
    assert (done.done, done.end, done.place) == (T + day / 2, None, None)
    deep = begun(done, T + day, T + day)
    assert deep.place == Place(time=T + day / 2 - timedelta(days=7))
    again = begun(deep.moved(None), T + day, T + day + timedelta(minutes=5))
    assert again.place == Place(time=T + day - timedelta(minutes=10))
    # Never before the beginning, and never backwards, also if the archive's newest change is older than yesterday's.
    assert begun(Bookmark.at(T, T, T), T, T + 2 * day).place == Place(time=T)
    assert begun(done, T - day, T).moved(None).done == done.done
    assert Bookmark.model_validate(again.model_dump(mode="json")) == again


def test_news_come_before_a_backfill_and_clocks_that_differ_lose_nothing() -> None:
    policy, day = Policy(), timedelta(days=1)
    watch = Watch(name="w", collection="CFHT")
    (changed, released) = sweeps_of(watch, T, T + day, T + 2 * day, policy)
    # Ours is up to ten minutes ahead of the archive's.
    assert changed.start == released.start == changed.first == T - timedelta(minutes=10)
    assert (changed.end, released.end) == (T + day + MILLISECOND, T + 2 * day + MILLISECOND)
    old = watch.model_copy(update={"since": T - 100 * day})
    names = [sweep.name for sweep in sweeps_of(old, T, T + day, T + day, policy)]
    assert names == ["changed", "released", "backfill_changed", "backfill_released"]
    # The archive shows milliseconds: a window that began within one would refuse its first rows.
    late, policy = T + 1234567 * MICROSECOND, Policy(look_back=timedelta(minutes=10))
    asked = watch.model_copy(update={"since": late - day})
    for wanted in (watch, asked):
        for sweep in sweeps_of(wanted, late, T + day, T + day, policy):
            bookmark = sweep.begun(None, T + day, policy)
            assert bookmark is not None and bookmark.place is not None and bookmark.end is not None
            first = found("a", bookmark.place.time + MICROSECOND)
            check([first], "changed", bookmark.place, bookmark.end)
    # An entry of the year 2999 does not take the bookmark there.
    far = sweeps_of(watch, T, datetime(2999, 1, 1, tzinfo=UTC), T, policy)[0]
    assert far.end == T + policy.look_back + MILLISECOND


A, B, DAY = "md5:" + "a" * 32, "md5:" + "b" * 32, timedelta(days=1)


def file(checksum: str, modified: int, released: int | None = 0) -> Found:
    return found(
        "cadc:X/1p.fits",
        T,
        checksum=checksum,
        modified_at=T + modified * DAY,
        released_at=None if released is None else T + released * DAY,
    )


def version(checksum: str, state: str, modified: int, released: int | None = 0, **more: bool) -> Version:
    release = None if released is None else T + released * DAY
    return Version(checksum, state, T + modified * DAY, release, **more)  # type: ignore[arg-type]


NOW = T + 50 * DAY


@pytest.mark.parametrize(
    ("seen", "known", "step", "why"),
    [
        (file(A, 1), [], "announce", "new"),
        (file(A, 1, 99), [], "wait", "waits for its release on 2026-06-08 00:00"),
        (file(A, 1, None), [], "wait", "waits: the archive names no release date"),
        (file(A, 1), [version(A, "announced", 1)], "nothing", "known"),
        (file(A, 9), [version(A, "handled", 1)], "nothing", "known"),
        (file(B, 2), [version(A, "announced", 1)], "announce", "changed"),
        (file(B, 2, 99), [version(A, "announced", 1)], "wait", "waits for its release on 2026-06-08 00:00"),
        (file(A, 1), [version(A, "waiting", 1, 10)], "announce", "released"),
        (file(A, 1, 99), [version(A, "waiting", 1, 99)], "nothing", "waits for its release on 2026-06-08 00:00"),
        (file(A, 1, 98), [version(A, "waiting", 1, 99)], "wait", "waits for its release on 2026-06-07 00:00"),
        (file(A, 3), [version(A, "handled", 1), version(B, "handled", 2)], "announce", "changed"),
        (file(A, 1), [version(A, "handled", 1), version(B, "handled", 2)], "nothing", "known"),
        (file(B, 5), [version(A, "handled", 1), version(B, "handled", 2)], "nothing", "known"),
        (file(A, 1, 40), [version(A, "announced", 1, 40, early=True)], "nothing", "known"),
        (file(A, 1, 40), [version(A, "announced", 1, 40, early=True, failed=True)], "announce", "changed"),
        (file(A, 1, 99), [version(A, "announced", 1, 99, early=True, failed=True)], "nothing", "known"),
    ],
)  # fmt: skip
def test_what_is_done_about_a_file(seen: Found, known: list[Version], step: str, why: str) -> None:
    decision = decide(seen, known, NOW)
    assert (decision.step, decision.why) == (step, why)
    # Once it is done it is done.
    knows = after(seen, known, decision)
    assert decide(seen, knows, NOW).step == "nothing"


def test_announcements_of_one_file_have_ids_of_their_own_and_the_same_for_everyone() -> None:
    first, second, back = file(A, 1), file(B, 2), file(A, 3)
    known: list[Version] = []
    ids = []
    for seen in (first, second, back):
        decision = decide(seen, known, NOW)
        assert decision.event_id(seen) == decide(seen, known, NOW).event_id(seen)
        ids.append(decision.event_id(seen))
        known = after(seen, known, decision)
    assert len(set(ids)) == 3


def test_a_content_that_waits_is_replaced_by_the_next() -> None:
    known = [version(A, "waiting", 1, 99), version(B, "handled", 0)]
    third = file("md5:" + "c" * 32, 2, 99)
    knows = after(third, known, decide(third, known, NOW))
    assert {one.checksum: one.state for one in knows} == {
        A: "replaced",
        B: "handled",
        third.checksum: "waiting",
    }
