"""Calibration frames that headers name: asked for once, fetched, verified, filed away, or said not to be had."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import spica_imaging.profiles
from spica_ingest.auxiliary.handlers import find_frame
from spica_ingest.recording import Asking
from spica_ingest.science.columns import Named
from spica_ingest.service import compose
from spica_ingest.settings import IngestSettings
from spica_proto.images import AuxiliaryRegistered, AuxiliaryWanted, ImageArrived, ImageVerified
from spica_runtime.storage import sha256_of

from tests.support.cadc import CadcStandIn
from tests.support.command import spica
from tests.support.exposures import exposure_at, take_in
from tests.support.rig import Rig
from tests.unit.ingest.frames import frame, write

SETTINGS = IngestSettings(
    workers=1,
    retry_delays_s=(0.05,),
    max_attempts=2,
    archive_retry_first_s=0.02,
    archive_retry_longest_s=0.05,
    archive_retries=1,
    fetch_reserve_bytes=0,
    fetch_look_first=False,
)
FLAT, MASK = "10Bm03.flat.r.36.01", "2003A.mask.0.36.02"
NAMED = {"IMRED_FF": FLAT, "IMRED_MK": f"/elixir/{MASK}.fits"}
AUXILIARIES = """
[[auxiliaries]]
kind = "flat"
keyword = "IMRED_FF"
uris = ["cadc:CFHT/{name}.fits.fz", "cadc:CFHT/{name}.fits"]

[[auxiliaries]]
kind = "mask"
keyword = "IMRED_MK"
uris = ["cadc:CFHT/{name}.fits.fz", "cadc:CFHT/{name}.fits"]
"""


@pytest.fixture
async def cadc() -> AsyncIterator[CadcStandIn]:
    async with CadcStandIn() as cadc:
        yield cadc


async def start(rig: Rig, cadc: CadcStandIn, folder: Path, **changes: Any) -> asyncio.Event:
    """Ingest, with a profile of the simulated camera whose headers name calibration frames."""
    shipped = Path(spica_imaging.profiles.__file__).parent / "profiles" / "megasim.toml"
    write(folder / "profiles" / "megasim.toml", (shipped.read_text() + AUXILIARIES).encode())
    settings = SETTINGS.model_copy(update={"archive_registry_url": cadc.registry_url, **changes})
    platform = rig.settings.model_copy(update={"profiles": folder / "profiles"})
    return await rig.start("ingest", settings, compose, platform)


async def announce(rig: Rig, cadc: CadcStandIn, number: int, **cards: Any) -> None:
    """An image of the archive."""
    uri = f"cadc:CFHT/{number}p.fits.fz"
    cadc.add(uri, frame(primary={**NAMED, **cards, "OBJECT": f"field {number}"}, compressed=True))
    await rig.publish(ImageArrived(uri=uri, source="cadc"))


def fetches(cadc: CadcStandIn, name: str) -> int:
    return sum(name in entry.path for entry in cadc.requests("minoc", method="GET"))


async def states(rig: Rig) -> dict[str, str]:
    return dict(await rig.pool.fetch("SELECT kind, state FROM auxiliaries"))


async def test_each_is_fetched_once_whoever_names_it(rig: Rig, cadc: CadcStandIn, tmp_path: Path) -> None:
    flat, mask = frame(primary={"OBSTYPE": "FLAT"}, compressed=True), frame(primary={"OBSTYPE": "MASK"})
    cadc.add(f"cadc:CFHT/{FLAT}.fits.fz", flat)
    cadc.add(f"cadc:CFHT/{MASK}.fits", mask)  # under the second of its two names
    await start(rig, cadc, tmp_path)
    for number in range(1, 6):
        await announce(rig, cadc, number)
    await rig.wait_for(ImageVerified, count=5)
    registered = {event.kind: event for event in await rig.wait_for(AuxiliaryRegistered, count=2)}
    await rig.until("SELECT count(*) = 0 FROM outbox WHERE sent_at IS NULL")
    assert len(await rig.events(AuxiliaryWanted)) == len(await rig.events(AuxiliaryRegistered)) == 2
    for kind, name, content, ending in (("flat", FLAT, flat, ".fits.fz"), ("mask", MASK, mask, ".fits")):
        event = registered[kind]
        assert (event.name, event.state, event.uri) == (name, "here", f"cadc:CFHT/{name}{ending}")
        assert event.file is not None
        assert event.file.path == f"auxiliary/{kind}/{name}{ending}"
        assert rig.data.path(event.file.path).read_bytes() == content
        assert sha256_of(rig.data.path(event.file.path)) == event.file.sha256
        assert fetches(cadc, f"{name}{ending}") == 1
    assert await states(rig) == {"flat": "here", "mask": "here"}
    assert await rig.pool.fetchval("SELECT count(*) FROM image_auxiliaries") == 10
    made = await rig.pool.fetch(
        "SELECT p.path FROM products AS p JOIN was_generated_by USING (product_id) JOIN activities AS a USING (activity_id) "
        "WHERE a.name = 'auxiliary_wanted' ORDER BY p.path"
    )
    assert [row["path"] for row in made] == sorted(e.file.path for e in registered.values() if e.file)
    shown = await spica("show", "3p", settings=rig.settings, home=tmp_path)
    assert FLAT in shown.out and f"auxiliary/mask/{MASK}.fits" in shown.out and "here" in shown.out
    facts = (await spica("show", "3p", "--json", settings=rig.settings, home=tmp_path)).json["image"]
    assert [(row["kind"], row["state"]) for row in facts["auxiliaries"]] == [
        ("flat", "here"),
        ("mask", "here"),
    ]


async def test_what_nobody_has_is_asked_for_again_after_a_while(
    rig: Rig, cadc: CadcStandIn, tmp_path: Path
) -> None:
    await start(rig, cadc, tmp_path)
    await announce(rig, cadc, 1, IMRED_MK="NONE")
    (event,) = await rig.wait_for(AuxiliaryRegistered)
    assert (event.kind, event.state, event.file) == ("flat", "missing", None)
    assert [reason.code for reason in event.reasons] == ["archive_no_such_file"] * 2
    assert [reason.found for reason in event.reasons] == [
        f"cadc:CFHT/{FLAT}.fits.fz",
        f"cadc:CFHT/{FLAT}.fits",
    ]
    await announce(rig, cadc, 2)  # asks for the mask alone
    await rig.wait_for(AuxiliaryRegistered, count=2)
    assert [event.kind for event in await rig.events(AuxiliaryWanted)] == ["flat", "mask"]
    cadc.add(f"cadc:CFHT/{FLAT}.fits.fz", frame(compressed=True))
    await rig.pool.execute("UPDATE auxiliaries SET tried_at = now() - interval '8 days' WHERE kind = 'flat'")
    await announce(rig, cadc, 3)
    found = await rig.wait_for(AuxiliaryRegistered, count=3)
    assert (found[2].kind, found[2].state) == ("flat", "here")
    assert await states(rig) == {"flat": "here", "mask": "missing"}
    assert await rig.pool.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_what_is_no_fits_file_is_set_aside(rig: Rig, cadc: CadcStandIn, tmp_path: Path) -> None:
    cadc.add(f"cadc:CFHT/{FLAT}.fits.fz", frame(compressed=True)[:9000])
    cadc.add(f"cadc:CFHT/{MASK}.fits.fz", frame(ccds=0))
    await start(rig, cadc, tmp_path)
    await announce(rig, cadc, 1)
    registered = {event.kind: event for event in await rig.wait_for(AuxiliaryRegistered, count=2)}
    assert {event.state for event in registered.values()} == {"rejected"}
    assert "truncated" in [reason.code for reason in registered["flat"].reasons]
    assert [reason.code for reason in registered["mask"].reasons] == ["no_image"]
    assert len(list((rig.data.root / "rejected").iterdir())) == 2
    assert not (rig.data.root / "auxiliary").exists()


async def test_an_archive_that_stumbles_makes_no_dead_letter(
    rig: Rig, cadc: CadcStandIn, tmp_path: Path
) -> None:
    await start(rig, cadc, tmp_path, max_attempts=10)
    await announce(rig, cadc, 1, IMRED_MK=None)
    await rig.wait_for(AuxiliaryRegistered)
    cadc.add("cadc:CFHT/other1.fits.fz", frame(compressed=True))
    cadc.fault("refuse", status=500, service="minoc", uri="cadc:CFHT/other1.fits.fz", times=None)
    await announce(rig, cadc, 2, IMRED_FF="other1", IMRED_MK=None)
    (event,) = await rig.wait_for(AuxiliaryRegistered, where=lambda event: event.name == "other1")
    assert event.state == "missing"
    assert "archive_failed" in [reason.code for reason in event.reasons]
    assert await rig.pool.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_a_local_folder_is_looked_in_first(rig: Rig, cadc: CadcStandIn, tmp_path: Path) -> None:
    cadc.add(f"cadc:CFHT/{FLAT}.fits.fz", frame(compressed=True))
    ours = frame(primary={"OBSTYPE": "FLAT"})
    write(tmp_path / "aux" / "flat" / f"{FLAT}.fits", ours)
    await start(rig, cadc, tmp_path, auxiliary_folder=tmp_path / "aux")
    path = write(tmp_path / "in" / "7p.fits", frame(primary=NAMED))
    await rig.publish(ImageArrived(uri=str(path)))
    registered = {event.kind: event for event in await rig.wait_for(AuxiliaryRegistered, count=2)}
    flat = registered["flat"].file
    assert flat is not None and rig.data.path(flat.path).read_bytes() == ours
    # The image came as a file: no archive is asked for what is not in the folder.
    assert registered["mask"].state == "missing"
    assert [reason.code for reason in registered["mask"].reasons] == ["auxiliary_not_found"]
    assert cadc.requests("minoc", method="GET") == []


async def test_images_that_came_as_files_ask_no_archive(rig: Rig, cadc: CadcStandIn, tmp_path: Path) -> None:
    cadc.add(f"cadc:CFHT/{FLAT}.fits.fz", frame(compressed=True))
    await start(rig, cadc, tmp_path)
    path = write(tmp_path / "in" / "7p.fits", frame(primary=NAMED))
    await rig.publish(ImageArrived(uri=str(path)))
    await rig.wait_for(ImageVerified)
    assert await rig.events(AuxiliaryWanted) == []
    assert await states(rig) == {"flat": "named", "mask": "named"}
    await announce(rig, cadc, 8)  # from the archive, which may well have what that one names
    await rig.wait_for(AuxiliaryRegistered, count=2)
    assert await states(rig) == {"flat": "here", "mask": "missing"}


async def test_never_means_never(rig: Rig, cadc: CadcStandIn, tmp_path: Path) -> None:
    await start(rig, cadc, tmp_path, auxiliary_fetch="never")
    await announce(rig, cadc, 1)
    await rig.wait_for(ImageVerified)
    assert await rig.events(AuxiliaryWanted) == []


async def test_who_asks_for_what_no_header_names_is_told(rig: Rig, cadc: CadcStandIn, tmp_path: Path) -> None:
    await start(rig, cadc, tmp_path)
    for name in ("nobody", "../../etc/passwd"):
        await rig.publish(
            AuxiliaryWanted(name=name, kind="flat", keyword="X", image_id="y", uris=("cadc:A/b",))
        )
    await rig.until("SELECT count(*) = 2 FROM dead_letters")
    codes = {row["code"] for row in await rig.pool.fetch("SELECT code FROM dead_letters")}
    assert codes == {"auxiliary_unknown", "unsafe_name"}
    # Neither an image nor a stack failed.
    assert await rig.pool.fetchval("SELECT count(*) FROM outbox WHERE subject LIKE '%.failed'") == 0


async def test_many_images_at_once_name_the_same_frames(rig: Rig) -> None:
    frames = tuple(Named(kind, f"{kind}1", "K", (f"cadc:X/{kind}",)) for kind in ("flat", "mask"))

    async def one(number: int) -> list[Any]:
        exposure = exposure_at(10.0, 20.0, auxiliaries=frames)
        async with rig.pool.acquire() as connection, connection.transaction():
            _, events, _ = await take_in(
                connection, f"i{number}", exposure, uri=f"cadc:X/{number}", asking=Asking()
            )
            await asyncio.sleep(0.02)
            return [event for event in events if isinstance(event, AuxiliaryWanted)]

    asked = await asyncio.gather(*(one(number) for number in range(8)))
    assert sorted(event.name for events in asked for event in events) == ["flat1", "mask1"]
    assert await rig.pool.fetchval("SELECT count(*) FROM image_auxiliaries") == 16


def test_a_frame_is_found_by_its_whole_name(tmp_path: Path) -> None:
    for name in (
        "a.flat.1.fits.fz",
        "a.flat.10.fits",
        "a.flat.2",
        "a.flat.3.txt",
        "mask/m.1.fit.gz",
        "flat/m.1.fits",
    ):
        write(tmp_path / name, b"")
    assert find_frame(tmp_path, "flat", "a.flat.1") == tmp_path / "a.flat.1.fits.fz"
    assert find_frame(tmp_path, "flat", "a.flat.10") == tmp_path / "a.flat.10.fits"
    assert find_frame(tmp_path, "mask", "m.1") == tmp_path / "mask" / "m.1.fit.gz"
    assert [find_frame(tmp_path, "flat", f"a.flat.{n}") for n in (2, 3, 4)] == [None] * 3
    assert find_frame(tmp_path / "none", "flat", "a") is None
