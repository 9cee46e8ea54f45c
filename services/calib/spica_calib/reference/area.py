"""The part of a reference catalogue that some work stands on: files, known by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from spica_imaging.skycells import Cells, Floats, cells_touching, unit_vectors
from spica_proto.base import Product

from spica_calib.errors import ReferenceUnavailable


@dataclass(frozen=True, slots=True)
class AreaFile:
    """One file of a catalogue."""

    path: Path
    sha256: str
    size_bytes: int
    tile: int | None = None
    """Its cell of the sky (HEALPix, nested, of the area's order); None: all of the catalogue is in it."""


@dataclass(frozen=True, slots=True)
class ReferenceArea:
    """Files that hold all stars of an area. Picklable: it goes into jobs.

    A catalogue that is a file is an area of that one file, and covers the sky; one that comes from a
    service is the tiles of the area, in the order of their numbers.
    """

    name: str
    sha256: str
    files: tuple[AreaFile, ...]
    order: int | None = None
    """Order of the tiles; None: one file."""

    @classmethod
    def of_file(cls, path: Path, sha256: str, size_bytes: int) -> ReferenceArea:
        """A catalogue in one file, known by the file's own hash."""
        return cls(path.name, sha256, (AreaFile(path, sha256, size_bytes),))

    @classmethod
    def of_tiles(cls, name: str, order: int, tiles: Iterable[AreaFile]) -> ReferenceArea:
        """Tiles of one catalogue; known by the hash over their numbers and hashes."""
        files = tuple(sorted(tiles, key=lambda file: file.tile or 0))
        text = "".join(f"{order}/{file.tile} {file.sha256}\n" for file in files)
        return cls(name, hashlib.sha256(text.encode()).hexdigest(), files, order)

    @property
    def path(self) -> Path:
        """The file, or the folder of the tiles."""
        return self.files[0].path if self.order is None else self.files[0].path.parent

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(file.size_bytes for file in self.files)

    def products(self) -> tuple[Product, ...]:
        """The files for provenance; they lie outside of the data folder, so by their full paths."""
        return tuple(
            Product(
                path=file.path.absolute().as_posix(),
                sha256=file.sha256,
                size_bytes=file.size_bytes,
                kind="reference",
            )
            for file in self.files
        )

    def touched(self, ra_deg: float, dec_deg: float, radius_deg: float) -> tuple[AreaFile, ...] | None:
        """Files that stars of a cone can be in; None if the area does not hold all of the cone."""
        if self.order is None:
            return self.files
        by_tile = {file.tile: file for file in self.files}
        tiles = tiles_touched(ra_deg, dec_deg, radius_deg, self.order).tolist()
        return tuple(by_tile[tile] for tile in tiles) if by_tile.keys() >= set(tiles) else None


def cone_needed(error: ReferenceUnavailable) -> tuple[float, float, float] | None:
    """The cone (degrees) that an area turned out to be too small for; None for errors of any other kind."""
    if error.code != "reference_area":
        return None
    ra, dec, radius = (float(error.numbers[name] or 0.0) for name in ("ra_deg", "dec_deg", "radius_deg"))
    return ra, dec, radius


def tiles_touched(ra_deg: float, dec_deg: float, radius_deg: float, order: int) -> Cells:
    """Numbers of the tiles that a cone may touch, ascending; never too few."""
    centre = unit_vectors(ra_deg, dec_deg)
    radius = np.radians(radius_deg)

    def may_touch(middles: Floats, disc: float) -> NDArray[np.bool_]:
        chord = np.sqrt(((middles - centre) ** 2).sum(axis=-1))
        return np.asarray(2.0 * np.arcsin(np.clip(chord / 2.0, 0.0, 1.0)) <= radius + disc)

    return cells_touching(may_touch, order)
