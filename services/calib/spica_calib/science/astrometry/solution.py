"""From the solved model to what is handed out: WCS, detections with residuals, merged positions."""

from __future__ import annotations

import numpy as np
from spica_imaging.polynomial import design, terms, tpv_family
from spica_imaging.wcs import MAX_DEGREE, TpvWcs

from spica_calib.science._jit import jit
from spica_calib.science.astrometry.kernels import Index, Singles
from spica_calib.science.astrometry.means import Means
from spica_calib.science.astrometry.normal import Inverse
from spica_calib.science.astrometry.normal_kernels import AIR_FIRST, AIR_FREE_DEGREE
from spica_calib.science.astrometry.problem import Detections, MergedSources
from spica_calib.science.astrometry.refraction import AIR_DEGREE, Complex
from spica_calib.science.astrometry.rounds import Rounds, Ties
from spica_calib.science.astrometry.sky import ARCSEC_PER_RAD, coordinates_deg
from spica_calib.science.stars import Floats, Ints

_ERROR_GRID = 5
_AIR_BENDS_TO = 3
"""Lowest degree of a WCS that the air is part of."""


# ---- WCS ----


def wcs_of(rounds: Rounds, exposure: int) -> list[TpvWcs]:
    """WCS of all CCDs of an exposure, in the order it has them."""
    layout, state = rounds.layout, rounds.state
    units = np.flatnonzero(layout.unit_exposure == exposure)
    numbers = layout.unit_plane[units]
    coefficients = state.planes[numbers]
    degree = layout.degree
    while degree > 1 and not coefficients[:, :, len(terms(degree - 1)) : len(terms(degree))].any():
        degree -= 1
    if state.air_on[exposure]:
        degree = max(degree, _AIR_BENDS_TO)
    degree = min(degree, MAX_DEGREE)
    # Chebyshev's points: a polynomial of that degree is met exactly, a smooth function nearly so everywhere.
    side = np.cos(np.pi * (np.arange(degree + 3) + 0.5) / (degree + 3))
    u, v = (grid.ravel() for grid in np.meshgrid(side, side))
    basis = design(u, v, layout.degree)
    place = _tangent(rounds, exposure, np.einsum("nat,pt->nap", coefficients, basis))
    fitted = np.einsum("tp,nap->nta", np.linalg.pinv(design(u, v, degree)), place) / 3600.0
    pointing = state.pointing[exposure]
    centres = np.array([layout.planes[k].centre for k in numbers])
    halves = np.array([layout.planes[k].half for k in numbers])
    found = tpv_family((float(pointing[0]), float(pointing[1])), centres, halves, fitted, degree)
    ordered = sorted(zip(layout.unit_ccd[units].tolist(), found, strict=True), key=lambda pair: pair[0])
    return [wcs for _, wcs in ordered]


def _tangent(rounds: Rounds, exposure: int, focal: Floats) -> Floats:
    """From the focal plane to the tangent plane of an exposure; axis 1 is xi, eta."""
    state = rounds.state
    f = focal[:, 0] + 1j * focal[:, 1]
    shift, turn, shear = (complex(*state.maps[exposure, 2 * k : 2 * k + 2]) for k in range(3))
    p = shift + turn * f + shear * np.conj(f)
    if state.air_on[exposure]:
        air = state.air[exposure, 0] + 1j * state.air[exposure, 1]
        p = p + design(p.real / state.air_unit, p.imag / state.air_unit, AIR_DEGREE) @ air
    return np.stack((p.real, p.imag), axis=1)


def error_grid(nx: int, ny: int, centre: tuple[float, float], half: float) -> tuple[Floats, Floats]:
    """Normalised places on a grid over a CCD, its corners among them."""
    u, v = np.meshgrid(
        (np.linspace(0.5, nx + 0.5, _ERROR_GRID) - centre[0]) / half,
        (np.linspace(0.5, ny + 0.5, _ERROR_GRID) - centre[1]) / half,
    )
    return u.ravel(), v.ravel()


def model_variance(rounds: Rounds, inverse: Inverse, exposure: int, unit: int) -> Floats:
    """Variance per axis (arcsec²) of the WCS of a unit on `error_grid`, as the fit's covariance says."""
    layout, state = rounds.layout, rounds.state
    number, ccd = int(layout.unit_plane[unit]), layout.ccd(unit)
    plane = layout.planes[number]
    basis = design(*error_grid(ccd.nx, ccd.ny, plane.centre, plane.half), layout.degree)
    focal = (basis @ (state.planes[number, 0] + 1j * state.planes[number, 1])) / state.air_unit
    turn = complex(*state.maps[exposure, 2:4])
    own = np.column_stack((np.ones_like(focal), focal, np.conj(focal)))
    if rounds.n_own > AIR_FIRST:
        at = turn * focal
        own = np.column_stack((own, design(at.real, at.imag, AIR_FREE_DEGREE)[:, 3:]))
    free = int(layout.free[exposure])
    bent: Complex = turn * basis.astype(np.complex128)
    variance = np.einsum("gi,ij,gj->g", bent, inverse.plane(number), np.conj(bent)).real
    variance += np.einsum("gi,ij,gj->g", own, inverse.own(free), np.conj(own)).real
    variance += 2.0 * np.einsum("gi,ij,gj->g", bent, inverse.between(number, free), np.conj(own)).real
    return np.maximum(variance, 0.0)


# ---- detections ----


@jit
def _to_local(
    groups: Ints,
    frames: Floats,
    exposure: Index,
    place: Floats,
    members: Index,
    vectors: Singles,
    out: Floats,
) -> None:
    """Turn small differences in groups' frames (arcsec) into mas along RA·cos(Dec) and Dec at each member."""
    for g in range(len(groups) - 1):
        frame = frames[exposure[members[groups[g]]]]
        for k in range(groups[g], groups[g + 1]):
            i = members[k]
            own = frames[exposure[i]]
            x, y = place[i, 0] / ARCSEC_PER_RAD, place[i, 1] / ARCSEC_PER_RAD
            a = own[0, 0] + x * own[1, 0] + y * own[2, 0]
            b = own[0, 1] + x * own[1, 1] + y * own[2, 1]
            c = own[0, 2] + x * own[1, 2] + y * own[2, 2]
            flat, size = np.sqrt(a * a + b * b), np.sqrt(a * a + b * b + c * c)
            flat = max(flat, 1e-12)
            d0 = vectors[k, 0] * frame[1, 0] + vectors[k, 1] * frame[2, 0]
            d1 = vectors[k, 0] * frame[1, 1] + vectors[k, 1] * frame[2, 1]
            d2 = vectors[k, 0] * frame[1, 2] + vectors[k, 1] * frame[2, 2]
            depth = a * frame[0, 0] + b * frame[0, 1] + c * frame[0, 2]
            # The place in the frame's plane is (a, b, c) / depth: differences there are longer than on the sphere.
            scale = 1000.0 * depth / size
            along = (a * d0 + b * d1 + c * d2) / (size * size)
            d0, d1, d2 = d0 - along * a, d1 - along * b, d2 - along * c
            out[k, 0] = scale * (a * d1 - b * d0) / flat
            out[k, 1] = scale * ((a * a + b * b) * d2 - c * (a * d0 + b * d1)) / (flat * size)


def _local_mas(rounds: Rounds, ties: Ties, vectors: Singles) -> Floats:
    out = np.empty((len(vectors), 2))
    _to_local(
        ties.groups.offsets, rounds.state.frames, rounds.layout.exposure, rounds.state.places, ties.groups.members,
        vectors, out,
    )  # fmt: skip
    return out


def group_of_members(ties: Ties) -> Index:
    """Group of every member, shape (m,)."""
    return np.repeat(np.arange(len(ties.groups), dtype=np.int32), ties.groups.count)


def _input_order(rounds: Rounds, members: Index) -> Index:
    """Order of members, shape (m,), by exposure and CCD of the input and row."""
    layout = rounds.layout
    sizes = np.diff(layout.starts)
    units = np.lexsort((layout.unit_ccd, layout.order[layout.unit_exposure]))
    begin = np.empty(len(units), np.int64)
    begin[units] = np.cumsum(sizes[units]) - sizes[units]
    where = np.full(len(layout.u), -1, np.int32)
    unit = layout.unit[members]
    where[begin[unit] + members - layout.starts[unit]] = np.arange(len(members), dtype=np.int32)
    return where[where >= 0]


def detections_of(rounds: Rounds, ties: Ties, means: Means) -> tuple[Detections, Index]:
    """All grouped detections in the input's order, and which member of a group each is."""
    layout, members, group = rounds.layout, ties.groups.members, group_of_members(ties)
    inside = np.empty(len(layout.order), np.int64)
    inside[:] = layout.order
    order = _input_order(rounds, members)
    # A star that the others cut is not this source's; where nobody agrees with anybody it stays for the record.
    lost = (means.star_weight == 0) & (means.agreeing > 0)
    star = np.where(lost, -1, ties.groups.star)[group]
    external = _local_mas(rounds, ties, means.inner + means.outer[group].astype(np.float32))[order]
    internal = _local_mas(rounds, ties, means.inner)[order]
    group, star, members = group[order], star[order], members[order]
    external[star < 0] = np.nan
    internal[ties.groups.count[group] < 2] = np.nan
    return (
        Detections(
            exposure=inside[layout.exposure[members]].astype(np.int32),
            ccd=layout.unit_ccd[layout.unit[members]],
            row=layout.row[members],
            group=group,
            star=star.astype(np.int32),
            kept=(means.weight > 0)[order],
            field_deg=rounds.state.places[members] / 3600.0,
            external_mas=external,
            internal_mas=internal,
            sigma_mas=1000.0 * np.sqrt(rounds.variance[members].astype(np.float64)),
        ),
        order,
    )


# ---- merged positions ----


@jit
def _spread_model(
    unit: Index,
    u: Singles,
    v: Singles,
    weight: Singles,
    groups: Ints,
    table: Floats,
    box: Floats,
    out: Floats,
) -> None:
    """Weighted mean per group of the model's variance at its members, from the nearest point of their units' grids."""
    side = _ERROR_GRID - 1
    for g in range(len(groups) - 1):
        total, summed = 0.0, 0.0
        for k in range(groups[g], groups[g + 1]):
            low_u, low_v, high_u, high_v = box[unit[k]]
            i = int(min(max(side * (u[k] - low_u) / (high_u - low_u) + 0.5, 0.0), side + 0.0))
            j = int(min(max(side * (v[k] - low_v) / (high_v - low_v) + 0.5, 0.0), side + 0.0))
            total += weight[k]
            summed += weight[k] * table[unit[k], j * _ERROR_GRID + i]
        out[g] = summed / total if total > 0.0 else 0.0


def merged(rounds: Rounds, ties: Ties, means: Means, variance: Floats) -> MergedSources:
    """Mean positions of the detections of every group that agree, at the exposures' mean epoch.

    `variance`: of the model, shape (units, grid points), arcsec², taken to be common to all detections of a source.
    """
    layout, offsets = rounds.layout, ties.groups.offsets
    box = np.tile(np.array([-1.0, -1.0, 1.0, 1.0]), (len(layout.unit_plane), 1))
    for unit, number in enumerate(layout.unit_plane):
        if number >= 0:
            ccd, plane = layout.ccd(unit), layout.planes[number]
            u, v = error_grid(ccd.nx, ccd.ny, plane.centre, plane.half)
            box[unit] = u[0], v[0], u[-1], v[-1]
    of_model = np.zeros(len(ties.groups))
    _spread_model(ties.unit, ties.u, ties.v, means.weight, offsets, variance, box, of_model)
    good = np.flatnonzero(means.total > 0)
    frames = rounds.state.frames[layout.exposure[ties.groups.members[offsets[:-1][good]]]]
    at = np.concatenate((np.ones((len(good), 1)), means.mean[good] / ARCSEC_PER_RAD), axis=1)
    ra, dec = coordinates_deg(np.einsum("gi,gij->gj", at, frames))
    total = 1e6 * (1.0 / means.total[good] + of_model[good])
    return MergedSources(
        ra,
        dec,
        np.stack((total, np.zeros_like(total), total), axis=1),
        means.agreeing[good],
        good.astype(np.int32),
    )
