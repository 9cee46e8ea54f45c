"""Asking a TAP service (IVOA TAP 1.1, UWS 1.1) with patience: retries, redirects, jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpx
import structlog

from spica_calib.errors import ReferenceUnavailable
from spica_calib.reference.votable import Malformed, Refused, Table, WrongColumns, read_error, read_table

log = structlog.get_logger(__name__)

_AGENT = "spica-calib"
_MAX_BYTES = 1 << 30
_MAX_REDIRECTS = 5
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_RUNNING = frozenset({"PENDING", "QUEUED", "EXECUTING", "HELD", "SUSPENDED", "UNKNOWN", "RUN"})
_REMOVE_S = 10.0
_ASK_AGAIN_S = 60.0
_WRONG_ASK_AGAIN_S = 600.0
"""What a service refuses it refuses again, until somebody changes something."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited for a service, and how often it is asked again."""

    connect_s: float = 20.0
    answer_s: float = 120.0
    """For the next bytes of an answer."""
    job_s: float = 1800.0
    """For an asynchronous job to end, and for any one answer."""
    retries: int = 4
    first_delay_s: float = 1.0
    longest_delay_s: float = 60.0
    """A service that wants to be left alone for longer is: then the work waits."""
    poll_first_s: float = 0.5
    poll_longest_s: float = 10.0

    def delay_s(self, failures: int) -> float:
        """Wait before the next try: twice as long after each failure."""
        return min(self.first_delay_s * 2.0 ** (failures - 1), self.longest_delay_s)


class _Passing(Exception):
    """May go well at the next try."""

    def __init__(self, why: str, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s


class TapService:
    """One TAP service. Errors name it and what it said; all of them are `ReferenceUnavailable`."""

    def __init__(self, url: str, patience: Patience, client: httpx.AsyncClient) -> None:
        self.url = url
        self._patience = patience
        self._client = client

    async def query(self, adql: str, names: Sequence[str], max_rows: int, *, sync: bool) -> Table:
        """Answer to a query, whose columns must have these names.

        Raises `ReferenceUnavailable`: `reference_unreachable` where it may go well later, `reference_refused` where
        the service says no, `reference_malformed` where its answers are none.
        """
        failures = 0
        while True:
            try:
                body = await (self._sync(adql, max_rows) if sync else self._async(adql, max_rows))
                # Tables of many stars take seconds.
                return await asyncio.to_thread(read_table, body, names)
            except _Passing as error:
                failures += 1
                await self._wait(failures, error)
            except Malformed as error:
                # As a rule a passing fault as well: a cut answer, a portal's page.
                failures += 1
                if isinstance(error, WrongColumns) or failures > self._patience.retries:
                    raise self._error(
                        "reference_malformed", f"it answers with {error}", _ASK_AGAIN_S
                    ) from error
                await self._wait(failures, _Passing(str(error)))
            except Refused as error:
                raise self._error("reference_refused", f"it says: {error}", _WRONG_ASK_AGAIN_S) from error

    async def _wait(self, failures: int, error: _Passing) -> None:
        """Wait before the next try. Raises `ReferenceUnavailable` if there is none, or not soon."""
        delay_s = max(self._patience.delay_s(failures), error.after_s or 0.0)
        if failures > self._patience.retries or delay_s > self._patience.longest_delay_s:
            raise self._error(
                "reference_unreachable", str(error), max(error.after_s or 0.0, _ASK_AGAIN_S)
            ) from error
        log.info("reference service failed, is asked again", url=self.url, error=str(error), delay_s=delay_s)
        await asyncio.sleep(delay_s)

    def _error(self, code: str, why: str, after_s: float) -> ReferenceUnavailable:
        return ReferenceUnavailable(code, f"{self.url}: {why}.", {"url": self.url}, after_s=after_s)

    async def _sync(self, adql: str, max_rows: int) -> bytes:
        response = await self._ask("POST", f"{self.url}/sync", _parameters(adql, max_rows))
        return self._good(response)

    async def _async(self, adql: str, max_rows: int) -> bytes:
        """Make a job, run it, wait for it, fetch its result; remove it in any case."""
        job = await self._new_job(adql, max_rows)
        try:
            self._good(await self._ask("POST", f"{job}/phase", {"PHASE": "RUN"}))
            await self._ended(job)
            return self._good(await self._ask("GET", f"{job}/results/result"))
        finally:
            await self._remove(job)

    async def _new_job(self, adql: str, max_rows: int) -> str:
        response = await self._send("POST", f"{self.url}/async", _parameters(adql, max_rows))
        location = response.headers.get("location")
        if not response.is_redirect or not location:
            self._good(response)  # raises what the service says, if it says something
            raise Malformed("no job where one was asked for")
        return resolved(str(response.url), location).rstrip("/")

    async def _ended(self, job: str) -> None:
        """Wait until a job is done."""
        end, pause_s = time.monotonic() + self._patience.job_s, self._patience.poll_first_s
        while True:
            phase = self._good(await self._ask("GET", f"{job}/phase")).decode("latin-1").strip().upper()
            if phase == "COMPLETED":
                return
            if phase in ("ERROR", "ABORTED"):
                said = await self._ask("GET", f"{job}/error") if phase == "ERROR" else None
                # Jobs fail by what is asked and by what the service lacks; nothing tells which.
                raise _Passing(
                    f"its job ended with {phase}: {read_error(said.content) if said else 'no reason'}"
                )
            if phase not in _RUNNING:
                raise Malformed(f"a job in phase {phase[:40]!r}")
            if time.monotonic() + pause_s > end:
                raise self._error(
                    "reference_unreachable",
                    f"its job is {phase} after {self._patience.job_s:g} s",
                    _WRONG_ASK_AGAIN_S,
                )
            await asyncio.sleep(pause_s)
            pause_s = min(1.5 * pause_s, self._patience.poll_longest_s)

    async def _remove(self, job: str) -> None:
        """Clean up; a service that does not care for it removes jobs by itself some day."""
        try:
            async with asyncio.timeout(_REMOVE_S):
                await self._send("DELETE", job)
        except (_Passing, Malformed, TimeoutError) as error:
            log.debug("job stays at the service", job=job, error=str(error))

    def _good(self, response: httpx.Response) -> bytes:
        """Body of a good answer; raises what another one says."""
        if response.is_success:
            return response.content
        said = f"HTTP {response.status_code}, {read_error(response.content)}"
        if response.status_code in _PASSING:
            raise _Passing(said, _retry_after_s(response.headers))
        raise Refused(said)

    async def _ask(self, method: str, url: str, data: Mapping[str, str] | None = None) -> httpx.Response:
        """Send a request and follow where the service points."""
        for _ in range(_MAX_REDIRECTS + 1):
            response = await self._send(method, url, data)
            location = response.headers.get("location")
            if not response.is_redirect or not location:
                return response
            url = resolved(url, location)
            if response.status_code not in (307, 308):
                method, data = "GET", None
        raise Malformed(f"more than {_MAX_REDIRECTS} redirections")

    async def _send(self, method: str, url: str, data: Mapping[str, str] | None = None) -> httpx.Response:
        """One request, and all of its answer."""
        timeout = httpx.Timeout(self._patience.answer_s, connect=self._patience.connect_s)
        request = self._client.build_request(
            method, url, data=dict(data) if data else None, headers={"User-Agent": _AGENT}, timeout=timeout
        )
        try:
            async with asyncio.timeout(self._patience.job_s):  # one that trickles for ever ends, too
                return await self._received(request)
        except (httpx.TimeoutException, TimeoutError) as error:
            raise _Passing(f"no answer ({type(error).__name__})") from error
        except httpx.HTTPError as error:
            raise _Passing(f"{error or type(error).__name__}") from error

    async def _received(self, request: httpx.Request) -> httpx.Response:
        response = await self._client.send(request, stream=True, follow_redirects=False)
        try:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _MAX_BYTES:
                    raise Malformed(f"more than {_MAX_BYTES >> 20} MB")
        finally:
            await response.aclose()
        kept = {
            name: value for name, value in response.headers.items() if name in ("location", "retry-after")
        }
        return httpx.Response(response.status_code, headers=kept, content=bytes(body), request=request)


def resolved(url: str, location: str) -> str:
    """Where a redirection leads; services behind a proxy forget that they were asked by TLS. Raises `Malformed`."""
    parts, asked = urlsplit(urljoin(url, location)), urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise Malformed(f"a redirection to {location[:100]!r}")
    if asked.scheme == "https" and parts.scheme == "http" and parts.hostname == asked.hostname:
        return urlunsplit(parts._replace(scheme="https", netloc=asked.netloc))
    return urlunsplit(parts)


def _parameters(adql: str, max_rows: int) -> dict[str, str]:
    # FORMAT is TAP 1.0's name for RESPONSEFORMAT, and still taken by all.
    return {
        "REQUEST": "doQuery",
        "LANG": "ADQL",
        "FORMAT": "votable",
        "MAXREC": str(max_rows),
        "QUERY": adql,
    }


def _retry_after_s(headers: httpx.Headers) -> float | None:
    """Seconds until it wants to be asked again: a number or a date (RFC 9110, 10.2.3); None if it does not say."""
    text = headers.get("retry-after", "").strip()
    if text.isdigit():
        return float(min(int(text), 86_400))
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, min((moment - datetime.now(UTC)).total_seconds(), 86_400.0))
