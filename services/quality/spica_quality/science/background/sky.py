"""The sky's level and noise on a mesh, seen between the stars.

The method is source-extractor's (Bertin & Arnouts 1996, A&AS 117, 393, section 3): in each box the histogram
is clipped at ±3 σ about its median until that changes nothing more; the level is the mode, estimated as
2.5 median - 1.5 mean, or the median where the two differ by more than 0.3 σ, as in a box that a galaxy fills;
a 3×3 median filter over the mesh takes out what single boxes got wrong, and a bicubic spline runs between.
Here it departs: boxes divide the frame evenly instead of leaving a thin rest at its end, the histogram starts
from a median and a quantile instead of the first moments, whole numbers get bins of whole numbers, the median
filter keeps slopes at the rim, and beyond the outermost boxes' centres the spline goes on as a straight line.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from spica_imaging.meshspline import bend_of, smoothed, spline_at, spline_row
from spica_imaging.skyboxes import LEAST_SHARE, measure_boxes

from spica_quality.science._jit import jit
from spica_quality.science.flags import UNUSABLE

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Flags = NDArray[np.uint16]

LEAST_NOISE = 0.25
"""The noise is nowhere taken as less than this times the frame's typical noise: splines overshoot at holes."""

_LEAST_BOX_PX = 16
_UNUSABLE = int(UNUSABLE)
_NO_WEIGHT: Pixels = np.empty((0, 0), np.float32)


@dataclass(frozen=True, slots=True)
class Sky:
    """Level and noise of a frame's sky, evaluated where and when they are asked for."""

    level_mesh: Pixels
    """Level in the boxes, shape (my, mx)."""
    rms_mesh: Pixels
    """Standard deviation of a pixel in the boxes, of what the clipping at 3 σ left (1.5 % less than of all)."""
    box_px: int
    """Side of a box; boxes divide the frame evenly and may differ from it by some pixels."""
    shape: tuple[int, int]
    """(ny, nx) of the frame."""
    median_level: float
    median_rms: float
    level_bend: Floats
    """Second derivatives of the level along y at the mesh's nodes, per box²."""
    rms_bend: Floats
    weight: Pixels = field(default_factory=lambda: _NO_WEIGHT)
    """Shape (ny, nx), or empty. Where there is one the noise is `weight_scale` / sqrt(weight)."""
    weight_scale: float = 0.0

    @property
    def least_rms(self) -> float:
        """What the noise may not fall below."""
        return LEAST_NOISE * self.median_rms

    def level_rows(self, y0: int, y1: int) -> Pixels:
        """Level of the rows from y0 to y1, shape (y1 - y0, nx)."""
        rows = np.empty((y1 - y0, self.shape[1]), np.float32)
        _level_rows(self.level_mesh, self.level_bend, self.shape[0], y0, rows)
        return rows

    def rms_rows(self, y0: int, y1: int) -> Pixels:
        """Noise of the rows from y0 to y1, shape (y1 - y0, nx)."""
        rows = np.empty((y1 - y0, self.shape[1]), np.float32)
        _rms_rows(*self.noise, self.shape[0], y0, rows)
        return rows

    def level_at(self, x: ArrayLike, y: ArrayLike) -> Floats:
        """Level at zero-based positions, arrays of one shape."""
        return self._at(self.level_mesh, self.level_bend, x, y)

    def rms_at(self, x: ArrayLike, y: ArrayLike) -> Floats:
        """Noise of a pixel at zero-based positions, arrays of one shape."""
        if self.weight.size:
            ny, nx = self.shape
            j = np.clip(np.rint(np.asarray(y)), 0, ny - 1).astype(np.intp)
            i = np.clip(np.rint(np.asarray(x)), 0, nx - 1).astype(np.intp)
            weight = self.weight[j, i].astype(np.float64)
            return self.weight_scale / np.sqrt(np.where(weight > 0, weight, 1.0))
        return np.maximum(self._at(self.rms_mesh, self.rms_bend, x, y), self.least_rms)

    @property
    def noise(self) -> tuple[Pixels, Floats, float, Pixels, float]:
        """What kernels need to know the noise: mesh, its bend, the least noise, weight (or empty) and its scale."""
        return self.rms_mesh, self.rms_bend, self.least_rms, self.weight, self.weight_scale

    def _at(self, mesh: Pixels, bend: Floats, x: ArrayLike, y: ArrayLike) -> Floats:
        px, py = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
        result = np.empty(px.size)
        spline_at(
            mesh,
            bend,
            *self.shape,
            np.ascontiguousarray(px).ravel(),
            np.ascontiguousarray(py).ravel(),
            result,
        )
        return result.reshape(px.shape)


def measure_sky(data: Pixels, flags: Flags, box_px: int = 128) -> Sky:
    """Sky level and noise in boxes, clipped against stars.

    Args:
        data: pixels in adu, shape (ny, nx).
        flags: flag map, same shape; only pixels with no bit set and a finite value count.
        box_px: side of a box; made smaller on small frames, so that there are at least 4×4.

    Returns:
        The sky. A frame without a usable pixel has level and noise 0.

    """
    side = int(np.clip(min(data.shape) // 4, _LEAST_BOX_PX, box_px))
    edges_y, edges_x = (_edges(size, side) for size in data.shape)
    level = np.empty((len(edges_y) - 1, len(edges_x) - 1), np.float32)
    rms = np.empty_like(level)
    measure_boxes(data, flags, edges_y, edges_x, level, rms)
    if not np.isfinite(level).any():
        # So few usable pixels that no box has its share: the whole frame as one box.
        whole_y, whole_x = (np.array([0, size], np.int64) for size in data.shape)
        level, rms = np.empty((1, 1), np.float32), np.empty((1, 1), np.float32)
        measure_boxes(data, flags, whole_y, whole_x, level, rms, 0.0)
        if not np.isfinite(level).all():
            level[:], rms[:] = 0.0, 0.0
    level, rms = smoothed(level), smoothed(rms)
    sound = rms[rms > 0]
    typical = float(np.median(sound)) if sound.size else 0.0
    # Boxes of one single value (flattened by someone) know no noise.
    rms[~(rms > 0)] = typical
    return Sky(
        level, rms, side, (data.shape[0], data.shape[1]), float(np.median(level)), typical,
        bend_of(level), bend_of(rms),
    )  # fmt: skip


def with_weight(sky: Sky, weight: Pixels, flags: Flags) -> Sky:
    """The same sky where a weight map tells how the noise varies from pixel to pixel, as in stacks.

    The weight is used in place, not copied; how high the noise is comes from the mesh. In a box of noise s,
    s² = scale² mean(1 / weight): scale is the median of that over the boxes.

    Args:
        sky: as measured on the pixels.
        weight: relative weight, noise goes as 1 / sqrt(weight); shape (ny, nx).
        flags: flag map; pixels with any bit set are left out.

    """
    inverse = np.empty_like(sky.rms_mesh)
    edges_y, edges_x = (_even(size, parts) for size, parts in zip(sky.shape, inverse.shape, strict=True))
    _mean_inverse(weight, flags, edges_y, edges_x, inverse)
    known = np.isfinite(inverse) & (inverse > 0)
    if not known.any():
        return sky
    scale = float(np.median(sky.rms_mesh[known] / np.sqrt(inverse[known])))
    typical = scale * float(np.sqrt(np.median(inverse[known])))
    return replace(sky, weight=weight, weight_scale=scale, median_rms=typical)


def subtract(data: Pixels, flags: Flags, sky: Sky) -> None:
    """Take the level off, in place; unusable pixels become 0."""
    _subtract(data, flags, sky.level_mesh, sky.level_bend)


def _edges(size: int, side: int) -> NDArray[np.int64]:
    return _even(size, max(1, round(size / side)))


def _even(size: int, parts: int) -> NDArray[np.int64]:
    return np.rint(np.linspace(0, size, parts + 1)).astype(np.int64)


@jit
def _mean_inverse(
    weight: Pixels, flags: Flags, edges_y: NDArray[np.int64], edges_x: NDArray[np.int64], result: Pixels
) -> None:
    for j in range(result.shape[0]):
        for i in range(result.shape[1]):
            total, n = 0.0, 0
            for y in range(edges_y[j], edges_y[j + 1]):
                for x in range(edges_x[i], edges_x[i + 1]):
                    if flags[y, x] == 0 and weight[y, x] > 0.0:
                        total += 1.0 / weight[y, x]
                        n += 1
            area = (edges_y[j + 1] - edges_y[j]) * (edges_x[i + 1] - edges_x[i])
            result[j, i] = total / n if n >= max(LEAST_SHARE * area, 1) else np.nan


@jit
def noise_row(
    mesh: Pixels,
    bend: Floats,
    least: float,
    weight: Pixels,
    scale: float,
    ny: int,
    y: int,
    work: Floats,
    nodes: Floats,
    second: Floats,
    row: Pixels,
) -> None:
    """Noise of one row, from the mesh or from the weight (`Sky.noise`)."""
    if weight.shape[0] > 0:
        for i in range(row.size):
            w = weight[y, i]
            row[i] = scale / np.sqrt(w if w > 0.0 else 1.0)
        return
    spline_row(mesh, bend, ny, y, work, nodes, second, row)
    floor = np.float32(least)
    for i in range(row.size):
        row[i] = max(row[i], floor)


@jit
def _level_rows(mesh: Pixels, bend: Floats, ny: int, y0: int, rows: Pixels) -> None:
    mx = mesh.shape[1]
    work, nodes, second = np.empty(mx), np.empty(mx), np.empty(mx)
    for j in range(rows.shape[0]):
        spline_row(mesh, bend, ny, y0 + j, work, nodes, second, rows[j])


@jit
def _rms_rows(
    mesh: Pixels, bend: Floats, least: float, weight: Pixels, scale: float, ny: int, y0: int, rows: Pixels
) -> None:
    mx = mesh.shape[1]
    work, nodes, second = np.empty(mx), np.empty(mx), np.empty(mx)
    for j in range(rows.shape[0]):
        noise_row(mesh, bend, least, weight, scale, ny, y0 + j, work, nodes, second, rows[j])


@jit
def _subtract(data: Pixels, flags: Flags, mesh: Pixels, bend: Floats) -> None:
    ny, nx = data.shape
    mx = mesh.shape[1]
    work, nodes, second = np.empty(mx), np.empty(mx), np.empty(mx)
    row = np.empty(nx, np.float32)
    zero = np.float32(0.0)
    for j in range(ny):
        spline_row(mesh, bend, ny, j, work, nodes, second, row)
        for i in range(nx):
            value = data[j, i] - row[i]
            data[j, i] = zero if flags[j, i] & _UNUSABLE else value
