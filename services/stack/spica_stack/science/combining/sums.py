"""Sums of a weighted mean, to which exposures can be added later, and what each addition gained.

Adding layers one by one, in the order in which they would have been combined at once, gives the same bits as
combining them at once: both are the same additions in single precision, layer after layer. Single precision is
enough: after 500 exposures the mean of a bright star is off by 5e-7 of its flux (rms), that of blank sky by less than
1e-4 of its noise; double precision would take twice the memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spica_stack.science._jit import jit
from spica_stack.science.combining.linear import add_weighted, finish_weighted
from spica_stack.science.combining.result import Combined, Image, Layers
from spica_stack.science.combining.rows import ZERO, Floats, Ints

Counts = NDArray[np.int32]

MANTISSA_BITS = 12
"""How finely gains are told apart: 2⁻¹² in weight, 1.3e-4 mag in depth."""
LARGEST_LOG2 = 32
"""Weights may grow or shrink by 2 to this power; what is beyond counts as that."""
_BINS = 2 * LARGEST_LOG2 << MANTISSA_BITS


@dataclass(frozen=True, slots=True)
class Sums:
    """Of one tile, or of a whole stack: images of one shape; w = 1 / variance of a sample, p its priority."""

    total: Image
    """Σ p w v."""
    share: Image
    """Σ p w."""
    square: Image
    """Σ p² w."""
    exposures: Counts
    """int32: how many layers were added."""

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> Sums:
        """Sums of nothing."""
        total, share, square = (np.zeros(shape, np.float32) for _ in range(3))
        return cls(total, share, square, np.zeros(shape, np.int32))


@jit
def _add(
    value: Floats,
    weight: Floats,
    priority: np.float32,
    total: Floats,
    share: Floats,
    square: Floats,
    count: Ints,
) -> None:
    for row in range(len(value)):
        add_weighted(value[row], weight[row], priority, total[row], share[row], square[row], count[row])


@jit
def _finish(
    total: Floats,
    share: Floats,
    square: Floats,
    count: Ints,
    out: Floats,
    out_weight: Floats,
    out_count: NDArray[np.int16],
) -> None:
    for row in range(len(out)):
        finish_weighted(
            total[row], share[row], square[row], count[row], out[row], out_weight[row], out_count[row]
        )


def accumulate(
    sums: Sums, value: Layers, weight: Layers, priority: NDArray[np.float32] | float = 1.0
) -> None:
    """Add a layer, shape (height, width), or several, (n, height, width), to the sums, in place.

    What counts as a sample is what `combine` says; a layer of priority 0 adds nothing.
    """
    value, weight = np.atleast_3d(value.T).T, np.atleast_3d(weight.T).T
    for layer, p in enumerate(np.broadcast_to(np.asarray(priority, np.float32), len(value))):
        if p > 0:
            one, its_weight = np.ascontiguousarray(value[layer]), np.ascontiguousarray(weight[layer])
            _add(one, its_weight, p, sums.total, sums.share, sums.square, sums.exposures)


def finish(sums: Sums) -> Combined:
    """The weighted mean that the sums are of."""
    shape = sums.total.shape
    value, weight, count = np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty(shape, np.int16)
    _finish(sums.total, sums.share, sums.square, sums.exposures, value, weight, count)
    return Combined(value, weight, count)


@dataclass(frozen=True, slots=True)
class MarginalGain:
    """What exposures added to a stack. Gains of the tiles of a stack add up to that of the stack."""

    histogram: NDArray[np.int64]
    """Of the factors by which weights changed, in the order of size, where there was a value before and some were added."""
    n_new: int
    """Pixels covered now and not before."""
    n_covered: int
    """Pixels covered now."""

    def __add__(self, other: MarginalGain) -> MarginalGain:
        return MarginalGain(
            self.histogram + other.histogram, self.n_new + other.n_new, self.n_covered + other.n_covered
        )

    @property
    def depth_mag(self) -> float | None:
        """Median gain in limiting magnitude where stack and additions overlap; None where they do not.

        The faintest flux seen goes with the noise, w^(-1/2), and the magnitude with -2.5 log10 of it: the gain is
        1.25 log10(w_after / w_before). Negative where what was added was given more weight than its noise is worth.
        """
        n = int(self.histogram.sum())
        if n == 0:
            return None
        place = int(np.searchsorted(np.cumsum(self.histogram), (n + 1) // 2))
        # Factors are ordered by their bits: exponent first, then mantissa.
        exponent, mantissa = divmod(place, 1 << MANTISSA_BITS)
        if mantissa == 0 and exponent == LARGEST_LOG2:
            return 0.0
        factor = 2.0 ** (exponent - LARGEST_LOG2) * (1.0 + (mantissa + 0.5) / (1 << MANTISSA_BITS))
        return float(1.25 * np.log10(factor))

    @property
    def newly_covered(self) -> float:
        """Share of the pixels now covered that were not before; 0 if none is."""
        return self.n_new / self.n_covered if self.n_covered else 0.0


@jit
def _tally(
    before: Floats,
    after: Floats,
    n_before: NDArray[np.int16],
    n_after: NDArray[np.int16],
    histogram: NDArray[np.int64],
) -> tuple[int, int]:
    height, width = before.shape
    factor = np.empty(width, np.float32)
    bits = factor.view(np.int32)
    n_new, n_covered = 0, 0
    for row in range(height):
        for c in range(width):
            factor[c] = after[row, c] / before[row, c]
            n_new += 1 if (after[row, c] > ZERO) & (before[row, c] <= ZERO) else 0
            n_covered += 1 if after[row, c] > ZERO else 0
        for c in range(width):
            if (before[row, c] > ZERO) & (after[row, c] > ZERO) & (n_after[row, c] != n_before[row, c]):
                place = (bits[c] >> (23 - MANTISSA_BITS)) - ((127 - LARGEST_LOG2) << MANTISSA_BITS)
                histogram[min(max(place, 0), len(histogram) - 1)] += 1
    return n_new, n_covered


def marginal_gain(before: Combined, after: Combined) -> MarginalGain:
    """What was gained by the exposures that `after` has and `before` has not (same pixels)."""
    histogram = np.zeros(_BINS, np.int64)
    n_new, n_covered = _tally(before.weight, after.weight, before.exposures, after.exposures, histogram)
    return MarginalGain(histogram, n_new, n_covered)
