"""Where the CCDs lie on a picture: as on the sky, north up and east left, or side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

from spica_quality.report.gathering import CcdPictures

Floats = NDArray[np.float64]
_GAP = 0.02
"""Between CCDs side by side, in sides of the largest."""

_TALLEST = 1.25
"""Height over width of the tallest picture; what is taller gets room at its sides."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Places on a picture that is one unit wide; y goes down."""

    height: float
    """Of the picture, in widths."""
    matrices: tuple[Floats, ...]
    """Per CCD, shape (2, 3): place = M @ (x, y, 1) for zero-based pixels of the section."""
    sizes: tuple[tuple[int, int], ...]
    """Per CCD: width and height, px."""
    on_sky: bool
    arcsec: float | None
    """Width of the picture on the sky; None where it is not on the sky."""

    def corners(self, index: int) -> Floats:
        """The CCD's outline, shape (4, 2), in turn."""
        nx, ny = self.sizes[index]
        x = np.array([-0.5, nx - 0.5, nx - 0.5, -0.5])
        y = np.array([-0.5, -0.5, ny - 0.5, ny - 0.5])
        return self.place(index, x, y)

    def place(self, index: int, x: Floats, y: Floats) -> Floats:
        """Places of pixels of a CCD, shape (n, 2)."""
        return np.asarray((self.matrices[index] @ np.stack([x, y, np.ones(np.shape(x))])).T)

    def pixels(self, index: int, width: int) -> tuple[slice, slice, Floats, Floats]:
        """Which part of a raster `width` px wide a CCD may touch, and the CCD's pixel at each of its places.

        Returns the slices of rows and columns, and x and y of shape (rows, columns).
        """
        height = max(round(self.height * width), 1)
        corners = self.corners(index) * width
        low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, None)
        high = np.minimum(np.ceil(corners.max(axis=0)).astype(int), (width, height))
        row, column = (np.arange(low[1], high[1]) + 0.5) / width, (np.arange(low[0], high[0]) + 0.5) / width
        inverse = np.linalg.inv(np.vstack([self.matrices[index], [0.0, 0.0, 1.0]]))
        x = inverse[0, 0] * column[None, :] + inverse[0, 1] * row[:, None] + inverse[0, 2]
        y = inverse[1, 0] * column[None, :] + inverse[1, 1] * row[:, None] + inverse[1, 2]
        return slice(low[1], high[1]), slice(low[0], high[0]), x, y


def lay_out(ccds: Sequence[CcdPictures]) -> Layout:
    """As on the sky where every CCD has a WCS; else side by side in order, as FITS viewers show them."""
    if ccds and all(ccd.to_sky is not None for ccd in ccds):
        found = _on_sky(ccds)
        if found is not None:
            return found
    return _side_by_side(ccds)


def _on_sky(ccds: Sequence[CcdPictures]) -> Layout | None:
    # East is left: places run towards smaller xi and smaller eta.
    matrices = [-np.asarray(ccd.to_sky, dtype=np.float64) for ccd in ccds]
    sizes = tuple((ccd.width_px, ccd.height_px) for ccd in ccds)
    raw = Layout(1.0, tuple(matrices), sizes, True, None)
    every = np.concatenate([raw.corners(index) for index in range(len(ccds))])
    low, high = every.min(axis=0), every.max(axis=0)
    width, height = (float(value) for value in high - low)
    if not (np.isfinite(width) and np.isfinite(height) and width > 0 and 0.02 < height / width < 50.0):
        return None
    # Tall pictures would be taller than the screen: they get a wider canvas.
    canvas = max(width, height / _TALLEST)
    for matrix in matrices:
        matrix[:, 2] -= low
        matrix[0, 2] += 0.5 * (canvas - width)
    placed = tuple(matrix / canvas for matrix in matrices)
    return Layout(height / canvas, placed, sizes, True, 3600.0 * canvas)


def _side_by_side(ccds: Sequence[CcdPictures]) -> Layout:
    if not ccds:
        return Layout(0.5, (), (), False, None)
    nx, ny = max(ccd.width_px for ccd in ccds), max(ccd.height_px for ccd in ccds)
    columns = max(1, min(len(ccds), round(sqrt(len(ccds) * ny / nx))))
    rows = -(-len(ccds) // columns)
    gap = ceil(_GAP * max(nx, ny)) if len(ccds) > 1 else 0
    width = columns * (nx + gap) - gap
    height = rows * (ny + gap) - gap
    canvas = max(float(width), height / _TALLEST)
    matrices = []
    for index, ccd in enumerate(ccds):
        row, column = divmod(index, columns)
        left = column * (nx + gap) + 0.5 + 0.5 * (canvas - width)
        bottom = row * (ny + gap) + ccd.height_px - 0.5
        matrices.append(np.array([[1.0, 0.0, left], [0.0, -1.0, bottom]]) / canvas)
    sizes = tuple((ccd.width_px, ccd.height_px) for ccd in ccds)
    return Layout(height / canvas, tuple(matrices), sizes, False, None)
