"""Robust rounds: solve, look at the scatter, judge every detection and every reference star, solve again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from spica_imaging.stats import SIGMA_PER_MAD

from spica_calib.science.photometry import judging
from spica_calib.science.photometry.problem import Index, Options
from spica_calib.science.photometry.system import Prior, State, begin, refresh, step
from spica_calib.science.photometry.ties import Layout, Ties
from spica_calib.science.stars import Bools, Floats

_HUBER = 2.0
_SETTLED_MAG = 2e-5
_BRIGHT_MAG = 0.02
"""Scatter is looked for where photon noise is below this, or among the fifth with the least."""
_FEW = 20
_ENOUGH, _ENOUGH_EACH = 500_000, 300
"""So many detections, in all and of each exposure, are enough for the first rounds."""
_STRANGE = 1.5
"""An exposure has a scatter of its own if its variance is so many times larger or smaller than that of all."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How detections scatter. Shape (exposures,); NaN where too few share their sources."""

    sigma_mag: Floats
    overall_mag: float
    numbers: Index
    """Detections that share their source with others."""
    chi2: float
    """Reduced, against photon noise and floors; NaN without."""


def measure_spread(layout: Layout, ties: Ties, state: State) -> tuple[Spread, Floats]:
    """Scatter between exposures, and the variance beyond photon noise that it asks for, per exposure."""
    n = layout.n_exposures
    histogram = np.zeros((n, judging.N_BINS), dtype=np.int32)
    noise, squares = np.zeros(n), np.zeros(n)
    numbers = np.zeros(n, dtype=np.int32)
    sample = ties.variance[:: max(1, len(ties) // 100_000)]
    bright = max(_BRIGHT_MAG**2, float(np.percentile(sample, 20))) if len(sample) else _BRIGHT_MAG**2
    judging.spread(
        ties.start,
        ties.exposure,
        state.value,
        ties.variance,
        state.weight,
        bright,
        histogram,
        noise,
        numbers,
        squares,
    )
    counts = histogram.sum(axis=1)
    sigma = _sigmas(histogram)
    overall = float(_sigmas(histogram.sum(axis=0)[None, :])[0])
    photon = noise / np.maximum(counts, 1)
    photon_overall = float(noise.sum() / max(int(counts.sum()), 1))
    extra = np.zeros(n)
    if counts.sum() >= _FEW:
        pooled = max(overall**2 - photon_overall, 0.0)
        ratio = sigma**2 / (photon + pooled + 1e-12)
        strange = (counts >= _FEW) & ((ratio > _STRANGE) | (ratio < 1.0 / _STRANGE))
        extra = np.where(strange, np.maximum(sigma**2 - photon, 0.0), pooled)
    total = int(numbers.sum())
    # Each source with n detections takes one degree of freedom: scaled residuals make up for it.
    chi2 = float(squares.sum() / total) if total else float("nan")
    return Spread(np.where(counts >= 5, sigma, np.nan), overall, numbers, chi2), extra


def _sigmas(histogram: Index) -> Floats:
    """Robust standard deviations from histograms of |residual|, along the last axis; NaN for empty ones."""
    summed = np.cumsum(histogram, axis=-1)
    half = summed[:, -1:] / 2.0
    place = np.argmax(summed >= half, axis=-1)
    sigma: Floats = np.where(summed[:, -1] > 0, SIGMA_PER_MAD * judging.bin_centres()[place], np.nan)
    return sigma


@dataclass(frozen=True, slots=True)
class External:
    """Reference minus the mean of a source's detections. Shape (sources,)."""

    residual_mag: Floats
    """NaN where there is no reference or no detection with weight."""
    variance: Floats
    """Of the mean."""
    sigma_mag: float
    """Robust standard deviation of the better half; NaN without."""
    chi2: float


def measure_external(ties: Ties, state: State) -> tuple[External, float]:
    """How reference stars scatter, and the variance beyond their errors that it asks for."""
    own = state.total - state.reference_weight
    usable = np.isfinite(ties.reference) & (own > 1e-6 * np.maximum(state.total, 1e-300))
    rest = np.where(usable, own, 1.0)
    reference = np.where(usable, ties.reference, 0.0)
    mean = np.where(usable, state.mean * state.total - state.reference_weight * reference, 0.0) / rest
    residual = np.where(usable, reference - mean, np.nan)
    variance = np.where(usable, 1.0 / rest, np.inf)
    expected = (ties.reference_variance + variance)[usable]
    if len(expected) < 3:
        return External(residual, variance, float("nan"), float("nan")), 0.0
    better = expected <= np.median(expected)
    away = np.abs(residual[usable])
    sigma = SIGMA_PER_MAD * float(np.median(away[better]))
    extra = max(sigma**2 - float(np.median(expected[better])), 0.0)
    kept = state.reference_factor[usable] > 0
    chi2 = float(np.mean(away[kept] ** 2 / expected[kept])) if kept.any() else float("nan")
    return External(residual, variance, sigma, chi2), extra


def relax(
    layout: Layout,
    ties: Ties,
    state: State,
    prior: Prior,
    options: Options,
    *,
    patience: int = 3,
    warm: bool = False,
    allowed: Bools | None = None,
) -> None:
    """Go through the rounds until nothing moves.

    `patience`: rounds without cuts, for the first solutions are too far off to tell outliers. `warm`: the state is
    about right already, and judged before the first solution. `allowed`: sources whose reference may count (all if
    None).
    """
    refresh(layout, ties, state)
    if warm:
        _judge(layout, ties, state, np.inf, allowed)
    for number in range(options.rounds):
        solved = step(layout, ties, state, prior, options.dense_limit)
        moved = float(np.max(np.abs(solved.unknowns - state.unknowns), initial=0.0))
        state.unknowns = solved.unknowns
        refresh(layout, ties, state)
        _judge(layout, ties, state, options.clip_sigma if number >= patience else np.inf, allowed)
        if number > patience and moved < _SETTLED_MAG:
            break


def relax_first(layout: Layout, ties: Ties, state: State, prior: Prior, options: Options) -> None:
    """The first rounds. Of very many sources some are enough to begin with: the others join once these have settled."""
    every = _thinning(layout, ties)
    if every > 1:
        some = ties.every(every)
        start = begin(layout, some, state.unknowns, float(np.sqrt(state.extra.max(initial=0.0))))
        relax(layout, some, start, prior, options)
        state.unknowns, state.extra, state.reference_extra = (
            start.unknowns,
            start.extra,
            start.reference_extra,
        )
    # Overlaps that the few did not show are found now: without cuts, once more.
    relax(layout, ties, state, prior, options, patience=3 if every <= 1 else 1, warm=every > 1)


def _thinning(layout: Layout, ties: Ties) -> int:
    """Take every so many-th source first: some hundred thousand detections in all, hundreds of every exposure."""
    if len(ties) < 2 * _ENOUGH:
        return 1
    poorest = int(np.bincount(ties.exposure, minlength=layout.n_exposures).min())
    return max(1, min(len(ties) // _ENOUGH, poorest // _ENOUGH_EACH))


def _judge(layout: Layout, ties: Ties, state: State, cut: float, allowed: Bools | None) -> None:
    """Scatter and factors anew, and what follows from them."""
    _, state.extra = measure_spread(layout, ties, state)
    external, state.reference_extra = measure_external(ties, state)
    judging.judge(
        ties.start,
        ties.exposure,
        state.value,
        ties.variance,
        state.extra,
        np.where(np.isfinite(ties.reference), ties.reference, 0.0),
        state.reference_weight,
        _HUBER,
        cut,
        state.factor,
    )
    _judge_references(ties, state, external, cut, allowed)
    refresh(layout, ties, state)


def _judge_references(
    ties: Ties, state: State, external: External, cut: float, allowed: Bools | None
) -> None:
    has = np.isfinite(external.residual_mag)
    sigma = np.sqrt(ties.reference_variance + state.reference_extra + external.variance)
    ratio = np.where(has, np.abs(external.residual_mag), 0.0) / sigma
    factor = np.where(ratio <= _HUBER, 1.0, _HUBER / np.maximum(ratio, _HUBER))
    factor[ratio > cut] = 0.0
    if allowed is not None:
        has = has & allowed
    state.reference_factor = np.where(has, factor, 0.0)
