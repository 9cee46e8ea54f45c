"""What a zero point means for counts: the scale that brings them to a stack's, and the limit that noise sets."""

from __future__ import annotations

import numpy as np

STACK_ZEROPOINT_MAG = 30.0
"""Zero point of stacks (AB, effective exposure 1 s), as TERAPIX's were."""


def flux_scale(zeropoint_mag: float, exposure_time_s: float) -> float:
    """Factor (FLXSCALE) that brings counts to zero point 30 and 1 s."""
    return float(10.0 ** (0.4 * (STACK_ZEROPOINT_MAG - zeropoint_mag)) / exposure_time_s)


def limiting_mag(zeropoint_mag: float, limiting_flux_adu: float, exposure_time_s: float) -> float:
    """Magnitude of the faintest point source that is told from noise."""
    return float(zeropoint_mag - 2.5 * np.log10(limiting_flux_adu / exposure_time_s))
