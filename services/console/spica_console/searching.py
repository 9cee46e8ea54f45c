"""Finding images by place, time and rules, in milliseconds however many there are.

The store knows every image by cells of the sky and by time; what it gives are candidates. Which of them really touch
what was asked for is decided here, CCD by CCD, on the sphere. Why so: services/decisions/0005.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiosql
import numpy as np
from numpy.typing import NDArray
from spica_imaging.profiles import Profile
from spica_imaging.skycells import Floats, unit_vectors
from spica_imaging.skyshapes import Box, Cone, Polygon, Shape, ShapeError
from spica_imaging.sphere import quads_near
from spica_ingest.science.place import MAS_PER_DEG
from spica_ingest.science.values import MJD_EPOCH, as_angle, as_number
from spica_runtime.errors import UsageError
from spica_runtime.pg import Pool, Record

queries = aiosql.from_path(Path(__file__).parent / "search.sql", "asyncpg")

Row = dict[str, Any]

DEFAULT_LIMIT = 100
MOST_ROWS = 1000
_MOST_CANDIDATES = 4000
"""Of one page; the first pages are small, since they are enough for most."""
_MARGIN_RAD = 1e-8
_EVERY_TIME = (-math.inf, math.inf)
_KNOWN_TIME = -1e9
"""MJD before all times that are known, but after -infinity."""
_LAST = (math.inf, 2**62)


@dataclass(frozen=True, slots=True)
class Search:
    """What images are looked for; None does not restrict."""

    shape: Shape | None = None
    since_mjd: float | None = None
    """Exposures that began then or later."""
    until_mjd: float | None = None
    """Exposures that began before then."""
    filter: str | None = None
    run: str | None = None
    name: str | None = None
    seeing_max_arcsec: float | None = None
    airmass_max: float | None = None
    all_versions: bool = False
    """Also images that a later version of their archive file superseded."""
    limit: int = DEFAULT_LIMIT


OPTIONS = (
    "near", "radius", "box", "polygon", "since", "until", "filter", "run", "name", "seeing_max", "airmass_max",
    "all_versions", "limit",
)  # fmt: skip


def search_from(options: Mapping[str, str]) -> Search:
    """Read a search as people write it. Raises `UsageError`, which says what does not fit and how it is written."""
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise _bad(f"there is no option {unknown[0]!r}; there are {', '.join(OPTIONS)}")
    since, until = (_moment(options, name) for name in ("since", "until"))
    if since is not None and until is not None and until <= since:
        raise _bad("until must be later than since: what began at since or later, and before until, is found")
    return Search(
        shape=_shape(options),
        since_mjd=since,
        until_mjd=until,
        filter=options.get("filter"),
        run=options.get("run"),
        name=options.get("name"),
        seeing_max_arcsec=_above_zero(options, "seeing_max", "arcsec"),
        airmass_max=_above_zero(options, "airmass_max", "airmass"),
        all_versions=_flag(options, "all_versions"),
        limit=_limit(options),
    )


def _bad(what: str) -> UsageError:
    return UsageError("bad_search", f"This search does not fit: {what}.")


def _shape(options: Mapping[str, str]) -> Shape | None:
    given = [name for name in ("near", "box", "polygon") if name in options]
    if len(given) > 1:
        raise _bad(f"{given[0]} and {given[1]} exclude each other")
    if "radius" in options and "near" not in options:
        raise _bad("radius goes with near")
    try:
        if "near" in options:
            ra, dec = _places(options["near"], "near", 1)[0]
            radius = as_number(options.get("radius", 0.0))
            if radius is None:
                raise _bad(f"radius is a number of degrees, not {options['radius']!r}")
            return Cone(ra, dec, radius)
        if "box" in options:
            west, east, south, north = _numbers(options["box"], "box", "RA1 RA2 DEC1 DEC2, in degrees", 4)
            return Box(west, east, south, north)
        if "polygon" in options:
            return Polygon(tuple(_places(options["polygon"], "polygon", 3)))
    except ShapeError as error:
        raise _bad(str(error).rstrip(".")) from error
    return None


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _numbers(text: str, name: str, expected: str, count: int) -> list[float]:
    found = [as_number(word) for word in _words(text)]
    numbers = [number for number in found if number is not None]
    if len(numbers) != count or len(found) != count:
        raise _bad(f"{name} is {expected}, not {text!r}")
    return numbers


def _places(text: str, name: str, least: int) -> list[tuple[float, float]]:
    """Pairs of RA and Dec: degrees, or sexagesimal with colons."""
    words = _words(text)
    expected = "RA DEC" if least == 1 else "RA DEC RA DEC RA DEC …, three corners or more"
    if len(words) % 2 or len(words) < 2 * least or (least == 1 and len(words) != 2):
        raise _bad(f"{name} is {expected}, in degrees or as 13:37:00 +38:22:00, not {text!r}")
    places = []
    for first, second in zip(words[::2], words[1::2], strict=True):
        ra, dec = as_angle(first, hours=True), as_angle(second, hours=False)
        if ra is None or dec is None:
            raise _bad(f"{name} is {expected}, in degrees or as 13:37:00 +38:22:00, not {text!r}")
        places.append((ra.degrees, dec.degrees))
    return places


def _moment(options: Mapping[str, str], name: str) -> float | None:
    """MJD of a date, of a date and time (UTC unless it says otherwise), or of an MJD."""
    text = options.get(name)
    if text is None:
        return None
    number = as_number(text)
    if number is not None and 10_000 <= number <= 100_000:
        return number
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise _bad(
            f"{name} is a date, a date and time, or an MJD (2010-11-03, 2010-11-03T04:30, 55503.2), not {text!r}"
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - MJD_EPOCH).total_seconds() / 86_400.0


def _above_zero(options: Mapping[str, str], name: str, unit: str) -> float | None:
    if name not in options:
        return None
    number = as_number(options[name])
    if number is None or number <= 0:
        raise _bad(f"{name} is a number above 0 ({unit}), not {options[name]!r}")
    return number


def _flag(options: Mapping[str, str], name: str) -> bool:
    text = options.get(name, "false").lower()
    if text not in ("true", "false", "1", "0", "yes", "no"):
        raise _bad(f"{name} is true or false, not {options[name]!r}")
    return text in ("true", "1", "yes")


def _limit(options: Mapping[str, str]) -> int:
    text = options.get("limit", str(DEFAULT_LIMIT))
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= MOST_ROWS:
        raise _bad(f"limit is 1 to {MOST_ROWS}, not {text!r}")
    return number


async def search(pool: Pool, wanted: Search, profiles: Mapping[str, Profile] | None = None) -> list[Row]:
    """Images that fit, the newest first; `match` says whether CCDs touch the place asked for, or perhaps do."""
    filters = None if wanted.filter is None else names_of_filter(wanted.filter, profiles or {})
    found: list[tuple[int, str | None]] = []
    async with pool.acquire() as connection:
        async for page in _pages(connection, wanted, filters):
            found += page
            if len(found) >= wanted.limit:
                break
        found = found[: wanted.limit]
        rows = [dict(row) async for row in queries.found(connection, numbers=[number for number, _ in found])]
    for row, (_, match) in zip(rows, found, strict=True):
        row["match"] = match
    return rows


def names_of_filter(name: str, profiles: Mapping[str, Profile]) -> list[str]:
    """The names under which images of this filter may be kept: some headers have several for one filter."""
    return list(dict.fromkeys([name, *(profile.canonical_filter(name) for profile in profiles.values())]))


async def _pages(
    connection: Any, wanted: Search, filters: list[str] | None
) -> AsyncIterator[list[tuple[int, str | None]]]:
    """Numbers of images that fit, page after page, each with how well it touches the shape."""
    since, until = _EVERY_TIME
    if wanted.since_mjd is not None or wanted.until_mjd is not None:
        since = _KNOWN_TIME if wanted.since_mjd is None else wanted.since_mjd
        until = math.inf if wanted.until_mjd is None else wanted.until_mjd
    rules: dict[str, Any] = {
        "since": since,
        "until": until,
        "seeing_max": wanted.seeing_max_arcsec,
        "airmass_max": wanted.airmass_max,
        "all_versions": wanted.all_versions,
    }
    named: dict[str, Any] = {"filters": filters, "run": wanted.run, "name": wanted.name}
    if wanted.shape is not None:
        async for page in _near(connection, wanted, rules | named | await _place(connection, wanted.shape)):
            yield page
        return
    query, given = _driver(named)
    before = _LAST
    while True:
        rows = [
            row
            async for row in query(
                connection,
                before_mjd=before[0],
                before_number=before[1],
                max_rows=wanted.limit,
                **rules,
                **given,
            )
        ]
        yield [(row["number"], None) for row in rows]
        if len(rows) < wanted.limit:
            return
        before = (rows[-1]["mjd_obs"], rows[-1]["number"])


async def _near(
    connection: Any, wanted: Search, rules: Mapping[str, Any]
) -> AsyncIterator[list[tuple[int, str | None]]]:
    """Numbers of images at a place, page after page."""
    assert wanted.shape is not None
    # About a third of the images of a cell cover a place in it, and rules leave fewer.
    ruled = any(rules[name] is not None for name in ("filters", "run", "name", "seeing_max", "airmass_max"))
    max_hits = (6 if ruled else 3) * wanted.limit + 10
    max_rows = wanted.limit * 3 // 2 + 10
    missing = wanted.limit
    before = _LAST
    while True:
        rows = [
            row
            async for row in queries.by_place(
                connection,
                before_mjd=before[0],
                before_number=before[1],
                max_hits=max_hits,
                max_rows=max_rows,
                **rules,
            )
        ]
        fitting = _fitting(rows, wanted.shape)
        yield fitting
        if not rows or (len(rows) < max_rows and rows[-1]["hits"] < max_hits):
            return
        before = (rows[-1]["mjd_obs"], rows[-1]["number"])
        # As many more as it takes, if as many of them touch it as did so far.
        missing -= len(fitting)
        max_rows = min(_MOST_CANDIDATES, 10 + 5 * missing * len(rows) // (4 * max(1, len(fitting))))
        max_hits = min(_MOST_CANDIDATES, 2 * max_hits)


def _fitting(rows: Sequence[Record], shape: Shape) -> list[tuple[int, str | None]]:
    """Numbers of the candidates that touch the shape, each with how well."""
    rows = [row for row in rows if row["radius_rad"] is not None]
    matches = touching(rows, shape)
    return [(row["number"], match) for row, match in zip(rows, matches, strict=True) if match]


def _driver(named: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The query whose index narrows most, and the names that it takes."""
    if named["name"] is not None:
        return queries.by_name, dict(named)
    if named["run"] is not None and named["filters"] is not None:
        return queries.by_run_and_filter, {"run": named["run"], "filters": named["filters"]}
    if named["run"] is not None:
        return queries.by_run, {"run": named["run"]}
    if named["filters"] is not None:
        return queries.by_filter, {"filters": named["filters"]}
    return queries.by_time, {}


async def _place(connection: Any, shape: Shape) -> dict[str, Any]:
    orders = [row["cell_order"] async for row in queries.sky_orders(connection)]
    cells = shape.cover(orders)
    x, y, z = (float(part) for part in shape.middle)
    return {
        "cells": list(cells.singles),
        "firsts": [first for first, _ in cells.ranges],
        "lasts": [last for _, last in cells.ranges],
        "x": x,
        "y": y,
        "z": z,
        "reach": shape.radius_rad + _MARGIN_RAD,
        "chord": 2 * math.sin(min(math.pi, shape.radius_rad) / 2) + _MARGIN_RAD,
    }


def touching(rows: Sequence[Record | Row], shape: Shape) -> list[str | None]:
    """Which candidates touch a shape: `exact` by a CCD, `rough` where only the pointing is known, None not at all."""
    matches: list[str | None] = [None] * len(rows)
    exact = [index for index, row in enumerate(rows) if row["corners"] is not None]
    hits = _touched([rows[index]["corners"] for index in exact], shape)
    for index in np.array(exact, dtype=np.int64)[hits].tolist():
        matches[index] = "exact"
    rough = [index for index, row in enumerate(rows) if row["corners"] is None]
    if rough:
        centres = np.array(
            [[rows[index][key] for key in ("centre_x", "centre_y", "centre_z")] for index in rough]
        )
        near = shape.touches_discs(centres, np.array([rows[index]["radius_rad"] for index in rough]))
        for index in np.array(rough)[near].tolist():
            matches[index] = "rough"
    return matches


def _touched(corners: Sequence[bytes], shape: Shape) -> NDArray[np.bool_]:
    """Which images, given by the corners of their CCDs, touch a shape by any of them."""
    hits = np.zeros(len(corners), dtype=bool)
    packed = np.frombuffer(b"".join(corners), dtype="<i4").reshape(-1, 4, 2)
    image = np.repeat(np.arange(len(corners)), [len(part) // 32 for part in corners])
    # In single precision, which takes a tenth of the time, to see which CCDs it is worth looking at.
    near = quads_near(unpacked(packed, np.float32), shape.middle, shape.radius_rad)
    packed, image = packed[near], image[near]
    # One corner in the shape is enough for the whole image; the others have all of their CCDs looked at.
    hits[image[shape.holds(unpacked(packed[:, 0]))]] = True
    rest = ~hits[image]
    hits[image[rest][shape.touches_quads(unpacked(packed[rest]))]] = True
    return hits


def unpacked(corners: NDArray[np.int32], kind: type[np.floating] = np.float64) -> Floats:
    """Corners of CCDs (…, 2), in mas, as directions. Shape: (…, 3)."""
    degrees = corners.astype(kind) / kind(MAS_PER_DEG)
    return unit_vectors(degrees[..., 0], degrees[..., 1])
