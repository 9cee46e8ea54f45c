"""Work for worker processes: calibrating images and stacks. Files in, files out.

The numerical libraries are imported inside the jobs, so that the service itself starts quickly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from spica_calib.reference_file import ReferenceFile


@dataclass(frozen=True, slots=True)
class Limits:
    """Settings that bear on the result."""

    false_match_log10: float
    faint_mag: float | None
    max_stars: int


@dataclass(frozen=True, slots=True)
class ImageJob:
    """All that is needed to calibrate one image."""

    name: str
    profile: str
    profiles_folder: Path | None
    filter: str
    exposure_time_s: float
    mjd_obs: float | None
    pointing: tuple[float, float]
    has_wcs: bool
    ccd_names: tuple[str, ...]
    psf_beta: Mapping[str, float]
    """Exponent of the Moffat profile of stars, by CCD."""
    catalogue: Path
    limiting_flux_adu: float | None
    reference: ReferenceFile
    limits: Limits
    head: Path
    plot: Path


@dataclass(frozen=True, slots=True)
class ImageResult:
    """What came of it."""

    start: Literal["wcs", "pointing"]
    """What the match started from."""
    epoch_year: float
    n_matched: int
    residual_mas: tuple[float, float]
    rms_mas: tuple[float, float]
    distortion_degree: int
    pixel_scale_arcsec: float
    rotation_deg: float
    offset_arcsec: float
    zeropoint_mag: float | None
    zeropoint_sigma_mag: float | None
    n_photometric: int
    flux_scale: float | None
    """To zero point 30 and 1 s."""
    limiting_mag: float | None
    quality: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MemberJob:
    """One member of a stack."""

    image_id: str
    name: str
    profile: str
    filter: str
    exposure_time_s: float
    mjd_obs: float | None
    header: Mapping[str, Any]
    psf_beta: Mapping[str, float]
    catalogue: Path
    own_head: Path
    own_zeropoint_mag: float | None
    own_zeropoint_sigma_mag: float | None
    limiting_flux_adu: float | None
    solution_id: str
    head: Path


@dataclass(frozen=True, slots=True)
class JointJob:
    """All that is needed to solve a stack's members together."""

    stack_id: str
    members: tuple[MemberJob, ...]
    profiles_folder: Path | None
    reference: ReferenceFile
    limits: Limits


@dataclass(frozen=True, slots=True)
class JointResult:
    """What came of it; tuples go with the members."""

    epoch_year: float
    n_internal_matches: int
    internal_rms_mas: tuple[float | None, float | None]
    flux_scatter_mag: float | None
    zeropoints_mag: tuple[float, ...]
    flux_scales: tuple[float, ...]
    limiting_mags: tuple[float | None, ...]
    quality: dict[str, Any] = field(default_factory=dict)


def calibrate_image(job: ImageJob) -> ImageResult:
    """Solve one image; writes its `.head` file and a picture of the residuals."""
    from spica_calib.imagework import solve

    return solve(job)


def calibrate_stack(job: JointJob) -> JointResult:
    """Solve a stack's members together; writes a `.head` file for each."""
    from spica_calib.stackwork import solve

    return solve(job)
