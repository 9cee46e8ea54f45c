"""Copying files whole to where they are delivered, and reading them back."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from spica_proto.stacks import Receipt
from spica_runtime.storage import whole_file

from spica_export.errors import delivery_differs, destination_fails, product_changed, product_missing

_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Parcel:
    """One file to deliver: where it is, what it must be, and its name there."""

    source: Path
    name: str
    kind: str
    sha256: str
    size_bytes: int


def _read_back(path: Path) -> str:
    """SHA-256 of a file as it stands on the disk: its pages are dropped from the cache first."""
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stands_there(parcel: Parcel, target: Path) -> bool:
    """Whether an earlier delivery of the very same file is complete."""
    return (
        target.is_file()
        and target.stat().st_size == parcel.size_bytes
        and _read_back(target) == parcel.sha256
    )


def _copy(parcel: Parcel, target: Path) -> None:
    """Copy one file; it appears at the target whole and synced, and only if the source is what it must be."""
    try:
        source = parcel.source.open("rb")
    except FileNotFoundError as error:
        raise product_missing(parcel.source) from error
    digest = hashlib.sha256()
    with source, whole_file(target) as part, part.open("wb") as file:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
        if digest.hexdigest() != parcel.sha256:
            raise product_changed(parcel.source, digest.hexdigest(), parcel.sha256)


def deliver(parcel: Parcel, folder: Path) -> Receipt:
    """Deliver one file and give its receipt; what stands there already and agrees stays untouched.

    Raises `Unavailable` (destination_full, destination_unavailable), `Retriable`
    (delivery_differs), `NotRetriable` (product_missing, product_changed).
    """
    target = folder / parcel.name
    try:
        if not _stands_there(parcel, target):
            _copy(parcel, target)
        found = _read_back(target)
    except OSError as error:
        raise destination_fails(folder, error) from error
    if found != parcel.sha256:
        raise delivery_differs(target, found, parcel.sha256)
    return Receipt(
        name=parcel.name,
        path=str(target),
        sha256=found,
        size_bytes=target.stat().st_size,
        kind=parcel.kind,
    )
