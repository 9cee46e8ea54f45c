"""The FITS checksum: a 32-bit ones' complement sum (FITS standard 4.0, section 4.4.2.7 and appendix J)."""

from __future__ import annotations

import numpy as np

ALL_ONES = 0xFFFFFFFF


def add_to_sum(total: int, block: bytes) -> int:
    """Add a block of bytes, a multiple of four, to a running sum; carries go around to the other end."""
    total += int(np.frombuffer(block, dtype=">u4").sum(dtype=np.uint64))
    while total > ALL_ONES:
        total = (total & ALL_ONES) + (total >> 32)
    return total


def agrees(total: int) -> bool:
    """Whether a whole HDU, its CHECKSUM card included, sums up to minus zero (or plus zero: all bytes 0)."""
    return total in (0, ALL_ONES)
