"""What would let more images in: which limit, widened to what, and how many."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil, floor, log10

import numpy as np

from spica_stack.science.choosing.checks import LIMITS, Check, Limit
from spica_stack.science.choosing.judging import Judged
from spica_stack.science.choosing.table import Indices

_NAMES = {
    "object": "object",
    "filter": "filter",
    "run": "run",
    "runs": "run",
    "batch": "batch",
    "instrument": "instrument",
}


@dataclass(frozen=True, slots=True)
class Advice:
    """One change of one rule, and how many images more would pass all rules on single images."""

    rule: str
    words: str
    lets_in: int


def advise(judged: Judged, least: int = 1) -> list[Advice]:
    """What single rules could be changed to, the change that lets most in first.

    Only images count that break no other rule. least: how many are to be selected in all; the least change that is enough
    for that is told, and the one that lets all in that this rule keeps out.
    """
    if not len(judged.table):
        return []
    wanted = max(1, least - int(judged.selected.sum()))
    broken = np.stack([~check.passed for check in judged.checks])
    alone = broken & (broken.sum(axis=0) == 1)
    limits = {limit.rule: limit for limit in LIMITS}
    found: list[Advice] = []
    for check, only in zip(judged.checks, alone, strict=True):
        which = np.flatnonzero(only)
        if not len(which):
            continue
        if check.rule in limits:
            found += _widened(limits[check.rule], judged, which, wanted)
        else:
            found.append(_named(check, judged, which))
    return sorted(found, key=lambda advice: (-advice.lets_in, advice.rule))


def _widened(limit: Limit, judged: Judged, which: Indices, wanted: int) -> list[Advice]:
    values = judged.table.numbers(limit.column)[which]
    unknown = int(np.sum(~np.isfinite(values)))
    # As if all limits were from above.
    sign = 1.0 if limit.upward else -1.0
    values = np.sort(sign * values[np.isfinite(values)])
    advice: list[Advice] = []
    for at in dict.fromkeys(min(count, len(values)) for count in (wanted, len(values)) if len(values)):
        bound = sign * _round_up(values[at - 1], limit)
        lets_in = int(np.sum(values <= sign * bound))
        words = f"widening `{limit.rule}` to {bound:.10g} lets {lets_in} in"
        if not advice or advice[-1].words != words:
            advice.append(Advice(limit.rule, words, lets_in))
    if unknown:
        words = f"of {unknown} it is not known: leaving `{limit.rule}` away lets them in"
        advice.append(Advice(limit.rule, words, unknown))
    return advice


def _round_up(value: float, limit: Limit) -> float:
    """The next round number (three digits, of days a tenth) that the value passes."""
    if value == 0 or not np.isfinite(value):
        return value
    step = 0.1 if limit.column == "mjd_obs" else 10.0 ** (floor(log10(abs(value))) - 1)
    for finer in (step, step / 10):
        rounded = ceil(value / finer - 1e-9) * finer
        if abs(rounded - value) <= 0.03 * abs(value):
            break
    digits = max(0, -floor(log10(finer) + 1e-9))
    # Rounding up may have been a hair short.
    return next(
        one for one in (round(rounded, digits), round(rounded + finer, digits), value) if one >= value
    )


def _named(check: Check, judged: Judged, which: Indices) -> Advice:
    count = len(which)
    rule = check.rule
    table = judged.table
    if rule == "grades":
        grades = Counter(
            found.split(" ")[0] if (found := check.found(int(i))) and " by " in found else "not graded"
            for i in which
        )
        words = "taking " + ", ".join(f"{grade} lets {n} in" for grade, n in sorted(grades.items()))
    elif rule == "calibrated":
        words = f"{count} wait for a solution"
    elif rule in _NAMES:
        others = Counter(str(name) for name in table.texts(_NAMES[rule])[which])
        words = f"`{rule}`: " + ", ".join(f"{name} has {n}" for name, n in others.most_common(4))
    elif rule in ("superseded", "newest"):
        words = f"{count} are older versions of what came anew (`{rule}`)"
    else:
        words = f"without `{rule}` {count} more pass"
    return Advice(rule, words, count)
