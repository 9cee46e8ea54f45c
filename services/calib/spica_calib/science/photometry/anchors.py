"""What the absolute scale stands on: headers of photometric nights, own zero points, the context, or nothing.

Exposures that share sources, directly or through others, form a component: one known zero point is worth one for all
of them. Clouds only ever make stars fainter, so of several that are said to be clear the clearest is believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spica_calib.science.photometry.problem import Options, PhotometricExposure
from spica_calib.science.stars import Bools, Floats

NOMINAL_ZEROPOINT_MAG = 25.0
"""Stands in where nothing says what an exposure's counts are worth: the scale is then relative only."""
_OWN_SIGMA_MAG = 0.05
_CLOUDED_SIGMA_MAG = 0.3
_TOLERANCE_MAG = 0.03
"""Headers of clear exposures agree to this, or to three standard errors."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A zero point that somebody says an exposure has."""

    mag: float
    sigma_mag: float
    why: str


def airmass_term(exposure: PhotometricExposure, options: Options) -> float:
    """Magnitudes per airmass (negative): the header's, else the profile's, else 0."""
    if exposure.header_airmass_term_mag is not None:
        return exposure.header_airmass_term_mag
    return options.airmass_terms.get(exposure.context, 0.0)


def airmass_part(exposure: PhotometricExposure, options: Options) -> float:
    """What the airmass adds to the zero point of airmass 1."""
    return airmass_term(exposure, options) * ((exposure.airmass or 1.0) - 1.0)


def is_clear(exposure: PhotometricExposure, options: Options) -> bool | None:
    """Whether the sky was clear, as the flag and the sky monitor say; None: neither says."""
    if exposure.is_photometric is False:
        return False
    if exposure.absorption_mag is not None:
        return exposure.absorption_mag <= options.absorption_limit_mag
    return exposure.is_photometric


def _sky(exposure: PhotometricExposure, options: Options) -> str:
    clear = is_clear(exposure, options)
    flag = {True: "flagged photometric", False: "flagged not photometric", None: ""}[exposure.is_photometric]
    seen = "" if exposure.absorption_mag is None else f"sky monitor saw {exposure.absorption_mag:.2f} mag"
    said = ", ".join(part for part in (flag, seen) if part)
    return said or ("clear" if clear else "nothing says whether the sky was clear")


def header_claim(exposure: PhotometricExposure, options: Options) -> Claim | None:
    """What the header says of a clear sky; None where it says nothing."""
    zero = exposure.header_zeropoint_mag
    nominal = zero is None
    if zero is None:
        zero = exposure.header_nominal_zeropoint_mag
    if zero is None:
        return None
    part = airmass_part(exposure, options)
    sigma = float(np.hypot(exposure.header_zeropoint_sigma_mag or 0.02, options.header_floor_mag))
    if exposure.airmass is None:
        sigma = float(np.hypot(sigma, 0.05))
        at = "airmass not known"
    else:
        at = f"{airmass_term(exposure, options):+.3f} mag per airmass at airmass {exposure.airmass:.2f}"
    if nominal:
        sigma = float(np.hypot(sigma, options.context_sigma_mag))
    kind = "nominal zero point" if nominal else "zero point"
    return Claim(
        zero + part,
        sigma,
        f"header: {kind} {zero:.3f}, {at}, gives {zero + part:.3f} ({_sky(exposure, options)})",
    )


def own_claim(exposure: PhotometricExposure) -> Claim | None:
    """The zero point found when the image was calibrated by itself, if it stood on something."""
    zero = exposure.own_zeropoint_mag
    if zero is None or not np.isfinite(zero) or exposure.own_anchor in ("context", "none", "header"):
        return None
    sigma = exposure.own_zeropoint_sigma_mag
    return Claim(zero, max(sigma or _OWN_SIGMA_MAG, 0.001), f"its own calibration gave {zero:.3f}")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Anchors of one component."""

    members: NDArray[np.intp]
    """Exposures that are anchors."""
    claims: tuple[Claim, ...]
    kind: str
    """own or header."""
    refused: dict[int, str]
    """Exposures that claimed a zero point and were not believed, and why."""


def choose(
    component: NDArray[np.intp], relative: Floats, exposures: Sequence[PhotometricExposure], options: Options
) -> Chosen | None:
    """Anchors of a component without reference stars: own zero points, else headers of photometric exposures."""
    own = {int(e): claim for e in component if (claim := own_claim(exposures[e])) is not None}
    if own:
        return _believe(own, relative, "own")
    header = {
        int(e): claim
        for e in component
        if is_clear(exposures[e], options)
        and exposures[e].header_zeropoint_mag is not None
        and (claim := header_claim(exposures[e], options)) is not None
    }
    return _believe(header, relative, "header") if header else None


def _believe(claims: dict[int, Claim], relative: Floats, kind: str) -> Chosen:
    members = np.array(sorted(claims), dtype=np.intp)
    shift = np.array([claims[int(e)].mag - relative[e] for e in members])
    sigma = np.array([claims[int(e)].sigma_mag for e in members])
    limit = np.maximum(_TOLERANCE_MAG, 3.0 * sigma)
    # A shift too large is a sky less clear than was said.
    level = _clearest(shift) if kind == "header" else float(np.median(shift))
    believed = np.abs(shift - level) <= limit
    if not believed.any():
        believed[int(np.argmin(np.abs(shift - level)))] = True
    refused = {
        int(
            e
        ): f"{claims[int(e)].why}, but its stars are {away:.2f} mag {'fainter' if away > 0 else 'brighter'} "
        "than on others said to be clear"
        for e, away, good in zip(members, shift - level, believed, strict=True)
        if not good
    }
    return Chosen(members[believed], tuple(claims[int(e)] for e in members[believed]), kind, refused)


def _clearest(shift: Floats) -> float:
    """The smallest shift that is no freak: the lowest of few, the lower fifth of many."""
    return float(np.min(shift)) if len(shift) < 5 else float(np.percentile(shift, 20))


@dataclass(frozen=True, slots=True)
class ClearSky:
    """The zero point of a context under a clear sky at airmass 1."""

    mag: float
    sigma_mag: float
    n: int


def clear_sky(
    zero: Floats, anchored: Bools, exposures: Sequence[PhotometricExposure], options: Options
) -> dict[str, ClearSky]:
    """Per context: the mean of the clearest anchored exposures, at airmass 1."""
    found: dict[str, list[float]] = {}
    for e, exposure in enumerate(exposures):
        if anchored[e]:
            found.setdefault(exposure.context, []).append(float(zero[e]) - airmass_part(exposure, options))
    clear = {}
    for context, values in found.items():
        at_one = np.array(values)
        top = -_clearest(-at_one)
        best = at_one[at_one > top - 0.05]
        scatter = float(np.std(best)) if len(best) > 1 else 0.02
        clear[context] = ClearSky(float(np.median(best)), scatter, len(values))
    return clear


def expected(exposure: PhotometricExposure, clear: dict[str, ClearSky], options: Options) -> Claim | None:
    """What an exposure's zero point would be from its context, or its header, alone; None: nothing says."""
    sky = clear.get(exposure.context)
    if sky is not None:
        part = airmass_part(exposure, options)
        zero, sigma = sky.mag + part, float(np.hypot(sky.sigma_mag, options.context_sigma_mag))
        why = f"{sky.n} anchored exposures of its context give {zero:.3f} at its airmass ({_sky(exposure, options)})"
    else:
        claim = header_claim(exposure, options)
        if claim is None:
            return None
        zero, sigma, why = claim.mag, float(np.hypot(claim.sigma_mag, options.context_sigma_mag)), claim.why
    if exposure.absorption_mag is not None and exposure.absorption_mag > 0:
        zero -= exposure.absorption_mag
        why += f", less {exposure.absorption_mag:.2f} mag that the sky monitor saw"
    elif is_clear(exposure, options) is False:
        sigma = float(np.hypot(sigma, _CLOUDED_SIGMA_MAG))
    return Claim(zero, sigma, why)


def absorption(
    zero: float, exposure: PhotometricExposure, clear: dict[str, ClearSky], options: Options
) -> float | None:
    """How far a zero point lies below the clear sky's at the same airmass; None where that is not known.

    The clear sky is what at least three anchored exposures of the context agree on, else what the header says; the
    header also where all of the context lies far below it.
    """
    sky = clear.get(exposure.context)
    part = airmass_part(exposure, options)
    told = exposure.header_zeropoint_mag
    level = sky.mag if sky is not None and sky.n >= 3 else None
    if told is not None and (level is None or told - level > 0.1):
        level = told
    return None if level is None else level + part - zero
