"""How likely a match is a play of chance."""

from __future__ import annotations

import math

import numpy as np

WIDENED = 1.5
"""Neighbours by chance are counted within this times the radius: what a grid of maps must have to cover all maps."""


def log10_false_match(
    n_matched: int, n_tried: int, p_single: float, n_hypotheses: float, n_free: int
) -> float:
    """Upper bound of log10 of the probability that so many matches come about by chance.

    Each of `n_tried` objects meets a neighbour by chance with probability `p_single`; the tail of the
    binomial distribution is bounded by Chernoff (exp(-n KL(k/n || p))) and multiplied by the number
    of hypotheses that were looked at (Bonferroni). `n_free` matches are spent on the free parameters
    of the transformation. 0 means: nothing speaks against chance.
    """
    k, n = n_matched - n_free, n_tried - n_free
    if k <= 0 or n <= 0:
        return 0.0
    k = min(k, n)
    p = min(max(p_single, 1e-300), 1.0)
    share = k / n
    if share <= p:
        return 0.0
    divergence = share * math.log(share / p)
    if share < 1.0:
        divergence += (1 - share) * math.log((1 - share) / (1 - p))
    return min(0.0, math.log10(max(n_hypotheses, 1.0)) - n * divergence / math.log(10))


def log10_maps(
    shift: float, rotation_rad: float, scale: float, shear: float, half_diagonal: float, radius: float
) -> float:
    """How many maps (log10) must be tried so that none of a range is missed; lengths in one unit.

    Every map in the range (shift of either sign along two axes, rotation, relative scale, and shear where it is
    free) then has one on the grid that differs from it by less than half of `radius` on all of the frame. What any map
    matches within `radius`, a map of the grid matches within `WIDENED` times as much: so the number of maps on the
    grid times the chance of one of them bounds the chance of the best of all, however it was found.
    """
    # Half a step along each of a pair of parameters moves a point along two directions at right angles: shifts, rotation
    # and scale, two shears; each pair by step / sqrt(2) at most.
    pairs = 2.0 if shear == 0.0 else 3.0
    step = (WIDENED - 1.0) * radius * math.sqrt(2.0) / pairs
    arm = half_diagonal * (1.0 + scale)
    spans = [shift, shift, min(rotation_rad, math.pi) * arm, scale * arm]
    if shear > 0.0:
        spans += [shear * arm] * 2
    return float(np.sum(np.log10([2.0 * span / step + 1.0 for span in spans])))
