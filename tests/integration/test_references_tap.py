"""Reference stars from a TAP service over real HTTP: what is right, what goes wrong, and what is kept."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spica_calib.errors import ReferenceUnavailable
from spica_calib.reference import ReferenceArea, cone_needed, stars_in_cone
from spica_calib.reference.area import tiles_touched
from spica_calib.reference.query import cone_around, tile_of
from spica_calib.reference.source import References
from spica_calib.reference.tap import Patience
from spica_imaging.references import Stars, separation_deg

from tests.support.tapstars import Fault, Limits, TapStars, describe, gaia_table, stars_around

CONE = (203.6, 37.9, 0.8)
_MIDDLE = cone_around(int(tile_of(np.array(CONE[0]), np.array(CONE[1]), 6)), 6)
SMALL = (_MIDDLE.ra_deg, _MIDDLE.dec_deg, 0.05)
"""Within one tile of it."""
N_STARS = 6000
QUICK = Patience(
    connect_s=2.0, answer_s=5.0, job_s=20.0, retries=2, first_delay_s=0.01, longest_delay_s=0.5,
    poll_first_s=0.005, poll_longest_s=0.02,
)  # fmt: skip


@pytest.fixture
async def tap() -> AsyncIterator[TapStars]:
    rng = np.random.default_rng(5)
    ra, dec = stars_around(rng, N_STARS, CONE[0], CONE[1], 2.2)
    async with TapStars({"gaiadr3.gaia_source": gaia_table(rng, ra, dec)}) as serving:
        yield serving


def references(
    tmp_path: Path, tap_url: str, *, name: str = "gaia-dr3", sync: bool = False, **more: Any
) -> References:
    given = {"patience": QUICK, "rest_s": 0.0, "cache": tmp_path / "cache"} | more
    changes = {'mode = "async"': 'mode = "sync"'} if sync else {}
    return References(Path(name), catalogues=describe(tmp_path / "own", tap_url, name, **changes), **given)


def expected(tap: TapStars, cone: tuple[float, float, float]) -> np.ndarray:
    """Rows of the table that a cone must give, by the conditions of the description."""
    table = tap.tables["gaiadr3.gaia_source"]
    inside = separation_deg(table["ra"], table["dec"], cone[0], cone[1]) <= cone[2]  # type: ignore[arg-type]
    good = (
        (table["phot_g_mean_mag"] < 21.0) & (table["astrometric_params_solved"] > 3) & (table["ruwe"] < 1.4)
    )
    return np.flatnonzero(inside & good)


def same(stars: Stars, table: dict[str, Any], rows: np.ndarray) -> None:
    """Every star once, with what the service has of it."""
    assert len(stars) == len(rows)
    ours, theirs = (
        np.lexsort((stars.ra_deg, stars.dec_deg)),
        rows[np.lexsort((table["ra"][rows], table["dec"][rows]))],
    )
    stars = stars.take(ours)
    assert np.array_equal(stars.ra_deg, table["ra"][theirs])
    assert np.array_equal(stars.dec_deg, table["dec"][theirs])
    assert np.array_equal(stars.epoch_year, table["ref_epoch"][theirs])
    assert stars.pm_ra_mas_yr == pytest.approx(table["pmra"][theirs], rel=1e-6)
    assert stars.pm_error_mas_yr == pytest.approx(0.2, rel=1e-6)
    error = np.sqrt((table["ra_error"][theirs] ** 2 + table["dec_error"][theirs] ** 2) / 2)
    assert stars.error_mas == pytest.approx(error, rel=1e-6)
    assert stars.mags["G"] == pytest.approx(table["phot_g_mean_mag"][theirs], rel=1e-6)
    assert stars.mag_errors["G"] == pytest.approx(1.0857362 / 2000.0, rel=1e-5)
    assert np.array_equal(np.isnan(stars.mags["BP"]), np.isnan(table["phot_bp_mean_mag"][theirs]))
    assert stars.colour("BP", "RP") == pytest.approx(
        table["phot_bp_mean_mag"][theirs] - table["phot_rp_mean_mag"][theirs], abs=1e-5, nan_ok=True
    )


async def had(source: References, cone: tuple[float, float, float] = CONE) -> ReferenceArea:
    try:
        return await source.area(*cone)
    finally:
        await source.close()


@pytest.mark.parametrize("form", ["tabledata", "binary", "binary2"])
async def test_all_stars_of_a_cone_and_each_once(tap: TapStars, tmp_path: Path, form: str) -> None:
    tap.form = form
    area = await had(references(tmp_path, tap.url))
    same(stars_in_cone(area, *CONE), tap.tables["gaiadr3.gaia_source"], expected(tap, CONE))
    assert area.name == "gaia-dr3" and area.order == 6 and len(area.files) > 1
    assert tap.jobs_left == 0
    assert all(product.kind == "reference" for product in area.products())


@pytest.mark.parametrize(
    "cone", [(0.02, 0.01, 0.3), (120.0, 89.9, 0.5), (359.9, -89.95, 0.4), (45.0, 41.8, 0.3)]
)
async def test_everywhere_on_the_sky(tmp_path: Path, cone: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(6)
    table = gaia_table(rng, *stars_around(rng, 4000, cone[0], cone[1], 4.0))
    async with TapStars({"gaiadr3.gaia_source": table}) as tap:
        area = await had(references(tmp_path, tap.url), cone)
        rows = expected(tap, cone)
        assert len(rows) > 5
        same(stars_in_cone(area, *cone), table, rows)


async def test_the_cache_serves_again_and_without_a_network(tap: TapStars, tmp_path: Path) -> None:
    first = await had(references(tmp_path, tap.url))
    asked = len(tap.queries)
    again = await had(references(tmp_path, tap.url))
    offline = await had(references(tmp_path, "http://127.0.0.1:9/tap", offline=True))
    assert first == again == offline
    assert len(tap.queries) == asked
    same(stars_in_cone(offline, *CONE), tap.tables["gaiadr3.gaia_source"], expected(tap, CONE))
    # A smaller cone is a part of the same tiles.
    part = await had(references(tmp_path, tap.url, offline=True), (*CONE[:2], 0.1))
    assert set(part.files) < set(first.files)


async def test_the_note_tells_where_a_tile_came_from(tap: TapStars, tmp_path: Path) -> None:
    area = await had(references(tmp_path, tap.url))
    for file in area.files:
        note = json.loads(file.path.with_suffix(".json").read_text())
        assert note["sha256"] == file.sha256 and note["status"] == "complete" and note["url"] == tap.url
        assert note["queries"][0] in tap.queries and note["tile"] == file.tile
    assert "nside64" in str(area.files[0].path)
    assert sum(json.loads(f.path.with_suffix(".json").read_text())["rows"] for f in area.files) >= len(
        expected(tap, CONE)
    )


async def test_the_same_stars_are_the_same_bytes(tap: TapStars, tmp_path: Path) -> None:
    first = await had(references(tmp_path / "a", tap.url), SMALL)
    table = tap.tables["gaiadr3.gaia_source"]
    mixed = np.random.default_rng(1).permutation(N_STARS)
    tap.tables["gaiadr3.gaia_source"] = {name: values[mixed] for name, values in table.items()}
    tap.limits = Limits(async_rows=300)
    second = await had(references(tmp_path / "b", tap.url), SMALL)
    assert [file.sha256 for file in first.files] == [file.sha256 for file in second.files]
    assert first.sha256 == second.sha256


@pytest.mark.parametrize(("rows", "silent"), [(100, False), (500, True)])
async def test_what_a_service_cuts_off_is_asked_for_in_parts(tmp_path: Path, rows: int, silent: bool) -> None:
    rng = np.random.default_rng(15)
    table = gaia_table(rng, *stars_around(rng, 4000, *SMALL[:2], 1.2))
    async with TapStars({"gaiadr3.gaia_source": table}, Limits(sync_rows=rows, silent=silent)) as tap:
        area = await had(references(tmp_path, tap.url, sync=True), SMALL)
        same(stars_in_cone(area, *SMALL), table, expected(tap, SMALL))
        note = json.loads(area.files[0].path.with_suffix(".json").read_text())
        inside = tile_of(table["ra"], table["dec"], 6) == area.files[0].tile
        good = (table["astrometric_params_solved"] > 3) & (table["ruwe"] < 1.4)
        assert note["rows"] == (inside & good).sum() > rows
        assert len(note["queries"]) >= 5


async def test_more_stars_in_one_place_than_a_service_gives(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    table = gaia_table(rng, *stars_around(rng, 60, CONE[0], CONE[1], 1e-4))
    async with TapStars({"gaiadr3.gaia_source": table}, Limits(sync_rows=10)) as tap:
        with pytest.raises(ReferenceUnavailable) as waiting:
            await had(references(tmp_path, tap.url, sync=True), SMALL)
    assert waiting.value.code == "reference_incomplete"


async def test_a_service_with_small_cones(tmp_path: Path) -> None:
    """Pan-STARRS DR2's archive: at most 0.24 degrees, -999 for nothing, flags that are looked at here."""
    rng = np.random.default_rng(8)
    n = 3000
    ra, dec = stars_around(rng, n, 10.0, 20.0, 1.0)
    mags = {
        f"{band}MeanPSFMag": np.where(rng.uniform(size=n) < 0.1, -999.0, 17.0 + rng.uniform(0, 3, n))
        for band in "grizy"
    }
    table: dict[str, Any] = {
        "raMean": ra, "decMean": dec, "epochMean": np.full(n, 56000.0), "raMeanErr": np.full(n, 0.004),
        "decMeanErr": np.full(n, 0.004), **mags, **{f"{band}MeanPSFMagErr": np.full(n, 0.01) for band in "grizy"},
        "iMeanKronMag": mags["iMeanPSFMag"] + rng.choice([-0.2, 0.2], n), "qualityFlag": rng.choice([52, 53, 48], n),
    }  # fmt: skip
    async with TapStars({"dbo.MeanObjectView": table}, Limits(radius_deg=0.24)) as tap:
        area = await had(references(tmp_path, tap.url, name="ps1-dr2"), (10.0, 20.0, 0.4))
    stars = stars_in_cone(area, 10.0, 20.0, 0.4)
    good = (
        (separation_deg(ra, dec, 10.0, 20.0) <= 0.4)
        & (mags["rMeanPSFMag"] > 0)
        & (mags["iMeanPSFMag"] > 13.5)
        & (table["iMeanKronMag"] > 0)
        & (mags["iMeanPSFMag"] - table["iMeanKronMag"] < 0.05)
        & (table["qualityFlag"] == 52)
    )
    assert len(stars) == good.sum() > 20
    assert sorted(stars.ra_deg.tolist()) == sorted(ra[good].tolist())
    assert stars.epoch_year[0] == pytest.approx(2000.0 + (56000.0 - 51544.5) / 365.25)
    assert stars.error_mas[0] == pytest.approx(4.0)
    assert np.isnan(stars.mags["g"]).any() and (stars.mags["g"][np.isfinite(stars.mags["g"])] > 0).all()
    # None of its proper motions is known: positions grow uncertain with the years.
    assert stars.at_epoch(stars.epoch_year[0] + 10.0).error_mas[0] == pytest.approx(np.hypot(4.0, 50.0))


async def test_names_that_differ_in_capitals_alone(tmp_path: Path) -> None:
    """REFCAT2 has Gaia's Gmag and Pan-STARRS' gmag; dupvar says which stars to leave."""
    rng = np.random.default_rng(9)
    n = 800
    ra, dec = stars_around(rng, n, 10.0, 20.0, 0.5)
    mags = {name: rng.uniform(14, 19, n) for name in ("Gmag", "gmag", "rmag", "imag", "zmag")}
    table: dict[str, Any] = {
        "RA_ICRS": ra, "DE_ICRS": dec, "Plx": np.ones(n), "e_Plx": np.ones(n), "pmRA": np.ones(n), "e_pmRA": np.ones(n),
        "pmDE": np.ones(n), "e_pmDE": np.ones(n), "dupvar": rng.choice([0, 1, 2, 5], n), **mags,
        **{f"e_{name}": np.full(n, 0.02) for name in mags},
    }  # fmt: skip
    async with TapStars({"J/ApJ/867/105/refcat2": table}) as tap:
        area = await had(references(tmp_path, tap.url, name="refcat2"), (10.0, 20.0, 0.2))
        assert ("POST", "/tap/sync") in tap.requests
    stars = stars_in_cone(area, 10.0, 20.0, 0.2)
    rows = np.flatnonzero((separation_deg(ra, dec, 10.0, 20.0) <= 0.2) & np.isin(table["dupvar"], (0, 2)))
    rows = rows[np.argsort(ra[rows])]
    stars = stars.take(np.argsort(stars.ra_deg))
    assert stars.ra_deg.tolist() == ra[rows].tolist()
    assert stars.mags["G"] == pytest.approx(mags["Gmag"][rows], rel=1e-6)
    assert stars.mags["g"] == pytest.approx(mags["gmag"][rows], rel=1e-6)
    assert np.isnan(stars.error_mas).all() and (stars.epoch_year == 2015.5).all()


PASSING = [
    Fault("refuse", times=2),
    Fault("refuse", times=1, retry_after="0"),
    Fault("refuse", times=1, status=429),
    Fault("refuse", "async", times=1, status=500),
    Fault("refuse", "phase", times=2, status=502),
    Fault("close", times=2),
    Fault("cut", times=1),
    Fault("truncated", times=2),
    Fault("html", times=1),
    Fault("empty", times=1),
    Fault("unmade", "async", times=1),
    Fault("job-error", "phase", times=1),
    Fault("job-phase", "phase", times=1),
]


@pytest.mark.parametrize(
    "fault", PASSING, ids=lambda fault: f"{fault.kind}-{fault.where}-{fault.status}-{fault.retry_after}"
)
async def test_passing_faults_pass(tap: TapStars, tmp_path: Path, fault: Fault) -> None:
    tap.faults.append(Fault(**vars(fault)))
    area = await had(references(tmp_path, tap.url), SMALL)
    assert tap.faults[0].times == 0
    same(stars_in_cone(area, *SMALL), tap.tables["gaiadr3.gaia_source"], expected(tap, SMALL))
    assert tap.jobs_left == 0


LASTING = {
    "refuse": "reference_unreachable", "close": "reference_unreachable", "cut": "reference_unreachable",
    "slow": "reference_unreachable", "truncated": "reference_malformed", "html": "reference_malformed",
    "empty": "reference_malformed", "column": "reference_malformed", "text": "reference_malformed",
    "nan": "reference_malformed", "elsewhere": "reference_malformed", "error": "reference_refused",
    "trickle": "reference_unreachable",
    "loop": "reference_malformed", "job-error": "reference_unreachable", "job-stuck": "reference_unreachable",
}  # fmt: skip


@pytest.mark.parametrize("kind", LASTING)
async def test_lasting_faults_make_images_wait_and_say_why(tap: TapStars, tmp_path: Path, kind: Any) -> None:
    tap.faults.append(Fault(kind, "phase" if kind.startswith("job") else None, times=None, delay_s=1.0))
    patience = Patience(
        connect_s=1.0,
        answer_s=0.2,
        job_s=0.3,
        retries=1,
        first_delay_s=0.01,
        poll_first_s=0.005,
        poll_longest_s=0.02,
    )
    with pytest.raises(ReferenceUnavailable) as waiting:
        await had(references(tmp_path, tap.url, patience=patience), SMALL)
    error = waiting.value
    assert error.code == LASTING[kind]
    assert "gaia-dr3" in error.message and tap.url in error.message and "tile" in error.message
    assert "SPICA_CALIB_REFERENCE" in error.message
    assert error.after_s is not None and error.after_s >= 30
    assert not list((tmp_path / "cache").rglob("*.parquet"))
    # What it was is over: the same image goes on.
    tap.faults.clear()
    area = await had(references(tmp_path, tap.url), SMALL)
    assert len(stars_in_cone(area, *SMALL)) == len(expected(tap, SMALL))


async def test_what_the_service_says_is_passed_on(tap: TapStars, tmp_path: Path) -> None:
    del tap.tables["gaiadr3.gaia_source"]["ruwe"]
    with pytest.raises(ReferenceUnavailable, match="unknown column ruwe"):
        await had(references(tmp_path, tap.url))


async def test_a_service_that_wants_rest_gets_it(tap: TapStars, tmp_path: Path) -> None:
    tap.faults.append(Fault("refuse", "async", times=None, retry_after="1800"))
    with pytest.raises(ReferenceUnavailable) as waiting:
        await had(references(tmp_path, tap.url))
    assert waiting.value.after_s == 1800
    # Those that were under way, and no second try.
    assert len([1 for method, path in tap.requests if path == "/tap/async"]) <= 3


async def test_a_date_in_retry_after(tap: TapStars, tmp_path: Path) -> None:
    tap.faults.append(Fault("refuse", times=1, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"))
    await had(references(tmp_path, tap.url))
    assert tap.faults[0].times == 0


async def test_a_failed_service_is_left_alone_for_a_while(tap: TapStars, tmp_path: Path) -> None:
    tap.faults.append(Fault("refuse", "async", times=None))
    source = references(tmp_path, tap.url, rest_s=60.0)
    with pytest.raises(ReferenceUnavailable):
        await source.area(*CONE)
    asked = len(tap.requests)
    for _ in range(5):
        with pytest.raises(ReferenceUnavailable, match="503"):
            await source.area(*CONE)
    assert len(tap.requests) == asked
    await source.close()


async def test_a_redirection_is_followed(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    table = gaia_table(rng, *stars_around(rng, 300, 10.0, 20.0, 0.3))
    async with TapStars({"gaiadr3.gaia_source": table}) as tap:
        own = describe(tmp_path / "own", tap.url, **{'mode = "async"': 'mode = "sync"'})
        tap.faults.append(Fault("redirect", times=1))
        source = References(Path("gaia-dr3"), cache=tmp_path / "cache", catalogues=own, patience=QUICK)
        area = await had(source, (10.0, 20.0, 0.1))
        assert ("POST", "/tap/other/sync") in tap.requests
        assert len(stars_in_cone(area, 10.0, 20.0, 0.1)) == len(expected(tap, (10.0, 20.0, 0.1)))


async def test_many_at_once_fetch_each_tile_once_and_few_at_a_time(tap: TapStars, tmp_path: Path) -> None:
    source = references(tmp_path, tap.url, concurrency=2)
    tap.faults.append(Fault("slow", "result", times=None, delay_s=0.02))
    areas = await asyncio.gather(*(source.area(*CONE) for _ in range(10)))
    await source.close()
    assert len(set(areas)) == 1
    assert len(tap.queries) == len(set(tap.queries)) == len(areas[0].files)
    assert tap.busiest <= 2


async def test_two_replicas_share_a_cache(tap: TapStars, tmp_path: Path) -> None:
    areas = await asyncio.gather(*(had(references(tmp_path, tap.url)) for _ in range(3)))
    assert len(set(areas)) == 1
    same(stars_in_cone(areas[0], *CONE), tap.tables["gaiadr3.gaia_source"], expected(tap, CONE))


async def test_a_cancelled_image_leaves_nothing_behind(tap: TapStars, tmp_path: Path) -> None:
    source = references(tmp_path, tap.url)
    tap.faults.append(Fault("slow", "result", times=None, delay_s=0.3))
    task = asyncio.create_task(source.area(*CONE))
    await asyncio.sleep(0.15)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not list((tmp_path / "cache").rglob("*.json"))
    tap.faults.clear()
    area = await source.area(*CONE)
    await source.close()
    same(stars_in_cone(area, *CONE), tap.tables["gaiadr3.gaia_source"], expected(tap, CONE))
    assert tap.jobs_left == 0


async def test_offline_names_all_that_is_missing(tap: TapStars, tmp_path: Path) -> None:
    some = await had(references(tmp_path, tap.url), SMALL)
    with pytest.raises(ReferenceUnavailable) as waiting:
        await had(references(tmp_path, tap.url, offline=True))
    assert waiting.value.code == "reference_offline"
    every = await had(references(tmp_path / "other", tap.url))
    missing = sorted({file.tile for file in every.files} - {file.tile for file in some.files})
    assert str(missing) in waiting.value.message
    assert "python -m spica_calib.reference get" in waiting.value.message


@pytest.mark.parametrize("how", ["changed", "shorter", "gone", "no note", "broken note"])
async def test_a_damaged_tile(tap: TapStars, tmp_path: Path, how: str) -> None:
    area = await had(references(tmp_path, tap.url))
    path = area.files[0].path
    body = path.read_bytes()
    match how:
        case "changed":
            path.write_bytes(body[:100] + bytes([body[100] ^ 1]) + body[101:])
        case "shorter":
            path.write_bytes(body[:-10])
        case "gone":
            path.unlink()
        case "no note":
            path.with_suffix(".json").unlink()
        case "broken note":
            path.with_suffix(".json").write_text("{")
    with pytest.raises(ReferenceUnavailable) as waiting:
        await had(references(tmp_path, tap.url, offline=True))
    assert waiting.value.code == (
        "reference_damaged" if how in ("changed", "shorter") else "reference_offline"
    )
    assert str(path.name) in waiting.value.message or str(area.files[0].tile) in waiting.value.message
    asked = len(tap.queries)
    assert await had(references(tmp_path, tap.url)) == area
    assert len(tap.queries) == asked + 1


async def test_a_cache_that_cannot_be_written(tap: TapStars, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(ReferenceUnavailable) as waiting:
        await had(references(tmp_path, tap.url))
    assert waiting.value.code == "reference_cache"
    assert tap.requests == []  # nobody is asked for what cannot be kept
    assert "SPICA_CALIB_REFERENCE_CACHE" in waiting.value.message


async def test_another_choice_of_stars_is_another_catalogue(tap: TapStars, tmp_path: Path) -> None:
    first = await had(references(tmp_path, tap.url))
    own = describe(tmp_path / "own", tap.url, **{"phot_g_mean_mag < 21.0": "phot_g_mean_mag < 15.0"})
    bright = await had(References(Path("gaia-dr3"), cache=tmp_path / "cache", catalogues=own, patience=QUICK))
    assert first.path != bright.path and first.sha256 != bright.sha256
    assert stars_in_cone(bright, *CONE).mags["G"].max() < 15.0


async def test_a_cone_beyond_the_area_is_told(tap: TapStars, tmp_path: Path) -> None:
    area = await had(references(tmp_path, tap.url), SMALL)
    with pytest.raises(ReferenceUnavailable) as narrow:
        stars_in_cone(area, *CONE)
    assert narrow.value.code == "reference_area"
    needed = cone_needed(narrow.value)
    assert needed == CONE
    wide = await had(references(tmp_path, tap.url), needed)
    same(stars_in_cone(wide, *CONE), tap.tables["gaiadr3.gaia_source"], expected(tap, CONE))
    assert cone_needed(ReferenceUnavailable("reference_offline", "")) is None


async def test_a_tile_that_changed_since_is_not_read(tap: TapStars, tmp_path: Path) -> None:
    rng = np.random.default_rng(99)  # stars that no other test has read: what is in memory is sound
    tap.tables["gaiadr3.gaia_source"] = gaia_table(rng, *stars_around(rng, 500, *CONE[:2], 1.0))
    area = await had(references(tmp_path, tap.url), SMALL)
    tap.tables["gaiadr3.gaia_source"] = gaia_table(rng, *stars_around(rng, 500, *CONE[:2], 1.0))
    newer = await had(references(tmp_path / "b", tap.url), SMALL)
    area.files[0].path.write_bytes(newer.files[0].path.read_bytes())
    with pytest.raises(ReferenceUnavailable, match="changed"):
        stars_in_cone(area, *SMALL)


async def test_killed_while_it_fetches(tap: TapStars, tmp_path: Path) -> None:
    """The operator's command, killed half-way: what is there is sound, and the next one goes on from there."""
    cache, own = tmp_path / "cache", describe(tmp_path / "own", tap.url)
    environment = {**os.environ, "SPICA_CALIB_REFERENCE_CATALOGUES": str(own)}
    command = [sys.executable, "-m", "spica_calib.reference", "--cache", str(cache)]
    get = [*command, "get", "gaia-dr3", "--cone", *map(str, CONE)]

    async def start(*arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *arguments, env=environment, cwd=tmp_path, stdout=PIPE, stderr=PIPE
        )

    tap.faults.append(Fault("slow", "result", times=None, delay_s=0.2))
    killed = await start(*get)
    while not list(cache.glob("*/*/*.json")):
        await asyncio.sleep(0.02)
        assert killed.returncode is None
    killed.kill()
    await killed.wait()
    tap.faults.clear()
    kept = len(list(cache.glob("*/*/*.json")))
    asked = len(tap.queries)
    second = await start(*get)
    out, progress = await second.communicate()
    assert second.returncode == 0, progress
    count = len(list(cache.glob("*/*/*.json")))
    assert 0 < kept < count and out.decode().startswith(f"gaia-dr3: {count} tiles")
    assert f"[{count}/{count}]" in progress.decode()
    assert len(tap.queries) - asked == count - kept
    check = await start(*command, "status", "--check")
    assert (await check.communicate())[0].decode().count(f"{count} tiles") == 1 and check.returncode == 0
    area = await had(references(tmp_path, tap.url, offline=True))
    same(stars_in_cone(area, *CONE), tap.tables["gaiadr3.gaia_source"], expected(tap, CONE))


async def test_empty_sky(tap: TapStars, tmp_path: Path) -> None:
    cone = (20.0, -60.0, 0.3)
    area = await had(references(tmp_path, tap.url), cone)
    assert len(stars_in_cone(area, *cone)) == 0
    assert "G" in stars_in_cone(area, *cone).mags


async def test_a_field_of_megacam_is_quick(tmp_path: Path) -> None:
    """Warm means that the tiles are on disk: a worker that has not read them yet."""
    rng = np.random.default_rng(12)
    source = References(Path("gaia-dr3"), cache=tmp_path, offline=True)
    assert source.chosen is not None
    ra, dec = stars_around(rng, 75_000, CONE[0], CONE[1], 2.2)  # some 5,000 per square degree
    table, tiles = gaia_table(rng, ra, dec), tile_of(ra, dec, 6)
    columns = {name: np.asarray(table[column.name]) for name, column in source.chosen.service.columns.items()}
    for tile in tiles_touched(*CONE, 6).tolist():
        source.tiles.put(tile, {name: values[tiles == tile] for name, values in columns.items()}, [], "now")
    begun = time.perf_counter()
    area = await source.area(*CONE)
    looked_up = time.perf_counter() - begun
    begun = time.perf_counter()
    stars = stars_in_cone(area, *CONE)
    from_disk = time.perf_counter() - begun
    begun = time.perf_counter()
    stars_in_cone(area, *CONE)
    from_memory = time.perf_counter() - begun
    await source.close()
    print(
        f"{len(stars)} stars, {len(area.files)} tiles: {looked_up:.4f}, {from_disk:.4f}, {from_memory:.4f} s"
    )
    assert len(stars) > 9000
    assert looked_up + from_disk < 1.0 and from_memory < 0.2  # far more than is aimed at: machines are shared
