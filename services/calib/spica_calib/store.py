"""The calib service's SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiosql
from spica_proto.base import Product
from spica_runtime.pg import Connection, Pool, Record

from spica_calib.errors import CalibrationFailed
from spica_calib.reference_file import ReferenceFile

queries: Any = aiosql.from_path(Path(__file__).with_name("queries.sql"), "asyncpg")


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """What the store knows of an image."""

    image_id: str
    name: str
    profile: str
    filter: str
    exposure_time_s: float
    mjd_obs: float | None
    pointing: tuple[float, float]
    wcs: str
    ccd_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """What the store knows of a member of a stack."""

    image_id: str
    name: str
    profile: str
    filter: str
    exposure_time_s: float
    mjd_obs: float | None
    header: Mapping[str, Any]
    psf_beta: Mapping[str, float]
    header_path: str
    catalogue_path: str
    zeropoint_mag: float | None
    limiting_flux_adu: float | None
    quality: Mapping[str, Any]


async def image(pool: Pool, image_id: str) -> ImageRecord:
    """Look an image up. Raises `CalibrationFailed` (`unknown_image`)."""
    row: Record | None = await queries.image(pool, image_id=image_id)
    if row is None:
        raise CalibrationFailed("unknown_image", f"The store knows no image {image_id!r}.")
    ccds = [record["name"] async for record in queries.ccds(pool, image_id=image_id)]
    return ImageRecord(
        row["image_id"],
        row["name"],
        row["profile"],
        row["filter"],
        row["exposure_time_s"],
        row["mjd_obs"],
        (row["ra_deg"], row["dec_deg"]),
        row["wcs"],
        tuple(ccds),
    )


def _betas(per_ccd: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Exponents of the Moffat profiles of stars, by CCD; those that were not measured are left out."""
    return {str(row["name"]): float(row["moffat_beta"]) for row in per_ccd if row.get("moffat_beta")}


async def psf_betas(pool: Pool, measurement_id: str) -> dict[str, float]:
    """Exponents of the Moffat profiles of stars in one measurement, by CCD."""
    per_ccd: list[dict[str, Any]] | None = await queries.per_ccd(pool, measurement_id=measurement_id)
    return _betas(per_ccd or [])


async def members(pool: Pool, stack_id: str) -> list[MemberRecord]:
    """Selected members of a stack, in order. Raises `CalibrationFailed` (`no_solution`) if one is not solved."""
    found = []
    async for row in queries.members(pool, stack_id=stack_id):
        if row["solution_id"] is None or row["catalogue_path"] is None:
            raise CalibrationFailed(
                "no_solution", f"Member {row['image_id']} of stack {stack_id} has no solution of its own."
            )
        found.append(
            MemberRecord(
                row["image_id"],
                row["name"],
                row["profile"],
                row["filter"],
                row["exposure_time_s"],
                row["mjd_obs"],
                row["header"],
                _betas(row["per_ccd"]),
                row["header_path"],
                row["catalogue_path"],
                row["zeropoint_mag"],
                row["metrics"].get("limiting_flux_adu"),
                row["quality"],
            )
        )
    if not found:
        raise CalibrationFailed("no_members", f"Stack {stack_id} has no selected members in the store.")
    return found


async def add_solution(
    connection: Connection,
    *,
    solution_id: str,
    image_id: str,
    stack_id: str | None,
    header: Product,
    reference: ReferenceFile,
    zeropoint_mag: float | None,
    flux_scale: float | None,
    limiting_mag: float | None,
    quality: Mapping[str, Any],
) -> bool:
    """Keep a solution; False when it was there already."""
    added = await queries.add_solution(
        connection,
        solution_id=solution_id,
        image_id=image_id,
        stack_id=stack_id,
        header_path=header.path,
        reference_name=reference.name,
        reference_sha256=reference.sha256,
        zeropoint_mag=zeropoint_mag,
        flux_scale=flux_scale,
        limiting_mag=limiting_mag,
        quality=dict(quality),
    )
    return added is not None


async def solution_exists(pool: Pool, solution_id: str) -> bool:
    """Whether this solution was found before."""
    return bool(await queries.solution_exists(pool, solution_id=solution_id))


async def stack_state(pool: Pool, stack_id: str) -> str:
    """How far a stack has come. Raises `CalibrationFailed` (`unknown_stack`)."""
    state: str | None = await queries.stack_state(pool, stack_id=stack_id)
    if state is None:
        raise CalibrationFailed("unknown_stack", f"The store knows no stack {stack_id!r}.")
    return state


async def mark_calibrated(connection: Connection, stack_id: str) -> bool:
    """Take a planned stack one step further; False when it was there already."""
    return await queries.mark_calibrated(connection, stack_id=stack_id) is not None


async def products_at(pool: Pool, paths: Sequence[str]) -> tuple[Product, ...]:
    """What the store knows of these files; unknown ones are left out."""
    return tuple([Product(**row) async for row in queries.products_at(pool, paths=list(paths))])
