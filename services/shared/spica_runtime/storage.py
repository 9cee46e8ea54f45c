"""Files in the data folder: they appear whole, and are named in the store only after that."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from spica_proto.base import Product

from spica_runtime.errors import NotRetriable, Unavailable

_PART_PREFIX = ".part-"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well it is synced and renamed to it.

    The temporary file keeps all suffixes of the target, since FITS libraries look at them. A full
    disk becomes `Unavailable`: the work waits instead of becoming a dead letter.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=_PART_PREFIX, dir=path.parent))
    part = scratch / path.name
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
        fsync_folder(path.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(path.parent).free
            raise Unavailable(
                "disk_full",
                f"No space left to write {path}: {free / 1e6:.0f} MB free. Free some space; the work goes on by itself.",
                {"free_bytes": free},
            ) from error
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def sweep_parts(root: Path, older_than_s: float = 86_400.0) -> int:
    """Remove what killed writers left unfinished anywhere below `root`. Returns how many."""
    oldest, swept = time.time() - older_than_s, 0
    for folder, names, _ in os.walk(root):
        for name in [name for name in names if name.startswith(_PART_PREFIX)]:
            names.remove(name)
            part = Path(folder) / name
            with contextlib.suppress(OSError):  # another process swept it first
                if part.stat().st_mtime < oldest:
                    shutil.rmtree(part)
                    swept += 1
    return swept


def segment(what: str, name: str) -> str:
    """A name or id from a message, if it can be one segment of a path. Raises `NotRetriable` (`unsafe_name`)."""
    if name in ("", ".", "..") or any(c in "/\\" or not c.isprintable() for c in name):
        raise NotRetriable(
            "unsafe_name",
            f"{what} {name!r} cannot be part of a file's path: it must not be empty, `.` or `..`, nor hold `/`, `\\` or "
            "control characters.",
        )
    return name


class DataFolder:
    """Names files relative to one root, and tells what is known of them. Picklable."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).resolve()

    def path(self, relative: str) -> Path:
        """Absolute path of a product; refuses to leave the folder."""
        path = (self.root / relative).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise NotRetriable("path_outside_data", f"{relative!r} leaves the data folder {self.root}.")
        return path

    def product(self, path: Path, kind: str) -> Product:
        """Describe a file that stands in the folder, hashing its bytes."""
        return Product(
            path=path.relative_to(self.root).as_posix(),
            sha256=sha256_of(path),
            size_bytes=path.stat().st_size,
            kind=kind,
        )
