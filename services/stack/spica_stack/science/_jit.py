"""The one place where compiler options of the stack's kernels are chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from spica_imaging import kernelcache

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
