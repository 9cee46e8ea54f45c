"""The one place where compiler options of these kernels are chosen, and the instructions numba does not offer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from spica_imaging import kernelcache

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile for one thread that lets others run (nogil): callers share work among threads themselves.

    Kept on disk: compilation takes seconds and every worker process is a fresh interpreter.
    error_model numpy: a division by zero gives inf as in numpy, so loops need no branch for it.
    No fastmath: what is decoded is what was coded, to the bit.
    """
    compiled: Callable[P, R] = numba.njit(nogil=True, error_model="numpy")(function)
    return kernelcache.kept(compiled, Path(__file__).parent)


# nnan and ninf are left out of fastmath: NaN means "no value" here and must stay what it is.
_FASTMATH = {"nsz", "arcp", "contract", "reassoc"}


def fast_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """As `kernel`, with floating-point liberties that cost at most the last bit: for measurements on pixels."""
    compiled: Callable[P, R] = numba.njit(nogil=True, fastmath=_FASTMATH, error_model="numpy")(function)
    return kernelcache.kept(compiled, Path(__file__).parent)


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Compile as part of its callers."""
    compiled: Callable[P, R] = numba.njit(inline="always", error_model="numpy")(function)
    return compiled


@intrinsic
def load_big_endian(_context: Any, data: Any, index: Any) -> Any:
    """Eight bytes of a byte array from `index` on, most significant first; the array must have them."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(array.data, [arguments[1]])
        word = builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()), align=1)
        return builder.bswap(word)

    return types.uint64(data, types.intp), code


def _swap(kind: Any) -> Any:
    """Signature and code of what puts an integer's bytes in the other order."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bswap(arguments[0])

    return kind(kind), code


@intrinsic
def swap16(_context: Any, word: Any) -> Any:
    """The two bytes of a uint16 in the other order."""
    return _swap(types.uint16)


@intrinsic
def swap32(_context: Any, word: Any) -> Any:
    """The four bytes of a uint32 in the other order."""
    return _swap(types.uint32)


@intrinsic
def leading_zeros(_context: Any, word: Any) -> Any:
    """Zero bits before the first one of a 64-bit word, which must not be zero: one instruction."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), code
