"""From a service's identifier to its address: the archive's list of services, and each one's capabilities.

The list is plain text, `<ivo-id> = <URL of its capabilities>` by line; capabilities are a VOSI document. Both
are kept for a while, and kept on while the archive is away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree as SafeXml
import structlog
from defusedxml import DefusedXmlException
from spica_runtime.errors import SpicaError, Unavailable

from spica_ingest.archive import errors
from spica_ingest.archive.credentials import ANONYMOUS
from spica_ingest.archive.http import Answer, ArchiveHttp

log = structlog.get_logger(__name__)

LOCATE = "http://www.opencadc.org/std/storage#locate-1.0"
FILES = "http://www.opencadc.org/std/storage#files-1.0"
TAP = "ivo://ivoa.net/std/TAP"

_STALE_RETRY_S = 60.0
_ASK_AGAIN_S = 60.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Interface:
    """One way into one capability of a service."""

    standard_id: str
    url: str
    methods: frozenset[str]
    """Security methods it takes; `ANONYMOUS` among them where anyone may come."""


class _Kept(Generic[T]):
    """A document that is fetched when first needed, again when it is old, and kept while that fails."""

    def __init__(self, fetch: Callable[[int | None], Awaitable[T]], fresh_s: float) -> None:
        self._fetch = fetch
        self._fresh_s = fresh_s
        self._lock = asyncio.Lock()
        self._value: T | None = None
        self._until = 0.0

    async def get(self) -> T:
        async with self._lock:
            if self._value is not None and time.monotonic() < self._until:
                return self._value
            try:
                # One try is enough where there is something to go on with.
                self._value = await self._fetch(None if self._value is None else 0)
            except SpicaError as error:
                if self._value is None:
                    raise
                log.warning("registry does not answer, known addresses are used", error=error.message)
                self._until = time.monotonic() + min(_STALE_RETRY_S, self._fresh_s)
                return self._value
            self._until = time.monotonic() + self._fresh_s
            return self._value

    def forget(self) -> None:
        self._until = 0.0


class Registry:
    """Addresses of an archive's services."""

    def __init__(self, http: ArchiveHttp, url: str, *, fresh_s: float = 600.0) -> None:
        self._http = http
        self._url = url
        self._fresh_s = fresh_s
        self._list = _Kept(self._fetch_list, fresh_s)
        self._capabilities: dict[str, _Kept[tuple[Interface, ...]]] = {}

    async def url(self, ivo_id: str, standard_id: str) -> str:
        """Address of one capability of a service, for the credential in use, without a slash at its end.

        Where no interface takes that credential, the one for anyone is taken. Raises `Unavailable`:
        `archive_unavailable`, or `archive_service_unknown` with what there is instead.
        """
        interfaces = [item for item in await self.interfaces(ivo_id) if item.standard_id == standard_id]
        for method in (self._http.credential.method, ANONYMOUS):
            for interface in interfaces:
                if method in interface.methods:
                    return interface.url.rstrip("/")
        if interfaces:
            offered = sorted({method or "anyone" for item in interfaces for method in item.methods})
            raise _unknown(
                f"{ivo_id} offers {standard_id} to {', '.join(offered)}, and we come as {self._http.credential}"
            )
        raise _unknown(f"{ivo_id} has no capability {standard_id}")

    async def interfaces(self, ivo_id: str) -> tuple[Interface, ...]:
        """All interfaces of all capabilities of a service."""
        if ivo_id not in self._capabilities:

            async def fetch(retries: int | None) -> tuple[Interface, ...]:
                return await self._fetch_capabilities(ivo_id, retries)

            self._capabilities[ivo_id] = _Kept(fetch, self._fresh_s)
        return await self._capabilities[ivo_id].get()

    async def _fetch_list(self, retries: int | None) -> dict[str, str]:
        services = parse_list((await self._document(self._url, retries)).text)
        if not any(ivo_id.startswith("ivo://") for ivo_id in services):
            raise errors.unavailable(self._url, "it answers with something else than a list of services")
        return services

    async def _fetch_capabilities(self, ivo_id: str, retries: int | None) -> tuple[Interface, ...]:
        services = await self._list.get()
        if ivo_id not in services:
            self._list.forget()
            raise _unknown(f"the registry {self._url} lists {len(services)} services, and no {ivo_id}")
        answer = await self._document(services[ivo_id], retries)
        try:
            return parse_capabilities(answer.content)
        except (ParseError, DefusedXmlException, ValueError) as error:
            raise errors.unavailable(
                services[ivo_id], f"it is no capabilities document ({error})", _ASK_AGAIN_S
            ) from None

    async def _document(self, url: str, retries: int | None) -> Answer:
        """One of the archive's own documents.

        That it is not there, or not for us, says nothing about a file: a service that is being set up again answers so.
        """
        answer = await self._http.request(
            "GET", url, accept=(200, *errors.MISSING, *errors.FORBIDDEN), retries=retries
        )
        if answer.status != 200:
            raise errors.unavailable(url, f"HTTP {answer.status}", _ASK_AGAIN_S)
        return answer


def parse_list(text: str) -> dict[str, str]:
    """Identifier to address of capabilities, line by line; what does not look like that is passed over."""
    services = {}
    for line in text.splitlines():
        ivo_id, equals, url = line.strip().partition("=")
        if equals and not line.lstrip().startswith("#"):
            services[ivo_id.strip()] = url.strip()
    return services


def parse_capabilities(document: bytes) -> tuple[Interface, ...]:
    """Interfaces of a VOSI capabilities document. Elements count by their local names. Raises ValueError for another."""
    root = SafeXml.fromstring(document)
    if local_name(root) != "capabilities":
        raise ValueError(f"its root is <{local_name(root)}>")
    found = []
    for capability in root:
        for interface in _children(capability, "interface"):
            url = next((_text(child) for child in _children(interface, "accessURL")), "")
            if not url or not urlsplit(url).netloc:
                continue
            methods = [child.get("standardID", ANONYMOUS) for child in _children(interface, "securityMethod")]
            found.append(Interface(capability.get("standardID", ""), url, frozenset(methods or [ANONYMOUS])))
    return tuple(found)


def local_name(element: Element) -> str:
    """Name of an element without its namespace."""
    return str(element.tag).rsplit("}", 1)[-1]


def _children(element: Element, name: str) -> list[Any]:
    return [child for child in element if local_name(child) == name]


def _text(element: Element) -> str:
    return (element.text or "").strip()


def _unknown(what: str) -> Unavailable:
    return Unavailable(
        "archive_service_unknown",
        f"No such service: {what}. See SPICA_INGEST_ARCHIVE_REGISTRY_URL and SPICA_INGEST_ARCHIVE_LOCATE_ID.",
        after_s=_ASK_AGAIN_S,
    )
