"""Arrays that wait in memory or, beyond a budget, in scratch files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]

_PREFIX = ".scratch-"
_LOCK = "lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


class Spool:
    """Keeps arrays in memory up to a budget, and beyond it in scratch files that are mapped.

    Use as a context manager: the scratch files are gone afterwards. Those of a process that was
    killed are removed by the next one at the same place. A living one's are not: it holds a lock.
    """

    def __init__(self, folder: Path, memory_bytes: int) -> None:
        self._folder, self._left = folder, memory_bytes
        self._scratch: Path | None = None
        self._lock = -1
        self._count = 0

    def keep(self, array: Image) -> Image:
        """Give the array back, as it is or as a mapped copy of it."""
        if array.nbytes <= self._left:
            self._left -= array.nbytes
            return array
        if self._scratch is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._scratch, self._lock = _own_folder(self._folder)
        path = self._scratch / f"{self._count:06d}.npy"
        self._count += 1
        np.save(path, array)
        # Copy on write: to the kernels a mapped array is then of the same type as one in memory.
        mapped: Image = np.load(path, mmap_mode="c")
        return mapped

    def __enter__(self) -> Spool:
        _sweep(self._folder.glob(f"{_PREFIX}*"))
        return self

    def __exit__(self, *_: object) -> None:
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            os.close(self._lock)


def sweep_scratch(stacks: Path, older_than_s: float = 86_400.0) -> int:
    """Remove what killed processes left below `stacks`, a folder of folders. Returns how many."""
    return _sweep(stacks.glob(f"*/{_PREFIX}*"), time.time() - older_than_s)


def _own_folder(parent: Path) -> tuple[Path, int]:
    """A scratch folder and the descriptor that locks it."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        lock = _locked(folder)
        # A sweeper may have come between making and locking; then what is locked is gone.
        if lock is not None and _stands(folder, lock):
            return folder, lock
        if lock is not None:
            os.close(lock)


def _sweep(folders: Iterable[Path], older_than: float = math.inf) -> int:
    swept = 0
    with contextlib.suppress(OSError):  # what cannot be listed is swept another time
        for folder in folders:
            with contextlib.suppress(OSError):  # gone meanwhile, or another user's
                if folder.stat().st_mtime >= older_than:
                    continue
                lock = _locked(folder, unless_unlockable=True)
                if lock is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                    os.close(lock)
                    swept += 1
    return swept


def _locked(folder: Path, *, unless_unlockable: bool = False) -> int | None:
    """Descriptor of the folder's lock file; None where another holds it, or the folder is gone.

    On a file system without locks every folder can be had, or, `unless_unlockable`, none.
    """
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS and not unless_unlockable:
            return descriptor
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, *_NO_LOCKS):
            return None
        raise
    return descriptor


def _stands(folder: Path, lock: int) -> bool:
    """Whether the locked file is the one that the folder has."""
    try:
        return os.path.samestat(os.fstat(lock), (folder / _LOCK).stat())
    except FileNotFoundError:
        return False
