"""Images by place, time and rules: from a real PostgreSQL, by function, command and HTTP."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from spica_console.searching import Search, search, search_from, touching
from spica_imaging.skyshapes import Box, Cone, Polygon, Shape
from spica_ingest.science.place import rough_place
from spica_ingest.science.verify import Exposure
from spica_runtime.database import open_pool
from spica_runtime.pg import Pool

from tests.support.command import spica
from tests.support.exposures import exposure_at, fill
from tests.support.rig import Rig
from tests.support.seeding import insert
from tests.support.site import start_console


async def names(pool: Pool, **wanted: Any) -> list[str]:
    return [row["name"] for row in await search(pool, Search(**wanted))]


@pytest.fixture
async def pool(rig: Rig) -> Pool:
    return rig.pool


async def test_images_that_cover_a_place_the_newest_first(pool: Pool) -> None:
    await fill(
        pool,
        [
            ("old", exposure_at(10.0, 20.0, mjd_obs=53000.0)),
            ("new", exposure_at(10.05, 20.05, mjd_obs=54000.0)),
            ("elsewhere", exposure_at(11.0, 20.0)),
            ("large", exposure_at(10.5, 20.0, size=4.0, mjd_obs=53500.0)),
            ("small", exposure_at(10.01, 20.0, size=0.01, mjd_obs=55000.0)),
            ("pointing", exposure_at(10.2, 20.0, place=rough_place(10.2, 20.0, 0.5), mjd_obs=52000.0)),
            ("timeless", exposure_at(10.0, 20.0, mjd_obs=None)),
        ],
    )
    found = await search(pool, Search(Cone(10.04, 20.0)))
    assert [(row["name"], row["match"]) for row in found] == [
        ("new", "exact"), ("large", "exact"), ("old", "exact"), ("pointing", "rough"), ("timeless", "exact"),
    ]  # fmt: skip
    # Between the CCDs of two of them.
    assert await names(pool, shape=Cone(10.0, 20.0)) == ["new", "large", "pointing"]
    assert await names(pool, shape=Cone(10.04, 20.0, 0.05)) == [
        "small",
        "new",
        "large",
        "old",
        "pointing",
        "timeless",
    ]
    assert await names(pool, shape=Cone(10.04, 20.0), since_mjd=53000.0, until_mjd=54000.0) == [
        "large",
        "old",
    ]
    assert "timeless" not in await names(pool, shape=Cone(10.04, 20.0), until_mjd=60000.0)
    assert await names(pool, shape=Cone(10.04, 20.0), limit=2) == ["new", "large"]
    assert await names(pool, shape=Cone(190.0, -20.0)) == []


async def test_rules_alone_and_with_a_place(pool: Pool) -> None:
    def with_rules(mjd: float, band: str, run: str, seeing: float | None, airmass: float | None) -> Exposure:
        columns = {"canonical_filter": band, "seeing_arcsec": seeing}
        return exposure_at(10.0, 20.0, mjd_obs=mjd, run=run, filter=band, airmass=airmass, columns=columns)

    await fill(
        pool,
        [
            ("a", with_rules(1.0, "r", "R1", 0.7, 1.1)),
            ("b", with_rules(2.0, "g", "R1", 0.6, 1.1)),
            ("c", with_rules(3.0, "r", "R2", 0.9, 1.5)),
            ("d", with_rules(4.0, "r", "R2", None, None)),
        ],
    )
    for shape in (None, Cone(10.04, 20.0)):
        for rules, expected in (
            ({}, "dcba"), ({"filter": "r"}, "dca"), ({"run": "R1"}, "ba"), ({"run": "R2", "filter": "r"}, "dc"),
            ({"name": "c"}, "c"), ({"name": "c", "filter": "g"}, ""), ({"seeing_max_arcsec": 0.7}, "ba"),
            ({"seeing_max_arcsec": 0.7, "filter": "r"}, "a"), ({"airmass_max": 1.2}, "ba"),
            ({"since_mjd": 2.0, "until_mjd": 4.0}, "cb"), ({"filter": "r", "since_mjd": 1.5}, "dc"),
            ({"run": "R1", "until_mjd": 2.0}, "a"), ({"limit": 3}, "dcb"), ({"run": "none"}, ""),
        ):  # fmt: skip
            assert "".join(await names(pool, shape=shape, **rules)) == expected, rules


AWKWARD: tuple[tuple[str, Shape, tuple[float, float], tuple[float, float]], ...] = (
    ("north pole", Cone(123.0, 89.99, 0.05), (10.0, 89.9), (10.0, 88.0)),
    ("south pole", Box(0, 360, -90, -89.95), (250.0, -89.85), (250.0, -89.0)),
    ("zero from the left", Cone(359.95, 0.0, 0.01), (0.03, 0.0), (0.5, 0.0)),
    ("zero from the right", Cone(0.05, 0.0), (359.97, 0.0), (359.5, 0.0)),
    ("box across zero", Box(359.99, 0.01, -0.1, 0.1), (359.95, 0.05), (359.5, 0.0)),
    ("polygon across zero", Polygon(((359.9, 5), (0.1, 5), (0.0, 5.2))), (359.85, 5.1), (1.0, 5.1)),
    ("polygon around the pole", Polygon(((0, 89.5), (120, 89.5), (240, 89.5))), (2.0, 89.4), (2.0, 88.0)),
    ("border of the polar cap", Cone(45.0, math.degrees(math.asin(2 / 3))), (45.1, 41.9), (45.9, 41.9)),
)


@pytest.mark.parametrize(
    ("shape", "near", "far"), [case[1:] for case in AWKWARD], ids=[case[0] for case in AWKWARD]
)
async def test_poles_and_where_right_ascension_begins_again(
    pool: Pool, shape: Shape, near: tuple[float, float], far: tuple[float, float]
) -> None:
    await fill(pool, [("near", exposure_at(*near)), ("far", exposure_at(*far))])
    assert await names(pool, shape=shape) == ["near"]


async def test_answers_are_those_of_a_look_at_every_image(pool: Pool) -> None:
    chance = np.random.default_rng(11)
    places = []
    for _ in range(300):
        middle = chance.choice([0, 1, 2, 3])
        ra, dec = ((0.0, 0.0), (200.0, 89.6), (359.9, -30.0), (80.0, 41.8))[middle]
        dec = float(np.clip(dec + chance.normal(0, 0.6), -90, 90))
        ra = float((ra + chance.normal(0, 0.6) / max(0.02, math.cos(math.radians(dec)))) % 360)
        size = float(10 ** chance.uniform(-1.5, 0.7))
        places.append(
            (f"i{len(places)}", exposure_at(ra, dec, size=size, mjd_obs=float(50000 + len(places))))
        )
    await fill(pool, places)
    everything = await pool.fetch(
        "SELECT name, corners, centre_x, centre_y, centre_z, radius_rad FROM images"
    )
    answers = 0
    for _ in range(60):
        exposure = places[int(chance.integers(300))][1]
        ra, dec = exposure.geometry.ra_deg, exposure.geometry.dec_deg
        dec = float(np.clip(dec + chance.normal(0, 0.3), -89.9, 89.9))
        reach = float(chance.uniform(0.001, 1.5))
        shapes: tuple[Shape, ...] = (
            Cone(ra, dec),
            Cone(ra, dec, reach),
            Box((ra - reach) % 360, (ra + reach) % 360, max(-90, dec - reach), min(90, dec + reach)),
            Polygon(((ra, max(-90, dec - reach)), ((ra + 2 * reach) % 360, dec), (ra, min(90, dec + reach)))),
        )
        for shape in shapes:
            hits = touching(everything, shape)
            expected = {row["name"] for row, hit in zip(everything, hits, strict=True) if hit}
            assert set(await names(pool, shape=shape, limit=1000)) == expected, shape
            assert await names(pool, shape=shape, limit=3) == sorted(expected, key=lambda n: -int(n[1:]))[:3]
            answers += len(expected)
    assert answers > 500


async def test_a_region_of_half_the_sky_is_looked_up_by_ranges(pool: Pool) -> None:
    await fill(
        pool, [("north", exposure_at(77.0, 30.0, size=0.05)), ("south", exposure_at(77.0, -30.0, size=0.05))]
    )
    assert await names(pool, shape=Cone(0.0, 90.0, 89.0)) == ["north"]
    assert await names(pool, shape=Box(0, 360, -89, -1)) == ["south"]
    assert await names(pool, shape=Box(60, 90, -60, 60)) == ["south", "north"]


async def test_more_candidates_than_a_page_are_gone_through(pool: Pool) -> None:
    """None of the newest sixty images of the cell covers the place; the oldest does."""
    images = [(f"beside{n}", exposure_at(10.3, 20.0, mjd_obs=60000.0 + n)) for n in range(60)]
    await fill(pool, [("it", exposure_at(10.04, 20.0, mjd_obs=50000.0)), *images])
    assert await names(pool, shape=Cone(9.95, 20.0), limit=1) == ["it"]


async def test_grade_and_measured_seeing_come_along(rig: Rig) -> None:
    ids = await fill(rig.pool, [("a", exposure_at(10.0, 20.0))])
    image_id = ids["a"]
    about = {"subject_kind": "image", "subject_id": image_id}
    paths = {"catalogue_path": "c", "weight_path": "w", "preview_path": "p"}
    await insert(
        rig, "measurements", {"measurement_id": "m", **about, "metrics": {"fwhm_arcsec": 0.8}, **paths}
    )
    for number, (grade, by) in enumerate((("A", "person:ada"), ("C", "policy:default@1"))):
        await insert(rig, "grades", {"grade_id": f"g{number}", **about, "grade": grade, "graded_by": by})
    (row,) = await search(rig.pool, Search(name="a"))
    assert (row["image_id"], row["fwhm_arcsec"], row["grade"]) == (image_id, 0.8, "A")


async def test_the_command(rig: Rig, tmp_path: Path) -> None:
    await fill(
        rig.pool,
        [
            ("744331p", exposure_at(214.5, 52.5, mjd_obs=53083.25, columns={"seeing_arcsec": 0.71})),
            ("744332p", exposure_at(214.5, -52.5, mjd_obs=53084.25)),
        ],
    )
    table = await spica("images", "--near", "214.55", "52.5", settings=rig.settings, home=tmp_path)
    assert table.code == 0, table.err
    assert "744331p" in table.out and "2004-03-19 06:00:00" in table.out and "0.71" in table.out
    assert "exact" in table.out and "1 image(s)." in table.out and "744332p" not in table.out
    south = await spica(
        "images", "--near", "14:18:12", "-52:30:00", "--json", settings=rig.settings, home=tmp_path
    )
    assert [row["name"] for row in south.json] == ["744332p"]
    box = ("images", "--box", "214", "215", "-60", "60", "--since", "2004-03-20", "--json")
    assert [row["name"] for row in (await spica(*box, settings=rig.settings, home=tmp_path)).json] == [
        "744332p"
    ]
    limited = await spica("images", "--limit", "1", settings=rig.settings, home=tmp_path)
    assert "there may be more" in limited.out
    nothing = await spica("images", "--name", "none", settings=rig.settings, home=tmp_path)
    assert (nothing.code, nothing.out.strip()) == (0, "No image fits.")
    for wrong, says in (
        (("--near", "214.5", "95"), "-90 to 90, not 95"),
        (("--radius", "1"), "radius goes with near"),
        (("--since", "soon"), "2010-11-03"),
    ):
        ended = await spica("images", *wrong, settings=rig.settings, home=tmp_path)
        assert ended.code == 2 and says in ended.err, ended.err


async def test_the_http_api(rig: Rig) -> None:
    await fill(rig.pool, [("744331p", exposure_at(214.5, 52.5)), ("744332p", exposure_at(10.0, 0.0))])
    url = await start_console(rig)
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as http:
        answer = await http.get("/api/search", params={"near": "214.55,52.5", "radius": "0.1"})
        assert answer.status_code == 200, answer.text
        (row,) = answer.json()
        assert (row["name"], row["match"], row["wcs"]) == ("744331p", "exact", "full")
        assert len(row["footprint"]) >= 8
        assert len((await http.get("/api/search?limit=1")).json()) == 1
        assert (await http.get("/api/search?box=9,11,-1,1")).json()[0]["name"] == "744332p"
        for query, says in (
            ("near=1", "near is RA DEC"), ("where=here", "no option 'where'"), ("limit=x", "limit is 1 to"),
            ("near=1,2&near=3,4", "more than once"), ("seeing_max=-1", "number above 0"),
        ):  # fmt: skip
            answer = await http.get(f"/api/search?{query}")
            assert answer.status_code == 422
            assert answer.json()["code"] == "bad_search" and says in answer.json()["message"]


async def test_a_filter_by_its_other_name(rig: Rig) -> None:
    from spica_imaging.profiles import load_profiles

    columns = {"canonical_filter": "i.MP9702"}
    await fill(rig.pool, [("a", exposure_at(1.0, 2.0, filter="y.MP9702", columns=columns))])
    for name in ("y.MP9702", "i.MP9702"):
        (row,) = await search(rig.pool, search_from({"filter": name}), load_profiles())
        assert (row["filter"], row["canonical_filter"]) == ("y.MP9702", "i.MP9702")
    bands = ("r", "r.SDSS", "g")
    await fill(
        rig.pool,
        [(band, exposure_at(1.0, 2.0, filter=band, columns={"canonical_filter": band})) for band in bands],
    )
    for rules in ({}, {"run": "25BQ07"}, {"near": "1.05 2"}):
        found = await search(rig.pool, search_from({"filter": "r", **rules}), load_profiles())
        assert {row["filter"] for row in found} == {"r", "r.SDSS"}


async def test_an_empty_store_has_an_empty_answer(rig: Rig) -> None:
    async with open_pool(rig.settings) as pool:
        assert await search(pool, Search(Cone(0, 0, 10))) == []
        assert await search(pool, Search()) == []
