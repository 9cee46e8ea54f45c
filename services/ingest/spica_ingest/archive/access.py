"""An archive as the rest of ingest sees it: headers and files, by name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from spica_runtime.errors import NotRetriable, Retriable, UsageError

from spica_ingest.archive.credentials import credential_from
from spica_ingest.archive.fetch import Fetcher, FetchLimits
from spica_ingest.archive.hosts import HostList, origin
from spica_ingest.archive.http import ArchiveHttp, Patience, check_address, may_carry_credentials
from spica_ingest.archive.limits import Throttle
from spica_ingest.archive.locate import Locator, check_name, file_name, is_web
from spica_ingest.archive.metaheader import read_headers
from spica_ingest.archive.part import Part
from spica_ingest.archive.registry import Registry
from spica_ingest.archive.transfer import Fetched, Tell, Wanted
from spica_ingest.science.facts import HeaderValues

if TYPE_CHECKING:
    from spica_ingest.settings import IngestSettings

Enough = Callable[[list[HeaderValues]], bool]


class Archive:
    """Headers and files of one archive, and of web servers that are allowed.

    One per process: its limits of rate and number hold for all transfers of the process together.
    """

    def __init__(
        self,
        http: ArchiveHttp,
        registry: Registry,
        *,
        locate_id: str,
        schemes: tuple[str, ...],
        web_hosts: HostList,
        fetcher: Fetcher,
        concurrency: int,
    ) -> None:
        self.http = http
        self.registry = registry
        self._locator = Locator(http, registry, locate_id)
        self._schemes = schemes
        self._web_hosts = web_hosts
        self._fetcher = fetcher
        self._slots = asyncio.Semaphore(concurrency)

    @classmethod
    def from_settings(cls, settings: IngestSettings) -> Archive:
        """Put one together. Raises `UsageError` where settings contradict each other."""
        hosts = HostList((origin(settings.archive_registry_url), *settings.archive_hosts))
        credential = credential_from(
            settings.archive_token, settings.archive_token_file, settings.archive_certificate
        )
        if credential.method and not may_carry_credentials(settings.archive_registry_url):
            raise UsageError(
                "archive_not_https",
                f"A credential is set, and the registry {settings.archive_registry_url} is asked without TLS: it would "
                "not be sent. Set SPICA_INGEST_ARCHIVE_REGISTRY_URL to an https:// address.",
            )
        http = ArchiveHttp(
            credential,
            hosts,
            Patience(
                settings.archive_connect_timeout_s,
                settings.archive_timeout_s,
                settings.archive_retries,
                settings.archive_retry_first_s,
                settings.archive_retry_longest_s,
            ),
            authorities=settings.archive_authorities,
        )
        limits = FetchLimits(
            settings.max_bytes,
            settings.fetch_reserve_bytes,
            settings.fetch_lowest_bytes_per_s,
            settings.fetch_stall_s,
        )
        return cls(
            http,
            Registry(http, settings.archive_registry_url),
            locate_id=settings.archive_locate_id,
            schemes=settings.archive_schemes,
            web_hosts=hosts + HostList(settings.fetch_hosts),
            fetcher=Fetcher(http, limits, Throttle(settings.fetch_max_bytes_per_s)),
            concurrency=settings.fetch_concurrency,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self.http.close()

    def names(self, uri: str) -> bool:
        """Whether a URI looks like one of an archive's names or a web address, and not like a path."""
        return is_web(uri) or uri.partition(":")[0] in self._schemes

    def check(self, uri: str) -> None:
        """Refuse what is neither an archive's name nor an allowed address. Raises `NotRetriable`."""
        if is_web(uri):
            check_address(uri, self._web_hosts)
        else:
            check_name(uri, self._schemes)

    def file_name(self, uri: str) -> str:
        """Name for the file, safe on every file system."""
        return file_name(uri)

    async def header(self, uri: str, enough: Enough = lambda _: False) -> list[HeaderValues] | None:
        """Headers of a file's HDUs as the archive lists them, without the file: values by keyword.

        Read until the end, or until `enough` says so of those read so far. None where no listing is to
        be had: a plain web address, an archive without that operation, a file that it does not take for FITS,
        places that are busy. Raises what `archive.errors` lists where it cannot be asked for places at all.
        """
        if is_web(uri):
            return None
        self.check(uri)
        for url in await self._locator.addresses(uri):
            try:
                return await self._listing(url, enough)
            except NotRetriable:
                break  # it does not list headers of this, here or at another of its places
            except Retriable:
                continue
        return None

    async def fetch(self, wanted: Wanted, folder: Path, tell: Tell = lambda _: None) -> Fetched:
        """Fetch one file into `folder`, under its own name.

        `folder` is for this file alone and nobody else may write to it meanwhile (see
        `archive.staging.staging_for`). What a broken or killed try left there is gone on with. Waits for a
        free place first. `tell` hears of each bit of progress and must not take long.

        Raises:
            Unavailable: `archive_unavailable`, `archive_credential`, `archive_service_unknown`, `disk_full`.
            Retriable: `archive_no_such_file`, `archive_other_version` (an `OtherVersion`), `archive_failed`,
                `transfer_broken`, `transfer_corrupted`.
            NotRetriable: `archive_forbidden`, `archive_refused`, `unsupported_uri`.
            TooLarge: more bytes than may be taken in.

        """
        self.check(wanted.uri)
        web = is_web(wanted.uri)
        addresses = self._itself(wanted.uri) if web else self._located(wanted.uri)
        part = Part(folder, file_name(wanted.uri), wanted.uri)
        async with self._slots:
            return await self._fetcher.fetch(wanted, part, addresses, self._web_hosts if web else None, tell)

    def _located(self, uri: str) -> Callable[[], Awaitable[tuple[str, ...]]]:
        async def addresses() -> tuple[str, ...]:
            return await self._locator.addresses(uri)

        return addresses

    def _itself(self, uri: str) -> Callable[[], Awaitable[tuple[str, ...]]]:
        async def addresses() -> tuple[str, ...]:
            return (uri,)

        return addresses

    async def _listing(self, url: str, enough: Enough) -> list[HeaderValues]:
        found: list[HeaderValues] = []
        async with (
            _for_at_most(self.http.patience.answer_s),
            self.http.open("GET", url, params={"META": "true"}) as response,
        ):
            if response.status_code != 200:
                raise self.http.error(response)
            if not response.headers.get("content-type", "").lower().startswith("text/plain"):
                return []  # a server that ignores what it does not know, and sends the file
            async with aclosing(read_headers(_texts(response))) as headers:
                async for header in headers:
                    found.append(header)
                    if enough(found):
                        break
        return found


@asynccontextmanager
async def _for_at_most(seconds: float) -> AsyncIterator[None]:
    """Leave the block when the time is over, without an error."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise


async def _texts(response: httpx.Response) -> AsyncGenerator[str, None]:
    try:
        async for chunk in response.aiter_bytes():
            yield chunk.decode("latin-1")
    except httpx.HTTPError:
        return  # what came has to do: this is but a first look
