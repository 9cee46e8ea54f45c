"""Requests to an archive, one policy for all of them.

* A credential goes to the archive's hosts alone, over TLS (or to this machine), also after a redirect.
* Redirects are followed here, so that each hop is looked at: http(s) only, never from https back to http, and
  for addresses that came in a message only to hosts that are allowed.
* Bytes are asked for as they are stored (`Accept-Encoding: identity`).
* What is busy (503 with Retry-After, and its like) is asked again, with growing pauses, a limited number of times.
* No address reaches a log or a message but by `redact.shown`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import structlog
from spica_runtime.errors import Retriable, SpicaError, Unavailable
from spica_runtime.provenance import CODE_VERSION

from spica_ingest.archive import errors
from spica_ingest.archive.credentials import Credential, Proof, tls_context
from spica_ingest.archive.hosts import HostList, is_loopback
from spica_ingest.archive.redact import hush_libraries, shown

log = structlog.get_logger(__name__)

MAX_ANSWER_BYTES = 16_000_000
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 10
_AGENT = f"spica-ingest/{CODE_VERSION}"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an archive may take, and how often it is asked again."""

    connect_s: float = 30.0
    answer_s: float = 120.0
    retries: int = 6
    first_delay_s: float = 30.0
    longest_delay_s: float = 128.0

    def delay_s(self, failures: int, asked_s: float | None = None) -> float:
        """Pause after so many failures in a row (from 1), not shorter than the archive asked for, within the limit."""
        growing = self.first_delay_s * 2.0 ** (failures - 1)
        return min(max(growing, asked_s or 0.0), self.longest_delay_s)


@dataclass(frozen=True, slots=True)
class Answer:
    """A small answer, read whole."""

    status: int
    headers: httpx.Headers
    content: bytes

    @property
    def text(self) -> str:
        """The body as text; UTF-8 unless it says otherwise."""
        charset = httpx.Response(200, headers=self.headers).charset_encoding or "utf-8"
        try:
            return self.content.decode(charset, "replace")
        except LookupError:
            return self.content.decode("utf-8", "replace")


class ArchiveHttp:
    """Requests with one credential. Use it from one event loop; `close` it at the end."""

    def __init__(
        self,
        credential: Credential,
        archive_hosts: HostList,
        patience: Patience | None = None,
        *,
        authorities: Path | None = None,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self.credential = credential
        self.archive_hosts = archive_hosts
        self.patience = patience or Patience()
        self._authorities = authorities
        self._sleep = sleep
        self._clients: dict[tuple[object, ...], httpx.AsyncClient] = {}
        hush_libraries()

    async def close(self) -> None:
        """Close all connections."""
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.aclose()

    async def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        accept: Collection[int] = (200,),
        allowed: HostList | None = None,
        max_bytes: int = MAX_ANSWER_BYTES,
        retries: int | None = None,
        answer_s: float | None = None,
    ) -> Answer:
        """Ask for something small that may be asked for twice.

        Args:
            method: GET, or POST where that changes nothing (a query).
            url: http(s) address.
            params: query parameters, besides those of the URL.
            data: fields of a form (POST).
            content: body as it is (POST).
            headers: besides the usual ones.
            accept: statuses that are an answer; any other raises.
            allowed: hosts that may be asked, also after redirects; default: any.
            max_bytes: longest answer that is read.
            retries: how often a busy archive is asked again; default: as the policy has it.
            answer_s: longest wait for the whole answer, in seconds; default: as the policy has it.

        Raises:
            SpicaError: as `archive.errors` lists them.

        """
        retries = self.patience.retries if retries is None else retries
        failures = 0
        while True:
            try:
                async with asyncio.timeout(answer_s or self.patience.answer_s) as limit:
                    return await self._once(
                        method,
                        url,
                        accept,
                        max_bytes,
                        params=params,
                        data=data,
                        content=content,
                        headers=headers,
                        allowed=allowed,
                        answer_s=answer_s,
                    )
            except TimeoutError as error:
                if not limit.expired():
                    raise
                raise errors.no_answer(url, answer_s or self.patience.answer_s) from error
            except errors.NoAnswer:
                raise
            except Retriable as error:
                if not isinstance(error, Unavailable) and error.code != "archive_failed":
                    raise
                failures += 1
                if failures > retries or error.code == "archive_credential":
                    raise
                await self.pause(failures, error)

    async def pause(self, failures: int, error: SpicaError) -> None:
        """Wait as long as `failures` in a row, the last one being `error`, call for."""
        delay_s = self.patience.delay_s(failures, getattr(error, "after_s", None))
        log.info("archive does not answer, will ask again", error=error.message, delay_s=round(delay_s, 1))
        await self._sleep(delay_s)

    async def _once(
        self, method: str, url: str, accept: Collection[int], max_bytes: int, **parts: Any
    ) -> Answer:
        async with self.open(method, url, **parts) as response:
            body = await read_body(response, max_bytes)
            if response.status_code in accept:
                return Answer(response.status_code, response.headers, body)
            raise self.error(response, body)

    def error(self, response: httpx.Response, body: bytes = b"") -> SpicaError:
        """What an answer that is not the wanted one means."""
        return errors.from_status(
            str(response.request.url), response, body.decode("utf-8", "replace"), str(self.credential)
        )

    @asynccontextmanager
    async def open(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        allowed: HostList | None = None,
        answer_s: float | None = None,
        read_s: float | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """Ask once and follow redirects; yields the answer, whatever its status, with its body still to come.

        `answer_s`: longest wait for the answer to begin; `read_s`: longest wait for more of it, both in
        seconds. Raises `Unavailable` where there is no answer, `NotRetriable` where an address must not be followed.
        """
        if params:
            url = str(httpx.URL(url).copy_merge_params(dict(params)))
        body: dict[str, Any] = {"data": data, "content": content}
        extra = dict(headers or {})
        for _ in range(_MAX_REDIRECTS + 1):
            check_address(url, allowed)
            response = await self._send(method, url, extra, body, answer_s or self.patience.answer_s, read_s)
            target = response.headers.get("location")
            if response.status_code not in _REDIRECTS or not target:
                try:
                    yield response
                finally:
                    await response.aclose()
                return
            await response.aclose()
            following = _absolute(url, target)
            if response.status_code == 303 or (method == "POST" and response.status_code in (301, 302)):
                method, body = "GET", {}
                extra = {key: value for key, value in extra.items() if key.lower() != "content-type"}
            url = following
        raise errors.unavailable(url, f"more than {_MAX_REDIRECTS} redirects")

    async def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Mapping[str, Any],
        answer_s: float,
        read_s: float | None,
    ) -> httpx.Response:
        client, own = self._client_for(url)
        timeout = httpx.Timeout(answer_s, connect=self.patience.connect_s, pool=None)
        try:
            request = client.build_request(method, url, headers={**own, **headers}, timeout=timeout, **body)
            async with asyncio.timeout(answer_s):
                response = await client.send(request, stream=True, follow_redirects=False)
            if read_s is not None:
                # Looked at when the body begins: the wait for its beginning is another one.
                request.extensions["timeout"]["read"] = read_s
            return response
        except httpx.ConnectTimeout:
            raise errors.unavailable(url, f"no connection within {self.patience.connect_s:g} s") from None
        except (httpx.TimeoutException, TimeoutError):
            raise errors.no_answer(url, answer_s) from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
            raise errors.unsupported(shown(url), "it is no address.") from None
        except httpx.HTTPError as error:
            raise errors.unavailable(url, str(error) or type(error).__name__) from None

    def _client_for(self, url: str) -> tuple[httpx.AsyncClient, dict[str, str]]:
        """Connections and headers for this address: the credential's, or without any."""
        proof = Proof()
        if self.archive_hosts.covers(url) and may_carry_credentials(url):
            proof = self.credential.proof()
        if proof.stamp not in self._clients:
            self._clients[proof.stamp] = httpx.AsyncClient(
                verify=tls_context(self._authorities, proof.certificate),
                headers={"User-Agent": _AGENT, "Accept-Encoding": "identity"},
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
            )
        return self._clients[proof.stamp], proof.headers


async def read_body(response: httpx.Response, max_bytes: int = MAX_ANSWER_BYTES) -> bytes:
    """Read the body of an open answer, decoded. Raises `Unavailable` where it breaks off, `NotRetriable` if too long."""
    url, body = str(response.request.url), bytearray()
    try:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > max_bytes:
                raise errors.refused_length(url, max_bytes)
    except httpx.TimeoutException:
        raise errors.unavailable(url, "the answer stopped half-way") from None
    except httpx.HTTPError as error:
        raise errors.unavailable(url, f"the answer broke off ({error or type(error).__name__})") from None
    return bytes(body)


def may_carry_credentials(url: str) -> bool:
    """Whether nobody on the way can read what is sent there."""
    return url.lower().startswith("https:") or is_loopback(url)


def check_address(url: str, allowed: HostList | None) -> None:
    """Refuse an address that must not be asked. Raises `NotRetriable` (`unsupported_uri`)."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise errors.unsupported("(not a URL)", "it is no address.") from None
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise errors.unsupported(shown(url), "only http:// and https:// are followed.")
    if parts.username is not None or parts.password is not None:
        raise errors.unsupported(
            shown(url),
            "an address with a password in it is not followed; it would stand in events and logs.",
        )
    if allowed is not None and not allowed.covers(url):
        raise errors.unsupported(
            shown(url),
            f"its host is not one of those allowed ({allowed}). SPICA_INGEST_FETCH_HOSTS adds hosts.",
        )


def _absolute(url: str, target: str) -> str:
    try:
        following = urljoin(url, target)
    except ValueError:
        raise errors.unsupported("(not a URL)", f"{shown(url)} leads to what is no address.") from None
    if url.lower().startswith("https:") and following.lower().startswith("http:"):
        raise errors.unsupported(shown(following), f"{shown(url)} leads there, from https back to http.")
    return following
