"""Cells of the sky: HEALPix in nested order, and which cells a region can touch.

Every cell of order k has the same area, and its four children at order k + 1 are 4·n … 4·n + 3, so that a cell
with all that lies in it is one range of numbers. A cell and its order together are one integer, the *uniq* of
IVOA's MOC standard (2.0, section 4.1): 4·4^k + n. A cover is always a superset: a cell that touches the region is
never left out, one that only comes near it may be in it.

Reference: Górski et al. 2005, ApJ 622, 759 (projection, section 5.1 and 5.2; nested numbers, section 4.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Cells = NDArray[np.int64]

MAX_ORDER = 12
"""Cells of 51 arcsec: smaller than any image."""
MAX_CELLS = 1024
"""Of one order in a cover; beyond, ranges of coarser cells stand for them."""

_SIDE_DEG = 58.6
"""Square root of the area of a cell of order 0."""
_FEW = 200
"""Beyond so many cells a closer fit costs more than it gains."""
_FINER = 2
"""A cell counts as touched where a cell so many orders below it is: the discs around small cells fit closer."""
# For each of the twelve base cells: ring of its southern corner, and longitude in eighths of a circle.
_FACE_RING = np.array([2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4])
_FACE_LON = np.array([1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7])


def unit_vectors(ra_deg: Floats | float, dec_deg: Floats | float) -> Floats:
    """Directions as vectors of length 1. Shape: that of the arguments, and a last axis of 3."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    return np.stack(
        [np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec) * np.ones_like(ra)], axis=-1
    )


def cell_of(vectors: Floats, order: int) -> Cells:
    """Number of the cell (nested, this order) in which each direction lies. Shape: (…, 3) to (…)."""
    x, y, z = np.moveaxis(np.asarray(vectors, dtype=np.float64), -1, 0)
    side = 1 << order
    quarter = np.mod(np.arctan2(y, x) / (np.pi / 2), 4.0)
    # Around the equator, lines of constant number run diagonally in (longitude, z).
    rising = np.floor(side * (0.5 + quarter - 0.75 * z)).astype(np.int64)
    falling = np.floor(side * (0.5 + quarter + 0.75 * z)).astype(np.int64)
    up, down = rising >> order, falling >> order
    face = np.where(up == down, (up & 3) + 4, np.where(up < down, up & 3, down + 8))
    along, across = falling & (side - 1), side - 1 - (rising & (side - 1))
    # In the polar caps they meet in the pole. 1 - |z| is taken from x and y, which are exact there.
    petal = np.minimum(quarter.astype(np.int64), 3)
    inside = quarter - petal
    reach = side * np.sqrt(3.0 / (1.0 + np.abs(z))) * np.hypot(x, y)
    first = np.minimum((inside * reach).astype(np.int64), side - 1)
    second = np.minimum(((1.0 - inside) * reach).astype(np.int64), side - 1)
    polar, north = np.abs(z) > 2.0 / 3.0, z > 0
    face = np.where(polar, np.where(north, petal, petal + 8), face)
    along = np.where(polar, np.where(north, side - 1 - second, first), along)
    across = np.where(polar, np.where(north, side - 1 - first, second), across)
    return np.asarray((face << (2 * order)) + _spread(along) + (_spread(across) << 1))


def points_in_cells(cells: Cells, order: int, u: float = 0.5, v: float = 0.5) -> Floats:
    """Direction of the point (u, v), each 0 to 1, of each cell; the middle by default. Shape: (…) to (…, 3)."""
    side = 1 << order
    face, inner = cells >> (2 * order), cells & (side * side - 1)
    x, y = (_gather(inner) + u) / side, (_gather(inner >> 1) + v) / side
    ring = _FACE_RING[face] - x - y
    polar = np.where(ring < 1, ring, np.where(ring > 3, 4 - ring, 1.0))
    near = polar * polar / 3.0
    z = np.where(ring < 1, 1 - near, np.where(ring > 3, near - 1, (2 - ring) * 2.0 / 3.0))
    across = np.where(polar < 1, np.sqrt(near * (2 - near)), np.sqrt(np.maximum(0.0, 1 - z * z)))
    eighths = np.mod(_FACE_LON[face] * polar + x - y, 8.0 * polar, where=polar > 0, out=np.zeros_like(polar))
    longitude = np.divide(np.pi / 4 * eighths, polar, where=polar > 0, out=np.zeros_like(polar))
    return np.stack([across * np.cos(longitude), across * np.sin(longitude), z], axis=-1)


def cell_radius_rad(order: int) -> float:
    """Largest distance of any point of any cell of this order from the cell's middle.

    The longest cells lie where the equatorial belt meets the polar caps: from the middle at z = 2/3 to the northern corner.
    """
    ring = 1.0 - 1.0 / (1 << order)
    corner_z = 1.0 - ring * ring / 3.0
    quarter = math.pi / (4 << order)
    cosine = math.sqrt(5.0 / 9.0 * (1 - corner_z * corner_z)) * math.cos(quarter) + 2.0 / 3.0 * corner_z
    return math.acos(cosine) * (1 + 1e-9)


def order_for(diameter_deg: float) -> int:
    """Order whose cells are about as large as something of this diameter: then few cells cover it closely."""
    if diameter_deg <= 0:
        return MAX_ORDER
    return min(MAX_ORDER, max(0, round(math.log2(_SIDE_DEG * math.sqrt(2.0) / diameter_deg))))


def uniq(cells: Cells, order: int) -> Cells:
    """Cell and order as one number (IVOA MOC)."""
    return cells + (4 << (2 * order))


MayTouch = Callable[[Floats, float], NDArray[np.bool_]]
"""(middles (n, 3), radius in radians) -> which of these discs a region may touch; never False for one it touches."""


@dataclass(frozen=True, slots=True)
class Cover:
    """All cells of all orders that a region may touch, as uniq numbers."""

    singles: tuple[int, ...]
    ranges: tuple[tuple[int, int], ...]
    """First and last, for orders of which it would be more than `MAX_CELLS`."""


def cells_touching(may_touch: MayTouch, order: int) -> Cells:
    """All cells of one order that a region may touch, in ascending order."""
    cells = np.arange(12)
    for level in range(order + _FINER + 1):
        if level:
            cells = _children(cells)
        cells = cells[may_touch(points_in_cells(cells, level), cell_radius_rad(level))]
    return np.unique(cells >> (2 * _FINER))


def cover(may_touch: MayTouch, orders: Sequence[int], max_cells: int = MAX_CELLS) -> Cover:
    """Cells of these orders that a region may touch: what images stored by any of them are looked up with."""
    if not orders:
        return Cover((), ())
    levels: list[Cells] = []
    cells, highest = np.arange(12), max(orders)
    for level in range(highest + _FINER + 1):
        if level:
            if len(cells) > (max_cells if level <= highest else _FEW):
                break
            cells = _children(cells)
        cells = cells[may_touch(points_in_cells(cells, level), cell_radius_rad(level))]
        levels.append(cells)
    singles: list[int] = []
    ranges: list[tuple[int, int]] = []
    deepest = len(levels) - 1
    for order in orders:
        finer = min(order + _FINER, deepest)
        if finer >= order:
            found = np.unique(levels[finer] >> (2 * (finer - order)))
            if len(found) <= max_cells:
                singles += uniq(found, order).tolist()
            else:
                ranges += _ranges(found, 0, order)
        else:
            ranges += _ranges(levels[deepest], order - deepest, order)
    return Cover(tuple(singles), tuple(ranges))


def cover_of_point(vector: Floats, orders: Sequence[int]) -> Cover:
    """The cells of these orders that a point lies in."""
    return Cover(tuple(int(uniq(cell_of(vector, order), order)) for order in orders), ())


def _ranges(cells: Cells, deeper: int, order: int) -> list[tuple[int, int]]:
    """What lies in these cells, `deeper` orders below: neighbouring numbers as one range."""
    ordered = np.sort(cells)
    breaks = np.flatnonzero(np.diff(ordered) > 1)
    first = ordered[np.concatenate([[0], breaks + 1])] if len(ordered) else ordered
    last = ordered[np.concatenate([breaks, [len(ordered) - 1]])] if len(ordered) else ordered
    low, high = uniq(first << (2 * deeper), order), uniq(((last + 1) << (2 * deeper)) - 1, order)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _children(cells: Cells) -> Cells:
    return np.asarray((cells[:, None] * 4 + np.arange(4)).ravel())


# The places of bits are doubled, and halved, in four steps: 8 bits at a time, then 4, 2 and 1.
_STEPS = ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555))


def _spread(values: Cells) -> Cells:
    """Put the bits 0, 1, 2 of each value (and so on) on the places 0, 2, 4."""
    for shift, mask in _STEPS:
        values = (values | (values << shift)) & mask
    return values


def _gather(values: Cells) -> Cells:
    """The bits on the places 0, 2, 4 (and so on) as 0, 1, 2."""
    values = values & 0x55555555
    for shift, mask in ((1, 0x33333333), (2, 0x0F0F0F0F), (4, 0x00FF00FF), (8, 0x0000FFFF)):
        values = (values | (values >> shift)) & mask
    return values
