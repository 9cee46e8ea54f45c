"""What people ask of the store, as plain dictionaries."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiosql
from spica_runtime.errors import UsageError
from spica_runtime.pg import Connection, Pool
from spica_runtime.storage import DataFolder

queries = aiosql.from_path(Path(__file__).parent / "queries.sql", "asyncpg")

Row = dict[str, Any]


async def _rows(found: Any) -> list[Row]:
    return [dict(row) async for row in found]


class Store:
    """Questions to the store."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def counts(self) -> Row:
        """Count images, grades, stacks, dead letters and events that wait to be published."""
        row = dict(await queries.counts(self._pool))
        grades = await _rows(queries.grade_counts(self._pool))
        stacks = await _rows(queries.stack_counts(self._pool))
        row["grades"] = {grade["grade"]: grade["images"] for grade in grades}
        row["stack_states"] = {stack["state"]: stack["stacks"] for stack in stacks}
        return row

    async def placed(self) -> bool:
        """Whether images lie on nodes, as the services that live say."""
        return bool(await queries.placed(self._pool))

    async def images(
        self,
        *,
        batch: str | None = None,
        grade: str | None = None,
        filter: str | None = None,
        image_id: str | None = None,
        limit: int = 200,
        offset: int = 0,
    ) -> list[Row]:
        """List images, newest first, with what holds of them now."""
        return await _rows(
            queries.list_images(
                self._pool,
                batch=batch,
                grade=grade,
                filter=filter,
                image_id=image_id,
                max_rows=limit,
                skip=offset,
            )
        )

    async def rejections(self, *, limit: int = 200) -> list[Row]:
        """List rejected files, newest first."""
        return await _rows(queries.list_rejections(self._pool, max_rows=limit))

    async def stacks(self, *, limit: int = 200, offset: int = 0) -> list[Row]:
        """List stacks, newest first."""
        return await _rows(queries.list_stacks(self._pool, max_rows=limit, skip=offset))

    async def image_id(self, text: str) -> str | None:
        """Find the one image with this id, name, or beginning of an id."""
        return _the_one(await _rows(queries.find_images(self._pool, text=text)), text, "image_id")

    async def stack_id(self, text: str) -> str | None:
        """Find the one stack with this id, request id, name, or beginning of an id."""
        return _the_one(await _rows(queries.find_stacks(self._pool, text=text)), text, "stack_id")

    async def image_with_sha256(self, sha256: str) -> Row | None:
        """Find the image with this content."""
        row = await queries.image_with_sha256(self._pool, sha256=sha256)
        return dict(row) if row else None

    async def image_with_uri(self, uri: str) -> Row | None:
        """Find the image that an archive calls so, as it is now."""
        row = await queries.image_with_uri(self._pool, uri=uri)
        return dict(row) if row else None

    async def image(self, image_id: str) -> Row:
        """All that is known of an image."""
        row = (await self.images(image_id=image_id))[0]
        row["header"] = await queries.image_header(self._pool, image_id=image_id)
        row |= dict(await queries.image_loaded(self._pool, image_id=image_id))
        row["versions"] = await _rows(queries.image_versions(self._pool, image_id=image_id))
        row["auxiliaries"] = await _rows(queries.image_auxiliaries(self._pool, image_id=image_id))
        row["ccds"] = await _rows(queries.image_ccds(self._pool, image_id=image_id))
        row["measurements"] = await _rows(queries.measurements_of(self._pool, kind="image", id=image_id))
        row["grades"] = await _rows(queries.grades_of(self._pool, kind="image", id=image_id))
        row["solutions"] = await _rows(queries.solutions_of_image(self._pool, image_id=image_id))
        row["stacks"] = await _rows(queries.stacks_of_image(self._pool, image_id=image_id))
        row["failures"] = await _rows(queries.failures_about(self._pool, text=image_id))
        row["activities"] = await _rows(queries.activities_about(self._pool, about=image_id))
        return row

    async def stack(self, stack_id: str) -> Row:
        """All that is known of a stack."""
        row = dict(await queries.stack(self._pool, stack_id=stack_id))
        row["members"] = await _rows(queries.stack_members(self._pool, stack_id=stack_id))
        row["measurements"] = await _rows(queries.measurements_of(self._pool, kind="stack", id=stack_id))
        row["calibration_report"] = await queries.calibration_report_of_stack(self._pool, stack_id=stack_id)
        row["grades"] = await _rows(queries.grades_of(self._pool, kind="stack", id=stack_id))
        row["failures"] = await _rows(queries.failures_about(self._pool, text=stack_id))
        row["parts"] = await _rows(queries.parts_of_stack(self._pool, stack_id=stack_id))
        row["activities"] = await _rows(queries.activities_about(self._pool, about=stack_id))
        return row

    async def rejections_of(self, text: str) -> list[Row]:
        """Rejections of a file with this name or URI."""
        return await _rows(queries.find_rejections(self._pool, text=text))

    async def product_at(self, path: str) -> Row | None:
        """Find the newest product at this path, relative to the data folder."""
        row = await queries.product_at(self._pool, path=path)
        return dict(row) if row else None

    async def handled(self, event_ids: Iterable[str]) -> set[tuple[str, str]]:
        """(service, event) of those events that a service has handled."""
        found = await _rows(queries.handled_by(self._pool, event_ids=list(event_ids)))
        return {(row["service"], row["event_id"]) for row in found}

    async def lineage_roots(self, text: str, data: DataFolder) -> list[int]:
        """Products that a lineage starts from: a path's own, or the ends of what was made of an image or stack.

        Raises
        ------
        UsageError
            Nothing of that name is known.

        """
        path = Path(text)
        if path.is_absolute() and path.is_relative_to(data.root):
            path = path.relative_to(data.root)
        if product := await self.product_at(path.as_posix()):
            return [product["product_id"]]
        about = await self.image_id(text) or await self.stack_id(text)
        if about is None:
            raise unknown(text)
        return [row["product_id"] for row in await _rows(queries.products_about(self._pool, about=about))]

    async def ancestry(self, product_ids: list[int]) -> dict[int, Row]:
        """Products and all they came from, each with the activity that made it and the ids it used."""
        found = await _rows(queries.ancestry(self._pool, product_ids=product_ids))
        return {row["product_id"]: row for row in found}


async def insert_grade(
    connection: Connection,
    *,
    grade_id: str,
    image_id: str,
    grade: str,
    graded_by: str,
    comment: str,
    measurement_id: str,
) -> None:
    """Add a person's grade, within the caller's transaction."""
    await queries.insert_grade(
        connection,
        grade_id=grade_id,
        image_id=image_id,
        grade=grade,
        graded_by=graded_by,
        comment=comment,
        measurement_id=measurement_id,
    )


def unknown(text: str) -> UsageError:
    """Nothing goes by that name."""
    return UsageError(
        "unknown_name", f"Nothing known as {text!r}: neither an image, nor a stack, nor a product's path."
    )


def _the_one(found: list[Row], text: str, key: str) -> str | None:
    """The exact match, or the only candidate; several are a question back to the person."""
    if not found:
        return None
    for row in found:
        if text == row[key]:
            return text
    named = [row for row in found if row["name"] == text]
    candidates = named or found
    if len(candidates) > 1 and not named:
        names = ", ".join(str(row[key]) for row in candidates[:5])
        raise UsageError("ambiguous_name", f"{text!r} may be several: {names} ...")
    return str(candidates[0][key])
