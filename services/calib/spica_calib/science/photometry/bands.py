"""Magnitudes of reference catalogues: which system they are in, and how good they typically are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spica_calib.science.stars import Floats


@dataclass(frozen=True, slots=True)
class BandSystem:
    """What is to be added to a band's magnitudes to make them AB, and who says so."""

    to_ab_mag: float
    source: str


_GAIA = "Riello et al. 2021, A&A 649, A3: zero points AB minus VEGAMAG of (E)DR3"
_BLANTON = "Blanton & Roweis 2007, AJ 133, 734, table 1"
_PS1 = "Tonry et al. 2012, ApJ 750, 99; Tonry et al. 2018, ApJ 867, 105: AB by definition"

AB_OFFSETS = {
    "G": BandSystem(25.8010446445 - 25.6873668671, _GAIA),
    "BP": BandSystem(25.3539555559 - 25.3385422158, _GAIA),
    "RP": BandSystem(25.1039837393 - 24.7478955012, _GAIA),
    **{band: BandSystem(0.0, _PS1) for band in ("g", "r", "i", "z", "y")},
    # SDSS meant u to be AB and missed it by 0.04.
    "u": BandSystem(-0.04, "SDSS DR13, flux calibration: u(AB) = u - 0.04"),
    "U": BandSystem(0.79, _BLANTON),
    "B": BandSystem(-0.09, _BLANTON),
    "V": BandSystem(0.02, _BLANTON),
    "R": BandSystem(0.21, _BLANTON),
    "I": BandSystem(0.45, _BLANTON),
    "J": BandSystem(0.91, _BLANTON),
    "H": BandSystem(1.39, _BLANTON),
    "Ks": BandSystem(1.85, _BLANTON),
}
"""By the names that `spica_imaging.references` gives to bands."""

# Median errors of Gaia DR3 at G = 13, 17, 20 (ESA, contents of DR3), of PS1 at 15, 20, 22 (Chambers et al. 2016).
_TYPICAL: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "G": ((13.0, 17.0, 20.0), (0.0002, 0.001, 0.006)),
    "BP": ((13.0, 17.0, 20.0), (0.0009, 0.012, 0.108)),
    "RP": ((13.0, 17.0, 20.0), (0.0006, 0.006, 0.052)),
    **dict.fromkeys(("g", "r", "i", "z", "y"), ((15.0, 20.0, 22.0), (0.003, 0.01, 0.05))),
}
_UNKNOWN_ERROR_MAG = 0.02


def to_ab(band: str, mag: Floats) -> tuple[Floats, bool]:
    """Magnitudes in AB, and whether the band's system is known at all (else they come back as they are)."""
    system = AB_OFFSETS.get(band)
    return (mag + system.to_ab_mag, True) if system else (mag, False)


def typical_error_mag(band: str, mag: Floats) -> Floats:
    """Standard errors for catalogues that do not give any: log-linear between published medians, 0.02 mag else."""
    known = _TYPICAL.get(band)
    if known is None:
        return np.where(np.isfinite(mag), _UNKNOWN_ERROR_MAG, np.nan)
    at, errors = np.array(known[0]), np.log(np.array(known[1]))
    slope = (errors[-1] - errors[-2]) / (at[-1] - at[-2])
    fainter = np.maximum(mag - at[-1], 0.0) * slope
    error: Floats = np.exp(np.interp(mag, at, errors) + fainter)
    return error
