"""The export service's view of the store. Every statement stands in queries.sql."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import aiosql
from spica_proto.stacks import Grid
from spica_runtime.pg import Connection, Pool

from spica_export.science.dossier import Input, LeftOut, Step

queries = aiosql.from_path(Path(__file__).parent / "queries.sql", "asyncpg")


@dataclass(frozen=True, slots=True)
class Stack:
    """One stack, as the store has it."""

    stack_id: str
    request_id: str
    name: str
    filter: str
    combine: str
    request: dict[str, Any]
    requested_at: datetime
    grid: Grid
    result: dict[str, Any]
    earlier_names: list[str]
    """Of the stacks that were planned before it."""


class Store:
    """Reads through the pool; writes within the transaction of the handler's outcome."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def stack(self, stack_id: str) -> Stack | None:
        """One stack."""
        row = await queries.stack(self._pool, stack_id=stack_id)
        return None if row is None else Stack(**{**row, "grid": Grid.model_validate(row["grid"])})

    async def inputs(self, stack_id: str) -> tuple[Input, ...]:
        """Its members, in their order."""
        return tuple([Input(**row) async for row in queries.inputs(self._pool, stack_id=stack_id)])

    async def left_out(self, stack_id: str) -> tuple[LeftOut, ...]:
        """Candidates that are not members."""
        return tuple([LeftOut(**row) async for row in queries.left_out(self._pool, stack_id=stack_id)])

    async def steps(self, stack_id: str) -> tuple[Step, ...]:
        """Activities that led to the stack."""
        return tuple(
            [
                Step(**{**row, "configuration": json.dumps(row["configuration"], sort_keys=True)})
                async for row in queries.steps(self._pool, stack_id=stack_id)
            ]
        )


async def set_exported(connection: Connection, stack_id: str, result: dict[str, Any]) -> None:
    """Tell that the stack was delivered, and keep the receipts."""
    await queries.set_exported(connection, stack_id=stack_id, result=result)
