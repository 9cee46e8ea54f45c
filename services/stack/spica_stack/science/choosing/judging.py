"""From rules and candidates to a verdict on each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from spica_imaging.skyshapes import Shape

from spica_stack.science.choosing.checks import Check, checks, grade_of
from spica_stack.science.choosing.sets import SetRule, set_rules
from spica_stack.science.choosing.table import Flags, Table
from spica_stack.science.selection import CHOSEN, Candidate, Rules, Saved, Selection, Verdict


@dataclass(frozen=True)
class Judged:
    """What the rules say of all candidates. Verdicts are in the order of exposure."""

    table: Table
    checks: tuple[Check, ...]
    """Rules on single images."""
    set_rules: tuple[SetRule, ...]
    passed: Flags
    """Which pass the rules on single images."""
    verdicts: tuple[Verdict, ...]

    @property
    def selected(self) -> Flags:
        """Which are members."""
        return np.logical_and.reduce([self.passed, *(rule.left for rule in self.set_rules)])


def judge(selection: Selection, table: Table) -> Judged:
    """Apply all rules to all candidates; of each candidate the first rule broken is told."""
    tried = tuple(checks(selection, table))
    broken = np.stack([~check.passed for check in tried])
    passed: Flags = ~np.asarray(broken.any(axis=0), dtype=bool)
    on_whole = tuple(set_rules(selection, table, passed))
    verdicts = []
    first = np.argmax(broken, axis=0).tolist()
    for index, candidate in enumerate(table.candidates):
        rule: Check | SetRule | None = tried[first[index]]
        if passed[index]:
            rule = next((rule for rule in on_whole if not rule.left[index]), None)
        if rule is None:
            grade, by = grade_of(selection, table, index)
            verdicts.append(
                Verdict(candidate, True, CHOSEN, f"grade {grade} by {by}" if grade else "not graded")
            )
        else:
            verdicts.append(Verdict(candidate, False, rule.rule, rule.found(index)))
    return Judged(table, tried, on_whole, passed, tuple(verdicts))


def without_set_rules(selection: Selection) -> Selection:
    """The same rules on single images, and none on the whole."""
    return replace(
        selection,
        best_seeing_percent=None,
        stop_below_gain_mag=None,
        max_exposures=None,
        saved=tuple(Saved(saved.name, without_set_rules(saved.selection)) for saved in selection.saved),
    )


def select(selection: Selection, candidates: Sequence[Candidate]) -> tuple[Verdict, ...]:
    """Judge candidates of which no CCDs are known."""
    return judge(selection, Table.of(candidates)).verdicts


def areas(selection: Selection) -> list[Shape]:
    """All areas that rules ask for images to touch, however deep they stand."""
    own = [*_areas(selection.rules), *([selection.on_grid] if selection.on_grid is not None else [])]
    return [*own, *(area for saved in selection.saved for area in areas(saved.selection))]


def _areas(rules: Rules) -> Iterator[Shape]:
    if rules.touches is not None:
        yield rules.touches
    for group in (*rules.any_of, *rules.none_of):
        yield from _areas(group)


def worth_looking_at(selection: Selection, table: Table) -> list[int]:
    """Candidates whose CCDs the rules have to look at: they may touch an area, and no simpler rule leaves them out."""
    shapes = areas(selection)
    if not shapes or not len(table):
        return []
    near = np.logical_or.reduce([table.may_touch(shape) for shape in shapes])
    # Whether CCDs touch decides these; all others are decided already.
    open_still = ("touches", "grid", "any_of", "none_of")
    for check in checks(selection, table):
        if check.rule.rpartition(".")[2] not in open_still:
            near &= check.passed
    return [int(index) for index in np.flatnonzero(near)]
