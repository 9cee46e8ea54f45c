"""Why a request cannot be answered with a stack now, in words that say what would help."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from spica_proto.stacks import StackRequested
from spica_runtime.errors import NotRetriable

from spica_stack.errors import several_filters
from spica_stack.science.choosing.advice import advise
from spica_stack.science.choosing.judging import Judged
from spica_stack.science.selection import Verdict, explain, left_out_by
from spica_stack.strict import nearest

_MOST_ADVICE = 3
_MOST_NAMES = 5


def problem_of(request: StackRequested, judged: Judged, filters: Mapping[str, int]) -> NotRetriable | None:
    """What is wrong with what was selected; None: nothing. filters: how many are selected of each."""
    count = sum(filters.values())
    if not count:
        return _too_few(judged, "nothing_selected", "Nothing to stack.", request.min_exposures)
    if len(filters) > 1 and request.combine != "chi2":
        return several_filters(filters)
    if request.mode == "single" and count > 1:
        ids = [verdict.candidate.image_id for verdict in judged.verdicts if verdict.selected]
        return NotRetriable(
            "mode_does_not_fit",
            f"A request of mode `single` takes one image; {count} are called so: {_few(ids)}. Name one by its id.",
            {"selected": count},
        )
    if count < request.min_exposures:
        words = f"The request asks for at least {request.min_exposures} exposures, {count} can be had."
        return _too_few(judged, "too_few_exposures", words, request.min_exposures)
    return None


def _too_few(judged: Judged, code: str, words: str, wanted: int) -> NotRetriable:
    verdicts = judged.verdicts
    counts = left_out_by(verdicts)
    parts = [words, explain(verdicts)]
    if counts:
        parts.append(f"Rule `{next(iter(counts))}` left out most.")
    if advice := advise(judged, wanted)[:_MOST_ADVICE]:
        said = "; ".join(one.words for one in advice)
        parts.append(f"{said[0].upper()}{said[1:]}.")
    elif not judged.passed.any() and len(verdicts) > 1:
        parts.append("Each of them breaks two rules or more.")
    numbers = {f"left_out_by_{rule}": count for rule, count in counts.items()}
    selected = sum(verdict.selected for verdict in verdicts)
    return NotRetriable(
        code,
        " ".join(parts),
        {"wanted": wanted, "candidates": len(verdicts), "selected": selected, **numbers},
    )


def nothing_there(kind: str = "", wanted: str = "", known: Mapping[str, int] | None = None) -> NotRetriable:
    """There is not even a candidate: no image has this name of this kind, but those."""
    numbers = {"candidates": 0, "selected": 0}
    if not kind:
        return NotRetriable("nothing_selected", f"Nothing to stack. {explain(())}", numbers)
    few = ", ".join(f"{name} ({count})" for name, count in list((known or {}).items())[:_MOST_NAMES])
    return NotRetriable(
        "nothing_selected",
        f"Nothing to stack. No image has {kind} {wanted!r}{nearest(wanted, known or {})}. "
        + (f"The store has {few}." if few else "The store has no images."),
        numbers,
    )


def list_problem(
    named: Sequence[str], known: Collection[str], verdicts: Sequence[Verdict]
) -> NotRetriable | None:
    """A list means all that it names: one that is not there, or is left out, is a problem."""
    if unknown := [name for name in named if name not in known]:
        words = f"The list names what is not in the store: {_few(unknown)}."
        return NotRetriable("unknown_images", words, {"unknown": len(unknown)})
    taken, why = set[str](), dict[str, str]()
    for verdict in verdicts:
        names = {verdict.candidate.name, verdict.candidate.image_id}
        if verdict.selected:
            taken |= names
        else:
            why |= {name: f"{name} by `{verdict.rule}` ({verdict.found})" for name in names}
    if left := [why.get(name, name) for name in named if name not in taken]:
        words = (
            f"A request of mode `list` takes all that it names, and {len(left)} of {len(named)} are left out: "
            f"{_few(left)}. Widen these rules, or take them from the list."
        )
        return NotRetriable("mode_does_not_fit", words, {"left_out": len(left)})
    return None


def _few(words: Sequence[str]) -> str:
    more = f" and {len(words) - _MOST_NAMES} more" if len(words) > _MOST_NAMES else ""
    return ", ".join(words[:_MOST_NAMES]) + more
