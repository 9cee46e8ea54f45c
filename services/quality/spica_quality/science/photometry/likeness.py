"""How much a source looks like a point: CLASS_STAR from the size alone, no neural network."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx

Floats = NDArray[np.float64]

_SPREAD_SCALE: Final = 0.005
"""SPREAD_MODEL of the smallest galaxies that are frequent."""
_SPREAD_WIDTH: Final = 0.001
"""How far stars scatter about 0 beyond their errors: the model of the profile is not perfect."""
_SIZE_SCALE: Final = 0.15
"""ln(size / size of a star) of the smallest galaxies that are frequent."""
_SIZE_WIDTH: Final = 0.03
_SHARP_SHARE: Final = 0.1
"""Odds for something sharper than a star (cosmic rays, hot pixels) against a star, before looking."""
_FAR: Final = -30.0


def star_likeness(excess: Floats, error: Floats, scale: float) -> Floats:
    """Probability, 0 to 1, that a size that exceeds a star's by `excess` ± `error` is a star's.

    Three hypotheses: a star (excess 0), a galaxy (excess s distributed as s exp(-s / scale), most frequent at
    `scale`) and, ten times rarer, something sharper (the same below 0); each smeared with the error. Where the
    error is much larger than `scale` nothing can be told, and the result is near 1/2. NaN in, NaN out.
    """
    sigma = np.maximum(error, 1e-9)
    with np.errstate(invalid="ignore", over="ignore"):
        star = -0.5 * (excess / sigma) ** 2 - np.log(np.sqrt(2.0 * np.pi) * sigma)
        larger = _smeared(excess, sigma, scale)
        sharper = _smeared(-excess, sigma, scale) + np.log(_SHARP_SHARE)
        highest = np.maximum(np.maximum(star, larger), sharper)
        parts = [np.exp(part - highest) for part in (star, larger, sharper)]
    return np.asarray(parts[0] / (parts[0] + parts[1] + parts[2]))


def _smeared(excess: Floats, sigma: Floats, scale: float) -> Floats:
    """Logarithm of s exp(-s / h) / h², s > 0, smeared with a normal distribution.

    With t = excess / sigma - sigma / h it is a normal density at `excess` times
    sigma / h² (1 + t Phi(t) / phi(t)). The last factor goes as 1 / t² far below 0.
    """
    t = excess / sigma - sigma / scale
    mills = np.sqrt(0.5 * np.pi) * erfcx(-t / np.sqrt(2.0))  # Phi(t) / phi(t)
    # Above about 37 erfcx overflows; phi(t) is then as good as nothing beside Phi(t) = 1.
    large = t > -_FAR
    normal = -0.5 * (excess / sigma) ** 2 - 0.5 * np.log(2.0 * np.pi) + np.log(sigma / scale**2)
    factor = np.where(t < _FAR, 1.0 / np.minimum(t, _FAR) ** 2, 1.0 + t * np.where(large, 0.0, mills))
    tail = 0.5 * (sigma / scale) ** 2 - excess / scale + np.log(np.maximum(t, 1.0) * sigma / scale**2)
    return np.asarray(np.where(large, tail, normal + np.log(factor)), dtype=np.float64)


def class_star(
    spread: Floats, spread_error: Floats, log_size: Floats, log_size_error: Floats
) -> NDArray[np.float32]:
    """CLASS_STAR: from SPREAD_MODEL and its error; where these are NaN, from ln(size / star's size) and its error.

    0 where neither is known.
    """
    by_spread = star_likeness(spread, np.hypot(spread_error, _SPREAD_WIDTH), _SPREAD_SCALE)
    by_size = star_likeness(log_size, np.hypot(log_size_error, _SIZE_WIDTH), _SIZE_SCALE)
    return np.nan_to_num(np.where(np.isfinite(by_spread), by_spread, by_size)).astype(np.float32)
