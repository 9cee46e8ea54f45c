"""The quality service's view of the store. Every statement stands in queries.sql."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import aiosql
from spica_proto.base import Product, Reason
from spica_proto.envelope import derived_id
from spica_proto.images import Metrics, Verdict
from spica_runtime.pg import Connection, Pool

from spica_quality.science.policy.runstatistics import NO_RUN, RunStatistics, exposed_alike, run_statistics

queries = aiosql.from_path(Path(__file__).parent / "queries.sql", "asyncpg")

Kind = Literal["image", "stack"]


@dataclass(frozen=True, slots=True)
class KnownStack:
    """What measuring a stack needs besides its message."""

    request_id: str
    profile: str | None
    """Instrument profile of the members; None where they differ."""


@dataclass(frozen=True, slots=True)
class NamedAuxiliary:
    """A master flat or mask that an image's headers name."""

    kind: str
    name: str
    state: str
    """named, wanted, here, missing or rejected."""
    file: Product | None
    """Where it is, if it is here."""
    asked_at: datetime | None
    """When ingest was asked for it."""


@dataclass(frozen=True, slots=True)
class MeasurementRow:
    """One assessment, ready for the store."""

    measurement_id: str
    kind: Kind
    subject_id: str
    metrics: Metrics
    figures: Mapping[str, Any]
    """All that policies judge by."""
    per_ccd: Sequence[dict[str, Any]]
    catalogue_path: str
    weight_path: str
    preview_path: str
    products: Mapping[str, str]
    """Path of every file that was made, by kind."""


class Store:
    """Reads through the pool; writes within the transaction of the handler's outcome."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def stack(self, stack_id: str) -> KnownStack | None:
        """The stack's request, and the instrument its members share."""
        row = await queries.stack(self._pool, stack_id=stack_id)
        return KnownStack(row["request_id"], row["profile"]) if row else None

    async def auxiliaries(self, image_id: str) -> list[NamedAuxiliary]:
        """The master flat and mask that the image's headers name."""
        return [
            NamedAuxiliary(
                row["kind"],
                row["name"],
                row["state"],
                Product(
                    path=row["path"], sha256=row["sha256"], size_bytes=row["size_bytes"], kind=row["kind"]
                )
                if row["state"] == "here"
                else None,
                row["asked_at"],
            )
            async for row in queries.auxiliaries(self._pool, image_id=image_id)
        ]

    async def run_statistics(
        self,
        image_id: str,
        *,
        run: str,
        filter: str,
        profile: str,
        exposure_time_s: float,
        figures: Collection[str],
    ) -> RunStatistics:
        """What is usual among the other images of a run through this filter and so long exposed, as far as measured."""
        if not figures:
            return NO_RUN
        shortest_s, longest_s = exposed_alike(exposure_time_s)
        values = {
            row["figure"]: row["values"]
            async for row in queries.run_values(
                self._pool,
                image_id=image_id,
                run=run,
                filter=filter,
                profile=profile,
                shortest_s=shortest_s,
                longest_s=longest_s,
                figures=sorted(figures),
            )
        }
        return run_statistics(run, filter, values)

    async def exposure_times_s(self, image_ids: Collection[str]) -> dict[str, float]:
        """How long each of these images was exposed."""
        rows = queries.exposure_times(self._pool, image_ids=sorted(image_ids))
        return {row["image_id"]: row["exposure_time_s"] async for row in rows}


async def insert_measurement(connection: Connection, row: MeasurementRow) -> None:
    """Write a measurement; one that is there already (same image, code, policy and settings) stays."""
    await queries.insert_measurement(
        connection,
        measurement_id=row.measurement_id,
        subject_kind=row.kind,
        subject_id=row.subject_id,
        metrics=row.metrics.model_dump(mode="json"),
        figures=dict(row.figures),
        per_ccd=list(row.per_ccd),
        catalogue_path=row.catalogue_path,
        weight_path=row.weight_path,
        preview_path=row.preview_path,
        products=dict(row.products),
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


async def insert_verdicts(
    connection: Connection, event_id: str, measurement_id: str, verdicts: Sequence[Verdict]
) -> None:
    """Write what policies say of a measurement, on the occasion of an event. Verdicts are added, never overwritten."""
    for verdict in verdicts:
        await queries.insert_verdict(
            connection,
            verdict_id=derived_id("verdict", event_id, verdict.policy),
            measurement_id=measurement_id,
            policy=verdict.policy,
            use=verdict.use,
            grade=verdict.grade,
            reasons=[reason.model_dump(mode="json", exclude_none=True) for reason in verdict.reasons],
            ccds_out=list(verdict.ccds_out),
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
