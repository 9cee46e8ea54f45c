"""Compiled kernels kept on disk, and compiled anew when any of the sources changes that they may be made of.

numba keeps what it compiled and knows it by the file that the function stands in. A kernel that calls others from
other files has them compiled into itself: after an upgrade it would go on with the old ones. Here what is kept is
known by all Python files of the folders that kernels come from.

Where it is kept is numba's choice: NUMBA_CACHE_DIR, else __pycache__ beside the source, else (where that cannot be
written) the user's cache folder. What is out of date is overwritten: files are named by function, not by line.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from numba.core.caching import CompileResultCacheImpl, FunctionCache

F = TypeVar("F", bound=Callable[..., Any])


@cache
def stamp_of(folders: tuple[Path, ...]) -> str:
    """What tells the Python files in and below these folders from any others; some ms."""
    total = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            content = path.read_bytes()
            total.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    return total.hexdigest()


class _Place:
    """Where numba keeps a function, with our idea of when that is out of date."""

    def __init__(self, found: Any, stamp: str) -> None:
        self._found, self._stamp = found, stamp

    def __getattr__(self, name: str) -> Any:
        return getattr(self._found, name)

    def get_source_stamp(self) -> str:
        return self._stamp

    def get_disambiguator(self) -> str:
        # numba's is the line, by which every edit above a function would leave files behind.
        return "spica"


def kept(compiled: F, *folders: Path) -> F:
    """Keep a function of `numba.njit` on disk for as long as the sources in these folders are the same.

    For functions of a module, one of each name. Returns the function itself.
    """
    if not hasattr(compiled, "py_func"):
        return compiled  # NUMBA_DISABLE_JIT is set
    stamp = stamp_of(folders)

    class Implementation(CompileResultCacheImpl):
        @property
        def locator(self) -> _Place:
            return _Place(super().locator, stamp)

    class Cache(FunctionCache):
        _impl_class = Implementation

        def save_overload(self, sig: Any, data: Any) -> None:
            # A full disk, a folder that is read-only, a limit on files (ingest decodes under one): it is compiled and
            # works, and only the next process has to compile it again.
            with contextlib.suppress(OSError):
                super().save_overload(sig, data)

    dispatcher: Any = compiled
    dispatcher._cache = Cache(dispatcher.py_func)
    return compiled
