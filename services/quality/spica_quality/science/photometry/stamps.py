"""Small pieces of a frame about one source, in which only that source's light is left.

Pixels of other sources and pixels without a usable value are replaced by their mirror pixels at the other side
of the source where these are sound (what source-extractor calls MASK_TYPE CORRECT): right for all that is
symmetric about its centre, which a star is and a galaxy nearly.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit
from spica_quality.science.detection.segments import Segments
from spica_quality.science.flags import UNUSABLE, Bit, Flags

Pixels = NDArray[np.float32]
Ints = NDArray[np.int32]
States = NDArray[np.uint8]

# What a pixel of a stamp is.
LOST: Final = 0
"""Neither a value of its own nor a mirror pixel; its value is 0."""
SOUND: Final = 1
MIRRORED: Final = 2
PILED: Final = 3
"""Saturated: counts as light, is no measure of the profile."""

_UNUSABLE: Final = int(UNUSABLE)
_SATURATED: Final = int(Bit.SATURATED)
_ABSURD: Final = np.float32(1e25)


class Field(NamedTuple):
    """A frame as the kernels take it."""

    data: Pixels
    """Shape (ny, nx), background subtracted."""
    flags: Flags
    row_start: Ints
    run_x0: Ints
    run_x1: Ints
    run_label: Ints


def field_of(data: Pixels, flags: Flags, segments: Segments) -> Field:
    """The frame and its segments as one bundle.

    Raises:
        ValueError: where the three are not of one shape.

    """
    if not data.shape == flags.shape == segments.shape:
        raise ValueError(
            f"data of shape {data.shape}, flags of {flags.shape} and segments of {segments.shape} "
            "are not of one frame"
        )
    return Field(data, flags, segments.row_start, segments.x0, segments.x1, segments.label)


class Buffers(NamedTuple):
    """Room for one stamp, used again and again; arrays of one axis."""

    values: Pixels
    state: States


@jit
def buffers_for(half: int) -> Buffers:
    """Room for stamps that reach `half` px to all sides."""
    size = (2 * half + 1) ** 2
    return Buffers(np.empty(size, np.float32), np.empty(size, np.uint8))


@jit
def room_for(half: int, buffers: Buffers) -> Buffers:
    """The same room, or a larger one."""
    return buffers if (2 * half + 1) ** 2 <= buffers.values.shape[0] else buffers_for(half)


@jit
def cut_stamp(
    field: Field, label: int, x: float, y: float, half: int, buffers: Buffers
) -> tuple[int, int, Pixels, States]:
    """Cut the pixels within `half` of (x, y), as far as the frame goes.

    Returns the frame's row and column of the stamp's first pixel, the values, and what each is (LOST, SOUND,
    MIRRORED, PILED); both are views into `buffers`, which must be large enough (`room_for`).
    """
    ny, nx = field.data.shape
    column, row = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
    x0, x1 = min(max(column - half, 0), nx), min(max(column + half + 1, 0), nx)
    y0, y1 = min(max(row - half, 0), ny), min(max(row + half + 1, 0), ny)
    # One piece of memory without gaps, and the compiler knows it.
    size = (y1 - y0) * (x1 - x0)
    values = buffers.values[:size].reshape((y1 - y0, x1 - x0))
    state = buffers.state[:size].reshape((y1 - y0, x1 - x0))
    gaps = 0
    # Indices that cannot be negative are what lets the compiler copy many pixels at a time.
    left, nx_stamp = np.uint64(x0), np.uint64(x1 - x0)
    for j in range(y0, y1):
        odd = np.uint32(0)
        for i in range(nx_stamp):
            value = field.data[j, left + i]
            values[j - y0, i] = value
            state[j - y0, i] = SOUND
            odd |= np.uint32(field.flags[j, left + i])
            odd |= np.uint32(not abs(value) < _ABSURD)
        if odd:
            gaps += _judge(field, j, x0, values[j - y0], state[j - y0])
        for k in range(field.row_start[j], field.row_start[j + 1]):
            if field.run_x0[k] >= x1:
                break
            if field.run_label[k] == label or field.run_x1[k] <= x0:
                continue
            for i in range(max(field.run_x0[k], x0), min(field.run_x1[k], x1)):
                values[j - y0, i - x0] = 0.0
                state[j - y0, i - x0] = LOST
                gaps += 1
    if gaps:
        _mirror(x - x0, y - y0, values, state)
    return y0, x0, values, state


@jit
def _judge(field: Field, j: int, x0: int, values: Pixels, state: States) -> int:
    """Look at the flags of one row of a stamp; returns how many pixels are lost."""
    gaps = 0
    for i in range(values.shape[0]):
        reasons = field.flags[j, x0 + i]
        if (reasons & _UNUSABLE) != 0 or not abs(values[i]) < _ABSURD:
            values[i] = 0.0
            state[i] = LOST
            gaps += 1
        elif (reasons & _SATURATED) != 0:
            state[i] = PILED
    return gaps


@jit
def _mirror(x: float, y: float, values: Pixels, state: States) -> None:
    """Fill lost pixels from the other side of (x, y)."""
    ny, nx = values.shape
    for j in range(ny):
        other_j = int(np.floor(2.0 * y - j + 0.5))
        if other_j < 0 or other_j >= ny:
            continue
        for i in range(nx):
            if state[j, i] != LOST:
                continue
            other_i = int(np.floor(2.0 * x - i + 0.5))
            if 0 <= other_i < nx and (state[other_j, other_i] == SOUND or state[other_j, other_i] == PILED):
                values[j, i] = values[other_j, other_i]
                state[j, i] = MIRRORED
