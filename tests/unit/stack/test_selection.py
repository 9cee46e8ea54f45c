from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spica_imaging.skyshapes import Cone, Polygon
from spica_stack.science.choosing.advice import advise
from spica_stack.science.choosing.checks import checks
from spica_stack.science.choosing.judging import judge, select, without_set_rules, worth_looking_at
from spica_stack.science.choosing.sets import combined_depth_mag, gains_mag
from spica_stack.science.choosing.table import Table
from spica_stack.science.selection import (
    CHOSEN,
    Candidate,
    Rules,
    Saved,
    Selection,
    Verdict,
    explain,
    left_out_by,
)

GOOD = Candidate(
    image_id="744331p.0123456789ab",
    name="744331p",
    instrument="MegaPrime",
    run="04BQ05",
    filter="r.MP9601",
    object="D3",
    batch="night1",
    exposure_time_s=500.0,
    mjd_obs=53000.5,
    airmass=1.2,
    ra_deg=214.5,
    dec_deg=52.5,
    grade="A",
    graded_by="policy:survey@1",
    fwhm_arcsec=0.8,
    ellipticity=0.05,
    solution_id="s1",
    sky_absorption_mag=0.1,
    background_adu_per_s=2.0,
    limiting_mag=25.0,
    is_photometric=True,
    tags=("deep", "seen"),
)
OTHER_ID = "744331p.ffffffffffff"
SELECTION_FIELDS = (
    "grades",
    "grade_policy",
    "saved",
    "on_grid",
    "best_seeing_percent",
    "stop_below_gain_mag",
    "max_exposures",
)


def selection(**fields: Any) -> Selection:
    """A selection from rules and rules on the whole alike."""
    own = {name: fields.pop(name) for name in SELECTION_FIELDS if name in fields}
    return Selection(rules=Rules(**fields), **own)


def verdict_on(candidate: Candidate, **fields: Any) -> Verdict:
    (verdict,) = select(selection(**fields), [candidate])
    return verdict


ASKED_AND_BROKEN = [
    ("images", {"images": ("999999p",)}, {}),
    ("batch", {"batch": "night2"}, {}),
    ("run", {"run": "04BQ06"}, {}),
    ("runs", {"runs": ("04BQ06", "04BQ07")}, {}),
    ("object", {"object": "D3"}, {"object": None}),
    ("instrument", {"instrument": "OmegaCam"}, {}),
    ("filter", {"filter": "r.MP9602"}, {}),
    ("near", {"near": Cone(215.5, 52.5, 0.5)}, {}),
    ("touches", {"touches": Cone(216.5, 52.5, 0.5)}, {}),
    ("grid", {"on_grid": Cone(216.5, 52.5, 0.5)}, {}),
    ("superseded", {}, {"superseded_by": OTHER_ID}),
    ("superseded", {"images": (GOOD.image_id,)}, {"superseded_by": OTHER_ID}),
    ("newest", {}, {"newer_id": OTHER_ID}),
    ("photometric", {"photometric": True}, {"is_photometric": False}),
    ("photometric", {"photometric": True}, {"is_photometric": None}),
    ("photometric", {"photometric": False}, {"is_photometric": None}),
    ("exposure_time_min_s", {"exposure_time_min_s": 500.1}, {}),
    ("exposure_time_max_s", {"exposure_time_max_s": 499.9}, {}),
    ("airmass_max", {"airmass_max": 1.19}, {}),
    ("airmass_max", {"airmass_max": 2.0}, {"airmass": None}),
    ("mjd_min", {"mjd_min": 53000.6}, {}),
    ("mjd_max", {"mjd_max": 53000.4}, {}),
    ("sky_absorption_max_mag", {"sky_absorption_max_mag": 0.05}, {}),
    ("sky_absorption_max_mag", {"sky_absorption_max_mag": 9.0}, {"sky_absorption_mag": None}),
    ("tags", {"tags": ("deep", "wide")}, {}),
    ("without_tags", {"without_tags": ("seen",)}, {}),
    ("grades", {}, {"grade": "D"}),
    ("grades", {}, {"grade": None, "graded_by": None}),
    ("grades", {"grades": ("B",)}, {}),
    ("grades", {"grade_policy": "weak"}, {}),
    ("grades", {"grade_policy": "weak"}, {"policy_grades": {"weak": ("D", "weak@2")}}),
    ("fwhm_max_arcsec", {"fwhm_max_arcsec": 0.79}, {}),
    ("fwhm_max_arcsec", {"fwhm_max_arcsec": 9.0}, {"fwhm_arcsec": None}),
    ("fwhm_min_arcsec", {"fwhm_min_arcsec": 0.81}, {}),
    ("ellipticity_max", {"ellipticity_max": 0.04}, {}),
    ("background_max_adu_per_s", {"background_max_adu_per_s": 1.9}, {}),
    ("limiting_mag_min", {"limiting_mag_min": 25.1}, {}),
    ("any_of", {"any_of": (Rules(run="x"), Rules(fwhm_max_arcsec=0.5))}, {}),
    ("none_of", {"none_of": (Rules(run="x"), Rules(fwhm_max_arcsec=0.9))}, {}),
    ("mine.fwhm_max_arcsec", {"saved": (Saved("mine", Selection(Rules(fwhm_max_arcsec=0.5))),)}, {}),
    ("calibrated", {}, {"solution_id": None}),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "asked", "bad"), ASKED_AND_BROKEN)
def test_each_rule_leaves_out_what_breaks_it(rule: str, asked: dict[str, Any], bad: dict[str, Any]) -> None:
    verdict = verdict_on(replace(GOOD, **bad), **asked)
    assert (verdict.selected, verdict.rule) == (False, rule)
    assert verdict.found or rule == "object"


EVERYTHING = {
    "images": ("744331p",),
    "filter": "r.MP9601",
    "instrument": "MegaPrime",
    "run": "04BQ05",
    "runs": ("x", "04BQ05"),
    "object": "D3",
    "batch": "night1",
    "tags": ("deep",),
    "without_tags": ("bad",),
    "fwhm_max_arcsec": 0.8,
    "fwhm_min_arcsec": 0.8,
    "ellipticity_max": 0.05,
    "exposure_time_min_s": 500.0,
    "exposure_time_max_s": 500.0,
    "airmass_max": 1.2,
    "sky_absorption_max_mag": 0.1,
    "background_max_adu_per_s": 2.0,
    "limiting_mag_min": 25.0,
    "photometric": True,
    "mjd_min": 53000.5,
    "mjd_max": 53000.5,
    "near": Cone(214.5, 52.6, 0.1001),
    "touches": Cone(214.5, 52.6, 0.1),
    "on_grid": Cone(214.5, 52.6, 0.1),
    "any_of": (Rules(run="x"), Rules(any_of=(Rules(object="D3"),), none_of=(Rules(run="x"),))),
    "none_of": (Rules(object="D3", run="x"),),
    "saved": (Saved("mine", Selection(Rules(run="04BQ05"))),),
    "grades": ("A",),
}


def test_every_rule_is_tried_above() -> None:
    tried = {check.rule for check in checks(selection(**EVERYTHING), Table.of([GOOD]))}
    assert {rule for rule, _, _ in ASKED_AND_BROKEN} == {
        *tried - {"mine.run", "mine.grades"},
        "mine.fwhm_max_arcsec",
    }
    assert set(Rules.__dataclass_fields__) <= tried | {"mine"}


def test_an_image_that_just_fulfils_all_rules_is_chosen() -> None:
    verdict = verdict_on(GOOD, **EVERYTHING)
    assert (verdict.selected, verdict.rule, verdict.found) == (True, CHOSEN, "grade A by policy:survey@1")


def test_a_filter_may_be_named_as_headers_or_as_the_profile_name_it() -> None:
    old = replace(GOOD, filter="r", canonical_filter="r.MP9601")
    assert verdict_on(old, filter="r.MP9601").selected and verdict_on(old, filter="r").selected
    assert not verdict_on(old, filter="g").selected


def test_the_grade_of_a_policy_counts_where_one_is_named() -> None:
    row = replace(GOOD, grade="D", policy_grades={"weak": ("A", "weak@2")})
    verdict = verdict_on(row, grade_policy="weak", grades=("A",))
    assert (verdict.selected, verdict.found) == (True, "grade A by policy:weak@2")
    assert verdict_on(row, grades=("A",)).found == "D by policy:survey@1"


def test_whoever_names_an_id_gets_that_very_delivery() -> None:
    old = replace(GOOD, newer_id=OTHER_ID)
    assert verdict_on(old, images=(old.image_id,)).selected
    assert not verdict_on(old, images=(old.name,)).selected


def test_members_come_in_the_order_of_exposure_whatever_the_store_says() -> None:
    rows = [
        replace(GOOD, image_id=f"{name}.0", name=name, mjd_obs=mjd)
        for name, mjd in (("c", 2.0), ("b", 1.0), ("a", 2.0), ("d", None))
    ]
    assert [verdict.candidate.name for verdict in select(Selection(), rows)] == ["d", "b", "a", "c"]
    assert select(Selection(), rows) == select(Selection(), rows[::-1])
    assert select(Selection(), []) == ()


def test_the_nearest_alternative_is_told() -> None:
    rules = (
        Rules(filter="u.MP9301", fwhm_max_arcsec=0.5),
        Rules(fwhm_max_arcsec=0.7, none_of=(Rules(filter="u.MP9301"),)),
    )
    found = verdict_on(GOOD, any_of=rules).found
    assert found == "alternative 2 of 2 fails by fwhm_max_arcsec: 0.8 arcsec"


# ---- against plain loops ----


def _fits(rules: Rules, row: Candidate) -> bool:
    """The slow twin of a group of rules, one image at a time."""

    def most(limit: float | None, value: float | None) -> bool:
        return limit is None or (value is not None and value <= limit)

    def least(limit: float | None, value: float | None) -> bool:
        return limit is None or (value is not None and value >= limit)

    return (
        (rules.filter is None or row.filter == rules.filter)
        and (rules.object is None or row.object == rules.object)
        and (not rules.runs or row.run in rules.runs)
        and (rules.photometric is None or row.is_photometric == rules.photometric)
        and set(rules.tags) <= set(row.tags or ())
        and not set(rules.without_tags) & set(row.tags or ())
        and most(rules.fwhm_max_arcsec, row.fwhm_arcsec)
        and least(rules.limiting_mag_min, row.limiting_mag)
        and most(rules.sky_absorption_max_mag, row.sky_absorption_mag)
        and (not rules.any_of or any(_fits(one, row) for one in rules.any_of))
        and not any(_fits(one, row) for one in rules.none_of)
    )


maybe = st.none() | st.sampled_from([0.5, 1.0, 1.5])
names = st.none() | st.sampled_from(["a", "b"])
plain_rules = st.builds(
    Rules,
    filter=names,
    object=names,
    runs=st.sampled_from([(), ("a",), ("a", "b")]),
    photometric=st.none() | st.booleans(),
    tags=st.sampled_from([(), ("x",)]),
    without_tags=st.sampled_from([(), ("y",)]),
    fwhm_max_arcsec=maybe,
    limiting_mag_min=maybe,
    sky_absorption_max_mag=maybe,
)
nested = st.recursive(
    plain_rules,
    lambda inner: st.builds(
        lambda own, any_of, none_of: replace(own, any_of=tuple(any_of), none_of=tuple(none_of)),
        plain_rules,
        st.lists(inner, max_size=2),
        st.lists(inner, max_size=2),
    ),
    max_leaves=6,
)
rows = st.builds(
    lambda **changes: replace(GOOD, **changes),
    filter=st.sampled_from(["a", "b"]),
    object=names,
    run=st.sampled_from(["a", "b", "c"]),
    is_photometric=st.none() | st.booleans(),
    tags=st.sampled_from([(), ("x",), ("y",), ("x", "y")]),
    fwhm_arcsec=maybe,
    limiting_mag=maybe,
    sky_absorption_mag=maybe,
    grade=st.sampled_from(["A", "D", None]),
)


@given(nested, st.lists(rows, max_size=6))
def test_all_at_once_is_as_one_by_one(rules: Rules, candidates: list[Candidate]) -> None:
    candidates = [replace(row, name=f"{k}", image_id=f"{k}") for k, row in enumerate(candidates)]
    for verdict in select(Selection(rules), candidates):
        assert verdict.selected == (_fits(rules, verdict.candidate) and verdict.candidate.grade == "A")


# ---- places ----


def _ccd(ra: float, dec: float, half: float = 0.05) -> np.ndarray[Any, Any]:
    wide = half / np.cos(np.radians(dec))
    return np.array(
        [[[ra - wide, dec - half], [ra + wide, dec - half], [ra + wide, dec + half], [ra - wide, dec + half]]]
    )


def test_a_ccd_decides_and_not_the_circle_around_all_of_them() -> None:
    far = replace(GOOD, centre_x=None, radius_rad=np.radians(0.5))
    table = Table.of([far])
    # Its only CCD lies east of the middle; what is asked for lies west of it, within its circle.
    area = Selection(Rules(touches=Cone(214.2, 52.5, 0.05)))
    assert judge(area, table).verdicts[0].selected
    assert worth_looking_at(area, table) == [0]
    exact = replace(table, footprints={0: _ccd(214.8, 52.5)})
    verdict = judge(area, exact).verdicts[0]
    assert (verdict.selected, verdict.rule) == (False, "touches")
    assert judge(Selection(Rules(touches=Cone(214.9, 52.5, 0.03))), exact).verdicts[0].selected
    triangle = Polygon(((214.88, 52.4), (215.5, 52.4), (215.5, 52.6)))
    assert not judge(Selection(Rules(touches=triangle)), exact).verdicts[0].selected
    wide = Polygon(((214.8, 52.4), (215.5, 52.4), (214.8, 52.6)))
    assert judge(Selection(Rules(touches=wide)), exact).verdicts[0].selected


def test_only_those_are_looked_at_whose_ccds_decide() -> None:
    here = [replace(GOOD, image_id=f"{k}", name=f"{k}", radius_rad=0.01) for k in range(3)]
    table = Table.of([here[0], replace(here[1], grade="D"), replace(here[2], ra_deg=100.0)])
    area = Rules(touches=Cone(214.5, 52.5, 0.1))
    assert worth_looking_at(Selection(area), table) == [0]
    assert worth_looking_at(Selection(Rules(none_of=(area,))), table) == [0]
    assert worth_looking_at(Selection(saved=(Saved("s", Selection(area)),)), table) == [0]
    assert worth_looking_at(Selection(), table) == []


# ---- rules on the whole ----


def many(n: int, **columns: Any) -> list[Candidate]:
    return [
        replace(
            GOOD, image_id=f"{k:03d}.0", name=f"{k:03d}", mjd_obs=float(k),
            **{name: values[k] for name, values in columns.items()},
        )
        for k in range(n)
    ]  # fmt: skip


def taken(verdicts: tuple[Verdict, ...]) -> list[str]:
    return [verdict.candidate.name for verdict in verdicts if verdict.selected]


def test_the_best_in_seeing_are_counted_filter_by_filter() -> None:
    seeing = [0.9, 0.6, None, 0.7, 0.8, 1.0, 0.5, 0.6]
    filters = ["g"] * 5 + ["r"] * 3
    rows = many(8, fwhm_arcsec=seeing, filter=filters)
    assert taken(select(selection(best_seeing_percent=40.0), rows)) == ["001", "003", "006", "007"]
    verdicts = select(selection(best_seeing_percent=25.0), rows)
    assert taken(verdicts) == ["001", "003", "006"]  # 25 % of 5 and of 3: rounded up
    assert verdicts[0].rule == "best_seeing_percent"
    assert verdicts[0].found == "0.9 arcsec, number 4 of 5 in g; the best 2 are taken"
    assert verdicts[2].found is not None and "seeing not known, number 5 of 5" in verdicts[2].found
    # What breaks another rule is not counted among them.
    rows[1] = replace(rows[1], grade="D")
    assert taken(select(selection(best_seeing_percent=25.0, filter="g"), rows)) == ["003"]
    assert len(taken(select(selection(best_seeing_percent=100.0), rows))) == 7


def test_depths_add_in_squared_signal_to_noise() -> None:
    assert combined_depth_mag(np.array([25.0] * 4)) == pytest.approx(25.0 + 1.25 * np.log10(4))
    assert combined_depth_mag(np.array([25.0, np.nan])) == 25.0
    assert np.isnan(combined_depth_mag(np.array([np.nan])))
    depths = np.array([25.3, 25.0, 24.2, 20.0])
    gains = gains_mag(depths)
    assert np.isinf(gains[0])
    assert combined_depth_mag(depths[:1]) + gains[1:].sum() == pytest.approx(combined_depth_mag(depths))


def test_it_stops_where_the_next_adds_too_little() -> None:
    depth = [24.0, 25.0, 25.5, None, 22.0, 25.2]
    verdicts = select(selection(stop_below_gain_mag=0.1), many(6, limiting_mag=depth))
    known = np.array(sorted((one for one in depth if one is not None), reverse=True))
    kept = int(np.sum(gains_mag(known) >= 0.1))
    assert sorted(taken(verdicts)) == sorted(f"{depth.index(value):03d}" for value in known[:kept].tolist())
    assert 1 < kept < 5
    assert verdicts[3].found == "depth not known"
    assert verdicts[4].found is not None and verdicts[4].found.startswith("22.00 mag would add 0.00")


def test_at_most_so_many_are_the_deepest() -> None:
    verdicts = select(selection(max_exposures=2), many(4, limiting_mag=[24.0, None, 25.0, 24.5]))
    assert taken(verdicts) == ["002", "003"]
    assert verdicts[1].found == "depth not known, number 4 of 4 by depth"


def test_rules_on_the_whole_of_saved_selections_hold_where_the_request_has_none() -> None:
    inner = Selection(max_exposures=1, grades=())
    outer = Selection(saved=(Saved("a", inner), Saved("b", replace(inner, max_exposures=3))))
    assert len(taken(select(outer, many(4)))) == 1
    assert len(taken(select(replace(outer, max_exposures=2), many(4)))) == 2
    assert len(taken(select(without_set_rules(outer), many(4)))) == 4


@given(st.lists(st.none() | st.floats(18.0, 28.0), min_size=1, max_size=12), st.floats(0.001, 0.5))
def test_stopping_is_as_adding_one_by_one(depths: list[float | None], least: float) -> None:
    rows = many(len(depths), limiting_mag=depths)
    total, expected = 0.0, list[str]()
    for depth, name in sorted(
        ((one, f"{k:03d}") for k, one in enumerate(depths) if one is not None),
        key=lambda pair: (-pair[0], pair[1]),
    ):
        after = total + 10 ** (0.8 * (depth - 25.0))
        gain = np.inf if total == 0 else 1.25 * np.log10(after / total)
        if abs(gain - least) < 1e-9:
            return
        if gain < least:
            break
        total, expected = after, [*expected, name]
    assert sorted(taken(select(selection(stop_below_gain_mag=least), rows))) == sorted(expected)


# ---- in words ----


def test_the_explanation_names_the_hardest_rule_first_with_an_example() -> None:
    rows = [
        GOOD,
        replace(GOOD, name="x", grade="D"),
        replace(GOOD, name="y", grade="D"),
        replace(GOOD, fwhm_arcsec=3),
    ]
    verdicts = select(selection(fwhm_max_arcsec=1.0), rows)
    assert list(left_out_by(verdicts).items()) == [("grades", 2), ("fwhm_max_arcsec", 1)]
    text = explain(verdicts)
    assert text.startswith(
        "1 of 4 candidate images pass; left out: 2 by `grades` (as x: D by policy:survey@1)"
    )
    assert "3 arcsec" in text
    assert explain([]).startswith("No image")


def test_advice_says_which_value_lets_how_many_in() -> None:
    rows = many(6, fwhm_arcsec=[1.22, 1.27, 1.3, 2.0, 2.05, 0.8], grade=["A", "A", "A", "A", "D", "D"])
    wanted = selection(fwhm_max_arcsec=1.0)
    words = [one.words for one in advise(judge(wanted, Table.of(rows)), 3)]
    assert words == [
        "widening `fwhm_max_arcsec` to 2 lets 4 in",
        "widening `fwhm_max_arcsec` to 1.3 lets 3 in",
        "taking D lets 1 in",
    ]


@given(
    st.lists(st.floats(0.3, 5.0), min_size=1, max_size=12),
    st.floats(0.1, 0.29),
    st.integers(1, 5),
    st.booleans(),
)
def test_what_is_advised_does_let_so_many_in(
    values: list[float], limit: float, least: int, upward: bool
) -> None:
    name = "fwhm_max_arcsec" if upward else "fwhm_min_arcsec"
    bound = limit if upward else 5.0 + limit
    table = Table.of(many(len(values), fwhm_arcsec=values))
    judged = judge(selection(**{name: bound}), table)
    advice = advise(judged, least)
    assert advice
    for one in advice:
        value = float(one.words.split(" to ")[1].split(" ")[0])
        passing = judge(selection(**{name: value}), table)
        assert int(passing.passed.sum()) == one.lets_in
    assert max(one.lets_in for one in advice) == len(values)
    assert min(one.lets_in for one in advice) >= min(least, len(values))


def test_advice_on_names_and_on_what_is_not_known() -> None:
    table = Table.of(many(3, filter=["g", "g", "z"]))
    assert [one.words for one in advise(judge(selection(filter="r"), table))] == [
        "`filter`: g has 2, z has 1"
    ]
    table = Table.of(many(2, airmass=[None, 1.2]))
    (one,) = advise(judge(selection(airmass_max=1.5), table))
    assert (one.words, one.lets_in) == ("of 1 it is not known: leaving `airmass_max` away lets them in", 1)
    table = Table.of(many(2, solution_id=[None, None]))
    assert [one.words for one in advise(judge(Selection(), table))] == ["2 wait for a solution"]
    assert advise(judge(Selection(), Table.of([]))) == []
