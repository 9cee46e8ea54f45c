"""The reference catalogue that was chosen: a file, or a service with a cache; what handlers ask for areas."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from spica_calib.reference.area import ReferenceArea, tiles_touched
from spica_calib.reference.cache import TileCache
from spica_calib.reference.catalogue import Chosen, choose, load_catalogues
from spica_calib.reference.fetch import Tell, TileFetcher
from spica_calib.reference.file import identify
from spica_calib.reference.tap import Patience, TapService

if TYPE_CHECKING:
    from spica_calib.settings import CalibSettings

Cone = tuple[float, float, float]
"""ra, dec, radius, degrees."""


class References:
    """One reference catalogue. Never another one in its place: where it cannot be had, `ReferenceUnavailable` says why."""

    def __init__(
        self,
        setting: Path | None,
        *,
        cache: Path,
        catalogues: Path | None = None,
        offline: bool = False,
        patience: Patience | None = None,
        concurrency: int = 3,
        rest_s: float | None = None,
        variable: str = "SPICA_CALIB_REFERENCE",
    ) -> None:
        """`setting`: a file, or a catalogue's name. `catalogues`: folder of the user's own descriptions.

        Raises `UsageError` (`bad_catalogue_file`).
        """
        self._variable = variable
        self._path = setting
        self._known = load_catalogues(catalogues)
        self.chosen: Chosen | None = None
        self._client: httpx.AsyncClient | None = None
        self._fetcher: TileFetcher | None = None
        if setting is None or (chosen := choose(str(setting), self._known)) is None:
            return
        self.chosen = chosen
        self.tiles = TileCache(cache, chosen)
        self._client = httpx.AsyncClient()
        tap = TapService(chosen.service.url, patience or Patience(), self._client)
        rest = {} if rest_s is None else {"rest_s": rest_s}
        self._fetcher = TileFetcher(self.tiles, tap, offline=offline, concurrency=concurrency, **rest)

    @classmethod
    def from_settings(cls, settings: CalibSettings, data: Path) -> References:
        """The catalogue for astrometry, and for photometry unless there is another. `data`: the data folder."""
        return cls._of(settings, settings.reference, data, "SPICA_CALIB_REFERENCE")

    @classmethod
    def for_photometry(cls, settings: CalibSettings, data: Path) -> References | None:
        """The catalogue that magnitudes are compared with; None: the same as for astrometry."""
        setting = settings.photometric_reference
        if setting is None or setting == settings.reference:
            return None
        return cls._of(settings, setting, data, "SPICA_CALIB_PHOTOMETRIC_REFERENCE")

    @classmethod
    def _of(cls, settings: CalibSettings, setting: Path | None, data: Path, variable: str) -> References:
        return cls(
            setting,
            cache=settings.reference_cache or data / "reference",
            catalogues=settings.reference_catalogues,
            offline=settings.reference_offline,
            patience=Patience(answer_s=settings.reference_timeout_s, retries=settings.reference_retries),
            concurrency=settings.reference_concurrency,
            variable=variable,
        )

    async def area(
        self, ra_deg: float, dec_deg: float, radius_deg: float, tell: Tell | None = None
    ) -> ReferenceArea:
        """All that is needed for stars of a cone. Tiles that are not in the cache are fetched.

        Raises `ReferenceUnavailable`; the image then waits:
            reference_missing, reference_unreadable: no file.
            reference_unreachable, reference_refused, reference_malformed, reference_incomplete: the service.
            reference_offline, reference_damaged, reference_cache: the cache.
        """
        return await self.area_of([(ra_deg, dec_deg, radius_deg)], tell)

    async def area_of(self, cones: Iterable[Cone], tell: Tell | None = None) -> ReferenceArea:
        """The same for several cones together, such as the members of a stack."""
        if self.chosen is None or self._fetcher is None:
            # Hashing a large catalogue the first time takes seconds: not on the event loop.
            return await asyncio.to_thread(self._file)
        order = self.chosen.catalogue.order
        numbers = sorted({int(n) for cone in cones for n in tiles_touched(*cone, order)})
        files = await self._fetcher.tiles(numbers, tell)
        return ReferenceArea.of_tiles(self.chosen.label, order, files)

    def _file(self) -> ReferenceArea:
        return identify(self._path, self._variable, sorted(self._known))

    async def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.aclose()
