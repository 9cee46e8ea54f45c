"""Weights of pixels: what noise, flat field and flags make of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spica_quality.science._jit import jit

Pixels = NDArray[np.float32]
Flags = NDArray[np.uint16]

_HIGHEST = 32767


def weight_steps(
    flags: Flags,
    rms: Pixels,
    relative_flat: Pixels | None,
    result: NDArray[np.int16],
    *,
    typical_rms: float,
    steps: int,
    detector_noise: float = 0.0,
) -> None:
    """Weight 1 / variance as whole numbers: `steps` for a pixel of typical noise, 0 for any flagged one, else 1 at least.

    The noise of the sky is measured over many pixels at a time, with the flat's large-scale structure in it. A pixel that is
    less sensitive than those around it by a factor f had its photons' noise divided by f after
    it was made from f times the light, and its detector noise divided by f: the variance is that of the surroundings times
    (1 - q) / f + q / f², where q is the detector's share of it. All detector gives the weight f² / rms²,
    all photons f / rms².

    Args:
        flags: flag map, shape (ny, nx); `result` may be the same memory.
        rms: noise of a pixel, same shape.
        relative_flat: the flat over its local mean, same shape, NaN where not known; None: no flat.
        result: where the steps go, same shape.
        typical_rms: noise that gives `steps`, same unit as `rms`.
        steps: up to 2047: weights up to 16 times the typical one then fit.
        detector_noise: noise of a pixel without light, same unit.

    """
    flat = np.empty((0, 0), np.float32) if relative_flat is None else relative_flat
    _weight_steps(flags, rms, flat, result, float(steps) * typical_rms**2, float(detector_noise) ** 2)


@jit
def _weight_steps(
    flags: Flags, rms: Pixels, flat: Pixels, result: NDArray[np.int16], scale: float, detector: float
) -> None:
    known = flat.shape[0] > 0
    for j in range(flags.shape[0]):
        for i in range(flags.shape[1]):
            variance = float(rms[j, i]) ** 2
            if flags[j, i] != 0 or not variance > 0.0:
                result[j, i] = 0
                continue
            weight = scale / variance
            if known and flat[j, i] > 0.0:
                f = float(flat[j, i])
                share = min(detector / variance, 1.0)
                weight *= f * f / ((1.0 - share) * f + share)
            result[j, i] = np.int16(min(max(np.rint(weight), 1.0), _HIGHEST))
