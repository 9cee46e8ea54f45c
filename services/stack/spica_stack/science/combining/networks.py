"""Sorting networks: sequences of compare-and-exchange steps that do not depend on the values.

They let a row of pixels be sorted at once: each step takes the minimum and maximum of two whole rows of samples,
which processors do for 8 or 16 pixels in one instruction. Batcher's merge exchange (Knuth, The Art of Computer
Programming 3, 5.3.4), of which only those steps are kept that lead to the ranks asked for.
"""

from __future__ import annotations

from functools import cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ranks = Literal["lower", "middle", "all"]
"""Which ranks are put right: the lower middle one; both middle ones; all."""

LARGEST = 256
"""More samples than this are not sorted by a network (its steps grow with n log² n, those of a selection with n)."""


class Networks(NamedTuple):
    """Networks for every number of samples up to the largest asked for, one after the other.

    Plain arrays in a tuple: that is how kernels take them.
    """

    size: NDArray[np.int32]
    """For each number of samples: of how many the network is that serves it (missing ones are filled in)."""
    start: NDArray[np.int32]
    """For each number of samples: its network's first step, and one after its last in the next column; shape (n + 1, 2)."""
    low: NDArray[np.int32]
    """Per step: where the minimum goes."""
    high: NDArray[np.int32]
    """Per step: where the maximum goes."""
    keep: NDArray[np.uint8]
    """Per step: 1 only the minimum is needed, 2 only the maximum, 3 both."""


def merge_exchange(n: int) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, whose exchange in this order sorts n values ascending."""
    steps = []
    p = 1
    while p < n:
        k = p
        while k >= 1:
            for j in range(k % p, n - k, 2 * k):
                for i in range(j, min(j + k, n - k)):
                    if i // (2 * p) == (i + k) // (2 * p):
                        steps.append((i, i + k))
            k //= 2
        p *= 2
    return steps


def only_for(steps: list[tuple[int, int]], ranks: set[int]) -> list[tuple[int, int, int]]:
    """Those steps that the given ranks depend on, each with what of it is needed (1 minimum, 2 maximum, 3 both)."""
    wanted, kept = set(ranks), []
    for i, j in reversed(steps):
        needed = (i in wanted) + 2 * (j in wanted)
        if needed:
            kept.append((i, j, needed))
            wanted |= {i, j}
    return kept[::-1]


def ranks_of(n: int, ranks: Ranks) -> set[int]:
    """The ranks (from 0) among n that are meant."""
    lower = max(n - 1, 0) // 2
    if ranks == "lower":
        return {lower}
    return {lower, min(lower + 1, n - 1)} if ranks == "middle" else set(range(n))


def _size_for(n: int) -> int:
    """Networks are made for all small numbers and for some of the large ones, where one sample more costs little."""
    step = 1 if n <= 32 else 4 if n <= 64 else 8 if n <= 128 else 16
    return -(-n // step) * step


def networks(n: int, ranks: Ranks) -> Networks:
    """Networks for up to n samples (at most LARGEST of them)."""
    return _networks(_size_for(min(max(n, 1), LARGEST)), ranks)


@cache
def _networks(n: int, ranks: Ranks) -> Networks:
    size = np.array([_size_for(k) for k in range(n + 1)], np.int32)
    start = np.zeros((n + 1, 2), np.int32)
    steps: list[tuple[int, int, int]] = []
    made = 0
    for k in range(1, n + 1):
        if size[k] != made:
            made = int(size[k])
            first = len(steps)
            steps += only_for(merge_exchange(made), ranks_of(made, ranks))
        start[k] = first, len(steps)
    table = np.array(steps, np.int32).reshape(-1, 3)
    low, high = np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1])
    return Networks(size, start, low, high, table[:, 2].astype(np.uint8))
