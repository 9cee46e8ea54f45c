"""The hot loops of matching: pairs of points as hypotheses, and their verification.

Two points of the image and two stars make a similarity (shift, rotation, scale). All pairs of stars are sorted by
length and position angle once; a pair of the image then meets only those that the prior allows, and each hypothesis
is tried on the other points, brightest first, until it is clear that it is none (a sequential probability ratio
test: Wald 1945, Ann. Math. Stat. 16, 117). Related: Groth 1986 (AJ 91, 1244), Kaiser et al. 1999 (pattern matching
of SCAMP: Bertin 2006, ASP Conf. 351, 112), Lang et al. 2010 (AJ 139, 1782).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spica_calib.science._jit import exact

Floats = NDArray[np.float64]
Integers = NDArray[np.int32]

MAX_PAIRS = 1_500_000
"""Pairs of stars that a table holds at most; each takes 8 bytes and some 20 ns."""


class PairTable(NamedTuple):
    """Ordered pairs of points, sorted by length and position angle."""

    starts: Integers
    """Shape (n_lengths * n_angles + 1,): where each bin begins."""
    first: Integers
    second: Integers
    x: Floats
    y: Floats
    shortest: float
    longest: float
    n_lengths: int
    n_angles: int


class Mask(NamedTuple):
    """Which places are near a point: a square of cells around the origin, one bit each."""

    bits: NDArray[np.uint8]
    n_side: int
    cell: float


class Range(NamedTuple):
    """What a hypothesis may be: rotation within `rotation` of `turn` (rad), scale, and how far the origin moves."""

    turn: float
    rotation: float
    low_scale: float
    high_scale: float
    shift: float


class Verdict(NamedTuple):
    """The sequential test: what a hit and a miss add to the log-likelihood ratio, and when it ends."""

    hit: float
    miss: float
    reject: float
    enough: float


# No fastmath here: the twins in the tests agree exactly.
@exact
def pair_table(
    x: Floats, y: Floats, shortest: float, longest: float, n_lengths: int, n_angles: int, capacity: int
) -> PairTable:
    """Sort all ordered pairs with a length in [shortest, longest) into bins; points in order of x sweep faster.

    `n_angles` must be even. Pairs beyond `capacity` are left out.
    """
    n = len(x)
    order = np.argsort(x)
    a = np.empty(capacity, dtype=np.int32)
    b = np.empty(capacity, dtype=np.int32)
    where = np.empty(capacity, dtype=np.int32)
    starts = np.zeros(n_lengths * n_angles + 1, dtype=np.int32)
    per_length = n_lengths / (longest - shortest)
    per_angle = n_angles / (2.0 * np.pi)
    count = 0
    for k in range(n):
        i = order[k]
        for m in range(k + 1, n):
            j = order[m]
            dx, dy = x[j] - x[i], y[j] - y[i]
            if dx >= longest or count + 2 > capacity:
                break
            length = np.sqrt(dx * dx + dy * dy)
            if not (shortest <= length < longest):
                continue
            row = min(int((length - shortest) * per_length), n_lengths - 1)
            column = int((np.arctan2(dy, dx) + np.pi) * per_angle) % n_angles
            a[count], b[count], where[count] = i, j, row * n_angles + column
            column = (column + n_angles // 2) % n_angles
            a[count + 1], b[count + 1], where[count + 1] = j, i, row * n_angles + column
            starts[where[count] + 1] += 1
            starts[where[count + 1] + 1] += 1
            count += 2
    for k in range(n_lengths * n_angles):
        starts[k + 1] += starts[k]
    first = np.empty(count, dtype=np.int32)
    second = np.empty(count, dtype=np.int32)
    free = starts[:-1].copy()
    for k in range(count):
        at = free[where[k]]
        first[at], second[at] = a[k], b[k]
        free[where[k]] = at + 1
    return PairTable(starts, first, second, x, y, shortest, longest, n_lengths, n_angles)


@exact
def mask_near(x: Floats, y: Floats, half: float, cell: float, radius: float) -> Mask:
    """Cells of a square |x|, |y| < half whose centres lie within `radius` of a point."""
    n = int(np.ceil(2.0 * half / cell))
    bits = np.zeros((n * n + 7) // 8, dtype=np.uint8)
    reach = int(radius / cell) + 1
    for k in range(len(x)):
        if not (abs(x[k]) < half + radius and abs(y[k]) < half + radius):
            continue
        i0, j0 = int(np.floor((x[k] + half) / cell)), int(np.floor((y[k] + half) / cell))
        for j in range(max(j0 - reach, 0), min(j0 + reach + 1, n)):
            dy = (j + 0.5) * cell - half - y[k]
            for i in range(max(i0 - reach, 0), min(i0 + reach + 1, n)):
                dx = (i + 0.5) * cell - half - x[k]
                if dx * dx + dy * dy <= radius * radius:
                    at = j * n + i
                    bits[at >> 3] |= np.uint8(1 << (at & 7))
    return Mask(bits, n, cell)


@exact
def ratio_of(
    x: Floats, y: Floats, i: int, j: int, mask: Mask, verdict: Verdict, real: float, imag: float,
    shift_x: float, shift_y: float,
) -> tuple[float, int]:  # fmt: skip
    """Log-likelihood ratio of a hypothesis over all points but i and j, and how many were asked.

    Stops where it falls below `reject`.
    """
    half = 0.5 * mask.n_side * mask.cell
    per_cell = 1.0 / mask.cell
    total, asked = 0.0, 0
    for m in range(len(x)):
        if m in (i, j):
            continue
        asked += 1
        px = real * x[m] - imag * y[m] + shift_x + half
        py = imag * x[m] + real * y[m] + shift_y + half
        near = False
        if px >= 0.0 and py >= 0.0:
            column, row = int(px * per_cell), int(py * per_cell)
            if column < mask.n_side and row < mask.n_side:
                at = row * mask.n_side + column
                near = (mask.bits[at >> 3] >> np.uint8(at & 7)) & 1 == 1
        total += verdict.hit if near else verdict.miss
        if total < verdict.reject:
            break
    return total, asked


@exact
def seek(
    x: Floats, y: Floats, first: Integers, second: Integers, begin: int, table: PairTable, mask: Mask,
    allowed: Range, verdict: Verdict, budget: int, kept: Floats,
) -> tuple[int, int, int, bool]:  # fmt: skip
    """Try pairs of image points (first, second), from `begin` on, against all pairs of stars that may be they.

    Stops after the pair in which a hypothesis reaches `enough`, or when `budget` points were asked. `kept`, shape
    (k, 5), is updated: the best hypotheses so far as (ratio, real, imag, shift_x, shift_y), where star = (real
    + i imag) * image + shift; different ones, best not first. Returns the next pair, the numbers of
    hypotheses tried and of points asked, and whether enough.
    """
    tried, spent = 0, 0
    n_bins = table.n_angles
    width = 2.0 * np.pi / n_bins
    low2, high2 = allowed.low_scale**2, allowed.high_scale**2
    all_angles = allowed.rotation >= np.pi - width
    cos_limit = np.cos(min(allowed.rotation, np.pi))
    turn_x, turn_y = np.cos(allowed.turn), np.sin(allowed.turn)
    per_length = table.n_lengths / (table.longest - table.shortest)
    for pair in range(begin, len(first)):
        i, j = first[pair], second[pair]
        vx, vy = x[j] - x[i], y[j] - y[i]
        norm2 = vx * vx + vy * vy
        length = np.sqrt(norm2)
        row0 = int((length * allowed.low_scale - table.shortest) * per_length)
        row1 = int((length * allowed.high_scale - table.shortest) * per_length)
        row0, row1 = max(row0, 0), min(row1, table.n_lengths - 1)
        if length * allowed.high_scale < table.shortest:
            continue
        column0, n_columns = 0, n_bins
        if not all_angles:
            angle = np.arctan2(vy, vx) + np.pi + allowed.turn
            column0 = int(np.floor((angle - allowed.rotation) / width))
            n_columns = min(int(np.floor((angle + allowed.rotation) / width)) - column0 + 1, n_bins)
        enough = False
        for row in range(row0, row1 + 1):
            for step in range(n_columns):
                column = (column0 + step) % n_bins
                cell = row * n_bins + column
                for k in range(table.starts[cell], table.starts[cell + 1]):
                    p, q = table.first[k], table.second[k]
                    wx, wy = table.x[q] - table.x[p], table.y[q] - table.y[p]
                    real = (wx * vx + wy * vy) / norm2
                    imag = (wy * vx - wx * vy) / norm2
                    size2 = real * real + imag * imag
                    if not (low2 <= size2 <= high2):
                        continue
                    if not all_angles and real * turn_x + imag * turn_y < cos_limit * np.sqrt(size2):
                        continue
                    shift_x = table.x[p] - (real * x[i] - imag * y[i])
                    shift_y = table.y[p] - (imag * x[i] + real * y[i])
                    if shift_x * shift_x + shift_y * shift_y > allowed.shift * allowed.shift:
                        continue
                    tried += 1
                    ratio, asked = ratio_of(x, y, i, j, mask, verdict, real, imag, shift_x, shift_y)
                    spent += asked
                    if ratio > 0.0:
                        _keep(kept, ratio, real, imag, shift_x, shift_y, 0.5 * length, 4.0 * mask.cell)
                        enough = enough or ratio >= verdict.enough
        if enough or spent >= budget:
            return pair + 1, tried, spent, enough
    return len(first), tried, spent, False


@exact
def _keep(
    kept: Floats,
    ratio: float,
    real: float,
    imag: float,
    shift_x: float,
    shift_y: float,
    arm: float,
    near: float,
) -> None:
    """Put a hypothesis in the place of the worst one, or of the one that is the same but for its precision."""
    worst = 0
    for k in range(len(kept)):
        same = kept[k, 0] > 0.0 and abs(kept[k, 3] - shift_x) + abs(kept[k, 4] - shift_y) < near
        if same and (abs(kept[k, 1] - real) + abs(kept[k, 2] - imag)) * arm < near:
            worst = k
            break
        if kept[k, 0] < kept[worst, 0]:
            worst = k
    if ratio > kept[worst, 0]:
        kept[worst, 0] = ratio
        kept[worst, 1], kept[worst, 2] = real, imag
        kept[worst, 3], kept[worst, 4] = shift_x, shift_y
