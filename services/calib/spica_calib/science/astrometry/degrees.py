"""The degree of the distortion: the highest that predicts left-out detections better than the lower ones do."""

from __future__ import annotations

import numpy as np
from spica_imaging.polynomial import terms

from spica_calib.science.astrometry.crossid import Groups
from spica_calib.science.astrometry.kernels import Flags, Index
from spica_calib.science.astrometry.rounds import Rounds, Ties
from spica_calib.science.stars import Floats

_SHARE = 5
"""One detection in so many is left out."""
_MOST, _PER_PLANE = 25_000, 400
"""Detections that are looked at: more would not decide otherwise."""
_NOTHING_ARCSEC = 1e-3
"""Terms of the start WCS that are smaller are what one tangent plane leaves in another."""
_SURE = 2.0
"""A higher degree must be better by so many standard errors of the difference."""


def _thinned(groups: Groups, most: int) -> Groups:
    """Every so many-th group, so that about `most` detections are left."""
    if len(groups.members) <= most:
        return groups
    chosen = np.arange(0, len(groups), int(np.ceil(len(groups.members) / most)))
    count = groups.count[chosen]
    offsets = np.concatenate(([0], np.cumsum(count)))
    members = np.repeat(groups.offsets[chosen] - offsets[:-1], count) + np.arange(offsets[-1])
    return Groups(offsets, groups.members[members], groups.star[chosen])


def _left_out(n: int) -> Flags:
    """Which of n detections are left out: as good as by chance, and always the same."""
    mixed = np.arange(n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return ((mixed >> np.uint64(40)) % np.uint64(_SHARE) == 0).view(np.uint8)


def _losses(rounds: Rounds, ties: Ties, degree: int) -> Floats:
    """Squared errors of prediction of left-out detections, in units of their variance; NaN for the others."""
    saved = rounds.state, rounds.degrees.copy(), rounds.inverse, rounds.rounds
    rounds.state = saved[0].copy()
    out = _left_out(len(rounds.layout.u))
    try:
        set_degrees(rounds, np.minimum(np.full_like(rounds.degrees, degree), rounds.layout.degree))
        rounds.step(ties, rounds.settle(ties, out), 1e-2, fresh=True)
        means = rounds.settle(ties, out)
    finally:
        rounds.state, rounds.degrees, rounds.inverse, rounds.rounds = saved
    members = ties.groups.members
    tied = np.repeat((means.total > 0) | (means.star_weight > 0), ties.groups.count)
    square = (means.pull**2).sum(axis=1) / rounds.variance[members]
    return np.where((out[members] > 0) & tied & (ties.plane >= 0), square, np.nan)


def set_degrees(rounds: Rounds, degrees: Index) -> None:
    """Free contexts to these degrees; terms above are what is known of them, else nothing."""
    rounds.degrees = degrees
    above = rounds.total[None, :] > np.maximum(rounds.plane_degrees(), 1)[:, None]
    rounds.state.planes = np.where(above[:, None, :], rounds.goal, rounds.state.planes)
    rounds.state.update_places(rounds.layout)


def choose_degrees(rounds: Rounds, ties: Ties) -> list[str]:
    """Find and set the degree of every context; says where it is lower than asked for."""
    n_planes = len(rounds.layout.planes)
    if not n_planes or rounds.layout.degree <= 1:
        return []
    thin = rounds.tie(_thinned(ties.groups, max(_MOST, _PER_PLANE * n_planes)))
    context = rounds.layout.plane_context[np.maximum(thin.plane, 0)]
    chosen = np.maximum(rounds.known_degrees(), 1).astype(np.int32)
    lowest = int(chosen.min())
    best = _losses(rounds, thin, lowest)
    highest = int(rounds.caps.max(initial=1))
    for degree in range(lowest + 1, min(rounds.options.degree, highest) + 1):
        losses = _losses(rounds, thin, degree)
        for number in range(len(chosen)):
            if degree <= chosen[number]:
                continue
            mine = (context == number) & np.isfinite(losses) & np.isfinite(best)
            # Outliers on either side say nothing about the degree.
            limit = 9.0 * float(np.median(best[mine])) if mine.any() else 0.0
            gain = np.minimum(best[mine], limit) - np.minimum(losses[mine], limit)
            if len(gain) >= 4 and gain.mean() > _SURE * gain.std() / np.sqrt(len(gain)):
                chosen[number] = degree
                best = np.where(context == number, losses, best)
    set_degrees(rounds, chosen)
    return [
        f"Context {name!r}: degree {degree} of {rounds.options.degree}, as far as the matches bear."
        for name, degree in zip(rounds.layout.contexts, chosen, strict=True)
        if degree < rounds.options.degree
    ]
