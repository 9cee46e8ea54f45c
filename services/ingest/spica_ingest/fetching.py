"""Files that are in an archive: judged by their headers first, then fetched, told of meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from spica_imaging.profiles import load_profiles
from spica_proto.images import ImageArrived
from spica_runtime.errors import NotRetriable, SpicaError
from spica_runtime.storage import DataFolder

from spica_ingest.archive.access import Archive
from spica_ingest.archive.fetch import OtherVersion, TooLarge
from spica_ingest.archive.staging import staging_for
from spica_ingest.archive.telling import Publish, told
from spica_ingest.archive.transfer import Fetched, Wanted
from spica_ingest.science.facts import Finding, HduFacts, HeaderValues
from spica_ingest.science.precheck import refusals, tells_enough
from spica_ingest.verification.headers import Fault, describe_hdu

log = structlog.get_logger(__name__)


class Refused(Exception):
    """The file is not fetched, or not kept, for these reasons."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__(", ".join(finding.code for finding in findings))
        self.findings = tuple(findings)


class Fetching:
    """Brings a file of an archive here."""

    def __init__(
        self, archive: Archive, data: DataFolder, publish: Publish, profiles: Path | None, *, look_first: bool
    ) -> None:
        self._archive = archive
        self._data = data
        self._publish = publish
        self._profiles = profiles
        self._look_first = look_first

    def is_for_us(self, uri: str) -> bool:
        """Whether this is to be fetched. Raises `NotRetriable` (`unsupported_uri`) where it must not be."""
        if not self._archive.names(uri):
            return False
        self._archive.check(uri)
        return True

    def file_name(self, uri: str) -> str:
        """Name of the file, safe on every file system."""
        return self._archive.file_name(uri)

    @asynccontextmanager
    async def file(self, message: ImageArrived, name: str) -> AsyncIterator[Fetched]:
        """Yield the file, whole and compared, in a place of its own until the block ends.

        Raises `Refused` where headers, size or version speak against it, and what `Archive.fetch` raises.
        """
        wanted = Wanted(message.uri, message.size_bytes, message.md5)
        async with (
            staging_for(message.uri, self._data, done_after=(Refused,)) as folder,
            told(self._publish, name, message.uri, total=message.size_bytes) as tell,
        ):
            if self._look_first and not self._begun(folder):
                await self._look(message.uri)
            try:
                fetched = await self._archive.fetch(wanted, folder, tell)
            except OtherVersion as error:
                if error.is_newer_than(message.modified_at):
                    raise Refused([_superseded(error, wanted)]) from None
                raise
            except TooLarge as error:
                raise Refused([_too_large(error)]) from None
            yield fetched

    async def _look(self, uri: str) -> None:
        """Judge by headers. That they cannot be had, or read, speaks against nothing."""
        try:
            headers = await self._archive.header(uri, lambda found: tells_enough(_described(found)))
        except NotRetriable as error:
            log.info("no header listing", code=error.code, error=error.message)
            return
        if headers is None:
            return
        profiles = await asyncio.to_thread(load_profiles, self._profiles)
        if findings := refusals(_described(headers), profiles):
            raise Refused(findings)

    @staticmethod
    def _begun(folder: Path) -> bool:
        """Whether an earlier try has come past the headers already."""
        return any(folder.glob("*.part*"))


def _described(headers: Sequence[HeaderValues]) -> list[HduFacts]:
    hdus = []
    for index, values in enumerate(headers):
        try:
            hdus.append(describe_hdu(dict(values), index))
        except Fault:
            break
    return hdus


def _superseded(error: OtherVersion, wanted: Wanted) -> Finding:
    return Finding(
        "archive_newer_version",
        "The archive has replaced this file since it was announced; the new version is announced by itself.",
        found=f"MD5 {error.offered.md5}" if error.offered.md5 else f"{error.offered.total} bytes",
        expected=f"MD5 {wanted.md5}" if wanted.md5 else f"{wanted.size_bytes} bytes",
    )


def _too_large(error: SpicaError) -> Finding:
    return Finding(
        error.code,
        error.message,
        found=f"{error.numbers['size_bytes']} bytes",
        expected=f"{error.numbers['limit_bytes']} bytes at most",
    )
