"""Sums along all straight line segments of a map, in n² log n steps.

The fast Radon transform of Brady (1998, SIAM J. Comput. 27, 107), stopped at every doubling, as Nir, Zackay & Ofek (2018, AJ
156, 229) do to find streaks shorter than the frame: segments over 2^k rows are put together from two over half as
many. Lines up to 45° from the vertical, leaning to the right, come out; turning the map over gives the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit

Map = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Segment:
    """A straight piece from (x0, y0) to (x1, y1), in cells, with the sum along it over its noise."""

    x0: float
    y0: float
    x1: float
    y1: float
    score: float


def brightest_segments(cells: Map, *, shortest: int, longest: int, least: float, most: int) -> list[Segment]:
    """Segments with the highest sums over the root of their length in rows, brightest first.

    Args:
        cells: values with noise 1 and mean 0, shape (ny, nx); 0 where nothing is known.
        shortest: rows (or columns) of the shortest segments, a power of two.
        longest: of the longest, likewise.
        least: lowest score that is returned.
        most: of each of the four octants and each length.

    """
    found = [
        segment
        for octant in _octants(cells)
        for segment in _of_octant(octant, shortest, longest, least, most)
    ]
    return sorted(found, key=lambda segment: -segment.score)


@dataclass(frozen=True, slots=True)
class _Octants:
    """A map turned so that lines lean to the right, and how to turn back."""

    cells: Map
    transposed: bool
    mirrored: bool

    def back(self, x: float, y: float) -> tuple[float, float]:
        if self.mirrored:
            x = self.cells.shape[1] - 1 - x
        return (y, x) if self.transposed else (x, y)


def _octants(cells: Map) -> Iterator[_Octants]:
    for transposed in (False, True):
        turned = cells.T if transposed else cells
        for mirrored in (False, True):
            yield _Octants(
                np.ascontiguousarray(turned[:, ::-1] if mirrored else turned), transposed, mirrored
            )


def _of_octant(octant: _Octants, shortest: int, longest: int, least: float, most: int) -> Iterator[Segment]:
    ny, nx = octant.cells.shape
    rows = -(-ny // longest) * longest
    # Lines that begin left of the map and lean into it.
    sums = np.zeros((rows, nx + longest), np.float32)
    sums[:ny, longest:] = octant.cells
    # Two cells wide: a line mostly runs through two of a row.
    sums[:, 1:] += sums[:, :-1]
    sums *= np.float32(np.sqrt(0.5))
    height = 1
    while height < longest:
        sums = double(sums, height)
        height *= 2
        if height < shortest:
            continue
        score = sums / np.float32(np.sqrt(height))
        for _ in range(most):
            place = int(np.argmax(score))
            row, column = divmod(place, score.shape[1])
            if not score[row, column] >= least:
                break
            block, shift = row // height, row % height
            x, y = column - longest - 0.5, float(block * height)
            ends = octant.back(x, y), octant.back(x + shift, y + height - 1)
            yield Segment(*ends[0], *ends[1], float(score[row, column]))
            # Neighbours of it are it.
            near = slice(max(column - 2 * 4, 0), column + 2 * 4 + 1)
            score[block * height + max(shift - 8, 0) : block * height + min(shift + 9, height), near] = 0.0


def double(sums: Map, height: int) -> Map:
    """From sums over `height` rows those over twice as many.

    Row b·height + d of the argument holds, at x, the sum from (x, top of block b) to (x + d, its bottom).
    """
    result = np.zeros_like(sums)
    _double(sums, height, result)
    return result


@jit
def _double(sums: Map, height: int, result: Map) -> None:
    rows, nx = sums.shape
    for top in range(0, rows, 2 * height):
        for shift in range(2 * height):
            upper, lower = top + shift // 2, top + height + shift // 2
            step = (shift + 1) // 2
            line = result[top + shift]
            for x in range(nx):
                line[x] = sums[upper, x]
            for x in range(nx - step):
                line[x] += sums[lower, x + step]
