"""What the seeing of the exposures means for clipping and for weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def seeing_shares(fwhm: NDArray[np.float64], base: float) -> NDArray[np.float32]:
    """Share of the local flux by which each layer may differ, from its seeing (any unit; NaN: not known).

    A star's peak goes with 1 / FWHM²: a layer whose seeing differs from the median one may differ
    by as much more. Of an even number, both middle ones are the median (with two layers, each is
    compared with the other).
    """
    known = np.sort(fwhm[np.isfinite(fwhm) & (fwhm > 0)])
    if not len(known):
        return np.full(len(fwhm), base, dtype=np.float32)
    own = np.where(np.isfinite(fwhm) & (fwhm > 0), fwhm, np.nan)
    middle = known[[(len(known) - 1) // 2, len(known) // 2]]
    extra = np.max(np.abs((middle[:, None] / own) ** 2 - 1.0), axis=0)
    return (base + np.nan_to_num(extra, nan=0.0)).astype(np.float32)


def seeing_priorities(
    fwhm: NDArray[np.float64], ellipticity: NDArray[np.float64], power: float
) -> NDArray[np.float32]:
    """Factor on each layer's weight, from its seeing along the worse axis; 1 for the typical one.

    The signal-to-noise of a point source goes with 1 / (noise² × area of the PSF), so a sum in
    which sharp exposures count more is deeper than one weighted by the noise alone. Taken is the
    width along the major axis, FWHM² / (1 - e), so that a trailed exposure counts less than a round
    one of the same area. power 0: by the noise alone; 1: about deepest for point sources; 2:
    about as deep as 0 where the seeing does not differ by more than a third, but sharper and
    rounder. NaN (not known) counts as typical.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        area = fwhm**2 / (1.0 - np.clip(np.nan_to_num(ellipticity, nan=0.0), 0.0, 0.95))
        area = np.where(np.isfinite(area) & (area > 0), area, np.nan)
    if not np.any(np.isfinite(area)):
        return np.ones(len(fwhm), dtype=np.float32)
    ratio = np.nan_to_num(np.nanmedian(area) / area, nan=1.0)
    return np.clip(ratio**power, 1e-2, 1e2).astype(np.float32)
