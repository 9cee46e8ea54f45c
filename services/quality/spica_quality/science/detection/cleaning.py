"""Gives back to bright sources what is only a bump on their wings.

The idea is source-extractor's CLEAN (Bertin & Arnouts 1996, A&AS 117, 393, section 6): would a source still stand
above the threshold without its neighbour's light? Each source is continued beyond its isophote as an elliptical
Moffat profile through its peak and its isophote. A fainter one whose peak exceeds the threshold by less than that
profile gives there is taken to be part of the brighter one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit
from spica_quality.science.detection import _collecting as c

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

BETA = 2.5
"""Exponent of the wings, that of stars. The smaller, the farther they reach, and the more faint sources are lost."""

ZONE = 4.0
"""How far a source counts, in units of its isophotal radius."""

_CELL_PX = 32


def clean(sums: Floats, counts: Ints, beta: float = BETA) -> Ints:
    """Add wings to the sources they belong to: `sums` and `counts` of those change in place.

    Args:
        sums: sums over each source's pixels, see `_collecting`, shape (n, N_SUMS).
        counts: whole numbers of each source, shape (n, N_COUNTS).
        beta: exponent of the wings.

    Returns:
        Which source each one belongs to now: its own index, or that of another.

    """
    n = len(sums)
    into = np.arange(n, dtype=np.int32)
    if n < 2:
        return into
    # Equal fluxes: the earlier one counts as the brighter.
    rank = np.empty(n, np.int32)
    order = np.argsort(-sums[:, c.FFLUX], kind="stable").astype(np.int32)
    rank[order] = np.arange(n, dtype=np.int32)
    size = (int(counts[:, c.Y_MAX].max()) + 1, int(counts[:, c.X_MAX].max()) + 1)
    cell = (counts[:, c.Y_PEAK] // _CELL_PX) * (-(-size[1] // _CELL_PX)) + counts[:, c.X_PEAK] // _CELL_PX
    members = np.argsort(cell, kind="stable").astype(np.int32)
    n_cells = (-(-size[0] // _CELL_PX)) * (-(-size[1] // _CELL_PX))
    begins = np.searchsorted(cell[members], np.arange(n_cells + 1)).astype(np.int32)
    _find_hosts(sums, counts, beta, order, rank, members, begins, -(-size[1] // _CELL_PX), into)
    _merge(sums, counts, order, into)
    return into


@jit
def _find_hosts(
    sums: Floats,
    counts: Ints,
    beta: float,
    order: Ints,
    rank: Ints,
    members: Ints,
    begins: Ints,
    n_across: int,
    into: Ints,
) -> None:
    """Write into `into` the brighter source whose wing each source is; several wings: the strongest one."""
    n = order.size
    n_down = (begins.size - 1) // n_across
    light = np.zeros(n)
    for k in range(n):
        j = order[k]
        flux, area = sums[j, c.FFLUX], counts[j, c.AREA]
        peak, limit = sums[j, c.FPEAK], sums[j, c.LIMIT]
        if not (flux > 0.0 and area > 0 and peak > limit):
            continue
        x, y = sums[j, c.FX] / flux, sums[j, c.FY] / flux
        xx = max(sums[j, c.FXX] / flux - x * x, 1.0 / 12.0)
        yy = max(sums[j, c.FYY] / flux - y * y, 1.0 / 12.0)
        xy = sums[j, c.FXY] / flux - x * y
        root = np.sqrt(max(xx * yy - xy * xy, 1.0 / 144.0))
        radius2 = area / np.pi
        steepness = ((peak / limit) ** (1.0 / beta) - 1.0) / radius2
        reach2 = ZONE * ZONE * radius2
        wide, tall = np.sqrt(reach2 * xx / root), np.sqrt(reach2 * yy / root)
        for b in range(max(int(y - tall) // _CELL_PX, 0), min(int(y + tall) // _CELL_PX + 1, n_down)):
            for a in range(max(int(x - wide) // _CELL_PX, 0), min(int(x + wide) // _CELL_PX + 1, n_across)):
                for m in range(begins[b * n_across + a], begins[b * n_across + a + 1]):
                    i = members[m]
                    if rank[i] <= k:
                        continue
                    dx, dy = counts[i, c.X_PEAK] - x, counts[i, c.Y_PEAK] - y
                    rho2 = (yy * dx * dx + xx * dy * dy - 2.0 * xy * dx * dy) / root
                    if rho2 > reach2:
                        continue
                    wing = peak * (1.0 + steepness * rho2) ** (-beta)
                    excess = sums[i, c.FPEAK] - sums[i, c.LIMIT]
                    if wing > excess and wing > light[i]:
                        light[i] = wing
                        into[i] = j


@jit
def _merge(sums: Floats, counts: Ints, order: Ints, into: Ints) -> None:
    # From the faintest, so that what is added to a source goes on with it.
    for k in range(order.size - 1, -1, -1):
        if into[order[k]] != order[k]:
            c.add(sums, counts, into[order[k]], order[k])
    for k in range(order.size):
        into[order[k]] = into[into[order[k]]]
