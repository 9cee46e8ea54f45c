"""Errors, and what their class decides.

    SpicaError                 carries a code for people and tools, and numbers for provenance
    ├── Retriable              may go well later: negative acknowledgement with backoff, then dead letter
    │   └── Unavailable        bus, store or disk is away: waits without counting as an attempt
    ├── NotRetriable           will never go well: dead letter at once
    └── UsageError             a person asked for something that cannot be: shown, exit code 2

Any other exception is a bug: retried a few times (it may be a passing fault), then a dead letter
with code `internal_error` and the traceback in the log.
"""

from __future__ import annotations

from collections.abc import Mapping

Number = float | int | str | None


class SpicaError(Exception):
    """An error that says what was found, what was expected and what to do."""

    def __init__(self, code: str, message: str, numbers: Mapping[str, Number] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.numbers: dict[str, Number] = dict(numbers or {})

    def __reduce__(self) -> tuple[type[SpicaError], tuple[str, str, dict[str, Number]]]:
        """Errors cross the border of a worker process with their code and numbers."""
        return type(self), (self.code, self.message, self.numbers)


class Retriable(SpicaError):
    """May go well later."""


class Unavailable(Retriable):
    """Something Spica stands on is away for now.

    `after_s`: when it makes sense to ask again, in seconds, where that is known.
    """

    def __init__(
        self,
        code: str,
        message: str,
        numbers: Mapping[str, Number] | None = None,
        *,
        after_s: float | None = None,
    ) -> None:
        super().__init__(code, message, numbers)
        self.after_s = after_s


class NotRetriable(SpicaError):
    """Will not go well however often it is tried."""


class UsageError(SpicaError):
    """A person asked for something that cannot be."""
