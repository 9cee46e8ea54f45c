"""Work for worker processes: calibrating images and stacks. Files in, files out.

The numerical libraries are imported inside the jobs, so that the service itself starts quickly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from spica_calib.records import Anchor, Facts, SolvedImage
from spica_calib.reference.area import ReferenceArea

Engine = Literal["spica", "scamp"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Settings that bear on the result."""

    false_match_log10: float
    faint_mag: float | None
    max_stars: int


@dataclass(frozen=True, slots=True)
class ImageJob:
    """All that is needed to calibrate one image."""

    facts: Facts
    profiles_folder: Path | None
    has_wcs: bool
    ccd_names: tuple[str, ...]
    psf_beta: Mapping[str, float]
    """Exponent of the Moffat profile of stars, by CCD."""
    catalogue: Path
    limiting_flux_adu: float | None
    reference: ReferenceArea
    photometric_reference: ReferenceArea | None
    """What magnitudes are compared with; None: the same."""
    limits: Limits
    context: str
    model: Mapping[str, Any] | None
    """What the run has taught of the instrument so far (`InstrumentModel` as JSON)."""
    illumination: Mapping[str, Any] | None
    """And of its illumination (`Illumination` as JSON)."""
    neighbours: tuple[SolvedImage, ...]
    """Images of the same context that overlap: held as they were solved."""
    model_version: int
    """Of that model; 0: none yet."""
    engine: Engine
    head: Path
    page: Path


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
    corners: tuple[float, ...]
    """ra, dec (deg) of four corners of every CCD, in the order of HDUs."""
    model: Mapping[str, Any] | None = None
    """What the run has taught of the instrument by now."""
    illumination: Mapping[str, Any] | None = None
    n_context: int = 0
    n_internal: int = 0
    internal_rms_mas: tuple[float, float] | None = None
    chi2_external: float | None = None
    chi2_internal: float | None = None
    anchor: Anchor | None = None
    notes: tuple[str, ...] = ()
    quality: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MemberJob:
    """One member of a stack, and what is made for it."""

    image: SolvedImage
    solution_id: str
    head: Path


@dataclass(frozen=True, slots=True)
class JointJob:
    """All that is needed to solve a stack's members together."""

    stack_id: str
    name: str
    members: tuple[MemberJob, ...]
    profiles_folder: Path | None
    reference: ReferenceArea
    photometric_reference: ReferenceArea | None
    limits: Limits
    models: Mapping[str, Mapping[str, Any]]
    """By context: what the runs had taught of the instruments when the stack was planned."""
    illuminations: Mapping[str, Mapping[str, Any]]
    engine: Engine
    page: Path


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
    """None where the flux scale is relative."""
    corners: tuple[tuple[float, ...], ...]
    n_reference: int = 0
    external_rms_mas: tuple[float | None, float | None] = (None, None)
    chi2_external: float | None = None
    chi2_internal: float | None = None
    contexts: tuple[str, ...] = ()
    anchors: tuple[str, ...] = ()
    """Ids of the images that the flux scale stands on."""
    notes: tuple[str, ...] = ()
    quality: tuple[dict[str, Any], ...] = ()


def calibrate_image(job: ImageJob) -> ImageResult:
    """Solve one image; writes its `.head` file and its page."""
    from spica_calib.imagework import solve

    return solve(job)


def calibrate_stack(job: JointJob) -> JointResult:
    """Solve a stack's members together; writes a `.head` file for each, and one page."""
    from spica_calib.stackwork import solve

    return solve(job)
