"""One place for the compiler's options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])

# nnan and ninf are left out of fastmath: NaN means "no value" here and must stay what it is.
_FASTMATH = {"nsz", "arcp", "contract", "reassoc"}


def jit(function: F) -> F:
    """Compile with the cache on disk (compiled once per machine), without Python objects, letting other threads run."""
    compiled: F = numba.njit(cache=True, nogil=True, fastmath=_FASTMATH, error_model="numpy")(function)
    return compiled
