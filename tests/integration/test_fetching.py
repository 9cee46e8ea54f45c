"""Ingest and an archive: files come from there, told of meanwhile, and never in the way of files that are here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from spica_ingest.service import compose
from spica_ingest.settings import IngestSettings
from spica_proto.images import (
    ImageArrived,
    ImageFailed,
    ImageProgress,
    ImageRejected,
    ImageVerified,
    ImageWanted,
)
from spica_runtime.storage import sha256_of

from tests.support.cadc import CadcStandIn
from tests.support.command import spica
from tests.support.rig import Rig
from tests.unit.ingest.frames import frame

SETTINGS = IngestSettings(
    workers=1,
    concurrency=2,
    retry_delays_s=(0.05,),
    max_attempts=2,
    archive_retry_first_s=0.05,
    archive_retry_longest_s=0.1,
    archive_retries=2,
    fetch_reserve_bytes=0,
    fetch_concurrency=2,
)


def uri(number: int) -> str:
    return f"cadc:CFHT/{number}p.fits.fz"


@pytest.fixture
async def cadc() -> AsyncIterator[CadcStandIn]:
    async with CadcStandIn(minoc_apart=True) as cadc:
        yield cadc


async def start(rig: Rig, cadc: CadcStandIn, **changes: Any) -> asyncio.Event:
    settings = SETTINGS.model_copy(update={"archive_registry_url": cadc.registry_url, **changes})
    return await rig.start("ingest", settings, compose)


@asynccontextmanager
async def listening(rig: Rig) -> AsyncIterator[list[ImageProgress]]:
    heard: list[ImageProgress] = []

    async def hear(message: Any) -> None:
        heard.append(ImageProgress.model_validate_json(message.data))

    subscription = await rig.bus.nc.subscribe("progress.image", cb=hear)
    await rig.bus.nc.flush()
    yield heard
    await subscription.unsubscribe()


def staged(rig: Rig) -> list[Path]:
    area = rig.data.root / ".staging"
    return list(area.iterdir()) if area.is_dir() else []


def downloads(cadc: CadcStandIn) -> list[Any]:
    return [entry for entry in cadc.requests("minoc", method="GET") if "META" not in entry.query]


async def test_a_file_of_the_archive_is_taken_in(rig: Rig, cadc: CadcStandIn) -> None:
    token = cadc.user("ada", token="top-secret-token")
    stored = cadc.add(uri(1), frame(compressed=True), data_release=None, readers=("ada",))
    async with listening(rig) as heard:
        await start(rig, cadc, archive_token=SETTINGS.model_validate({"archive_token": token}).archive_token)
        await rig.publish(
            ImageArrived(
                uri=uri(1), source="cadc", size_bytes=stored.size_bytes, md5=stored.md5.hex(), batch="w"
            )
        )
        (event,) = await rig.wait_for(ImageVerified)
    assert (event.name, event.uri, event.batch, event.n_ccds) == ("1p", uri(1), "w", 2)
    assert sha256_of(rig.data.path(event.file.path)) == event.file.sha256
    assert rig.data.path(event.file.path).read_bytes() == stored.read()
    assert staged(rig) == []
    assert [message.ended for message in heard][-1:] == [True]
    assert (heard[-1].name, heard[-1].uri, heard[-1].done) == ("1p", uri(1), stored.size_bytes)
    assert await rig.events(ImageFailed) == []
    # What is kept of how it came does not tell the token.
    kept = await rig.pool.fetch("SELECT * FROM activities")
    assert len(kept) == 2 and "archive_token" in str(kept)
    assert token not in json.dumps([dict(row) for row in kept], default=str)


async def test_what_headers_speak_against_is_not_fetched(rig: Rig, cadc: CadcStandIn) -> None:
    bias, untimed = {"EXPTIME": 0.0, "OBSTYPE": "BIAS"}, {"EXPTIME": None}
    cadc.add(uri(1), frame(primary=bias, compressed=True))
    cadc.add(uri(2), frame(primary=untimed))
    await start(rig, cadc)
    for number in (1, 2):
        await rig.publish(ImageArrived(uri=uri(number), source="cadc"))
    rejected = {event.name: event for event in await rig.wait_for(ImageRejected, count=2)}
    assert [reason.code for reason in rejected["1p"].reasons] == ["keyword_range"]
    assert [reason.code for reason in rejected["2p"].reasons] == ["keyword_missing"]
    assert rejected["1p"].set_aside is None and rejected["1p"].sha256 is None
    assert downloads(cadc) == []
    assert staged(rig) == []
    await rig.until("SELECT count(*) = 2 FROM rejections WHERE set_aside IS NULL")


async def test_headers_that_cannot_be_had_do_not_matter(rig: Rig, cadc: CadcStandIn) -> None:
    cadc.add("cadc:CFHT/1p", frame(), content_type="application/octet-stream")
    cadc.add(uri(2), frame())
    await start(rig, cadc, fetch_hosts=(cadc.minoc_url.removeprefix("http://"),))
    await rig.publish(ImageArrived(uri="cadc:CFHT/1p"))
    await rig.publish(ImageArrived(uri=f"{cadc.minoc_url}/cadc/minoc/files/{uri(2)}", name="by address"))
    verified = await rig.wait_for(ImageVerified, count=2)
    assert {event.name for event in verified} == {"1p", "by_address"}


async def test_files_that_are_here_do_not_wait_behind_downloads(
    rig: Rig, cadc: CadcStandIn, tmp_path: Path
) -> None:
    for number in range(30):
        cadc.add(uri(number), frame(primary={"OBJECT": str(number)}))
    cadc.fault("slow", service="minoc", method="GET", bytes_per_s=500, times=None)
    await start(rig, cadc, fetch_look_first=False, shutdown_grace_s=0.1)
    for number in range(30):
        await rig.publish(ImageArrived(uri=uri(number)))
    await rig.wait_for(ImageWanted, count=30)
    here = tmp_path / "here.fits"
    here.write_bytes(frame())
    await rig.publish(ImageArrived(uri=str(here)))
    (event,) = await rig.wait_for(ImageVerified, timeout_s=15)
    assert event.name == "here"
    assert 1 <= len(downloads(cadc)) <= 2  # as many as are fetched at the same time


async def test_an_archive_that_is_away_is_waited_for(rig: Rig, cadc: CadcStandIn) -> None:
    cadc.add(uri(1), frame())
    cadc.fault("close", service="registry", times=None)
    await start(rig, cadc)
    await rig.publish(ImageArrived(uri=uri(1)))
    # Put back more often than a failure would be forgiven.
    await rig.until(
        "SELECT begun >= 1 FROM attempts JOIN outbox ON message_id = event_id WHERE outbox.subject = 'image.wanted'"
    )
    async with asyncio.timeout(20):
        while len(cadc.requests("registry")) < 7:
            await asyncio.sleep(0.1)
    assert await rig.events(ImageFailed) == []
    cadc.faults.clear()
    (event,) = await rig.wait_for(ImageVerified)
    assert event.name == "1p"


async def test_a_version_that_was_replaced_is_left_to_its_successor(rig: Rig, cadc: CadcStandIn) -> None:
    old = cadc.add(uri(1), frame())
    new = cadc.replace(uri(1), frame(primary={"OBJECT": "again"}))
    await start(rig, cadc, fetch_look_first=False)
    await rig.publish(ImageArrived(uri=uri(1), md5=old.md5.hex(), modified_at=old.modified))
    await rig.publish(ImageArrived(uri=uri(1), md5=new.md5.hex(), modified_at=new.modified))
    (rejected,) = await rig.wait_for(ImageRejected)
    assert [reason.code for reason in rejected.reasons] == ["archive_newer_version"]
    (event,) = await rig.wait_for(ImageVerified)
    assert rig.data.path(event.file.path).read_bytes() == new.read()
    # One that the archive does not have yet may still come: it is asked for again, and then told to people.
    later = datetime(2100, 1, 1, tzinfo=UTC)
    await rig.publish(ImageArrived(uri=uri(1), md5="0" * 32, modified_at=later))
    (failed,) = await rig.wait_for(ImageFailed)
    assert (failed.code, failed.attempts, failed.heard) == ("archive_other_version", 2, "image.wanted")


async def test_the_same_file_told_twice_is_one_image(rig: Rig, cadc: CadcStandIn) -> None:
    cadc.add(uri(1), frame())
    await start(rig, cadc)
    for _ in range(3):
        await rig.publish(ImageArrived(uri=uri(1)))
    await rig.until("SELECT count(*) = 6 FROM inbox")
    await rig.until("SELECT count(*) = 0 FROM outbox WHERE sent_at IS NULL")
    assert len(await rig.events(ImageVerified)) == 1
    assert staged(rig) == []


async def test_what_cannot_be_fetched_says_why(rig: Rig, cadc: CadcStandIn) -> None:
    cadc.add(uri(2), frame(), data_release=None)
    await start(rig, cadc)
    for address in ("https://example.org/a.fits", "cadc:nothing", "http://127.0.0.1:4222/", uri(1), uri(2)):
        await rig.publish(ImageArrived(uri=address))
    failed = await rig.wait_for(ImageFailed, count=5)
    assert sorted((event.code, event.attempts) for event in failed) == [
        ("archive_forbidden", 1),
        ("archive_no_such_file", 2),
        *[("unsupported_uri", 1)] * 3,
    ]


async def test_submit_takes_addresses(rig: Rig, cadc: CadcStandIn, home: Path) -> None:
    cadc.add(uri(1), frame(primary={"EXPTIME": 0.0}))
    cadc.add(uri(2), frame())
    await start(rig, cadc)
    ended = await spica("submit", uri(1), "--wait", "--json", settings=rig.settings, home=home)
    assert (ended.code, ended.err) == (1, "")
    (row,) = ended.json
    assert (row["file"], row["state"]) == ("1p.fits.fz", "rejected")
    assert row["reasons"][0]["code"] == "keyword_range"
    ended = await spica("submit", uri(2), "--batch", "b", settings=rig.settings, home=home)
    assert (ended.code, ended.out.startswith("1 file(s) submitted.")) == (0, True), ended.err
    (event,) = await rig.wait_for(ImageVerified)
    assert (event.uri, event.batch) == (uri(2), "b")
    ended = await spica("submit", "nonsense:CFHT/1p.fits", settings=rig.settings, home=home)
    assert ended.code == 2 and "cadc:, http:, https:" in ended.err
