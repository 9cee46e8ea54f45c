"""What a solution has taught of the instrument: the planes of each context with their covariance.

A new context's planes are told for the mean of its exposures' maps, which is thereby 1. A known context's planes keep
what they were told for; new exposures add their information, each limited by how well the planes repeat.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from spica_imaging.polynomial import terms
from spica_imaging.stats import SIGMA_PER_MAD

from spica_calib.science.astrometry.means import Means
from spica_calib.science.astrometry.normal import Inverse
from spica_calib.science.astrometry.problem import CcdPlane, InstrumentModel
from spica_calib.science.astrometry.rounds import Rounds, Ties
from spica_calib.science.stars import Floats


def unit_offsets(rounds: Rounds, ties: Ties, means: Means) -> tuple[Floats, Floats]:
    """Mean of the pulls on every unit, shape (units, 2), arcsec, and its standard error per axis if all were well."""
    whole = rounds.linear(ties, means).whole
    weight = means.weight.astype(np.float64)
    ratio = weight / np.maximum(np.repeat(whole, ties.groups.count), 1e-300)
    share = weight * np.maximum(1.0 - ratio, 0.0)
    n_units = len(rounds.layout.unit_plane)
    # A detection that makes its group's mean pulls at nothing: stretched to what it would be against the truth.
    pull = means.pull / np.maximum(1.0 - ratio, 0.1)[:, None]
    total = np.maximum(np.bincount(ties.unit, share, n_units), 1e-300)
    mean = np.stack([np.bincount(ties.unit, share * pull[:, k], n_units) for k in (0, 1)], axis=1)
    return mean / total[:, None], 1.0 / np.sqrt(total)


def repeatability_mas(rounds: Rounds, ties: Ties, means: Means, context: int) -> float:
    """How far CCDs stand from where their context's plane says, per axis, from one exposure to the next."""
    mean, error = unit_offsets(rounds, ties, means)
    mine = (rounds.layout.unit_plane >= 0) & (error < 1.0)
    mine &= rounds.layout.plane_context[np.maximum(rounds.layout.unit_plane, 0)] == context
    if np.count_nonzero(mine) < 4:
        return 0.0
    spread = SIGMA_PER_MAD * float(np.median(np.abs(mean[mine])))
    return 1000.0 * float(np.sqrt(max(spread**2 - float(np.median(error[mine])) ** 2, 0.0)))


def instrument_models(
    rounds: Rounds,
    ties: Ties,
    means: Means,
    inverse: Inverse | None,
    known: Mapping[str, InstrumentModel],
    drift_arcsec: Floats,
) -> dict[str, InstrumentModel]:
    """Models of all contexts that were solved, after what these exposures taught.

    `drift_arcsec`: standard deviation of a plane's place that the prior was loosened by, per plane.
    """
    layout, models = rounds.layout, {}
    used = np.bincount(ties.plane[(means.weight > 0) & (ties.plane >= 0)], minlength=len(layout.planes))
    for number, context in enumerate(layout.contexts):
        members = np.flatnonzero((layout.exposure_context == number) & (layout.free >= 0))
        if inverse is None or not len(members):
            continue
        before = known.get(context)
        fresh = _of_mean_map(rounds, inverse, number, members) if before is None else {}
        planes = dict(before.ccds) if before is not None else {}
        for k in np.flatnonzero(layout.plane_context == number):
            name = layout.planes[k].name
            if name in planes:
                planes[name] = _updated(rounds, inverse, int(k), planes[name], float(drift_arcsec[k]))
            elif name in fresh:
                planes[name] = fresh[name]
            else:
                planes[name] = _plane(rounds, int(k), rounds.state.planes[k], inverse.plane(int(k)).real)
        repeat = repeatability_mas(rounds, ties, means, number)
        n_before = before.n_exposures if before is not None else 0
        if before is not None:
            mean = (n_before * before.repeat_mas**2 + len(members) * repeat**2) / (n_before + len(members))
            repeat = float(np.sqrt(mean))
        detections = int(used[layout.plane_context == number].sum())
        models[context] = InstrumentModel(
            context, planes, n_before + len(members),
            detections + (before.n_detections if before is not None else 0), repeat,
        )  # fmt: skip
    return models


def _plane(rounds: Rounds, number: int, coefficients: Floats, covariance: Floats) -> CcdPlane:
    """One CCD's plane, without the terms that were never free and are nothing."""
    plane, degree = rounds.layout.planes[number], rounds.layout.degree
    free = int(max(rounds.plane_degrees()[number], 1))
    while degree > free and not np.any(coefficients[:, len(terms(degree - 1)) : len(terms(degree))]):
        degree -= 1
    count = len(terms(degree))
    symmetric = (covariance + covariance.T) / 2.0
    return CcdPlane(
        plane.name,
        plane.centre,
        plane.half,
        degree,
        np.ascontiguousarray(coefficients[:, :count].T),
        np.ascontiguousarray(symmetric[:count, :count]),
    )


def _of_mean_map(
    rounds: Rounds,
    inverse: Inverse,
    context: int,
    members: NDArray[np.intp],
) -> dict[str, CcdPlane]:
    """Planes for the mean map of all exposures: what exposures and planes only have together is settled so."""
    layout, state = rounds.layout, rounds.state
    maps = state.maps[members]
    shift, turn, shear = (
        complex(maps[:, 2 * k].mean(), maps[:, 2 * k + 1].mean()) if k else 0j for k in (0, 1, 2)
    )
    columns, alone = inverse.mean_own(layout.free[members].astype(np.int32))
    t, found = layout.n_terms, {}
    for k in np.flatnonzero(layout.plane_context == context):
        old = state.planes[k, 0] + 1j * state.planes[k, 1]
        new = turn * old + shear * np.conj(old)
        new[0] += shift
        # By how much the new coefficients follow the mean of the exposures' own unknowns.
        follow = np.zeros((t, rounds.n_own), np.complex128)
        follow[0, 0] = 1.0
        follow[:, 1], follow[:, 2] = old / state.air_unit, np.conj(old) / state.air_unit
        cross = columns[k * t : (k + 1) * t] @ np.conj(follow).T * turn
        covariance = abs(turn) ** 2 * inverse.plane(int(k)) + cross + np.conj(cross).T
        covariance = covariance + follow @ alone @ np.conj(follow).T
        coefficients = np.stack((new.real, new.imag))
        found[layout.planes[k].name] = _plane(rounds, int(k), coefficients, covariance.real)
    return found


def _updated(rounds: Rounds, inverse: Inverse, number: int, before: CcdPlane, drift: float) -> CcdPlane:
    """A known plane after these exposures: information adds up, that of the new ones limited by the drift."""
    t = rounds.layout.n_terms
    count = len(before.coefficients)
    ridge = np.diag(1e-18 + 1e-10 * np.diag(before.covariance))
    prior = np.zeros((t, t))
    prior[:count, :count] = np.linalg.inv(before.covariance + ridge)
    told = np.zeros((t, 2))
    told[:count] = before.coefficients
    after = inverse.plane(number).real
    posterior = np.linalg.inv(after + np.diag(1e-18 + 1e-12 * np.diag(after)))
    gained = posterior - rounds.information[number]
    values, vectors = np.linalg.eigh((gained + gained.T) / 2.0)
    gained = (vectors * np.maximum(values, 0.0)) @ vectors.T
    now = rounds.state.planes[number].T
    # What the new data alone say, as information times place relative to what was known.
    news = posterior @ (now - told)
    limit = drift**2 / (1.0 + drift**2 * gained[0, 0])
    column = gained[:, :1]
    news = news - limit * column @ news[:1]
    gained = gained - limit * column @ column.T
    weak = np.zeros(t)
    weak[count:] = 1.0 / rounds.options.crossid_arcsec**2
    covariance = np.linalg.inv(prior + gained + np.diag(weak))
    coefficients = told + covariance @ news
    return _plane(rounds, number, coefficients.T, covariance)
