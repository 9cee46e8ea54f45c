"""Searches as people write them, and what is said to those that do not fit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from spica_console.searching import Search, names_of_filter, search_from, touching
from spica_imaging.profiles import load_profiles
from spica_imaging.skyshapes import Box, Cone, Polygon
from spica_ingest.science.place import Place, place_of, rough_place
from spica_runtime.errors import UsageError


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Search()),
        ({"near": "214.5 52.5"}, Search(Cone(214.5, 52.5))),
        ({"near": "214.5,-52.5", "radius": "0.5"}, Search(Cone(214.5, -52.5, 0.5))),
        ({"near": "14:18:00 +52:30:00"}, Search(Cone(214.5, 52.5))),
        ({"box": "350 10 -5 5"}, Search(Box(350, 10, -5, 5))),
        ({"polygon": "0 0, 1 0, 1 1"}, Search(Polygon(((0, 0), (1, 0), (1, 1))))),
        ({"since": "53000.5", "until": "2004-01-02"}, Search(since_mjd=53000.5, until_mjd=53006.0)),
        ({"since": "2010-11-03T04:30:00+02:00"}, Search(since_mjd=55503 + 2.5 / 24)),
        ({"until": "2010-11-03 06:00"}, Search(until_mjd=55503.25)),
        (
            {"filter": "r.MP9601", "run": "04BQ05", "name": "744331p", "seeing_max": "0.8", "airmass_max": "1.3"},
            Search(filter="r.MP9601", run="04BQ05", name="744331p", seeing_max_arcsec=0.8, airmass_max=1.3),
        ),
        ({"all_versions": "true", "limit": "7"}, Search(all_versions=True, limit=7)),
    ],
)  # fmt: skip
def test_searches_are_read(options: dict[str, str], expected: Search) -> None:
    found = search_from(options)
    for name in ("since_mjd", "until_mjd"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name))
    times = {"since_mjd": None, "until_mjd": None}
    assert {**vars_of(found), **times} == {**vars_of(expected), **times}


def vars_of(search: Search) -> dict[str, Any]:
    return {name: getattr(search, name) for name in Search.__dataclass_fields__}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"nearby": "1 2"}, "no option 'nearby'"),
        ({"near": "1"}, "near is RA DEC, in degrees or as 13:37:00"),
        ({"near": "1 2 3 4"}, "near is RA DEC"),
        ({"near": "here there"}, "not 'here there'"),
        ({"near": "1 91"}, "-90 to 90, not 91"),
        ({"near": "1 2", "radius": "wide"}, "radius is a number of degrees, not 'wide'"),
        ({"near": "1 2", "radius": "-1"}, "0 to 180 deg, not -1"),
        ({"near": "1 2", "radius": "nan"}, "radius is a number"),
        ({"radius": "1"}, "radius goes with near"),
        ({"near": "1 2", "box": "1 2 3 4"}, "near and box exclude each other"),
        ({"box": "1 2 3"}, "RA1 RA2 DEC1 DEC2"),
        ({"box": "1 2 5 3"}, "southern edge"),
        ({"polygon": "0 0 1 0"}, "three corners or more"),
        ({"polygon": "0 0 1 0 1"}, "three corners or more"),
        ({"since": "yesterday"}, "since is a date, a date and time, or an MJD"),
        ({"since": "99"}, "since is a date"),
        ({"since": "2010-11-03", "until": "2010-11-03"}, "until must be later than since"),
        ({"seeing_max": "0"}, "seeing_max is a number above 0"),
        ({"airmass_max": "low"}, "airmass_max is a number above 0"),
        ({"limit": "0"}, "limit is 1 to 1000"),
        ({"limit": "-5"}, "limit is 1 to 1000"),
        ({"limit": "²"}, "limit is 1 to 1000"),
        ({"limit": "1001"}, "limit is 1 to 1000"),
        ({"all_versions": "maybe"}, "true or false"),
    ],
)
def test_a_search_that_does_not_fit_is_told_how_it_is_written(options: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        search_from(options)
    assert says in caught.value.message


def row(place: Place) -> dict[str, Any]:
    x, y, z = place.centre
    return {
        "corners": place.corners,
        "centre_x": x,
        "centre_y": y,
        "centre_z": z,
        "radius_rad": place.radius_rad,
    }


def square(ra: float, dec: float, half: float = 0.05) -> list[float]:
    wide = half / math.cos(math.radians(dec))
    return [ra - wide, dec - half, ra + wide, dec - half, ra + wide, dec + half, ra - wide, dec + half]


def test_a_place_in_the_gap_between_ccds_is_not_covered() -> None:
    rows = [
        row(place_of([square(10.0, 0.0), square(10.2, 0.0)])),
        row(place_of([square(10.1, 0.0)])),
        row(rough_place(10.1, 0.0, 0.3)),
        row(place_of([square(30.0, 0.0)])),
        row(rough_place(30.0, 0.0, 0.3)),
    ]
    assert touching(rows, Cone(10.1, 0.0)) == [None, "exact", "rough", None, None]
    assert touching(rows, Cone(10.1, 0.0, 0.06)) == ["exact", "exact", "rough", None, None]
    assert touching(rows, Box(10.04, 10.16, -0.5, 0.5))[:2] == ["exact", "exact"]
    assert touching(rows, Box(10.06, 10.14, -0.5, 0.5))[:2] == [None, "exact"]
    gap = Polygon(((10.06, -1), (10.14, -1), (10.14, 1), (10.06, 1)))
    assert touching(rows, gap)[:3] == [None, "exact", "rough"]
    assert touching([], Cone(0, 0)) == []


def test_many_images_at_once_are_judged_as_each_alone() -> None:
    chance = np.random.default_rng(5)
    rows = [
        row(place_of([square(10 + dx + 0.11 * n, 20 + dy, 0.05) for n in range(3)]))
        for dx, dy in chance.normal(0, 0.2, (60, 2))
    ]
    for shape in (
        Cone(10.1, 20.0),
        Cone(10.1, 20.0, 0.1),
        Box(10, 10.1, 20, 20.1),
        Polygon(((10, 20), (10.2, 20), (10, 20.2))),
    ):
        together = touching(rows, shape)
        assert together == [touching([one], shape)[0] for one in rows]
        assert "exact" in together and None in together


def test_a_filter_may_be_called_by_any_of_its_names() -> None:
    profiles = load_profiles()
    assert names_of_filter("y.MP9702", profiles) == ["y.MP9702", "i.MP9702"]
    assert names_of_filter("r.MP9601", profiles) == ["r.MP9601"]
    assert {"r", "r.SDSS"} <= set(names_of_filter("r", profiles))
