"""The rules on single images, each applied to all candidates at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from spica_imaging.skycells import unit_vectors
from spica_imaging.skyshapes import Shape
from spica_imaging.sphere import separation_rad

from spica_stack.science.choosing.table import Flags, Floats, Table
from spica_stack.science.selection import Rules, Selection

Found = Callable[[int], str | None]


@dataclass(frozen=True, slots=True)
class Check:
    """One rule: which candidates pass, and what it found of each."""

    rule: str
    passed: Flags
    found: Found


@dataclass(frozen=True, slots=True)
class Limit:
    """A rule that limits a number. A value that is not known does not pass it."""

    rule: str
    column: str
    upward: bool
    """Whether it limits from above."""
    unit: str = ""
    digits: int = 6


LIMITS = (
    Limit("exposure_time_min_s", "exposure_time_s", upward=False, unit=" s"),
    Limit("exposure_time_max_s", "exposure_time_s", upward=True, unit=" s"),
    Limit("airmass_max", "airmass", upward=True),
    Limit("mjd_min", "mjd_obs", upward=False, digits=10),
    Limit("mjd_max", "mjd_obs", upward=True, digits=10),
    Limit("sky_absorption_max_mag", "sky_absorption_mag", upward=True, unit=" mag", digits=3),
    Limit("fwhm_max_arcsec", "fwhm_arcsec", upward=True, unit=" arcsec"),
    Limit("fwhm_min_arcsec", "fwhm_arcsec", upward=False, unit=" arcsec"),
    Limit("ellipticity_max", "ellipticity", upward=True),
    Limit("background_max_adu_per_s", "background_adu_per_s", upward=True, unit=" adu/s", digits=4),
    Limit("limiting_mag_min", "limiting_mag", upward=False, unit=" mag"),
)
_BEFORE_GRADES = 6


def checks(selection: Selection, table: Table) -> list[Check]:
    """All rules on single images, in the order in which they are tried: the first one broken is told.

    First what an image is, then what was found out about it.
    """
    rules = selection.rules
    limits = list(_limits(rules, table))
    first = {limit.rule for limit in LIMITS[:_BEFORE_GRADES]}
    return [
        *_names(rules, table),
        *_places(rules, table),
        *_on_grid(selection, table),
        _superseded(table),
        _newest(selection, table),
        *_photometric(rules, table),
        *(check for check in limits if check.rule in first),
        *_tags(rules, table),
        *_grades(selection, table),
        *(check for check in limits if check.rule not in first),
        *_any_of(rules, table),
        *_none_of(rules, table),
        *_saved(selection, table),
        _calibrated(table),
    ]


def rule_checks(rules: Rules, table: Table) -> list[Check]:
    """What a group of rules asks by itself: a part of a request, or an alternative in it."""
    return [
        *_names(rules, table),
        *_places(rules, table),
        *_photometric(rules, table),
        *_tags(rules, table),
        *_limits(rules, table),
        *_any_of(rules, table),
        *_none_of(rules, table),
    ]


def all_pass(found: list[Check], n: int) -> Flags:
    """Which candidates pass all of these."""
    return np.logical_and.reduce([np.ones(n, dtype=bool), *(check.passed for check in found)])


# ---- what an image is ----


def _names(rules: Rules, table: Table) -> Iterator[Check]:
    names = table.texts("name")
    if rules.images:
        wanted = {*rules.images}
        passed = np.array(
            [row.name in wanted or row.image_id in wanted for row in table.candidates], dtype=bool
        )
        yield Check("images", passed, lambda index: str(names[index]))
    if rules.batch is not None:
        yield _equal(table, "batch", rules.batch)
    if rules.run is not None:
        yield _equal(table, "run", rules.run)
    if rules.runs:
        runs, any_run = table.texts("run"), {*rules.runs}
        yield Check(
            "runs", np.array([run in any_run for run in runs], dtype=bool), lambda index: str(runs[index])
        )
    if rules.object is not None:
        yield _equal(table, "object", rules.object)
    if rules.instrument is not None:
        yield _equal(table, "instrument", rules.instrument)
    if rules.filter is not None:
        filters = table.texts("filter")
        same = np.asarray((filters == rules.filter) | (table.texts("canonical_filter") == rules.filter), bool)
        yield Check("filter", same, lambda index: str(filters[index]))


def _equal(table: Table, name: str, wanted: str) -> Check:
    column = table.texts(name)
    return Check(name, np.asarray(column == wanted, dtype=bool), lambda index: column[index])


def _places(rules: Rules, table: Table) -> Iterator[Check]:
    if rules.near is not None:
        # Where the telescope pointed, not the middle of what was solved: that is what the contract says.
        from_centre = np.degrees(_from(rules.near, table))
        yield Check(
            "near",
            from_centre <= rules.near.radius_deg,
            lambda index: f"{from_centre[index]:.4f} deg from the centre",
        )
    if rules.touches is not None:
        yield _touching("touches", rules.touches, table)


def _on_grid(selection: Selection, table: Table) -> Iterator[Check]:
    if selection.on_grid is not None:
        yield _touching("grid", selection.on_grid, table)


def _touching(rule: str, area: Shape, table: Table) -> Check:
    middle = np.degrees(separation_rad(table.centres, area.middle))
    return Check(
        rule,
        table.touching(area),
        lambda index: f"no CCD touches it; its middle is {middle[index]:.4f} deg away",
    )


def _from(shape: Shape, table: Table) -> Floats:
    places = unit_vectors(table.numbers("ra_deg"), table.numbers("dec_deg"))
    return np.asarray(separation_rad(places, shape.middle))


def _superseded(table: Table) -> Check:
    """What its archive has replaced is not selected, whoever names it."""
    by = table.texts("superseded_by")
    return Check("superseded", np.asarray(by == None, bool), lambda index: f"superseded by {by[index]}")  # noqa: E711


def _newest(selection: Selection, table: Table) -> Check:
    """An exposure that was delivered anew counts once; whoever names an id gets that very one."""
    newer, ids, named = table.texts("newer_id"), table.texts("image_id"), {*selection.rules.images}
    passed = np.asarray(newer == None, dtype=bool)  # noqa: E711
    if named and not passed.all():
        passed |= np.array([image_id in named for image_id in ids], dtype=bool)
    return Check("newest", passed, lambda index: newer[index])


def _photometric(rules: Rules, table: Table) -> Iterator[Check]:
    if rules.photometric is not None:
        column = table.texts("is_photometric")
        words = {None: "not known", True: "marked as photometric", False: "marked as not photometric"}
        yield Check(
            "photometric",
            np.asarray(column == rules.photometric, bool) & np.asarray(column != None, bool),  # noqa: E711
            lambda index: words[column[index]],
        )


def _tags(rules: Rules, table: Table) -> Iterator[Check]:
    if not rules.tags and not rules.without_tags:
        return
    tags = [{*(own or ())} for own in table.texts("tags")]
    if rules.tags:
        wanted = {*rules.tags}
        yield Check(
            "tags",
            np.array([wanted <= own for own in tags], dtype=bool),
            lambda index: f"lacks {', '.join(sorted(wanted - tags[index]))}",
        )
    if rules.without_tags:
        refused = {*rules.without_tags}
        yield Check(
            "without_tags",
            np.array([not refused & own for own in tags], dtype=bool),
            lambda index: f"has {', '.join(sorted(refused & tags[index]))}",
        )


# ---- what was found out about it ----


def _limits(rules: Rules, table: Table) -> Iterator[Check]:
    for limit in LIMITS:
        bound = getattr(rules, limit.rule)
        if bound is not None:
            yield _limited(limit, float(bound), table)


def _limited(limit: Limit, bound: float, table: Table) -> Check:
    column = table.numbers(limit.column)
    with np.errstate(invalid="ignore"):
        passed = column <= bound if limit.upward else column >= bound

    def found(index: int) -> str:
        value = column[index]
        return f"{value:.{limit.digits}g}{limit.unit}" if np.isfinite(value) else "not known"

    return Check(limit.rule, np.asarray(passed), found)


def grade_of(selection: Selection, table: Table, index: int) -> tuple[str | None, str | None]:
    """The grade that counts, and who gave it."""
    row = table.candidates[index]
    if selection.grade_policy is None:
        return row.grade, row.graded_by
    grade, by = (row.policy_grades or {}).get(selection.grade_policy, (None, None))
    return grade, f"policy:{by}"


def _grades(selection: Selection, table: Table) -> Iterator[Check]:
    if not selection.grades:
        return
    wanted = {*selection.grades}
    if selection.grade_policy is None:
        passed = np.array([grade in wanted for grade in table.texts("grade")], dtype=bool)
    else:
        nobody = (None, None)
        passed = np.array(
            [
                (own or {}).get(selection.grade_policy, nobody)[0] in wanted
                for own in table.texts("policy_grades")
            ],
            dtype=bool,
        )

    def found(index: int) -> str:
        grade, by = grade_of(selection, table, index)
        if grade:
            return f"{grade} by {by}"
        return f"not graded by {selection.grade_policy}" if selection.grade_policy else "not graded"

    yield Check("grades", passed, found)


def _calibrated(table: Table) -> Check:
    solutions = table.texts("solution_id")
    return Check("calibrated", np.asarray(solutions != None, bool), lambda _: "no solution")  # noqa: E711


# ---- groups ----


def _any_of(rules: Rules, table: Table) -> Iterator[Check]:
    if not rules.any_of:
        return
    groups = [rule_checks(group, table) for group in rules.any_of]
    passed = np.logical_or.reduce([all_pass(group, len(table)) for group in groups])

    def found(index: int) -> str:
        """What the alternative that comes nearest still breaks."""
        broken = [[check for check in group if not check.passed[index]] for group in groups]
        nearest = min(range(len(groups)), key=lambda number: len(broken[number]))
        said = ", ".join(f"{check.rule}: {check.found(index)}" for check in broken[nearest])
        which = f"alternative {nearest + 1} of {len(groups)}" if len(groups) > 1 else "the alternative"
        return f"{which} fails by {said}"

    yield Check("any_of", passed, found)


def _none_of(rules: Rules, table: Table) -> Iterator[Check]:
    if not rules.none_of:
        return
    fits = [all_pass(rule_checks(group, table), len(table)) for group in rules.none_of]

    def found(index: int) -> str:
        number = next(number for number, group in enumerate(fits) if group[index])
        return f"it is what number {number + 1} of {len(fits)} describes"

    yield Check("none_of", ~np.logical_or.reduce(fits), found)


def _saved(selection: Selection, table: Table) -> Iterator[Check]:
    """Every rule of every saved selection, under its name."""
    for saved in selection.saved:
        inner = saved.selection
        for check in (
            *rule_checks(inner.rules, table),
            *_grades(inner, table),
            *_saved(inner, table),
        ):
            yield Check(f"{saved.name}.{check.rule}", check.passed, check.found)
