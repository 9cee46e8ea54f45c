"""Taking a file into the data folder: copied whole, hashed on the way, never over another one."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from spica_proto.base import Product
from spica_runtime.errors import NotRetriable, Retriable, Unavailable
from spica_runtime.storage import DataFolder, fsync_folder, sha256_of

from spica_ingest.locating import shown
from spica_ingest.science import naming
from spica_ingest.verification.hashing import Hashes

STAGING = ".staging"
STAGING_MAX_AGE_S = 24 * 3600.0
_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True)
class Staged:
    """A copy inside the data folder that nobody knows of yet."""

    path: Path
    size_bytes: int
    sha256: str
    md5: str


@contextmanager
def staged_copy(source: Path, data: DataFolder) -> Iterator[Staged]:
    """Copy `source` into the data folder's staging area for the length of the block.

    What is verified and filed is the copy: nobody can change it in between. Raises `Retriable`
    (`file_not_found`, `file_not_readable`, `file_changing`), `NotRetriable` (`not_a_file`) or
    `Unavailable` (`disk_full`).
    """
    area = data.root / STAGING
    area.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=area))
    try:
        yield _copy(source, folder / naming.safe(source.name, default="file"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy(source: Path, target: Path) -> Staged:
    with _source_errors(source):
        status = source.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait forever
            raise NotRetriable("not_a_file", f"{shown(source)} is not a regular file.")
        reader = source.open("rb")
    with reader, Hashes() as hashes, _disk_errors(target):
        with target.open("xb") as writer:
            hashing: list[Future[None]] = []
            while chunk := _read(reader, source):
                wait(hashing)  # of the chunk before: no more than two are in memory
                hashing = hashes.feed(chunk)
                writer.write(chunk)
            writer.flush()
            os.fsync(writer.fileno())
        after = os.fstat(reader.fileno())
        found = hashes.digests()
    if found.size_bytes != after.st_size or after.st_mtime_ns != status.st_mtime_ns:
        raise Retriable(
            "file_changing", f"{shown(source)} changed while it was read: it is still being written."
        )
    return Staged(target, found.size_bytes, found.sha256, found.md5)


def _read(reader: BinaryIO, source: Path) -> bytes:
    with _source_errors(source):
        return reader.read(_CHUNK)


@contextmanager
def _source_errors(source: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise Retriable(
            "file_not_found", f"There is no file {shown(source)} (as seen from this host)."
        ) from error
    except OSError as error:
        raise Retriable("file_not_readable", f"{shown(source)} cannot be read: {error.strerror}.") from error


@contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(target.parent).free
        raise Unavailable(
            "disk_full",
            f"No space left to write {target}: {free / 1e6:.0f} MB free. Free some space; the work goes on by itself.",
            {"free_bytes": free},
        ) from error


def file_away(staged: Staged, data: DataFolder, run: str, filter_name: str, marked: bool = False) -> Product:
    """Put a verified copy under images/<run>/<filter>/ and describe it.

    The same content under the same name is there once, however often it comes. Another content under
    the same name gets a mark in its file name; a file that stands there is never replaced.
    """
    folder = data.root / "images" / naming.safe(run) / naming.safe(filter_name)
    name = naming.with_mark(staged.path.name, staged.sha256) if marked else staged.path.name
    return _file(staged, folder / name, data, "image")


def file_auxiliary(staged: Staged, data: DataFolder, kind: str, file_name: str) -> Product:
    """Put a verified calibration frame under auxiliary/<kind>/ in the same way."""
    return _file(staged, data.root / "auxiliary" / naming.safe(kind) / naming.safe(file_name), data, kind)


def _file(staged: Staged, plain: Path, data: DataFolder, kind: str) -> Product:
    for target in (plain, plain.with_name(naming.with_mark(plain.name, staged.sha256))):
        if _put(staged, target):
            return Product(
                path=target.relative_to(data.root).as_posix(),
                sha256=staged.sha256,
                size_bytes=staged.size_bytes,
                kind=kind,
            )
    raise Retriable("file_in_the_way", f"{plain} and its marked name hold other content.")


def _put(staged: Staged, target: Path) -> bool:
    """Make `target` this content; False where another content stands there."""
    with _disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(staged.path, target)  # fails, unlike a rename, if the name is taken
        except FileExistsError:
            return target.stat().st_size == staged.size_bytes and sha256_of(target) == staged.sha256
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
                raise
            # A file system without hard links: the moment between look and rename is the price.
            if target.exists():
                return target.stat().st_size == staged.size_bytes and sha256_of(target) == staged.sha256
            staged.path.rename(target)
        fsync_folder(target.parent)
    return True


def set_aside(staged: Staged, data: DataFolder) -> Product:
    """Put a rejected copy under rejected/, named by its content; only its owner can read it.

    Nothing is known of what is in it, and nobody works with it.
    """
    staged.path.chmod(0o600)
    target = data.root / "rejected" / f"{staged.sha256[:8]}_{staged.path.name}"
    _put(staged, target)
    return Product(
        path=target.relative_to(data.root).as_posix(),
        sha256=staged.sha256,
        size_bytes=staged.size_bytes,
        kind="rejected",
    )


def sweep_staging(data: DataFolder, now: float | None = None) -> int:
    """Remove what killed workers left in the staging area more than a day ago. Returns how many."""
    area, swept = data.root / STAGING, 0
    oldest = (now if now is not None else time.time()) - STAGING_MAX_AGE_S
    for folder in area.iterdir() if area.is_dir() else ():
        try:
            if folder.stat().st_mtime < oldest:
                shutil.rmtree(folder)
                swept += 1
        except OSError:
            continue  # another worker swept it first
    return swept
