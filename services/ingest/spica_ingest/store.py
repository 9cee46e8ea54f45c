"""The ingest service's SQL."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import aiosql
from spica_proto.base import Reason
from spica_proto.images import AuxiliaryRegistered, ImageArrived, ImageRejected, ImageVerified
from spica_runtime.jsonb import storable
from spica_runtime.outbox import publish_in
from spica_runtime.pg import Connection, Pool, Record

from spica_ingest.locating import address
from spica_ingest.science import columns as columns_module
from spica_ingest.science.columns import Columns, Named
from spica_ingest.science.facts import Finding, HeaderValues
from spica_ingest.science.place import Place
from spica_ingest.science.values import printable
from spica_ingest.science.verify import Exposure

queries = aiosql.from_path(Path(__file__).parent / "queries.sql", "asyncpg")


def jsonable(header: HeaderValues) -> dict[str, Any]:
    """Header values as PostgreSQL's jsonb can hold them: no NaN, no infinity, no control characters."""
    return {printable(keyword): _json_value(value) for keyword, value in header.items()}


def _json_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return printable(value) if isinstance(value, str) else value


async def insert_image(
    connection: Connection, image: ImageVerified, exposure: Exposure, modified_at: datetime | None
) -> bool:
    """Add an image with its CCDs, columns and place. False, and nothing written, if it was there already."""
    number = await queries.insert_image(
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
        header=jsonable(exposure.header),
        primary_header=jsonable(exposure.primary),
        repairs=_reasons(image.repairs),
        uri=image.uri,
        modified_at=modified_at if image.uri else None,
        **column_values(exposure.columns, exposure.place),
    )
    if number is None:
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
        for ccd in exposure.ccds
    ]
    await queries.insert_ccds(connection, rows)
    await queries.insert_cells(
        connection, cells=list(exposure.place.cells), mjd_obs=image.mjd_obs, number=number
    )
    return True


def column_values(columns: Columns, place: Place) -> dict[str, Any]:
    """Columns of `images` that say what rules select on, and where the image lies."""
    x, y, z = place.centre
    return {
        **asdict(columns),
        "footprint": list(place.footprint) if place.footprint else None,
        "corners": place.corners,
        "centre_x": x,
        "centre_y": y,
        "centre_z": z,
        "radius_rad": place.radius_rad,
        "reach_east": place.reach[0],
        "reach_north": place.reach[1],
        "columns_version": columns_module.VERSION,
    }


async def with_old_columns(connection: Connection, version: int, max_rows: int) -> list[Record]:
    """Images whose columns earlier code filled, held until the transaction ends."""
    return [row async for row in queries.old_columns(connection, version=version, max_rows=max_rows)]


async def replace_columns(
    connection: Connection, row: Record, columns: Columns, place: Place, repairs: Sequence[Finding]
) -> None:
    """Fill the columns and cells of an image that is there; what was found on the way joins its repairs."""
    told = [{name: part for name, part in asdict(finding).items() if part is not None} for finding in repairs]
    kept_repairs = [repair for repair in row["repairs"] if repair not in told]
    await queries.fill_columns(
        connection,
        number=row["number"],
        repairs=storable(kept_repairs + told),
        **column_values(columns, place),
    )
    await queries.insert_cells(
        connection, cells=list(place.cells), mjd_obs=row["mjd_obs"], number=row["number"]
    )


async def first_announcement(connection: Connection, image_id: str) -> bool:
    """Mark that others are told of this image; False if they were before."""
    return await queries.set_announced(connection, image_id=image_id) is not None


async def name_auxiliary(
    connection: Connection, image_id: str, frame: Named, *, wanted: bool, again_after: timedelta
) -> bool:
    """Remember that an image names a calibration frame; True if it has to be asked for now."""
    about = {
        "kind": frame.kind,
        "name": frame.name,
        "keyword": frame.keyword,
        "image_id": image_id,
        "uris": list(frame.uris),
    }
    state = await queries.insert_auxiliary(connection, state="wanted" if wanted else "named", **about)
    if state is None and wanted:
        state = await queries.want_auxiliary(connection, again_after=again_after, **about)
    await queries.insert_image_auxiliary(connection, image_id=image_id, kind=frame.kind, name=frame.name)
    return bool(state == "wanted")


async def auxiliary(pool: Pool, kind: str, name: str) -> dict[str, Any] | None:
    """What is known of a calibration frame; None if no header named it."""
    row = await queries.auxiliary(pool, kind=kind, name=name)
    return dict(row) if row else None


async def set_auxiliary(connection: Connection, registered: AuxiliaryRegistered) -> bool:
    """Write what came of looking for a calibration frame; False if it is here already."""
    file = registered.file
    changed = await queries.set_auxiliary(
        connection,
        kind=registered.kind,
        name=registered.name,
        state=registered.state,
        uri=registered.uri,
        path=file and file.path,
        sha256=file and file.sha256,
        size_bytes=file and file.size_bytes,
        reasons=_reasons(registered.reasons),
    )
    return bool(changed == "UPDATE 1")


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
    """What the folder watcher has announced already.

    With `node`, hosts have disks of their own: the same path is another file on each, and none but this node reads it.
    """

    def __init__(self, pool: Pool, node: str | None = None) -> None:
        self._pool = pool
        self._node = node
        self._where = f"{node}:" if node else ""

    async def known(self, folder: Path) -> set[FileState]:
        """Files below `folder` that were announced, as they were then."""
        url = f"file://{quote_from_bytes(os.fsencode(folder))}/"
        rows = queries.known_files(
            self._pool, prefix=f"{self._where}{address(folder)}/", url=f"{self._where}{url}"
        )
        return {
            (row["path"].removeprefix(self._where), row["size_bytes"], row["mtime_ns"]) async for row in rows
        }

    async def announce(self, file: FileState, message: ImageArrived, event_id: str) -> bool:
        """Enter a file and publish its arrival in one transaction; False if another watcher was first."""
        path, size_bytes, mtime_ns = file
        if self._node is not None:
            path, message = f"{self._where}{path}", message.model_copy(update={"node": self._node})
        async with self._pool.acquire() as connection, connection.transaction():
            entered = await queries.insert_seen(
                connection, path=path, size_bytes=size_bytes, mtime_ns=mtime_ns, event_id=event_id
            )
            if entered is not None:
                await publish_in(connection, message, source="ingest", event_id=event_id)
        return entered is not None
