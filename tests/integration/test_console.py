"""The `spica` command on real servers, with stand-ins for the stages."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from spica_console import tailing
from spica_proto.images import ImageArrived, ImageGraded
from spica_proto.stacks import Selection, StackRequested
from spica_proto.subjects import BY_NAME
from spica_runtime.embedded.nats import EmbeddedNats

from tests.support import standin
from tests.support.command import Ended, begin, end, spica
from tests.support.rig import Rig


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
async def stages(rig: Rig) -> Rig:
    await standin.start_stages(rig)
    return rig


async def run(rig: Rig, home: Path, *arguments: str) -> Ended:
    return await spica(*arguments, settings=rig.settings, home=home)


async def fill(rig: Rig, folder: Path, *names: str, stack: str | None = None) -> None:
    """Bring images in, and make a stack of them, without the command: what a test looks at, not how."""
    for path in standin.frames(folder, *names):
        await rig.publish(ImageArrived(uri=str(path), batch="n1"))
    await rig.until(
        "SELECT (SELECT count(*) FROM rejections) + (SELECT count(*) FROM solutions)"
        " + (SELECT count(*) FROM dead_letters) + (SELECT count(*) FROM grades WHERE grade = 'D') = $1",
        len(names),
    )
    if stack is not None:
        selection = Selection(grades=("A", "B"))
        await rig.publish(StackRequested(request_id="r1", name=stack, selection=selection))
        await rig.until("SELECT count(*) = 1 FROM stacks WHERE state = 'exported'")
    await rig.until("SELECT count(*) = 0 FROM outbox WHERE sent_at IS NULL")


async def test_submit_waits_for_each_file_and_its_exit_code_tells(
    stages: Rig, home: Path, tmp_path: Path
) -> None:
    files = standin.frames(tmp_path / "in", "good1", "bad1", "blurred1", "broken1", "good 2")
    ended = await run(stages, home, "submit", *map(str, files), "--batch", "n1", "--wait", "--json")
    assert (ended.code, ended.err) == (1, "")
    rows = {row["file"]: row for row in ended.json}
    assert {name: row["state"] for name, row in rows.items()} == {
        "good1.fits": "calibrated",
        "bad1.fits": "rejected",
        "blurred1.fits": "graded",
        "broken1.fits": "failed",
        "good 2.fits": "calibrated",
    }
    assert rows["bad1.fits"]["reasons"][0]["code"] == "checksum_mismatch"
    assert rows["broken1.fits"]["reasons"][0]["code"] == "no_sources"
    assert rows["blurred1.fits"]["grade"] == "D"
    arrived = (await stages.events(ImageArrived))[0]
    assert (arrived.batch, arrived.source, arrived.size_bytes) == ("n1", "submit", files[0].stat().st_size)
    assert arrived.sha256 is not None

    again = await run(stages, home, "submit", str(files[0]), "--wait", "--json")
    assert again.code == 0, again.err
    assert again.json[0] | {"reasons": []} == {
        **rows["good1.fits"],
        "state": "known already",
        "rms_ra_mas": None,
        "rms_dec_mas": None,
        "reasons": [],
    }

    shown = await run(stages, home, "submit", str(tmp_path / "in"), "--wait")
    assert shown.code == 1
    for text in ("good1.fits", "known already", "bad1.fits", "The data were changed ("):
        assert text in shown.out


async def test_submit_without_waiting_returns_at_once(rig: Rig, home: Path, tmp_path: Path) -> None:
    await rig.bus.ensure_stream()
    files = standin.frames(tmp_path / "in", "a", "b")
    ended = await run(rig, home, "submit", str(tmp_path / "in"))
    assert (ended.code, ended.out.startswith("2 file(s) submitted.")) == (0, True), ended.err
    assert [Path(event.uri).name for event in await rig.events(ImageArrived)] == [file.name for file in files]


async def test_submit_of_nothing_is_wrong_usage(rig: Rig, home: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert (await run(rig, home, "submit", str(tmp_path / "empty"))).code == 2
    assert (await run(rig, home, "submit", str(tmp_path / "missing.fits"))).code == 2
    assert (await run(rig, home, "submit")).code == 2


async def test_waiting_ends_when_the_time_is_over(rig: Rig, home: Path, tmp_path: Path) -> None:
    await rig.bus.ensure_stream()
    standin.frames(tmp_path / "in", "a")
    ended = await run(rig, home, "submit", str(tmp_path / "in"), "--wait", "--timeout", "1")
    assert ended.code == 4
    assert "a.fits (arrived)" in ended.err


async def test_a_stack_is_asked_for_and_followed_to_its_export(
    stages: Rig, home: Path, tmp_path: Path
) -> None:
    await fill(stages, tmp_path / "in", "good1", "good2", "blurred1")
    asked = ("stack", "request", "--name", "D1", "--request-id", "r1", "--grade", "A,B", "--wait")
    ended = await run(stages, home, *asked, "--json")
    assert ended.code == 0, ended.err
    row = ended.json
    assert (row["state"], row["n_exposures"], row["n_left_out"]) == ("exported", 2, 1)
    assert {file["kind"] for file in row["files"]} == {"image", "weight", "catalogue", "preview"}
    shown = await run(stages, home, *asked)
    assert (shown.code, "D1 exported" in shown.out) == (0, True), "the same request is the same stack"
    assert len((await run(stages, home, "stack", "list", "--json")).json) == 1
    listed = await run(stages, home, "stack", "list")
    assert "stack-r1" in listed.out

    wish = tmp_path / "wish.json"
    wish.write_text(json.dumps({"min_exposures": 9, "selection": {"grades": ["D"]}}))
    failed = await run(stages, home, "stack", "request", "--file", str(wish), "--wait")
    assert failed.code == 1
    assert "too_few_exposures" in failed.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--combine", "mode"), "combine"),
        (("--grade", "A,E"), "selection.grades[2]"),
        (("--name", "../x"), "name"),
    ],
)
async def test_a_request_that_does_not_fit_is_wrong_usage(
    rig: Rig, home: Path, arguments: tuple[str, ...], told: str
) -> None:
    ended = await run(rig, home, "stack", "request", *arguments)
    assert (ended.code, told in ended.err) == (2, True), ended.err


async def test_tail_prints_every_event_of_a_run(stages: Rig, home: Path, tmp_path: Path) -> None:
    await fill(stages, tmp_path / "in", "good1", "bad1")
    whole = await run(stages, home, "tail", "--since", "start", "--no-follow", "--json")
    assert whole.code == 0, whole.err
    subjects = [event["subject"] for event in whole.lines]
    assert sorted(subjects) == [
        "image.arrived",
        "image.arrived",
        "image.calibrated",
        "image.graded",
        "image.rejected",
        "image.verified",
    ]
    for event in whole.lines:
        assert set(event) == {"subject", "id", "time", "source", "sequence", "data"}
        assert BY_NAME[event["subject"]].model.model_validate(event["data"])
    assert [event["sequence"] for event in whole.lines] == list(range(1, 7))

    some = await run(
        stages, home, "tail", "image.rejected", "image.graded", "--since", "1h", "--no-follow", "--json"
    )
    assert sorted(event["subject"] for event in some.lines) == ["image.graded", "image.rejected"]
    first = await run(stages, home, "tail", "image.>", "--since", "start", "-n", "2", "--json")
    assert [event["sequence"] for event in first.lines] == [1, 2]
    plain = await run(stages, home, "tail", "--since", "start", "--no-follow")
    assert "good1  B  FWHM 0.84″" in plain.out
    none = await run(stages, home, "tail", "--no-follow", "--json")
    assert none.out == "", "without --since only what comes is shown"


async def test_tail_follows_and_survives_a_restart_of_the_server(
    rig: Rig, home: Path, nats_server: EmbeddedNats
) -> None:
    await rig.publish(ImageArrived(uri="/before.fits"))
    tail = await begin(
        "tail", "image.>", "--since", "start", "-n", "3", "--json", settings=rig.settings, home=home
    )
    assert tail.stdout is not None
    first = json.loads(await asyncio.wait_for(tail.stdout.readline(), 20))
    assert first["data"]["uri"] == "/before.fits"
    await rig.publish(ImageArrived(uri="/while.fits"))
    second = json.loads(await asyncio.wait_for(tail.stdout.readline(), 20))
    assert second["data"]["uri"] == "/while.fits"
    assert nats_server.child is not None
    nats_server.child.kill()
    await nats_server.start()
    await rig.bus.nc.flush()
    await rig.publish(ImageArrived(uri="/after.fits"))
    third = json.loads(await asyncio.wait_for(tail.stdout.readline(), 30))
    assert third["data"]["uri"] == "/after.fits"
    assert (await end(tail)).code == 0


async def test_show_tells_all_of_an_image_and_why_it_is_in_a_stack_or_not(
    stages: Rig, home: Path, tmp_path: Path
) -> None:
    await fill(stages, tmp_path / "in", "good1", "blurred1", "bad1", "broken1", stack="D1")

    facts = (await run(stages, home, "show", "blurred1", "--json")).json
    assert facts["kind"] == "image"
    image = facts["image"]
    assert [row["grade"] for row in image["grades"]] == ["D"]
    assert [(row["name"], row["selected"], row["rule"], row["found"]) for row in image["stacks"]] == [
        ("D1", False, "grades", "D")
    ]
    assert image["header"] == {"OBJECT": "D1"}
    shown = await run(stages, home, "show", "good1")
    for text in ("MegaPrime", "batch n1", "policy:default@1", "Solutions", "D1", "grades"):
        assert text in shown.out, shown.out
    by_id = await run(stages, home, "show", image["image_id"][:12], "--json")
    assert by_id.json["image"]["name"] == "blurred1"

    stack = (await run(stages, home, "show", "D1", "--json")).json
    assert stack["kind"] == "stack"
    assert {row["name"]: row["selected"] for row in stack["stack"]["members"]} == {
        "good1": True,
        "blurred1": False,
    }
    assert "clipped_mean" in (await run(stages, home, "show", "r1")).out
    rejected = await run(stages, home, "show", "bad1")
    assert "checksum_mismatch" in rejected.out
    broken = await run(stages, home, "show", "broken1")
    assert "no_sources" in broken.out
    nothing = await run(stages, home, "show", "nothing")
    assert (nothing.code, "nothing" in nothing.err) == (2, True)


def ancestors(node: dict[str, Any]) -> set[str]:
    inner = node.get("made_by", {}).get("used", [])
    return {node["path"]}.union(*(ancestors(child) for child in inner))


async def test_lineage_leads_from_a_stack_back_to_the_files(stages: Rig, home: Path, tmp_path: Path) -> None:
    await fill(stages, tmp_path / "in", "good1", "good2", stack="D1")
    path = "stacks/stack-r1/D1.ldac"
    (tree,) = (await run(stages, home, "lineage", path, "--json")).json
    assert tree["made_by"]["service"] == "quality"
    assert tree["made_by"]["configuration"]["max_attempts"] == 2
    reached = ancestors(tree)
    assert {"images/19AQ02/r/good1.fits", "images/19AQ02/r/good2.fits", "stacks/stack-r1/D1.fits"} <= reached
    absolute = await run(stages, home, "lineage", str(stages.data.root / path), "--json")
    assert absolute.json == [tree]
    of_stack = (await run(stages, home, "lineage", "D1", "--json")).json
    assert {node["path"].rsplit("/", 1)[1] for node in of_stack} >= {"D1.ldac", "D1.png", "D1.weight.fits"}
    shown = await run(stages, home, "lineage", "good1")
    assert "quality" in shown.out
    assert "images/19AQ02/r/good1.fits" in shown.out
    assert (await run(stages, home, "lineage", "nothing")).code == 2


async def test_a_persons_grade_is_one_more_event_and_the_services_react(
    stages: Rig, home: Path, tmp_path: Path
) -> None:
    await fill(stages, tmp_path / "in", "blurred1")
    given = await run(stages, home, "grade", "blurred1", "C", "--why", "good enough for the halo", "--json")
    assert given.code == 0, given.err
    events = await stages.wait_for(ImageGraded, count=2)
    assert [event.grade for event in events] == ["D", "C"]
    assert events[1].graded_by.startswith("person:")
    assert events[1].comment == "good enough for the halo"
    await stages.until("SELECT count(*) = 1 FROM solutions")
    rows = await stages.pool.fetch("SELECT grade, comment FROM grades ORDER BY created_at")
    assert [tuple(row) for row in rows] == [("D", None), ("C", "good enough for the halo")]
    for wrong in (
        ("blurred1", "E", "--why", "x"),
        ("blurred1", "A", "--why", " "),
        ("no", "A", "--why", "x"),
    ):
        assert (await run(stages, home, "grade", *wrong)).code == 2


async def test_dead_letters_are_listed_shown_and_sent_again(stages: Rig, home: Path, tmp_path: Path) -> None:
    await fill(stages, tmp_path / "in", "broken1")
    (letter,) = (await run(stages, home, "dead-letters", "list", "--json")).json
    assert (letter["service"], letter["code"], letter["numbers"]) == (
        "quality",
        "no_sources",
        {"n_sources": 0},
    )
    assert "no_sources" in (await run(stages, home, "dead-letters", "list")).out
    shown = await run(stages, home, "dead-letters", "show", letter["dead_letter_id"][:6])
    assert "broken1" in shown.out
    assert (await run(stages, home, "dead-letters", "show", "zzz")).code == 2
    assert (await run(stages, home, "dead-letters", "resend")).code == 2
    sent = await run(stages, home, "dead-letters", "resend", "--all", "--json")
    assert [row["dead_letter_id"] for row in sent.json] == [letter["dead_letter_id"]]
    await stages.until("SELECT count(*) = 2 FROM dead_letters")
    assert len((await run(stages, home, "dead-letters", "list", "--json")).json) == 1, "it failed again"
    assert len((await run(stages, home, "dead-letters", "list", "--all", "--json")).json) == 2


async def test_status_tells_who_is_there_and_who_is_not(rig: Rig, home: Path) -> None:
    await rig.bus.ensure_stream()
    alone = await run(rig, home, "status", "--json")
    assert alone.code == 1
    assert alone.json["missing_services"] == ["ingest", "quality", "calib", "stack", "export"]
    await standin.start_stages(rig)
    ended = await run(rig, home, "status", "--json")
    assert ended.code == 0, ended.err
    assert sorted(row["service"] for row in ended.json["services"]) == [
        "calib",
        "export",
        "ingest",
        "quality",
        "stack",
    ]
    assert all(row["health_url"].startswith("http://") for row in ended.json["services"])
    assert {row["waiting"] for row in ended.json["backlog"]} == {0}
    assert ended.json["counts"]["dead_letters"] == 0
    assert "ingest" in (await run(rig, home, "status")).out


async def test_doctor_looks_at_everything_and_finds_what_is_wrong(rig: Rig, home: Path) -> None:
    """The tests' PostgreSQL runs without fsync, for speed: doctor must say so, and find all else well."""
    ended = await run(rig, home, "doctor", "--json")
    assert ended.code == 1, ended.out
    found = {row["what"]: row["state"] for row in ended.json}
    assert [what for what, state in found.items() if state in ("bad", "away")] == ["fsync"]
    assert found["PostgreSQL"] == found["migrations"] == found["NATS"] == found["JetStream"] == "ok"
    shown = await run(rig, home, "doctor")
    assert "Switch fsync on" in shown.out


async def test_migrate_is_safe_to_repeat(rig: Rig, home: Path) -> None:
    ended = await run(rig, home, "migrate", "--json")
    assert ended.code == 0, ended.err
    assert ended.json["before"] == ended.json["after"] is not None


@pytest.mark.parametrize(
    "arguments",
    [("status",), ("tail",), ("show", "x"), ("dead-letters", "list"), ("stack", "request"), ("migrate",)],
)
async def test_without_servers_the_exit_code_is_three_and_the_message_says_how_to_start(
    home: Path, arguments: tuple[str, ...]
) -> None:
    from spica_runtime.settings import PlatformSettings

    nowhere = PlatformSettings(
        nats_url="nats://127.0.0.1:9", database_url="postgresql://127.0.0.1:9/x", data=home / "data"
    )
    ended = await spica(*arguments, settings=nowhere, home=home)
    assert ended.code == 3, ended.err
    assert "spica up" in ended.err
    assert "Traceback" not in ended.err


async def test_a_server_without_spica_on_it_is_told_apart(rig: Rig, home: Path) -> None:
    ended = await run(rig, home, "tail", "--since", "start", "--no-follow")
    assert ended.code == 3
    assert "no stream of Spica yet" in ended.err


async def test_events_that_are_lost_on_the_way_are_read_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads history must not wait for ever for what was delivered and did not come."""
    await rig.bus.ensure_stream()
    for name in ("/1", "/2", "/3"):
        await rig.publish(ImageArrived(uri=name))
    fetch, lost = tailing._fetch, []

    async def lose_the_first(subscription: Any, waiting: int) -> Any:
        messages = await fetch(subscription, waiting)
        if messages and not lost:
            lost.extend(messages)
            return None
        return messages

    monkeypatch.setattr(tailing, "_fetch", lose_the_first)
    monkeypatch.setattr(tailing, "_POLL_S", 0.2)
    monkeypatch.setattr(tailing, "_RETRY_S", 0.01)
    whole = tailing.Start(everything=True)
    async with asyncio.timeout(20):
        heard = [event.data["uri"] async for event in tailing.events(rig.bus, start=whole, follow=False)]
    assert heard == ["/1", "/2", "/3"]
    assert lost


async def test_show_sums_up_the_many_parts_of_a_stack(stages: Rig, home: Path, tmp_path: Path) -> None:
    """Three hundred members: a line for each step, and what made the files, not a row for every part."""
    await fill(stages, tmp_path / "in", "good1", "good2", stack="D1")
    before = (await run(stages, home, "show", "D1", "--json")).json["stack"]
    await stages.pool.execute(
        "INSERT INTO stack_parts (stack_id, step, number, done_at, host, elapsed_s) "
        "SELECT $1, 'prepare', n, now(), 'host' || n % 5, 0.5 FROM generate_series(0, 299) n",
        before["stack_id"],
    )
    await stages.pool.execute(
        "INSERT INTO stack_parts (stack_id, step, number) VALUES ($1, 'tile', 0)", before["stack_id"]
    )
    await stages.pool.execute(
        "INSERT INTO activities (activity_id, service, name, version, configuration, subject, about, started_at, "
        "ended_at, host, outcome) SELECT 'part ' || n, 'stack', 'part', '1', '{}', 'stack.part_wanted', $1, now(), now(), "
        "'h', 'prepare ' || n FROM generate_series(0, 299) n",
        before["stack_id"],
    )  # fmt: skip
    after = (await run(stages, home, "show", "D1", "--json")).json["stack"]
    assert after["activities"] == before["activities"]
    prepare, tile = after["parts"]
    assert (prepare["step"], prepare["parts"], prepare["done"], prepare["work_s"]) == (
        "prepare",
        300,
        300,
        150.0,
    )
    assert (tile["step"], tile["parts"], tile["done"], tile["hosts"]) == ("tile", 1, 0, None)
    shown = await run(stages, home, "show", "D1")
    assert "preparing members: 300 of 300 done in 2 min 30 s (the longest 0 s) on host0" in " ".join(
        shown.out.split()
    )
    assert "making tiles: 0 of 1 done" in shown.out
