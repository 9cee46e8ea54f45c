"""The degree of the distortion: that which predicts left-out detections best; in doubt, the usual one.

Every degree is fitted by itself: terms above it are nothing (or what is known), whatever the exposures came with. The
usual degree is left for a lower one where that predicts better, or as well and the usual one is not borne to the
corners of CCDs; and for a higher one only where that predicts better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from spica_calib.science.astrometry.crossid import Groups
from spica_calib.science.astrometry.kernels import Index
from spica_calib.science.astrometry.rounds import Rounds, Ties
from spica_calib.science.astrometry.solution import model_variance
from spica_calib.science.stars import Bools, Floats

_PARTS = 5
"""One detection in so many is left out,"""
_FEW = 5_000
"""and where there are no more than these, one part after the other."""
_STEPS = 2
_MOST, _PER_PLANE = 25_000, 400
"""Detections that are looked at: more would not decide otherwise."""
_USUAL = 3
"""Cameras' distortions are of this degree or higher: a lower one must be shown to do, as a higher one."""
_SURE, _SURE_HIGHER = 2.0, 1.0
"""Better means: by so many standard errors of the difference; for degrees above the usual one."""
_HOPELESS = -5.0
"""Where one degree is worse by so many, those below it need not be tried."""
_OUTLIER = 3.0


def _thinned(groups: Groups, most: int) -> Groups:
    """Every so many-th group, so that about `most` detections are left."""
    if len(groups.members) <= most:
        return groups
    chosen = np.arange(0, len(groups), int(np.ceil(len(groups.members) / most)))
    count = groups.count[chosen]
    offsets = np.concatenate(([0], np.cumsum(count)))
    members = np.repeat(groups.offsets[chosen] - offsets[:-1], count) + np.arange(offsets[-1])
    return Groups(offsets, groups.members[members], groups.star[chosen])


def _part(n: int) -> Index:
    """Which of `_PARTS` parts each of n detections belongs to: as good as by chance, and always the same."""
    mixed = np.arange(n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return ((mixed >> np.uint64(40)) % np.uint64(_PARTS)).astype(np.int32)


@dataclass(frozen=True, slots=True)
class _Tried:
    """How one degree does."""

    losses: Floats
    """Squared errors of prediction of left-out detections, in units of their variance; inf: no longer tied, NaN: not
    left out. In the order of members."""
    corner: Floats
    """Variance per axis (arcsec²) of each plane at its worst corner."""


def _tried(rounds: Rounds, ties: Ties, degree: int) -> _Tried:
    """Fit planes to this degree, in several parts if there are few detections, each time without that part."""
    saved = rounds.state, rounds.degrees.copy(), rounds.inverse, rounds.rounds
    members = ties.groups.members
    part = _part(len(rounds.layout.u))
    losses = np.full(len(members), np.nan)
    corner = np.zeros(len(rounds.layout.planes))
    try:
        for number in range(_PARTS if len(members) <= _FEW else 1):
            rounds.state = saved[0].copy()
            out = (part == number).view(np.uint8)
            set_degrees(rounds, np.minimum(np.full_like(rounds.degrees, degree), rounds.layout.degree))
            for k in range(_STEPS):
                rounds.step(ties, rounds.settle(ties, out), 1e-2, fresh=k == 0)
            means = rounds.settle(ties, out)
            tied = np.repeat((means.total > 0) | (means.star_weight > 0), ties.groups.count)
            square = (means.pull**2).sum(axis=1) / rounds.variance[members]
            mine = (out[members] > 0) & (ties.plane >= 0)
            losses[mine] = np.where(tied, square, np.inf)[mine]
            if number == 0:
                corner = _corners(rounds)
    finally:
        rounds.state, rounds.degrees, rounds.inverse, rounds.rounds = saved
    return _Tried(losses, corner)


def _corners(rounds: Rounds) -> Floats:
    layout, found = rounds.layout, np.zeros(len(rounds.layout.planes))
    planes, units = np.unique(layout.unit_plane, return_index=True)
    for number, unit in zip(planes, units, strict=True):
        if number >= 0 and rounds.inverse is not None:
            exposure = int(layout.unit_exposure[unit])
            found[number] = model_variance(rounds, rounds.inverse, exposure, int(unit)).max()
    return found


def set_degrees(rounds: Rounds, degrees: Index) -> None:
    """Free contexts to these degrees; terms above are what is known of them, else nothing."""
    rounds.degrees = degrees
    above = rounds.total[None, :] > np.maximum(rounds.plane_degrees(), 1)[:, None]
    rounds.state.planes = np.where(above[:, None, :], rounds.goal, rounds.state.planes)
    rounds.state.update_places(rounds.layout)


def _gain(before: Floats, after: Floats, limit: float) -> tuple[float, float]:
    """By how much errors of prediction are smaller, on average, and how well that is known."""
    # Outliers on either side say nothing about the degree.
    gain = np.minimum(before, limit) - np.minimum(after, limit)
    if len(gain) < 4:
        return 0.0, np.inf
    return float(gain.mean()), float(gain.std() / np.sqrt(len(gain)))


def _best(
    rounds: Rounds, tried: Callable[[int], _Tried], usual: int, lowest: int, mine: Bools, planes: Bools
) -> int:
    """The degree of one context, whose members and planes are told."""
    losses = tried(usual).losses[mine]
    finite = losses[np.isfinite(losses)]
    limit = _OUTLIER**2 * float(np.median(finite)) if len(finite) else 0.0
    scatter = float(np.median(rounds.variance)) + float(
        np.median(rounds.star_variance) if len(rounds.stars) else 0
    )
    chosen = usual
    for degree in range(usual - 1, lowest - 1, -1):
        gain, error = _gain(tried(chosen).losses[mine], tried(degree).losses[mine], limit)
        borne = float(np.median(tried(chosen).corner[planes])) <= scatter
        if gain > _SURE * error or (not borne and gain > -error):
            chosen = degree
        elif gain < _HOPELESS * error:
            break
    # The highest only: those between cost time, and say little that it does not.
    for degree in (rounds.options.degree,) if rounds.options.degree > usual else ():
        gain, error = _gain(tried(chosen).losses[mine], tried(degree).losses[mine], limit)
        if gain > _SURE_HIGHER * error:
            chosen = degree
    return chosen


def choose_degrees(rounds: Rounds, ties: Ties) -> list[str]:
    """Find and set the degree of every context; says where it is lower than asked for."""
    n_planes, asked = len(rounds.layout.planes), rounds.options.degree
    if not n_planes or rounds.layout.degree <= 1 or not len(ties.groups):
        return []
    thin = rounds.tie(_thinned(ties.groups, max(_MOST, _PER_PLANE * n_planes)))
    context = rounds.layout.plane_context[np.maximum(thin.plane, 0)]
    lowest = np.maximum(rounds.known_degrees(), 1).astype(np.int32)
    chosen = np.maximum(lowest, min(_USUAL, asked)).astype(np.int32)

    @cache
    def tried(degree: int) -> _Tried:
        return _tried(rounds, thin, degree)

    for number in range(len(chosen)):
        mine = (context == number) & ~np.isnan(tried(int(chosen[number])).losses)
        planes = rounds.layout.plane_context == number
        chosen[number] = _best(rounds, tried, int(chosen[number]), int(lowest[number]), mine, planes)
    set_degrees(rounds, chosen)
    return [
        f"Context {name!r}: degree {degree} of {asked}, as far as the matches bear."
        for name, degree in zip(rounds.layout.contexts, chosen, strict=True)
        if degree < asked
    ]
