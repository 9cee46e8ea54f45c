"""Divides groups of pixels that belong to more than one source.

The method is the multi-threshold tree of source-extractor (Bertin & Arnouts 1996, A&AS 117, 393, section 5):
between the detection threshold and its peak a group is cut at levels spaced exponentially. Where it falls apart
into branches, at least two of which hold, above the level of the junction, more than the fraction `contrast` of
the group's whole flux, those branches are sources. The tree is not made by cutting again and again: pixels are added
from the highest level to the lowest, and union-find tells at each level what has grown together, so that every
pixel is looked at once.

The pixels below the branches are shared out afterwards, see `sharing`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit
from spica_quality.science.detection._runs import root_of
from spica_quality.science.detection.sharing import profiles, share_out

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Ints = NDArray[np.int32]

N_LEVELS = 128
"""Between the threshold and the peak; more than the usual 32 cost nothing here, and find the junctions where they are."""

CONTRAST = 0.001
"""Least share of a branch in the flux of its group. The filter matched to the stars smooths more than the usual ones: with
less contrast blends would stay whole that others divide."""

BRANCH_AREA = 3
"""A branch needs this many pixels, or as many as a source where that is less. The tops of blends are small."""


@jit
def divide(
    rows: Ints,
    x0: Ints,
    x1: Ints,
    first: Ints,
    heights: Pixels,
    floor: float,
    min_area: int,
    contrast: float,
    labels: Ints,
    next_label: int,
    bases: Pixels,
) -> int:
    """Divide one group, given as its runs in the order of rows.

    Args:
        rows: row of each run.
        x0: first column of each run.
        x1: column after its last one.
        first: where the pixels of each run begin in `heights` and `labels`.
        heights: filtered values of all pixels of the frame's runs.
        floor: lowest level: the detection threshold.
        min_area: least pixels of a source.
        contrast: least share of a branch in the whole flux.
        labels: label of each pixel, shape of `heights`; written only if the group is divided.
        next_label: label of the first part.
        bases: per source the level at which its branch begins; written only if the group is divided.

    Returns:
        How many sources the group is divided into; 1: it is not divided.

    """
    n_runs = rows.size
    local = np.empty(n_runs + 1, np.int32)
    n, peak, total = 0, 0.0, 0.0
    for r in range(n_runs):
        local[r] = n
        for i in range(first[r], first[r] + x1[r] - x0[r]):
            total += heights[i]
            peak = max(peak, heights[i])
        n += x1[r] - x0[r]
    local[n_runs] = n
    min_area = min(min_area, BRANCH_AREA)
    if n < 2 * min_area or not peak > floor:
        return 1
    up, down = _neighbours(rows, x0, x1)
    if _count_maxima(x0, x1, first, heights, up, down, n_runs) < 2:
        return 1
    core = np.full(n, -1, np.int32)
    n_parts = _tree(x0, x1, first, local, up, down, heights, floor, peak, min_area, contrast * total, core)
    if n_parts < 2:
        return 1
    parts = profiles(rows, x0, first, local, heights, n_parts, core)
    for k in range(n_parts):
        bases[next_label - 1 + k] = parts[k, 6]
    share_out(rows, x0, x1, first, local, up, down, floor, parts, core)
    for r in range(n_runs):
        for i in range(local[r + 1] - local[r]):
            labels[first[r] + i] = next_label + core[local[r] + i]
    return n_parts


@jit
def _neighbours(rows: Ints, x0: Ints, x1: Ints) -> tuple[Ints, Ints]:
    """For each run the runs it touches in the row above and below: from, and up to, shape (n, 2) each."""
    n = rows.size
    up, down = np.zeros((n, 2), np.int32), np.zeros((n, 2), np.int32)
    begin, end = 0, 0  # runs of the row before
    r = 0
    while r < n:
        last = r
        while last < n and rows[last] == rows[r]:
            last += 1
        if end > begin and rows[begin] != rows[r] - 1:
            begin = end
        near = begin
        for k in range(r, last):
            while near < end and x1[near] < x0[k]:
                near += 1
            stop = near
            while stop < end and x0[stop] <= x1[k]:
                if down[stop, 1] == 0:
                    down[stop, 0] = k
                down[stop, 1] = k + 1
                stop += 1
            up[k, 0], up[k, 1] = near, stop
        begin, end = r, last
        r = last
    return up, down


@jit
def _beats(
    value: float, x: int, near: Ints, x0: Ints, x1: Ints, first: Ints, heights: Pixels, later: bool
) -> bool:
    """Whether no pixel of a neighbouring row beside column x is higher; of equal ones the earlier counts."""
    for r in range(near[0], near[1]):
        for i in range(max(x - 1, x0[r]), min(x + 2, x1[r])):
            other = heights[first[r] + i - x0[r]]
            if other > value or (other == value and not later):
                return False
    return True


@jit
def _count_maxima(x0: Ints, x1: Ints, first: Ints, heights: Pixels, up: Ints, down: Ints, n_runs: int) -> int:
    """Local maxima, counted no further than two."""
    found = 0
    for r in range(n_runs):
        begin, end = first[r], first[r] + x1[r] - x0[r]
        for i in range(begin, end):
            value = heights[i]
            if (i > begin and heights[i - 1] >= value) or (i + 1 < end and heights[i + 1] > value):
                continue
            x = x0[r] + i - begin
            if _beats(value, x, up[r], x0, x1, first, heights, False) and _beats(
                value, x, down[r], x0, x1, first, heights, True
            ):
                found += 1
                if found == 2:
                    return found
    return found


# Columns of what is known of a component (what has grown together so far) and of a branch (a component of the level
# above with pixels enough). Pixels of a component are a chain from its head to its tail, and so are its branches.
_AREA, _HEAD, _TAIL, _FIRST, _LAST, _SEEN = range(6)
_SIBLING, _DIVIDED = 3, 4  # after area, head and tail


@jit
def _by_level(
    x0: Ints, x1: Ints, first: Ints, local: Ints, heights: Pixels, floor: float, per_level: float
) -> tuple[Ints, Ints, Ints]:
    """Pixels sorted by level, where each level begins among them, and the run of each pixel."""
    n = local[-1]
    level, run_of = np.empty(n, np.uint8), np.empty(n, np.int32)
    begins = np.zeros(N_LEVELS + 1, np.int32)
    for r in range(x0.size):
        for i in range(local[r], local[r + 1]):
            value = heights[first[r] + i - local[r]]
            k = int(np.log(value / floor) * per_level) if value > floor else 0
            level[i], run_of[i] = min(k, N_LEVELS - 1), r
            begins[level[i] + 1] += 1
    for k in range(N_LEVELS):
        begins[k + 1] += begins[k]
    order, place = np.empty(n, np.int32), begins[:-1].copy()
    for i in range(n):
        order[place[level[i]]] = i
        place[level[i]] += 1
    return order, begins, run_of


@jit
def _touching(
    i: int,
    r: int,
    x0: Ints,
    x1: Ints,
    local: Ints,
    up: Ints,
    down: Ints,
    component: Ints,
    found: Ints,
) -> int:
    """Components of the eight neighbours of pixel i of run r, as far as they are in one; returns how many."""
    n = 0
    for beside in (i - 1, i + 1):
        if local[r] <= beside < local[r + 1] and component[beside] >= 0:
            found[n] = component[beside]
            n += 1
    x = x0[r] + i - local[r]
    for near in (up[r], down[r]):
        for q in range(near[0], near[1]):
            if x0[q] > x + 1:
                break
            for column in range(max(x - 1, x0[q]), min(x + 2, x1[q])):
                other = component[local[q] + column - x0[q]]
                if other >= 0:
                    found[n] = other
                    n += 1
    return n


@jit
def _join(own: int, other: int, parent: Ints, known: Ints, flux: Floats, chain: Ints, branches: Ints) -> None:
    """Add one component to another: pixels, flux and branches."""
    parent[other] = own
    flux[own] += flux[other]
    known[own, _AREA] += known[other, _AREA]
    chain[known[own, _TAIL]] = known[other, _HEAD]
    known[own, _TAIL] = known[other, _TAIL]
    if known[other, _FIRST] < 0:
        return
    if known[own, _FIRST] < 0:
        known[own, _FIRST] = known[other, _FIRST]
    else:
        branches[known[own, _LAST], _SIBLING] = known[other, _FIRST]
    known[own, _LAST] = known[other, _LAST]


@jit
def _judge(
    b: int,
    level: float,
    least_flux: float,
    branches: Ints,
    branch_flux: Floats,
    chain: Ints,
    core: Ints,
    n_parts: int,
) -> int:
    """Several branches have met below `level`: which of them are sources? Returns how many there are now.

    The first branch stands for all of them afterwards.
    """
    first, significant, any_divided = b, 0, False
    while b >= 0:
        any_divided = any_divided or branches[b, _DIVIDED] != 0
        significant += branch_flux[b] - level * branches[b, _AREA] > least_flux
        b = branches[b, _SIBLING]
    if significant >= 2:
        any_divided = True
        b = first
        while b >= 0:
            # Those divided already have given their parts.
            if branches[b, _DIVIDED] == 0 and branch_flux[b] - level * branches[b, _AREA] > least_flux:
                i = branches[b, _HEAD]
                while True:
                    core[i] = n_parts
                    if i == branches[b, _TAIL]:
                        break
                    i = chain[i]
                n_parts += 1
            b = branches[b, _SIBLING]
    branches[first, _DIVIDED] = any_divided
    branches[first, _SIBLING] = -1
    return n_parts


@jit
def _tree(
    x0: Ints,
    x1: Ints,
    first: Ints,
    local: Ints,
    up: Ints,
    down: Ints,
    heights: Pixels,
    floor: float,
    peak: float,
    min_area: int,
    least_flux: float,
    core: Ints,
) -> int:
    """Grow the tree from the top; write the part each core pixel belongs to into `core`; return their number."""
    n = core.size
    per_level = N_LEVELS / np.log(peak / floor)
    order, begins, run_of = _by_level(x0, x1, first, local, heights, floor, per_level)
    component, chain = np.full(n, -1, np.int32), np.full(n, -1, np.int32)
    # At most every second pixel of a run begins a component.
    most = n // 2 + x0.size + 1
    parent, known, flux = np.empty(most, np.int32), np.full((most, 6), -1, np.int32), np.zeros(most)
    branches, branch_flux = np.full((n // min_area + 1, 5), -1, np.int32), np.zeros(n // min_area + 1)
    touching = np.empty(8, np.int32)
    n_components, n_branches, n_parts = 0, 0, 0
    for k in range(N_LEVELS - 1, -1, -1):
        for i in order[begins[k] : begins[k + 1]]:
            r = run_of[i]
            own = -1
            for t in range(_touching(i, r, x0, x1, local, up, down, component, touching)):
                root = root_of(parent, touching[t])
                if own < 0:
                    own = root
                elif root != own:
                    _join(own, root, parent, known, flux, chain, branches)
            if own < 0:
                own = n_components
                n_components += 1
                parent[own], known[own, _AREA], known[own, _HEAD] = own, 0, i
            else:
                chain[known[own, _TAIL]] = i
            known[own, _TAIL] = i
            known[own, _AREA] += 1
            flux[own] += heights[first[r] + i - local[r]]
            component[i] = own
        # What this level has changed; fluxes of branches count above the level before, where they were apart.
        above = floor * np.exp((k + 1) / per_level)
        for i in order[begins[k] : begins[k + 1]]:
            root = root_of(parent, component[i])
            if known[root, _SEEN] == k:
                continue
            known[root, _SEEN] = k
            b = known[root, _FIRST]
            if b < 0:
                if known[root, _AREA] < min_area:
                    continue
                b = n_branches
                n_branches += 1
                branches[b, _DIVIDED] = 0
                known[root, _FIRST] = b
            elif branches[b, _SIBLING] >= 0:
                n_parts = _judge(b, above, least_flux, branches, branch_flux, chain, core, n_parts)
            known[root, _LAST] = b
            branches[b, :3] = known[root, :3]
            branch_flux[b] = flux[root]
    return n_parts
