"""Where detections lie by the model, and which source each belongs to: the loops.

Planes are complex in spirit (xi + i eta): arrays hold real and imaginary parts side by side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spica_calib.science._jit import exact, jit
from spica_calib.science.stars import Floats, Ints

Index = NDArray[np.int32]
Singles = NDArray[np.float32]
Flags = NDArray[np.uint8]

_ARCSEC = np.radians(1.0 / 3600.0)


@jit
def monomials(u: float, v: float, degree: int, out: Floats) -> None:
    """Values of all terms up to a degree, in the order of `spica_imaging.polynomial.terms`; one product each."""
    out[0] = 1.0
    k = 1
    for total in range(1, degree + 1):
        back = k - total
        for j in range(total):
            out[k] = u * out[back + j]
            k += 1
        out[k] = v * out[back + total - 1]
        k += 1


@jit
def place(
    starts: Ints,
    unit_plane: Index,
    unit_exposure: Index,
    u: Floats,
    v: Floats,
    planes: Floats,
    degree: int,
    maps: Floats,
    air: Floats,
    air_on: Flags,
    air_degree: int,
    air_unit: float,
    focal: Singles,
    out: Floats,
) -> None:
    """Focal plane and tangent plane places of all detections, arcsec.

    Units (one CCD of one exposure) are `starts[k] : starts[k + 1]`; those with `unit_plane` below 0 are left as they are.
    `planes`: shape (planes, 2, terms); `maps`: shape (exposures, 6), shift, turn and shear as complex numbers;
    `air`: shape (exposures, 2, terms of air_degree). Writes `focal` and `out`, shape (n, 2).
    """
    n_terms = planes.shape[2]
    basis = np.empty(max(n_terms, air.shape[2]))
    for k in range(len(unit_plane)):
        plane, e = unit_plane[k], unit_exposure[k]
        if plane < 0:
            continue
        s0, s1, l0, l1, m0, m1 = maps[e]
        for i in range(starts[k], starts[k + 1]):
            monomials(u[i], v[i], degree, basis)
            x, y = 0.0, 0.0
            for t in range(n_terms):
                x += planes[plane, 0, t] * basis[t]
                y += planes[plane, 1, t] * basis[t]
            focal[i, 0], focal[i, 1] = x, y
            p = s0 + l0 * x - l1 * y + m0 * x + m1 * y
            q = s1 + l0 * y + l1 * x - m0 * y + m1 * x
            if air_on[e]:
                monomials(p / air_unit, q / air_unit, air_degree, basis)
                for t in range(air.shape[2]):
                    p += air[e, 0, t] * basis[t]
                    q += air[e, 1, t] * basis[t]
            out[i, 0], out[i, 1] = p, q


@jit
def predict(
    pull: Singles,
    turn: Singles,
    plane: Index,
    exposure: Index,
    linear: Floats,
    maps: Floats,
    unit_arcsec: float,
    u: Singles,
    v: Singles,
    focal: Singles,
) -> None:
    """Move members of groups (normalised pixels and places in the focal plane) to where their group's mean is.

    Derivatives belong there: taken at the noisy place they would favour a sky that is smaller, with smaller noise.
    `linear`: from focal plane (arcsec) to normalised pixels, shape (planes, 2, 2).
    """
    for i in range(len(plane)):
        e = exposure[i]
        if e < 0:
            continue
        x = turn[i, 0] * pull[i, 0] + turn[i, 1] * pull[i, 1]
        y = turn[i, 0] * pull[i, 1] - turn[i, 1] * pull[i, 0]
        lx, ly = maps[e, 0], maps[e, 1]
        size = lx * lx + ly * ly
        x, y = (lx * x + ly * y) / size, (lx * y - ly * x) / size
        matrix = linear[plane[i]]
        u[i] += matrix[0, 0] * x + matrix[0, 1] * y
        v[i] += matrix[1, 0] * x + matrix[1, 1] * y
        focal[i, 0] += x / unit_arcsec
        focal[i, 1] += y / unit_arcsec


@jit
def directions(exposure: Index, frames: Floats, plane: Floats, out: Floats) -> None:
    """Unit vectors of places in the tangent planes of exposures; `frames`, shape (exposures, 3, 3); `out`, (n, 3)."""
    for i in range(len(exposure)):
        frame = frames[exposure[i]]
        x, y = plane[i, 0] * _ARCSEC, plane[i, 1] * _ARCSEC
        scale = 1.0 / np.sqrt(1.0 + x * x + y * y)
        for axis in range(3):
            out[i, axis] = scale * (frame[0, axis] + x * frame[1, axis] + y * frame[2, axis])


@exact
def _slot(key: int, mask: int) -> int:
    """First place to look for a key in the table."""
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    slot: int = np.int64((mixed >> np.uint64(17)) & np.uint64(mask))  # type: ignore[assignment]
    return slot


@exact
def _cell_key(i: int, j: int, k: int) -> int:
    """One number for a cell of space; cells are counted from -2**20 to 2**20."""
    return (((i + 1048576) << 42) | ((j + 1048576) << 21)) | (k + 1048576)


@exact
def _find(keys: Ints, key: int, mask: int) -> int:
    """Place of a key in the table, or of the empty place where it belongs."""
    slot = _slot(key, mask)
    while keys[slot] != key and keys[slot] != -1:
        slot = (slot + 1) & mask
    return slot


@exact
def _enter(centre: Floats, group: int, per_rad: float, keys: Ints, heads: Index, chain: Index) -> int:
    """Put a group into the cell of its centre; 1 if the cell is new."""
    mask = len(keys) - 1
    key = _cell_key(
        int(np.floor(centre[0] * per_rad)),
        int(np.floor(centre[1] * per_rad)),
        int(np.floor(centre[2] * per_rad)),
    )
    slot = _find(keys, key, mask)
    new = keys[slot] == -1
    if new:
        keys[slot] = key
        heads[slot] = -1
    chain[group] = heads[slot]
    heads[slot] = group
    return 1 if new else 0


@exact
def enter_all(centres: Floats, first: int, per_rad: float, keys: Ints, heads: Index, chain: Index) -> int:
    """Put groups from `first` on into the table; returns how many cells are new."""
    used = 0
    for group in range(first, len(centres)):
        used += _enter(centres[group], group, per_rad, keys, heads, chain)
    return used


@exact
def nearest_groups(  # noqa: PLR0912
    at: Floats,
    years: float,
    n_stars: int,
    motion: Floats,
    star_radius: float,
    radius: float,
    reach: float,
    per_rad: float,
    keys: Ints,
    heads: Index,
    chain: Index,
    centres: Floats,
    choice: Index,
    rival: Index,
    rival_d2: Floats,
    stamp: Index,
    now: int,
) -> None:
    """Nearest group of each detection of one exposure, and nearest detection of each group met.

    Groups below `n_stars` are reference stars: they move by `motion` (radians per year) times `years`, and are met
    within `star_radius`; others within `radius` (radians). `centres` are unit vectors about (means are not normalised).
    `rival` and `rival_d2` of a group mean something only where its `stamp` is `now`.
    """
    mask = len(keys) - 1
    low, high = np.empty(3, np.int64), np.empty(3, np.int64)
    for i in range(len(at)):
        choice[i] = -1
        best = np.inf
        for axis in range(3):
            low[axis] = int(np.floor((at[i, axis] - reach) * per_rad))
            high[axis] = int(np.floor((at[i, axis] + reach) * per_rad))
        for a in range(low[0], high[0] + 1):
            for b in range(low[1], high[1] + 1):
                for c in range(low[2], high[2] + 1):
                    key = _cell_key(a, b, c)
                    slot = _find(keys, key, mask)
                    if keys[slot] == -1:
                        continue
                    group = heads[slot]
                    while group >= 0:
                        limit = radius
                        d2 = 0.0
                        if group < n_stars:
                            limit = star_radius
                            for axis in range(3):
                                d = at[i, axis] - centres[group, axis] - years * motion[group, axis]
                                d2 += d * d
                        else:
                            for axis in range(3):
                                d = at[i, axis] - centres[group, axis]
                                d2 += d * d
                        if d2 <= limit * limit:
                            if d2 < best or (d2 == best and group < choice[i]):
                                best = d2
                                choice[i] = group
                            if stamp[group] != now or d2 < rival_d2[group]:
                                stamp[group] = now
                                rival_d2[group] = d2
                                rival[group] = i
                        group = chain[group]


@exact
def join_groups(
    at: Floats,
    weight: Singles,
    n_stars: int,
    n_groups: int,
    choice: Index,
    rival: Index,
    centres: Floats,
    total: Floats,
    group: Index,
) -> int:
    """Detections join their group where the choice is mutual, and begin groups of their own elsewhere.

    Centres of groups that are no stars follow as weighted means. Returns the number of groups.
    """
    for i in range(len(at)):
        chosen = choice[i]
        group[i] = chosen if chosen >= 0 and rival[chosen] == i else -1
    for i in range(len(at)):
        mine = group[i]
        if mine < 0:
            for axis in range(3):
                centres[n_groups, axis] = at[i, axis]
            total[n_groups] = weight[i]
            group[i] = n_groups
            n_groups += 1
        elif mine >= n_stars:
            total[mine] += weight[i]
            share = weight[i] / total[mine]
            for axis in range(3):
                centres[mine, axis] += share * (at[i, axis] - centres[mine, axis])
    return n_groups


@exact
def sort_by_group(group: Index, n_groups: int, wanted: Flags) -> tuple[Ints, Index]:
    """Members of wanted groups, group after group, in order: offsets, shape (n_groups + 1,), and members."""
    offsets = np.zeros(n_groups + 1, np.int64)
    for mine in group:
        if mine >= 0 and wanted[mine]:
            offsets[mine + 1] += 1
    for k in range(n_groups):
        offsets[k + 1] += offsets[k]
    members = np.empty(offsets[n_groups], np.int32)
    filled = offsets[:-1].copy()
    for i in range(len(group)):
        mine = group[i]
        if mine >= 0 and wanted[mine]:
            members[filled[mine]] = i
            filled[mine] += 1
    return offsets, members
