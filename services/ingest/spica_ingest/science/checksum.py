"""The FITS checksum: a 32-bit ones' complement sum (FITS standard 4.0, section 4.4.2.7 and appendix J)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from spica_imaging._jit import kernel

ALL_ONES = 0xFFFFFFFF


@kernel
def _sum_of_words(words: NDArray[np.uint32]) -> int:
    """Sum of big-endian words that were read as little-endian ones. Cannot overflow below 16 GB."""
    total = np.uint64(0)
    for index in range(len(words)):
        word = words[index]
        # The compiler makes one instruction of this, for many words at a time.
        total += np.uint64(
            np.uint32((word << 24) | ((word & 0xFF00) << 8) | ((word >> 8) & 0xFF00) | (word >> 24))
        )
    return int(total)


def add_to_sum(total: int, block: bytes | memoryview | NDArray[np.uint8], offset: int = 0) -> int:
    """Add a block of bytes to a running sum; carries go around to the other end.

    `offset`: where in the whole the block begins, in bytes; what is missing to full words counts as zero.
    """
    content = np.frombuffer(block, np.uint8) if not isinstance(block, np.ndarray) else block
    whole = len(content) // 4 * 4
    added = int(_sum_of_words(np.ascontiguousarray(content[:whole]).view("<u4")))
    rest = bytes(content[whole:])
    added += int.from_bytes(rest.ljust(4, b"\0"), "big")
    # A block that begins amid a word weighs less by as many bytes: a rotation, in this arithmetic.
    total += _folded(_folded(added) << (8 * (-offset % 4)))
    return _folded(total)


@kernel
def _weighted_sum(words: NDArray[np.uint32], first: int) -> int:
    """Sum of words, each times an odd number of its own: other than a plain sum, it tells their order."""
    total = np.uint64(0)
    for index in range(len(words)):
        total += np.uint64(words[index]) * (
            np.uint64(2 * (first + index)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
        )
    return int(np.int64(total))


def add_to_mark(mark: int, block: bytes | memoryview, offset: int) -> int:
    """Add a block that begins `offset` bytes into the whole to a mark, by which equal contents are known (64 bits)."""
    content = np.frombuffer(block, np.uint8)
    whole = len(content) // 4 * 4
    added = int(_weighted_sum(np.ascontiguousarray(content[:whole]).view("<u4"), offset // 4))
    rest = int.from_bytes(bytes(content[whole:]), "little")
    return (mark + added + rest * (offset + whole + 1)) % (1 << 64)


def _folded(total: int) -> int:
    while total > ALL_ONES:
        total = (total & ALL_ONES) + (total >> 32)
    return total


def agrees(total: int) -> bool:
    """Whether a whole HDU, its CHECKSUM card included, sums up to minus zero (or plus zero: all bytes 0)."""
    return total in (0, ALL_ONES)
