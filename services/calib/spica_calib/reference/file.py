"""A reference catalogue that is a file: there or not, and known by its content."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from spica_runtime.storage import sha256_of

from spica_calib.errors import ReferenceUnavailable
from spica_calib.reference.area import ReferenceArea


def identify(
    path: Path | None, variable: str = "SPICA_CALIB_REFERENCE", names: Iterable[str] = ()
) -> ReferenceArea:
    """A catalogue in a file; its hash is kept while it does not change. Raises `ReferenceUnavailable` (`reference_missing`).

    `variable`: the setting, and `names`: what else it may be, for messages.
    """
    names = list(names)
    others = f", or to one of {', '.join(names)}" if names else ""
    if path is None:
        raise ReferenceUnavailable(
            "reference_missing",
            f"No reference catalogue is set. Set {variable} to a file{others}; images wait until then.",
        )
    try:
        stat = path.stat()
        return _identified(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise ReferenceUnavailable(
            "reference_missing",
            f"Reference catalogue {path} cannot be read ({error.strerror}). Put it there, or set "
            f"{variable} to a file{others}; images wait until then.",
        ) from error


@lru_cache(maxsize=8)
def _identified(path: Path, size: int, mtime_ns: int) -> ReferenceArea:
    return ReferenceArea.of_file(path, sha256_of(path), size)
