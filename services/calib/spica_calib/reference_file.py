"""The reference catalogue as a file: there or not, and known by its content."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from spica_runtime.storage import sha256_of

from spica_calib.errors import ReferenceUnavailable


@dataclass(frozen=True, slots=True)
class ReferenceFile:
    """A reference catalogue on disk, known by its content."""

    path: Path
    name: str
    sha256: str
    size_bytes: int


@lru_cache(maxsize=8)
def _identified(path: Path, size: int, mtime_ns: int) -> ReferenceFile:
    return ReferenceFile(path, path.name, sha256_of(path), size)


def identify(path: Path | None) -> ReferenceFile:
    """Name and hash of the reference catalogue (the hash is kept while the file does not change)."""
    if path is None:
        raise ReferenceUnavailable(
            "reference_missing",
            "No reference catalogue is set. Set SPICA_CALIB_REFERENCE to a file; images wait until then.",
        )
    try:
        stat = path.stat()
        return _identified(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise ReferenceUnavailable(
            "reference_missing",
            f"Reference catalogue {path} cannot be read ({error.strerror}). Put it there, or set "
            "SPICA_CALIB_REFERENCE; images wait until then.",
        ) from error
