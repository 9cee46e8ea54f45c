"""What the photometric solver is given, and what it gives back.

Model: magnitude of a star = instrumental magnitude (of 1 adu/s) + zero point of the exposure + illumination of the
(context, CCD) + colour term of the context × (colour of the star - colour zero).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spica_calib.science.stars import Bools, Floats

Index = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class PhotometricExposure:
    """What headers tell of one exposure."""

    name: str
    context: str
    """Exposures equal in this share illumination and colour term."""
    exposure_time_s: float
    airmass: float | None = None
    mjd_obs: float | None = None
    ccds: tuple[str, ...] = ()
    header_zeropoint_mag: float | None = None
    """PHOT_C: of 1 adu/s at airmass 1 (PHOT_C + PHOT_K (airmass - 1))."""
    header_zeropoint_sigma_mag: float | None = None
    header_nominal_zeropoint_mag: float | None = None
    header_airmass_term_mag: float | None = None
    header_colour_term: float | None = None
    absorption_mag: float | None = None
    """Extinction by clouds that a sky monitor (SkyProbe) saw."""
    is_photometric: bool | None = None
    own_zeropoint_mag: float | None = None
    own_zeropoint_sigma_mag: float | None = None
    """Found before, when the image was calibrated by itself."""


@dataclass(frozen=True, slots=True)
class PhotometricDetections:
    """Clean detections of stars. Arrays have shape (n,)."""

    exposure: Index
    ccd: Index
    """Index into the exposure's CCDs."""
    group: Index
    """Detections of one source share a number."""
    mag: Floats
    """Instrumental, of adu/s."""
    error_mag: Floats
    reference_mag: Floats
    """In the filter's band, moved to AB; NaN without a reference star."""
    reference_error_mag: Floats
    colour_mag: Floats
    """Of the reference star, in the colour that the profile names for the band; NaN without."""


Anchor = Literal["reference", "header", "context", "overlap", "none"]


@dataclass(frozen=True, slots=True)
class ExposureZeroPoint:
    """The zero point of one exposure."""

    mag: float | None
    """AB magnitude of 1 adu/s, at the middle of the illumination; None: nothing says."""
    sigma_mag: float | None
    scatter_mag: float | None
    """Robust standard deviation per star."""
    n_reference: int
    n_overlap: int
    anchor: Anchor
    """What the absolute scale stands on: reference stars, its header (PHOT_C/PHOT_K, photometric), other exposures of
    the context, overlaps with anchored exposures; nothing."""
    is_anchor: bool
    """Whether others hang on it."""
    why: str
    """One sentence with the numbers."""
    absorption_mag: float | None = None
    """Below the context's clear-sky zero point at its airmass."""


@dataclass(frozen=True, slots=True)
class Illumination:
    """What CCDs of one context lack against their mean."""

    context: str
    offset_mag: Mapping[str, float]
    """To be added to magnitudes, per CCD name; mean 0 over stars."""
    sigma_mag: Mapping[str, float]
    colour_term: float | None
    colour_term_sigma: float | None
    colour_zero_mag: float
    n_stars: int


@dataclass(frozen=True, slots=True)
class PhotometricSolution:
    """The whole solution."""

    exposures: tuple[ExposureZeroPoint, ...]
    illumination: Mapping[str, Illumination]
    internal_mag: float | None
    """Robust standard deviation of bright stars between exposures."""
    external_mag: float | None
    chi2_internal: float | None
    chi2_external: float | None
    residual_mag: Floats
    """Per detection: its mean or reference minus calibrated; NaN where neither is."""
    kept: Bools
    band: str | None
    notes: tuple[str, ...] = ()
