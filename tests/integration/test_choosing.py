"""Choosing on a real store: rules, saved selections, tags, presets, files of requests, and dry runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from spica_imaging.skyshapes import Cone
from spica_imaging.sphere import points_in_quads
from spica_proto.stacks import StackFailed, StackPlanned, StackRequested
from spica_runtime.errors import NotRetriable
from spica_stack.choosing import judge_images, select_now
from spica_stack.dryrun import dry_run
from spica_stack.service import compose
from spica_stack.settings import StackSettings

from tests.support.command import Ended, spica
from tests.support.many_exposures import FIELDS, Night, fill_exposures, make_night, mosaic
from tests.support.rig import Rig
from tests.support.seeding import insert
from tests.support.site import start_console

SETTINGS = StackSettings(workers=1, retry_delays_s=(0.05,), max_attempts=2, shutdown_grace_s=5)
COUNT = 60


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
async def night(rig: Rig) -> Night:
    """Sixty exposures of six CCDs, in sequences of ten, of two fields."""
    made = make_night(COUNT, fields=("D3", "D1"), ccds=mosaic(3, 2))
    await fill_exposures(rig.settings.database_url, made)
    return made


async def run(rig: Rig, home: Path, *arguments: str) -> Ended:
    return await spica(*arguments, settings=rig.settings, home=home)


async def taken(rig: Rig, **body: Any) -> list[str]:
    choice = await select_now(rig.pool, StackRequested.model_validate(body), SETTINGS)
    return [member.name for member in choice.members]


async def nowhere(paths: Any) -> dict[str, Path]:
    raise AssertionError(f"files are asked for: {paths}")


# ---- rules ----


async def test_rules_select_what_plain_loops_do(rig: Rig, night: Night) -> None:
    band = night.filter[0]
    choice = await select_now(
        rig.pool,
        StackRequested.model_validate(
            {
                "selection": {
                    "filter": band,
                    "grades": ["A", "B"],
                    "airmass_max": 1.4,
                    "sky_absorption_max_mag": 0.8,
                    "any_of": [{"fwhm_max_arcsec": 0.9}, {"object": "D1", "limiting_mag_min": 24.0}],
                    "none_of": [{"exposure_time_max_s": 100}],
                }
            }
        ),
        SETTINGS,
    )
    expected = [
        night.image_id(k)
        for k in range(COUNT)
        if night.filter[k] == band
        and night.grade[k] in "AB"
        and night.airmass[k] <= 1.4
        and night.sky_absorption_mag[k] <= 0.8
        and (
            round(float(night.fwhm_arcsec[k]), 4) <= 0.9
            or (night.field[k] == "D1" and night.limiting_mag[k] >= 24.0)
        )
        and night.exposure_time_s[k] > 100
    ]
    assert [member.image_id for member in choice.members] == expected and expected
    assert len(choice.verdicts) == COUNT
    assert all(verdict.rule and verdict.found for verdict in choice.verdicts)


async def test_ccds_decide_whether_an_area_is_touched(rig: Rig, night: Night) -> None:
    ra, dec = FIELDS["D3"]
    # A point near the edge of the field: dithers decide who covers it.
    place = (ra + 0.155 / np.cos(np.radians(dec)), dec)
    body = {"touches": {"centre": {"ra_deg": place[0], "dec_deg": place[1]}, "radius_deg": 0.002}}
    every = {"grades": ["A", "B", "C", "D"], **body}
    found = await taken(rig, combine="chi2", selection=every)
    shape = Cone(*place, 0.002)
    corners = night.corners_deg.reshape(COUNT, -1, 4, 2)
    ra_rad, dec_rad = np.radians(corners[..., 0]), np.radians(corners[..., 1])
    quads = np.stack(
        [np.cos(dec_rad) * np.cos(ra_rad), np.cos(dec_rad) * np.sin(ra_rad), np.sin(dec_rad)], axis=-1
    )
    around = shape.middle[None]
    expected = [
        night.name(k)
        for k in range(COUNT)
        if shape.touches_quads(quads[k]).any() or points_in_quads(around, quads[k]).any()
    ]
    assert found == expected
    assert 0 < len(expected) < np.sum(night.field == "D3")
    # Nested, and turned around: those of the field that do not.
    outside = await taken(
        rig, combine="chi2", selection={"object": "D3", "grades": ["A", "B", "C", "D"], "none_of": [body]}
    )
    assert sorted([*outside, *expected]) == [night.name(k) for k in range(COUNT) if night.field[k] == "D3"]
    # Far off, there is not even a candidate.
    far = {"touches": {"centre": {"ra_deg": 0, "dec_deg": 0}, "radius_deg": 0.002}}
    choice = await select_now(rig.pool, StackRequested.model_validate({"selection": far}), SETTINGS)
    assert choice.verdicts == () and choice.problem is not None


async def test_the_grade_of_a_policy_and_of_a_person(rig: Rig, night: Night) -> None:
    for k, (policy, grade, at) in enumerate(
        (("weak@1", "A", 1), ("weak@2", "D", 2), ("weaker@1", "A", 3), ("weak@1", "A", 4))
    ):
        await insert(
            rig,
            "verdicts",
            {
                "verdict_id": f"v{k}",
                "measurement_id": "m0" if at < 4 else "m1",
                "policy": policy,
                "use": "u",
                "grade": grade,
            },
        )
    body = {"images": [night.name(0), night.name(1)], "grade_policy": "weak", "grades": ["A"]}
    request = StackRequested.model_validate({"combine": "chi2", "selection": body})
    verdicts = (await select_now(rig.pool, request, SETTINGS)).verdicts
    assert [(one.rule, one.found) for one in verdicts] == [
        ("grades", "D by policy:weak@2"),
        ("chosen", "grade A by policy:weak@1"),
    ]
    await insert(
        rig, "grades",
        {"grade_id": "p", "subject_kind": "image", "subject_id": night.image_id(1), "grade": "D", "graded_by": "person:x"},
    )  # fmt: skip
    told = await judge_images(rig.pool, StackRequested(), SETTINGS, [night.image_id(1), "nothing"])
    assert {image_id: (one.rule, one.found) for image_id, one in told.items()} == {
        night.image_id(1): ("grades", "D by person:x")
    }


async def test_a_request_that_selects_nothing_says_what_would_help(rig: Rig, night: Night) -> None:
    choice = await select_now(
        rig.pool, StackRequested.model_validate({"selection": {"object": "D3", "fwhm_max_arcsec": 0.1}}), SETTINGS
    )  # fmt: skip
    assert choice.problem is not None
    assert "`fwhm_max_arcsec` left out most" in choice.problem.message
    assert "idening `fwhm_max_arcsec` to" in choice.problem.message
    choice = await select_now(
        rig.pool, StackRequested.model_validate({"selection": {"object": "D03"}}), SETTINGS
    )
    assert choice.problem is not None
    assert choice.problem.message == (
        "Nothing to stack. No image has object 'D03' (did you mean D3?). The store has D1 (30), D3 (30)."
    )


async def test_modes_are_held_against_what_is_selected(rig: Rig, night: Night) -> None:
    async def problem(**body: Any) -> str:
        try:
            choice = await select_now(rig.pool, StackRequested.model_validate(body), SETTINGS)
        except NotRetriable as error:
            return f"{error.code}: {error.message}"
        return "" if choice.problem is None else f"{choice.problem.code}: {choice.problem.message}"

    names, counts = np.unique(night.filter.astype(str), return_counts=True)
    own = [k for k in range(COUNT) if night.filter[k] == names[counts.argmax()]]
    good = [night.name(k) for k in own if night.grade[k] == "A"]
    bad = next(night.name(k) for k in own if night.grade[k] == "D")
    assert len(good) > 1
    assert not await problem(mode="list", selection={"images": good})
    assert not await problem(mode="single", selection={"images": good[:1]})
    assert "names one image" in await problem(mode="single", selection={"images": good})
    assert "names images" in await problem(mode="list")
    assert "names the object" in await problem(mode="object")
    assert "which circle or polygon" in await problem(mode="area")
    assert "use mode `list`" in await problem(mode="object", selection={"object": "D3", "images": good})
    told = await problem(mode="list", selection={"images": [*good, bad]})
    assert told.startswith("mode_does_not_fit") and f"{bad} by `grades` (D by policy:default@1)" in told
    told = await problem(mode="list", selection={"images": [*good, "999999p"]})
    assert told == "unknown_images: The list names what is not in the store: 999999p."


# ---- what people keep ----


async def test_tags_are_given_asked_for_and_taken_away(rig: Rig, night: Night, home: Path) -> None:
    names = [night.name(0), night.name(1)]
    ended = await run(rig, home, "tag", "add", "deep", *names, "--json")
    assert (ended.code, ended.err) == (0, "")
    assert [row["changed"] for row in ended.json] == [True, True]
    ended = await run(rig, home, "tag", "add", "deep", names[1], night.name(2))
    assert ended.out == "1 image(s) got the tag deep (1 had it).\n"
    every = {"grades": ["A", "B", "C", "D"], "tags": ["deep"]}
    assert await taken(rig, combine="chi2", selection=every) == [*names, night.name(2)]
    assert (await run(rig, home, "tag", "list", "--json")).json[0]["images"] == 3
    assert [row["tag"] for row in (await run(rig, home, "tag", "list", names[0], "--json")).json] == ["deep"]
    assert len((await run(rig, home, "tag", "list", "--tag", "deep", "--json")).json) == 3
    assert (await run(rig, home, "tag", "remove", "deep", names[0])).out == "1 image(s) lost the tag deep.\n"
    assert await taken(rig, combine="chi2", selection=every) == [names[1], night.name(2)]
    refused = await run(rig, home, "tag", "add", "two words", names[0])
    assert refused.code == 2 and "no tag" in refused.err
    refused = await run(rig, home, "tag", "add", "deep", night.name(3), "999999p")
    assert refused.code == 2 and await taken(rig, combine="chi2", selection=every) == [
        names[1],
        night.name(2),
    ]


async def test_a_selection_is_saved_used_and_kept_while_used(rig: Rig, night: Night, home: Path) -> None:
    ended = await run(rig, home, "selection", "save", "good", "--fwhm-max", "1.0", "--grade", "A", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.json["selection"] == {"fwhm_max_arcsec": 1.0, "grades": ["A"]}
    ended = await run(rig, home, "selection", "save", "dark", "--saved", "good", "--sky-max", "5")
    assert ended.code == 0, ended.err
    names = await taken(rig, combine="chi2", selection={"saved": ["dark"], "object": "D3"})
    expected = [
        night.name(k)
        for k in range(COUNT)
        if night.field[k] == "D3"
        and night.grade[k] == "A"
        and round(float(night.fwhm_arcsec[k]), 4) <= 1.0
        and 900.0 / night.exposure_time_s[k] <= 5
    ]
    assert names == expected and expected
    choice = await select_now(
        rig.pool, StackRequested.model_validate({"selection": {"saved": ["dark"]}}), SETTINGS
    )
    assert "dark.good.fwhm_max_arcsec" in {verdict.rule for verdict in choice.verdicts}
    assert choice.configuration["saved_selections"]["good"] == {"fwhm_max_arcsec": 1.0, "grades": ["A"]}
    # Neither twice by accident, nor naming itself, nor away while it is needed.
    refused = await run(rig, home, "selection", "save", "good", "--fwhm-max", "2")
    assert refused.code == 2 and "--replace" in refused.err
    refused = await run(rig, home, "selection", "save", "good", "--saved", "dark", "--replace")
    assert refused.code == 2 and "good > dark > good" in refused.err
    refused = await run(rig, home, "selection", "remove", "good")
    assert refused.code == 2 and "selection dark" in refused.err
    refused = await run(rig, home, "selection", "save", "odd", "--rules", '{"fwhm_max_arcsecs": 1}')
    assert refused.code == 2 and "did you mean fwhm_max_arcsec" in refused.err
    assert "good" in (await run(rig, home, "selection", "list")).out
    assert "selection dark" in (await run(rig, home, "selection", "show", "good")).out
    assert (await run(rig, home, "selection", "remove", "dark")).code == 0
    assert (await run(rig, home, "selection", "remove", "good")).code == 0
    refused = await run(rig, home, "selection", "show", "good")
    assert refused.code == 2 and "No selection is saved as 'good'" in refused.err
    with pytest.raises(NotRetriable, match="No selection is saved as 'gone'"):
        await taken(rig, selection={"saved": ["gone"]})


# ---- dry runs ----


async def test_a_dry_run_tells_all_and_writes_nothing(rig: Rig, night: Night, home: Path) -> None:
    arguments = ("--object", "D3", "--filter", night.filter[0], "--pixel-scale", "2")
    ended = await run(rig, home, "stack", "request", *arguments, "--dry-run", "--json", "--plot", "a.svg")
    assert (ended.code, ended.err) == (0, "")
    told = ended.json
    assert told["candidates"] == np.sum(night.field == "D3") == len(told["images"])
    assert told["selected"] + sum(told["left_out"].values()) == told["candidates"]
    assert told["grid"]["pixel_scale_arcsec"] == 2.0
    chosen = [row["image_id"] for row in told["images"] if row["selected"]]
    depths = [night.limiting_mag[k] for k in range(COUNT) if night.image_id(k) in chosen]
    assert told["predicted"]["exposure_time_s"] == sum(
        night.exposure_time_s[k] for k in range(COUNT) if night.image_id(k) in chosen
    )
    together = 1.25 * np.log10(np.sum(10 ** (0.8 * np.array(depths))))
    assert together - 0.4 < told["predicted"]["deepest_mag"] <= together + 1e-3
    assert np.max(told["coverage"]["exposures"]) == told["predicted"]["exposures_most"] <= len(chosen)
    svg = (home / "a.svg").read_text()
    assert svg.count('class="ccd"') == 6 * len(chosen) and "<image" in svg
    # For people, by another name, with the same answer; and as pixels.
    plain = await run(rig, home, "stack", "plan", *arguments, "--plot", "b.png")
    assert plain.code == 0 and f"{len(chosen)} of {told['candidates']} candidate images" in plain.out
    assert "`grades`" not in plain.err and "depth" in plain.out
    assert Image.open(home / "b.png").size[0] > 500
    full = await run(rig, home, "stack", "plan", *arguments, "--all")
    assert all(night.name(k) in full.out for k in range(COUNT) if night.field[k] == "D3")
    again = await run(rig, home, "stack", "plan", *arguments, "--plot", "c.svg")
    assert again.out == plain.out and (home / "c.svg").read_bytes() == (home / "a.svg").read_bytes()
    # Nothing was asked for, nothing written.
    assert await rig.events(StackRequested) == []
    for table in ("stacks", "stack_members", "outbox", "activities"):
        assert await rig.pool.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_a_dry_run_of_nothing_says_so_and_fails(rig: Rig, night: Night, home: Path) -> None:
    ended = await run(rig, home, "stack", "plan", "--object", "D3", "--fwhm-max", "0.2")
    assert ended.code == 1
    assert "No stack would be made (nothing_selected)" in ended.out
    assert "fwhm_max_arcsec" in ended.out
    ended = await run(rig, home, "stack", "plan", "--preset", "cfhtls-wid", "--json")
    assert ended.code == 2 and "did you mean cfhtls-wide" in ended.err
    ended = await run(rig, home, "stack", "plan", "--object", "D3", "--plot", "a.pdf")
    assert ended.code == 2 and ".svg or .png" in ended.err


async def test_the_plan_is_what_the_dry_run_said(rig: Rig, night: Night) -> None:
    """The service, asked by anyone with two fields of JSON."""
    await rig.start("stack", SETTINGS, compose)
    body = {
        "preset": "cfhtls-wide",
        "selection": {"object": "D3", "filter": night.filter[0]},
        "request_id": "r1",
    }
    told = (await dry_run(rig.pool, StackRequested.model_validate(body), SETTINGS, nowhere)).told()
    await rig.bus.js.publish("stack.requested", json.dumps(body).encode())
    (planned,) = await rig.wait_for(StackPlanned)
    assert planned.grid.model_dump(mode="json") == told["grid"]
    assert (planned.name, planned.combine) == (told["name"], "weighted_median")
    assert (planned.grid.width_px, planned.grid.height_px, planned.processing.resampling) == (
        19354,
        19354,
        "lanczos3",
    )
    assert set(planned.image_ids) == {row["image_id"] for row in told["images"] if row["selected"]}
    assert planned.n_left_out == sum(told["left_out"].values())
    request = await rig.pool.fetchval("SELECT request FROM stacks")
    assert request["preset"] == "cfhtls-wide"
    configuration = await rig.until("SELECT configuration FROM activities WHERE name = 'requested'")
    assert configuration["request"]["selection"]["airmass_max"] == 1.7
    # What it says itself goes over the preset; what does not fit is a dead letter in words.
    await rig.bus.js.publish(
        "stack.requested", json.dumps({**body, "request_id": "r2", "preset": "x"}).encode()
    )
    (failed,) = await rig.wait_for(StackFailed)
    assert failed.code == "unknown_preset" and "cfhtls-deep-d25" in failed.message


async def test_the_http_api_plans_without_writing(rig: Rig, night: Night) -> None:
    url = await start_console(rig)
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as http:
        body = {"selection": {"object": "D3", "filter": night.filter[0]}}
        answer = await http.post("/api/stacks/plan", json=body)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        expected = await dry_run(rig.pool, StackRequested.model_validate(body), SETTINGS, nowhere)
        assert told == json.loads(json.dumps(expected.told()))
        nothing = (await http.post("/api/stacks/plan", json={"selection": {"object": "X"}})).json()
        assert nothing["problem"]["code"] == "nothing_selected" and nothing["grid"] is None
        refused = await http.post("/api/stacks/plan", json={"preset": "x"})
        assert (refused.status_code, refused.json()["code"]) == (422, "unknown_preset")
        # A request with a preset says on the bus only what it says itself.
        asked = await http.post("/api/stacks", json={"preset": "cfhtls-wide", "request_id": "r9"})
        assert asked.status_code == 202
        (request,) = await rig.wait_for(StackRequested)
        assert request.model_fields_set == {"preset", "request_id"}


# ---- files of requests ----

EXPERT = """
[defaults]
combine = "weighted_mean"
[defaults.selection]
object = "D3"
grades = ["A", "B"]
[[group]]
name = "deep-r"
selection.filter = "r.MP9601"
processing.resampling = "lanczos4"
[[group]]
name = "deep-i"
combine = "median"
min_exposures = 2
[group.selection]
filter = "i.MP9702"
grades = ["A"]
"""


async def test_a_file_asks_for_all_of_its_groups_or_for_none(rig: Rig, night: Night, home: Path) -> None:
    await rig.bus.ensure_stream()
    (home / "deep.toml").write_text(EXPERT)
    ended = await run(rig, home, "stack", "request", "--file", "deep.toml", "--airmass-max", "1.9", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert [row["name"] for row in ended.json] == ["deep-r", "deep-i"]
    first, second = await rig.wait_for(StackRequested, count=2)
    assert (first.combine, second.combine, second.min_exposures) == ("weighted_mean", "median", 2)
    assert (first.selection.object, first.selection.filter) == ("D3", "r.MP9601")
    assert (first.selection.grades, second.selection.grades) == (("A", "B"), ("A",))
    assert first.selection.airmass_max == second.selection.airmass_max == 1.9
    assert first.processing.resampling == "lanczos4"
    assert first.request_id != second.request_id
    (home / "odd.toml").write_text(
        EXPERT.replace("lanczos4", "lanczos5").replace("min_exposures", "min_exposure")
    )
    refused = await run(rig, home, "stack", "request", "--file", "odd.toml")
    assert refused.code == 2
    assert "group 1 (deep-r): processing.resampling: input should be 'nearest'" in refused.err
    assert "group 2 (deep-i): min_exposure: there is no such field (did you mean min_exposures" in refused.err
    assert len(await rig.events(StackRequested)) == 2
    # A dry run of the file is one of each group.
    told = (await run(rig, home, "stack", "plan", "--file", "deep.toml", "--json")).json
    assert [row["combine"] for row in told] == ["weighted_mean", "median"]


async def test_presets_are_listed_shown_and_ones_own_go_over_them(rig: Rig, home: Path) -> None:
    own = home / "presets"
    own.mkdir()
    (own / "mine.toml").write_text('description = "My own"\ncombine = "median"\n')
    (home / "spica.toml").write_text('[stack]\npresets = "presets"\n')
    listed = await run(rig, home, "stack", "presets", "--json")
    assert (listed.code, listed.err) == (0, "")
    names = {row["name"]: row for row in listed.json}
    assert {"cfhtls-wide", "cfhtls-deep-d25", "cfhtls-deep-d85", "mine"} == set(names)
    assert not names["mine"]["shipped"] and names["cfhtls-wide"]["source"]
    assert "weighted_median" in (await run(rig, home, "stack", "presets", "cfhtls-wide")).out
    (own / "mine.toml").write_text('combined = "median"\n')
    refused = await run(rig, home, "stack", "presets")
    assert refused.code == 2 and "mine.toml" in refused.err and "did you mean combine" in refused.err
