"""The model of a joint solution: what exposures of one instrument share, and what each has of its own.

Plane coordinates (arcsec, common tangent plane) of a source at normalised pixel (u, v) of a CCD are
[1, u', v'] times the exposure's affine map, with (u', v') = (u, v) + distortion(u, v); the distortion, a
polynomial of degree 2 and more, belongs to the instrument context and CCD.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from spica_imaging.polynomial import design, terms
from spica_imaging.wcs import TpvWcs, tan_deproject, tan_project

from spica_calib.science.astrometry.ccd import wcs_through
from spica_calib.science.astrometry.least_squares import robust_lstsq
from spica_calib.science.matching.frame import field_centre
from spica_calib.science.stars import CcdField, Floats

_MAX_PER_CCD = 1500
_GRID = 12
"""Points per side at which exposures' own solutions are sampled."""
_WORTH = 0.97
_FLOOR_MAS = 0.1

Key = tuple[str, str]
"""Instrument context and CCD."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """One member: its CCDs with their own solutions, and its own zero point."""

    context: str
    """Exposures equal in this share their distortion."""
    exposure_time_s: float
    fields: tuple[CcdField, ...]
    zeropoint_mag: float | None
    zeropoint_error_mag: float | None


@dataclass(slots=True)
class Unit:
    """One CCD of one exposure."""

    exposure: int
    field: CcdField
    key: Key
    rows: slice
    """Its sources in the flat arrays."""
    affine: Floats
    """Shape (3, 2), arcsec."""

    def normalised(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Pixels in about [-1, 1]."""
        half = max(self.field.nx, self.field.ny) / 2.0
        return (x - self.field.centre[0]) / half, (y - self.field.centre[1]) / half

    @property
    def linear(self) -> Floats:
        """Derivatives of the plane with regard to (u', v'): shape (2, 2)."""
        return self.affine[1:]


@dataclass(slots=True)
class Distortion:
    """u' = u + sum of coefficients times the terms of degree 2 and more; likewise v'."""

    degree: int
    coefficients: Floats
    """Shape (terms, 2)."""

    def apply(self, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        """Undistorted coordinates."""
        if self.degree < 2:
            return u, v
        bend = high_terms(u, v, self.degree) @ self.coefficients
        return u + bend[:, 0], v + bend[:, 1]


def high_terms(u: Floats, v: Floats, degree: int) -> Floats:
    """Values of the terms of degree 2 and more, shape (n, terms)."""
    return design(u, v, degree)[:, 3:]


def n_high_terms(degree: int) -> int:
    """Their number."""
    return max(0, len(terms(degree)) - 3)


class JointModel:
    """All units with their affine maps, and the distortions they share."""

    def __init__(self, exposures: Sequence[Exposure], max_degree: int) -> None:
        self.centre = field_centre([field for exposure in exposures for field in exposure.fields])
        self.units = _make_units(exposures)
        self.distortions: dict[Key, Distortion] = {}
        for key in dict.fromkeys(unit.key for unit in self.units):
            self.distortions[key] = self._common_distortion(key, max_degree)
        for unit in self.units:
            unit.affine = self._affine_through_own(unit)

    def plane(self, unit: Unit, x: Floats, y: Floats) -> Floats:
        """Positions in the common plane by the model, shape (n, 2), arcsec."""
        u, v = self.distortions[unit.key].apply(*unit.normalised(x, y))
        plane: Floats = np.column_stack((np.ones(len(u)), u, v)) @ unit.affine
        return plane

    def wcs(self, unit: Unit) -> TpvWcs:
        """The model of one unit as a TPV WCS in the CCD's own tangent plane."""

        def sky_of(x: Floats, y: Floats) -> tuple[Floats, Floats]:
            plane = self.plane(unit, x, y) / 3600.0
            return tan_deproject(plane[:, 0], plane[:, 1], *self.centre)

        return wcs_through(unit.field, sky_of, max(3, self.distortions[unit.key].degree))

    def _own_plane(self, unit: Unit) -> tuple[Floats, Floats, Floats]:
        """A grid over the CCD, normalised, and where the exposure's own solution puts it in the plane."""
        field = unit.field
        x, y = (
            c.ravel() for c in np.meshgrid(np.linspace(1, field.nx, _GRID), np.linspace(1, field.ny, _GRID))
        )
        plane = np.column_stack(tan_project(*field.wcs.pixel_to_sky(x, y), *self.centre)) * 3600.0
        return *unit.normalised(x, y), plane

    def _affine_through_own(self, unit: Unit) -> Floats:
        u, v, plane = self._own_plane(unit)
        basis = np.column_stack((np.ones(len(u)), *self.distortions[unit.key].apply(u, v)))
        affine: Floats = np.linalg.lstsq(basis, plane, rcond=None)[0].astype(np.float64)
        return affine

    def _common_distortion(self, key: Key, max_degree: int) -> Distortion:
        """What the exposures' own solutions have in common beyond their affine maps: the robust mean of them.

        The affine part of every exposure is projected out of both sides (Frisch & Waugh 1933). The degree
        is the lowest that describes the mean about as well as the highest does.
        """
        bases, goals = [], []
        for unit in (unit for unit in self.units if unit.key == key):
            u, v, plane = self._own_plane(unit)
            basis = np.column_stack((np.ones(len(u)), u, v))
            affine = np.linalg.lstsq(basis, plane, rcond=None)[0]
            goals.append((plane - basis @ affine) @ np.linalg.inv(affine[1:]))
            q = np.linalg.qr(basis)[0]
            high = high_terms(u, v, max(max_degree, 2))
            bases.append(high - q @ (q.T @ high))
        scale = float(np.abs(affine[1:]).max())
        basis, goal = np.concatenate(bases), np.concatenate(goals)
        floor = np.full(len(goal), _FLOOR_MAS / 1000.0 / scale)
        limit = 3.0 * float(np.median(np.abs(goal))) + 3.0 * float(floor[0])
        best = Distortion(1, np.empty((0, 2)))
        best_score = float(np.sqrt(np.mean(np.minimum(np.abs(goal), limit) ** 2))) + float(floor[0])
        for degree in range(2, max_degree + 1):
            fit = robust_lstsq(basis[:, : n_high_terms(degree)], goal, floor)
            score = float(np.sqrt(np.mean(np.minimum(np.abs(fit.residual), limit) ** 2))) + float(floor[0])
            if score < _WORTH * best_score:
                best, best_score = Distortion(degree, fit.solution), score
        return best


def _make_units(exposures: Sequence[Exposure]) -> list[Unit]:
    units, start = [], 0
    for number, exposure in enumerate(exposures):
        for whole in exposure.fields:
            order = np.argsort(-whole.sources.flux_adu, kind="stable")[:_MAX_PER_CCD]
            field = replace(whole, sources=whole.sources.take(np.sort(order)))
            rows = slice(start, start + len(field.sources))
            start = rows.stop
            units.append(Unit(number, field, (exposure.context, field.name), rows, np.zeros((3, 2))))
    return units
