from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spica_stack.science.selection import (
    CHOSEN,
    RULES,
    Candidate,
    Rules,
    explain,
    judge,
    left_out_by,
    select,
    separation_deg,
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
)


@pytest.mark.parametrize(
    ("rule", "rules", "bad"),
    [
        ("images", {"images": ("999999p",)}, {}),
        ("batch", {"batch": "night2"}, {}),
        ("run", {"run": "04BQ06"}, {}),
        ("object", {"object": "D3"}, {"object": None}),
        ("instrument", {"instrument": "OmegaCam"}, {}),
        ("filter", {"filter": "r.MP9602"}, {}),
        ("near", {"near": (215.5, 52.5, 0.5)}, {}),
        ("superseded", {}, {"superseded_by": "744331p.ffffffffffff"}),
        ("superseded", {"images": (GOOD.image_id,)}, {"superseded_by": "744331p.ffffffffffff"}),
        ("newest", {}, {"newer_id": "744331p.ffffffffffff"}),
        ("exposure_time_min_s", {"exposure_time_min_s": 500.1}, {}),
        ("airmass_max", {"airmass_max": 1.19}, {}),
        ("airmass_max", {"airmass_max": 2.0}, {"airmass": None}),
        ("mjd_min", {"mjd_min": 53000.6}, {}),
        ("mjd_max", {"mjd_max": 53000.4}, {}),
        ("grades", {}, {"grade": "D"}),
        ("grades", {}, {"grade": None, "graded_by": None}),
        ("grades", {"grades": ("B",)}, {}),
        ("fwhm_max_arcsec", {"fwhm_max_arcsec": 0.79}, {}),
        ("fwhm_max_arcsec", {"fwhm_max_arcsec": 9.0}, {"fwhm_arcsec": None}),
        ("ellipticity_max", {"ellipticity_max": 0.04}, {}),
        ("calibrated", {}, {"solution_id": None}),
    ],
)
def test_each_rule_leaves_out_what_breaks_it(rule: str, rules: dict[str, Any], bad: dict[str, Any]) -> None:
    verdict = judge(Rules(**rules), replace(GOOD, **bad))
    assert (verdict.selected, verdict.rule) == (False, rule)
    assert verdict.found or rule == "object"


def test_every_rule_is_tried_above() -> None:
    marks = test_each_rule_leaves_out_what_breaks_it.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {rule for rule, _, _ in marks} == {name for name, _ in RULES}


def test_an_image_that_just_fulfils_all_rules_is_chosen() -> None:
    rules = Rules(
        images=("744331p",),
        filter="r.MP9601",
        instrument="MegaPrime",
        run="04BQ05",
        object="D3",
        batch="night1",
        grades=("A",),
        fwhm_max_arcsec=0.8,
        ellipticity_max=0.05,
        exposure_time_min_s=500.0,
        airmass_max=1.2,
        mjd_min=53000.5,
        mjd_max=53000.5,
        near=(214.5, 52.6, 0.1001),
    )
    verdict = judge(rules, GOOD)
    assert (verdict.selected, verdict.rule, verdict.found) == (True, CHOSEN, "grade A by policy:survey@1")


def test_whoever_names_an_id_gets_that_very_delivery() -> None:
    old = replace(GOOD, newer_id="744331p.ffffffffffff")
    assert judge(Rules(images=(old.image_id,)), old).selected
    assert not judge(Rules(images=(old.name,)), old).selected


def test_members_come_in_the_order_of_exposure_whatever_the_store_says() -> None:
    rows = [
        replace(GOOD, image_id=f"{name}.0", name=name, mjd_obs=mjd)
        for name, mjd in (("c", 2.0), ("b", 1.0), ("a", 2.0), ("d", None))
    ]
    assert [verdict.candidate.name for verdict in select(Rules(), rows)] == ["d", "b", "a", "c"]
    assert select(Rules(), rows) == select(Rules(), rows[::-1])


def test_the_explanation_names_the_hardest_rule_first_with_an_example() -> None:
    rows = [
        GOOD,
        replace(GOOD, name="x", grade="D"),
        replace(GOOD, name="y", grade="D"),
        replace(GOOD, fwhm_arcsec=3),
    ]
    verdicts = select(Rules(fwhm_max_arcsec=1.0), rows)
    assert list(left_out_by(verdicts).items()) == [("grades", 2), ("fwhm_max_arcsec", 1)]
    text = explain(verdicts)
    assert text.startswith(
        "1 of 4 candidate images pass; left out: 2 by `grades` (as x: D by policy:survey@1)"
    )
    assert "3 arcsec" in text
    assert explain([]).startswith("No image")


@given(st.floats(0, 359.9), st.floats(-89, 89), st.floats(0.0, 0.9))
def test_separation_along_a_meridian_is_the_difference_in_declination(
    ra: float, dec: float, step: float
) -> None:
    assert separation_deg(ra, dec, ra, dec + step) == pytest.approx(step, abs=1e-9)
    assert separation_deg(ra, dec, ra + 360, dec) == pytest.approx(0, abs=1e-9)


def test_separation_across_zero_hours_and_poles() -> None:
    assert separation_deg(359.9, 0, 0.1, 0) == pytest.approx(0.2)
    assert separation_deg(0, 89, 180, 89) == pytest.approx(2)
    assert separation_deg(0, 90, 0, -90) == pytest.approx(180)
