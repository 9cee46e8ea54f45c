"""Columns of images that were verified before this code was: read again from the headers that are in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from spica_imaging.profiles import Profile
from spica_runtime.pg import Pool, Record

from spica_ingest.science.columns import VERSION, Columns, load_columns
from spica_ingest.science.facts import Finding
from spica_ingest.science.geometry import pixel_scale_arcsec
from spica_ingest.science.place import Place, place_of, rough_place, rough_radius_deg
from spica_ingest.store import replace_columns, with_old_columns

log = structlog.get_logger(__name__)

BATCH = 50


async def fill_columns(
    pool: Pool,
    profiles: Mapping[str, Profile],
    stop: asyncio.Event | None = None,
    tell: Callable[[int], None] = lambda _: None,
) -> int:
    """Fill the columns of all images that earlier code wrote. Returns how many; tells so after each batch.

    Each batch is a transaction of its own, and several services may do this at once: killed or not, it goes on where
    it was.
    """
    done = 0
    while stop is None or not stop.is_set():
        async with pool.acquire() as connection, connection.transaction():
            rows = await with_old_columns(connection, VERSION, BATCH)
            for row, (columns, place, repairs) in await asyncio.to_thread(_read_all, rows, profiles):
                await replace_columns(connection, row, columns, place, repairs)
        done += len(rows)
        if not rows:
            break
        tell(done)
    if done:
        log.info("columns filled from stored headers", images=done)
    return done


def _read_all(
    rows: Sequence[Record], profiles: Mapping[str, Profile]
) -> list[tuple[Record, tuple[Columns, Place, list[Finding]]]]:
    return [(row, read_again(dict(row), profiles)) for row in rows]


def read_again(
    row: Mapping[str, Any], profiles: Mapping[str, Profile]
) -> tuple[Columns, Place, list[Finding]]:
    """Columns, place and repairs of one row of `images` with the `footprints` and `shapes` of its CCDs."""
    profile = profiles.get(row["profile"]) or profiles["generic"]
    columns, repairs = load_columns(profile, row["header"], row["filter"])
    footprints = [corners for corners in row["footprints"] or () if corners]
    if footprints:
        return columns, place_of(footprints), repairs
    scale = pixel_scale_arcsec(profile, row["header"]) or 1.0
    radius = rough_radius_deg(row["shapes"] or [(1, 1)], scale, profile.pointing.radius_arcmin / 60)
    return columns, rough_place(row["ra_deg"], row["dec_deg"], radius), repairs
