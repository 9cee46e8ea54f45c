"""What people keep for choosing images: tags, and selections under a name."""

from __future__ import annotations

import getpass
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiosql
from spica_proto.stacks import Selection
from spica_runtime.errors import NotRetriable, UsageError
from spica_runtime.pg import Pool
from spica_stack.choosing import saved_selections, selection_of
from spica_stack.requests import selection_faults
from spica_stack.strict import nearest
from spica_stack.surveys import touched

from spica_console.store import Store, unknown

queries: Any = aiosql.from_path(Path(__file__).parent / "choosing.sql", "asyncpg")

Row = dict[str, Any]

_TAG = re.compile(r"^[^\s,='\"]{1,64}$")
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")


def person() -> str:
    """Who says it."""
    return f"person:{getpass.getuser()}"


# ---- tags ----


async def tag_images(pool: Pool, tag: str, images: Sequence[str], *, remove: bool = False) -> list[Row]:
    """Give images a tag, or take it away; standing surveys hear of it. Either for all of them or for none.

    Raises `UsageError`: bad_tag, and for an image that is not there.
    """
    if not remove and not _TAG.match(tag):
        raise UsageError(
            "bad_tag",
            f"{tag!r} is no tag: up to 64 characters, without spaces, commas, equal signs and quotes.",
        )
    ids = [await _image(pool, text) for text in images]
    rows = list[Row]()
    changed = list[str]()
    async with pool.acquire() as connection, connection.transaction():
        for image_id in ids:
            if remove:
                status = await queries.remove_tag(connection, image_id=image_id, tag=tag)
            else:
                status = await queries.add_tag(connection, image_id=image_id, tag=tag, tagged_by=person())
            rows.append({"image_id": image_id, "tag": tag, "changed": _changed(status)})
            changed += [image_id] if _changed(status) else []
        if changed:
            await touched(connection, changed)
    return rows


def _changed(status: Any) -> bool:
    """Whether a statement changed a row, from how many PostgreSQL says it did."""
    return not str(status).endswith(" 0") and str(status) != "0"


async def _image(pool: Pool, text: str) -> str:
    image_id = await Store(pool).image_id(text)
    if image_id is None:
        raise unknown(text)
    return image_id


async def tags(pool: Pool) -> list[Row]:
    """All tags with their numbers of images."""
    return [dict(row) async for row in queries.all_tags(pool)]


async def tags_of(pool: Pool, image: str) -> list[Row]:
    """Tags of an image. Raises `UsageError` where it is not there."""
    image_id = await _image(pool, image)
    return [dict(row) async for row in queries.tags_of(pool, image_id=image_id)]


async def images_with(pool: Pool, tag: str) -> list[Row]:
    """Images that have a tag."""
    return [dict(row) async for row in queries.images_with(pool, tag=tag)]


# ---- selections ----


async def save(pool: Pool, name: str, body: Mapping[str, Any], *, replace: bool) -> Row:
    """Save a selection under a name. Raises `UsageError`: bad_name, invalid_selection, selection_exists."""
    if not _NAME.match(name):
        raise UsageError(
            "bad_name", f"{name!r} is no name: letters, digits and . _ + -, the first a letter or digit."
        )
    if not body:
        raise UsageError("invalid_selection", "This selection has no rules: it would let everything pass.")
    if faults := selection_faults(body):
        raise UsageError("invalid_selection", f"This is no selection: {'; '.join(faults)}.")
    selection = Selection.model_validate(body)
    try:
        known = await saved_selections(pool, selection)
        selection_of(Selection(saved=(name,)), known | {name: selection})
    except NotRetriable as error:
        raise UsageError("invalid_selection", error.message) from error
    if not replace and await queries.selection_named(pool, name=name) is not None:
        raise UsageError(
            "selection_exists",
            f"There is a selection {name!r} already; --replace puts this one in its place.",
        )
    plain = selection.model_dump(mode="json", exclude_unset=True)
    await queries.save_selection(pool, name=name, selection=plain, created_by=person())
    return {"name": name, "selection": plain}


async def selections(pool: Pool) -> list[Row]:
    """All saved selections."""
    return [dict(row) async for row in queries.all_selections(pool)]


async def selection_named(pool: Pool, name: str) -> Row:
    """One of them, with what uses it. Raises `UsageError` (`unknown_selection`)."""
    row = await queries.selection_named(pool, name=name)
    if row is None:
        known = [one["name"] for one in await selections(pool)]
        there = f"There are {', '.join(known)}." if known else "There is none yet: `spica selection save`."
        raise UsageError(
            "unknown_selection", f"No selection is saved as {name!r}{nearest(name, known)}. {there}"
        )
    uses = [dict(one) async for one in queries.uses_of_selection(pool, name=name)]
    return {**dict(row), "used_by": uses}


async def remove(pool: Pool, name: str) -> Row:
    """Remove one. Raises `UsageError`: unknown_selection, selection_in_use."""
    row = await selection_named(pool, name)
    if row["used_by"]:
        users = ", ".join(f"{one['kind']} {one['name']}" for one in row["used_by"])
        raise UsageError("selection_in_use", f"The selection {name} is named by {users}: change these first.")
    await queries.remove_selection(pool, name=name)
    return {"name": name, "removed": True}
