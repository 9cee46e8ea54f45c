"""Descriptions of catalogues, the tiles of the sky, what is asked of services, and what is read from their answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_calib.reference import catalogue as describing
from spica_calib.reference.area import AreaFile, ReferenceArea, tiles_touched
from spica_calib.reference.catalogue import choose, load_catalogues
from spica_calib.reference.query import adql, adql_count, canonical, cone_around, names_asked, tile_of
from spica_calib.reference.tap import resolved
from spica_calib.reference.votable import Malformed, Refused, WrongColumns, read_error, read_table
from spica_imaging.references import separation_deg
from spica_imaging.skycells import points_in_cells
from spica_runtime.errors import UsageError

from tests.support.cadc.adql import BadQuery
from tests.support.tapstars import adql as stand_in
from tests.support.tapstars import documents, stars_around

EVERY = [(name, service) for name, one in load_catalogues().items() for service in one.services]


def test_those_that_are_shipped() -> None:
    shipped = load_catalogues()
    assert {"gaia-dr3", "ps1", "ps1-dr2", "refcat2"} <= shipped.keys()
    assert set(shipped["gaia-dr3"].services) == {"esa", "ari", "vizier"}
    esa, ari = (shipped["gaia-dr3"].services[name] for name in ("esa", "ari"))
    assert esa.url != ari.url and esa.columns == ari.columns and esa.where == ari.where


@pytest.mark.parametrize(("name", "service"), EVERY)
def test_their_queries_can_be_answered(name: str, service: str) -> None:
    """By a table with the columns that are named, in ADQL as strict as the services'."""
    chosen = choose(f"{name}@{service}", load_catalogues())
    assert chosen is not None
    cone = cone_around(20_000, 6)
    words = adql(chosen.service, cone)
    ra, dec = stars_around(np.random.default_rng(1), 500, cone.ra_deg, cone.dec_deg, 1.5)
    named = {column.name for column in chosen.service.columns.values()} | {
        b.column for b in chosen.service.bits
    }
    gaia = {"astrometric_params_solved": 31, "ruwe": 1.0}
    besides = {
        "esa": gaia,
        "ari": gaia,
        "vizier": {"RUWE": 1.0, "iKmag": 15.0},
        "mast": {"iMeanKronMag": 15.0},
    }
    values = dict.fromkeys(named, 15.0) | besides[service] | {"dupvar": 0, "Qual": 4, "qualityFlag": 4}
    table: dict[str, Any] = {name: np.full(len(ra), value) for name, value in values.items()}
    table |= {chosen.service.columns["ra_deg"].name: ra, chosen.service.columns["dec_deg"].name: dec}
    tables = {chosen.service.table.strip('"'): table}
    found = stand_in.run(words, tables).columns
    inside = separation_deg(ra, dec, cone.ra_deg, cone.dec_deg) <= cone.radius_deg
    assert list(found) == names_asked(chosen.service)
    columns = canonical(chosen, found, cone)  # type: ignore[arg-type]
    assert 0 < inside.sum() == len(columns["ra_deg"]) < 500
    assert stand_in.run(adql_count(chosen.service, cone), tables).columns["n"].tolist() == [inside.sum()]
    assert set(columns) == {*chosen.service.columns, "epoch_year"}


def test_a_place_is_chosen_by_name() -> None:
    known = load_catalogues()
    assert choose("gaia-dr3", known) == choose("gaia-dr3@esa", known)
    vizier = choose("gaia-dr3@vizier", known)
    assert vizier is not None and vizier.label == "gaia-dr3@vizier"
    assert choose("gaia-dr3@nowhere", known) is None
    assert choose("gaia-dr4", known) is None
    assert choose("/data/gaia-dr3", known) is None


GOOD = """
name = "mine"
title = "My stars"
release = 2020-01-01
epoch_year = 2000.0
default = "here"
[services.here]
url = "https://example.org/tap/"
table = "stars"
mode = "sync"
max_rows = 1000
where = ["mag < 20"]
[services.here.columns]
ra_deg = "ra"
dec_deg = "dec"
mag_V = "mag"
"""


def test_users_add_their_own_and_replace_others(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(GOOD)
    (tmp_path / "ps1.toml").write_text(GOOD.replace('"mine"', '"ps1"'))
    known = load_catalogues(tmp_path)
    assert known["mine"].services["here"].url == "https://example.org/tap"
    assert known["ps1"].title == "My stars"
    assert "gaia-dr3" in known


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('dec_deg = "dec"', "", "needed"),
        ('mag_V = "mag"', 'magnitude = "mag"', "magnitude"),
        ('mag_V = "mag"', 'mag_V = { name = "mag", unit = "jansky" }', "unit"),
        ('default = "here"', 'default = "there"', "there"),
        ('mode = "sync"', 'mode = "soon"', "mode"),
        ("epoch_year = 2000.0", "", "epoch_year"),
        ("max_rows = 1000", "max_rows = 1000\nmax_row = 5", "max_row"),
        ("https://example.org/tap/", "ftp://example.org", "url"),
        ('name = "mine"', 'name = "../mine"', "names"),
        ('[services.here]', '[services.there]\nlike = "nobody"\n[services.here]', "nobody"),
        ('title = "My stars"', "title = ", "TOML"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_description_is_said(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    (tmp_path / "mine.toml").write_text(GOOD.replace(old, new))
    with pytest.raises(UsageError, match=said) as refused:
        load_catalogues(tmp_path)
    assert "mine.toml" in refused.value.message


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        load_catalogues(tmp_path / "nothing")


def key_of(folder: Path, text: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "mine.toml").write_text(text)
    chosen = choose("mine", load_catalogues(folder))
    assert chosen is not None
    return chosen.key


def test_another_choice_is_kept_apart_and_another_address_is_not(tmp_path: Path) -> None:
    key = key_of(tmp_path, GOOD)
    assert key.startswith("mine@here-")
    assert key_of(tmp_path, GOOD.replace("example.org", "mirror.org").replace("1000", "2000")) == key
    assert key_of(tmp_path, GOOD.replace("mag < 20", "mag < 19")) != key
    assert key_of(tmp_path, GOOD.replace('mag_V = "mag"', 'mag_B = "mag"')) != key
    assert key_of(tmp_path, GOOD.replace("2000.0", "2015.5")) != key


def test_shipped_descriptions_are_in_the_package() -> None:
    folder = Path(describing.__file__).with_name("catalogues")
    assert {path.stem for path in folder.glob("*.toml")} == set(load_catalogues())


@given(st.integers(0, 12), st.data())
@settings(max_examples=60, deadline=None)
def test_a_cone_holds_its_tile(order: int, data: st.DataObject) -> None:
    tile = data.draw(st.integers(0, 12 * 4**order - 1))
    cone = cone_around(tile, order)
    points = [
        points_in_cells(np.array([tile]), order, data.draw(st.floats(0, 1)), data.draw(st.floats(0, 1)))[0]
        for _ in range(20)
    ]
    x, y, z = np.array(points).T
    ra, dec = np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, np.hypot(x, y)))
    assert (separation_deg(ra, dec, cone.ra_deg, cone.dec_deg) <= cone.radius_deg).all()
    assert cone.radius_deg < 1.3 * 58.6 / 2**order + 0.001


@given(st.floats(0, 360), st.floats(-90, 90), st.floats(0.001, 5.0))
@settings(max_examples=60, deadline=None)
def test_no_star_of_a_cone_is_in_a_tile_that_is_left_out(ra: float, dec: float, radius: float) -> None:
    stars = stars_around(np.random.default_rng(3), 500, ra, dec, radius)
    tiles = tiles_touched(ra, dec, radius, 6)
    assert set(tile_of(*stars, 6).tolist()) <= set(tiles.tolist())
    assert len(tiles) <= np.pi * (radius + 2.0) ** 2 / 0.84 + 4


def test_an_area_knows_what_it_holds(tmp_path: Path) -> None:
    tiles = [
        AreaFile(tmp_path / f"{n}", f"{n:064x}", n, n) for n in tiles_touched(10.0, 20.0, 0.5, 6).tolist()
    ]
    area = ReferenceArea.of_tiles("some", 6, reversed(tiles))
    assert [file.tile for file in area.files] == sorted(file.tile or 0 for file in tiles)
    assert area == ReferenceArea.of_tiles("some", 6, tiles)
    assert area.touched(10.0, 20.0, 0.5) == area.files
    part = area.touched(10.0, 20.0, 0.01)
    assert part is not None and 0 < len(part) < len(area.files)
    assert area.touched(10.0, 20.0, 3.0) is None
    assert area.size_bytes == sum(file.size_bytes for file in tiles)
    other = [AreaFile(f.path, f.sha256[::-1], f.size_bytes, f.tile) for f in tiles]
    assert ReferenceArea.of_tiles("some", 6, other).sha256 != area.sha256
    assert ReferenceArea.of_tiles("some", 6, tiles[1:]).sha256 != area.sha256
    file = ReferenceArea.of_file(tmp_path / "stars.fits", "a" * 64, 7)
    assert (file.sha256, file.name, file.path, file.size_bytes) == (
        "a" * 64,
        "stars.fits",
        tmp_path / "stars.fits",
        7,
    )
    assert file.touched(0.0, 0.0, 180.0) == file.files


STARS: dict[str, Any] = {"ra": np.array([1.5, 2.5]), "mag": np.array([15.0, np.nan]), "n": np.array([3, 4])}


@pytest.mark.parametrize("form", ["tabledata", "binary", "binary2"])
@pytest.mark.parametrize("overflow", [False, True])
def test_numbers_of_a_votable(form: str, overflow: bool) -> None:
    table = read_table(documents.table(STARS, overflow, form), ["ra", "MAG", "n"])
    assert table.n_rows == 2 and table.overflow == overflow
    assert table.columns["ra"].tolist() == [1.5, 2.5]
    assert table.columns["MAG"] == pytest.approx([15.0, np.nan], nan_ok=True)
    assert table.columns["n"].tolist() == [3.0, 4.0]


@pytest.mark.parametrize("form", ["tabledata", "binary2"])
def test_a_votable_that_is_cut_anywhere_is_no_table(form: str) -> None:
    """Never fewer rows in silence: not one place to cut it may give a table."""
    body = documents.table(STARS, False, form)
    whole = len(body.rstrip())
    for end in range(0, whole, 7):
        with pytest.raises(Malformed):
            read_table(body[:end], ["ra", "mag", "n"])


def test_no_rows_at_all() -> None:
    nothing: dict[str, Any] = {name: values[:0] for name, values in STARS.items()}
    assert read_table(documents.table(nothing, False), ["ra", "mag", "n"]).n_rows == 0


@pytest.mark.parametrize(
    ("body", "error", "said"),
    [
        (b"", Malformed, "nothing"),
        (b"<!DOCTYPE html><html>sign in</html>", Malformed, "browsers"),
        (b"ra,dec\n1,2\n", Malformed, "no table but"),
        (documents.error("Column <rah> is unknown"), Refused, "Column <rah> is unknown"),
        (b"<VOTABLE></VOTABLE>", Malformed, "without a table"),
        (documents.table({"ra": STARS["ra"], "mag": STARS["mag"]}, False), WrongColumns, "instead of"),
        (documents.table({**STARS, "n": np.array(["a", "b"])}, False), WrongColumns, "one number"),
        (documents.table({"mag": STARS["mag"], "ra": STARS["ra"], "n": STARS["n"]}, False), WrongColumns, "instead of"),
    ],
)  # fmt: skip
def test_what_is_no_answer(body: bytes, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        read_table(body, ["ra", "mag", "n"])


def test_an_error_is_read_whatever_it_comes_in() -> None:
    assert read_error(documents.error("quota  used\nup")) == "quota used up"
    assert "browsers" in read_error(b"<html>")
    assert "Bad Gateway" in read_error(b"502 Bad Gateway")
    assert read_error(b"") == "nothing"
    assert len(read_error(b"x" * 10_000)) < 400


@pytest.mark.parametrize(
    ("url", "location", "leads_to"),
    [
        ("https://a.org/tap/async", "/tap/async/7", "https://a.org/tap/async/7"),
        ("https://a.org/tap/async", "http://a.org:80/tap/async/7", "https://a.org/tap/async/7"),
        ("https://a.org/tap/async", "http://b.org/tap/async/7", "http://b.org/tap/async/7"),
        ("http://a.org:8080/tap/async", "7", "http://a.org:8080/tap/7"),
    ],
)
def test_where_a_redirection_leads(url: str, location: str, leads_to: str) -> None:
    assert resolved(url, location) == leads_to
    with pytest.raises(Malformed):
        resolved(url, "file:///etc/passwd")


def test_the_stand_in_is_strict() -> None:
    tables: dict[str, Any] = {
        "T/1": {"Gmag": np.array([1.0]), "gmag": np.array([2.0]), "ra": np.array([3.0])}
    }
    assert stand_in.run('SELECT "Gmag", "gmag" FROM "T/1"', tables).columns["gmag"].tolist() == [2.0]
    for query in ('SELECT gmag FROM "T/1"', 'SELECT "GMAG" FROM "T/1"', "SELECT ra FROM t", 'SELECT ra FROM "T/1" LIMIT 3',
                  'SELECT ra FROM "T/1" WHERE ra', 'SELECT dec FROM "T/1"'):  # fmt: skip
        with pytest.raises(BadQuery):
            stand_in.run(query, tables)
