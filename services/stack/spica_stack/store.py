"""The stack service's view of the store. Every statement stands in queries.sql."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import aiosql
from spica_proto.base import Product
from spica_proto.stacks import Grid, StackPlanned, StackRequested
from spica_runtime.pg import Connection, Pool, Record

from spica_stack.making.steps import Step
from spica_stack.science.selection import Verdict

queries = aiosql.from_path(Path(__file__).parent / "queries.sql", "asyncpg")


@dataclass(frozen=True, slots=True)
class KnownStack:
    """A stack that a request made earlier."""

    stack_id: str
    name: str
    state: str


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
    plan: Mapping[str, Any]
    """How its pixels are made; see `processing.Plan`."""
    extends: str | None


@dataclass(frozen=True, slots=True)
class BaseRow:
    """The stack that another one goes on from."""

    stack_id: str
    sums: str | None
    """Path in the data folder; None: they were not kept."""
    image_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Making:
    """Which making of a stack is under way: what was decided when it began, the same for all workers."""

    token: str
    """Another one each time it begins anew."""
    whole: bool
    """All in one part."""
    tiles: int
    memory_bytes: int
    tile_samples: int
    """On these two the tiles depend."""
    reference: str
    """Name of the reference catalogue of the solutions."""
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a stack has come."""

    stack_id: str
    name: str
    state: str
    making: Making | None
    given_up: bool
    """A stage failed, and its dead letter was not sent again."""
    replaced_by: str | None

    def refusal(self, token: str | None = None) -> str | None:
        """Why no part of it is to be made (any more), though it has not failed. With `token`: of this making."""
        if self.making is None or self.state == "planned":
            return f"stack is {self.state}: its members are not on one system"
        if self.making.ended:
            return "stack is made already"
        if self.replaced_by is not None:
            return f"stack is replaced by {self.replaced_by}"
        if token is not None and token != self.making.token:
            return "stack was begun anew meanwhile"
        return None


@dataclass(frozen=True, slots=True)
class StepCount:
    """How many parts of a step there are, and how many of them are done."""

    total: int
    done: int


@dataclass(frozen=True, slots=True)
class StepProgress:
    """The same with how it goes of late."""

    name: str
    ended: bool
    step: str
    total: int
    done: int
    late_done: int
    late_s: float | None


@dataclass(frozen=True, slots=True)
class DonePart:
    """What is kept of a part that is done."""

    step: Step
    number: int
    path: str | None
    sha256: str | None
    numbers: Mapping[str, Any]
    host: str
    elapsed_s: float


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
    limiting_mag: float | None


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

    async def base(self, stack_id: str) -> BaseRow | None:
        """The stack that another one goes on from."""
        row = await queries.base(self._pool, stack_id=stack_id)
        return BaseRow(row["stack_id"], row["sums"], tuple(row["image_ids"])) if row else None

    async def input_samples(self, stack_id: str) -> int:
        """Pixels of all CCDs of all members."""
        return int(await queries.input_samples(self._pool, stack_id=stack_id))

    async def standing(self, stack_id: str) -> Standing | None:
        """How far a stack has come, at this moment."""
        return await standing(self._pool, stack_id)

    async def part_is_done(self, stack_id: str, step: str, number: int) -> bool | None:
        """Whether a part is done; None: there is no such part."""
        row = await queries.part(self._pool, stack_id=stack_id, step=step, number=number)
        return None if row is None else bool(row["done"])

    async def steps(self, stack_id: str) -> dict[str, StepCount]:
        """How far each step of a stack is."""
        return await steps(self._pool, stack_id)

    async def progress(self, stack_id: str, window_s: float) -> dict[str, StepProgress]:
        """How far each step of a stack is, and how it went in the last seconds."""
        rows = queries.progress(self._pool, stack_id=stack_id, window_s=window_s)
        names = StepProgress.__dataclass_fields__
        return {row["step"]: StepProgress(**{name: row[name] for name in names}) async for row in rows}

    async def parts_needed(
        self, stack_ids: Sequence[str], node_id: str | None, keep_failed_s: float
    ) -> dict[str, bool]:
        """Whether the parts of these stacks are still needed on this node (any, if None); of unknown ones nothing."""
        rows = queries.parts_needed(
            self._pool, stack_ids=list(stack_ids), node_id=node_id, keep_failed_s=keep_failed_s
        )
        return {row["stack_id"]: row["needed"] async for row in rows}

    async def products_at(self, paths: Sequence[str]) -> tuple[Product, ...]:
        """What the store knows of these files; unknown ones are left out."""
        return tuple([Product(**row) async for row in queries.products_at(self._pool, paths=list(paths))])


async def standing(connection: Connection | Pool, stack_id: str) -> Standing | None:
    """How far a stack has come."""
    row = await queries.making(connection, stack_id=stack_id)
    if row is None:
        return None
    making = Making(**row["making"]) if row["making"] else None
    return Standing(**{**dict(row), "making": making})


async def hold(connection: Connection, stack_id: str) -> Standing | None:
    """The same, and nobody else goes on with it until this transaction ends."""
    await queries.hold_stack(connection, stack_id=stack_id)
    return await standing(connection, stack_id)


async def begin_making(connection: Connection, stack_id: str, making: Making) -> None:
    """Parts are wanted from now on; those of an earlier time do not count any more."""
    await queries.forget_parts(connection, stack_id=stack_id)
    await queries.begin_making(connection, stack_id=stack_id, making=asdict(making))


async def go_on(connection: Connection, stack_id: str) -> list[tuple[Step, list[int]]]:
    """A stack that had failed is being made again: the numbers of the parts that were put aside meanwhile, by step."""
    await queries.go_on(connection, stack_id=stack_id)
    found: dict[Step, list[int]] = {}
    async for row in queries.take_up(connection, stack_id=stack_id):
        found.setdefault(row["step"], []).append(row["number"])
    return [(step, sorted(numbers)) for step, numbers in sorted(found.items())]


async def add_parts(connection: Connection, stack_id: str, step: str, numbers: Sequence[int]) -> None:
    """Units of one step, wanted."""
    await queries.add_parts(connection, stack_id=stack_id, step=step, numbers=list(numbers))


async def finish_part(connection: Connection, stack_id: str, part: DonePart) -> bool:
    """A part is done; False where it was done before."""
    return (await queries.finish_part(connection, stack_id=stack_id, **asdict(part))) is not None


async def put_aside(connection: Connection, stack_id: str, step: str, number: int) -> None:
    """A part is not done since its stack has failed."""
    await queries.put_aside(connection, stack_id=stack_id, step=step, number=number)


async def want_again(connection: Connection, stack_id: str, step: str, numbers: Sequence[int]) -> list[int]:
    """Parts whose files are gone; returns those that counted as done."""
    rows = queries.want_again(connection, stack_id=stack_id, step=step, numbers=list(numbers))
    return sorted([row["number"] async for row in rows])


async def steps(connection: Connection | Pool, stack_id: str) -> dict[str, StepCount]:
    """How far each step is."""
    rows = queries.steps(connection, stack_id=stack_id)
    return {row["step"]: StepCount(row["total"], row["done"]) async for row in rows}


async def wanted(connection: Connection, stack_id: str, step: str) -> list[int]:
    """Numbers of the parts of a step that are not done."""
    return [row["number"] async for row in queries.wanted(connection, stack_id=stack_id, step=step)]


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
        grid=planned.grid.model_dump(),
        combine=planned.combine,
        plan=planned.model_dump(mode="json", include={"processing", "solutions", "engine"}),
        survey=planned.survey,
        extends=planned.extends,
        replaces=request.replaces,
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


async def replaced(connection: Connection, stack_id: str) -> str | None:
    """Which stack this one was to be made instead of."""
    found: str | None = await queries.replaced(connection, stack_id=stack_id)
    return found


async def set_failed(connection: Connection, stack_id: str, failure: dict[str, Any]) -> None:
    """Tell that a stage gave this stack up, and why."""
    await queries.set_failed(
        connection, stack_id=stack_id, failure=failure, dead_letter_id=failure.get("dead_letter_id")
    )
