"""Presets, what a request says itself, and files of requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spica_proto.stacks import Rules, Selection, StackRequested
from spica_runtime.errors import NotRetriable, UsageError
from spica_stack.choosing import choose, selection_of
from spica_stack.presets import load_presets, preset_named
from spica_stack.requests import expanded, faults_of_request, groups_of, merged, read_file, said, sealed
from spica_stack.science.choosing.table import Table
from spica_stack.strict import faults_of, nearest

from tests.unit.stack.test_selection import GOOD, many

SHIPPED = load_presets()


# ---- presets ----


def test_the_shipped_presets_say_what_terapix_did_and_where_it_stands() -> None:
    assert set(SHIPPED) == {"cfhtls-wide", "cfhtls-deep-d25", "cfhtls-deep-d85"}
    for name, preset in SHIPPED.items():
        request = StackRequested.model_validate(preset.body)
        rules = request.selection
        assert "T0004" in preset.source and preset.description
        assert (request.combine, request.processing.resampling) == ("weighted_median", "lanczos3")
        assert (request.width_px, request.height_px, request.pixel_scale_arcsec) == (19354, 19354, 0.186)
        assert (rules.grades, rules.airmass_max, rules.sky_absorption_max_mag) == (("A", "B"), 1.7, 2.0)
        assert rules.fwhm_max_arcsec == 1.3
        assert rules.exposure_time_min_s == (180.0 if name == "cfhtls-wide" else 60.0)
        assert rules.best_seeing_percent == {"d25": 25.0, "d85": 85.0}.get(name[-3:])


def test_the_u_filter_has_its_own_limit() -> None:
    def limit(filter: str) -> float | None:
        request = expanded(StackRequested(preset="cfhtls-wide", selection={"filter": filter}), SHIPPED)
        return request.selection.fwhm_max_arcsec

    assert (limit("u.MP9301"), limit("r.MP9601")) == (1.4, 1.3)
    # Where no filter is named, each image has the limit of its own; what the request says goes over both.
    open_still = expanded(StackRequested(preset="cfhtls-wide"), SHIPPED).selection
    rows = many(
        6,
        filter=["u.MP9301", "u.MP9301", "u.MP9301", "r.MP9601", "r.MP9601", "r.MP9601"],
        fwhm_arcsec=[1.2, 1.35, 1.45, 1.2, 1.35, 1.45],
    )
    taken = choose(StackRequested(combine="chi2"), selection_of(open_still), Table.of(rows))
    assert [member.name for member in taken.members] == ["000", "001", "003"]
    own = StackRequested(preset="cfhtls-wide", selection={"fwhm_max_arcsec": 1.0})
    assert expanded(own, SHIPPED).selection.any_of == ()
    assert expanded(own, SHIPPED).selection.fwhm_max_arcsec == 1.0
    # With alternatives of its own, both must hold.
    both = StackRequested(preset="cfhtls-wide", selection={"any_of": [{"fwhm_min_arcsec": 1.3}]})
    taken = choose(
        StackRequested(combine="chi2"), selection_of(expanded(both, SHIPPED).selection), Table.of(rows)
    )
    assert [member.name for member in taken.members] == ["001"]


def test_what_a_request_says_goes_over_its_preset_field_by_field() -> None:
    body = {
        "preset": "cfhtls-deep-d25",
        "combine": "clipped_mean",
        "selection": {"object": "D1", "grades": ["A"]},
    }
    request = expanded(StackRequested.model_validate(body), SHIPPED)
    assert request.combine == "clipped_mean"
    assert (request.selection.object, request.selection.grades) == ("D1", ("A",))
    assert (request.selection.best_seeing_percent, request.width_px) == (25.0, 19354)
    assert expanded(request, SHIPPED) == request
    assert expanded(expanded(StackRequested(preset="cfhtls-wide"), SHIPPED), SHIPPED) == expanded(
        StackRequested(preset="cfhtls-wide"), SHIPPED
    )
    with pytest.raises(NotRetriable, match=r"'cfhtls-deep' \(did you mean cfhtls-deep-d") as caught:
        expanded(StackRequested(preset="cfhtls-deep"), SHIPPED)
    assert caught.value.code == "unknown_preset"


def test_presets_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "cfhtls-wide.toml").write_text('combine = "median"\n')
    known = load_presets(tmp_path)
    assert len(known) == len(SHIPPED) and not known["cfhtls-wide"].shipped
    assert preset_named("cfhtls-wide", known).body == {"combine": "median"}
    for text, said_ in (
        ("combine =", "cannot be read as TOML"),
        (
            "[selection]\nfwhm_max = 1.0",
            r"selection.fwhm_max: there is no such field \(did you mean fwhm_max_arcsec",
        ),
        ("[[by_filter]]\nfwhm_max_arcsec = 1.0", r"by_filter\[1\].filters: a list"),
        ('[[by_filter]]\nfilters = ["u"]\nseing = 1.0', r"by_filter\[1\].seing: there is no such field"),
    ):
        (tmp_path / "odd.toml").write_text(text)
        with pytest.raises(NotRetriable, match=said_) as caught:
            load_presets(tmp_path)
        assert caught.value.code == "bad_preset" and "odd.toml" in caught.value.message
    with pytest.raises(NotRetriable, match="no such folder"):
        load_presets(tmp_path / "nowhere")


# ---- what is said ----


def test_only_what_is_said_goes_onto_the_bus() -> None:
    request = StackRequested(preset="cfhtls-wide", combine="clipped_mean", selection=Selection(object="D1"))
    body = json.loads(sealed(request, source="/test").body)
    assert body == {"preset": "cfhtls-wide", "combine": "clipped_mean", "selection": {"object": "D1"}}
    assert expanded(StackRequested.model_validate(body), SHIPPED).combine == "clipped_mean"
    # A tool that writes everything out means what differs from the defaults.
    whole = StackRequested.model_validate_json(request.model_dump_json(exclude_none=True))
    assert said(whole) == {"preset": "cfhtls-wide", "selection": {"object": "D1"}}
    assert expanded(whole, SHIPPED).combine == "weighted_median"


bodies = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["a", "b"]),
        "combine": st.sampled_from(["median", "clipped_mean"]),
        "selection": st.fixed_dictionaries(
            {}, optional={"object": st.sampled_from(["D1", "D2"]), "airmass_max": st.floats(1, 2)}
        ),
        "processing": st.fixed_dictionaries({}, optional={"clip_sigma": st.floats(1, 9)}),
    },
)


@given(bodies, bodies)
def test_merging_keeps_all_that_either_says(under: dict[str, Any], over: dict[str, Any]) -> None:
    both = merged(under, over)
    for body, other in ((over, {}), (under, over)):
        for name, value in body.items():
            if not isinstance(value, dict):
                assert both[name] == (other.get(name, value))
                continue
            for inner, found in value.items():
                assert both[name][inner] == other.get(name, {}).get(inner, found)
    assert said(StackRequested.model_validate(both)) == both


# ---- held strictly ----


def test_what_is_misspelt_is_told_with_what_was_meant() -> None:
    body = {
        "combin": "median",
        "selection": {
            "fwhm_max": 1.0,
            "any_of": [{"touches": {"centre": {"ra": 1.0, "dec_deg": 2}, "radius_deg": 1}}],
        },
        "processing": {"resampling": "lanczos5"},
        "width_px": "wide",
    }
    faults = faults_of(StackRequested, body)
    assert "combin: there is no such field (did you mean combine?)" in faults
    assert any(
        fault.startswith("selection.fwhm_max: there is no such field (did you mean fwhm_max_arcsec")
        for fault in faults
    )
    assert any(
        fault.startswith("selection.any_of[1].touches.centre.ra: there is no such field") for fault in faults
    )
    assert any(fault.startswith("processing.resampling: input should be") for fault in faults)
    assert any(fault.startswith("width_px: ") for fault in faults)
    assert faults_of(Rules, ["x"]) == ["this is no table of fields but list"]
    assert faults_of(StackRequested, {"selection": {"none_of": [{"run": "x"}]}}) == []
    assert nearest("xyz", ["abc"]) == ""


def test_a_request_by_hand_is_held_against_preset_and_mode_too() -> None:
    assert faults_of_request({"preset": "cfhtls-wide", "mode": "object"}, SHIPPED) == [
        "A request of mode `object` names the object in `selection.object`"
    ]
    assert faults_of_request({"preset": "x"}, SHIPPED)[0].startswith("No preset is called 'x'")
    assert "weighted mean" in faults_of_request({"extends": "s", "combine": "median"}, SHIPPED)[0]
    assert faults_of_request({"mode": "object", "selection": {"object": "D1"}}, SHIPPED) == []


# ---- files ----


def test_a_file_is_one_request_or_many(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"name": "a", "selection": {"object": "D1"}}')
    (group,) = read_file(path, SHIPPED)
    assert (group.label, group.body["name"]) == ("the request", "a")
    path = tmp_path / "a.toml"
    path.write_text(
        '[defaults]\ncombine = "median"\nselection.object = "D1"\n[[group]]\nname = "x"\nselection.filter = "r"\n'
    )
    (group,) = read_file(path, SHIPPED)
    assert group.label == "group 1 (x)"
    assert group.body == {"combine": "median", "selection": {"object": "D1", "filter": "r"}, "name": "x"}


TWINS = [{"name": "a", "request_id": "x"}, {"name": "b", "request_id": "x"}]
ONE_BAD = [{"name": "a"}, {"name": "b", "min_exposures": 0}]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"groups": [], "defaults": {}}, r"groups: a file has `defaults` and `group` \(did you mean group"),
        ({"defaults": {}}, "group: there is none"),
        ({"defaults": 3, "group": [{}]}, "defaults: this is no table"),
        ({"group": [3]}, "each is a table of fields"),
        ({"group": TWINS}, r"group 2 \(b\): request_id: 'x' is that of group 1 \(a\) too"),
        ({"group": ONE_BAD}, r"group 2 \(b\): min_exposures: input should be greater"),
        ([1], "holds no table"),
    ],
)
def test_every_fault_of_a_file_is_told_with_its_group(content: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        groups_of(content, "x.toml", SHIPPED)


def test_a_file_that_cannot_be_read_is_told_by_name(tmp_path: Path) -> None:
    for name, kind in (("a.json", "as JSON"), ("a.toml", "as TOML or JSON")):
        (tmp_path / name).write_text("= = =")
        with pytest.raises(UsageError, match=f"{name} cannot be read {kind}"):
            read_file(tmp_path / name, SHIPPED)
    with pytest.raises(UsageError, match=r"b\.toml cannot be read"):
        read_file(tmp_path / "b.toml", SHIPPED)


def test_images_of_this_test_would_be_taken_by_the_wide_survey() -> None:
    request = expanded(StackRequested(preset="cfhtls-wide"), SHIPPED)
    assert choose(request, selection_of(request.selection), Table.of([GOOD])).require().members == (GOOD,)
