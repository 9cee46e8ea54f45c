"""The export service on real NATS and PostgreSQL: a finished stack becomes a delivery with a receipt."""

from __future__ import annotations

import asyncio
import io
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io.votable import parse
from spica_export.claiming import MARK
from spica_export.service import compose
from spica_export.settings import ExportSettings
from spica_proto.base import Product
from spica_proto.images import Metrics
from spica_proto.stacks import StackDone, StackExported, StackFailed
from spica_runtime.storage import sha256_of

from tests.support.rig import Rig
from tests.support.seeding import insert, seed_grade, seed_image, seed_solution
from tests.unit.stack.field import Exposure, write_exposure
from tests.unit.stack.sky import scattered_stars

SETTINGS = ExportSettings(workers=1, retry_delays_s=(0.05,), max_attempts=2, shutdown_grace_s=5)
GRID = {
    "crval_ra_deg": 214.0,
    "crval_dec_deg": 52.5,
    "crpix_x": 50.5,
    "crpix_y": 50.5,
    "pixel_scale_arcsec": 0.2,
    "width_px": 100,
    "height_px": 100,
}


def product(rig: Rig, stack_id: str, name: str, kind: str) -> Product:
    """A file of the stack, whatever it holds: export looks at bytes only."""
    path = rig.data.root / "stacks" / stack_id / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"{stack_id} {kind} ".encode() * 500)
    return rig.data.product(path, kind)


async def finished(rig: Rig, stack_id: str = "0a1b2c3d-s1", name: str = "F1_r", **changes: Any) -> StackDone:
    """A stack as the other services leave it; gives the event that says it is done."""
    exposures = product(rig, stack_id, f"{name}.nexp.fits", "exposures")
    row = {
        "stack_id": stack_id,
        "request_id": f"request of {stack_id}",
        "name": name,
        "filter": "r.MP9601",
        "state": "done",
        "request": {"combine": "clipped_mean", "min_exposures": 2},
        "requested_at": datetime(2004, 12, 24, tzinfo=UTC),
        "grid": GRID,
        "combine": "clipped_mean",
        "result": {"coadd": {"exposures": exposures.model_dump()}},
    }
    await insert(rig, "stacks", row | changes)
    return StackDone(
        stack_id=stack_id,
        request_id=str(row["request_id"]),
        name=name,
        filter="r.MP9601",
        image=product(rig, stack_id, f"{name}.fits", "image"),
        weight=product(rig, stack_id, f"{name}.weight.fits", "weight"),
        catalogue=product(rig, stack_id, f"{name}.ldac", "catalogue"),
        preview=product(rig, stack_id, f"{name}.png", "preview"),
        n_exposures=2,
        exposure_time_s=100.0,
        zeropoint_mag=30.0,
        grade="A",
        graded_by="policy:default@1",
        metrics=Metrics(fwhm_arcsec=0.9, limiting_mag=26.5, n_stars=120),
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Exposure]]:
    root = tmp_path_factory.mktemp("field")
    rng = np.random.default_rng(3)
    stars = scattered_stars(rng, 4, 20)
    return root, [write_exposure(root / "images", k, stars, rng, side=64, ccds=1) for k in range(3)]


async def seed_members(rig: Rig, stack_id: str, written: tuple[Path, list[Exposure]]) -> list[str]:
    """Two members and one left out, their files outside the data folder (export does not touch them)."""
    ids = []
    for number, exposure in enumerate(written[1]):
        places = {"path": f"images/{exposure.files.image.name}"}
        local = _within(rig, exposure)
        ids.append(await seed_image(rig, local, grade="ABD"[number], **places))
        if number < 2:
            await seed_solution(rig, local, ids[-1], stack_id)
        await insert(
            rig,
            "stack_members",
            {
                "stack_id": stack_id,
                "image_id": ids[-1],
                "ordinal": number if number < 2 else None,
                "selected": number < 2,
                "rule": "chosen" if number < 2 else "grades",
                "found": "D by policy:default@1" if number == 2 else None,
            },
        )
    await seed_grade(rig, ids[1], "A", "person:Henry")
    return ids


def _within(rig: Rig, exposure: Exposure) -> Exposure:
    from dataclasses import replace

    folder = rig.data.root / "images"
    folder.mkdir(parents=True, exist_ok=True)
    places = {name: folder / getattr(exposure.files, name).name for name in ("image", "weight", "head")}
    for name, path in places.items():
        path.write_bytes(getattr(exposure.files, name).read_bytes())
    return replace(exposure, files=replace(exposure.files, **places))


async def test_a_finished_stack_is_delivered_with_a_receipt_for_every_file(
    rig: Rig, written: tuple[Path, list[Exposure]]
) -> None:
    done = await finished(rig)
    await seed_members(rig, done.stack_id, written)
    await rig.start("export", SETTINGS, compose)
    await rig.publish(done)
    (exported,) = await rig.wait_for(StackExported)
    folder = rig.data.root / "delivered/F1_r"
    assert (exported.stack_id, exported.request_id, exported.destination) == (
        done.stack_id,
        done.request_id,
        str(folder),
    )
    assert {receipt.kind: receipt.name for receipt in exported.files} == {
        "image": "F1_r.fits",
        "weight": "F1_r_weight.fits",
        "catalogue": "F1_r.cat",
        "preview": "F1_r.png",
        "exposures": "F1_r_nexp.fits",
        "votable": "F1_r.xml",
        "checksums": "F1_r.txt",
    }
    for receipt in exported.files:
        assert sha256_of(Path(receipt.path)) == receipt.sha256
    assert sorted(path.name for path in folder.iterdir()) == sorted([MARK, *(r.name for r in exported.files)])

    table = parse(io.BytesIO((folder / "F1_r.xml").read_bytes()))
    inputs = table.get_table_by_id("inputs").to_table(use_names_over_ids=True)
    assert list(inputs["name"]) == ["700p", "701p"] and list(inputs["grade"]) == ["A", "A"]
    assert list(inputs["graded_by"]) == ["policy:default@1", "person:Henry"]
    assert list(inputs["zeropoint_mag"]) == [25.0, 25.0] and list(inputs["reference"]) == ["truth"] * 2
    left_out = table.get_table_by_id("left_out").to_table(use_names_over_ids=True)
    assert (left_out["name"][0], left_out["rule"][0]) == ("702p", "grades")

    row = await rig.pool.fetchrow("SELECT state, result FROM stacks")
    assert row is not None and row["state"] == "exported"
    assert len(row["result"]["export"]["files"]) == 7 and "coadd" in row["result"]
    made = await rig.pool.fetch(
        "SELECT p.path FROM was_generated_by JOIN products p USING (product_id) JOIN activities a USING (activity_id) "
        "WHERE a.service = 'export'"
    )
    assert {record["path"] for record in made} == {
        f"stacks/{done.stack_id}/F1_r{s}" for s in (".xml", ".txt")
    }
    used = await rig.pool.fetchval("SELECT count(*) FROM used")
    assert used == 5


async def test_two_stacks_of_one_name_do_not_share_a_folder_and_again_is_the_same(rig: Rig) -> None:
    first, second = await finished(rig, "aaaaaaaa-1"), await finished(rig, "bbbbbbbb-2")
    await rig.start("export", SETTINGS, compose)
    for event in (second, first, second):
        await rig.publish(event)
    exported = await rig.wait_for(StackExported, count=3)
    folders = [Path(event.destination).name for event in exported]
    assert sorted(set(folders)) == ["F1_r", "F1_r_bbbbbbbb"] and len(folders) == 3
    receipts = {event.destination: event.files for event in exported}
    assert all(event.files == receipts[event.destination] for event in exported)
    assert b"aaaaaaaa" in (rig.data.root / "delivered/F1_r/F1_r.fits").read_bytes()


async def test_names_that_become_one_folder_are_told_apart_in_any_order(rig: Rig) -> None:
    """`M33`, `M33.` and `M33-` are all names that a request may ask for."""
    made = [
        await finished(rig, f"{c * 8}-1", name)
        for c, name in zip("abc", ("M33", "M33.", "M33-"), strict=True)
    ]
    await rig.start("export", SETTINGS, compose)
    for event in (made[2], made[1], made[0], made[1]):
        await rig.publish(event)
    exported = await rig.wait_for(StackExported, count=4)
    folders = {event.stack_id[:8]: Path(event.destination).name for event in exported}
    assert folders == {"aaaaaaaa": "M33", "bbbbbbbb": "M33_bbbbbbbb", "cccccccc": "M33_cccccccc"}
    for event in exported:
        assert event.stack_id.encode() in (Path(event.destination) / event.files[0].name).read_bytes()


async def test_leftovers_at_a_destination_elsewhere_are_removed_at_the_start(
    rig: Rig, tmp_path: Path
) -> None:
    left = tmp_path / "archive" / "F1_r" / ".part-killed"
    left.mkdir(parents=True)
    (left.parent / MARK).write_text("s1\n")
    os.utime(left, (1e9, 1e9))
    await rig.start("export", SETTINGS.model_copy(update={"destination": tmp_path / "archive"}), compose)
    for _ in range(100):
        if not left.exists():
            break
        await asyncio.sleep(0.05)
    assert not left.exists()


async def test_a_destination_that_is_away_is_waited_for(rig: Rig, tmp_path: Path) -> None:
    destination = tmp_path / "archive"
    destination.write_text("not mounted yet")
    settings = SETTINGS.model_copy(
        update={"destination": destination, "name_template": "CFHTLS_D-25_{band}_{radec}_{name}"}
    )
    done = await finished(rig)
    await rig.start("export", settings, compose)
    await rig.publish(done)
    await rig.until("SELECT count(*) = 1 FROM attempts WHERE service = 'export'")
    assert await rig.events(StackExported) == [] and await rig.events(StackFailed) == []
    destination.unlink()
    (exported,) = await rig.wait_for(StackExported, timeout_s=30)
    assert Path(exported.destination) == destination / "CFHTLS_D-25_r_141600+523000_F1_r"
    assert Path(exported.files[0].path).name == "CFHTLS_D-25_r_141600+523000_F1_r.fits"


async def test_what_changed_after_it_was_measured_is_not_delivered(rig: Rig) -> None:
    done = await finished(rig)
    rig.data.path(done.image.path).write_bytes(b"changed")
    await rig.start("export", SETTINGS, compose)
    await rig.publish(done)
    (failed,) = await rig.wait_for(StackFailed)
    assert (failed.code, failed.stack_id) == ("product_changed", done.stack_id)
    assert not (rig.data.root / "delivered/F1_r/F1_r.fits").exists()
    assert await rig.pool.fetchval("SELECT state FROM stacks") != "exported"
