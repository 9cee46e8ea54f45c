"""Fetching the tiles of one catalogue: each once, whole, and a few at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import structlog
from spica_imaging.skycells import MAX_ORDER

from spica_calib.errors import ReferenceUnavailable
from spica_calib.reference import query
from spica_calib.reference.area import AreaFile
from spica_calib.reference.cache import DamagedTile, TileCache
from spica_calib.reference.query import Columns, Cone
from spica_calib.reference.tap import TapService
from spica_calib.reference.votable import Malformed

log = structlog.get_logger(__name__)

_ROUND = 500
"""Services cut off at round numbers, and some say nothing of it: an answer of so many rows, or of a multiple, is counted."""
_REST_S = 30.0
"""For so long nobody asks a service again that just failed: a hundred images wait for the same tile."""

Tell = Callable[[int, int, AreaFile], None]
"""How many of how many tiles are there, and the newest of them."""
T = TypeVar("T")


@dataclass
class _Tile:
    """A tile that is being fetched."""

    order: int
    number: int
    queries: list[str]


class TileFetcher:
    """Tiles of one catalogue from the cache, and from its service what is not there."""

    def __init__(
        self,
        cache: TileCache,
        tap: TapService,
        *,
        offline: bool = False,
        concurrency: int = 3,
        rest_s: float = _REST_S,
    ) -> None:
        self._cache = cache
        self._chosen = cache.chosen
        self._tap = tap
        self._offline = offline
        self._slots = asyncio.Semaphore(concurrency)
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._rest_s = rest_s
        self._failed: tuple[float, ReferenceUnavailable] | None = None

    async def tiles(self, numbers: Sequence[int], tell: Tell | None = None) -> list[AreaFile]:
        """These tiles, in this order. Raises `ReferenceUnavailable` if one of them cannot be had."""
        there = await asyncio.to_thread(lambda: {number: self._found(number) for number in numbers})
        done = 0

        def came(file: AreaFile) -> AreaFile:
            nonlocal done
            done += 1
            if tell is not None:
                tell(done, len(numbers), file)
            return file

        async def had(number: int) -> AreaFile:
            return came(await self._tile(number))

        fetched = {number for number, file in there.items() if file is None}
        if fetched and self._offline:
            raise self._missing(sorted(fetched))
        for file in there.values():
            if file is not None:
                came(file)
        new = await _together([had(number) for number in sorted(fetched)])
        files = {file.tile: file for file in (*there.values(), *new) if file is not None}
        return [files[number] for number in numbers]

    async def _tile(self, number: int) -> AreaFile:
        """A tile that was not there a moment ago."""
        lock = self._locks.setdefault(number, asyncio.Lock())
        async with lock, self._slots:
            # Another task may have fetched it meanwhile.
            return await asyncio.to_thread(self._found, number) or await self._fetched(number)

    def _found(self, number: int) -> AreaFile | None:
        """A tile from the cache. A damaged one is fetched anew; offline it is refused."""
        try:
            return self._cache.find(number)
        except DamagedTile as error:
            if not self._offline:
                log.warning("reference tile is damaged, is fetched again", tile=number, error=str(error))
                return None
            raise ReferenceUnavailable(
                "reference_damaged",
                f"{error}, and SPICA_CALIB_REFERENCE_OFFLINE forbids to fetch it again. Put a sound copy there with its "
                "note, or allow the network; images wait until then.",
                after_s=60.0,
            ) from error

    def _missing(self, numbers: Sequence[int]) -> ReferenceUnavailable:
        """Names all that is missing at once: whoever fetches it elsewhere needs the whole list."""
        return ReferenceUnavailable(
            "reference_offline",
            f"{self._chosen.label}: tiles {list(numbers)} of order {self._chosen.catalogue.order} are not in "
            f"{self._cache.folder}, and SPICA_CALIB_REFERENCE_OFFLINE forbids to fetch them. Get them with `python -m "
            "spica_calib.reference get` where there is a network, or allow it; images wait until then.",
            {"missing": len(numbers)},
            after_s=60.0,
        )

    async def _fetched(self, number: int) -> AreaFile:
        if self._failed is not None and time.monotonic() < self._failed[0]:
            raise self._failed[1].with_traceback(None)
        await asyncio.to_thread(self._cache.prepare)
        tile = _Tile(self._chosen.catalogue.order, number, [])
        begun = time.monotonic()
        try:
            columns = query.ordered(query.joined(await self._parts(tile, tile.order, number)))
        except ReferenceUnavailable as error:
            named = self._named(error, tile)
            self._failed = (time.monotonic() + self._rest_s, named)
            raise named from error
        self._failed = None
        when = datetime.now(UTC).isoformat(timespec="seconds")
        file = await asyncio.to_thread(self._cache.put, number, columns, tile.queries, when)
        log.info(
            "reference tile fetched",
            catalogue=self._chosen.label,
            tile=number,
            stars=len(columns["ra_deg"]),
            queries=len(tile.queries),
            seconds=round(time.monotonic() - begun, 2),
        )
        return file

    def _named(self, error: ReferenceUnavailable, tile: _Tile) -> ReferenceUnavailable:
        """The error with what it was about, and what to do."""
        return ReferenceUnavailable(
            error.code,
            f"Stars of {self._chosen.label} (tile {tile.number} of order {tile.order}) cannot be had. {error.message} "
            "Images wait and go on by themselves; nothing is taken in its place. Another service or a file can be set "
            "with SPICA_CALIB_REFERENCE.",
            {**error.numbers, "tile": tile.number, "order": tile.order},
            after_s=error.after_s,
        )

    async def _parts(self, tile: _Tile, order: int, number: int) -> list[Columns]:
        """Stars of a tile or a part of one: asked for as a whole if that can be answered, else by its quarters."""
        cone = query.cone_around(number, order)
        if cone.radius_deg <= self._chosen.service.max_radius_deg:
            stars = await self._answer(tile, cone)
            if stars is not None:
                inside = query.tile_of(stars["ra_deg"], stars["dec_deg"], order) == number
                return [{name: values[inside] for name, values in stars.items()}]
        if order >= MAX_ORDER:
            raise ReferenceUnavailable(
                "reference_incomplete",
                f"{self._tap.url}: it does not give all stars even of the smallest part of the sky that is asked for (order "
                f"{order}, cell {number}).",
                {"url": self._tap.url},
                after_s=600.0,
            )
        quarters = range(4 * number, 4 * number + 4)
        return [part for quarter in quarters for part in await self._parts(tile, order + 1, quarter)]

    async def _answer(self, tile: _Tile, cone: Cone) -> Columns | None:
        """All stars of a cone; None if there are more than the service gives at once."""
        service = self._chosen.service
        sync = service.mode == "sync"
        text = query.adql(service, cone)
        tile.queries.append(text)
        table = await self._tap.query(text, query.names_asked(service), service.max_rows, sync=sync)
        if table.overflow or table.n_rows >= service.max_rows:
            return None
        if table.n_rows and table.n_rows % _ROUND == 0:
            count = await self._tap.query(query.adql_count(service, cone), ["n"], 10, sync=sync)
            there = float(count.columns["n"].max()) if count.n_rows else 0.0
            if there > table.n_rows:
                log.warning(
                    "service gave fewer stars than it has", url=self._tap.url, given=table.n_rows, has=there
                )
                return None
        try:
            return await asyncio.to_thread(query.canonical, self._chosen, table.columns, cone)
        except Malformed as error:
            raise ReferenceUnavailable(
                "reference_malformed",
                f"{self._tap.url}: its answer is no use: {error}.",
                {"url": self._tap.url},
                after_s=600.0,
            ) from error


async def _together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All at once; the first error ends the others."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            if not task.cancelling():  # a second time would end its cleaning up
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
