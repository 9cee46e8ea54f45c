"""The stack service's view of the store. Every statement stands in queries.sql."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import aiosql
from spica_proto.base import Product
from spica_proto.stacks import Grid, StackPlanned, StackRequested
from spica_runtime.pg import Connection, Pool, Record

from spica_stack.inputs import CcdSize
from spica_stack.science.selection import Candidate, Rules, Verdict

queries = aiosql.from_path(Path(__file__).parent / "queries.sql", "asyncpg")

_CANDIDATE_FIELDS = tuple(Candidate.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class KnownStack:
    """A stack that a request made earlier."""

    stack_id: str
    name: str
    state: str


@dataclass(frozen=True, slots=True)
class CandidateFiles:
    """What planning needs of a candidate besides what the rules look at."""

    candidate: Candidate
    header_path: str | None


@dataclass(frozen=True, slots=True)
class Stack:
    """One planned stack."""

    stack_id: str
    request_id: str
    name: str
    filter: str
    requested_at: datetime
    grid: Grid
    combine: str


@dataclass(frozen=True, slots=True)
class MemberRow:
    """One member, with where its files are. None: not there (yet)."""

    image_id: str
    image: Product
    name: str
    profile: str
    instrument: str
    object: str | None
    exposure_time_s: float
    mjd_obs: float | None
    fwhm_arcsec: float | None
    ellipticity: float | None
    weight_path: str | None
    header_path: str | None
    flux_scale: float | None


def _member(row: Record) -> MemberRow:
    image = Product(path=row["path"], sha256=row["sha256"], size_bytes=row["size_bytes"], kind="image")
    fields = {name: row[name] for name in MemberRow.__dataclass_fields__ if name != "image"}
    return MemberRow(image=image, **fields)


class Store:
    """Reads through the pool; writes within the transaction of the handler's outcome."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def stack_of_request(self, request_id: str) -> KnownStack | None:
        """Tell whether this request made a stack already."""
        row = await queries.stack_of_request(self._pool, request_id=request_id)
        return KnownStack(**row) if row else None

    async def candidates(self, rules: Rules) -> list[CandidateFiles]:
        """Images among which the rules choose."""
        rows = queries.candidates(
            self._pool,
            batch=rules.batch,
            run=rules.run,
            object=rules.object,
            instrument=rules.instrument,
            images=list(rules.images),
        )
        return [
            CandidateFiles(Candidate(**{name: row[name] for name in _CANDIDATE_FIELDS}), row["header_path"])
            async for row in rows
        ]

    async def ccds_of(self, image_ids: Sequence[str]) -> dict[str, list[CcdSize]]:
        """Sizes of the CCDs of each image."""
        found: dict[str, list[CcdSize]] = {image_id: [] for image_id in image_ids}
        async for row in queries.ccds_of(self._pool, image_ids=list(image_ids)):
            found[row["image_id"]].append(CcdSize(row["name"], row["naxis1"], row["naxis2"]))
        return found

    async def stack(self, stack_id: str) -> Stack | None:
        """One stack as it was planned."""
        row = await queries.stack(self._pool, stack_id=stack_id)
        if row is None:
            return None
        fields = {name: row[name] for name in Stack.__dataclass_fields__ if name != "grid"}
        return Stack(grid=Grid.model_validate(row["grid"]), **fields)

    async def members(self, stack_id: str) -> list[MemberRow]:
        """Its members in their order."""
        return [_member(row) async for row in queries.members(self._pool, stack_id=stack_id)]

    async def products_at(self, paths: Sequence[str]) -> tuple[Product, ...]:
        """What the store knows of these files; unknown ones are left out."""
        return tuple([Product(**row) async for row in queries.products_at(self._pool, paths=list(paths))])


async def insert_stack(
    connection: Connection, planned: StackPlanned, request: StackRequested, requested_at: datetime
) -> bool:
    """Write a planned stack; False where its request is known already (and nothing is written)."""
    row = await queries.insert_stack(
        connection,
        stack_id=planned.stack_id,
        request_id=planned.request_id,
        name=planned.name,
        filter=planned.filter,
        request=request.model_dump(mode="json", exclude_none=True),
        requested_at=requested_at,
        grid=planned.grid.model_dump(mode="json"),
        combine=planned.combine,
    )
    return row is not None


async def insert_members(connection: Connection, stack_id: str, verdicts: Sequence[Verdict]) -> None:
    """Write why each candidate is, or is not, a member."""
    ordinals = {
        verdict.candidate.image_id: ordinal
        for ordinal, verdict in enumerate(verdict for verdict in verdicts if verdict.selected)
    }
    await queries.insert_members(
        connection,
        [
            {
                "stack_id": stack_id,
                "image_id": verdict.candidate.image_id,
                "ordinal": ordinals.get(verdict.candidate.image_id),
                "selected": verdict.selected,
                "rule": verdict.rule,
                "found": verdict.found,
                "solution_id": verdict.candidate.solution_id,
            }
            for verdict in verdicts
        ],
    )


async def set_coadded(connection: Connection, stack_id: str, result: dict[str, Any]) -> None:
    """Tell that the stack's pixels are there, and what came of making them."""
    await queries.set_coadded(connection, stack_id=stack_id, result=result)


async def set_failed(connection: Connection, stack_id: str, failure: dict[str, Any]) -> None:
    """Tell that a stage gave this stack up, and why."""
    await queries.set_failed(
        connection, stack_id=stack_id, failure=failure, dead_letter_id=failure.get("dead_letter_id")
    )
