"""Images by place and time among a million: milliseconds from the question to the answer, p50 and p99.

Warm: the question was asked once before. The first time is told too (`first_`): then what it needs is in the
machine's memory, but has to be brought into PostgreSQL's own, which is small by default.

The store is a PostgreSQL of its own under var/, filled at the first run and kept. Each answer is the whole one: cells
looked up, candidates read, every CCD's corners tested on the sphere, the rows that are shown fetched.
Two controls: answers to samples of each kind of question must equal those of a search through all images that uses
neither cells nor indexes, and the same question to a PostgreSQL that may use no index must take many times as long, or
the run ends with an error and no figures.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from spica_console.searching import Search, search, touching
from spica_imaging.skyshapes import Box, Cone, Polygon, Shape
from spica_runtime.database import migrate, open_pool
from spica_runtime.embedded.postgres import EmbeddedPostgres
from spica_runtime.pg import Pool
from spica_runtime.settings import PlatformSettings

from tests.benchmarks.harness import Figure, Missing, figure
from tests.benchmarks.many_images import FILTERS, Sky, fill, make_sky

IMAGES = int(os.environ.get("SPICA_BENCH_IMAGES", "1_000_000"))
_HOME = Path("var/bench-search").resolve() / f"v4-{IMAGES}"
_QUESTIONS = 400
_WARM_UP = 400
_BATCHES = 3
_CHECKED = 25
_SLOWER_WITHOUT_INDEX = 20

Ask = Callable[[Sky, np.random.Generator], Search]


def _somewhere(sky: Sky, chance: np.random.Generator) -> tuple[float, float, float]:
    """A place on, or just beside, a random image, and its time."""
    index = int(chance.integers(len(sky.mjd)))
    dec = float(np.clip(sky.dec_deg[index] + chance.uniform(-0.6, 0.6), -90, 90))
    wide = max(math.cos(math.radians(dec)), 1e-3)
    return float(sky.ra_deg[index] + chance.uniform(-0.6, 0.6) / wide) % 360, dec, float(sky.mjd[index])


def _point_and_time(sky: Sky, chance: np.random.Generator) -> Search:
    ra, dec, mjd = _somewhere(sky, chance)
    days = float(chance.choice([1, 30, 365]))
    return Search(Cone(ra, dec), since_mjd=mjd - days / 2, until_mjd=mjd + days / 2)


def _cone_and_time(sky: Sky, chance: np.random.Generator) -> Search:
    ra, dec, mjd = _somewhere(sky, chance)
    days = float(chance.choice([1, 10, 30]))
    return Search(Cone(ra, dec, chance.uniform(0.1, 2)), since_mjd=mjd - days / 2, until_mjd=mjd + days / 2)


def _box_and_time(sky: Sky, chance: np.random.Generator) -> Search:
    ra, dec, mjd = _somewhere(sky, chance)
    half = chance.uniform(0.2, 1.5)
    south, north = max(-90.0, dec - half), min(90.0, dec + half)
    wide = min(170.0, half / max(math.cos(math.radians(dec)), 1e-3))
    box = Box((ra - wide) % 360, (ra + wide) % 360, south, north)
    return Search(box, since_mjd=mjd - 5, until_mjd=mjd + 5)


def _polygon_and_time(sky: Sky, chance: np.random.Generator) -> Search:
    ra, dec, mjd = _somewhere(sky, chance)
    dec = min(85.0, max(-85.0, dec))
    wide = 1 / math.cos(math.radians(dec))
    places = [(ra - wide, dec - 1), (ra + wide, dec - 1), (ra, dec), (ra, dec + 1.5)]
    polygon = Polygon(tuple((place % 360, d) for place, d in places))
    return Search(polygon, since_mjd=mjd - 5, until_mjd=mjd + 5)


def _rules(sky: Sky, chance: np.random.Generator) -> Search:
    """What a selection asks for: by filter and season, by run, or by filter at a place; good seeing, low airmass."""
    ra, dec, mjd = _somewhere(sky, chance)
    name = FILTERS[int(chance.choice(len(FILTERS)))]
    good = {"seeing_max_arcsec": 0.8, "airmass_max": 1.3}
    kind = int(chance.integers(3))
    if kind == 0:
        return Search(filter=name, since_mjd=mjd - 90, until_mjd=mjd + 90, **good)
    if kind == 1:
        return Search(run=f"R{int(chance.integers(400)):03d}", filter=name, **good)
    return Search(Cone(ra, dec, 0.1), since_mjd=mjd - 90, until_mjd=mjd + 90, filter=name, **good)


def _point_ever(sky: Sky, chance: np.random.Generator) -> Search:
    ra, dec, _ = _somewhere(sky, chance)
    return Search(Cone(ra, dec))


_KINDS: dict[str, Ask] = {
    "point_and_time": _point_and_time,
    "cone_and_time": _cone_and_time,
    "box_and_time": _box_and_time,
    "polygon_and_time": _polygon_and_time,
    "rules": _rules,
    "point_at_any_time": _point_ever,
}


@dataclass(frozen=True, slots=True)
class _Timed:
    first_ms: list[float]
    """Of questions that nobody asked before: what they need is in memory, but not in PostgreSQL's own."""
    warm_ms: list[float]
    """Of the same questions, asked again."""
    rows: int


async def _milliseconds(pool: Pool, sky: Sky, ask: Ask, seed: int, count: int) -> _Timed:
    chance, times, rows = np.random.default_rng(seed), ([], []), 0  # type: ignore[var-annotated]
    for _ in range(count):
        wanted = ask(sky, chance)
        for samples in times:
            begun = time.perf_counter()
            found = await search(pool, wanted)
            samples.append(1000 * (time.perf_counter() - begun))
        rows += len(found)
    return _Timed(*times, rows)


async def _brute_force(pool: Pool, sky: Sky, wanted: Search) -> list[int]:
    """Numbers of the same images, found by looking at all of them."""
    fits = np.ones(len(sky.mjd), bool)
    if wanted.since_mjd is not None and wanted.until_mjd is not None:
        fits &= (sky.mjd >= wanted.since_mjd) & (sky.mjd < wanted.until_mjd)
    if wanted.filter:
        fits &= sky.filter == FILTERS.index(wanted.filter)
    if wanted.run:
        fits &= sky.run == int(wanted.run[1:])
    if wanted.seeing_max_arcsec:
        fits &= np.nan_to_num(sky.seeing_arcsec, nan=np.inf) <= wanted.seeing_max_arcsec
    if wanted.airmass_max:
        fits &= sky.airmass <= wanted.airmass_max
    if wanted.shape is not None:
        shape: Shape = wanted.shape
        cosine = np.cos(np.minimum(np.pi, sky.radii_rad + shape.radius_rad + 1e-7))
        fits &= sky.centres @ shape.middle >= cosine
    numbers = (np.flatnonzero(fits) + 1).tolist()
    if wanted.shape is not None and numbers:
        rows = await pool.fetch(
            "SELECT number, corners, centre_x, centre_y, centre_z, radius_rad FROM images WHERE number = ANY($1)",
            numbers,
        )
        numbers = [row["number"] for row, hit in zip(rows, touching(rows, wanted.shape), strict=True) if hit]
    newest_first = sorted(numbers, key=lambda number: (-sky.mjd[number - 1], -number))
    return newest_first[: wanted.limit]


async def _check(pool: Pool, sky: Sky) -> int:
    """Compare answers with those of the search through everything. Returns how many images were in them."""
    compared = 0
    for name, ask in _KINDS.items():
        chance = np.random.default_rng(77)
        for _ in range(_CHECKED):
            wanted = ask(sky, chance)
            found = [row["image_id"] for row in await search(pool, wanted)]
            numbers = await _brute_force(pool, sky, wanted)
            expected = [f"{99_999 + number}p.{number - 1:012x}" for number in numbers]
            if found != expected:
                raise RuntimeError(
                    f"{name}: {wanted} gives {len(found)} images, a search through all {len(expected)}."
                )
            compared += len(found)
    if not compared:
        raise RuntimeError("No question of any kind had an answer: this measures nothing.")
    return compared


async def _without_index_ms(settings: PlatformSettings, sky: Sky) -> float:
    """One question, answered by a server that may use no index."""
    wanted = _point_and_time(sky, np.random.default_rng(5))
    assert wanted.shape is not None
    x, y, z = wanted.shape.middle.tolist()
    async with open_pool(settings, max_size=1) as pool, pool.acquire() as connection:
        for way in ("indexscan", "indexonlyscan", "bitmapscan"):
            await connection.execute(f"SET enable_{way} = off")
        begun = time.perf_counter()
        await connection.fetch(
            "SELECT number FROM images WHERE mjd_obs >= $1 AND mjd_obs < $2 "
            "AND centre_x * $3 + centre_y * $4 + centre_z * $5 >= cos(radius_rad)",
            wanted.since_mjd, wanted.until_mjd, x, y, z,
        )  # fmt: skip
        return 1000 * (time.perf_counter() - begun)


async def _filled(server: EmbeddedPostgres, settings: PlatformSettings, sky: Sky) -> float | None:
    """Fill the store, unless it is full already; seconds that it took."""
    import asyncio

    async with open_pool(settings, max_size=1) as pool:
        if await pool.fetchval("SELECT to_regclass('bench_filled') IS NOT NULL"):
            return None
    begun = time.perf_counter()
    await asyncio.to_thread(migrate, server.url)
    await fill(server.url, sky)
    async with open_pool(settings, max_size=1) as pool:
        await pool.execute("CREATE TABLE bench_filled ()")
    return time.perf_counter() - begun


async def run() -> tuple[list[Figure], list[Missing]]:
    sky = make_sky(IMAGES)
    server = EmbeddedPostgres(_HOME, sync=False)
    await server.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.stop)
        settings = PlatformSettings(database_url=server.url)
        filled_s = await _filled(server, settings, sky)
        pool = await stack.enter_async_context(open_pool(settings, max_size=1))
        compared = await _check(pool, sky)
        figures = []
        for name, ask in _KINDS.items():
            await _milliseconds(pool, sky, ask, 1, _WARM_UP)
            batches = [
                await _milliseconds(pool, sky, ask, 10 + batch, _QUESTIONS) for batch in range(_BATCHES)
            ]
            rows = sum(batch.rows for batch in batches) / (_BATCHES * _QUESTIONS)
            note = f"{IMAGES:,} images, {_QUESTIONS} questions a run, {rows:.1f} images an answer"
            for percentile in (50, 99):
                for label, samples in (
                    ("", [batch.warm_ms for batch in batches]),
                    ("first_", [batch.first_ms for batch in batches]),
                ):
                    values = [float(np.percentile(part, percentile)) for part in samples]
                    figures.append(figure(f"search.{name}.{label}p{percentile}_ms", values, "ms", note=note))
        without = await _without_index_ms(settings, sky)
        if IMAGES >= 1_000_000 and without < _SLOWER_WITHOUT_INDEX * figures[0].value:
            raise RuntimeError(
                f"Without any index the same takes only {without:.0f} ms: this measures nothing."
            )
        figures.append(
            figure("search.negative_control_ms", [without], "ms", note="one question, no index allowed")
        )
        figures.append(
            figure(
                "search.compared_images",
                [float(compared)],
                "",
                note="in answers equal to those of brute force",
            )
        )
        if filled_s is not None:
            figures.append(figure("search.fill_s", [filled_s], "s", note=f"{IMAGES:,} images, once"))
    return figures, []
