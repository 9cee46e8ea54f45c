"""What the store knows of images and of their solutions, as the rest of the service takes it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from spica_imaging.profiles import Profile

Anchor = Literal["reference", "header", "context", "overlap", "none"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one image besides its pixels."""

    image_id: str
    name: str
    profile: str
    filter: str
    exposure_time_s: float
    mjd_obs: float | None
    airmass: float | None
    pointing: tuple[float, float]
    """RA, Dec in degrees, as far as its header tells."""
    header: Mapping[str, Any]
    header_zeropoint_mag: float | None = None
    header_zeropoint_sigma_mag: float | None = None
    header_zeropoint_nominal_mag: float | None = None
    header_airmass_term_mag: float | None = None
    header_colour_term: float | None = None
    sky_absorption_mag: float | None = None
    is_photometric: bool | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement of an image by the quality service."""

    measurement_id: str
    catalogue_path: str
    """In the data folder."""
    psf_beta: Mapping[str, float]
    """Exponent of the Moffat profile of stars, by CCD."""
    limiting_flux_adu: float | None


@dataclass(frozen=True, slots=True)
class SolvedRecord:
    """An image with a solution of its own, and the files that it stands on, by their paths in the data folder."""

    facts: Facts
    measured: Measured
    solution_id: str
    header_path: str
    zeropoint_mag: float | None
    quality: Mapping[str, Any]
    corners: tuple[float, ...] | None = None
    """ra, dec (deg) of four corners of every CCD, as solved."""

    @property
    def paths(self) -> tuple[str, str]:
        """Catalogue and `.head` file."""
        return self.measured.catalogue_path, self.header_path

    def found_at(self, found: Mapping[str, Path]) -> SolvedImage:
        """The same, its files found on this host."""
        sigma = self.quality.get("zeropoint_sigma_mag")
        return SolvedImage(
            facts=self.facts,
            psf_beta=self.measured.psf_beta,
            limiting_flux_adu=self.measured.limiting_flux_adu,
            solution_id=self.solution_id,
            catalogue=found[self.measured.catalogue_path],
            head=found[self.header_path],
            zeropoint_mag=self.zeropoint_mag,
            zeropoint_sigma_mag=float(sigma) if sigma is not None else None,
            anchor=self.quality.get("anchor"),
        )


@dataclass(frozen=True, slots=True)
class SolvedImage:
    """An image with a solution of its own: a member of a stack, or one of the same context as a new image."""

    facts: Facts
    psf_beta: Mapping[str, float]
    limiting_flux_adu: float | None
    solution_id: str
    catalogue: Path
    head: Path
    zeropoint_mag: float | None
    zeropoint_sigma_mag: float | None
    anchor: Anchor | None = None
    """What its zero point stands on; None: not known."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image lies: a cone around all of it, and the corners of its CCDs where they are known."""

    centre: tuple[float, float, float]
    """Direction of its middle, as a unit vector."""
    radius_rad: float
    corners: tuple[float, ...] | None = None
    """ra, dec (deg) of four corners of every CCD."""


def known(value: float | None) -> float | None:
    """The number, if it is one: JSON has no NaN."""
    return value if value is not None and math.isfinite(value) else None


def context_of(profile: Profile, header: Mapping[str, Any]) -> str:
    """What exposures must have in common to share an instrument model: `[astrometry] context` of the profile."""
    return "|".join(
        [profile.name, *(str(header.get(keyword, "")).strip() for keyword in profile.astrometry.context)]
    )


def place_of_corners(corners: Sequence[float]) -> Place:
    """The cone around CCDs with these corners (ra, dec in degrees)."""
    import numpy as np
    from spica_imaging.skycells import unit_vectors
    from spica_imaging.sphere import separation_rad

    flat = np.asarray(corners, dtype=np.float64).reshape(-1, 2)
    vectors = unit_vectors(flat[:, 0], flat[:, 1])
    middle = vectors.mean(axis=0)
    middle /= np.linalg.norm(middle)
    x, y, z = (float(part) for part in middle)
    return Place((x, y, z), float(separation_rad(vectors, middle).max()), tuple(float(v) for v in corners))
