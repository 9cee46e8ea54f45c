"""Eight numbers at a time, said outright.

The compiler finds vector instructions in plain loops only where nothing is in its way; the inner loops of the
resampling (thirty-six loads at unlike places, a choice per block of pixels) it leaves scalar, which costs a factor
of three. So the few operations that are needed stand here as intrinsics on a type of eight float32 lanes. What the
processor lacks (a narrower vector unit), LLVM does in two steps: the same code runs everywhere.

Nothing is left to the compiler's taste in rounding: no fast-math, and where a product is to be fused with a sum
(`fma`), it says so. Each lane gives the same bits as any other lane, in any place of a block, whether its neighbours
come along or not, and on any processor that has fused multiply-add: tiles and hosts may cut the work as they like.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model
from spica_imaging import kernelcache

F = TypeVar("F", bound=Callable[..., Any])

LANES = 8

_FOLDERS = (Path(__file__).parent.parent, Path(kernelcache.__file__).parent)
_FLOAT, _INT, _LONG, _BIT = ir.FloatType(), ir.IntType(32), ir.IntType(64), ir.IntType(1)
_FLOATS, _INTS, _BITS = (ir.VectorType(kind, LANES) for kind in (_FLOAT, _INT, _BIT))


def exact(function: F) -> F:
    """Compile for one thread that lets others run, without any liberty in arithmetic; kept on disk.

    error_model numpy: a division by zero gives inf as in numpy, so loops need no branch for it.
    """
    compiled: F = numba.njit(nogil=True, error_model="numpy")(function)
    return kernelcache.kept(compiled, *_FOLDERS)


def inlined(function: F) -> F:
    """Compile as part of its callers."""
    compiled: F = numba.njit(error_model="numpy", forceinline=True)(function)
    return compiled


class _Floats(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


class _Ints(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"int32x{LANES}")


FLOATS, INTS = _Floats(), _Ints()
"""Types of eight float32, of eight int32."""


@register_model(_Floats)
class _FloatsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _FLOATS)


@register_model(_Ints)
class _IntsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _INTS)


# ---- LLVM ----


def _iota(kind: ir.Type, step: int = 1) -> ir.Constant:
    return ir.Constant(ir.VectorType(kind, LANES), [lane * step for lane in range(LANES)])


def constants(value: float) -> ir.Constant:
    """The same number in all lanes, rounded to float32."""
    return ir.Constant(_FLOATS, [float(np.float32(value))] * LANES)


def spread_lanes(builder: Any, value: Any) -> Any:
    """All lanes the same scalar."""
    vector = ir.VectorType(value.type, LANES)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(_INT, 0))
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), ir.Constant(_INTS, [0] * LANES))


def call(builder: Any, name: str, result: ir.Type, *arguments: Any) -> Any:
    """Call an LLVM intrinsic by its full name."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(_declared(builder.module, kind, name), arguments)


def _declared(module: Any, kind: Any, name: str) -> Any:
    found = module.globals.get(name)
    return ir.Function(module, kind, name) if found is None else found


def fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Product of a and b, plus c, in all lanes, rounded once."""
    return call(builder, f"llvm.fma.v{LANES}f32", _FLOATS, a, b, c)


def place_of(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Pointer to an element of a one-dimensional, contiguous float32 array."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def load_lanes(builder: Any, place: Any) -> Any:
    """Eight floats from a place on, aligned to nothing."""
    return builder.load(builder.bitcast(place, _FLOATS.as_pointer()), align=4)


def load_some(builder: Any, place: Any, mask: Any) -> Any:
    """Those of the eight floats from a place on that the mask names; memory behind the others is not touched."""
    pointer = builder.bitcast(place, _FLOATS.as_pointer())
    kind = ir.FunctionType(_FLOATS, [pointer.type, _INT, _BITS, _FLOATS])
    function = _declared(builder.module, kind, f"llvm.masked.load.v{LANES}f32.p0")
    return builder.call(function, [pointer, ir.Constant(_INT, 4), mask, ir.Constant(_FLOATS, [0.0] * LANES)])


def store_some(builder: Any, value: Any, place: Any, mask: Any) -> None:
    """Write the lanes that the mask names."""
    pointer = builder.bitcast(place, _FLOATS.as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [_FLOATS, pointer.type, _INT, _BITS])
    function = _declared(builder.module, kind, f"llvm.masked.store.v{LANES}f32.p0")
    builder.call(function, [value, pointer, ir.Constant(_INT, 4), mask])


def first_lanes(count: int) -> ir.Constant:
    """A mask of the first lanes."""
    return ir.Constant(_BITS, [int(lane < count) for lane in range(LANES)])


def transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Columns of a square of eight vectors, in three rounds of shuffles."""
    for half in (1, 2, 4):
        turned: list[Any] = [None] * LANES
        for top in range(LANES):
            if top & half:
                continue
            low, high = [], []
            for lane in range(LANES):
                # Swap the off-diagonal squares of side `half`.
                low.append(LANES + (lane ^ half) if lane & half else lane)
                high.append(LANES + lane if lane & half else lane ^ half)
            for place, order in ((top, low), (top | half, high)):
                turned[place] = builder.shuffle_vector(rows[top], rows[top | half], ir.Constant(_INTS, order))
        rows = turned
    return rows


def _on_array(array: Any) -> bool:
    return isinstance(array, types.Array) and array.dtype == types.float32 and array.ndim == 1


# ---- what kernels call ----


@intrinsic
def spread(_context: Any, value: Any) -> Any:
    """All lanes the same float32."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return spread_lanes(builder, arguments[0])

    return FLOATS(types.float32), code


@intrinsic
def lanes_up_to(_context: Any, first: Any, last: Any) -> Any:
    """Lane k is the smaller of first + k and last, as a float (both integers below 2^24)."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        start, end = (spread_lanes(builder, builder.trunc(value, _INT)) for value in arguments)
        lanes = builder.add(start, _iota(_INT))
        lanes = builder.select(builder.icmp_signed("<", lanes, end), lanes, end)
        return builder.sitofp(lanes, _FLOATS)

    return FLOATS(types.int64, types.int64), code


@intrinsic
def fma(_context: Any, a: Any, b: Any, c: Any) -> Any:
    """Product of a and b, plus c, rounded once; lanes or scalars (float32)."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return fused(builder, *arguments)

    def scalar(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return call(builder, "llvm.fma.f32", _FLOAT, *arguments)

    if a == FLOATS:
        return FLOATS(FLOATS, FLOATS, FLOATS), code
    return types.float32(types.float32, types.float32, types.float32), scalar


@intrinsic
def floor(_context: Any, values: Any) -> Any:
    """Largest whole number not above, as floats."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return call(builder, f"llvm.floor.v{LANES}f32", _FLOATS, arguments[0])

    return FLOATS(FLOATS), code


@intrinsic
def address(_context: Any, row: Any, column: Any, stride: Any, start: Any) -> Any:
    """Compute start + row × stride + column; rows and columns are whole numbers held as floats."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        rows, columns = (builder.fptosi(value, _INTS) for value in arguments[:2])
        stride, start = (spread_lanes(builder, builder.trunc(value, _INT)) for value in arguments[2:])
        return builder.add(builder.add(builder.mul(rows, stride), columns), start)

    return INTS(FLOATS, FLOATS, types.int64, types.int64), code


def _all_step(builder: Any, values: Any, step: int) -> Any:
    first = spread_lanes(builder, builder.extract_element(values, ir.Constant(_INT, 0)))
    same = builder.icmp_signed("==", values, builder.add(first, _iota(_INT, step)))
    whole = builder.bitcast(same, ir.IntType(LANES))
    return builder.icmp_unsigned("==", whole, ir.Constant(ir.IntType(LANES), (1 << LANES) - 1))


@intrinsic
def rising(_context: Any, values: Any) -> Any:
    """Whether each lane is one more than the lane before."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _all_step(builder, arguments[0], 1)

    return types.boolean(INTS), code


@intrinsic
def falling(_context: Any, values: Any) -> Any:
    """Whether each lane is one less than the lane before."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _all_step(builder, arguments[0], -1)

    return types.boolean(INTS), code


def _element(lane: int) -> Any:
    def typing(_context: Any, values: Any) -> Any:
        def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.sext(builder.extract_element(arguments[0], ir.Constant(_INT, lane)), _LONG)

        return types.int64(INTS), code

    return typing


first = intrinsic(_element(0))
last = intrinsic(_element(LANES - 1))


@intrinsic
def backwards(_context: Any, values: Any) -> Any:
    """Lanes in reverse order."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        order = ir.Constant(_INTS, list(range(LANES - 1, -1, -1)))
        return builder.shuffle_vector(arguments[0], arguments[0], order)

    return FLOATS(FLOATS), code


@intrinsic
def load(_context: Any, array: Any, start: Any) -> Any:
    """Eight elements in a row."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return load_lanes(builder, place_of(context, builder, signature.args[0], *arguments))

    return (FLOATS(array, types.int64), code) if _on_array(array) else None


@intrinsic
def gather(_context: Any, array: Any, places: Any, offset: Any) -> Any:
    """Element `places` + `offset` for each lane."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        base = place_of(context, builder, signature.args[0], arguments[0], arguments[2])
        total = ir.Constant(_FLOATS, ir.Undefined)
        for lane in range(LANES):
            index = ir.Constant(_INT, lane)
            place = builder.sext(builder.extract_element(arguments[1], index), _LONG)
            total = builder.insert_element(total, builder.load(builder.gep(base, [place])), index)
        return total

    return (FLOATS(array, INTS, types.int64), code) if _on_array(array) else None


@intrinsic
def if_above(_context: Any, a: Any, b: Any, then: Any, otherwise: Any) -> Any:
    """Lanes of `then` where a > b, of `otherwise` elsewhere (also where one of them is NaN)."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        a, b, then, otherwise = arguments
        return builder.select(builder.fcmp_ordered(">", a, b), then, otherwise)

    return FLOATS(FLOATS, FLOATS, FLOATS, FLOATS), code


@intrinsic
def merge(
    _context: Any, value: Any, weight: Any, start: Any, count: Any, new_value: Any, new_weight: Any
) -> Any:
    """Write the first `count` lanes to where their weight is above what stands there."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, _, index, count, new_value, new_weight = arguments
        value_place = place_of(context, builder, signature.args[0], arguments[0], index)
        weight_place = place_of(context, builder, signature.args[1], arguments[1], index)
        many = spread_lanes(builder, builder.trunc(count, _INT))
        inside = builder.icmp_signed("<", _iota(_INT), many)
        standing = load_some(builder, weight_place, inside)
        mask = builder.and_(inside, builder.fcmp_ordered(">", new_weight, standing))
        store_some(builder, new_value, value_place, mask)
        store_some(builder, new_weight, weight_place, mask)
        return context.get_dummy_value()

    if not (_on_array(value) and _on_array(weight)):
        return None
    return types.void(value, weight, types.int64, types.int64, FLOATS, FLOATS), code


def _binary(name: str) -> Any:
    def typing(_context: Any, a: Any, b: Any) -> Any:
        def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return getattr(builder, name)(*arguments)

        return (FLOATS(FLOATS, FLOATS), code) if a == FLOATS and b == FLOATS else None

    return intrinsic(typing)


for _operator, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):

    def _implement(operation: Any, code: Any) -> None:
        @overload(operation, strict=False)
        def _both(a: Any, b: Any) -> Any:
            # numba wants a function of its own here.
            return (lambda a, b: code(a, b)) if a == FLOATS and b == FLOATS else None  # noqa: PLW0108

    _implement(_operator, _binary(_name))
