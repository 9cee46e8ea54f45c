"""What concerns a survey, when two selections are one, and when a stack can go on from another's sums."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spica_proto.base import Pointing
from spica_proto.stacks import Grid, Rules, Selection, StackRequested
from spica_runtime.errors import NotRetriable
from spica_stack.deciding import ImageFacts, covers, keys_of, may_concern, same
from spica_stack.extending import Base, extends_by, extension_of, may_go_on

IMAGE = ImageFacts("700p.ab", "700p", "r.MP9601", "r", "D1", "10Bm03", "MegaPrime", "b1")
GRID = Grid(
    crval_ra_deg=214.0,
    crval_dec_deg=52.5,
    crpix_x=500.5,
    crpix_y=400.5,
    pixel_scale_arcsec=0.2,
    width_px=1000,
    height_px=800,
)
PROCESSING: dict[str, Any] = {
    "resampling": "lanczos3",
    "psf_weight_power": 1.5,
    "exposure_weights": {},
    "clip_sigma": 4.0,
}
BASE = Base(
    stack_id="s1",
    name="D1_r",
    filter="r.MP9601",
    state="done",
    combine="weighted_mean",
    solutions="own",
    engine="spica",
    grid=GRID,
    processing=PROCESSING,
    members=(("a", "sa"), ("b", "sb")),
    sums="stacks/s1/D1_r.sums.fits",
    names={"a": "700p", "b": "701p"},
)
REQUEST = StackRequested(extends="s1", combine="weighted_mean", solutions="own")


@pytest.mark.parametrize(
    ("rules", "concerned"),
    [
        (Rules(), True),
        (Rules(filter="r.MP9601", object="D1", run="10Bm03", instrument="MegaPrime", batch="b1"), True),
        (Rules(filter="r"), True),
        (Rules(filter="g.MP9401"), False),
        (Rules(object="D2"), False),
        (Rules(run="10Bm04"), False),
        (Rules(runs=("10Bm04", "10Bm03")), True),
        (Rules(runs=("10Bm04",)), False),
        (Rules(instrument="WIRCam"), False),
        (Rules(batch="b2"), False),
        (Rules(images=("700p",)), True),
        (Rules(images=("700p.ab", "x")), True),
        (Rules(images=("701p",)), False),
        (Rules(any_of=(Rules(filter="g.MP9401"), Rules(run="10Bm03"))), True),
        (Rules(any_of=(Rules(filter="g.MP9401"), Rules(run="10Bm04"))), False),
        # What was found out about it may change: never a reason to look away.
        (Rules(fwhm_max_arcsec=0.01, airmass_max=0.5, tags=("good",)), True),
        (Rules(none_of=(Rules(object="D1"),)), True),
        (Selection(grades=("D",), saved=("best",)), True),
    ],
)
def test_identity_rules_alone_say_whether_an_image_may_concern_a_survey(
    rules: Rules, concerned: bool
) -> None:
    assert may_concern(rules, IMAGE) is concerned


def test_an_image_without_an_object_does_not_concern_who_asks_for_one() -> None:
    assert not may_concern(Rules(object="D1"), replace(IMAGE, object=None))


members = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("123")), unique_by=lambda one: one[0])


@given(members, members, st.booleans())
def test_selections_are_the_same_whatever_their_order(
    one: list[tuple[str, str]], other: list[tuple[str, str]], solutions_too: bool
) -> None:
    assert keys_of(one) == keys_of(one[::-1])
    same_now = same(keys_of(one), keys_of(other), solutions_too=solutions_too)
    if solutions_too:
        assert same_now == (set(one) == set(other))
    else:
        assert same_now == ({key for key, _ in one} == {key for key, _ in other})


@given(members, members)
def test_what_a_selection_adds_is_what_the_base_does_not_have(
    before: list[tuple[str, str]], now: list[tuple[str, str]]
) -> None:
    added = extends_by(replace(BASE, members=tuple(before)), now)
    if added is None:
        assert set(before) - set(now)
    else:
        assert {*before, *added} == set(now)
        assert [one for one in now if one in added] == list(added)


def extend(base: Base | None = BASE, request: StackRequested = REQUEST, **changes: Any) -> tuple[Any, ...]:
    given: dict[str, Any] = {
        "filter": "r.MP9601",
        "members": [("c", "sc"), ("a", "sa"), ("b", "sb")],
        "processing": PROCESSING,
        "engine": "spica",
    }
    return extension_of(request, base, **(given | changes))


def test_members_of_the_base_come_first_and_as_they_were() -> None:
    assert extend() == (("a", "sa"), ("b", "sb"), ("c", "sc"))
    assert extend(request=REQUEST.model_copy(update={"width_px": 1000, "pixel_scale_arcsec": 0.2}))


def asking(**changes: Any) -> StackRequested:
    return StackRequested.model_validate(REQUEST.model_dump(exclude_unset=True) | changes)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"base": None}, "the store knows no such stack"),
        ({"request": asking(combine="median")}, "only a weighted mean goes on from sums"),
        ({"base": replace(BASE, combine="median")}, "it is no weighted mean, but median"),
        ({"request": asking(solutions="joint")}, "with their own solutions"),
        ({"base": replace(BASE, solutions="joint")}, "with their own solutions"),
        ({"base": replace(BASE, state="calibrated")}, "its state is calibrated"),
        ({"base": replace(BASE, sums=None)}, "its sums were not kept"),
        ({"filter": "g.MP9401"}, "its filter is r.MP9601, and g.MP9401 was selected"),
        ({"engine": "swarp"}, "only the engine `spica` keeps sums"),
        ({"processing": PROCESSING | {"resampling": "lanczos2"}}, "`processing.resampling` was lanczos3, and is lanczos2"),
        ({"processing": PROCESSING | {"exposure_weights": {"700p": 0.5}}}, "the weight of 700p"),
        ({"request": asking(pixel_scale_arcsec=0.186)}, "its pixels are 0.2 arcsec, not 0.186"),
        ({"request": asking(centre=Pointing(ra_deg=214.1, dec_deg=52.5))}, "its centre is 214.000000, 52.500000"),
        ({"request": asking(height_px=801)}, "its `height_px` is 800, not 801"),
        ({"request": asking(rotation_deg=90.0)}, "its `rotation_deg` is 0.0, not 90.0"),
        ({"members": [("b", "sb"), ("c", "sc")]}, "its member 700p is not selected any more"),
        ({"members": [("c", "sc")]}, "its member 700p and 1 more is not selected any more"),
        ({"members": [("a", "sa"), ("b", "s2"), ("c", "sc")]}, "its member 701p was solved again since"),
        ({"members": [("a", "sa"), ("b", "sb")]}, "nothing is selected that it does not have"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_words(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(NotRetriable) as caught:
        extend(**arguments)
    assert caught.value.code == "cannot_extend"
    assert words in caught.value.message
    assert "Ask without `extends`" in caught.value.message


def test_what_changes_no_sums_does_not_matter() -> None:
    changed = PROCESSING | {"clip_sigma": 3.0, "rejection_map": False, "exposure_weights": {"c": 0.5}}
    assert extend(processing=changed)[-1] == ("c", "sc")


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(NotRetriable) as caught:
        extend(base=replace(BASE, sums=None), filter="g", members=[("c", "sc")])
    assert caught.value.numbers["faults"] == 3


@pytest.mark.parametrize(
    ("request_", "base", "possible"),
    [
        (REQUEST, BASE, True),
        (REQUEST, replace(BASE, state="calibrated", sums=None), True),
        (REQUEST, replace(BASE, sums=None), False),
        (REQUEST, replace(BASE, state="failed"), False),
        (REQUEST, replace(BASE, solutions="joint"), False),
        (asking(combine="average"), replace(BASE, combine="average"), False),
        (asking(engine="swarp"), replace(BASE, engine="swarp"), False),
        (REQUEST, replace(BASE, filter="g.MP9401"), False),
    ],
)
def test_a_survey_goes_on_from_sums_only_where_there_are_any(
    request_: StackRequested, base: Base, possible: bool
) -> None:
    assert may_go_on(request_, base, "r.MP9601") is possible


def test_an_image_must_lie_on_the_grid_with_all_its_corners() -> None:
    width, height = 0.99 * 100 / 3600, 0.99 * 80 / 3600
    ra, dec = 214.0, 52.5
    inside = [
        ra - width,
        dec - height,
        ra + width,
        dec - height,
        ra + width,
        dec + height,
        ra - width,
        dec + height,
    ]
    assert covers(GRID, inside)
    assert not covers(GRID, [*inside, ra, dec + 81 / 3600])
    assert not covers(GRID, [(ra + 180.0) % 360.0, -dec])
