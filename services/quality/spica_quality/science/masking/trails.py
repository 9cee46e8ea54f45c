"""Trails of satellites, aircraft and meteors: straight, of even width, and even along their length.

Found on a map of binned pixels in which bright pixels are clipped and round sources taken out: there, sums
along all straight segments (`radon`) show trails far below the noise of a pixel. What is found is then
looked at in the full pixels, across and along: a trail is there in most pieces of its length, at the same
place and about as bright. Spikes of bright stars fade outwards, galaxies and chains of sources have gaps, and
columns are thinner than stars.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spica_quality.science._jit import jit
from spica_quality.science.flags import UNUSABLE, Bit, Noise, bands
from spica_quality.science.masking.radon import Segment, brightest_segments
from spica_quality.science.masking.trailprofile import Pixelwise, Streak, look

Pixels = NDArray[np.float32]
Flags = NDArray[np.uint16]

BIN_PX = 6
SHORTEST_CELLS = 16
LONGEST_CELLS = 256

_LEAST_SCORE = 6.5
_PER_OCTANT = 4
_MOST_TRAILS = 12
_MOST_LOOKS = 24
_CLIP_SIGMA = 3.0
_BLOB_SIGMA = 3.0
_THIN = 5.0
_SPARSE = 0.15
_LONG_CELLS = 12


def mark_trails(data: Pixels, flags: Flags, sky: Noise, fwhm_px: float) -> tuple[Streak, ...]:
    """Find trails and mark their pixels TRAIL.

    Args:
        data: pixels less the sky, shape (ny, nx).
        flags: flag map, with cosmic rays and columns marked.
        sky: the noise.
        fwhm_px: width of stars; NaN or 0 where it is not known.

    Returns:
        The trails, brightest first.

    """
    if min(data.shape) < SHORTEST_CELLS * BIN_PX or not sky.median_rms > 0:
        return ()
    cells = _binned(data, flags, sky)
    _without_blobs(cells)
    trails: list[Streak] = []
    tried: list[Segment] = []
    pixels = Pixelwise(data, flags, float(sky.median_rms), fwhm_px if fwhm_px > 0 else 0.0)
    while len(trails) < _MOST_TRAILS and len(tried) < _MOST_LOOKS:
        trail = _next_trail(pixels, cells, tried)
        if trail is None:
            break
        trails.append(trail)
        line = trail.x0, trail.y0, trail.x1, trail.y1
        _mark(flags, *line, trail.low_px, trail.high_px, int(Bit.TRAIL), int(Bit.OUTSIDE))
        _forget(cells, trail)
    return tuple(sorted(trails, key=lambda trail: -trail.significance))


def _next_trail(pixels: Pixelwise, cells: Pixels, tried: list[Segment]) -> Streak | None:
    """The brightest segment that is a trail; None if there is none."""
    for segment in brightest_segments(
        cells, shortest=SHORTEST_CELLS, longest=LONGEST_CELLS, least=_LEAST_SCORE, most=_PER_OCTANT
    ):
        if any(_alike(segment, other) for other in tried):
            continue
        tried.append(segment)
        ends = np.array([segment.x0, segment.y0, segment.x1, segment.y1]) * BIN_PX + 0.5 * (BIN_PX - 1)
        found = look(pixels, ends)
        if found is not None:
            return found
        if len(tried) >= _MOST_LOOKS:
            break
    return None


def _alike(one: Segment, other: Segment) -> bool:
    """Whether two segments lie along the same line, and over each other."""
    dx, dy = other.x1 - other.x0, other.y1 - other.y0
    length = max(float(np.hypot(dx, dy)), 1.0)
    across = [
        ((x - other.x0) * dy - (y - other.y0) * dx) / length for x, y in ((one.x0, one.y0), (one.x1, one.y1))
    ]
    along = [
        ((x - other.x0) * dx + (y - other.y0) * dy) / length for x, y in ((one.x0, one.y0), (one.x1, one.y1))
    ]
    return max(map(abs, across)) < 4.0 and min(along) > -0.3 * length and max(along) < 1.3 * length


# ---- the map ----


def _binned(data: Pixels, flags: Flags, sky: Noise) -> Pixels:
    """Means of cells over their noise, less their median, clipped; 0 where less than a quarter is usable."""
    ny, nx = (size // BIN_PX for size in data.shape)
    cells = np.empty((ny, nx), np.float32)
    unfit = int(UNUSABLE | Bit.SATURATED)
    for y0, y1 in bands(ny, 32):
        rows = slice(y0 * BIN_PX, y1 * BIN_PX)
        _bin(data[rows], flags[rows], sky.rms_rows(rows.start, rows.stop), unfit, cells[y0:y1])
    known = cells[np.isfinite(cells)]
    if known.size:
        cells -= np.float32(np.median(known))
    return np.nan_to_num(cells, copy=False)


@jit
def _bin(data: Pixels, flags: Flags, rms: Pixels, unfit: int, cells: Pixels) -> None:
    clip = np.float32(_CLIP_SIGMA)
    least = BIN_PX * BIN_PX // 4
    for j in range(cells.shape[0]):
        for i in range(cells.shape[1]):
            total, n = np.float32(0.0), 0
            for y in range(j * BIN_PX, (j + 1) * BIN_PX):
                for x in range(i * BIN_PX, (i + 1) * BIN_PX):
                    if flags[y, x] & unfit:
                        continue
                    value = data[y, x] / rms[y, x]
                    if not np.isnan(value):
                        total += min(max(value, -clip), clip)
                        n += 1
            cells[j, i] = total / np.sqrt(np.float32(n)) if n >= least else np.nan


def _without_blobs(cells: Pixels) -> None:
    """Take out what is bright and not thin, clip the rest."""
    labels, n = ndimage.label(cells > _BLOB_SIGMA, np.ones((3, 3)))
    if n:
        area = np.bincount(labels.ravel(), minlength=n + 1)
        boxes = ndimage.find_objects(labels)
        extent = np.array(
            [0] + [max(box[0].stop - box[0].start, box[1].stop - box[1].start) for box in boxes]
        )
        # Trails that cross are thin, too.
        thin = (area < 2) | (
            (extent >= _LONG_CELLS) & (area < np.maximum(_THIN * extent, _SPARSE * extent**2))
        )
        thin[0] = True
        cells[~thin[labels]] = 0.0
    np.clip(cells, -_CLIP_SIGMA, _CLIP_SIGMA, out=cells)


def _forget(cells: Pixels, trail: Streak) -> None:
    half_px = max(abs(trail.low_px), abs(trail.high_px))
    ny, nx = cells.shape
    y, x = np.ogrid[:ny, :nx]
    length = max(float(np.hypot(trail.x1 - trail.x0, trail.y1 - trail.y0)), 1.0)
    ux, uy = (trail.x1 - trail.x0) / length, (trail.y1 - trail.y0) / length
    px, py = (x + 0.5) * BIN_PX - trail.x0, (y + 0.5) * BIN_PX - trail.y0
    across, along = px * uy - py * ux, px * ux + py * uy
    near = (np.abs(across) < half_px + BIN_PX) & (along > -2 * BIN_PX) & (along < length + 2 * BIN_PX)
    cells[near] = 0.0


@jit
def _mark(
    flags: Flags, x0: float, y0: float, x1: float, y1: float, low: float, high: float, bit: int, outside: int
) -> None:
    """Mark pixels from `low` to `high` across the line, and between its ends."""
    ny, nx = flags.shape
    length = np.hypot(x1 - x0, y1 - y0)
    ux, uy = (x1 - x0) / length, (y1 - y0) / length
    for j in range(ny):
        for i in range(nx):
            across = (i - x0) * uy - (j - y0) * ux
            if across < low or across > high or flags[j, i] & outside:
                continue
            along = (i - x0) * ux + (j - y0) * uy
            if -4.0 <= along <= length + 4.0:
                flags[j, i] |= bit
