"""What the photometric solver is given, and what it gives back.

Model: magnitude of a star = instrumental magnitude (of 1 adu/s) + zero point of the exposure + illumination of the
(context, CCD) + colour term of the context × (colour of the star - colour zero).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spica_calib.science.stars import Bools, Floats

Index = NDArray[np.int32]

Anchor = Literal["reference", "header", "context", "overlap", "none"]


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
    own_anchor: Anchor | None = None
    """What that stood on; None: not known. One that stood on nothing, or on its context, anchors nothing."""
    filter: str = ""
    """Detections of one source in exposures of different filters are told apart."""


@dataclass(frozen=True, slots=True)
class PhotometricDetections:
    """Clean detections of stars. Arrays have shape (n,)."""

    exposure: Index
    ccd: Index
    """Index into the exposure's CCDs."""
    group: Index
    """Detections of one source share a number, from 0."""
    mag: Floats
    """Instrumental, of adu/s."""
    error_mag: Floats
    reference_mag: Floats
    """In the filter's band, moved to AB; NaN without a reference star."""
    reference_error_mag: Floats
    colour_mag: Floats
    """Of the reference star, in the colour that the profile names for the band; NaN without."""


@dataclass(frozen=True, slots=True)
class ColourTerm:
    """What is known of a context's colour term before its stars are looked at."""

    value: float = 0.0
    sigma: float = 0.0
    """0: it is not fitted."""
    zero_mag: float = 0.0
    """Colour at which the zero point holds. For colours in AB that is 0: a flat spectrum has one magnitude in all bands."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to solve."""

    band: str | None = None
    """What the reference magnitudes are, for the record."""
    colour_terms: Mapping[str, ColourTerm] = field(default_factory=dict)
    """Per context; none: no colour term."""
    colour_spread_mag: float = 0.15
    """A colour term is fitted where the reference stars' colours scatter at least so much (standard deviation)."""
    min_reference: int = 3
    """Exposures that overlap need so many reference stars among them; one with fewer is no anchor if others have more."""
    floor_mag: float = 0.002
    """Magnitudes of detections are never better than this, in quadrature."""
    reference_floor_mag: float = 0.002
    systematic_mag: float = 0.0005
    """What no number of stars brings down (flat fields, the reference catalogue from place to place), in quadrature."""
    clip_sigma: float = 4.5
    illumination: bool = True
    """Fit an offset per context and CCD; applied where it is significant."""
    illumination_sigma_mag: float = 0.02
    """How large these are expected to be (standard deviation); holds back those of CCDs with few stars."""
    absorption_limit_mag: float = 0.05
    """A sky monitor that saw more than this saw clouds."""
    header_floor_mag: float = 0.01
    """Zero points from headers are never better than this."""
    context_sigma_mag: float = 0.1
    """Standard error of a zero point taken over from the context: nobody looked at the sky."""
    airmass_terms: Mapping[str, float] = field(default_factory=dict)
    """Per context, magnitudes per airmass (negative), for exposures whose headers do not say."""
    rounds: int = 10
    dense_limit: int = 4500
    """With more unknowns than this, conjugate gradients instead of a dense matrix."""


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
    relative_mag: float | None = None
    """Where `mag` is None: on a scale that exposures tied by overlaps share, about `NOMINAL_ZEROPOINT_MAG`."""

    @property
    def is_linked(self) -> bool:
        """Whether it hangs on reference stars or on a photometric exposure, by itself or through overlaps."""
        return self.anchor in ("reference", "header", "overlap")


@dataclass(frozen=True, slots=True)
class Illumination:
    """What CCDs of one context lack against their mean."""

    context: str
    offset_mag: Mapping[str, float]
    """To be added to magnitudes, per CCD name; mean 0 over stars. All 0 where nothing significant was found."""
    sigma_mag: Mapping[str, float]
    colour_term: float | None
    colour_term_sigma: float | None
    colour_zero_mag: float
    n_stars: int
    significant: bool = True
    """Whether the offsets differ from 0 (or agree with offsets known before)."""

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, exact."""
        return {
            "context": self.context,
            "offset_mag": dict(self.offset_mag),
            "sigma_mag": dict(self.sigma_mag),
            "colour_term": self.colour_term,
            "colour_term_sigma": self.colour_term_sigma,
            "colour_zero_mag": self.colour_zero_mag,
            "n_stars": self.n_stars,
            "significant": self.significant,
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Illumination:
        """Read back what `to_json` wrote."""
        return cls(**told)


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
    """Reduced, against photon noise and floors alone."""
    residual_mag: Floats
    """Per detection: its mean or reference minus calibrated; NaN where neither is."""
    kept: Bools
    """Took part and was not cut as an outlier."""
    band: str | None
    notes: tuple[str, ...] = ()
