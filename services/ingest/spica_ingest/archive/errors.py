"""What can go wrong with an archive, as errors of the runtime.

archive_unavailable      Unavailable   away, busy, cut off: waits as long as it takes
archive_credential       Unavailable   token or certificate cannot be read, or expired: waits for a new one
archive_service_unknown  Unavailable   the registry has no such service: waits for better settings
archive_failed           Retriable     a fault inside the archive
archive_no_such_file     Retriable     announced, and not there (yet): archives settle in their own time
archive_other_version    Retriable     there, with other content than announced
transfer_broken          Retriable     breaks off, or crawls, at every try
transfer_corrupted       Retriable     came whole, but not as the archive's checksum has it
archive_forbidden        NotRetriable  this credential does not open this file
archive_refused          NotRetriable  the archive does not understand what was asked
unsupported_uri          NotRetriable  a host that is not in the list, a scheme nobody here knows
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from spica_runtime.errors import NotRetriable, Retriable, SpicaError, Unavailable

from spica_ingest.archive.redact import shown

BUSY = (402, 408, 423, 425, 429, 502, 503, 504)
"""Statuses after which the same question may be answered later."""
MISSING = (404, 410)
FORBIDDEN = (401, 403, 407)
_FAULT = 500
_LONGEST_ASKED_S = 3600.0
_LINE = 200


class NoAnswer(Unavailable):
    """Nothing came for the whole of the time allowed: asking again at once would only ask for the same."""


def unavailable(url: str, why: str, after_s: float | None = None) -> Unavailable:
    """The archive is away or busy; `after_s`: what it asks for, in seconds."""
    return Unavailable(
        "archive_unavailable",
        f"The archive cannot be used now, at {shown(url)}: {why}.",
        after_s=None if after_s is None else min(after_s, _LONGEST_ASKED_S),
    )


def no_answer(url: str, seconds: float) -> NoAnswer:
    """A request that took too long."""
    return NoAnswer("archive_unavailable", f"{shown(url)} has not answered within {seconds:g} s.")


def from_status(url: str, response: httpx.Response, body: str, credential: str) -> SpicaError:
    """What an answer that is not the wanted one means."""
    status, line = response.status_code, _first_line(body)
    said = f"HTTP {status}{f' ({line})' if line else ''}"
    if status in BUSY:
        return unavailable(url, said, retry_after_s(response))
    if status in MISSING:
        return no_such_file(shown(url), said)
    if status in FORBIDDEN:
        return forbidden(shown(url), said, credential)
    if status >= _FAULT:
        # One file that the archive stumbles over must not hold a place in the queue for ever.
        return Retriable("archive_failed", f"{shown(url)}: {said}.", {"status": status})
    return NotRetriable(
        "archive_refused", f"{shown(url)} does not do what was asked: {said}.", {"status": status}
    )


def refused_length(url: str, max_bytes: int) -> NotRetriable:
    """An answer that does not end."""
    return NotRetriable("archive_refused", f"{shown(url)} answers with more than {max_bytes} bytes.")


def unknown_end(url: str) -> NotRetriable:
    """A file of which nobody can tell whether it is whole."""
    return NotRetriable(
        "archive_refused",
        f"{shown(url)} tells neither the length of the file nor its checksum: whether all of it came cannot be told. "
        "Fetch it by other means, and submit it as a file.",
    )


def no_such_file(what: str, said: str) -> Retriable:
    """The archive does not have it, or not yet."""
    return Retriable(
        "archive_no_such_file",
        f"The archive does not have {what}: {said}. A file that was stored a moment ago may take minutes to be seen.",
    )


def forbidden(what: str, said: str, credential: str) -> NotRetriable:
    """Asked with this credential, the archive does not give it."""
    return NotRetriable(
        "archive_forbidden",
        f"The archive does not give {what} to {credential}: {said}. If it is not public yet, set "
        "SPICA_INGEST_ARCHIVE_CERTIFICATE or SPICA_INGEST_ARCHIVE_TOKEN_FILE to a credential that may read it, and "
        "retry the dead letter.",
    )


def broken(url: str, why: str) -> Retriable:
    """The transfer broke off."""
    return Retriable("transfer_broken", f"The transfer from {shown(url)} broke off: {why}.")


def corrupted(what: str, how: str) -> Retriable:
    """The transfer ended, with other bytes than the archive's checksum or size tells."""
    return Retriable("transfer_corrupted", f"{what} came damaged: {how}. The part was removed.")


def unsupported(uri: str, why: str) -> NotRetriable:
    """A source that this installation does not fetch from."""
    return NotRetriable("unsupported_uri", f"Cannot fetch {uri}: {why}")


def retry_after_s(response: httpx.Response) -> float | None:
    """Seconds that the answer asks to wait (RFC 9110, 10.2.3): a number, or a date."""
    text = response.headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return float(text[:10])
    until, now = http_date(text), http_date(response.headers.get("date"))
    # The archive's clock against itself.
    return None if until is None or now is None else max(0.0, (until - now).total_seconds())


def http_date(text: str | None) -> datetime | None:
    """Time of an HTTP header, in UTC; None where there is none that can be read."""
    try:
        read = parsedate_to_datetime(text or "")
        return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def _first_line(body: str) -> str:
    line = next((line.strip() for line in body.splitlines() if line.strip()), "")
    if line.startswith("<"):
        return ""  # a page for browsers
    # Services like to repeat the address in their messages, the key in it as well.
    return "".join(c for c in " ".join(_harmless(word) for word in line.split()) if c.isprintable())[:_LINE]


def _harmless(word: str) -> str:
    if "://" in word:
        return shown(word)
    return word if len(word) <= 60 else "…"
