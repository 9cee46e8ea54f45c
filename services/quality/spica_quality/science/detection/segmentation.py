"""Detection: from pixels above the sky to sources and the pixels that belong to them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit
from spica_quality.science.background.sky import Sky
from spica_quality.science.detection import _collecting as c
from spica_quality.science.detection._runs import root_of, scan
from spica_quality.science.detection.cleaning import clean
from spica_quality.science.detection.deblending import BRANCH_AREA, CONTRAST, divide
from spica_quality.science.detection.filtering import gaussian_taps
from spica_quality.science.detection.segments import Segments, Sources
from spica_quality.science.flags import UNUSABLE

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Flags = NDArray[np.uint16]
Ints = NDArray[np.int32]

_UNUSABLE = int(UNUSABLE)

BLENDED = 2
"""Flag of sources that were divided from another one."""

_LEAST_DETERMINANT = 1.0 / 144.0
"""Of the second moments, px⁴: sources one pixel wide get the width of a pixel."""


def detect(
    data: Pixels,
    flags: Flags,
    sky: Sky,
    *,
    fwhm_px: float,
    threshold_sigma: float = 1.5,
    min_area: int = 5,
    deblend: bool = True,
    contrast: float = CONTRAST,
) -> tuple[Sources, Segments]:
    """Find connected groups of pixels above the noise of the filtered image, and divide them into sources.

    Args:
        data: pixels above the sky, adu, shape (ny, nx).
        flags: flag map, same shape. Pixels with a bit of UNUSABLE are never part of a source, whatever their value; the
            filter does without them (see `filtering`), and a narrow gap of them does not divide a source. Every
            pixel without a finite value must have such a bit.
        sky: its noise is what the threshold refers to. Where the noise varies from pixel to pixel with a
            weight, use `sky.with_weight`.
        fwhm_px: size of stars, for the filter: a Gaussian of that width.
        threshold_sigma: in the filtered image, in units of the noise of unfiltered pixels (as
            source-extractor's DETECT_THRESH).
        min_area: least number of pixels of a source (8-connected).
        deblend: divide groups with more than one peak.
        contrast: least share of a part in the flux of the whole group.

    Returns:
        The sources, ordered by the row and column of their barycentres, and the pixels of each: label k + 1 is
        source k.

    """
    taps = gaussian_taps(fwhm_px)
    squared = taps.astype(np.float64) ** 2
    row_start, x0, x1, first, parent, top, limit, heights = scan(
        data, flags, taps, (squared / squared.sum()).astype(np.float32), threshold_sigma, *sky.noise
    )
    rows, group, n_groups = _groups(flags, row_start, x0, x1, parent, min_area)
    labels = np.zeros(len(heights), np.int32)
    bases = np.zeros(n_groups + len(heights) // min(max(min_area, 1), BRANCH_AREA), np.float32)
    n = _label(
        rows, x0, x1, first, group, np.argsort(group, kind="stable").astype(np.int32), n_groups, top, limit,
        heights, max(min_area, 1), contrast if deblend else 1.0, labels, bases,
    )  # fmt: skip
    sums, counts = np.zeros((n, c.N_SUMS)), np.zeros((n, c.N_COUNTS), np.int32)
    c.collect(data, flags, row_start, x0, x1, first, limit, heights, labels, bases, sums, counts)
    counts[bases[:n] > 0, c.FLAGS] |= BLENDED
    into = clean(sums, counts)
    return _finish(data.shape, flags, (row_start, x0, x1, first), labels, sums, counts, into)


def _finish(
    shape: tuple[int, ...],
    flags: Flags,
    runs: tuple[Ints, Ints, Ints, Ints],
    labels: Ints,
    sums: Floats,
    counts: Ints,
    into: Ints,
) -> tuple[Sources, Segments]:
    """Number the sources that are left by their positions and write down their pixels."""
    kept = np.flatnonzero((into == np.arange(len(into))) & (counts[:, c.AREA] > 0))
    x, y, xx, yy, xy = _moments(sums[kept])
    ranks = np.lexsort((x, y))
    kept = kept[ranks]
    final = np.zeros(len(into) + 1, np.int32)
    final[1 + kept] = np.arange(1, len(kept) + 1)
    final[1:] = final[1 + into]
    ny, nx = shape
    out_start, nothing = np.empty(ny + 1, np.int32), np.empty(0, np.int32)
    n_runs = c.emit(flags, *runs, labels, final, out_start, nothing, nothing, nothing)
    out = [np.empty(n_runs, np.int32) for _ in range(3)]
    if n_runs:
        c.emit(flags, *runs, labels, final, out_start, *out)
    own, whole = sums[kept], np.ascontiguousarray(counts[kept].T)
    sources = Sources(
        x=x[ranks], y=y[ranks], xx=xx[ranks], yy=yy[ranks], xy=xy[ranks],
        flux=own[:, c.FLUX].copy(), peak=own[:, c.PEAK].copy(),
        x_peak=whole[c.X_PEAK], y_peak=whole[c.Y_PEAK], n_pixels=whole[c.AREA],
        x_min=whole[c.X_MIN], x_max=whole[c.X_MAX], y_min=whole[c.Y_MIN], y_max=whole[c.Y_MAX],
        threshold=own[:, c.LIMIT].copy(), flags=whole[c.FLAGS].astype(np.int16),
    )  # fmt: skip
    return sources, Segments((ny, nx), out_start, *out)


def _moments(sums: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Barycentres (above the base) and second moments of the filtered pixels."""
    flux, core = sums[:, c.FFLUX], sums[:, c.CFLUX]
    mx, my = sums[:, c.FX] / flux, sums[:, c.FY] / flux
    xx, yy = sums[:, c.FXX] / flux - mx * mx, sums[:, c.FYY] / flux - my * my
    xy = sums[:, c.FXY] / flux - mx * my
    wider = np.where(xx * yy - xy * xy < _LEAST_DETERMINANT, 1.0 / 12.0, 0.0)
    lit = core > 0
    safe = np.where(lit, core, 1.0)
    x, y = np.where(lit, sums[:, c.CX] / safe, mx), np.where(lit, sums[:, c.CY] / safe, my)
    return x, y, xx + wider, yy + wider, xy


@jit
def _groups(
    flags: Flags, row_start: Ints, x0: Ints, x1: Ints, parent: Ints, min_area: int
) -> tuple[Ints, Ints, int]:
    """Row of each run, and number of its group in the order of first pixels; that of all too small ones comes last."""
    n = x0.size
    rows, area = np.empty(n, np.int32), np.zeros(n, np.int32)
    for y in range(row_start.size - 1):
        for r in range(row_start[y], row_start[y + 1]):
            rows[r] = y
            root = root_of(parent, r)
            for x in range(x0[r], x1[r]):
                if not flags[y, x] & _UNUSABLE:
                    area[root] += 1
    group = np.empty(n, np.int32)
    found = 0
    for r in range(n):
        # A group's root is its first run.
        if parent[r] == r and area[r] >= min_area:
            group[r] = found
            found += 1
    for r in range(n):
        root = root_of(parent, r)
        group[r] = group[root] if area[root] >= min_area else found
    return rows, group, found


@jit
def _label(
    rows: Ints,
    x0: Ints,
    x1: Ints,
    first: Ints,
    group: Ints,
    order: Ints,
    n_groups: int,
    top: Pixels,
    limit: Pixels,
    heights: Pixels,
    min_area: int,
    contrast: float,
    labels: Ints,
    bases: Pixels,
) -> int:
    """Label the pixels of all groups, divided where they are several sources; returns the number of sources."""
    n, begin = 0, 0
    while begin < order.size and group[order[begin]] < n_groups:
        end = begin
        area, best = 0, begin
        while end < order.size and group[order[end]] == group[order[begin]]:
            r = order[end]
            area += x1[r] - x0[r]
            if top[r] > top[order[best]]:
                best = end
            end += 1
        parts = 1
        if area >= 2 * min(min_area, BRANCH_AREA) and contrast < 1.0:
            own = order[begin:end]
            parts = divide(
                rows[own], x0[own], x1[own], first[own], heights, limit[order[best]], min_area, contrast,
                labels, n + 1, bases,
            )  # fmt: skip
        if parts == 1:
            for k in range(begin, end):
                r = order[k]
                for i in range(first[r], first[r] + x1[r] - x0[r]):
                    labels[i] = n + 1
        n += parts
        begin = end
    return n
