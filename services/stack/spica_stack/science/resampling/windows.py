"""Sums over the window of pixels around a position: taps in x times taps in y, for eight positions at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from spica_stack.science.resampling.simd import (
    FLOATS,
    INTS,
    LANES,
    first_lanes,
    fused,
    load_lanes,
    load_some,
    place_of,
    spread_lanes,
    transposed,
)

_FLOAT, _INT, _LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)


def _members(builder: Any, values: Any, count: int) -> list[Any]:
    return [builder.extract_value(values, k) for k in range(count)]


def _sum(builder: Any, factors: Sequence[Any], terms: Sequence[Any]) -> Any:
    """Sum of products, from the first on: the one order in which all windows are summed."""
    total = builder.fmul(factors[0], terms[0])
    for factor, term in zip(factors[1:], terms[1:], strict=True):
        total = fused(builder, factor, term, total)
    return total


@intrinsic
def side_by_side(_context: Any, data: Any, start: Any, stride: Any, a: Any, b: Any) -> Any:
    """Window sums of eight positions whose windows lie side by side: the first begins at `data[start]`.

    a, b: taps in x and y. Pixels of all lanes are loaded together: n × n loads for eight windows.
    """
    n = a.count

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = place_of(context, builder, signature.args[0], arguments[0], arguments[1])
        stride = arguments[2]
        in_x, in_y = (_members(builder, taps, n) for taps in arguments[3:])
        rows = [builder.gep(place, [builder.mul(stride, ir.Constant(_LONG, j))]) for j in range(n)]
        columns = [
            _sum(
                builder,
                in_y,
                [load_lanes(builder, builder.gep(row, [ir.Constant(_LONG, i)])) for row in rows],
            )
            for i in range(n)
        ]
        return _sum(builder, in_x, columns)

    return FLOATS(data, start, stride, a, b), code


@intrinsic
def anywhere(_context: Any, data: Any, starts: Any, offset: Any, stride: Any, a: Any, b: Any) -> Any:
    """Window sums of eight positions, each with its own place: its window begins at `data[starts + offset]`.

    Rows of a window are loaded whole, and summed over y; what comes out is turned, so that the sum over x has a lane
    for each position again. The same products are added in the same order as by `side_by_side`.
    """
    n = a.count

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        base = place_of(context, builder, signature.args[0], arguments[0], arguments[2])
        in_x, in_y = (_members(builder, taps, n) for taps in arguments[4:])
        steps = [builder.mul(arguments[3], ir.Constant(_LONG, j)) for j in range(n)]
        columns = []
        for lane in range(LANES):
            index = ir.Constant(_INT, lane)
            place = builder.gep(base, [builder.sext(builder.extract_element(arguments[1], index), _LONG)])
            rows = [load_some(builder, builder.gep(place, [step]), first_lanes(n)) for step in steps]
            taps = [spread_lanes(builder, builder.extract_element(tap, index)) for tap in in_y]
            columns.append(_sum(builder, taps, rows))
        return _sum(builder, in_x, transposed(builder, columns)[:n])

    return FLOATS(data, INTS, offset, stride, a, b), code
