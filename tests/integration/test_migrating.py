"""A store that was filled by the first version gets its columns, its place on the sky, and loses nothing."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from spica_console.searching import Search, search
from spica_imaging.profiles import load_profiles
from spica_imaging.skyshapes import Cone
from spica_ingest.columns_again import fill_columns
from spica_ingest.science.columns import VERSION
from spica_ingest.service import compose
from spica_ingest.settings import IngestSettings
from spica_runtime.database import migrate, newest_migration, open_pool
from spica_runtime.settings import PlatformSettings
from spica_runtime.sqlscript import statements

from tests.support.command import spica
from tests.support.exposures import footprint
from tests.support.rig import Rig

_numbers = itertools.count()
HEADER = (
    '{"QRUNID": "10BQ08", "RUNID": "10BD90", "IQMEASUR": 0.8, "QSOGRADE": 9, "REL_DATE": "2012-02-28T00:00:00", '
    '"RA_DEG": 40.0, "PHOT_C": 25.8}'
)
IMAGE = """
    INSERT INTO images (image_id, name, sha256, size_bytes, path, profile, instrument, run, filter, exposure_time_s, mjd_obs,
                        ra_deg, dec_deg, wcs, n_ccds, header, repairs)
    VALUES ($1, $1, $1, 1, 'p', $2, 'I', 'R', 'i.MP9702', 20, $3, $4, $5, $6, 2, $7,
            '[{"code": "extname_missing", "message": "m"}]')
"""


async def fill_first(url: str, images: int = 1) -> None:
    """What the first version would have left: images with two CCDs each, one without a WCS, one of a lost profile."""
    connection = await asyncpg.connect(url)
    for statement in statements("0001_initial"):
        await connection.execute(statement)
    await connection.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    await connection.execute("INSERT INTO alembic_version VALUES ('0001')")
    for number in range(images):
        await connection.execute(
            IMAGE, f"full{number}", "megacam", 55503.0 + number, 40.0, 10.0, "full", HEADER
        )
        for hdu in (1, 2):
            await connection.execute(
                "INSERT INTO ccds (image_id, hdu, name, naxis1, naxis2, header, footprint) "
                "VALUES ($1, $2, 'c', 2112, 4644, '{}', $3)",
                f"full{number}", hdu, list(footprint(39.8 + 0.15 * hdu, 10.0, 0.14, 0.3)),
            )  # fmt: skip
    await connection.execute(IMAGE, "pointing", "megacam", None, 40.0, 10.0, "pointing", HEADER)
    await connection.execute(
        "INSERT INTO ccds (image_id, hdu, name, naxis1, naxis2, header) VALUES ('pointing', 1, 'c', 2112, 4644, '{}')"
    )
    await connection.execute(IMAGE, "lost", "camera of a folder that is gone", 1.0, 50.0, 10.0, "full", "{}")
    await connection.close()


@pytest.fixture
async def old_store(postgres_url: str, tmp_path: Path) -> AsyncIterator[PlatformSettings]:
    """An empty database."""
    name = f"old_{next(_numbers)}"

    def at(database: str) -> str:
        return urlunsplit(urlsplit(postgres_url)._replace(path=f"/{database}"))

    admin = await asyncpg.connect(at("postgres"))
    await admin.execute(f"CREATE DATABASE {name}")
    yield PlatformSettings(database_url=at(name), data=tmp_path / "data")
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


async def test_spica_migrate_on_a_filled_store(old_store: PlatformSettings, tmp_path: Path) -> None:
    await fill_first(old_store.database_url, images=3)
    ended = await spica("migrate", settings=old_store, home=tmp_path)
    assert ended.code == 0, ended.err
    assert f"from 0001 to {newest_migration()}" in ended.out
    assert "columns of 5 image(s) were filled" in ended.out
    async with open_pool(old_store) as pool:
        row = await pool.fetchrow("SELECT * FROM images WHERE image_id = 'full1'")
        assert row is not None
        assert (row["queue_run"], row["agency_run"], row["seeing_arcsec"], row["header_zeropoint_mag"]) == (
            "10BQ08", "10BD90", 0.8, 25.8,
        )  # fmt: skip
        assert row["released_at"].year == 2012 and row["canonical_filter"] == "i.MP9702"
        assert row["queue_grade"] is None
        assert [repair["code"] for repair in row["repairs"]] == ["extname_missing", "column_unknown"]
        assert (row["primary_header"], row["uri"], row["superseded_by"], row["announced"]) == (
            None,
            None,
            None,
            True,
        )
        assert len(row["footprint"]) >= 8
        found = await search(pool, Search(Cone(39.95, 10.0)))
        assert [(one["name"], one["match"]) for one in found] == [
            ("full2", "exact"), ("full1", "exact"), ("full0", "exact"), ("pointing", "rough"),
        ]  # fmt: skip
        assert [one["name"] for one in await search(pool, Search(Cone(50.0, 10.0)))] == ["lost"]
    again = await spica("migrate", "--json", settings=old_store, home=tmp_path)
    assert again.json == {"before": newest_migration(), "after": newest_migration(), "images_filled": 0}


async def test_filling_goes_on_where_it_was_and_may_be_done_by_several(
    old_store: PlatformSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spica_ingest import columns_again

    monkeypatch.setattr(columns_again, "BATCH", 4)
    await fill_first(old_store.database_url, images=30)
    await asyncio.to_thread(migrate, old_store.database_url)
    async with open_pool(old_store) as pool:
        stop = asyncio.Event()
        told: list[int] = []

        def tell(done: int) -> None:
            told.append(done)
            stop.set()

        assert await fill_columns(pool, load_profiles(), stop, tell) == 4
        counts = await asyncio.gather(*(fill_columns(pool, load_profiles()) for _ in range(3)))
        assert (sum(counts), told) == (28, [4])
        assert await pool.fetchval("SELECT count(*) FROM images WHERE columns_version <> $1", VERSION) == 0
        cells = await pool.fetchval("SELECT count(*) FROM sky_cells")
        # Read again after the code has changed: the same again, and no repair is told twice.
        await pool.execute("UPDATE images SET columns_version = 0")
        assert await fill_columns(pool, load_profiles()) == 32
        assert await pool.fetchval("SELECT count(*) FROM sky_cells") == cells
        assert await pool.fetchval("SELECT max(jsonb_array_length(repairs)) FROM images") == 2


async def test_a_running_ingest_service_fills_them_by_itself(rig: Rig) -> None:
    await rig.pool.execute(
        "INSERT INTO images (image_id, name, sha256, size_bytes, path, profile, instrument, run, filter, exposure_time_s, "
        "ra_deg, dec_deg, wcs, n_ccds, header) "
        "VALUES ('a', 'a', 'a', 1, 'p', 'megacam', 'I', 'R', 'r', 1, 10, 20, 'pointing', 1, $1)", {"QRUNID": "10BQ08"}
    )  # fmt: skip
    await rig.start("ingest", IngestSettings(workers=1), compose)
    await rig.until("SELECT queue_run = '10BQ08' AND radius_rad > 0 FROM images")


async def test_solutions_of_old_get_versions_and_the_newest_counts(old_store: PlatformSettings) -> None:
    await fill_first(old_store.database_url)
    connection = await asyncpg.connect(old_store.database_url)
    await connection.execute(
        "INSERT INTO measurements (measurement_id, subject_kind, subject_id, metrics, catalogue_path, weight_path, "
        "preview_path) VALUES ('m1', 'image', 'full0', '{}', 'c', 'w', 'p')"
    )
    for number, (solution, quality) in enumerate(
        [("a", '{"measurement_id": "m1"}'), ("b", "{}"), ("c", "{}")]
    ):
        await connection.execute(
            "INSERT INTO solutions (solution_id, image_id, header_path, reference_name, reference_sha256, quality, "
            "created_at) VALUES ($1, 'full0', 'h', 'r', 's', $2, to_timestamp($3))",
            solution, quality, 1000.0 + number,
        )  # fmt: skip
    await connection.close()
    await asyncio.to_thread(migrate, old_store.database_url)
    async with open_pool(old_store) as pool:
        rows = await pool.fetch("SELECT * FROM solutions ORDER BY version")
    assert [(row["solution_id"], row["superseded_by"]) for row in rows] == [
        ("a", "b"),
        ("b", "c"),
        ("c", None),
    ]
    assert [row["measurement_id"] for row in rows] == ["m1", None, None]
    assert {row["engine"] for row in rows} == {"spica"}
