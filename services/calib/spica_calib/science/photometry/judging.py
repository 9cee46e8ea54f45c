"""Loops over detections: who is an outlier, how detections scatter, what hangs together.

Detections come sorted by source, as in `kernels`.
"""

from __future__ import annotations

import numpy as np

from spica_calib.science._jit import jit
from spica_calib.science.photometry.kernels import Singles, Starts
from spica_calib.science.photometry.problem import Index
from spica_calib.science.stars import Bools, Floats

N_BINS = 600
"""Bins of the histograms of |residual|: logarithmic from 1e-5 to 10 mag, each 2.3 % wide."""
_LOG_LOW, _PER_E = np.log(1e-5), 600 / np.log(1e6)


@jit
def judge(
    start: Starts,
    exposure: Index,
    value: Floats,
    variance: Singles,
    extra: Floats,
    reference: Floats,
    reference_weight: Floats,
    huber: float,
    cut: float,
    factor: Singles,
) -> None:
    """New factors of detections: 1 inside `huber` sigma, falling beyond, 0 beyond `cut`.

    Residuals are taken from the mean of all others of the source, with its error. What was cut may come back.
    """
    for g in range(len(start) - 1):
        w_all = reference_weight[g]
        s_all = w_all * reference[g] if w_all > 0 else 0.0
        for i in range(start[g], start[g + 1]):
            w = factor[i] / (variance[i] + extra[exposure[i]])
            w_all += w
            s_all += w * value[i]
        for i in range(start[g], start[g + 1]):
            own = variance[i] + extra[exposure[i]]
            w = factor[i] / own
            w_other = w_all - w
            # Nothing left of the others but rounding: there is nothing to be judged by.
            if w_other <= 1e-9 * (w_all + 1.0 / own):
                value_ratio = 0.0 if factor[i] > 0 else np.inf
            else:
                away = value[i] - (s_all - w * value[i]) / w_other
                value_ratio = abs(away) / np.sqrt(own + 1.0 / w_other)
            if not value_ratio <= cut:
                factor[i] = 0.0
                # The next of this source are judged without it.
                w_all -= w
                s_all -= w * value[i]
            else:
                factor[i] = 1.0 if value_ratio <= huber else huber / value_ratio


@jit
def spread(
    start: Starts,
    exposure: Index,
    value: Floats,
    variance: Singles,
    weight: Floats,
    bright: float,
    histogram: Index,
    noise: Floats,
    numbers: Index,
    squares: Floats,
) -> None:
    """How detections scatter about the mean of their source's detections, exposure by exposure.

    `histogram` (exposures, N_BINS): |residual| of those with variance up to `bright`, as large as if the mean were
    exact; `noise` (exposures,): sum of their variances; `numbers` (exposures,): all with weight that share their
    source with others; `squares` (exposures,): sum of their residuals² over variances.
    """
    for g in range(len(start) - 1):
        total = 0.0
        s = 0.0
        for i in range(start[g], start[g + 1]):
            total += weight[i]
            s += weight[i] * value[i]
        if total <= 0:
            continue
        mean = s / total
        for i in range(start[g], start[g + 1]):
            share = weight[i] / total
            if weight[i] == 0 or share > 0.999:
                continue
            e = exposure[i]
            square = (value[i] - mean) ** 2 / (1.0 - share)
            numbers[e] += 1
            squares[e] += square / variance[i]
            if variance[i] <= bright:
                place = 0
                if square > 1e-10:
                    place = int((0.5 * np.log(square) - _LOG_LOW) * _PER_E)
                histogram[e, min(place, N_BINS - 1)] += 1
                noise[e] += variance[i]


@jit
def count_references(
    start: Starts, exposure: Index, factor: Singles, referenced: Bools, numbers: Index
) -> None:
    """Kept detections of stars with a reference, per exposure, into `numbers`."""
    for g in range(len(start) - 1):
        if referenced[g]:
            for i in range(start[g], start[g + 1]):
                if factor[i] > 0:
                    numbers[exposure[i]] += 1


@jit
def unite(start: Starts, exposure: Index, factor: Singles, parent: Index) -> None:
    """Join exposures that see a source in common (union-find); `parent` begins as 0, 1, 2 ..."""
    for g in range(len(start) - 1):
        root = -1
        for i in range(start[g], start[g + 1]):
            if factor[i] == 0:
                continue
            e = exposure[i]
            while parent[e] != e:
                parent[e] = parent[parent[e]]
                e = parent[e]
            if root < 0:
                root = e
            elif e < root:
                parent[root] = e
                root = e
            else:
                parent[e] = root


@jit
def residuals(
    start: Starts,
    order: Index,
    value: Floats,
    weight: Floats,
    factor: Singles,
    reference: Floats,
    reference_factor: Floats,
    out: Floats,
    kept: Bools,
) -> None:
    """Reference, else mean, minus calibrated, in the order of the input; and what was kept."""
    for g in range(len(start) - 1):
        total = 0.0
        s = 0.0
        for i in range(start[g], start[g + 1]):
            total += weight[i]
            s += weight[i] * value[i]
        has_reference = reference_factor[g] > 0
        for i in range(start[g], start[g + 1]):
            kept[order[i]] = factor[i] > 0
            if has_reference:
                out[order[i]] = reference[g] - value[i]
            elif total > 0 and weight[i] < 0.999999 * total:
                out[order[i]] = s / total - value[i]


def bin_centres() -> Floats:
    """|residual| in the middle of each bin, mag."""
    centres: Floats = np.exp((np.arange(N_BINS) + 0.5) / _PER_E + _LOG_LOW)
    return centres
