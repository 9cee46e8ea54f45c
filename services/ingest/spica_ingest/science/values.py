"""Reading header values that people and programs wrote in many ways."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

MJD_EPOCH = datetime(1858, 11, 17, tzinfo=UTC)

_DATE = re.compile(r"^(\d{4})-(\d{1,2})-(\d{1,2})")
_OLD_DATE = re.compile(r"^(\d{1,2})/(\d{1,2})/(\d{2})$")
_TIME = re.compile(r"^(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d*)?))?")
_OFFSET = re.compile(r"(Z|[+-]\d{2}:?\d{2})$")
_SEXAGESIMAL = re.compile(r"^([+-]?)\s*(\d{1,3})[:\sHhDd°]+(\d{1,2})[:\sMm']+(\d{1,2}(?:\.\d*)?)\s*[Ss\"]?$")


def as_number(value: Any) -> float | None:
    """A finite number, also one in quotes; None for anything else (bool is not a number)."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_text(value: Any) -> str | None:
    """One line of text without control characters and repeated blanks; None if nothing is left."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    return text or None


def printable(text: str) -> str:
    """The text with `?` for what cannot be printed: control characters, halves of characters."""
    return "".join(character if character.isprintable() else "?" for character in text)


def kept(text: str, limit: int = 1000) -> str:
    """The text as messages and the store can hold it: nothing unprintable, and not longer than `limit`."""
    text = printable(text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


@dataclass(frozen=True, slots=True)
class Angle:
    """A coordinate in degrees, and whether it was written in sexagesimal form."""

    degrees: float
    sexagesimal: bool


def as_angle(value: Any, *, hours: bool) -> Angle | None:
    """Degrees from a number, or from sexagesimal text (``02:05:14.9``, ``+46 46 09``).

    `hours`: sexagesimal text counts hours (right ascension), fifteen degrees each. Numbers are degrees.
    """
    number = as_number(value)
    if number is not None:
        return Angle(number, sexagesimal=False)
    found = _SEXAGESIMAL.match(str(value).strip())
    if found is None:
        return None
    sign, whole, minutes, seconds = found.groups()
    if int(minutes) >= 60 or float(seconds) >= 60:
        return None
    angle = int(whole) + int(minutes) / 60 + float(seconds) / 3600
    return Angle((-angle if sign == "-" else angle) * (15.0 if hours else 1.0), sexagesimal=True)


@dataclass(frozen=True, slots=True)
class ObservedAt:
    """When an exposure began."""

    utc: datetime
    local_date: date
    """Calendar date where the offset from UTC was stated, else in UTC."""
    has_time: bool
    offset: str | None
    """Offset from UTC as written, if it was other than zero."""

    @property
    def mjd(self) -> float:
        """Modified Julian Date, UTC."""
        return (self.utc - MJD_EPOCH) / timedelta(days=1)

    @property
    def night(self) -> str:
        """The evening's date of the night this belongs to (noon to noon, in the time it was written in)."""
        shift = self.utc + (_offset(self.offset) or timedelta()) - timedelta(hours=12)
        return shift.date().isoformat()


def _offset(text: str | None) -> timedelta | None:
    if text is None or text == "Z":
        return None
    digits = text[1:].replace(":", "")
    size = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return -size if text[0] == "-" else size


def as_observed_at(date_value: Any, time_value: Any = None) -> ObservedAt | None:
    """Start of an exposure from DATE-OBS, with the time from a second keyword where it is only a date.

    Understands ISO 8601 with or without time and offset (``2017-12-19T18:33:43.317-0700``) and the old
    ``dd/mm/yy``. None if it cannot be read.
    """
    text = str(date_value).strip()
    offset_text = None
    day_part, _, time_part = text.partition("T") if "T" in text else text.partition(" ")
    if time_part:
        offset = _OFFSET.search(time_part)
        if offset:
            offset_text, time_part = offset.group(1), time_part[: offset.start()]
    elif time_value is not None:
        time_part = str(time_value).strip()
    try:
        day = _read_date(day_part)
        clock = _read_time(time_part)
        if day is None or (time_part and clock is None):
            return None
        shift = _offset(offset_text)
        local = datetime(day.year, day.month, day.day, tzinfo=timezone(shift or timedelta()))
        local += clock or timedelta()
        utc = local.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return ObservedAt(
        utc=utc,
        local_date=local.date(),
        has_time=clock is not None,
        offset=offset_text if shift else None,
    )


def _read_date(text: str) -> date | None:
    if found := _DATE.match(text):
        year, month, day = (int(part) for part in found.groups())
        return date(year, month, day)
    if found := _OLD_DATE.match(text):
        day, month, year = (int(part) for part in found.groups())
        return date(1900 + year, month, day)
    return None


def _read_time(text: str) -> timedelta | None:
    found = _TIME.match(text)
    if found is None:
        return None
    hours, minutes, seconds = found.groups()
    if int(hours) > 24 or int(minutes) > 59 or float(seconds or 0) >= 61:
        return None
    return timedelta(hours=int(hours), minutes=int(minutes), seconds=float(seconds or 0))
