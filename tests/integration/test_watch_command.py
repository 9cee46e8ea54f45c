"""`spica watch` as people run it, against a stand-in of the archive."""

from __future__ import annotations

import asyncio
import os
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from spica_console.cli import app
from spica_ingest.service import compose
from spica_ingest.settings import IngestSettings
from spica_proto.images import ImageRejected, ImageVerified
from spica_simulator import Night, simulate_night
from typer.testing import CliRunner

from tests.support.cadc import CadcStandIn
from tests.support.command import Ended, environment, spica
from tests.support.rig import Rig


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    return simulate_night(
        tmp_path_factory.mktemp("night"),
        n_ccds=2,
        ccd_shape=(256, 256),
        exposures_per_filter=1,
        filters=("r.SIM",),
        faintest_mag=22.0,
        galaxies=False,
        workers=1,
    )


@pytest.fixture
async def cadc() -> AsyncIterator[CadcStandIn]:
    async with CadcStandIn() as archive:
        yield archive


@pytest.fixture
def home(tmp_path: Path, cadc: CadcStandIn) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "spica.toml").write_text(
        f'[ingest]\narchive_registry_url = "{cadc.registry_url}"\narchive_retries = 0\n'
    )
    return folder


async def run(rig: Rig, home: Path, *arguments: str) -> Ended:
    """Run it in a thread of this process, which is quicker than a process of its own."""
    env = {name: value for name, value in environment(rig.settings, home).items() if name not in os.environ}
    settings = tomllib.loads((home / "spica.toml").read_text())["ingest"]
    env |= {f"SPICA_INGEST_{name.upper()}": str(value) for name, value in settings.items()}
    result = await asyncio.to_thread(CliRunner().invoke, app, ["watch", *arguments], env=env)
    return Ended(result.exit_code, result.stdout, result.stderr)


WATCH = (
    "d3",
    "--instrument",
    "MegaPrime",
    "--programme",
    "10BD90",
    "--level",
    "2",
    "--suffix",
    "p",
    "--since",
    "30d",
)


async def test_a_watch_is_tried_before_it_is_there_and_without_any_server(
    cadc: CadcStandIn, home: Path
) -> None:
    cadc.add("cadc:CFHT/1p.fits.fz", bytes(2_000_000), late_s=86_400 * 3, target="[bold]D3[/nonsense]")
    cadc.add("cadc:CFHT/2p.fits.fz", b"x", data_release=86_400.0)
    cadc.add("cadc:CFHT/3p.fits.fz", b"x", proposal_id="another")
    shown = await spica("watch", "add", *WATCH, "--dry-run", settings=None, home=home)
    assert (shown.code, shown.err) == (0, "")
    for text in (
        "cadc:CFHT/1p.fits.fz",
        "2.0 MB",
        "2023-02-25 06:00",
        "[bold]D3[/nonsense]",
        "waits for its release",
    ):
        assert text in shown.out
    assert "1 would be taken (2.0 MB), 1 would wait." in shown.out and "3p" not in shown.out
    listed = await spica(
        "watch", "add", *WATCH, "--dry-run", "--limit", "1", "--json", settings=None, home=home
    )
    assert (len(listed.json["files"]), listed.json["more"]) == (1, True)
    assert (
        listed.json["files"][0]["uri"] == "cadc:CFHT/2p.fits.fz" and listed.json["files"][0]["step"] == "wait"
    )


async def test_a_watch_is_added_run_followed_paused_and_removed(
    rig: Rig, cadc: CadcStandIn, night: Night, home: Path
) -> None:
    good, bad = night.frames[0], night.of_kind("corrupted")[0]
    for frame in (good, bad):
        cadc.add(f"cadc:CFHT/{frame.path.name}", frame.path.read_bytes(), late_s=3600)
    cadc.add("cadc:CFHT/77p.fits.fz", b"x", data_release=3600.0)
    added = await run(rig, home, "add", *WATCH, "--paused")
    assert (added.code, added.err) == (0, "")
    assert added.out.startswith("Watch d3 added: CFHT MegaPrime 10BD90 level 2 …p.fits, since 20")
    ahead = await run(rig, home, "run-once", "d3", "--dry-run", "--json")
    assert len(ahead.json["files"]) == 3

    settings = IngestSettings(workers=1, concurrency=2, archive_registry_url=cadc.registry_url)
    await rig.start("ingest", settings, compose)
    ended = await spica(
        "watch", "run-once", "d3", "--wait", "--timeout", "50", "--json", settings=rig.settings, home=home
    )
    assert ended.code == 1, ended.err
    states = {row["uri"].rsplit("/", 1)[1]: row["state"] for row in ended.json}
    assert states == {good.path.name: "verified", bad.path.name: "rejected"}
    (verified,) = await rig.wait_for(ImageVerified)
    assert (verified.name, verified.batch) == (good.path.name.removesuffix(".fits.fz"), "d3")

    listing = (await run(rig, home, "list", "--json")).json
    (row,) = listing["watches"]
    assert (row["state"], row["waiting"], row["on_the_way"], row["handled"]) == ("paused", 1, 0, 2)
    assert row["error"] is None and row["polled_at"] is not None and listing["folders"] == []
    shown = await run(rig, home, "show", "d3")
    assert "backfill changed: seen to 20" in shown.out and "1 waiting for their release" in shown.out

    cadc.clock.advance(3602)
    assert (await run(rig, home, "resume", "d3")).out == "Watch d3 is active.\n"
    rejected = await rig.wait_for(ImageRejected, count=2)
    assert "77p" in {event.name for event in rejected}
    assert (await run(rig, home, "remove", "d3")).out == "Watch d3 removed.\n"
    assert (await run(rig, home, "pause", "d3")).code == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("a b",), "NAME: Letters, digits and `._-`, 64 at most (found 'a b')"),
        (("x", "--cone", "1,2"), "--cone '1,2' is not RA,DEC,RADIUS in degrees"),
        (("x", "--cone", "1,2,3", "--polygon", "1,2 3,4 5,6"), "not both"),
        (("x", "--cone", "400,2,3"), "--cone: Input should be less than 360 (found '400.0')"),
        (("x", "--polygon", "400,2 3,4 5,6"), "--polygon: Input should be less than 360 (found '400.0')"),
        (("x", "--polygon", "1,2 3,4"), "such as '214,52 216,52 216,53 214,53'"),
        (("x", "--since", "yesterday"), "'yesterday' is no time"),
        (("x", "--since", "2999-01-01"), "lies in the future"),
        (("x", "--level", "7"), "--level: Input should be"),
        (("x", "--intent", "fun"), "--intent: Input should be"),
        (("x", "--suffix", "%"), "--suffix: End of the file's name"),
        (("x", "--interval", "0"), "--interval: Input"),
        (("x", "--filter", ""), "--filter: "),
    ],
)
def test_what_is_no_watch_is_wrong_usage(arguments: tuple[str, ...], told: str) -> None:
    result = CliRunner().invoke(app, ["watch", "add", *arguments])
    assert result.exit_code == 2
    assert told in result.output and result.output.startswith("spica: ") and result.output.count("\n") == 1


async def test_an_archive_that_is_away_is_unreachable_and_noted(
    rig: Rig, cadc: CadcStandIn, home: Path
) -> None:
    await run(rig, home, "add", *WATCH)
    cadc.fault("refuse", service="argus", times=None)
    ended = await run(rig, home, "run-once", "d3")
    assert ended.code == 3 and "503" in ended.err
    (row,) = (await run(rig, home, "list", "--json")).json["watches"]
    assert row["error"]["code"] == "archive_unavailable" and row["failures"] == 1
    assert "503" in (await run(rig, home, "show", "d3")).out


async def test_watched_folders_are_listed_too(rig: Rig, home: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "in [1]", tmp_path / "in2"]
    for folder in folders:
        folder.mkdir()
    (folders[0] / "a.fits").write_bytes(b"no image")
    settings = IngestSettings(
        workers=1, watch=(*folders, tmp_path / "gone"), watch_poll_s=0.2, watch_settle_s=0
    )
    await rig.start("ingest", settings, compose)
    await rig.until("SELECT count(*) = 3 AND sum(announced) = 1 FROM watched_folders")
    listing = (await run(rig, home, "list", "--json")).json
    assert {row["folder"]: (row["announced"], row["error"] is None) for row in listing["folders"]} == {
        str(folders[0]): (1, True),
        str(folders[1]): (0, True),
        str(tmp_path / "gone"): (0, False),
    }
    shown = await run(rig, home, "list")
    assert shown.code == 0 and "The folder is not there" in " ".join(shown.out.split())
