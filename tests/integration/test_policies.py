"""Policies on a real store: runs compared, images judged again once, and the `spica policy` commands."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from spica_console.grading import grade_by_person
from spica_console.judging import Images, policies_of
from spica_console.rejudging import Change, Tally, judge_again
from spica_console.whatif import read_setting, with_settings
from spica_proto.images import ImageGraded
from spica_quality.policyfiles import SHIPPED, policy_files
from spica_quality.science.policy.judging import judge
from spica_quality.science.policy.runstatistics import statistic
from spica_quality.store import Store

from tests.support.command import Ended, spica
from tests.support.rig import Rig
from tests.support.seeding import insert

SEEINGS = [0.60 + 0.01 * number for number in range(12)]
"""Of a run of twelve; a thirteenth is far worse than its night."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


async def seed(rig: Rig, name: str, fwhm: float = 0.7, *, run: str = "19A", **changes: Any) -> str:
    """An image as ingest and quality leave it, with its CCDs' figures."""
    image_id = f"{name}.{0:012d}"
    image: dict[str, Any] = {
        "image_id": image_id, "name": name, "sha256": name.ljust(64, "0"), "size_bytes": 1, "path": f"images/{name}",
        "profile": "megacam", "instrument": "MegaPrime", "run": run, "filter": "r.MP9601", "object": "D1",
        "exposure_time_s": 360.0, "mjd_obs": 58549.2, "ra_deg": 36.5, "dec_deg": -4.5, "wcs": "full", "n_ccds": 4,
        "header": {},
    }  # fmt: skip
    await insert(rig, "images", image | {key: value for key, value in changes.items() if key in image})
    figures = {
        "condition": "ok", "n_ccds": 4, "n_ccds_blank": 0, "n_stars": 4000, "n_sources": 9000, "fwhm_arcsec": fwhm,
        "fwhm_px": fwhm / 0.187, "pixel_scale_arcsec": 0.187, "ellipticity": 0.03, "usable_fraction": 0.98,
        "limiting_mag": 24.5, "background_adu": 800.0, "saturated_fraction": 0.0001,
    } | changes.get("figures", {})  # fmt: skip
    ccd = {"condition": "ok", "usable_fraction": 0.98, "fwhm_px": fwhm / 0.187, "n_psf_stars": 80}
    for kind in ("catalogue", "weight", "preview", "report", "votable"):
        path = f"quality/{name}.{kind}"
        await insert(rig, "products", {"path": path, "sha256": "0" * 64, "size_bytes": 1, "kind": kind})
    await insert(
        rig,
        "measurements",
        {
            "measurement_id": f"m-{name}", "subject_kind": "image", "subject_id": image_id,
            "metrics": {"fwhm_arcsec": fwhm, "n_stars": 4000}, "figures": figures,
            "per_ccd": [{"hdu": at + 1, "name": f"ccd{at:02d}"} | ccd | changes.get(f"ccd{at:02d}", {}) for at in range(4)],
            "catalogue_path": f"quality/{name}.catalogue", "weight_path": f"quality/{name}.weight",
            "preview_path": f"quality/{name}.preview",
            "products": {kind: f"quality/{name}.{kind}" for kind in ("report", "votable")},
        },
    )  # fmt: skip
    return image_id


async def night(rig: Rig) -> str:
    """A run of thirteen images, one of them far off, and one image of another run. Gives the one that is off."""
    for number, fwhm in enumerate(SEEINGS):
        await seed(rig, f"10000{number:02d}p", fwhm)
    await seed(rig, "2000001p", 3.0, run="19B")
    return await seed(rig, "1000099p", 0.98)


async def again(
    rig: Rig, *names: str, folder: Path | None = None, which: Images | None = None, dry_run: bool = False
) -> tuple[list[Change], Tally]:
    tally = Tally()
    policies = policies_of(policy_files(folder))
    chosen = names or tuple(policy.name for policy in policies)
    stream = judge_again(rig.pool, which or Images(), policies, chosen, {}, tally, dry_run=dry_run)
    return [change async for change in stream], tally


async def graded(rig: Rig) -> list[ImageGraded]:
    rows = await rig.pool.fetch("SELECT body FROM outbox WHERE subject = 'image.graded' ORDER BY outbox_id")
    return [ImageGraded.model_validate_json(row["body"]) for row in rows]


async def count(rig: Rig, table: str) -> int:
    found: int = await rig.pool.fetchval(f"SELECT count(*) FROM {table}")
    return found


# ---- what is usual in a run ----


async def test_a_run_is_what_was_measured_of_it_with_the_same_instrument_and_filter(rig: Rig) -> None:
    odd = await night(rig)
    await seed(rig, "3000001p", 9.0, filter="g.MP9401")
    await seed(rig, "3000002p", 9.0, profile="decam")
    await seed(rig, "3000003p", figures={"fwhm_arcsec": None})
    replaced = await seed(rig, "3000004p", 9.0)
    await rig.pool.execute("UPDATE images SET superseded_by = $1 WHERE image_id = $2", odd, replaced)
    store = Store(rig.pool)
    key: dict[str, Any] = {"run": "19A", "filter": "r.MP9601", "profile": "megacam", "exposure_time_s": 360.0}
    found = await store.run_statistics(odd, **key, figures=["fwhm_arcsec", "n_stars", "condition"])
    assert set(found.figures) == {"fwhm_arcsec", "n_stars"}
    assert found.figures["fwhm_arcsec"] == statistic(SEEINGS)
    assert found.figures["n_stars"].n_images == 13
    nothing = await store.run_statistics(odd, **key | {"run": "none"}, figures=["fwhm_arcsec"])
    assert nothing.figures == {}
    # Sky, depth and number of stars go with the exposure time.
    await seed(rig, "3000005p", 9.0, exposure_time_s=60.0)
    long = await store.run_statistics(odd, **key, figures=["fwhm_arcsec"])
    assert long.figures["fwhm_arcsec"] == statistic(SEEINGS)
    short = await store.run_statistics(odd, **key | {"exposure_time_s": 62.0}, figures=["fwhm_arcsec"])
    assert short.figures["fwhm_arcsec"] == statistic([9.0])
    # Measured again, the later one counts.
    await insert(
        rig,
        "measurements",
        {"measurement_id": "m-later", "subject_kind": "image", "subject_id": "1000000p.000000000000", "metrics": {},
         "figures": {"fwhm_arcsec": 0.9}, "catalogue_path": "c", "weight_path": "w", "preview_path": "p"},
    )  # fmt: skip
    later = await store.run_statistics(odd, **key, figures=["fwhm_arcsec"])
    assert later.figures["fwhm_arcsec"] == statistic([0.9, *SEEINGS[1:]])


def test_what_may_lie_either_way_is_tried_either_way() -> None:
    default = policies_of(policy_files(None)).default
    tried = with_settings(default, [read_setting("offset_ra_max=5", default)])
    for offset, letter in ((-4.0, "A"), (4.0, "A"), (-20.0, "D"), (20.0, "D")):
        figures = {"n_ccds": 1, "n_stars": 500, "offset_ra_arcsec": offset}
        assert judge(figures, (), tried, None, "image").letter == letter


# ---- judging again ----


async def test_short_exposures_are_not_held_against_long_ones(rig: Rig) -> None:
    await night(rig)
    short = await seed(
        rig, "1000088p", exposure_time_s=20.0, figures={"background_adu": 45.0, "n_stars": 400}
    )
    changes, _ = await again(rig, which=Images(image_id=short))
    by_policy = {change.policy: change for change in changes}
    assert by_policy["default@2"].after == "A"
    assert not any("this run" in reason for change in changes for reason in change.reasons)


async def test_judging_again_says_once_what_changed(rig: Rig) -> None:
    odd = await night(rig)
    first, tally = await again(rig)
    assert (tally.images, len(first)) == (14, 14 * 4)
    events = await graded(rig)
    assert len(events) == 14
    assert await count(rig, "verdicts") == 14 * 4
    (event,) = [event for event in events if event.image_id == odd]
    assert (event.grade, event.graded_by, event.measurement_id) == ("B", "policy:default@2", "m-1000099p")
    assert [reason.code for reason in event.reasons] == ["poor_seeing"]
    assert "above this run" in event.reasons[0].message
    assert {verdict.policy for verdict in event.verdicts} == {
        "default@2", "weak_lensing@1", "photometric_calibration@2", "low_surface_brightness@1"
    }  # fmt: skip
    assert event.report is not None
    assert [product.kind for product in event.products] == ["votable"]
    # One grade per event, under the event's id, with who judged on record.
    ids = {row["grade_id"] for row in await rig.pool.fetch("SELECT grade_id FROM grades")}
    assert ids == {row["message_id"] for row in await rig.pool.fetch("SELECT message_id FROM outbox")}
    activity = await rig.pool.fetchrow("SELECT * FROM activities WHERE about = $1", odd)
    assert activity["configuration"]["run"]["figures"]["fwhm_arcsec"]["n_images"] == 12
    assert activity["configuration"]["policies"][0]["name"] == "default"

    nothing, _ = await again(rig)
    assert nothing == []
    assert (await count(rig, "outbox"), await count(rig, "verdicts"), await count(rig, "grades")) == (
        14,
        56,
        14,
    )


async def test_two_at_a_time_are_one(rig: Rig) -> None:
    await night(rig)
    results = await asyncio.gather(*(again(rig) for _ in range(3)))
    assert sum(len(changes) for changes, _ in results) == 14 * 4
    assert (await count(rig, "outbox"), await count(rig, "verdicts"), await count(rig, "grades")) == (
        14,
        56,
        14,
    )


async def test_what_is_interrupted_goes_on_where_it_was(rig: Rig) -> None:
    await night(rig)
    policies = policies_of(policy_files())
    stream = judge_again(rig.pool, Images(), policies, ["default"], {}, Tally())
    for _ in range(5):
        await anext(stream)
    await stream.aclose()
    assert await count(rig, "outbox") == 5
    changes, _ = await again(rig, "default")
    assert len(changes) == 9
    assert Counter(event.image_id for event in await graded(rig)).most_common(1)[0][1] == 1


async def test_a_new_version_that_says_the_same_is_on_record_and_no_news(rig: Rig, tmp_path: Path) -> None:
    await night(rig)
    await again(rig, "default")
    (tmp_path / "default.toml").write_text(
        (SHIPPED / "default.toml").read_text().replace("version = 2", "version = 3")
    )
    changes, _ = await again(rig, "default", folder=tmp_path)
    assert changes == []
    assert await count(rig, "outbox") == 14
    assert await rig.pool.fetchval("SELECT count(*) FROM verdicts WHERE policy = 'default@3'") == 14

    (tmp_path / "default.toml").write_text(
        'name = "default"\nversion = 4\n[rules.fwhm_arcsec]\nmost = [0.65, 0.9, 2]'
    )
    changes, _ = await again(rig, "default", folder=tmp_path)
    assert Counter((change.before, change.after) for change in changes) == {("A", "B"): 6, ("B", "C"): 1}
    assert {change.policy for change in changes} == {"default@4"}
    assert {event.graded_by for event in (await graded(rig))[14:]} == {"policy:default@4"}
    held = await rig.pool.fetchval("SELECT count(*) FROM verdicts WHERE policy LIKE 'default@%'")
    assert held == 3 * 14


async def test_another_use_says_its_verdict_beside_the_grade_that_stands(rig: Rig) -> None:
    await night(rig)
    changes, _ = await again(rig, "weak_lensing")
    assert {change.policy for change in changes} >= {"weak_lensing@1"}
    events = await graded(rig)
    assert {event.graded_by for event in events} == {"policy:default@2"}
    assert [verdict.policy for verdict in events[0].verdicts] == ["default@2", "weak_lensing@1"]


async def test_an_image_that_a_person_graded_keeps_the_grade(rig: Rig, tmp_path: Path) -> None:
    odd = await night(rig)
    await again(rig)
    said = await grade_by_person(rig.pool, odd, "A", person="ada", why="Fine for me.")
    assert (said.report is not None, len(said.verdicts)) == (True, 4)
    before = await count(rig, "outbox")
    (tmp_path / "d.toml").write_text(
        'name = "default"\nversion = 3\n[rules.n_stars]\nleast = [1e6, 1e6, 1e6]'
    )
    changes, _ = await again(rig, "default", folder=tmp_path)
    assert len(changes) == 14
    (kept,) = [change for change in changes if change.person]
    assert (kept.image_id, kept.after, kept.event_id) == (odd, "D", None)
    # What the policy says of it is on record all the same.
    assert await count(rig, "outbox") == before + 13
    last = await rig.pool.fetchval(
        "SELECT grade FROM verdicts WHERE measurement_id = 'm-1000099p' ORDER BY created_at DESC LIMIT 1"
    )
    assert last == "D"


async def test_a_dry_run_changes_nothing(rig: Rig) -> None:
    await night(rig)
    changes, _ = await again(rig, dry_run=True)
    assert len(changes) == 14 * 4
    assert not any(change.event_id for change in changes)
    assert (await count(rig, "outbox"), await count(rig, "verdicts"), await count(rig, "grades")) == (0, 0, 0)


async def test_measurements_without_figures_are_left_as_they_are(rig: Rig) -> None:
    await night(rig)
    await rig.pool.execute("UPDATE measurements SET figures = '{}' WHERE measurement_id = 'm-1000099p'")
    changes, tally = await again(rig, "default")
    assert (tally.images, tally.without_figures, len(changes)) == (14, 1, 13)


async def test_only_the_images_that_are_meant_are_judged_again(rig: Rig) -> None:
    await night(rig)
    for which, n in (
        (Images(run="19B"), 1),
        (Images(filter="r"), 14),
        (Images(filter="u"), 0),
        (Images(object="D1"), 14),
    ):
        _, tally = await again(rig, "default", which=which, dry_run=True)
        assert tally.images == n, which


# ---- the commands ----


async def run(rig: Rig, home: Path, *arguments: str) -> Ended:
    return await spica("policy", *arguments, settings=rig.settings, home=home)


async def test_the_commands_list_explain_try_and_apply(rig: Rig, home: Path) -> None:
    await night(rig)
    await seed(rig, "1000055p", 0.65, ccd01={"condition": "dead"}, ccd02={"condition": "dead"})
    applied = await run(rig, home, "apply", "--json")
    assert (applied.code, applied.err) == (0, "")
    assert (applied.json["images"], len(applied.json["changes"])) == (15, 60)

    sharp = ("what-if", "--set", "fwhm_max=0.655")
    told, listed, shown_list, ended, shown, broken, tried, seen = await asyncio.gather(
        *(
            run(rig, home, *arguments)
            for arguments in (
                ("apply",),
                ("list", "--json"),
                ("list",),
                ("explain", "1000099p", "--json"),
                ("explain", "1000099p", "--policy", "weak_lensing"),
                ("explain", "1000055p"),
                (*sharp, "--filter", "r", "--run", "19A", "--json"),
                (*sharp, "--set", "ellipticity=0.1"),
            )
        )
    )
    assert "15 image(s) judged, 0 verdict(s) changed, 0 event(s) said." in told.out

    rows = {row["name"]: row for row in listed.json}
    assert rows["default"]["images"] == {"A": 12, "B": 1, "C": 0, "D": 2}
    assert rows["default"]["by_other_versions"] == 0
    assert rows["weak_lensing"]["file"].endswith("weak_lensing.toml")
    assert "faint extended light" in shown_list.out

    rules = {rule["rule"]: rule for rule in ended.json["rules"]}
    assert ended.json["verdict"] == "B"
    assert rules["fwhm_arcsec"]["z"] > 4
    assert rules["fwhm_arcsec"]["limits"] == {"A": "≤ 1″", "B": "≤ 1.3″", "C": "≤ 2″"}
    assert rules["central_dip"]["note"] == "not measured: ignored"
    for text in (
        "weak_lensing@1",
        "FWHM 0.98″ > 0.95″",
        "above this run",
        "On record",
        "that holds: B by policy",
    ):
        assert text in shown.out
    assert "2 of 4 CCDs are not to be used (weight 0)" in broken.out
    assert "No light, while the other CCDs saw the sky." in broken.out

    (group,) = tried.json["groups"]
    assert (group["images"], group["before"]["images"], group["after"]["images"]) == (14, 13, 6)
    assert group["depth_change_mag"] == pytest.approx(1.25 * math.log10(6 / 13), abs=1e-5)
    assert group["before"]["depth_mag"] == pytest.approx(24.5 + 1.25 * math.log10(13), abs=1e-4)
    assert group["before"]["fwhm_arcsec"] > group["after"]["fwhm_arcsec"]
    assert len(tried.json["leave"]) == 7
    assert sum(tried.json["histograms"]["fwhm_arcsec"]["counts"]) == 14
    for text in ("13 → 6", "FWHM ≤ 0.655″", "▲ 0.655", "Would leave: 7"):
        assert text in seen.out, seen.out
    assert await count(rig, "outbox") == 15


async def test_a_stack_is_explained_too(rig: Rig, home: Path) -> None:
    await rig.pool.execute(
        """INSERT INTO stacks (stack_id, request_id, name, filter, state, request, requested_at, grid, combine)
           VALUES ('s1', 'r1', 'deep', 'r', 'done', '{}', now(), '{}', 'clipped_mean')"""
    )
    await insert(
        rig,
        "measurements",
        {"measurement_id": "m-s1", "subject_kind": "stack", "subject_id": "s1", "metrics": {},
         "figures": {"n_ccds": 2, "n_stars": 900, "fwhm_arcsec": 0.9, "pixel_scale_arcsec": 0.186, "ellipticity": 0.2,
                     "usable_fraction": 0.3},
         "per_ccd": [{"condition": "blank"}, {"condition": "ok"}],
         "catalogue_path": "c", "weight_path": "w", "preview_path": "p"},
    )  # fmt: skip
    ended = await run(rig, home, "explain", "deep", "--json")
    assert (ended.json["kind"], ended.json["verdict"], ended.json["ccds_out"]) == ("stack", "B", [])
    assert "usable_fraction" not in {rule["rule"] for rule in ended.json["rules"]}


WRONG: tuple[tuple[tuple[str, ...], str], ...] = (
    (("explain", "1000098p"), "Did you mean 1000099p"),
    (("explain", "1000099p", "--policy", "weak-lensing"), "did you mean weak_lensing?"),
    (("show", "defautl"), "did you mean default?"),
    (("apply", "nothing"), "There are default, low_surface_brightness"),
    (("what-if", "--set", "elipticity=1"), "did you mean ellipticity"),
    (("what-if", "--set", "fwhm_max=1", "--grade", "A,E"), "are no grades"),
    (("what-if",), "--set"),
)


async def test_what_is_wrong_is_told_with_what_was_perhaps_meant(rig: Rig, home: Path) -> None:
    await seed(rig, "1000099p")
    results = await asyncio.gather(*(run(rig, home, *arguments) for arguments, _ in WRONG))
    for (arguments, complaint), ended in zip(WRONG, results, strict=True):
        assert ended.code == 2, arguments
        assert complaint in ended.err.replace("\n", " "), arguments
        assert "Traceback" not in ended.err


async def test_a_folder_that_cannot_be_used_stops_every_command(rig: Rig, home: Path, tmp_path: Path) -> None:
    (home / "spica.toml").write_text(f'[quality]\npolicies = "{tmp_path}"\n')
    (tmp_path / "faulty.toml").write_text('name = "x"\nversion = 1\n[rules.fwhm]\nmost = [1, 2, 3]')
    ended = await run(rig, home, "show", "default")
    assert (ended.code, "faulty.toml" in ended.err, "fwhm_arcsec" in ended.err) == (2, True, True)
    (tmp_path / "faulty.toml").write_text('name = "mine"\nversion = 5\n[rules.fwhm_arcsec]\nmost = [1, 2, 3]')
    shown = await run(rig, home, "show", "mine")
    assert (shown.code, "mine@5" in shown.out) == (0, True)
