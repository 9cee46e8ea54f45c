"""Contents of one archive file: whatever comes first, the one that the archive changed last counts."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from spica_ingest.service import compose
from spica_ingest.settings import IngestSettings
from spica_ingest.versions import archive_uri
from spica_proto.images import ImageArrived, ImageVerified
from spica_proto.stacks import Selection, StackRequested
from spica_runtime.pg import Pool
from spica_runtime.storage import sha256_of
from spica_stack.choosing import judge_images
from spica_stack.settings import StackSettings

from tests.support.cadc import CadcStandIn
from tests.support.command import spica
from tests.support.exposures import exposure_at, take_in
from tests.support.rig import Rig
from tests.unit.ingest.frames import frame

URI = "cadc:CFHT/744331p.fits.fz"
DAYS = {name: datetime(2024, 1, day, tzinfo=UTC) for day, name in enumerate("ABC", 1)}


async def arrive(pool: Pool, content: str, modified_at: datetime | None = None, uri: str | None = URI) -> Any:
    async with pool.acquire() as connection, connection.transaction():
        return await take_in(
            connection, "744331p", exposure_at(10.0, 20.0), uri=uri, modified_at=modified_at, content=content
        )


async def standing(pool: Pool) -> dict[str, str | None]:
    """Which content each content is superseded by."""
    rows = await pool.fetch("SELECT image_id, superseded_by, modified_at FROM images")
    names = {row["image_id"]: next(n for n, day in DAYS.items() if day == row["modified_at"]) for row in rows}
    return {names[row["image_id"]]: names.get(row["superseded_by"] or "") for row in rows}


@pytest.mark.parametrize("order", list(itertools.permutations("ABC")), ids="".join)
async def test_in_whatever_order_versions_come_the_latest_counts(rig: Rig, order: tuple[str, ...]) -> None:
    told: list[ImageVerified] = []
    ids = {}
    for name in order:
        ids[name], events, notes = await arrive(rig.pool, name, DAYS[name])
        told += [event for event in events if isinstance(event, ImageVerified)]
        assert bool(events) == (name == max(order[: order.index(name) + 1]))
        if not events:
            (note,) = notes
            assert "is a later version of" in note and "not processed" in note
    assert await standing(rig.pool) == {"A": "C", "B": "C", "C": None}
    assert told[-1].image_id == ids["C"]
    earlier = [ids[name] for name in sorted(order[: order.index("C")])]
    assert list(told[-1].supersedes) == earlier
    announced = {
        row["image_id"] for row in await rig.pool.fetch("SELECT image_id FROM images WHERE announced")
    }
    assert announced == {event.image_id for event in told}


async def test_versions_that_are_verified_at_the_same_time_end_as_one_after_the_other(rig: Rig) -> None:
    for number in range(6):
        uri = f"cadc:CFHT/{number}p.fits"
        await asyncio.gather(*(arrive(rig.pool, f"{number}{name}", DAYS[name], uri) for name in "BCAB"))
    rows = await rig.pool.fetch(
        "SELECT uri, count(*) FILTER (WHERE superseded_by IS NULL) AS counting, count(DISTINCT superseded_by) AS by,"
        "       max(modified_at) FILTER (WHERE superseded_by IS NULL) AS newest FROM images GROUP BY uri"
    )
    assert [(row["counting"], row["by"], row["newest"]) for row in rows] == [(1, 1, DAYS["C"])] * 6


async def test_the_same_content_again_is_no_version(rig: Rig) -> None:
    image_id, first, _ = await arrive(rig.pool, "A", DAYS["A"])
    again_id, again, notes = await arrive(rig.pool, "A", DAYS["B"])
    assert (again_id, again, notes) == (image_id, [], ["This very image was here already."])
    assert len(first) == 1
    assert await rig.pool.fetchval("SELECT modified_at FROM images") == DAYS["B"]


async def test_an_archive_that_goes_back_to_an_earlier_content(rig: Rig) -> None:
    first, _, _ = await arrive(rig.pool, "A", DAYS["A"])
    second, _, _ = await arrive(rig.pool, "B", DAYS["B"])
    again, events, _ = await arrive(rig.pool, "A", DAYS["C"])
    assert again == first
    assert events == []  # it was told of, and processed, before
    rows = dict(await rig.pool.fetch("SELECT image_id, superseded_by FROM images"))
    assert rows == {first: None, second: first}


async def test_going_back_to_a_content_nobody_was_told_of_tells_of_it(rig: Rig) -> None:
    await arrive(rig.pool, "B", DAYS["B"])
    early, silent, _ = await arrive(rig.pool, "A", DAYS["A"])
    assert silent == []
    _, (event,), _ = await arrive(rig.pool, "A", DAYS["C"])
    assert isinstance(event, ImageVerified) and event.image_id == early and len(event.supersedes) == 1


async def test_where_the_archive_tells_no_time_the_last_to_come_counts(rig: Rig) -> None:
    for name in "AB":
        last, _, _ = await arrive(rig.pool, name)
    assert await rig.pool.fetch("SELECT image_id FROM images WHERE superseded_by IS NULL") == [(last,)]
    known, _, _ = await arrive(rig.pool, "C", DAYS["A"])
    assert await rig.pool.fetch("SELECT image_id FROM images WHERE superseded_by IS NULL") == [(known,)]


async def test_files_of_folders_do_not_supersede_each_other(rig: Rig) -> None:
    await arrive(rig.pool, "A", uri="/in/744331p.fits")
    await arrive(rig.pool, "B", uri="file:///in/744331p.fits")
    assert await rig.pool.fetch("SELECT uri, superseded_by FROM images") == [(None, None)] * 2


async def test_a_file_that_was_here_is_later_known_by_its_archive(rig: Rig) -> None:
    local, _, _ = await arrive(rig.pool, "A", uri="/in/744331p.fits")
    same, events, _ = await arrive(rig.pool, "A", DAYS["A"])
    assert (same, events) == (local, [])
    newer, (event,), _ = await arrive(rig.pool, "B", DAYS["B"])
    assert event.supersedes == (local,)
    assert dict(await rig.pool.fetch("SELECT image_id, superseded_by FROM images")) == {
        local: newer,
        newer: None,
    }


@pytest.mark.parametrize(
    ("uri", "kept"),
    [
        ("/a.fits", False),
        ("file:///a", False),
        ("FILE:///a", False),
        ("cadc:CFHT/a", True),
        ("https://x/a", True),
    ],
)
def test_names_that_belong_to_an_archive(uri: str, kept: bool) -> None:
    assert archive_uri(uri) == (uri if kept else None)


async def test_stacks_leave_out_what_is_superseded_and_say_by_what(rig: Rig) -> None:
    # The old content comes last, so that the time of coming alone would prefer it.
    new, _, _ = await arrive(rig.pool, "B", DAYS["B"])
    old, _, _ = await arrive(rig.pool, "A", DAYS["A"])
    for image_id in (old, new):
        await rig.pool.execute(
            "INSERT INTO grades (grade_id, subject_kind, subject_id, grade, graded_by) "
            "VALUES ($1, 'image', $1, 'A', 'policy:x@1')", image_id
        )  # fmt: skip
        await rig.pool.execute(
            "INSERT INTO solutions (solution_id, image_id, header_path, reference_name, reference_sha256, quality) "
            "VALUES ($1, $1, 'h', 'r', 's', '{}')", image_id
        )  # fmt: skip
    for images in ((), ("744331p",), (old, new)):
        wanted = StackRequested(selection=Selection(images=images))
        verdicts = await judge_images(rig.pool, wanted, StackSettings(), [old, new])
        assert verdicts[new].selected
        assert not verdicts[old].selected
        assert (verdicts[old].rule, verdicts[old].found) == ("superseded", f"superseded by {new}")


async def test_a_file_that_its_archive_replaces(rig: Rig, tmp_path: Path) -> None:
    """The whole way: the service, the archive, two contents of one file, and what people are shown."""
    settings = IngestSettings(workers=1, retry_delays_s=(0.05,), fetch_reserve_bytes=0)
    async with CadcStandIn() as cadc:
        await rig.start(
            "ingest", settings.model_copy(update={"archive_registry_url": cadc.registry_url}), compose
        )
        contents = [frame(compressed=True), frame(primary={"OBJECT": "D3 better"}, compressed=True)]
        for number, content in enumerate(contents):
            stored = cadc.add(URI, content) if number == 0 else cadc.replace(URI, content)
            await rig.publish(
                ImageArrived(uri=URI, source="cadc", md5=stored.md5.hex(), modified_at=DAYS["AB"[number]])
            )
            await rig.wait_for(ImageVerified, count=number + 1)
    first, second = await rig.events(ImageVerified)
    assert (first.uri, second.uri, second.supersedes) == (URI, URI, (first.image_id,))
    for event in (first, second):
        assert sha256_of(rig.data.path(event.file.path)) == event.file.sha256
    shown = await spica("show", first.image_id, settings=rig.settings, home=tmp_path)
    assert f"superseded by {second.image_id}" in shown.out and URI in shown.out
    assert (
        f"supersedes {first.image_id}"
        in (await spica("show", second.image_id, settings=rig.settings, home=tmp_path)).out
    )
    for options, expected in (
        ((), [second.image_id]),
        (("--all-versions",), [second.image_id, first.image_id]),
    ):
        found = await spica(
            "images", "--name", "744331p", *options, "--json", settings=rig.settings, home=tmp_path
        )
        assert [row["image_id"] for row in found.json] == expected
