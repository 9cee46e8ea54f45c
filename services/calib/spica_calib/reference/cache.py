"""Tiles on disk: one Parquet file each, whole and known by its hash, and a note on where it came from.

    <cache>/<catalogue>@<service>-<selection>/nside<n>/<tile>.parquet
                                                      /<tile>.json     the note: hash, rows, queries, when, from where

A tile without a note is none: the note is written last.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spica_runtime.storage import sha256_of, sweep_parts, whole_file

from spica_calib.errors import ReferenceUnavailable
from spica_calib.reference.area import AreaFile
from spica_calib.reference.catalogue import Chosen

_DOUBLE = ("ra_deg", "dec_deg", "epoch_year")
"""The rest is as exact as it needs to be in 32 bits."""


class DamagedTile(Exception):
    """A tile is there, but not what its note says."""


@dataclass(frozen=True, slots=True)
class Note:
    """What stands beside a tile."""

    sha256: str
    size_bytes: int
    rows: int
    text: Mapping[str, Any]


class TileCache:
    """The tiles of one catalogue."""

    def __init__(self, root: Path, chosen: Chosen) -> None:
        self.chosen = chosen
        self.folder = root / chosen.key / f"nside{1 << chosen.catalogue.order}"

    def path(self, tile: int) -> Path:
        """Where a tile is, or would be."""
        return self.folder / f"{tile:06d}.parquet"

    def find(self, tile: int) -> AreaFile | None:
        """A tile that is there and sound; None where there is none. Raises `DamagedTile`."""
        try:
            return self._checked(tile)
        except DamagedTile:
            # Another process may just have put its own there: first the tile, then the note.
            time.sleep(0.05)
            return self._checked(tile)

    def _checked(self, tile: int) -> AreaFile | None:
        path = self.path(tile)
        note = read_note(path)
        if note is None:
            return None
        try:
            stat = path.stat()
            found = _hash(path, stat.st_size, stat.st_mtime_ns)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DamagedTile(f"{path} cannot be read ({error.strerror})") from error
        if found != note.sha256:
            raise DamagedTile(f"{path} has another hash than when it was fetched")
        return AreaFile(path, found, stat.st_size, tile)

    def prepare(self) -> None:
        """See that a tile can be kept, before one is asked for. Raises `ReferenceUnavailable` (`reference_cache`)."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
            sweep_parts(self.folder)
        except OSError as error:
            raise self._unwritable(error) from error

    def put(
        self, tile: int, columns: Mapping[str, NDArray[np.float64]], queries: Sequence[str], when: str
    ) -> AreaFile:
        """Keep a tile. Raises `ReferenceUnavailable` (`reference_cache`), and `Unavailable` (`disk_full`)."""
        path = self.path(tile)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _alone(self.folder):
                with whole_file(path) as part:
                    _write_parquet(part, columns)
                    file = AreaFile(path, sha256_of(part), part.stat().st_size, tile)
                with whole_file(note_path(path)) as part:
                    part.write_text(json.dumps(self._note(file, columns, queries, when), indent=1) + "\n")
        except OSError as error:
            raise self._unwritable(error) from error
        return file

    def _unwritable(self, error: OSError) -> ReferenceUnavailable:
        return ReferenceUnavailable(
            "reference_cache",
            f"Stars of {self.chosen.label} cannot be kept in {self.folder} ({error.strerror}). Make it writable, set "
            "SPICA_CALIB_REFERENCE_CACHE to another folder, or fetch them elsewhere and set "
            "SPICA_CALIB_REFERENCE_OFFLINE; images wait until then.",
            after_s=60.0,
        )

    def _note(
        self, file: AreaFile, columns: Mapping[str, NDArray[np.float64]], queries: Sequence[str], when: str
    ) -> dict[str, Any]:
        return {
            "catalogue": self.chosen.catalogue.name,
            "title": self.chosen.catalogue.title,
            "release": self.chosen.catalogue.release.isoformat(),
            "service": self.chosen.service_name,
            "url": self.chosen.service.url,
            "order": self.chosen.catalogue.order,
            "tile": file.tile,
            "status": "complete",
            "rows": len(columns["ra_deg"]),
            "sha256": file.sha256,
            "size_bytes": file.size_bytes,
            "fetched_at": when,
            "queries": list(queries),
        }


def note_path(tile: Path) -> Path:
    """Of the note beside a tile."""
    return tile.with_suffix(".json")


def read_note(tile: Path) -> Note | None:
    """The note beside a tile; None where there is none that can be read: then there is no tile."""
    try:
        text = json.loads(note_path(tile).read_text())
        if text["status"] != "complete":
            return None
        return Note(str(text["sha256"]), int(text["size_bytes"]), int(text["rows"]), text)
    except (OSError, ValueError, KeyError, TypeError):
        return None


@lru_cache(maxsize=4096)
def _hash(path: Path, size: int, mtime_ns: int) -> str:
    return sha256_of(path)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from writing here, so that tile and note belong together."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write_parquet(path: Path, columns: Mapping[str, NDArray[np.float64]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {
        name: values if name in _DOUBLE else values.astype(np.float32) for name, values in columns.items()
    }
    # Random digits do not compress; reading is what has to be fast.
    pq.write_table(pa.table(arrays), path, compression="zstd", use_dictionary=False)
