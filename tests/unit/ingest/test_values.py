from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spica_ingest.science.values import as_angle, as_number, as_observed_at, as_text


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1.5, 1.5), ("53.907456", 53.907456), (" 2 ", 2.0), (True, None), ("", None), ("1..2", None),
     (math.nan, None), ("inf", None), (None, None), (10**400, None)],
)  # fmt: skip
def test_numbers(value: object, expected: float | None) -> None:
    assert as_number(value) == expected


@pytest.mark.parametrize(
    ("text", "hours", "degrees"),
    [
        ("23 57 00.00", True, 359.25),
        ("18:42:17.51", True, 280.57295833),
        ("+56 39 09.0", False, 56.6525),
        ("-00:30:36", False, -0.51),
        ("10h41m36.0s", True, 160.4),
        ("214.85", True, 214.85),
    ],
)
def test_angles(text: str, hours: bool, degrees: float) -> None:
    angle = as_angle(text, hours=hours)
    assert angle is not None
    assert angle.degrees == pytest.approx(degrees)
    assert angle.sexagesimal == (text != "214.85")


@pytest.mark.parametrize("text", ["12:61:00", "12:00:60", "north", "", "12", None])
def test_what_is_no_angle(text: object) -> None:
    angle = as_angle(text, hours=True)
    assert angle is None or not angle.sexagesimal


@given(st.integers(0, 23), st.integers(0, 59), st.floats(0, 59.99))
def test_sexagesimal_text_is_read_back(hours: int, minutes: int, seconds: float) -> None:
    angle = as_angle(f"{hours:02d}:{minutes:02d}:{seconds:05.2f}", hours=True)
    assert angle is not None
    assert angle.degrees == pytest.approx(15 * (hours + minutes / 60 + round(seconds, 2) / 3600), abs=1e-9)


def test_local_time_with_its_offset_becomes_utc() -> None:
    started = as_observed_at("2017-12-19T18:33:43.317-0700")
    assert started is not None
    assert started.utc.isoformat() == "2017-12-20T01:33:43.317000+00:00"
    assert started.offset == "-0700"
    assert started.mjd == pytest.approx(58107.0650847, abs=1e-7)
    assert started.night == "2017-12-19"


@pytest.mark.parametrize(
    ("date", "time", "utc", "night"),
    [
        ("2010-11-03", "04:37:48.59", "2010-11-03T04:37:48.590000+00:00", "2010-11-02"),
        ("2018-10-18T22:25:31", None, "2018-10-18T22:25:31+00:00", "2018-10-18"),
        ("2018-10-18T22:25:31Z", "ignored", "2018-10-18T22:25:31+00:00", "2018-10-18"),
        ("2018-10-18 22:25:31", None, "2018-10-18T22:25:31+00:00", "2018-10-18"),
        ("18/10/97", "01:02", "1997-10-18T01:02:00+00:00", "1997-10-17"),
        ("2001-09-20", None, "2001-09-20T00:00:00+00:00", "2001-09-19"),
        ("2016-12-31T23:59:60", None, "2017-01-01T00:00:00+00:00", "2016-12-31"),
    ],
)
def test_dates(date: str, time: str | None, utc: str, night: str) -> None:
    started = as_observed_at(date, time)
    assert started is not None
    assert started.utc.isoformat() == utc
    assert started.night == night
    assert started.offset is None


@pytest.mark.parametrize(
    "text", ["yesterday", "", "2020-13-01", "2020-02-30", "2020-01-01Tnoon", "0000-01-01", None]
)
def test_what_is_no_date(text: object) -> None:
    assert as_observed_at(text) is None


@given(st.text(max_size=40), st.text(max_size=20))
def test_no_text_breaks_the_readers(text: str, other: str) -> None:
    as_observed_at(text, other)
    as_angle(text, hours=True)
    as_number(text)
    assert (as_text(text) or "x").isprintable()
