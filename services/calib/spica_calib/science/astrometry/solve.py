"""The astrometric solution of exposures together: one sky for all of them.

Sources seen in several exposures, and the reference stars, tie the exposures together. Their positions are
eliminated from the least-squares problem; planes of the instrument, maps of the exposures and the air are found at
once, in rounds of cross-identification, weighing and a linear step (Gauss-Newton), matrix-free. The cost is linear
in the number of detections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from spica_calib.science.astrometry.crossid import StarField
from spica_calib.science.astrometry.degrees import choose_degrees
from spica_calib.science.astrometry.layout import Layout, lay_out
from spica_calib.science.astrometry.means import Means
from spica_calib.science.astrometry.models import instrument_models
from spica_calib.science.astrometry.normal import Inverse, inverse_of
from spica_calib.science.astrometry.problem import (
    AstrometricSolution,
    Exposure,
    ExposureSolution,
    InstrumentModel,
    Options,
)
from spica_calib.science.astrometry.report import Numbers, matches_and_chance, notes_of, numbers_of
from spica_calib.science.astrometry.rounds import Rounds, Ties
from spica_calib.science.astrometry.solution import (
    detections_of,
    group_of_members,
    merged,
    model_variance,
    wcs_of,
)
from spica_calib.science.astrometry.start import begin
from spica_calib.science.stars import Floats, Stars

_FIRST_ROUNDS, _LAST_STEPS = 4, 5
_COARSE_DETECTIONS, _COARSE_PER_UNIT = 2e6, (60, 1000)
_ALL = 200_000
"""Detections that are looked at all from the beginning."""
_BY_CHANCE = 3.0, 2.0
"""Matches with stars must be so many times what chance gives and so many more per exposure, as the WCS come;"""
_BY_CHANCE_LATER = 10.0, 6.0
"""or, where the radius is so wide that this cannot be, when all is solved, for a fit makes some matches itself."""


def solve(
    exposures: Sequence[Exposure],
    stars: Stars,
    options: Options | None = None,
    known: Mapping[str, InstrumentModel] | None = None,
) -> AstrometricSolution:
    """Solve exposures together, from WCS that are good to the radius of cross-identification.

    `known`: what earlier exposures taught of instrument contexts; their planes are then held to that, and come back
    improved. Exposures that are `held` keep their WCS. Sources with a NaN place are left out. The result does not
    depend on the order of exposures or CCDs. Reference stars that match no better than by chance are not used, and a
    note says so.
    """
    options, known = options or Options(), known or {}
    layout = lay_out(exposures, stars, options, known)
    rounds, ties, means, extra_notes, credible = _solved(layout, options, known)
    if not credible:
        extra_notes = ["Reference stars match no better than by chance: they are not used."]
        layout = replace(layout, stars=_no_stars(layout.stars), notes=[])
        rounds, ties, means, more, _ = _solved(layout, options, known)
        extra_notes += more
    return _told(rounds, ties, means, options, known, extra_notes)


def _no_stars(stars: StarField) -> StarField:
    return StarField(stars.vectors[:0], stars.motion[:0], stars.error_arcsec[:0], stars.epoch_year)


def _loosened(layout: Layout, known: Mapping[str, InstrumentModel], information: Floats) -> Floats:
    """Standard deviation (arcsec) of each plane's place from exposure to exposure; loosens `information` by it."""
    drift = np.zeros(len(layout.planes))
    for number, plane in enumerate(layout.planes):
        if plane.context in known and information[number].any():
            drift[number] = known[plane.context].repeat_mas / 1000.0
            column = information[number][:, :1]
            factor = drift[number] ** 2 / (1.0 + drift[number] ** 2 * information[number][0, 0])
            information[number] -= factor * column @ column.T
    return drift


def _solved(
    layout: Layout, options: Options, known: Mapping[str, InstrumentModel]
) -> tuple[Rounds, Ties, Means, list[str], bool]:
    rounds = _begun(layout.brightest(_coarse_size(layout)), options, known)
    ties = rounds.associate()
    credible = _credible(rounds, ties, *_BY_CHANCE)
    means = rounds.weigh(ties)
    notes: list[str] = []
    if np.any(layout.free >= 0):
        ties, means = _approached(rounds, ties, means)
        if not options.degree_fixed:
            notes = choose_degrees(rounds, ties)
            rounds.step(ties, rounds.settle(ties), 1e-1, fresh=True)
            means = rounds.weigh(ties)
            rounds.narrow()
        # Large problems are large in memory: what is done with goes first.
        del ties, means
        rounds.take(layout)
        ties = rounds.associate()
        means = rounds.weigh(ties)
        rounds.count(ties, means)
        ties, means = rounds.settled(ties, means, _LAST_STEPS)
    credible = credible or _credible(rounds, ties, *_BY_CHANCE_LATER)
    return rounds, ties, means, notes, credible


def _begun(layout: Layout, options: Options, known: Mapping[str, InstrumentModel]) -> Rounds:
    state, goal, information = begin(layout, options, known)
    _loosened(layout, known, information)
    return Rounds(layout, state, options, goal, information, layout.stars)


def _credible(rounds: Rounds, ties: Ties, ratio: float, per_exposure: float) -> bool:
    matched, by_chance, tried = matches_and_chance(rounds, ties)
    return matched == 0 or matched >= ratio * by_chance + per_exposure * tried


def _coarse_size(layout: Layout) -> int:
    """Detections per unit that the first rounds look at: the brightest find the way as well as all do."""
    if len(layout.u) <= _ALL:
        return len(layout.u)
    units = max(len(layout.unit_plane), 1)
    return int(np.clip(_COARSE_DETECTIONS / units, *_COARSE_PER_UNIT))


def _approached(rounds: Rounds, ties: Ties, means: Means) -> tuple[Ties, Means]:
    """Rounds from the WCS that the exposures came with, until what belongs together is clear."""
    for k in range(_FIRST_ROUNDS):
        rounds.count(ties, means)
        moved = rounds.step(ties, means, 1e-1, fresh=k == 0 or rounds.few)
        means = rounds.weigh(ties)
        rounds.learn_bend()
        narrower = rounds.narrow()
        if k and not narrower and moved < 0.1 * rounds.radius:
            break
        ties = rounds.associate()
        means = rounds.weigh(ties)
    rounds.count(ties, means)
    return ties, means


def _told(
    rounds: Rounds,
    ties: Ties,
    means: Means,
    options: Options,
    known: Mapping[str, InstrumentModel],
    notes: list[str],
) -> AstrometricSolution:
    layout = rounds.layout
    inverse: Inverse | None = None
    if np.any(layout.free >= 0) and layout.planes:
        inverse = rounds.inverse or inverse_of(rounds.linear(ties, means))
    variance = np.zeros((len(layout.unit_plane), 25))
    for unit in np.flatnonzero(layout.unit_plane >= 0):
        if inverse is not None:
            variance[unit] = model_variance(rounds, inverse, int(layout.unit_exposure[unit]), int(unit))
    detections, order = detections_of(rounds, ties, means)
    numbers = numbers_of(rounds, ties, means, detections, order, group_of_members(ties))
    drift = _loosened(layout, known, np.array([np.eye(layout.n_terms)] * len(layout.planes)))
    solved: list[ExposureSolution | None] = [None] * len(layout.order)
    for e, place in enumerate(layout.order):
        solved[place] = _exposure(rounds, e, numbers.exposures[place], variance)
    whole = numbers.whole
    return AstrometricSolution(
        exposures=tuple(one for one in solved if one is not None),
        models=instrument_models(rounds, ties, means, inverse, known, drift),
        detections=detections,
        n_external=whole.n_external,
        n_internal=int(np.count_nonzero(means.agreeing >= 2)),
        external_mas=whole.external_mas,
        internal_mas=whole.internal_mas,
        chi2_external=whole.chi2_external,
        chi2_internal=whole.chi2_internal,
        rounds=rounds.rounds,
        sources=merged(rounds, ties, means, variance) if options.with_positions else None,
        notes=(*layout.notes, *notes, *notes_of(rounds, ties, means)),
    )


def _exposure(rounds: Rounds, e: int, numbers: Numbers, variance: Floats) -> ExposureSolution:
    layout = rounds.layout
    exposure = layout.exposures[e]
    if exposure.held:
        wcs, degree = [ccd.wcs for ccd in exposure.ccds], max([1, *(ccd.wcs.degree for ccd in exposure.ccds)])
    else:
        wcs, degree = wcs_of(rounds, e), int(rounds.degrees[layout.exposure_context[e]])
    units = np.flatnonzero(layout.unit_exposure == e)
    return ExposureSolution(
        wcs=tuple(wcs),
        degree=degree,
        n_external=numbers.n_external,
        n_internal=numbers.n_internal,
        external_mas=numbers.external_mas,
        internal_mas=numbers.internal_mas,
        chi2_external=numbers.chi2_external,
        chi2_internal=numbers.chi2_internal,
        model_error_mas=1000.0 * float(np.sqrt(variance[units].max(initial=0.0))),
        extra_mas=1000.0 * float(rounds.extra[e]),
    )
