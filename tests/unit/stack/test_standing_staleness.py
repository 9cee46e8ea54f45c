"""Which changes of a member make a stack stale, and that each is told once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from spica_proto.stacks import StackRequested
from spica_stack.science.selection import Candidate, Verdict
from spica_stack.staleness import Cause, MemberNow, again, causes_of, renewed

AS_IT_WAS = MemberNow("a", "700p", "s1", "s1", 1, None)
AGAIN = MemberNow("a", "700p", "s1", "s2", 2, "measured anew")
CANDIDATE = Candidate(
    "a", "700p", "MegaPrime", "run1", "r", "D1", None, 50.0, 60000.0, 1.2, 214.0, 52.5, "D", "person:ann", 0.8, 0.05, "s2"
)  # fmt: skip


def verdict(rule: str, found: str | None = None) -> Verdict:
    return Verdict(CANDIDATE, rule == "chosen", rule, found)


def test_a_member_as_it_was_is_no_cause() -> None:
    assert causes_of(AS_IT_WAS, verdict("chosen")) == ()
    assert causes_of(AS_IT_WAS, None) == ()


def test_grade_and_solution_are_causes_of_their_own() -> None:
    (grade,) = causes_of(AS_IT_WAS, verdict("grades", "D by person:ann"))
    assert (grade.cause, grade.why) == (
        "grades",
        "700p is not selected any more by `grades`: D by person:ann",
    )
    (solution,) = causes_of(AGAIN, verdict("chosen"))
    assert (solution.cause, solution.why) == (
        "solution",
        "700p was solved again, version 2 counts: measured anew",
    )
    assert [one.cause for one in causes_of(AGAIN, verdict("grades", "D"))] == ["grades", "solution"]


def test_a_member_whose_solution_is_gone_is_not_stale_for_it() -> None:
    gone = MemberNow("a", "700p", "s1", None, None, None)
    assert causes_of(gone, verdict("calibrated", "no solution")) == ()


causes = st.lists(
    st.builds(
        Cause,
        st.sampled_from("abc"),
        st.just("n"),
        st.sampled_from(("grades", "solution")),
        st.sampled_from("xy"),
    ),
    unique_by=lambda cause: cause.key,
    max_size=6,
)


@given(causes, causes, st.sets(st.sampled_from("abc")))
def test_only_what_was_looked_at_changes_and_only_new_causes_are_told(
    before: list[Cause], now: list[Cause], looked_at: set[str]
) -> None:
    now = [cause for cause in now if cause.image_id in looked_at]
    kept, new = renewed(before, sorted(looked_at), now)
    assert {cause for cause in kept if cause.image_id in looked_at} == set(now)
    assert {cause for cause in kept if cause.image_id not in looked_at} == {
        cause for cause in before if cause.image_id not in looked_at
    }
    assert {cause.key for cause in new} == {cause.key for cause in now} - {cause.key for cause in before}
    # Heard a second time, nothing is new.
    assert renewed(kept, sorted(looked_at), now) == (kept, ())


def test_asked_again_whole_once_for_each_state_of_things() -> None:
    request = StackRequested(request_id="r", extends="s0", combine="weighted_mean", survey="deep")
    reason = {"image_id": "a", "name": "700p", "cause": "solution", "why": "solved again"}
    row = {"stack_id": "s1", "stale_reasons": [reason], "request": request.model_dump(mode="json")}
    first = again(row, requested_by="person:ann")
    assert (first.replaces, first.extends, first.survey, first.combine) == (
        "s1",
        None,
        "deep",
        "weighted_mean",
    )
    assert first.request_id not in (None, "r")
    assert again(row, requested_by="person:bob").request_id == first.request_id
    other = again(row | {"stale_reasons": [reason, reason | {"image_id": "b"}]}, requested_by="person:ann")
    assert other.request_id != first.request_id
