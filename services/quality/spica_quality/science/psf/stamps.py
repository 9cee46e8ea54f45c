"""Pixels around stars, and what may be believed of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit
from spica_quality.science.detection.segments import Segments
from spica_quality.science.flags import Flags

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Ints = NDArray[np.int32]
Bools = NDArray[np.bool_]


@dataclass(slots=True)
class Stamps:
    """Square cut-outs of n stars, k × k pixels each, k odd. The middle pixel is the one nearest to the star."""

    data: Pixels
    """Above the background, adu; 0 where not `usable`. Shape (n, k, k)."""
    usable: Bools
    """Shape (n, k, k)."""
    x: Floats
    """Zero-based position of the star in the frame, shape (n,)."""
    y: Floats
    column: Ints
    """Of the middle pixel."""
    row: Ints
    rms: Floats
    """Noise of a pixel of sky, adu."""

    def __len__(self) -> int:
        return len(self.x)

    @property
    def size(self) -> int:
        """K."""
        return self.data.shape[1]

    def select(self, chosen: Bools | NDArray[np.intp]) -> Stamps:
        """Some of them."""
        return Stamps(*(getattr(self, name)[chosen] for name in self.__slots__))


def cut_stamps(
    data: Pixels,
    flags: Flags,
    x: Floats,
    y: Floats,
    rms: Floats,
    size: int,
    segments: Segments | None = None,
    labels: Ints | None = None,
) -> Stamps:
    """Cut `size` × `size` pixels around each star.

    Not usable are pixels beyond the frame, with any flag, without a finite value, and those of other sources
    together with the pixels next to them.

    Args:
        data: pixels above the background, shape (ny, nx).
        flags: bits of `flags.Bit`, same shape.
        x: zero-based positions, shape (n,).
        y: the same along y.
        rms: noise per pixel at each, shape (n,).
        size: side of the stamps, odd.
        segments: which pixels belong to which source; None: not known.
        labels: label of each star in `segments`, shape (n,).

    """
    n = len(x)
    stamps = Stamps(
        np.zeros((n, size, size), np.float32),
        np.zeros((n, size, size), np.bool_),
        np.array(x, dtype=np.float64),
        np.array(y, dtype=np.float64),
        np.floor(x + 0.5).astype(np.int32),
        np.floor(y + 0.5).astype(np.int32),
        np.array(rms, dtype=np.float64),
    )
    none = np.zeros(0, np.int32)
    if segments is None or labels is None:
        runs, own = (none, none, none, none), none
    else:
        runs = (segments.row_start, segments.x0, segments.x1, segments.label)
        own = np.asarray(labels, dtype=np.int32)
    _cut(data, flags, stamps.column, stamps.row, *runs, own, stamps.data, stamps.usable)
    return stamps


@jit
def _cut(
    data: Pixels, flags: Flags, column: Ints, row: Ints,
    row_start: Ints, run_x0: Ints, run_x1: Ints, run_label: Ints, own: Ints,
    stamps: Pixels, usable: Bools,
) -> None:  # fmt: skip
    ny, nx = data.shape
    n, size, _ = stamps.shape
    half = size // 2
    for s in range(n):
        left, bottom = column[s] - half, row[s] - half
        for j in range(size):
            y = bottom + j
            if y < 0 or y >= ny:
                continue
            for i in range(size):
                x = left + i
                if 0 <= x < nx and flags[y, x] == 0 and np.isfinite(data[y, x]):
                    stamps[s, j, i] = data[y, x]
                    usable[s, j, i] = True
        if own.size == 0:
            continue
        for y in range(max(bottom - 1, 0), min(bottom + size + 1, ny)):
            for r in range(row_start[y], row_start[y + 1]):
                if run_label[r] == own[s] or run_x1[r] < left or run_x0[r] > left + size:
                    continue
                for j in range(max(y - 1 - bottom, 0), min(y + 2 - bottom, size)):
                    for i in range(max(run_x0[r] - 1 - left, 0), min(run_x1[r] + 1 - left, size)):
                        stamps[s, j, i] = 0.0
                        usable[s, j, i] = False
