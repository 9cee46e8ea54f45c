"""How likely a match is a play of chance."""

from __future__ import annotations

import math


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
