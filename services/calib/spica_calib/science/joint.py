"""The joint solution of a stack's exposures: one sky for all of them.

Sources seen in several exposures, and the reference stars, tie the exposures together. The model is
what changes and what does not: per instrument context and CCD one distortion (a polynomial of degree 2 and more in
pixels), per exposure and CCD an affine map. Positions of sources and models are solved in turn, from each
exposure's own solution, until the exposures agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import KDTree
from spica_imaging.polynomial import design, terms
from spica_imaging.wcs import TpvWcs, tan_deproject, tan_project

from spica_calib.science.association import Groups, associate, mean_positions
from spica_calib.science.astrometry import wcs_through
from spica_calib.science.fluxes import FluxSolution, solve_fluxes
from spica_calib.science.frame import field_centre
from spica_calib.science.least_squares import robust_lstsq
from spica_calib.science.matching import mutual_nearest
from spica_calib.science.stars import Bools, CcdField, Floats, Ints, Stars

_MAX_PER_CCD = 1500
_ROUNDS = 6
_MIN_TARGETS = 6
"""An affine map per CCD needs so many sources; with fewer the exposure's own solution stands."""
_ROWS_PER_TERM = 15
_WORTH = 0.995
_PHOTOMETRIC_SNR = 10.0


@dataclass(frozen=True, slots=True)
class Exposure:
    """One member: its CCDs with their own solutions, and its own zero point."""

    context: str
    """Exposures equal in this share their distortion."""
    exposure_time_s: float
    fields: tuple[CcdField, ...]
    zeropoint_mag: float | None
    zeropoint_error_mag: float | None


@dataclass(frozen=True, slots=True)
class JointSolution:
    """One system for all exposures."""

    wcs: tuple[tuple[TpvWcs, ...], ...]
    """Per exposure, per CCD."""
    distortion_degree: int
    n_internal: int
    """Sources seen in two exposures or more."""
    internal_rms_mas: tuple[float, float] | None
    """Of detections about their source's mean, per axis, robust; None without common sources."""
    n_reference: int
    reference_rms_mas: tuple[float, float] | None
    """Of sources about their reference stars."""
    fluxes: FluxSolution


@dataclass(slots=True)
class _Unit:
    """One CCD of one exposure: rows of the flat arrays, and its affine map to the common plane (arcsec)."""

    exposure: int
    field: CcdField
    key: tuple[str, str]
    rows: slice
    affine: Floats
    """Shape (3, 2): plane = [1, u', v'] @ affine, with u', v' the undistorted normalised pixels."""

    @property
    def half(self) -> float:
        return max(self.field.nx, self.field.ny) / 2.0

    def normalised(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        return (x - self.field.centre[0]) / self.half, (y - self.field.centre[1]) / self.half


@dataclass(slots=True)
class _Distortion:
    """u' = u + sum of c_k times the terms of degree 2 and more; likewise v'."""

    degree: int
    coefficients: Floats

    def apply(self, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        if self.degree < 2:
            return u, v
        bend = _high_terms(u, v, self.degree) @ self.coefficients
        return u + bend[:, 0], v + bend[:, 1]


_NONE = _Distortion(1, np.empty((0, 2)))


def _high_terms(u: Floats, v: Floats, degree: int) -> Floats:
    return design(u, v, degree)[:, 3:]


class _Joint:
    """The state of the iteration."""

    def __init__(self, exposures: Sequence[Exposure], stars: Stars) -> None:
        self.exposures = exposures
        self.centre = field_centre([field for exposure in exposures for field in exposure.fields])
        self.star_plane = np.column_stack(tan_project(stars.ra_deg, stars.dec_deg, *self.centre)) * 3600.0
        seen = np.isfinite(self.star_plane).all(axis=1)
        self.star_plane = self.star_plane[seen]
        self.star_error = stars.error_arcsec[seen]
        self.units = self._make_units()
        self.u = np.concatenate([u.normalised(u.field.sources.x, u.field.sources.y)[0] for u in self.units])
        self.v = np.concatenate([u.normalised(u.field.sources.x, u.field.sources.y)[1] for u in self.units])
        self.exposure = np.concatenate([np.full(len(u.field.sources), u.exposure) for u in self.units])
        self.pixel = np.median([u.field.wcs.scale_at(*u.field.centre) for u in self.units])
        self.error = np.concatenate(
            [u.field.sources.weight_error_px * u.field.wcs.scale_at(*u.field.centre) for u in self.units]
        )
        self.distortions: dict[tuple[str, str], _Distortion] = {unit.key: _NONE for unit in self.units}
        self.plane = np.concatenate(
            [self._own_plane(u, u.field.sources.x, u.field.sources.y) for u in self.units]
        )
        self.targets = self.plane
        self.target_error = self.error
        self.has_target: Bools = np.ones(len(self.plane), dtype=bool)

    def _make_units(self) -> list[_Unit]:
        units, start = [], 0
        for number, exposure in enumerate(self.exposures):
            for whole in exposure.fields:
                order = np.argsort(-whole.sources.flux_adu, kind="stable")[:_MAX_PER_CCD]
                field = replace(whole, sources=whole.sources.take(np.sort(order)))
                rows = slice(start, start + len(field.sources))
                start = rows.stop
                units.append(_Unit(number, field, (exposure.context, field.name), rows, np.zeros((3, 2))))
        return units

    def _own_plane(self, unit: _Unit, x: Floats, y: Floats) -> Floats:
        """Positions by the exposure's own solution, in the common plane."""
        return np.column_stack(tan_project(*unit.field.wcs.pixel_to_sky(x, y), *self.centre)) * 3600.0

    def model_plane(self, unit: _Unit, x: Floats, y: Floats) -> Floats:
        """Positions by the joint model, in the common plane."""
        u, v = self.distortions[unit.key].apply(*unit.normalised(x, y))
        plane: Floats = np.column_stack((np.ones(len(u)), u, v)) @ unit.affine
        return plane

    def fit_models(self, max_degree: int) -> None:
        """Distortions and affine maps from the present targets."""
        for unit in self.units:
            rows = self._target_rows(unit)
            if len(rows) >= _MIN_TARGETS:
                basis = np.column_stack((np.ones(len(rows)), self.u[rows], self.v[rows]))
                unit.affine = np.linalg.lstsq(basis, self.targets[rows], rcond=None)[0].astype(np.float64)
            else:
                unit.affine = self._affine_through_own(unit)
        for key in dict.fromkeys(unit.key for unit in self.units):
            self.distortions[key] = self._fit_distortion(key, max_degree)
        for unit in self.units:
            rows = self._target_rows(unit)
            if len(rows) < _MIN_TARGETS:
                unit.affine = self._affine_through_own(unit)
                continue
            u, v = self.distortions[unit.key].apply(self.u[rows], self.v[rows])
            basis = np.column_stack((np.ones(len(rows)), u, v))
            unit.affine = robust_lstsq(basis, self.targets[rows], self.target_error[rows]).solution
        self.plane = np.concatenate(
            [self.model_plane(unit, unit.field.sources.x, unit.field.sources.y) for unit in self.units]
        )

    def _target_rows(self, unit: _Unit) -> Ints:
        return unit.rows.start + np.flatnonzero(self.has_target[unit.rows])

    def _affine_through_own(self, unit: _Unit) -> Floats:
        """The affine map closest to the exposure's own solution, given the distortion."""
        x, y = (
            c.ravel() for c in np.meshgrid(np.linspace(1, unit.field.nx, 9), np.linspace(1, unit.field.ny, 9))
        )
        u, v = self.distortions[unit.key].apply(*unit.normalised(x, y))
        affine: Floats = np.linalg.lstsq(
            np.column_stack((np.ones(len(u)), u, v)), self._own_plane(unit, x, y), rcond=None
        )[0].astype(np.float64)
        return affine

    def _fit_distortion(self, key: tuple[str, str], max_degree: int) -> _Distortion:
        """What the exposures of one context have in common beyond their affine maps.

        The affine part of every exposure is projected out of targets and terms (Frisch & Waugh 1933), so
        that distortion and affine maps come out as from one great least-squares problem.
        """
        bases, goals, errors = [], [], []
        for unit in self.units:
            rows = self._target_rows(unit)
            if unit.key != key or len(rows) < _MIN_TARGETS:
                continue
            u, v = self.u[rows], self.v[rows]
            inverse = np.linalg.inv(unit.affine[1:])
            goal = (self.targets[rows] - unit.affine[0]) @ inverse - np.column_stack((u, v))
            error = self.target_error[rows] / (self.pixel * unit.half)
            weight = 1.0 / error
            q = np.linalg.qr(np.column_stack((np.ones(len(rows)), u, v)) * weight[:, None])[0]

            def without_affine(values: Floats, q: Floats = q, weight: Floats = weight) -> Floats:
                scaled = values * weight[:, None]
                cleaned: Floats = (scaled - q @ (q.T @ scaled)) / weight[:, None]
                return cleaned

            bases.append(
                without_affine(_high_terms(u, v, max_degree)) if max_degree > 1 else np.empty((len(u), 0))
            )
            goals.append(without_affine(goal))
            errors.append(error)
        if not bases:
            return self.distortions[key]
        basis, goal, error = np.concatenate(bases), np.concatenate(goals), np.concatenate(errors)
        limit = 3.0 * 1.4826 * max(float(np.median(np.abs(goal))), 1e-12)
        best, best_score = _NONE, float(np.sqrt(np.mean(np.minimum(np.abs(goal), limit) ** 2)))
        for degree in range(2, max_degree + 1):
            n_terms = len(terms(degree)) - 3
            if len(goal) < _ROWS_PER_TERM * n_terms:
                break
            fit = robust_lstsq(basis[:, :n_terms], goal, error)
            score = float(np.sqrt(np.mean(np.minimum(np.abs(fit.left_out), limit) ** 2)))
            if score < _WORTH * best_score:
                best, best_score = _Distortion(degree, fit.solution), score
        return best

    def update_targets(self, radius: float, star_radius: float) -> tuple[Ints, Groups, Ints, Floats]:
        """New mean positions, tied to the reference: groups, their means, and residuals to their stars."""
        group = associate(self.plane[:, 0], self.plane[:, 1], self.exposure, radius)
        groups = mean_positions(self.plane[:, 0], self.plane[:, 1], self.error, group)
        means = np.column_stack((groups.x, groups.y))
        index, star = mutual_nearest(means[:, 0], means[:, 1], KDTree(self.star_plane), star_radius)
        total = 1.0 / groups.error**2
        residual = self.star_plane[star] - means[index]
        if len(index) >= _MIN_TARGETS:
            error = np.hypot(groups.error[index], self.star_error[star])
            scale = float(np.abs(means[index]).max()) + 1.0
            basis = np.column_stack((np.ones(len(index)), means[index] / scale))
            fit = robust_lstsq(basis, residual, error)
            means = means + np.column_stack((np.ones(len(means)), means / scale)) @ fit.solution
            residual = fit.residual
            good = fit.weight > 0
            index, star, residual = index[good], star[good], residual[good]
            # The reference pulls with the weight that its scatter about the sources deserves.
            pull = 1.0 / (self.star_error[star] ** 2 + max(fit.scatter**2 - np.median(error) ** 2, 0.0))
            means[index] += residual * (pull / (pull + total[index]))[:, None]
        tied = groups.count >= 2
        tied[index] = True
        self.targets = means[group]
        self.has_target = groups.kept & tied[group]
        # The target is a mean that holds the detection itself: its own error is what matters.
        self.target_error = np.hypot(self.error, groups.scatter)
        return group, groups, index, residual


def solve_joint(exposures: Sequence[Exposure], stars: Stars, max_degree: int) -> JointSolution:
    """Solve exposures together, from their own solutions; `stars` at the exposures' mean epoch."""
    state = _Joint(exposures, stars)
    radius = 2.5 * float(state.pixel)
    star_radius = 2.5 * float(state.pixel)
    group, groups, index, residual = state.update_targets(radius, star_radius)
    previous = np.inf
    for _ in range(_ROUNDS):
        state.fit_models(max_degree)
        group, groups, index, residual = state.update_targets(radius, star_radius)
        spread = float(np.hypot(*groups.rms))
        radius = float(np.clip(5.0 * spread, 1.0 * state.pixel, radius))
        if abs(previous - spread) < 0.002 * spread:
            break
        previous = spread
    state.fit_models(max_degree)
    several = groups.count >= 2
    return JointSolution(
        wcs=_as_wcs(state),
        distortion_degree=max(d.degree for d in state.distortions.values()),
        n_internal=int(np.count_nonzero(several)),
        internal_rms_mas=(1000.0 * groups.rms[0], 1000.0 * groups.rms[1]) if several.any() else None,
        n_reference=len(index),
        reference_rms_mas=_spread_mas(residual) if len(index) >= 3 else None,
        fluxes=_fluxes(state, group, groups),
    )


def _spread_mas(residual: Floats) -> tuple[float, float]:
    spread = 1482.6 * np.median(np.abs(residual - np.median(residual, axis=0)), axis=0)
    return float(spread[0]), float(spread[1])


def _as_wcs(state: _Joint) -> tuple[tuple[TpvWcs, ...], ...]:
    """The models as TPV WCS, each in its CCD's own tangent plane."""
    found: list[list[TpvWcs]] = [[] for _ in state.exposures]
    for unit in state.units:

        def sky_of(x: Floats, y: Floats, unit: _Unit = unit) -> tuple[Floats, Floats]:
            plane = state.model_plane(unit, x, y) / 3600.0
            return tan_deproject(plane[:, 0], plane[:, 1], *state.centre)

        degree = max(3, state.distortions[unit.key].degree)
        found[unit.exposure].append(wcs_through(unit.field, sky_of, degree))
    return tuple(tuple(ccds) for ccds in found)


def _fluxes(state: _Joint, group: Ints, groups: Groups) -> FluxSolution:
    """Zero points on one scale, from clean sources that several exposures see."""
    flux = np.concatenate([u.field.sources.star_flux_adu for u in state.units])
    error = np.concatenate([u.field.sources.star_flux_error_adu for u in state.units])
    clean = np.concatenate([u.field.sources.clean & u.field.sources.starlike for u in state.units])
    seconds = np.array([e.exposure_time_s for e in state.exposures])
    good = clean & groups.kept & (flux > _PHOTOMETRIC_SNR * error) & (error > 0)
    good &= np.bincount(group[good], minlength=len(groups.count))[group] >= 2
    return solve_fluxes(
        mag=-2.5 * np.log10(flux[good] / seconds[state.exposure[good]]),
        error=1.0857 * error[good] / flux[good],
        exposure=state.exposure[good],
        group=group[good],
        zero=np.array([np.nan if e.zeropoint_mag is None else e.zeropoint_mag for e in state.exposures]),
        zero_error=np.array(
            [np.nan if e.zeropoint_error_mag is None else e.zeropoint_error_mag for e in state.exposures]
        ),
    )
