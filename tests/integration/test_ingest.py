"""The ingest service on real NATS and PostgreSQL: files in, verdicts out."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest
from spica_ingest.service import compose
from spica_ingest.settings import IngestSettings
from spica_ingest.store import FolderLedger
from spica_proto.images import ImageArrived, ImageFailed, ImageRejected, ImageVerified
from spica_runtime.storage import sha256_of
from spica_simulator import Night, simulate_night

from tests.support.rig import Rig

SETTINGS = IngestSettings(
    workers=1, concurrency=4, retry_delays_s=(0.05,), max_attempts=3, watch_poll_s=0.3, watch_settle_s=0.3
)


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


async def start(rig: Rig, **changes: object) -> asyncio.Event:
    return await rig.start("ingest", SETTINGS.model_copy(update=changes), compose)


async def test_a_night_is_taken_in_and_what_is_bad_is_set_aside(rig: Rig, night: Night) -> None:
    await start(rig)
    for frame in night.frames:
        await rig.publish(ImageArrived(uri=str(frame.path), source="submit", batch="n1"))
    verified = await rig.wait_for(ImageVerified, count=3)
    (rejected,) = await rig.wait_for(ImageRejected)
    assert {event.name: event.wcs for event in verified} == {
        "900001p": "full",
        "900003p": "pointing",
        "900004p": "full",
    }
    for event in verified:
        assert event.file.path == f"images/25BQ07/r.SIM/{event.name}.fits.fz"
        stored = rig.data.path(event.file.path)
        assert sha256_of(stored) == event.file.sha256 == sha256_of(night.frame(event.name).path)
        assert event.image_id == f"{event.name}.{event.file.sha256[:12]}"
        assert (event.profile, event.n_ccds, event.batch) == ("megasim", 2, "n1")
        assert event.pointing.ra_deg == pytest.approx(214.85, abs=0.05)
    assert rejected.name == "900002p"
    assert {reason.code for reason in rejected.reasons} == {"datasum_mismatch", "truncated"}
    assert rejected.set_aside is not None
    assert sha256_of(rig.data.path(rejected.set_aside)) == rejected.sha256
    await rig.until("SELECT count(*) = 3 FROM images")
    row = await rig.pool.fetchrow("SELECT * FROM images WHERE name = '900001p'")
    assert row is not None
    assert (row["run"], row["filter"], row["wcs"], row["n_ccds"]) == ("25BQ07", "r.SIM", "full", 2)
    assert row["header"]["OBJECT"] == "SIM-D3" and "COMMENT" not in row["header"]
    ccds = await rig.pool.fetch("SELECT * FROM ccds WHERE image_id = $1 ORDER BY hdu", row["image_id"])
    assert [(ccd["hdu"], ccd["name"], ccd["naxis1"], ccd["naxis2"]) for ccd in ccds] == [
        (1, "ccd00", 256, 256),
        (2, "ccd01", 256, 256),
    ]
    assert all(len(ccd["footprint"]) == 8 and ccd["header"]["GAIN"] == 1.6 for ccd in ccds)
    assert await rig.pool.fetchval("SELECT reasons->0->>'code' FROM rejections") in (
        "datasum_mismatch",
        "truncated",
    )
    made = await rig.pool.fetchval(
        "SELECT count(*) FROM was_generated_by JOIN activities USING (activity_id) WHERE service = 'ingest'"
    )
    assert made == 4


async def test_the_same_content_again_is_no_second_image_and_other_content_is_one(
    rig: Rig, night: Night, tmp_path: Path
) -> None:
    await start(rig)
    path = night.frames[0].path
    copy, other = tmp_path / "copy" / path.name, tmp_path / "other" / path.name
    for target, source in ((copy, path), (other, night.of_kind("out_of_focus")[0].path)):
        target.parent.mkdir()
        shutil.copy(source, target)
    # At the same time, so that they race for the name.
    for uri in (str(path), f"file://{copy}", str(path), str(other)):
        await rig.publish(ImageArrived(uri=uri))
    await rig.until("SELECT count(*) = 4 FROM inbox")
    await rig.until("SELECT count(*) = 0 FROM outbox WHERE sent_at IS NULL")
    verified = await rig.events(ImageVerified)
    assert {event.name for event in verified} == {"900001p"}
    assert len(verified) == len({event.image_id for event in verified}) == 2
    assert len({event.file.path for event in verified}) == 2
    for event in verified:
        assert sha256_of(rig.data.path(event.file.path)) == event.file.sha256
    assert await rig.pool.fetchval("SELECT count(*) FROM activities") == 4
    files = [p for p in (rig.data.root / "images").rglob("*") if p.is_file()]
    assert len(files) == 2
    assert list((rig.data.root / ".staging").iterdir()) == []


async def test_what_cannot_be_fetched_becomes_a_dead_letter_that_says_why(rig: Rig, tmp_path: Path) -> None:
    await start(rig)
    await rig.publish(ImageArrived(uri=str(tmp_path / "gone.fits")))
    await rig.publish(ImageArrived(uri="https://example.org/a.fits"))
    await rig.publish(ImageArrived(uri=str(tmp_path)))
    failed = await rig.wait_for(ImageFailed, count=3)
    assert {event.code: event.attempts for event in failed} == {
        "file_not_found": 3,
        "unsupported_uri": 1,
        "not_a_file": 1,
    }
    assert await rig.pool.fetchval("SELECT count(*) FROM images") == 0


async def test_a_file_that_comes_late_is_waited_for(rig: Rig, night: Night, tmp_path: Path) -> None:
    await start(rig, retry_delays_s=(0.5,), max_attempts=10)
    late = tmp_path / "late.fits.fz"
    await rig.publish(ImageArrived(uri=str(late)))
    await rig.until("SELECT sum(failed) >= 1 FROM attempts")
    shutil.copy(night.frames[0].path, late)
    (event,) = await rig.wait_for(ImageVerified)
    assert event.name == "late"


async def test_not_even_a_fits_file_stops_the_service(rig: Rig, night: Night, tmp_path: Path) -> None:
    await start(rig)
    for number, content in enumerate((b"", b"<html>404</html>", bytes(10000), b"\x1f\x8b garbage")):
        bad = tmp_path / f"bad{number}.fits"
        bad.write_bytes(content)
        await rig.publish(ImageArrived(uri=str(bad)))
    await rig.publish(ImageArrived(uri=str(night.frames[0].path)))
    assert len(await rig.wait_for(ImageVerified)) == 1
    rejected = await rig.wait_for(ImageRejected, count=4)
    assert sorted(event.reasons[0].code for event in rejected) == [
        "damaged_compression",
        "empty_file",
        "not_fits",
        "not_fits",
    ]


async def test_a_watched_folder_is_taken_in_once_also_across_restarts(
    rig: Rig, night: Night, tmp_path: Path
) -> None:
    folder = tmp_path / "incoming"
    (folder / "n7").mkdir(parents=True)
    shutil.copy(night.frames[0].path, folder / "n7")
    (folder / "half.fits.fz.part").write_bytes(b"still coming")
    stop = await start(rig, watch=(folder,))
    (event,) = await rig.wait_for(ImageVerified)
    assert (event.name, event.batch) == ("900001p", "n7")
    stop.set()
    await asyncio.sleep(0.5)

    await start(rig, watch=(folder,))
    shutil.copy(night.of_kind("no_wcs")[0].path, folder / "n7")
    await rig.wait_for(ImageVerified, count=2)
    assert await rig.pool.fetchval("SELECT count(*) FROM folder_ledger") == 2
    assert len(await rig.events(ImageArrived)) == 2


def write_odd(path: Path) -> None:
    try:
        path.write_bytes(b"no image")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")


async def test_a_watched_name_that_is_not_utf_8_is_taken_in_and_holds_nothing_up(
    rig: Rig, night: Night, tmp_path: Path
) -> None:
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    odd = Path(os.fsdecode(os.fsencode(incoming) + b"/\xe9.fits"))
    write_odd(odd)
    shutil.copy(night.frames[0].path, incoming / "z.fits.fz")
    stop = await start(rig, watch=(incoming,))
    (rejected,) = await rig.wait_for(ImageRejected)
    (verified,) = await rig.wait_for(ImageVerified)
    assert (rejected.uri, verified.name) == (f"file://{incoming}/%E9.fits", "z")
    stop.set()
    # A restart knows it by the same address.
    await start(rig, watch=(incoming,))
    shutil.copy(night.frames[0].path, incoming / "zz.fits.fz")
    await rig.wait_for(ImageVerified, count=2)
    assert len(await rig.events(ImageArrived)) == 3
    known = await FolderLedger(rig.pool).known(incoming)
    assert {path for path, _, _ in known} == {
        f"file://{incoming}/%E9.fits", f"{incoming}/z.fits.fz", f"{incoming}/zz.fits.fz"
    }  # fmt: skip
