"""Rice decoding, as FITS tile compression has it (RICE_1; FITS standard 4.0, section 10.4.1).

A tile begins with its first pixel as it is. Then come blocks of (usually) 32 pixels: a code of a few bits
says how the differences of neighbours were written, each folded to a number without sign. Zero: all
are zero. The highest: as plain numbers. Any other, less one, is the number of low bits that follow a
count of zeros ended by a one, which is the rest of the number.

Reading bit by bit is a chain in which each pixel waits for the one before. Two things make it quick: the zeros
are counted by one instruction in a 64-bit window, and four tiles are decoded in step, so that four chains
run at a time in one processor core. Blocks that are anything but usual take a careful way, which knows
where the tile ends. A tile that needs more bytes than it has, has bytes left over, or
uses a code that there is not, is told by its state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spica_imaging._jit import inlined, kernel, leading_zeros, load_big_endian

OK, TOO_SHORT, LEFT_OVER, BAD_CODE = range(4)
STATES = {
    TOO_SHORT: "needs more bytes than it has",
    LEFT_OVER: "has bytes left over",
    BAD_CODE: "uses a code that there is not",
}
BLOCK_SIZE = 32

_CODES: Mapping[int, tuple[int, int, type[np.unsignedinteger[Any]]]] = {
    1: (3, 6, np.uint8),
    2: (4, 14, np.uint16),
    4: (5, 25, np.uint32),
}
"""Bytes of a pixel: bits of a block's code, the code less one that means plain numbers, type."""

_WINDOW = 57
"""Bits of a window that are good wherever in a byte it begins."""


@inlined
def _window(data, position):  # type: ignore[no-untyped-def]
    return load_big_endian(data, position >> 3) << np.uint64(position & 7)


@inlined
def _number(window, zeros, low):  # type: ignore[no-untyped-def]
    """Number behind `zeros` zeros and a one, with `low` bits of its own, unfolded to a difference with sign."""
    # Shifted in two steps: a shift by 64, which `low` zero would need, is not defined.
    rest = (window << np.uint64(zeros + 1)) >> np.uint64(1) >> np.uint64(63 - low)
    folded = (zeros << low) | np.int64(rest)
    return (folded >> 1) ^ -(folded & 1)


@inlined
def _careful_window(data, position, end):  # type: ignore[no-untyped-def]
    """The 57 bits from `position` on; zeros beyond bit `end`."""
    if position >= end:
        return np.uint64(0)
    word = np.uint64(0)
    first = position >> 3
    for byte in range(first, min(first + 8, (end + 7) >> 3)):
        word |= np.uint64(data[byte]) << np.uint64(56 - 8 * (byte - first))
    return word << np.uint64(position & 7)


@kernel
def _careful_block(data, position, end, pixel, count, code_bits, plain, pixel_bits, out, place):  # type: ignore[no-untyped-def]
    """Decode one block, looking at every step where the tile ends.

    Returns the position behind it, the last pixel, and the state.
    """
    low = np.int64(_careful_window(data, position, end) >> np.uint64(64 - code_bits)) - 1
    position += code_bits
    if position > end:
        return position, pixel, TOO_SHORT
    if low > plain:
        return position, pixel, BAD_CODE
    for index in range(place, place + count):
        difference = np.int64(0)
        if low == plain:
            folded = np.int64(_careful_window(data, position, end) >> np.uint64(64 - pixel_bits))
            difference = (folded >> 1) ^ -(folded & 1)
            position += pixel_bits
        elif low >= 0:
            zeros = np.int64(0)
            window = _careful_window(data, position, end)
            while window >> np.uint64(64 - _WINDOW) == 0:
                zeros += _WINDOW
                position += _WINDOW
                if position > end:
                    return position, pixel, TOO_SHORT
                window = _careful_window(data, position, end)
            more = leading_zeros(window)
            zeros += more
            position += more + 1
            window = _careful_window(data, position, end)
            folded = (zeros << low) | np.int64(window >> np.uint64(1) >> np.uint64(63 - low))
            difference = (folded >> 1) ^ -(folded & 1)
            position += low
        if position > end:
            return position, pixel, TOO_SHORT
        pixel += difference
        out[index] = pixel
    return position, pixel, OK


@kernel
def _first_pixel(data, start, length, pixel_bits):  # type: ignore[no-untyped-def]
    """The first pixel of a tile, which stands there as it is; zero where the tile is shorter than that."""
    if length * 8 < pixel_bits:
        return np.int64(0)
    return np.int64(_careful_window(data, start * 8, (start + length) * 8) >> np.uint64(64 - pixel_bits))


@kernel
def _ended(data, position, end):  # type: ignore[no-untyped-def]
    """State of a tile decoded up to `position`: nothing but padding with zeros may follow."""
    if position > end:
        return TOO_SHORT
    for byte in range((position + 7) >> 3, end >> 3):
        if data[byte] != 0:
            return LEFT_OVER
    return OK


@kernel
def _one_tile(data, start, length, count, block, code_bits, plain, pixel_bits, out, place):  # type: ignore[no-untyped-def]
    end = (start + length) * 8
    pixel = _first_pixel(data, start, length, pixel_bits)
    position = start * 8 + pixel_bits
    for first in range(0, count, block):
        position, pixel, state = _careful_block(
            data, position, end, pixel, min(block, count - first), code_bits, plain, pixel_bits, out, place + first
        )  # fmt: skip
        if state != OK:
            return state
    return _ended(data, position, end)


@kernel
def _four_tiles(  # type: ignore[no-untyped-def]  # noqa: PLR0915
    data, starts, lengths, count, block, code_bits, plain, pixel_bits, out, places, states
):
    """Decode four tiles of `count` pixels in step. Written out: numba keeps no arrays in registers."""
    ends = np.empty(4, np.int64)
    positions = np.empty(4, np.int64)
    pixels = np.empty(4, np.int64)
    for lane in range(4):
        ends[lane] = (starts[lane] + lengths[lane]) * 8
        positions[lane] = starts[lane] * 8 + pixel_bits
        pixels[lane] = _first_pixel(data, starts[lane], lengths[lane], pixel_bits)
        states[lane] = OK if lengths[lane] * 8 >= pixel_bits else TOO_SHORT
    # A pixel takes 64 + 25 bits at most, so a block in step can never look further than this.
    reach = (len(data) - 16) * 8 - block * 96
    shift = np.uint64(64 - code_bits)
    for first in range(0, count, block):
        n = min(block, count - first)
        p0, p1, p2, p3 = positions[0], positions[1], positions[2], positions[3]
        done = False
        if max(p0, p1, p2, p3) < reach:
            low0 = np.int64(_window(data, p0) >> shift) - 1
            low1 = np.int64(_window(data, p1) >> shift) - 1
            low2 = np.int64(_window(data, p2) >> shift) - 1
            low3 = np.int64(_window(data, p3) >> shift) - 1
            highest = max(low0, low1, low2, low3)
            if min(low0, low1, low2, low3) >= 0 and highest < plain:
                p0, p1, p2, p3 = p0 + code_bits, p1 + code_bits, p2 + code_bits, p3 + code_bits
                v0, v1, v2, v3 = pixels[0], pixels[1], pixels[2], pixels[3]
                a0, a1, a2, a3 = places[0] + first, places[1] + first, places[2] + first, places[3] + first
                any_zeros = np.int64(0)
                for index in range(n):
                    w0 = _window(data, p0)
                    w1 = _window(data, p1)
                    w2 = _window(data, p2)
                    w3 = _window(data, p3)
                    # The lowest bit is set only so that the count is defined; such a count is too high anyway.
                    z0 = leading_zeros(w0 | np.uint64(1))
                    z1 = leading_zeros(w1 | np.uint64(1))
                    z2 = leading_zeros(w2 | np.uint64(1))
                    z3 = leading_zeros(w3 | np.uint64(1))
                    v0 += _number(w0, z0, low0)
                    v1 += _number(w1, z1, low1)
                    v2 += _number(w2, z2, low2)
                    v3 += _number(w3, z3, low3)
                    out[a0 + index] = v0
                    out[a1 + index] = v1
                    out[a2 + index] = v2
                    out[a3 + index] = v3
                    p0 += z0 + 1 + low0
                    p1 += z1 + 1 + low1
                    p2 += z2 + 1 + low2
                    p3 += z3 + 1 + low3
                    any_zeros |= z0 | z1 | z2 | z3
                # No count is above the bits of all of them together: all numbers lay within their windows.
                if any_zeros + 1 + highest <= _WINDOW:
                    positions[0], positions[1], positions[2], positions[3] = p0, p1, p2, p3
                    pixels[0], pixels[1], pixels[2], pixels[3] = v0, v1, v2, v3
                    done = True
        for lane in range(4):
            if done:
                if positions[lane] > ends[lane] and states[lane] == OK:
                    states[lane] = TOO_SHORT
            elif states[lane] == OK:
                positions[lane], pixels[lane], states[lane] = _careful_block(
                    data, positions[lane], ends[lane], pixels[lane], n, code_bits, plain, pixel_bits, out,
                    places[lane] + first,
                )  # fmt: skip
        if states[0] != OK or states[1] != OK or states[2] != OK or states[3] != OK:
            return
    for lane in range(4):
        states[lane] = _ended(data, positions[lane], ends[lane])


@kernel
def _tiles(data, starts, lengths, counts, block, code_bits, plain, pixel_bits, out, states):  # type: ignore[no-untyped-def]
    places = np.zeros(len(starts) + 1, np.int64)
    for tile in range(len(starts)):
        places[tile + 1] = places[tile] + counts[tile]
    tile = 0
    while tile < len(starts):
        four = slice(tile, tile + 4)
        if tile + 4 <= len(starts) and counts[tile : tile + 4].min() == counts[tile : tile + 4].max():
            _four_tiles(
                data, starts[four], lengths[four], counts[tile], block, code_bits, plain, pixel_bits, out,
                places[four], states[four],
            )  # fmt: skip
            if states[four].max() == OK:
                tile += 4
                continue
        # One by one: what is wrong in one tile says nothing of the others.
        for single in range(tile, min(tile + 4, len(starts))):
            states[single] = _one_tile(
                data, starts[single], lengths[single], counts[single], block, code_bits, plain, pixel_bits,
                out, places[single],
            )  # fmt: skip
        tile = min(tile + 4, len(starts))


def decode_tiles(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    counts: NDArray[np.int64],
    *,
    bytes_per_pixel: int,
    block_size: int = BLOCK_SIZE,
) -> tuple[NDArray[Any], NDArray[np.int8]]:
    """Decode tiles one behind the other into one array.

    `data`: bytes of shape (n,), contiguous; tile i is ``data[starts[i] : starts[i] + lengths[i]]`` and holds
    `counts[i]` pixels of `bytes_per_pixel` (1, 2 or 4). Returns the pixels, shape (sum of counts,), type uint8, int16
    or int32, and the state of each tile (`OK` or one of `STATES`); pixels of a tile that is not `OK`
    mean nothing. Raises ValueError where a tile lies outside of `data` or a parameter is not one of Rice's.
    """
    if bytes_per_pixel not in _CODES or not 1 <= block_size <= 1024:
        raise ValueError(
            f"Rice coding with BYTEPIX {bytes_per_pixel}, BLOCKSIZE {block_size}: 1, 2 or 4, and 1 to 1024."
        )
    if len(starts) and (
        starts.min() < 0
        or lengths.min() < 0
        or counts.min() < 0
        or (starts > len(data) - lengths).any()  # not the sum, which may overflow
    ):
        raise ValueError("A tile lies outside of the data.")
    code_bits, plain, kind = _CODES[bytes_per_pixel]
    out = np.empty(int(counts.sum()), kind)
    states = np.zeros(len(starts), np.int8)
    _tiles(data, starts, lengths, counts, block_size, code_bits, plain, 8 * bytes_per_pixel, out, states)
    return out.view({1: np.uint8, 2: np.int16, 4: np.int32}[bytes_per_pixel]), states
