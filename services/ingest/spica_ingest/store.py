"""The ingest service's SQL."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import aiosql
from spica_proto.base import Reason
from spica_proto.images import ImageArrived, ImageRejected, ImageVerified
from spica_runtime.outbox import publish_in
from spica_runtime.pg import Connection, Pool

from spica_ingest.locating import address
from spica_ingest.science.facts import HeaderValues
from spica_ingest.science.values import printable
from spica_ingest.science.verify import CcdRecord

queries = aiosql.from_path(Path(__file__).parent / "queries.sql", "asyncpg")


def jsonable(header: HeaderValues) -> dict[str, Any]:
    """Header values as PostgreSQL's jsonb can hold them: no NaN, no infinity, no control characters."""
    return {printable(keyword): _json_value(value) for keyword, value in header.items()}


def _json_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return printable(value) if isinstance(value, str) else value


async def insert_image(
    connection: Connection, image: ImageVerified, header: HeaderValues, ccds: Sequence[CcdRecord]
) -> bool:
    """Add an image with its CCDs. False, and nothing written, if it was there already."""
    inserted = await queries.insert_image(
        connection,
        image_id=image.image_id,
        name=image.name,
        sha256=image.file.sha256,
        size_bytes=image.file.size_bytes,
        path=image.file.path,
        profile=image.profile,
        instrument=image.instrument,
        run=image.run,
        filter=image.filter,
        object=image.object,
        exposure_time_s=image.exposure_time_s,
        mjd_obs=image.mjd_obs,
        airmass=image.airmass,
        ra_deg=image.pointing.ra_deg,
        dec_deg=image.pointing.dec_deg,
        wcs=image.wcs,
        n_ccds=image.n_ccds,
        batch=image.batch,
        header=jsonable(header),
        repairs=_reasons(image.repairs),
    )
    if inserted is None:
        return False
    rows = [
        {
            "image_id": image.image_id,
            "hdu": ccd.hdu,
            "name": ccd.name,
            "naxis1": ccd.shape[1],
            "naxis2": ccd.shape[0],
            "header": jsonable(ccd.header),
            "footprint": list(ccd.footprint) if ccd.footprint else None,
        }
        for ccd in ccds
    ]
    await queries.insert_ccds(connection, rows)
    return True


async def insert_rejection(connection: Connection, rejection_id: str, rejected: ImageRejected) -> None:
    """Remember that a file was rejected, and why."""
    await queries.insert_rejection(
        connection,
        rejection_id=rejection_id,
        name=rejected.name,
        uri=rejected.uri,
        sha256=rejected.sha256,
        set_aside=rejected.set_aside,
        reasons=_reasons(rejected.reasons),
        batch=rejected.batch,
    )


def _reasons(reasons: Sequence[Reason]) -> list[dict[str, Any]]:
    return [reason.model_dump(mode="json", exclude_none=True) for reason in reasons]


FileState = tuple[str, int, int]
"""Address (see `locating.address`), size in bytes, time of change in nanoseconds: what the ledger knows a file by."""


class FolderLedger:
    """What the folder watcher has announced already."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def known(self, folder: Path) -> set[FileState]:
        """Files below `folder` that were announced, as they were then."""
        url = f"file://{quote_from_bytes(os.fsencode(folder))}/"
        rows = queries.known_files(self._pool, prefix=f"{address(folder)}/", url=url)
        return {(row["path"], row["size_bytes"], row["mtime_ns"]) async for row in rows}

    async def announce(self, file: FileState, message: ImageArrived, event_id: str) -> bool:
        """Enter a file and publish its arrival in one transaction; False if another watcher was first."""
        path, size_bytes, mtime_ns = file
        async with self._pool.acquire() as connection, connection.transaction():
            entered = await queries.insert_seen(
                connection, path=path, size_bytes=size_bytes, mtime_ns=mtime_ns, event_id=event_id
            )
            if entered is not None:
                await publish_in(connection, message, source="ingest", event_id=event_id)
        return entered is not None
