"""How many pixels have which reason to be distrusted: one pass over the flag map, nothing of its size besides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit

Flags = NDArray[np.uint16]

_N_BITS = 16


@dataclass(frozen=True, slots=True)
class Tally:
    """What a flag map holds."""

    n_pixels: int
    n_clean: int
    """Without any bit."""
    by_bit: tuple[int, ...]
    """Pixels with bit k set, for k from 0 to 15."""

    def of(self, bit: int | np.uint16) -> int:
        """Pixels that have this bit (a power of two, as in `flags.Bit`)."""
        return self.by_bit[int(bit).bit_length() - 1]


def tally(flags: Flags) -> Tally:
    """Count the pixels of a flag map of shape (ny, nx)."""
    by_bit = np.zeros(_N_BITS, np.int64)
    marked = _count(flags, by_bit)
    return Tally(flags.size, flags.size - marked, tuple(by_bit.tolist()))


@jit
def _count(flags: Flags, by_bit: NDArray[np.int64]) -> int:
    """Count the pixels with each bit; returns how many have any."""
    ny, nx = flags.shape
    total = 0
    for j in range(ny):
        marked = 0
        for i in range(nx):
            marked += 1 if flags[j, i] != 0 else 0
        # Most rows are clean but for a few pixels; only the marked are looked at bit by bit.
        if marked == 0:
            continue
        total += marked
        i = 0
        while i < nx:
            value = flags[j, i]
            if value == 0:
                i += 1
                continue
            # Runs of the same value: overscan, columns, dead amplifiers.
            begin = i
            while i < nx and flags[j, i] == value:
                i += 1
            for bit in range(16):
                if (value >> bit) & 1:
                    by_bit[bit] += i - begin
    return total
