"""The photometric zero point: what one count per second is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from spica_imaging.stats import SIGMA_PER_MAD

from spica_calib.science.stars import Bools, Floats

STACK_ZEROPOINT_MAG = 30.0
"""Zero point of stacks (AB, effective exposure 1 s), as TERAPIX's were."""
_MIN_STARS = 3
_ERROR_FLOOR_MAG = 0.01
"""Flat fields and apertures are not known better than this, however bright the star."""


@dataclass(frozen=True, slots=True)
class ZeroPoint:
    """Magnitude of 1 adu/s, its standard error, the scatter per star, and how many stars it stands on."""

    mag: float
    error_mag: float
    scatter_mag: float
    n: int
    band: str


def choose_band(wanted: str | None, mags: Mapping[str, Floats]) -> str | None:
    """Pick the catalogue's band for a filter.

    The band asked for, if the catalogue has it. Where none is asked for (a Clear filter), the only one
    the catalogue has. None where neither helps: a zero point in another band would be a wrong one.
    """
    if wanted is not None:
        return wanted if wanted in mags else None
    return next(iter(mags)) if len(mags) == 1 else None


def zero_point(
    band: str,
    catalogue_mag: Floats,
    flux_adu: Floats,
    flux_error_adu: Floats,
    exposure_time_s: float,
    clean: Bools,
) -> ZeroPoint | None:
    """Weighted mean of catalogue minus instrumental magnitude, iteratively clipped at 3 sigma.

    All arrays have shape (n,), one entry per matched star; stars that are not `clean` (saturated, blended)
    do not count. The scatter beyond photon noise (colour terms, variables) enters the weights. None with
    fewer than three stars.
    """
    good = clean & np.isfinite(catalogue_mag) & (flux_adu > 0) & (flux_error_adu > 0)
    if np.count_nonzero(good) < _MIN_STARS or exposure_time_s <= 0:
        return None
    flux, error = flux_adu[good], flux_error_adu[good]
    difference = catalogue_mag[good] + 2.5 * np.log10(flux / exposure_time_s)
    noise = np.hypot(1.0857 * error / flux, _ERROR_FLOOR_MAG)
    kept = np.ones(len(difference), dtype=bool)
    centre, spread = float(np.median(difference)), np.inf
    for _ in range(10):
        spread = SIGMA_PER_MAD * float(np.median(np.abs(difference[kept] - centre)))
        extra = max(spread**2 - float(np.median(noise[kept])) ** 2, 0.0)
        sigma = np.sqrt(noise**2 + extra)
        inside = np.abs(difference - centre) <= 3.0 * sigma
        if np.count_nonzero(inside) < _MIN_STARS:
            break
        centre = float(np.average(difference[inside], weights=1.0 / sigma[inside] ** 2))
        if np.array_equal(inside, kept):
            break
        kept = inside
    weight = 1.0 / (noise[kept] ** 2 + max(spread**2 - float(np.median(noise[kept])) ** 2, 0.0))
    return ZeroPoint(
        mag=centre,
        error_mag=float(1.0 / np.sqrt(weight.sum())),
        scatter_mag=spread,
        n=int(np.count_nonzero(kept)),
        band=band,
    )


def flux_scale(zeropoint_mag: float, exposure_time_s: float) -> float:
    """Factor (FLXSCALE) that brings counts to zero point 30 and 1 s."""
    return float(10.0 ** (0.4 * (STACK_ZEROPOINT_MAG - zeropoint_mag)) / exposure_time_s)


def limiting_mag(zeropoint_mag: float, limiting_flux_adu: float, exposure_time_s: float) -> float:
    """Magnitude of the faintest point source that is told from noise."""
    return float(zeropoint_mag - 2.5 * np.log10(limiting_flux_adu / exposure_time_s))
