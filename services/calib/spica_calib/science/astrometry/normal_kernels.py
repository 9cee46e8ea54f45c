"""The normal equations of the joint solution, term by term: never a stored derivative.

All unknowns are complex (xi + i eta): coefficients of the planes, T per plane, then Q per exposure: shift, turn, shear
(which takes the conjugate place) and, if free, the air's terms of degree 2 and 3. A detection's place changes by
turn_to_frame · (shift + turn f + shear conj(f) + air(f) + map · sum of T terms). Positions of sources are eliminated:
every detection counts by its difference from its group's weighted mean.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spica_calib.science._jit import jit
from spica_calib.science.astrometry.kernels import Index, Singles, monomials
from spica_calib.science.stars import Floats, Ints

Complex = NDArray[np.complex128]
AIR_FREE_DEGREE = 3
AIR_FIRST, AIR_TERMS = 3, 7
"""Free terms of the air: those of degree 2 and 3, in the order of terms."""


@jit
def _exposure_terms(fx: float, fy: float, turn_x: float, turn_y: float, n: int, basis: Floats) -> None:
    """Values of the air's free terms at a place of the focal plane, into basis[3:]."""
    if n > 3:
        monomials(turn_x * fx - turn_y * fy, turn_x * fy + turn_y * fx, AIR_FREE_DEGREE, basis)


@jit
def residual_gradient(
    offsets: Ints,
    turn: Singles,
    weight: Singles,
    u: Singles,
    v: Singles,
    focal: Singles,
    plane: Index,
    exposure: Index,
    maps: Floats,
    degree: int,
    n_terms: int,
    n_own: int,
    first_own: int,
    pull: Singles,
    out_x: Floats,
    out_y: Floats,
) -> None:
    """Add up what all pulls (mean minus detection, shape (m, 2)) ask of the unknowns; `out_x`, `out_y`: shape (p,)."""
    phi, psi = np.empty(n_terms), np.empty(AIR_FIRST + AIR_TERMS)
    for i in range(offsets[0], offsets[-1]):
        w, e = weight[i], exposure[i]
        if w == 0.0 or e < 0:
            continue
        rx, ry = w * pull[i, 0], w * pull[i, 1]
        rx, ry = turn[i, 0] * rx + turn[i, 1] * ry, turn[i, 0] * ry - turn[i, 1] * rx
        lx, ly = maps[e, 0], maps[e, 1]
        fx, fy = focal[i, 0], focal[i, 1]
        base = first_own + e * n_own
        out_x[base] += rx
        out_y[base] += ry
        out_x[base + 1] += fx * rx + fy * ry
        out_y[base + 1] += fx * ry - fy * rx
        out_x[base + 2] += fx * rx - fy * ry
        out_y[base + 2] += fx * ry + fy * rx
        _exposure_terms(fx, fy, lx, ly, n_own, psi)
        for t in range(3, n_own):
            out_x[base + t] += psi[t] * rx
            out_y[base + t] += psi[t] * ry
        rx, ry = lx * rx + ly * ry, lx * ry - ly * rx
        monomials(u[i], v[i], degree, phi)
        base = plane[i] * n_terms
        for t in range(n_terms):
            out_x[base + t] += phi[t] * rx
            out_y[base + t] += phi[t] * ry


@jit
def apply_normal(  # noqa: PLR0915
    offsets: Ints,
    turn: Singles,
    weight: Singles,
    u: Singles,
    v: Singles,
    focal: Singles,
    plane: Index,
    exposure: Index,
    maps: Floats,
    degree: int,
    n_terms: int,
    n_own: int,
    first_own: int,
    whole: Floats,
    in_x: Floats,
    in_y: Floats,
    out_x: Floats,
    out_y: Floats,
) -> None:
    """Add normal matrix times vector to `out`; `whole`: weight of each group, star included. One pass over the data."""
    most = 1
    for g in range(len(whole)):
        most = max(most, offsets[g + 1] - offsets[g])
    phi = np.empty((most, n_terms))
    psi = np.empty((most, AIR_FIRST + AIR_TERMS))
    step = np.empty((most, 2))
    for g in range(len(whole)):
        start, n = offsets[g], offsets[g + 1] - offsets[g]
        if whole[g] <= 0.0:
            continue
        sum_x, sum_y = 0.0, 0.0
        for k in range(n):
            i = start + k
            e = exposure[i]
            if weight[i] == 0.0 or e < 0:
                continue
            lx, ly = maps[e, 0], maps[e, 1]
            fx, fy = focal[i, 0], focal[i, 1]
            monomials(u[i], v[i], degree, phi[k])
            base = plane[i] * n_terms
            ax, ay = 0.0, 0.0
            for t in range(n_terms):
                ax += in_x[base + t] * phi[k, t]
                ay += in_y[base + t] * phi[k, t]
            base = first_own + e * n_own
            sx = lx * ax - ly * ay + in_x[base]
            sy = lx * ay + ly * ax + in_y[base]
            sx += (in_x[base + 1] + in_x[base + 2]) * fx - (in_y[base + 1] - in_y[base + 2]) * fy
            sy += (in_x[base + 1] - in_x[base + 2]) * fy + (in_y[base + 1] + in_y[base + 2]) * fx
            _exposure_terms(fx, fy, lx, ly, n_own, psi[k])
            for t in range(3, n_own):
                sx += in_x[base + t] * psi[k, t]
                sy += in_y[base + t] * psi[k, t]
            step[k, 0] = turn[i, 0] * sx - turn[i, 1] * sy
            step[k, 1] = turn[i, 0] * sy + turn[i, 1] * sx
            sum_x += weight[i] * step[k, 0]
            sum_y += weight[i] * step[k, 1]
        sum_x /= whole[g]
        sum_y /= whole[g]
        for k in range(n):
            i = start + k
            w, e = weight[i], exposure[i]
            if w == 0.0 or e < 0:
                continue
            lx, ly = maps[e, 0], maps[e, 1]
            fx, fy = focal[i, 0], focal[i, 1]
            rx, ry = w * (step[k, 0] - sum_x), w * (step[k, 1] - sum_y)
            rx, ry = turn[i, 0] * rx + turn[i, 1] * ry, turn[i, 0] * ry - turn[i, 1] * rx
            base = first_own + e * n_own
            out_x[base] += rx
            out_y[base] += ry
            out_x[base + 1] += fx * rx + fy * ry
            out_y[base + 1] += fx * ry - fy * rx
            out_x[base + 2] += fx * rx - fy * ry
            out_y[base + 2] += fx * ry + fy * rx
            for t in range(3, n_own):
                out_x[base + t] += psi[k, t] * rx
                out_y[base + t] += psi[k, t] * ry
            rx, ry = lx * rx + ly * ry, lx * ry - ly * rx
            base = plane[i] * n_terms
            for t in range(n_terms):
                out_x[base + t] += phi[k, t] * rx
                out_y[base + t] += phi[k, t] * ry


@jit
def _own_row(fx: float, fy: float, lx: float, ly: float, n_own: int, psi: Floats, row: Complex) -> None:
    """Derivatives with regard to the exposure's unknowns, in its own axes."""
    row[0] = 1.0
    row[1] = complex(fx, fy)
    row[2] = complex(fx, -fy)
    _exposure_terms(fx, fy, lx, ly, n_own, psi)
    for t in range(3, n_own):
        row[t] = psi[t]


@jit
def dense_normal(
    offsets: Ints,
    turn: Singles,
    weight: Singles,
    u: Singles,
    v: Singles,
    focal: Singles,
    plane: Index,
    exposure: Index,
    maps: Floats,
    degree: int,
    n_terms: int,
    n_own: int,
    first_own: int,
    whole: Floats,
    factor: Floats,
    out: Complex,
) -> None:
    """Add the normal matrix to `out`, shape (p, p); group g counts `factor[g]` times (0: not looked at)."""
    phi, psi = np.empty(n_terms), np.empty(AIR_FIRST + AIR_TERMS)
    row = np.empty(n_terms + n_own, np.complex128)
    places = np.empty(n_terms + n_own, np.int64)
    total = np.zeros(len(out), np.complex128)
    seen = np.zeros(len(out), np.uint8)
    touched = np.empty(len(out), np.int64)
    for g in range(len(whole)):
        if factor[g] <= 0.0 or whole[g] <= 0.0:
            continue
        n_touched = 0
        for i in range(offsets[g], offsets[g + 1]):
            w, e = weight[i], exposure[i]
            if w == 0.0 or e < 0:
                continue
            lx, ly = maps[e, 0], maps[e, 1]
            towards = complex(turn[i, 0], turn[i, 1])
            _own_row(focal[i, 0], focal[i, 1], lx, ly, n_own, psi, row)
            for t in range(n_own):
                row[t] *= towards
                places[t] = first_own + e * n_own + t
            monomials(u[i], v[i], degree, phi)
            towards *= complex(lx, ly)
            for t in range(n_terms):
                row[n_own + t] = towards * phi[t]
                places[n_own + t] = plane[i] * n_terms + t
            for a in range(n_terms + n_own):
                at = places[a]
                if not seen[at]:
                    seen[at] = 1
                    touched[n_touched] = at
                    n_touched += 1
                total[at] += w * row[a]
                left = factor[g] * w * np.conj(row[a])
                for b in range(n_terms + n_own):
                    out[at, places[b]] += left * row[b]
        for a in range(n_touched):
            at = touched[a]
            left = factor[g] / whole[g] * np.conj(total[at])
            for b in range(n_touched):
                out[at, touched[b]] -= left * total[touched[b]]
        for a in range(n_touched):
            seen[touched[a]] = 0
            total[touched[a]] = 0.0


@jit
def arrow_blocks(
    offsets: Ints,
    turn: Singles,
    weight: Singles,
    u: Singles,
    v: Singles,
    focal: Singles,
    plane: Index,
    exposure: Index,
    maps: Floats,
    degree: int,
    n_terms: int,
    n_own: int,
    first_own: int,
    whole: Floats,
    local: Index,
    planes: Floats,
    own: Complex,
    cross: Complex,
) -> None:
    """Add the blocks of the normal matrix that hold if sources' positions came from the other detections alone.

    `planes`: (planes, T, T); `own`: (exposures, Q, Q); `cross`: (exposures, Q, room), columns `local[plane] * T + t`.
    """
    phi, psi = np.empty(n_terms), np.empty(AIR_FIRST + AIR_TERMS)
    row = np.empty(n_own, np.complex128)
    for g in range(len(whole)):
        for i in range(offsets[g], offsets[g + 1]):
            w, e = weight[i], exposure[i]
            if w == 0.0 or e < 0:
                continue
            w *= max(1.0 - w / whole[g], 0.0)
            lx, ly = maps[e, 0], maps[e, 1]
            _own_row(focal[i, 0], focal[i, 1], lx, ly, n_own, psi, row)
            monomials(u[i], v[i], degree, phi)
            size = w * (lx * lx + ly * ly)
            p = plane[i]
            for a in range(n_terms):
                for b in range(a + 1):
                    planes[p, a, b] += size * phi[a] * phi[b]
            towards = complex(lx, ly)
            base = local[p] * n_terms
            for a in range(n_own):
                left = w * np.conj(row[a])
                for b in range(a + 1):
                    own[e, a, b] += left * row[b]
                left *= towards
                for t in range(n_terms):
                    cross[e, a, base + t] += left * phi[t]


@jit
def unit_information(
    offsets: Ints, weight: Singles, unit: Index, exposure: Index, whole: Floats, out: Floats
) -> None:
    """Add up what each unit's detections can tell: weight that their groups do not owe to them alone."""
    for g in range(len(whole)):
        for i in range(offsets[g], offsets[g + 1]):
            if weight[i] > 0.0 and exposure[i] >= 0:
                out[unit[i]] += weight[i] * max(1.0 - weight[i] / whole[g], 0.0)


@jit
def chosen_groups(
    offsets: Ints,
    weight: Singles,
    unit: Index,
    exposure: Index,
    whole: Floats,
    information: Floats,
    n_wanted: float,
    factor: Floats,
) -> None:
    """Systematic sample of groups by what they tell: `factor` is 1 / probability, 0 for those not taken.

    About `n_wanted` effective detections of every unit are taken, all of them where there are fewer. Groups with a
    chance of one half or more are taken for sure.
    """
    carried = 0.5
    for g in range(len(whole)):
        chance = 0.0
        for i in range(offsets[g], offsets[g + 1]):
            if weight[i] > 0.0 and exposure[i] >= 0:
                own = weight[i] * max(1.0 - weight[i] / whole[g], 0.0)
                if own > 0.0:
                    chance = max(chance, n_wanted * own / information[unit[i]])
        factor[g] = 0.0
        if chance >= 0.5:
            factor[g] = 1.0
        elif chance > 0.0:
            carried += chance
            if carried >= 1.0:
                carried -= 1.0
                factor[g] = 1.0 / chance
