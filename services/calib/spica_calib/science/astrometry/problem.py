"""What the astrometric solver is given, and what it gives back.

Model: pixel (x, y) of CCD c -> focal plane of the instrument context (a polynomial per context and CCD: where the CCD
stands, and the distortion) -> tangent plane at the exposure's pointing (affine per exposure, and the atmosphere) ->
sky (gnomonic projection).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from spica_imaging.wcs import TpvWcs

from spica_calib.science.stars import Bools, CcdField, Floats

Index = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Zenith:
    """Where the zenith was, for differential refraction."""

    distance_deg: float
    """Zenith distance of the exposure's centre."""
    angle_deg: float
    """Position angle of the direction to the zenith, east of north (the parallactic angle)."""
    pressure_hpa: float = 620.0
    temperature_c: float = 0.0


@dataclass(frozen=True, slots=True)
class Exposure:
    """One exposure: its CCDs with their sources and WCS good to a few pixels (as matching leaves them)."""

    name: str
    context: str
    """Exposures equal in this share an instrument model."""
    ccds: tuple[CcdField, ...]
    epoch_year: float
    zenith: Zenith | None = None
    held: bool = False
    """Solved before: its WCS stay as they are, its sources only help the others."""


@dataclass(frozen=True, slots=True)
class CcdPlane:
    """Where the pixels of one CCD lie in the focal plane, arcsec from the optical axis, north-up at rotation 0."""

    name: str
    centre_px: tuple[float, float]
    half_px: float
    """Normalised pixels: u = (x - centre_px[0]) / half_px."""
    degree: int
    coefficients: Floats
    """Shape (terms, 2), arcsec; order of terms as in `spica_imaging.polynomial.terms`."""
    covariance: Floats
    """Shape (terms, terms), arcsec², the same for both axes: how well the coefficients are known."""


@dataclass(frozen=True, slots=True)
class InstrumentModel:
    """What a run has taught of one instrument context: the memory that new images start from."""

    context: str
    ccds: Mapping[str, CcdPlane]
    n_exposures: int
    n_detections: int
    repeat_mas: float
    """How well the model holds from one exposure to the next, per axis."""

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, exact."""
        return {
            "context": self.context,
            "n_exposures": self.n_exposures,
            "n_detections": self.n_detections,
            "repeat_mas": self.repeat_mas,
            "ccds": {
                name: {
                    "centre_px": list(ccd.centre_px),
                    "half_px": ccd.half_px,
                    "degree": ccd.degree,
                    "coefficients": ccd.coefficients.tolist(),
                    "covariance": ccd.covariance.tolist(),
                }
                for name, ccd in self.ccds.items()
            },
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> InstrumentModel:
        """Read back what `to_json` wrote."""
        return cls(
            context=told["context"],
            n_exposures=told["n_exposures"],
            n_detections=told["n_detections"],
            repeat_mas=told["repeat_mas"],
            ccds={
                name: CcdPlane(
                    name,
                    (ccd["centre_px"][0], ccd["centre_px"][1]),
                    ccd["half_px"],
                    ccd["degree"],
                    np.array(ccd["coefficients"]),
                    np.array(ccd["covariance"]),
                )
                for name, ccd in told["ccds"].items()
            },
        )


@dataclass(frozen=True, slots=True)
class Options:
    """How to solve."""

    degree: int = 3
    """Highest degree of the distortion polynomial."""
    degree_fixed: bool = False
    """Take that degree as it is; else what the data bear, up to it."""
    atmosphere: Literal["none", "refraction", "polynomial"] = "refraction"
    """Besides the affine map per exposure: nothing; refraction where `zenith` is known; a free polynomial of degree 3."""
    floor_px: float = 0.01
    """Positions of sources are never better than this, in quadrature."""
    reference_floor_mas: float = 2.0
    crossid_arcsec: float = 2.0
    clip_sigma: float = 4.0
    least_snr: float = 20.0
    """Fainter sources are left out: their places are worth nothing beside those of the others;"""
    least_per_ccd: int = 150
    """but so many of a CCD's best stay in, however faint."""
    with_positions: bool = False
    """Also give the merged positions of sources with their covariances."""


@dataclass(frozen=True, slots=True)
class Detections:
    """All detections that took part, exposure after exposure and CCD after CCD. Arrays have shape (n,)."""

    exposure: Index
    ccd: Index
    """Index into the exposure's CCDs."""
    row: Index
    """Index into the CCD's sources."""
    group: Index
    """Detections of one source on the sky share a number."""
    star: Index
    """Index into the reference stars; -1: none."""
    kept: Bools
    """Not cut as an outlier."""
    field_deg: Floats
    """Shape (n, 2): place in the focal plane, along RA*cos(Dec) and Dec from the exposure's pointing."""
    external_mas: Floats
    """Shape (n, 2): star minus detection along RA*cos(Dec) and Dec; NaN without a star."""
    internal_mas: Floats
    """Shape (n, 2): mean of its group minus detection; NaN where the group has one only."""
    sigma_mas: Floats
    """Standard error per axis that went into the fit."""


@dataclass(frozen=True, slots=True)
class ExposureSolution:
    """Where one exposure's pixels lie."""

    wcs: tuple[TpvWcs, ...]
    """Per CCD; all with the exposure's pointing as CRVAL."""
    degree: int
    n_external: int
    n_internal: int
    external_mas: tuple[float, float]
    """Robust standard deviation of star minus detection, per axis; NaN without."""
    internal_mas: tuple[float, float]
    chi2_external: float
    chi2_internal: float
    """Reduced."""
    model_error_mas: float
    """Largest standard error per axis of the WCS over its CCDs, as the fit's covariance says."""
    extra_mas: float = 0.0
    """Scatter per axis of its detections beyond their errors, as it went into the fit."""


@dataclass(frozen=True, slots=True)
class MergedSources:
    """Positions of sources from all exposures that see them. Shape (n,)."""

    ra_deg: Floats
    dec_deg: Floats
    covariance_mas2: Floats
    """Shape (n, 3): RA*cos(Dec) with itself, with Dec, Dec with itself."""
    n_detections: Index
    group: Index


@dataclass(frozen=True, slots=True)
class AstrometricSolution:
    """The whole solution."""

    exposures: tuple[ExposureSolution, ...]
    models: Mapping[str, InstrumentModel]
    """Per context, updated by what these exposures taught."""
    detections: Detections
    n_external: int
    """Detections that match a reference star."""
    n_internal: int
    """Sources seen in two exposures or more."""
    external_mas: tuple[float, float]
    internal_mas: tuple[float, float]
    chi2_external: float
    chi2_internal: float
    rounds: int
    sources: MergedSources | None = None
    notes: tuple[str, ...] = field(default=())
    """What the user should know: degrees lowered, exposures without internal ties, parts that do not overlap."""
