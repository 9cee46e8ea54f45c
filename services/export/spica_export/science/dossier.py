"""All that is told of one stack: plain records, as the store and the event give them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Input:
    """One exposure in the stack. None: not known."""

    name: str
    image_id: str
    sha256: str
    instrument: str
    run: str
    filter: str
    object: str | None
    exposure_time_s: float
    mjd_obs: float | None
    airmass: float | None
    grade: str | None
    graded_by: str | None
    fwhm_arcsec: float | None
    ellipticity: float | None
    zeropoint_mag: float | None
    flux_scale: float | None
    limiting_mag: float | None
    solution_id: str | None
    reference: str | None
    reference_sha256: str | None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One candidate that is not in the stack, and why."""

    name: str
    image_id: str
    rule: str
    found: str | None


@dataclass(frozen=True, slots=True)
class Step:
    """One activity that led to the stack (times and hosts stand in the store, not in products)."""

    service: str
    name: str
    version: str
    about: str
    outcome: str
    configuration: str
    """JSON with sorted keys."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of the product."""

    name: str
    kind: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Dossier:
    """One stack, what it is made of, and how."""

    stack_id: str
    request_id: str
    name: str
    filter: str
    combine: str
    requested_at: str
    grade: str
    graded_by: str
    reasons: str
    n_exposures: int
    exposure_time_s: float
    zeropoint_mag: float
    request: str
    """JSON with sorted keys."""
    grid: Mapping[str, float]
    metrics: Mapping[str, float]
    inputs: tuple[Input, ...]
    left_out: tuple[LeftOut, ...] = ()
    steps: tuple[Step, ...] = ()
    files: tuple[File, ...] = field(default=())
