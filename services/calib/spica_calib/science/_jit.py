"""One place for the compiler's options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from spica_imaging import kernelcache

F = TypeVar("F", bound=Callable[..., Any])

# nnan and ninf are left out of fastmath: NaN means "no value" here and must stay what it is.
_FASTMATH = {"nsz", "arcp", "contract", "reassoc"}

_FOLDERS = (Path(__file__).parent, Path(kernelcache.__file__).parent)


def jit(function: F) -> F:
    """Compile once per machine and version, without Python objects, letting other threads run."""
    compiled: F = numba.njit(nogil=True, fastmath=_FASTMATH, error_model="numpy")(function)
    return kernelcache.kept(compiled, *_FOLDERS)


def exact(function: F) -> F:
    """Compile likewise, without any liberty in arithmetic: the same bits as plain Python gives."""
    compiled: F = numba.njit(nogil=True, error_model="numpy")(function)
    return kernelcache.kept(compiled, *_FOLDERS)
