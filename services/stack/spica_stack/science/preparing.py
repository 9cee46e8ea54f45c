"""What is done to the pixels of a CCD before they are resampled: sky subtracted, weights made absolute, holes filled.

The pixels come in bands of rows, and no value depends on how they were cut.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from spica_imaging.meshspline import spline_part

from spica_stack.science._jit import jit
from spica_stack.science.background import Background
from spica_stack.science.pixels import Image

Floats = NDArray[np.float64]

FILL_RADIUS_PX = 3
"""Pixels around a hole from which it is filled."""

_SIDE = 2 * FILL_RADIUS_PX + 1
_BLOCK, _MANY_HOLES = 64, 16
"""Of so many pixels: then it is worth knowing where there is nothing to fill them from."""

LEAST_USABLE = 100
MAD_TO_SIGMA = 1.4826

SAMPLE = 50_000
_SAMPLED_ROWS = 1024
_GOLDEN = 0.6180339887498949


class NoUsablePixels(ValueError):
    """A CCD has too few pixels with weight to tell its sky."""


# ---- what is measured ----


@jit
def mask_rows(data: Image, weight: Image) -> int:
    """Make pixels that are not to be used NaN: no value, no weight. Returns how many are left."""
    good = 0
    for j in range(data.shape[0]):
        for i in range(data.shape[1]):
            value, w = data[j, i], weight[j, i]
            usable = (w > 0) & (w - w == 0) & (value - value == 0)
            data[j, i] = value if usable else np.float32(np.nan)
            good += usable
    return good


@jit
def _sample_rows(
    data: Image,
    weight: Image,
    y0: int,
    y_step: int,
    x_step: int,
    values: Image,
    weights: Image,
    places: NDArray[np.int32],
) -> int:
    """Pick usable pixels of some rows, always the same ones; returns how many."""
    n = 0
    for j in range(data.shape[0]):
        if (y0 + j) % y_step != y_step // 2:
            continue
        # Columns are shifted from row to row, so that none is seen always or never.
        turn = (y0 + j) // y_step * _GOLDEN
        for i in range(int((turn - np.floor(turn)) * x_step), data.shape[1], x_step):
            value = data[j, i]
            if not np.isnan(value):
                values[n], weights[n] = value, weight[j, i]
                places[n, 0], places[n, 1] = y0 + j, i
                n += 1
    return n


@jit
def _subtract_at(
    values: Image, places: NDArray[np.int32], level: Image, bend: Floats, shape: tuple[int, int]
) -> None:
    """Take the sky off pixels that are sorted by row."""
    mx = level.shape[1]
    work = np.empty(mx), np.empty(mx), np.empty(mx)
    row, latest = np.empty(shape[1], np.float32), -1
    for n in range(values.size):
        if places[n, 0] != latest:
            latest = places[n, 0]
            spline_part(level, bend, shape, latest, 0, work, row)
        values[n] -= row[places[n, 1]]


class NoiseSample:
    """Pixels spread over a CCD, from which its noise is told; filled band by band, from below."""

    def __init__(self, shape: tuple[int, int], size: int = SAMPLE) -> None:
        """Sample about `size` pixels of a CCD of this shape."""
        ny, nx = shape
        # All rows, where all pixels are wanted.
        self._y_step = max(1, min(ny // _SAMPLED_ROWS, nx * ny // size))
        rows = -(-ny // self._y_step)
        self._x_step = max(1, rows * nx // size)
        most = rows * (nx // self._x_step + 1)
        self._values, self._weights = np.empty((2, most), np.float32)
        self._places = np.empty((most, 2), np.int32)
        self._n = 0

    def add(self, data: Image, weight: Image, y0: int) -> None:
        """Take the sample's pixels of the rows from y0 on; NaN in `data`: not to be used."""
        n = self._n
        self._n += _sample_rows(
            data,
            weight,
            y0,
            self._y_step,
            self._x_step,
            self._values[n:],
            self._weights[n:],
            self._places[n:],
        )

    def __len__(self) -> int:
        return self._n

    def scatter(self, sky: Background) -> float:
        """Standard deviation of (pixel - sky) × sqrt(weight): 1 for weights that are 1 / variance."""
        values = self._values[: self._n].copy()
        _subtract_at(values, self._places[: self._n], sky.level, sky.bend, sky.shape)
        return robust_sigma(values * np.sqrt(self._weights[: self._n]))

    def median_weight(self) -> float:
        """Median weight of the pixels that have one."""
        return float(np.median(self._weights[: self._n]))


def robust_sigma(values: NDArray[np.floating]) -> float:
    """Standard deviation of Gaussian noise with stars in it: median absolute deviation, clipped at 3 sigma."""
    kept = values
    sigma = 0.0
    for _ in range(4):
        deviation = np.abs(kept - np.median(kept))
        sigma = float(MAD_TO_SIGMA * np.median(deviation))
        kept = kept[deviation <= 3.0 * sigma]
    return sigma


# ---- what is done ----


@jit
def _prepare_rows(
    data: Image,
    weight: Image,
    level: Image,
    bend: Floats,
    shape: tuple[int, int],
    y0: int,
    x0: int,
    factor: np.float32,
) -> None:
    """Subtract the sky (unless its mesh is empty) and scale the weights, in place; unusable pixels: 0, weight 0."""
    mx = level.shape[1]
    work = np.empty(mx), np.empty(mx), np.empty(mx)
    row = np.zeros(data.shape[1], np.float32)
    zero = np.float32(0.0)
    for j in range(data.shape[0]):
        if mx > 0:
            spline_part(level, bend, shape, y0 + j, x0, work, row)
        for i in range(data.shape[1]):
            value, w = data[j, i], weight[j, i]
            usable = (w > 0) & (w - w == 0) & (value - value == 0)
            data[j, i] = value - row[i] if usable else zero
            weight[j, i] = w * factor if usable else zero


_NO_MESH: Image = np.empty((0, 0), np.float32)
_NO_BEND: Floats = np.empty((0, 0))


def prepare_rows(
    data: Image, weight: Image, sky: Background | None, factor: float, y0: int = 0, x0: int = 0
) -> None:
    """Subtract the sky from rows of a CCD and make their weights absolute, in place.

    Unusable pixels (no finite value, no weight) get value and weight 0. `y0`, `x0`: where on the CCD the first
    pixel stands; `factor`: on the weight; `sky` None: nothing is subtracted.
    """
    if sky is None:
        _prepare_rows(data, weight, _NO_MESH, _NO_BEND, (1, 1), y0, x0, np.float32(factor))
    else:
        _prepare_rows(data, weight, sky.level, sky.bend, sky.shape, y0, x0, np.float32(factor))


@jit
def _fill_rows(
    data: Image, weight: Image, top: int, left: int, near: Image, counts: Image, out: Image, out_weight: Image
) -> None:
    """Copy a part of `data`, from (top, left) on, and fill what has no weight there.

    `counts`: of the length of a row, for how many pixels with weight are near: in the middle of a masked region there
    is nothing to add up.
    """
    width = out.shape[1]
    zero, one = np.float32(0.0), np.float32(1.0)
    for j in range(out.shape[0]):
        y = top + j
        counted = False
        for begin in range(0, width, _BLOCK):
            end = min(begin + _BLOCK, width)
            # Counted in numbers of the pixels' own width, so that the loop runs on vectors.
            n_holes = zero
            for i in range(begin, end):
                w = weight[y, left + i]
                out[j, i] = data[y, left + i]
                out_weight[j, i] = w
                n_holes += zero if w > zero else one
            if n_holes == zero:
                continue
            if n_holes > _MANY_HOLES and not counted:
                _count_rows(weight, y, counts)
                counted = True
            for i in range(begin, end):
                if not weight[y, left + i] > zero:
                    out[j, i] = _mean_near(data, weight, y, left + i, near, counts, counted)


@jit
def _mean_near(
    data: Image, weight: Image, y: int, x: int, near: Image, counts: Image, counted: bool
) -> np.float32:
    """Weighted mean of what has weight around a pixel; 0 where nothing has."""
    ny, nx = data.shape
    zero = np.float32(0.0)
    x0, x1 = max(x - FILL_RADIUS_PX, 0), min(x + FILL_RADIUS_PX + 1, nx)
    y0, y1 = max(y - FILL_RADIUS_PX, 0), min(y + FILL_RADIUS_PX + 1, ny)
    if counted:
        good = zero
        for a in range(x0, x1):
            good += counts[a]
        if good == zero:
            return zero
    total, norm = zero, zero
    if x1 - x0 == _SIDE and y1 - y0 == _SIDE:
        # Of known size, and without branches: pixels without weight are 0.
        for b in range(_SIDE):
            for a in range(_SIDE):
                w = near[b, a] if weight[y0 + b, x0 + a] > zero else zero
                total += w * data[y0 + b, x0 + a]
                norm += w
    else:
        for b in range(y0, y1):
            for a in range(x0, x1):
                w = near[b - y + FILL_RADIUS_PX, a - x + FILL_RADIUS_PX] if weight[b, a] > zero else zero
                total += w * data[b, a]
                norm += w
    return total / norm if norm > zero else zero


@jit
def _count_rows(weight: Image, y: int, counts: Image) -> None:
    """Per column, how many pixels with weight there are in the rows around one."""
    counts[:] = np.float32(0.0)
    for j in range(max(y - FILL_RADIUS_PX, 0), min(y + FILL_RADIUS_PX + 1, weight.shape[0])):
        for i in range(counts.size):
            counts[i] += np.float32(1.0) if weight[j, i] > np.float32(0.0) else np.float32(0.0)


def _near() -> Image:
    offsets = np.arange(-FILL_RADIUS_PX, FILL_RADIUS_PX + 1)
    near: Image = np.exp(-0.5 * (offsets[:, None] ** 2 + offsets[None, :] ** 2)).astype(np.float32)
    return near


_NEAR = _near()


def fill_holes(
    data: Image, weight: Image, out: Image, out_weight: Image, top: int = 0, left: int = 0
) -> None:
    """Copy a part of prepared pixels, and fill those without weight from their neighbours.

    A weighted mean (Gaussian of sigma 1 px, 7×7 px) of what has weight; 0, the sky, where nothing has. Only so that
    interpolation nearby has something smooth to work with: filled pixels never get weight.
    `out` takes the pixels from row `top`, column `left` of `data` on. What is not in `data` counts as not
    there: around `out` it must hold `FILL_RADIUS_PX` more, up to the edges of the CCD.
    """
    counts = np.empty(data.shape[1], np.float32)
    _fill_rows(data, weight, top, left, _NEAR, counts, out, out_weight)
