"""Questions to an archive's catalogue: ADQL over TAP, one synchronous query after the other.

Answers are read as tab-separated text, and only whole ones are believed. What an archive leaves out of an answer is
taken for not being there, and the bookmark moves past it; so an answer that may have been cut, or that is not the
table that was asked for, is an error and nothing of it is used.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import unescape
from typing import Protocol

from spica_runtime.errors import NotRetriable, Retriable, SpicaError

from spica_ingest.archive import errors
from spica_ingest.archive.http import Answer, ArchiveHttp
from spica_ingest.archive.redact import shown
from spica_ingest.archive.registry import TAP, Registry
from spica_ingest.watching import adql
from spica_ingest.watching.found import HEADER, Found, read_row, whole_milliseconds

ANSWER_S = 300.0
RETRIES = 2
"""A pass that fails is made again anyway, and the archive is shown as away meanwhile."""
_MAX_BYTES = 64_000_000
_SAID = 300
_TSV = "text/tab-separated-values"


@dataclass(frozen=True, slots=True)
class Rows:
    """An answer, whole."""

    rows: tuple[Mapping[str, str], ...]
    full: bool
    """As many rows as were allowed: there may be more, which a text table does not say."""
    server_time: datetime
    """When the archive answered, by its own clock (to the second)."""


class Asks(Protocol):
    """What discovery needs of an archive's catalogue."""

    async def newest(self, collection: str) -> tuple[datetime, datetime]:
        """When the collection was last changed, and what time it is: both by the archive's clock."""

    async def page(self, query: str, page_rows: int) -> tuple[list[Found], datetime]:
        """One page of files, and what time it is at the archive."""


class TapClient:
    """The catalogue of one archive."""

    def __init__(self, http: ArchiveHttp, registry: Registry, service_id: str) -> None:
        self._http = http
        self._registry = registry
        self._service_id = service_id

    async def newest(self, collection: str) -> tuple[datetime, datetime]:
        """When anything of a collection was last changed, and what time it is, by the archive's clock.

        Of the collection, not of everything: a catalogue that is filled from others may be ahead with one collection
        and behind with the next, and a bookmark must not pass what is still to come.
        """
        answer = await self.query(adql.newest(collection), maxrec=1, columns=None)
        text = next((value for row in answer.rows for value in row.values()), "").strip()
        if not text:
            raise NotRetriable(
                "archive_collection",
                f"The archive shows nothing of a collection {collection!r} to {self._http.credential}. "
                "See how the archive spells it (CFHT, say).",
            )
        try:
            read = whole_milliseconds(datetime.fromisoformat(text))
        except ValueError as error:
            raise _not_understood(self._service_id, f"{text[:80]!r} where a time is due") from error
        return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC), answer.server_time

    async def page(self, query: str, page_rows: int) -> tuple[list[Found], datetime]:
        """Ask for one page of files."""
        answer = await self.query(query, maxrec=page_rows, columns=HEADER)
        return [read_row(row) for row in answer.rows], answer.server_time

    async def query(self, query: str, *, maxrec: int, columns: Sequence[str] | None) -> Rows:
        """Ask the catalogue.

        Args:
            query: in ADQL.
            maxrec: rows in the answer, at most.
            columns: names that the answer's header must have, in this order; None: any one column.

        Raises:
            Unavailable: the archive is away or busy.
            NotRetriable: `archive_query`: the archive refuses the query, with its words.
            Retriable: `archive_answer`: the answer is not whole, or not the table that was asked for.

        """
        url = f"{await self._registry.url(self._service_id, TAP)}/sync"
        # By POST, since a polygon is longer than some servers take as an address. The 303 that follows is a GET.
        answer = await self._http.request(
            "POST",
            url,
            data={
                "REQUEST": "doQuery",
                "LANG": "ADQL",
                "RESPONSEFORMAT": "tsv",
                "MAXREC": str(maxrec),
                "QUERY": query,
            },
            accept=(200, 400, *errors.MISSING),
            max_bytes=_MAX_BYTES,
            retries=RETRIES,
            answer_s=ANSWER_S,
        )
        if answer.status == 400:
            raise NotRetriable(
                "archive_query",
                f"{shown(url)} refuses the query: {_words(answer.text) or 'HTTP 400'}. The query was: {query}",
            )
        if answer.status != 200:
            raise errors.unavailable(url, f"its catalogue is not there (HTTP {answer.status})")
        _whole(url, answer)
        rows = read_table(answer.text, columns, what=shown(url))
        if len(rows) > maxrec:
            raise _not_understood(shown(url), f"{len(rows)} rows where {maxrec} were the limit")
        return Rows(tuple(rows), len(rows) >= maxrec, _server_time(answer))


def read_table(text: str, columns: Sequence[str] | None, *, what: str) -> list[dict[str, str]]:
    """Rows of a table in tab-separated text, whose header must be `columns` (without regard to case).

    Raises `Retriable` (`archive_answer`) for anything that is not just that, to the end of its last line.
    """
    if text.lstrip("\ufeff \r\n\t").startswith("<"):
        raise _not_understood(what, f"a page or document instead of a table ({_words(text)!r})")
    if not text.endswith("\n"):
        raise _not_understood(what, f"a table whose last line is cut off ({text[-60:]!r})")
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), dialect="excel-tab", strict=True))
    except csv.Error as error:
        raise _not_understood(what, f"a table that cannot be read ({error})") from error
    header, body = [name.strip() for name in lines[0]], lines[1:]
    width = 1 if columns is None else len(columns)
    if len(header) != width or (
        columns is not None and [name.lower() for name in header] != [name.lower() for name in columns]
    ):
        expected = "one column" if columns is None else ", ".join(columns)
        raise _not_understood(what, f"columns {', '.join(header)[:_SAID]!r} where {expected} were asked for")
    names = tuple(columns) if columns is not None else ("value",)
    rows = []
    for number, line in enumerate(body, start=2):
        cells = line or ([""] if width == 1 else [])  # a lone empty value is an empty line
        if len(cells) != width:
            raise _not_understood(what, f"{len(cells)} values in line {number} where {width} are due")
        rows.append(dict(zip(names, cells, strict=True)))
    return rows


def _whole(url: str, answer: Answer) -> None:
    """Refuse an answer of which nobody can tell whether it was cut: it ended because the connection did."""
    headers = answer.headers
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (_TSV, "text/tsv", "text/plain"):
        raise _not_understood(
            shown(url), f"{kind or 'no content type'} instead of {_TSV} ({_words(answer.text)!r})"
        )
    if "content-length" not in headers and "chunked" not in headers.get("transfer-encoding", "").lower():
        raise _not_understood(
            shown(url), "an answer with neither length nor end (a proxy may have taken them away)"
        )


def _server_time(answer: Answer) -> datetime:
    """Time at the archive. Its own clock, since it is what releases are measured by; ours where it tells none."""
    return errors.http_date(answer.headers.get("date")) or datetime.now(UTC)


def _words(text: str) -> str:
    """What an error document says, without its markup."""
    # Patterns that read on and never back, whatever the document: it may be anyone's.
    infos = re.finditer(r"<INFO\b([^<>]*)>([^<]*)", text[:100_000], re.IGNORECASE)
    status = next((info[2] for info in infos if "QUERY_STATUS" in info[1].upper()), None)
    plain = unescape(re.sub(r"<[^<>]*>?", " ", text[:2000]) if status is None else status)
    return " ".join("".join(c if c.isprintable() else " " for c in plain).split())[:_SAID]


def _not_understood(what: str, found: str) -> SpicaError:
    return Retriable(
        "archive_answer", f"{what} answers with {found}. Nothing of it is used; it is asked again."
    )
