"""One file, from wherever the archive has it to this disk: resumed where it broke off, compared, synced.

A try asks each address in turn and goes on from the bytes that are here. Tries are repeated with pauses as
long as they bring something, and a limited number of times where they do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import httpx
import structlog
from spica_runtime.errors import Retriable, SpicaError, Unavailable

from spica_ingest.archive import errors
from spica_ingest.archive.hosts import HostList
from spica_ingest.archive.http import ArchiveHttp, read_body
from spica_ingest.archive.limits import Pace, Throttle, TooSlow
from spica_ingest.archive.part import Part, disk_full
from spica_ingest.archive.transfer import Fetched, Identity, Rate, Tell, Transfer, Wanted, range_of

log = structlog.get_logger(__name__)

_BLOCK = 1 << 20
_PROGRESS_BYTES = 1 << 18
"""A try that brought so much does not count as failed: a bad line may break off a hundred times and get there."""
_LONGEST_BREAK_S = 10.0

Addresses = Callable[[], Awaitable[tuple[str, ...]]]


class OtherVersion(Retriable):
    """The archive has other content under this name than was announced."""

    def __init__(self, what: str, offered: Identity, wanted: Wanted) -> None:
        differs = (
            f"MD5 {offered.md5} instead of {wanted.md5}"
            if wanted.md5 and offered.md5
            else f"{offered.total} bytes instead of {wanted.size_bytes}"
        )
        super().__init__(
            "archive_other_version", f"The archive has another version of {what} than announced: {differs}."
        )
        self.offered = offered

    def is_newer_than(self, moment: datetime | None) -> bool:
        """Whether the archive changed it at `moment` or later (HTTP dates have whole seconds); False if unknown."""
        if moment is None:
            return False
        changed = errors.http_date(self.offered.last_modified)
        return changed is not None and changed >= moment.replace(microsecond=0)


class TooLarge(SpicaError):
    """More bytes than this installation takes in."""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What one transfer may use."""

    max_bytes: int
    reserve_bytes: int
    """Stays free on the disk."""
    lowest_per_second: float
    stall_s: float


class Fetcher:
    """Fetches files over one `ArchiveHttp`, within limits that all transfers share."""

    def __init__(self, http: ArchiveHttp, limits: FetchLimits, throttle: Throttle) -> None:
        self._http = http
        self._limits = limits
        self._throttle = throttle
        self._to_come: dict[Path, int] = {}
        """Bytes that running transfers will still write."""

    async def fetch(
        self, wanted: Wanted, part: Part, addresses: Addresses, allowed: HostList | None, tell: Tell
    ) -> Fetched:
        """Fetch it, whatever it takes, within reason. See `archive.errors` for what is raised."""
        await part.open()
        if part.complete and wanted.md5 == part.md5:
            with contextlib.suppress(Retriable):
                return await self._compared(wanted, part)
        try:
            if wanted.size_bytes is not None:
                self._make_room(part, wanted.size_bytes)  # before anybody is asked
            return await self._try_again(wanted, part, addresses, allowed, tell)
        except TooLarge:
            await part.discard()
            raise
        finally:
            self._to_come.pop(part.path, None)

    async def _try_again(
        self, wanted: Wanted, part: Part, addresses: Addresses, allowed: HostList | None, tell: Tell
    ) -> Fetched:
        """Try as long as it makes sense."""
        failures, furthest = 0, part.size
        while True:
            urls = await addresses()
            try:
                return await self._try_each(wanted, part, urls, allowed, tell)
            except Retriable as error:
                if error.code not in _TRY_AGAIN:
                    raise
                # Further than ever: one that begins anew each time comes somewhere each time, and never to the end.
                failures = 1 if part.size >= furthest + _PROGRESS_BYTES else failures + 1
                furthest = max(furthest, part.size)
                if failures > self._http.patience.retries:
                    raise
                await self._pause(failures, error)

    async def _pause(self, failures: int, error: Retriable) -> None:
        if error.code == "transfer_broken":
            delay_s = min(2.0 ** (failures - 1), _LONGEST_BREAK_S, self._http.patience.first_delay_s)
            log.info("transfer broke off, goes on", error=error.message, delay_s=delay_s)
            await asyncio.sleep(delay_s)
        else:
            await self._http.pause(failures, error)

    async def _try_each(
        self, wanted: Wanted, part: Part, urls: tuple[str, ...], allowed: HostList | None, tell: Tell
    ) -> Fetched:
        """Each address once. Raises the error that says most about what to do next."""
        found: list[SpicaError] = []
        for url in urls:
            try:
                return await self._from(url, wanted, part, allowed, tell)
            except Unavailable as error:
                if error.code != "archive_unavailable":
                    raise
                found.append(error)
            except TooLarge:
                raise
            except SpicaError as error:
                found.append(error)
        raise min(found, key=_weight)

    async def _from(
        self, url: str, wanted: Wanted, part: Part, allowed: HostList | None, tell: Tell
    ) -> Fetched:
        """One address: go on, or begin again where it offers something else than what is here."""
        if part.identity is not None and not _fits(part.identity, wanted):
            await part.discard()
        if not await self._read(url, wanted, part, allowed, tell):
            await part.discard()
            if not await self._read(url, wanted, part, allowed, tell):
                raise errors.unavailable(url, "it answers with a part of the file when asked for all of it")
        return await self._compared(wanted, part)

    async def _read(self, url: str, wanted: Wanted, part: Part, allowed: HostList | None, tell: Tell) -> bool:
        """Read all that is still to come. False if what is here cannot be gone on with."""
        headers = {"Range": f"bytes={part.size}-"} if part.size and not part.complete else {}
        async with self._http.open(
            "GET", url, headers=headers, allowed=allowed, read_s=self._limits.stall_s
        ) as response:
            if response.status_code == 416 and part.size:
                return False
            if response.status_code not in (200, 206):
                raise self._http.error(response, await read_body(response, 10_000))
            offered = Identity.of(response)
            if offered.md5 is None and "text/html" in response.headers.get("content-type", "").lower():
                raise errors.unavailable(url, "it answers with a page for browsers instead of the file")
            if not _fits(offered, wanted):
                raise OtherVersion(wanted.uri, offered, wanted)
            if part.complete and part.identity is not None and offered.continues(part.identity):
                return True  # all of it is here already, and still is what the archive has
            if response.status_code == 206:
                begun = part.identity
                if begun is None or range_of(response)[0] != part.size or not offered.continues(begun):
                    return False
                log.info("transfer goes on", file=part.whole.name, at=part.size, total=offered.total)
            else:
                await part.begin(offered)
            self._make_room(part, offered.total if offered.total is not None else wanted.size_bytes)
            await self._receive(url, response, part, tell)
            if _end_is_unknown(response, offered, wanted):
                await part.discard()
                raise errors.unknown_end(url)
        return True

    async def _receive(self, url: str, response: httpx.Response, part: Part, tell: Tell) -> None:
        pace, rate = Pace(self._limits.lowest_per_second, self._limits.stall_s), Rate()
        total = part.identity.total if part.identity else None
        buffer = bytearray()
        tell(Transfer(part.size, total, rate.at(time.monotonic(), part.size)))
        try:
            async with contextlib.aclosing(_chunks(url, response, pace)) as chunks:
                async for chunk in chunks:
                    await self._throttle.take(len(chunk))
                    buffer += chunk
                    done = part.size + len(buffer)
                    if done > self._limits.max_bytes:
                        raise _too_large(done, self._limits.max_bytes)
                    tell(Transfer(done, total, rate.at(time.monotonic(), done)))
                    if len(buffer) >= _BLOCK:
                        await self._write(part, buffer, total)
        finally:
            # What came before it broke off need not come again.
            await self._write(part, buffer, total)
        if total is not None and part.size < total:
            raise errors.broken(
                url, f"it gave bytes up to {part.size} of {total}"
            )  # a server may give less at a time

    async def _write(self, part: Part, buffer: bytearray, total: int | None) -> None:
        block = bytes(buffer)
        buffer.clear()
        await part.append(block)
        if total is not None:
            self._to_come[part.path] = total - part.size

    def _make_room(self, part: Part, total: int | None) -> None:
        """See that there is space for this one besides all that others will still write."""
        if total is not None and total > self._limits.max_bytes:
            raise _too_large(total, self._limits.max_bytes)
        self._to_come.pop(part.path, None)
        needed = max(0, (total or 0) - part.size) + sum(self._to_come.values()) + self._limits.reserve_bytes
        free = shutil.disk_usage(part.path.parent).free
        if free < needed:
            raise disk_full(part.whole, free, needed)
        self._to_come[part.path] = max(0, (total or 0) - part.size)

    async def _compared(self, wanted: Wanted, part: Part) -> Fetched:
        """Compare what is here with what it should be, and give it its name."""
        assert part.identity is not None
        sizes = {size for size in (part.identity.total, wanted.size_bytes) if size is not None}
        if sizes - {part.size}:
            found, expected = part.size, sorted(sizes - {part.size})[0]
            await part.discard()
            raise errors.corrupted(wanted.uri, f"{found} bytes instead of {expected}")
        checksum = wanted.md5 or part.identity.md5
        if checksum is not None and part.md5 != checksum:
            found_md5 = part.md5
            await part.discard()
            raise errors.corrupted(wanted.uri, f"its MD5 is {found_md5} instead of {checksum}")
        return await part.finish()


_TRY_AGAIN = ("archive_unavailable", "archive_failed", "transfer_broken")
_BY_WEIGHT = (
    "transfer_corrupted",
    "transfer_broken",
    "archive_failed",
    "archive_unavailable",
    "archive_other_version",
    "archive_no_such_file",
    "archive_forbidden",
)
"""Of several addresses' errors, the one that says most: what may go well at the next try before what may not."""


def _weight(error: SpicaError) -> int:
    return _BY_WEIGHT.index(error.code) if error.code in _BY_WEIGHT else len(_BY_WEIGHT)


def _fits(offered: Identity, wanted: Wanted) -> bool:
    if wanted.md5 and offered.md5:
        return wanted.md5 == offered.md5
    return None in (wanted.size_bytes, offered.total) or wanted.size_bytes == offered.total


def _end_is_unknown(response: httpx.Response, offered: Identity, wanted: Wanted) -> bool:
    """Whether nothing tells if all of it came: it ended because the connection did."""
    known = (wanted.size_bytes, wanted.md5, offered.total, offered.md5)
    return known == (None,) * 4 and "chunked" not in response.headers.get("transfer-encoding", "").lower()


async def _chunks(url: str, response: httpx.Response, pace: Pace) -> AsyncGenerator[bytes, None]:
    """Bytes as they are stored: never decoded, whatever Content-Encoding says of them."""
    stored = response.aiter_raw()
    try:
        while True:
            with pace.waiting():
                chunk = await anext(stored, None)
            if chunk is None:
                return
            pace.came(len(chunk))
            yield chunk
    except httpx.TimeoutException:
        raise errors.broken(url, "nothing more came") from None
    except TooSlow as error:
        raise errors.broken(url, f"it crawls ({error})") from None
    except httpx.HTTPError as error:
        raise errors.broken(url, str(error) or type(error).__name__) from None


def _too_large(size: int, limit: int) -> TooLarge:
    return TooLarge(
        "too_large", "The file is larger than what is taken in.", {"size_bytes": size, "limit_bytes": limit}
    )
