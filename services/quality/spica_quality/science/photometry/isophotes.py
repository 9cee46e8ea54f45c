"""What is measured over a source's own pixels, run by run: one pass over the detected pixels of the frame."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit
from spica_quality.science.flags import UNUSABLE, Bit
from spica_quality.science.photometry.stamps import Field

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]

_UNUSABLE: Final = int(UNUSABLE)
_SATURATED: Final = int(Bit.SATURATED)

ISOPHOTES: Final = np.dtype(
    [
        ("flux", "f8"),
        ("light_xx", "f8"),
        ("light_yy", "f8"),
        ("light_xy", "f8"),
        ("plain_xx", "f8"),
        ("plain_yy", "f8"),
        ("plain_xy", "f8"),
        ("inverse_weight", "f8"),
        ("n", "i4"),
        ("n_lost", "i4"),
        ("n_saturated", "i4"),
        ("reasons", "i4"),
    ]
)
"""Per source: sum of I; sums of max(I, 0) d² and of d² over its pixels (d: distance from its barycentre along x, y);
mean of 1 / weight; pixels, unusable ones, saturated ones; all their flags together."""


@jit
def isophotes(field: Field, x: Floats, y: Floats, weight: Pixels, result: NDArray[np.void]) -> None:
    """Fill `result` (zeros, of type ISOPHOTES, shape (n,)) for sources at x, y.

    `weight`: relative weight of each pixel, shape of the frame; shape (0, 0) for 1 everywhere.
    """
    weighted = weight.shape[0] > 0
    ny = field.data.shape[0]
    for j in range(ny):
        for k in range(field.row_start[j], field.row_start[j + 1]):
            row = result[field.run_label[k] - 1]
            x0, dy = x[field.run_label[k] - 1], j - y[field.run_label[k] - 1]
            for i in range(field.run_x0[k], field.run_x1[k]):
                reasons = field.flags[j, i]
                row.n += 1
                if reasons != 0:
                    row.reasons |= reasons
                    row.n_saturated += (reasons & _SATURATED) != 0
                    if (reasons & _UNUSABLE) != 0:
                        row.n_lost += 1
                        continue
                value, dx = field.data[j, i], i - x0
                if not abs(value) < 1e25:
                    row.n_lost += 1
                    continue
                light = max(value, 0.0)
                row.flux += value
                row.light_xx += light * dx * dx
                row.light_yy += light * dy * dy
                row.light_xy += light * dx * dy
                row.plain_xx += dx * dx
                row.plain_yy += dy * dy
                row.plain_xy += dx * dy
                row.inverse_weight += 1.0 / weight[j, i] if weighted and weight[j, i] > 0.0 else 1.0
    for k in range(result.shape[0]):
        row = result[k]
        sound = row.n - row.n_lost
        row.inverse_weight = row.inverse_weight / sound if sound > 0 else 1.0
