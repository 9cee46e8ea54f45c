"""The quality service's view of the store. Every statement stands in queries.sql."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiosql
from spica_proto.base import Reason
from spica_proto.images import Metrics
from spica_runtime.pg import Connection, Pool

queries = aiosql.from_path(Path(__file__).parent / "queries.sql", "asyncpg")

Kind = Literal["image", "stack"]


@dataclass(frozen=True, slots=True)
class KnownStack:
    """What measuring a stack needs besides its message."""

    request_id: str
    profile: str | None
    """Instrument profile of the members; None where they differ."""


@dataclass(frozen=True, slots=True)
class MeasurementRow:
    """One assessment, ready for the store."""

    measurement_id: str
    kind: Kind
    subject_id: str
    metrics: Metrics
    per_ccd: Sequence[dict[str, Any]]
    catalogue_path: str
    weight_path: str
    preview_path: str


class Store:
    """Reads through the pool; writes within the transaction of the handler's outcome."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def stack(self, stack_id: str) -> KnownStack | None:
        """The stack's request, and the instrument its members share."""
        row = await queries.stack(self._pool, stack_id=stack_id)
        return KnownStack(row["request_id"], row["profile"]) if row else None


async def insert_measurement(connection: Connection, row: MeasurementRow) -> None:
    """Write a measurement; one that is there already (same image, code and policy) stays."""
    await queries.insert_measurement(
        connection,
        measurement_id=row.measurement_id,
        subject_kind=row.kind,
        subject_id=row.subject_id,
        metrics=row.metrics.model_dump(mode="json"),
        per_ccd=list(row.per_ccd),
        catalogue_path=row.catalogue_path,
        weight_path=row.weight_path,
        preview_path=row.preview_path,
    )


async def insert_grade(
    connection: Connection,
    *,
    grade_id: str,
    kind: Kind,
    subject_id: str,
    grade: str,
    graded_by: str,
    reasons: Sequence[Reason],
    measurement_id: str,
) -> None:
    """Write a grade. Grades are added, never overwritten."""
    await queries.insert_grade(
        connection,
        grade_id=grade_id,
        subject_kind=kind,
        subject_id=subject_id,
        grade=grade,
        graded_by=graded_by,
        reasons=[reason.model_dump(mode="json", exclude_none=True) for reason in reasons],
        measurement_id=measurement_id,
    )


async def replace_sources(connection: Connection, stack_id: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Fill the final catalogue of a stack.

    `rows`: number, ra_deg, dec_deg, mag_auto, magerr_auto, fwhm_arcsec, ellipticity, flags.
    """
    await queries.delete_sources(connection, stack_id=stack_id)
    # COPY: a catalogue has 10^5 rows.
    await connection.copy_records_to_table(
        "sources",
        records=[(stack_id, *row) for row in rows],
        columns=(
            "stack_id",
            "number",
            "ra_deg",
            "dec_deg",
            "mag_auto",
            "magerr_auto",
            "fwhm_arcsec",
            "ellipticity",
            "flags",
        ),
    )


async def set_done(connection: Connection, stack_id: str, result: dict[str, Any]) -> None:
    """Tell that the stack is measured and graded."""
    await queries.set_done(connection, stack_id=stack_id, result=result)
