"""Which pixels belong to which source, kept as runs of rows: a fraction of the memory of a map of labels.

A run is a stretch of pixels of one row that belong to one source. Runs are sorted by row and, within a
row, by column; they do not overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Segments:
    """Runs of all sources of a frame."""

    shape: tuple[int, int]
    """(ny, nx) of the frame."""
    row_start: Ints
    """Shape (ny + 1,): the runs of row y are those from row_start[y] to row_start[y + 1]."""
    x0: Ints
    """First column of each run, zero-based; shape (n_runs,)."""
    x1: Ints
    """The column after its last one."""
    label: Ints
    """Number of the source it belongs to, from 1."""

    def paint(self, y0: int = 0, y1: int | None = None, x0: int = 0, x1: int | None = None) -> Ints:
        """Map of labels of a window, shape (y1 - y0, x1 - x0); 0 where no source is."""
        ny, nx = self.shape
        window = np.zeros(((ny if y1 is None else y1) - y0, (nx if x1 is None else x1) - x0), np.int32)
        paint(self.row_start, self.x0, self.x1, self.label, y0, x0, window)
        return window


@jit
def paint(
    row_start: Ints, run_x0: Ints, run_x1: Ints, run_label: Ints, y0: int, x0: int, window: Ints
) -> None:
    """Write the labels of a window that begins at (y0, x0) into `window`, which must be zero."""
    ny, nx = window.shape
    for j in range(ny):
        for k in range(row_start[y0 + j], row_start[y0 + j + 1]):
            first, last = max(run_x0[k] - x0, 0), min(run_x1[k] - x0, nx)
            for i in range(first, last):
                window[j, i] = run_label[k]


@dataclass(frozen=True, slots=True)
class Sources:
    """What detection itself tells of the sources. Arrays of shape (n,); pixels zero-based, fluxes in adu.

    Isophotal: over the source's own pixels. Position and moments are weighted with the filtered pixels, as
    source-extractor's are, and the position of a source that was divided from another one only with what is
    above the level where its branch begins. Flux and peak are of the pixels as they are.
    """

    x: Floats
    y: Floats
    xx: Floats
    """Second moments, px²."""
    yy: Floats
    xy: Floats
    flux: Floats
    peak: Floats
    """Highest pixel above the background."""
    x_peak: Ints
    y_peak: Ints
    n_pixels: Ints
    x_min: Ints
    x_max: Ints
    """Last column, inclusive."""
    y_min: Ints
    y_max: Ints
    threshold: Floats
    """Detection threshold at the source, adu."""
    flags: NDArray[np.int16]
    """2: was divided from another one; 8: touches the frame's edge."""

    def __len__(self) -> int:
        return len(self.x)
