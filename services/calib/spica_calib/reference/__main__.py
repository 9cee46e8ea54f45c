"""Reference stars by hand: python -m spica_calib.reference get gaia-dr3 --cone RA DEC RADIUS, or status."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog
from spica_runtime.errors import SpicaError, UsageError
from spica_runtime.settings import PlatformSettings
from spica_runtime.storage import sha256_of

from spica_calib.reference.area import AreaFile, ReferenceArea
from spica_calib.reference.cache import read_note
from spica_calib.reference.catalogue import load_catalogues
from spica_calib.reference.source import References
from spica_calib.settings import CalibSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """0: done; 1: it cannot be had now; 2: asked for what cannot be."""
    given = _parser().parse_args(arguments)
    try:
        settings = CalibSettings()
        cache = given.cache or settings.reference_cache or PlatformSettings().data / "reference"
        if given.command == "get":
            area = asyncio.run(_get(settings, cache, given.catalogue, given.cone))
            print(
                f"{area.name}: {len(area.files)} tiles, {area.size_bytes / 1e6:.1f} MB, sha256 {area.sha256}"
            )
            return 0
        return _status(settings, cache, check=given.check)
    except UsageError as error:
        print(error.message, file=sys.stderr)
        return 2
    except SpicaError as error:
        print(f"{error.code}: {error.message}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m spica_calib.reference", description=__doc__)
    parser.add_argument("--cache", type=Path, help="folder of the tiles; default: as the settings have it")
    commands = parser.add_subparsers(dest="command", required=True)
    get = commands.add_parser("get", help="fetch the stars of a cone, for use without a network")
    get.add_argument("catalogue", help="gaia-dr3, refcat2, ps1, ps1-dr2, or one of your own; with @<service>")
    get.add_argument(
        "--cone", nargs=3, type=float, action="append", required=True, metavar=("RA", "DEC", "RADIUS"),
        help="degrees; may be given several times",
    )  # fmt: skip
    status = commands.add_parser("status", help="what there is in the cache")
    status.add_argument("--check", action="store_true", help="compare every tile with its hash")
    return parser


async def _get(
    settings: CalibSettings, cache: Path, catalogue: str, cones: Sequence[Sequence[float]]
) -> ReferenceArea:
    for ra, dec, radius in cones:
        if not (0 <= ra <= 360 and -90 <= dec <= 90 and 0 < radius <= 30):
            raise UsageError(
                "bad_cone", f"({ra}, {dec}, {radius}) is no cone of at most 30 degrees on the sky."
            )
    settings = settings.model_copy(update={"reference": Path(catalogue), "reference_cache": cache})
    references = References.from_settings(settings, cache)
    if references.chosen is None:
        known = [
            name if service == catalogue.default else f"{name}@{service}"
            for name, catalogue in sorted(load_catalogues(settings.reference_catalogues).items())
            for service in catalogue.services
        ]
        raise UsageError("unknown_catalogue", f"There is no catalogue {catalogue!r} but {', '.join(known)}.")

    def tell(done: int, total: int, file: AreaFile) -> None:
        note = read_note(file.path)
        stars = "?" if note is None else note.rows
        print(f"[{done}/{total}] tile {file.tile}: {stars} stars", file=sys.stderr, flush=True)

    try:
        return await references.area_of([(ra, dec, radius) for ra, dec, radius in cones], tell)
    finally:
        await references.close()


def _status(settings: CalibSettings, cache: Path, *, check: bool) -> int:
    """One line for each catalogue in the cache. 1 if a tile is damaged."""
    print(f"catalogue for astrometry: {settings.reference or 'none'}", end="")
    print(f", for photometry: {settings.photometric_reference or 'the same'}")
    print(f"cache: {cache}{', offline' if settings.reference_offline else ''}")
    damaged = 0
    for folder in sorted(cache.glob("*@*/nside*")):
        tiles = sorted(folder.glob("*.parquet"))
        notes = [(tile, note) for tile in tiles if (note := read_note(tile)) is not None]
        bad = [tile for tile, note in notes if check and sha256_of(tile) != note.sha256]
        damaged += len(bad)
        days = sorted(str(note.text.get("fetched_at", ""))[:10] for _, note in notes)
        print(
            f"{folder.parent.name} {folder.name}: {len(notes)} tiles, {sum(note.rows for _, note in notes)} stars, "
            f"{sum(note.size_bytes for _, note in notes) / 1e6:.1f} MB"
            + (f", fetched {days[0]} to {days[-1]}" if days else "")
            + (f", {len(bad)} DAMAGED: {[tile.name for tile in bad[:5]]}" if bad else "")
        )
    return 1 if damaged else 0


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    raise SystemExit(main())
