"""Which images a request takes now: the store asked, the rules applied.

`select_now` is what planning, dry runs and standing surveys have in common: the same request and the same store give the
same choice to all of them, and nothing is written.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import radians
from pathlib import Path
from typing import Any, TypeAlias

import aiosql
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from spica_imaging.skyshapes import Cone, Polygon, Shape, ShapeError
from spica_proto import stacks as contract
from spica_runtime.errors import NotRetriable
from spica_runtime.pg import Connection, Pool, Record

from spica_stack.presets import load_presets
from spica_stack.refusing import list_problem, nothing_there, problem_of
from spica_stack.requests import check_mode, expanded
from spica_stack.science.choosing.advice import Advice, advise
from spica_stack.science.choosing.judging import Judged, judge, without_set_rules, worth_looking_at
from spica_stack.science.choosing.table import Table
from spica_stack.science.grid import Grid, covering_grid
from spica_stack.science.selection import Candidate, Rules, Saved, Selection, Verdict
from spica_stack.settings import StackSettings
from spica_stack.strict import nearest

queries: Any = aiosql.from_path(Path(__file__).parent / "candidates.sql", "asyncpg")

Floats = NDArray[np.float64]
Source: TypeAlias = Pool | Connection

_MAS_PER_DEG = 3_600_000
_BESIDE_RAD = radians(1.0)
"""Images that lie so far beside the place asked for are told with their distance; those further off are no candidates."""


@dataclass(frozen=True)
class Choice:
    """What a request takes, what it leaves, and why."""

    request: contract.StackRequested
    """With its preset filled in."""
    selection: Selection
    """Its rules, saved selections and all."""
    judged: Judged
    filter: str
    """Of the members; several, joined by `+`, where they are combined as chi²; empty where there are none."""
    saved: Mapping[str, contract.Selection] = field(default_factory=dict)
    """The saved selections that had a say, as they were."""
    problem: NotRetriable | None = None
    """Why no stack can be made of this now: nothing_selected, too_few_exposures, several_filters, mode_does_not_fit."""

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One on each candidate, in the order of exposure."""
        return self.judged.verdicts

    @property
    def members(self) -> tuple[Candidate, ...]:
        """The selected ones, in their order."""
        return tuple(verdict.candidate for verdict in self.verdicts if verdict.selected)

    @property
    def advice(self) -> list[Advice]:
        """What would let more in."""
        return advise(self.judged, self.request.min_exposures)

    @property
    def configuration(self) -> dict[str, Any]:
        """What was asked for, in full, for provenance."""
        told: dict[str, Any] = {"request": self.request.model_dump(mode="json", exclude_none=True)}
        if self.saved:
            told["saved_selections"] = {
                name: one.model_dump(mode="json", exclude_unset=True) for name, one in self.saved.items()
            }
        return told

    def require(self) -> Choice:
        """The same; raises its `problem` where there is one."""
        if self.problem is not None:
            raise self.problem
        return self


async def select_now(source: Source, request: contract.StackRequested, settings: StackSettings) -> Choice:
    """Which members this request would take now, with a verdict on every candidate. Reads only.

    What the store holds is no error here, however little it is: see `Choice.problem`.

    `source` is a pool, or a connection (which may be within a transaction).

    Raises
    ------
    NotRetriable
        The request itself does not fit: unknown_preset, bad_preset, unknown_selection, bad_selection,
        mode_does_not_fit, bad_area, invalid_request.

    """
    if request.preset is not None:
        request = expanded(request, load_presets(settings.presets))
    check_mode(request)
    saved = await saved_selections(source, request.selection)
    selection = replace(selection_of(request.selection, saved), on_grid=grid_asked_for(request))
    table = await _table(source, selection)
    choice = replace(await asyncio.to_thread(choose, request, selection, table), saved=saved)
    if not len(table):
        choice = replace(choice, problem=await _nothing_there(source, selection.rules))
    if request.mode == "list":
        known = {
            row["wanted"] async for row in queries.known_images(source, names=list(request.selection.images))
        }
        problem = list_problem(request.selection.images, known, choice.verdicts)
        choice = replace(choice, problem=problem or choice.problem)
    return choice


async def judge_images(
    source: Source, request: contract.StackRequested, settings: StackSettings, image_ids: Collection[str]
) -> dict[str, Verdict]:
    """Judge these images by a request's rules on single images; those that the store does not know are left out.

    Rules on the whole (the best so many percent in seeing ...) are not applied: they say nothing of one image. Raises as
    `select_now`.
    """
    if request.preset is not None:
        request = expanded(request, load_presets(settings.presets))
    saved = await saved_selections(source, request.selection)
    selection = replace(selection_of(request.selection, saved), on_grid=grid_asked_for(request))
    selection = without_set_rules(selection)
    table = await _table(source, selection, Rules(images=tuple(sorted(image_ids))))
    return {verdict.candidate.image_id: verdict for verdict in judge(selection, table).verdicts}


# ---- the contract's words ----


async def saved_selections(source: Source, selection: contract.Selection) -> dict[str, contract.Selection]:
    """The saved ones that a selection names, and those that they name.

    Raises `NotRetriable`: unknown_selection, bad_selection.
    """
    saved: dict[str, contract.Selection] = {}
    wanted = set(selection.saved)
    while missing := wanted - set(saved):
        rows = {row["name"]: row async for row in queries.saved_selections(source, names=sorted(missing))}
        if unknown := sorted(missing - set(rows)):
            known = [row["name"] for row in await source.fetch("SELECT name FROM selections ORDER BY name")]
            raise NotRetriable(
                "unknown_selection",
                f"No selection is saved as {unknown[0]!r}{nearest(unknown[0], known)}. "
                f"There {'are ' + ', '.join(known) if known else 'is none'}.",
            )
        for name, row in rows.items():
            try:
                saved[name] = contract.Selection.model_validate(row["selection"])
            except ValidationError as error:
                raise NotRetriable(
                    "bad_selection", f"The saved selection {name} does not fit: {error}"
                ) from error
            wanted |= set(saved[name].saved)
    return saved


def selection_of(
    selection: contract.Selection,
    saved: Mapping[str, contract.Selection] | None = None,
    within: tuple[str, ...] = (),
) -> Selection:
    """The contract's selection, as the science part takes it. A saved one asks for grades only where it names them."""
    known = saved or {}
    inner = []
    for name in selection.saved:
        if name in within:
            raise NotRetriable(
                "bad_selection", f"The saved selection {name} names itself ({' > '.join((*within, name))})."
            )
        inner.append(Saved(name, selection_of(known[name], known, (*within, name))))
    return Selection(
        rules=rules_of(selection),
        grades=selection.grades if not within or "grades" in selection.model_fields_set else (),
        grade_policy=selection.grade_policy,
        saved=tuple(inner),
        best_seeing_percent=selection.best_seeing_percent,
        stop_below_gain_mag=selection.stop_below_gain_mag,
        max_exposures=selection.max_exposures,
    )


_PLAIN = tuple(
    name for name in Rules.__dataclass_fields__ if name not in ("near", "touches", "any_of", "none_of")
)


def rules_of(rules: contract.Rules) -> Rules:
    """The contract's rules, as the science part takes them. Raises `NotRetriable` (`bad_area`)."""
    near = None if rules.near is None else _shape(rules.near)
    assert near is None or isinstance(near, Cone)
    return Rules(
        **{name: getattr(rules, name) for name in _PLAIN},
        near=near,
        touches=None if rules.touches is None else _shape(rules.touches),
        any_of=tuple(rules_of(group) for group in rules.any_of),
        none_of=tuple(rules_of(group) for group in rules.none_of),
    )


def _shape(area: contract.Cone | contract.Polygon) -> Cone | Polygon:
    try:
        if isinstance(area, contract.Cone):
            return Cone(area.centre.ra_deg, area.centre.dec_deg, area.radius_deg)
        return Polygon(tuple((corner.ra_deg, corner.dec_deg) for corner in area.corners))
    except ShapeError as error:
        raise NotRetriable("bad_area", f"This is no area of the sky: {error}") from error


def explicit_grid(request: contract.StackRequested) -> Grid | None:
    """The grid of a request that says all of it: centre, size and scale."""
    centre, scale = request.centre, request.pixel_scale_arcsec
    if centre is None or scale is None or request.width_px is None or request.height_px is None:
        return None
    place = (centre.ra_deg, centre.dec_deg)
    here = (np.array([place[0]]), np.array([place[1]]))
    return covering_grid(
        [here],
        scale,
        place,
        request.width_px,
        request.height_px,
        rotation_deg=request.rotation_deg,
        mirrored=request.mirrored,
        projection=request.projection,
    )


def grid_asked_for(request: contract.StackRequested) -> Polygon | None:
    """The outline of the grid that a request says in full; None where it does not, or where that is no polygon."""
    grid = explicit_grid(request)
    if grid is None:
        return None
    x, y = np.array([0.5, grid.width + 0.5]), np.array([0.5, grid.height + 0.5])
    ra, dec = grid.pixel_to_sky(x[[0, 1, 1, 0]], y[[0, 0, 1, 1]])
    try:
        return Polygon(tuple(zip(ra.tolist(), dec.tolist(), strict=True)))
    except ShapeError:
        return None


# ---- the rules applied ----


def choose(request: contract.StackRequested, selection: Selection, table: Table) -> Choice:
    """Apply the rules. A request without a filter takes the one filter of all that passes."""
    judged = judge(selection, table)
    members = [verdict.candidate for verdict in judged.verdicts if verdict.selected]
    filters = Counter(member.filter for member in members)
    choice = Choice(request, selection, judged, "+".join(sorted(filters)))
    return replace(choice, problem=problem_of(request, judged, filters))


async def _nothing_there(source: Source, rules: Rules) -> NotRetriable:
    """Why there is not even a candidate: which name does not exist, and what there is."""
    for kind in ("object", "run", "batch", "instrument"):
        if (wanted := getattr(rules, kind)) is not None:
            known = {row["name"]: row["images"] async for row in queries.names_of(source, kind=kind)}
            if wanted not in known:
                return nothing_there(kind, wanted, known)
    return nothing_there()


# ---- the store ----


async def _table(source: Source, selection: Selection, among: Rules | None = None) -> Table:
    """Candidates, and where the CCDs lie of those whose place decides. among: rules that say which are candidates."""
    rules = among or selection.rules
    place = rules.touches or rules.near or (None if among else selection.on_grid)
    # Whoever names images is told what becomes of each, wherever they lie.
    x, y, z, reach = _disc(place) if place is not None and not rules.images else (0.0, 0.0, 0.0, 0.0)
    rows = queries.candidates(
        source,
        batch=rules.batch,
        run=rules.run,
        object=rules.object,
        instrument=rules.instrument,
        images=list(rules.images),
        policies=sorted(_policies(selection)),
        placed=reach > 0,
        x=x,
        y=y,
        z=z,
        reach_rad=reach,
    )
    table = Table.of([_candidate(row) async for row in rows])
    if wanted := worth_looking_at(selection, table):
        table = replace(
            table, footprints=await corners_of(source, [table.candidates[i] for i in wanted], wanted)
        )
    return table


def _disc(shape: Shape) -> tuple[float, float, float, float]:
    x, y, z = (float(part) for part in shape.middle)
    return x, y, z, shape.radius_rad + _BESIDE_RAD


def _policies(selection: Selection) -> set[str]:
    own = {selection.grade_policy} if selection.grade_policy else set()
    return own.union(*(_policies(saved.selection) for saved in selection.saved))


def _candidate(row: Record) -> Candidate:
    """Columns stand in the order of its fields."""
    grades: Sequence[str] | None = row["policy_grades"]
    if grades is None:
        return Candidate(*row)
    return Candidate(*(*row[:-1], dict(map(_policy_grade, grades))))


def _policy_grade(text: str) -> tuple[str, tuple[str, str]]:
    name, grade, policy = text.split("=", 2)
    return name, (grade, policy)


async def corners_of(
    source: Source, candidates: Sequence[Candidate], keys: Sequence[int]
) -> dict[int, Floats]:
    """Corners of the CCDs (k, 4, 2; RA, Dec in degrees) of candidates, by their keys: as solved, else as headers say.

    Those of which neither is known are left out.
    """
    found = await solved_corners(source, candidates, keys)
    rest = {one.image_id: key for one, key in zip(candidates, keys, strict=True) if key not in found}
    if rest:
        async for row in queries.header_corners(source, image_ids=list(rest)):
            found[rest[row["image_id"]]] = (
                np.frombuffer(row["corners"], dtype="<i4").reshape(-1, 4, 2) / _MAS_PER_DEG
            )
    return found


async def solved_corners(
    source: Source, candidates: Sequence[Candidate], keys: Sequence[int]
) -> dict[int, Floats]:
    """The same, only of those whose solutions tell."""
    solved = {one.solution_id: key for one, key in zip(candidates, keys, strict=True) if one.solution_id}
    return {
        solved[row["solution_id"]]: doubles(row["corners"]).reshape(-1, 4, 2)
        async for row in queries.corners(source, solution_ids=list(solved))
    }


_ARRAY_HEADER_BYTES = 20
_ELEMENT = np.dtype([("bytes", ">i4"), ("value", ">f8")])


def doubles(sent: bytes) -> Floats:
    """A one-dimensional array of doubles without nulls, in PostgreSQL's binary format (`array_send`)."""
    if len(sent) < _ARRAY_HEADER_BYTES:
        return np.zeros(0)
    return np.frombuffer(sent, dtype=_ELEMENT, offset=_ARRAY_HEADER_BYTES)["value"].astype(np.float64)
