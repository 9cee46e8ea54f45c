"""The one place where compiler options of the stack's kernels are chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba
from spica_imaging import kernelcache

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

_FOLDERS = (Path(__file__).parent, Path(kernelcache.__file__).parent)

# Floating-point liberties that help vectorisation and cost at most the last bit. `nnan` and `ninf`
# stay out: with them the compiler may take x != x for false, and NaN is how pixels without a value
# travel. `afn` stays out because no kernel calls a transcendental function.
FASTMATH = {"reassoc", "contract", "arcp", "nsz"}


def jit(function: F) -> F:
    """Compile for one thread, letting other threads run meanwhile; kept on disk until any source here changes.

    error_model numpy: a division by zero gives inf as in numpy, so loops need no branch for it.
    """
    compiled: F = numba.njit(nogil=True, fastmath=FASTMATH, error_model="numpy")(function)
    return kernelcache.kept(compiled, *_FOLDERS)


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile for one thread: inner loops and helpers (numba inlines them into their callers).

    cache: compilation takes seconds and every worker process is a fresh interpreter.
    error_model numpy: a division by zero gives inf as in numpy, so loops need no branch for it.
    """
    compiled: Callable[P, R] = numba.njit(cache=True, fastmath=FASTMATH, error_model="numpy")(function)
    return compiled


def parallel_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile for all threads: outermost loops over image rows (`numba.prange`).

    Every output pixel is computed by one thread from the same inputs in the same order, so that
    the number of threads never changes a bit of the result.
    """
    compiled: Callable[P, R] = numba.njit(
        cache=True, fastmath=FASTMATH, error_model="numpy", parallel=True, nogil=True
    )(function)
    return compiled
