"""Solutions of images: which there are, what runs taught since, and what solving again would change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiosql
from spica_proto.envelope import derived_id
from spica_proto.images import ImageCalibrationRequested
from spica_runtime.errors import UsageError
from spica_runtime.outbox import publish_in
from spica_runtime.pg import Pool

from spica_console.store import Store, unknown
from spica_console.submitting import SOURCE

if TYPE_CHECKING:
    from spica_calib.science.astrometry.problem import InstrumentModel

queries: Any = aiosql.from_path(Path(__file__).parent / "calibration.sql", "asyncpg")

Row = dict[str, Any]

_EVERY = 1_000_000
_MAS_PER_RAD = math.degrees(1.0) * 3.6e6


@dataclass(frozen=True, slots=True)
class Images:
    """Which images; None does not restrict."""

    context: str | None = None
    run: str | None = None
    filter: str | None = None
    batch: str | None = None
    image_ids: tuple[str, ...] | None = None


async def image_id_of(pool: Pool, text: str) -> str:
    """The one image of this id, name, or beginning of an id. Raises `UsageError`."""
    found = await Store(pool).image_id(text)
    if found is None:
        raise unknown(text)
    return found


async def current(pool: Pool, which: Images, max_rows: int = _EVERY) -> list[Row]:
    """The solution that counts of each of these images, newest first."""
    wanted = asdict(which) | {"image_ids": list(which.image_ids) if which.image_ids is not None else None}
    return [dict(row) async for row in queries.current(pool, **wanted, max_rows=max_rows)]


async def versions(pool: Pool, text: str) -> Row:
    """All solutions of one image, with the images that took part in each. Raises `UsageError`."""
    image_id = await image_id_of(pool, text)
    rows = [dict(row) async for row in queries.versions(pool, image_id=image_id)]
    ids = sorted({one for row in rows for one in row["context_solutions"]})
    named = {
        row["solution_id"]: row["name"] async for row in queries.names_of_solutions(pool, solution_ids=ids)
    }
    for row in rows:
        row["context_images"] = [named.get(one, one) for one in row["context_solutions"]]
    return {"image_id": image_id, "solutions": rows}


# ---- what runs taught ----


async def contexts(pool: Pool, context: str | None = None) -> list[Row]:
    """Contexts, each with its newest model."""
    return [dict(row) async for row in queries.contexts(pool, context=context)]


async def model_history(pool: Pool, context: str, max_rows: int) -> list[Row]:
    """Versions of one context's model, newest first, each with how far it went from the one before. Raises `UsageError`."""
    rows = [dict(row) async for row in queries.models(pool, context=context, max_rows=max_rows + 1)]
    if not rows:
        names = [row["context"] for row in await contexts(pool)]
        known = f" There are: {', '.join(names)}." if names else " There is none yet."
        raise UsageError("unknown_context", f"No run has taught anything of context {context!r}.{known}")
    models = [read_model(row.pop("model")) for row in rows]
    for row, model, before in zip(rows, models, [*models[1:], None], strict=True):
        row["n_detections"] = model.n_detections
        row["ccds"] = len(model.ccds)
        row["degree"] = max((ccd.degree for ccd in model.ccds.values()), default=0)
        row["moved_mas"] = difference(model, before)
    return rows[:max_rows]


def read_model(told: Mapping[str, Any]) -> InstrumentModel:
    """A model as the store has it."""
    from spica_calib.science.astrometry.problem import InstrumentModel

    return InstrumentModel.from_json(told)


def difference(first: InstrumentModel | None, second: InstrumentModel | None) -> float | None:
    """How far two models are apart (mas); None: one is not there."""
    from spica_calib.science.lessons import difference_mas

    return difference_mas(first, second) if first is not None and second is not None else None


# ---- what newer solutions change ----


@dataclass(frozen=True, slots=True)
class Moved:
    """A member of a stack that was solved again since the stack was planned."""

    image_id: str
    image: str
    old_version: int | None
    new_version: int | None
    why: str | None
    moves_mas: float | None
    """The furthest that a corner of its CCDs goes; None: the older solution is of before corners were kept."""
    changes_mmag: float | None
    """Of its zero point; None: one of them has none."""


@dataclass(frozen=True, slots=True)
class Stale:
    """A stack whose members have newer solutions than it was planned with."""

    stack_id: str
    stack: str
    filter: str
    state: str
    n_members: int
    members: list[Moved] = field(default_factory=list)

    @property
    def moves_mas(self) -> float | None:
        """The furthest that any member's corner goes."""
        return max((one.moves_mas for one in self.members if one.moves_mas is not None), default=None)

    @property
    def changes_mmag(self) -> float | None:
        """The change of any member's zero point that is largest."""
        known = [one.changes_mmag for one in self.members if one.changes_mmag is not None]
        return max(known, key=abs, default=None)

    def plain(self) -> Row:
        """For programs."""
        return {**asdict(self), "moves_mas": self.moves_mas, "changes_mmag": self.changes_mmag}


async def stale_stacks(pool: Pool, stack: str | None = None) -> list[Stale]:
    """Stacks that newer solutions would change, those that would change most first. Raises `UsageError`."""
    stack_id = None
    if stack is not None and (stack_id := await Store(pool).stack_id(stack)) is None:
        raise unknown(stack)
    found: dict[str, Stale] = {}
    async for row in queries.moved_members(pool, stack_id=stack_id):
        one = found.setdefault(
            row["stack_id"],
            Stale(row["stack_id"], row["stack"], row["filter"], row["state"], row["n_members"]),
        )
        old, new = row["old_zeropoint_mag"], row["new_zeropoint_mag"]
        one.members.append(
            Moved(
                row["image_id"],
                row["image"],
                row["old_version"],
                row["new_version"],
                row["why"],
                corners_moved_mas(row["old_corners"], row["new_corners"]),
                1000.0 * (new - old) if old is not None and new is not None else None,
            )
        )
    for one in found.values():
        one.members.sort(key=lambda member: -(member.moves_mas or 0.0))
    # What cannot be told may be anything: first.
    return sorted(
        found.values(),
        key=lambda one: (one.moves_mas is not None, -(one.moves_mas or 0.0), -abs(one.changes_mmag or 0.0)),
    )


def corners_moved_mas(old: Sequence[float] | None, new: Sequence[float] | None) -> float | None:
    """The furthest that a corner goes (mas); None where corners are not known, or are others."""
    if not old or not new or len(old) != len(new):
        return None
    furthest = 0.0
    for at in range(0, len(old), 2):
        (ra0, dec0), (ra1, dec1) = (tuple(map(math.radians, place[at : at + 2])) for place in (old, new))
        half = math.hypot(
            math.sin((dec1 - dec0) / 2),
            math.sin((ra1 - ra0) / 2) * math.sqrt(math.cos(dec0) * math.cos(dec1)),
        )
        furthest = max(furthest, 2.0 * math.asin(min(1.0, half)))
    return furthest * _MAS_PER_RAD


# ---- solving again ----


@dataclass(frozen=True, slots=True)
class Improvement:
    """An image that would be solved again."""

    image_id: str
    name: str
    context: str
    solution_id: str
    version: int | None
    knows: int
    """Version of the model that its solution knows: that it taught, else that it started from; 0: none."""
    newest: int
    moves_mas: float | None
    """How far the newest model is from the one it knows; None: it knows none."""
    stacks: tuple[str, ...]
    """That would be stale then."""

    @property
    def reason(self) -> str:
        """Why, for people."""
        if self.moves_mas is None:
            return f"model {self.newest} of its context is newer than its solution, which knows none"
        return f"model {self.newest} of its context is {self.moves_mas:.1f} mas from model {self.knows}, which it knows"

    def plain(self) -> Row:
        """For programs."""
        return {**asdict(self), "reason": self.reason}


async def improvements(pool: Pool, which: Images, least_mas: float) -> list[Improvement]:
    """Images whose context's newest model is at least so far from what their solutions know, the furthest first.

    Those of grade D only where they are named: nobody stacks them.
    """
    newest = {row["context"]: row["version"] for row in await contexts(pool)}
    rows = [
        row
        for row in await current(pool, which)
        if row["engine"] == "spica"
        and newest.get(row["context"], 0) > _knows(row)
        and (row["grade"] != "D" or which.image_ids is not None)
    ]
    wanted = {(row["context"], version) for row in rows for version in (_knows(row), newest[row["context"]])}
    models = await _models(pool, sorted(wanted))
    stacks = await _stacks_with(pool, [row["image_id"] for row in rows])
    apart = {
        key: difference(models.get(key), models.get((key[0], newest[key[0]])))
        for key in {(row["context"], _knows(row)) for row in rows}
    }
    found = [
        Improvement(
            row["image_id"],
            row["name"],
            row["context"],
            row["solution_id"],
            row["version"],
            _knows(row),
            newest[row["context"]],
            apart[row["context"], _knows(row)],
            tuple(stacks.get(row["image_id"], ())),
        )
        for row in rows
    ]
    found = [one for one in found if one.moves_mas is None or one.moves_mas >= least_mas]
    return sorted(found, key=lambda one: (one.moves_mas is not None, -(one.moves_mas or 0.0), one.name))


def _knows(row: Row) -> int:
    known: int = row["taught_version"] or row["model_version"] or 0
    return known


async def _models(pool: Pool, wanted: Sequence[tuple[str, int]]) -> dict[tuple[str, int], InstrumentModel]:
    rows = queries.model_versions(
        pool, contexts=[context for context, _ in wanted], versions=[version for _, version in wanted]
    )
    return {(row["context"], row["version"]): read_model(row["model"]) async for row in rows}


async def _stacks_with(pool: Pool, image_ids: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    async for row in queries.stacks_with(pool, image_ids=list(image_ids)):
        found.setdefault(row["image_id"], []).append(row["name"])
    return found


async def ask_again(pool: Pool, found: Sequence[Improvement], person: str) -> list[str]:
    """Ask for these images to be solved again; the same wish twice is one. Returns the events' ids."""
    async with pool.acquire() as connection, connection.transaction():
        return [
            await publish_in(
                connection,
                ImageCalibrationRequested(
                    image_id=one.image_id, name=one.name, reason=one.reason, requested_by=f"person:{person}"
                ),
                source=SOURCE,
                event_id=derived_id("calibrate again", one.solution_id, one.context, one.newest),
            )
            for one in found
        ]


# ---- anchors ----


async def anchors(pool: Pool, text: str) -> Row:
    """Members of a stack with what their zero points stand on. Raises `UsageError`."""
    stack_id = await Store(pool).stack_id(text)
    if stack_id is None:
        raise unknown(text)
    members = [dict(row) async for row in queries.joint(pool, stack_id=stack_id)]
    if not any(row["solution_id"] for row in members):
        raise UsageError("not_calibrated", f"Stack {text} has no joint solution yet.")
    return {"stack_id": stack_id, "members": members}
