"""The stand-in's clock: real seconds, moved forward when a test says so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class Clock:
    """No two times are the same: each is at least a microsecond after the one before."""

    def __init__(self) -> None:
        self._ahead = timedelta()
        self._last = datetime.min.replace(tzinfo=UTC)

    def now(self) -> datetime:
        """The time it is, UTC."""
        return datetime.now(UTC) + self._ahead

    def stamp(self) -> datetime:
        """A time for what happens now, later than any stamp before."""
        self._last = max(self.now(), self._last + timedelta(microseconds=1))
        return self._last

    def advance(self, seconds: float) -> None:
        """Let that much time pass at once."""
        self._ahead += timedelta(seconds=seconds)

    def when(self, time: datetime | float) -> datetime:
        """A time, or seconds from now."""
        return time if isinstance(time, datetime) else self.now() + timedelta(seconds=time)


def written(time: datetime) -> str:
    """As the database keeps it: UTC, microseconds, no zone. Strings of this form sort as times do."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
