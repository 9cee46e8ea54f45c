"""The joint solution of a stack's exposures: one sky for all of them.

Sources seen in several exposures, and the reference stars, tie the exposures together. Positions of sources are
eliminated from the least-squares problem, so that one linear solution gives all affine maps and distortions
at once, however little exposures overlap; it is repeated as matches and weights follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve as solve_dense
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import splu
from scipy.spatial import KDTree
from spica_imaging.stats import SIGMA_PER_MAD
from spica_imaging.wcs import TpvWcs, tan_project

from spica_calib.science.astrometry.association import Groups, associate, mean_positions
from spica_calib.science.astrometry.joint_model import Exposure, JointModel, high_terms, n_high_terms
from spica_calib.science.matching.search import Index, mutual_nearest
from spica_calib.science.photometry.fluxes import FluxSolution, solve_fluxes
from spica_calib.science.stars import Floats, Ints, Stars

_ROUNDS = 5
_FIRST_RADIUS_PX = 2.5
_DAMPING_PX = 1.0
"""Standard error of the exposures' own solutions: weak, but it holds what nothing else ties."""
_DENSE_LIMIT = 4000
_CUT = 4.0
_PHOTOMETRIC_SNR = 10.0


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


@dataclass(frozen=True, slots=True)
class _Ties:
    """What ties exposures together in one round."""

    group: Ints
    groups: Groups
    tied: Index
    """Groups that are reference stars."""
    star: Floats
    """Where those stars are, shape (n, 2), arcsec."""
    star_sigma: Floats
    residual: Floats
    """Star minus group, shape (n, 2), arcsec."""


class _Joint:
    """Flat arrays of all sources, and the model that puts them into the plane."""

    def __init__(self, exposures: Sequence[Exposure], stars: Stars, max_degree: int) -> None:
        self.model = JointModel(exposures, max_degree)
        plane = np.column_stack(tan_project(stars.ra_deg, stars.dec_deg, *self.model.centre)) * 3600.0
        seen = np.isfinite(plane).all(axis=1)
        self.star_plane, self.star_error = plane[seen], stars.error_arcsec[seen]
        units = self.model.units
        scales = [unit.field.wcs.scale_at(*unit.field.centre) for unit in units]
        self.pixel = float(np.median(scales))
        self.exposure = np.concatenate([np.full(len(unit.field.sources), unit.exposure) for unit in units])
        self.error = np.concatenate(
            [unit.field.sources.weight_error_px * scale for unit, scale in zip(units, scales, strict=True)]
        )
        self.plane = self._positions()
        self._parameter_places()

    def _positions(self) -> Floats:
        return np.concatenate(
            [self.model.plane(unit, unit.field.sources.x, unit.field.sources.y) for unit in self.model.units]
        )

    def _parameter_places(self) -> None:
        """Where affine maps (six numbers per unit) and distortions (two per term) stand among the parameters."""
        place = 6 * len(self.model.units)
        self.distortion_place: dict[tuple[str, str], int] = {}
        for key, distortion in self.model.distortions.items():
            self.distortion_place[key] = place
            place += 2 * n_high_terms(distortion.degree)
        self.n_parameters = place

    def ties(self, radius: float, star_radius: float) -> _Ties:
        """Groups of detections, and which of them are reference stars."""
        group = associate(self.plane[:, 0], self.plane[:, 1], self.exposure, radius)
        groups = mean_positions(self.plane[:, 0], self.plane[:, 1], self.error, group)
        tied, star = mutual_nearest(groups.x, groups.y, KDTree(self.star_plane), star_radius)
        counted = groups.count[tied] > 0
        tied, star = tied[counted], star[counted]
        residual = self.star_plane[star] - np.column_stack((groups.x, groups.y))[tied]
        own = np.hypot(groups.error[tied], self.star_error[star])
        middle = np.median(residual, axis=0) if len(residual) else np.zeros(2)
        spread = SIGMA_PER_MAD * float(np.median(np.abs(residual - middle))) if len(residual) else 0.0
        extra2 = max(spread**2 - float(np.median(own)) ** 2, 0.0) if len(own) else 0.0
        near = np.abs(residual - middle).max(axis=1, initial=0.0) <= _CUT * np.sqrt(own**2 + extra2)
        sigma = np.sqrt(self.star_error[star] ** 2 + extra2)
        return _Ties(group, groups, tied[near], self.star_plane[star][near], sigma[near], residual[near])

    def _derivatives(self) -> csr_array:
        """Derivatives of all plane positions (x of all, then y of all) with regard to the parameters."""
        n, rows, columns, values = len(self.plane), [], [], []
        for number, unit in enumerate(self.model.units):
            row = np.arange(unit.rows.start, unit.rows.stop)
            u, v = unit.normalised(unit.field.sources.x, unit.field.sources.y)
            distortion = self.model.distortions[unit.key]
            basis = np.column_stack((np.ones(len(u)), *distortion.apply(u, v)))
            high = high_terms(u, v, distortion.degree) if distortion.degree > 1 else np.empty((len(u), 0))
            place = self.distortion_place[unit.key]
            for axis in (0, 1):
                for k in range(3):
                    rows.append(row + axis * n)
                    columns.append(np.full(len(row), 6 * number + 3 * axis + k))
                    values.append(basis[:, k])
                for k in range(2 * high.shape[1]):
                    # Distortions in arcsec of the plane: then all parameters are of one size.
                    term, along = divmod(k, 2)
                    rows.append(row + axis * n)
                    columns.append(np.full(len(row), place + k))
                    values.append(high[:, term] * unit.linear[along, axis] / self._size(unit.linear))
        entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
        return csr_array(entries, shape=(2 * n, self.n_parameters))

    @staticmethod
    def _size(linear: Floats) -> float:
        return float(np.sqrt(abs(np.linalg.det(linear))))

    def improve(self, ties: _Ties) -> None:
        """One linear solution for all parameters; the sources' positions are eliminated."""
        n, n_groups = len(self.plane), len(ties.groups.count)
        weight = ties.groups.kept / (self.error**2 + ties.groups.scatter**2)
        weights = np.tile(weight, 2)
        star_weight, star_pull = np.zeros(2 * n_groups), np.zeros(2 * n_groups)
        for axis in (0, 1):
            star_weight[ties.tied + axis * n_groups] = 1.0 / ties.star_sigma**2
            star_pull[ties.tied + axis * n_groups] = ties.star[:, axis] / ties.star_sigma**2
        member = np.concatenate((ties.group, ties.group + n_groups))
        gather = csr_array((weights, (member, np.arange(2 * n))), shape=(2 * n_groups, 2 * n))
        total = np.maximum(gather.sum(axis=1) + star_weight, 1e-12)
        jacobian = self._derivatives()
        shared = gather @ jacobian
        positions = self.plane.T.ravel()
        normal = jacobian.T @ (diags_array(weights) @ jacobian) - shared.T @ (
            diags_array(1.0 / total) @ shared
        )
        right = shared.T @ ((gather @ positions + star_pull) / total) - jacobian.T @ (weights * positions)
        damping = 1.0 / (_DAMPING_PX * self.pixel) ** 2
        normal = normal + damping * diags_array(np.ones(self.n_parameters))
        if self.n_parameters <= _DENSE_LIMIT:
            change = solve_dense(normal.toarray(), right, assume_a="pos")
        else:
            change = splu(normal.tocsc()).solve(right)
        self._apply(np.asarray(change, dtype=np.float64))
        self.plane = self._positions()

    def _apply(self, change: Floats) -> None:
        sizes = {unit.key: self._size(unit.linear) for unit in self.model.units}
        for number, unit in enumerate(self.model.units):
            unit.affine = unit.affine + change[6 * number : 6 * number + 6].reshape(2, 3).T
        for key, distortion in self.model.distortions.items():
            place, count = self.distortion_place[key], n_high_terms(distortion.degree)
            if count:
                step = change[place : place + 2 * count].reshape(count, 2)
                distortion.coefficients = distortion.coefficients + step / sizes[key]


def solve_joint(exposures: Sequence[Exposure], stars: Stars, max_degree: int) -> JointSolution:
    """Solve exposures together, from their own solutions; `stars` at the exposures' mean epoch."""
    state = _Joint(exposures, stars, max_degree)
    radius = star_radius = _FIRST_RADIUS_PX * state.pixel
    ties = state.ties(radius, star_radius)
    for _ in range(_ROUNDS):
        before = state.plane
        state.improve(ties)
        spread = float(np.hypot(*ties.groups.rms))
        radius = float(np.clip(5.0 * spread, state.pixel, radius))
        ties = state.ties(radius, star_radius)
        if len(before) and float(np.abs(state.plane - before).max()) < 1e-4 * state.pixel:
            break
    several = ties.groups.count >= 2
    rms = ties.groups.rms
    found: list[list[TpvWcs]] = [[] for _ in exposures]
    for unit in state.model.units:
        found[unit.exposure].append(state.model.wcs(unit))
    return JointSolution(
        wcs=tuple(tuple(ccds) for ccds in found),
        distortion_degree=max(distortion.degree for distortion in state.model.distortions.values()),
        n_internal=int(np.count_nonzero(several)),
        internal_rms_mas=(1000.0 * rms[0], 1000.0 * rms[1]) if several.any() else None,
        n_reference=len(ties.tied),
        reference_rms_mas=_spread_mas(ties.residual) if len(ties.tied) >= 3 else None,
        fluxes=_fluxes(exposures, state, ties),
    )


def _spread_mas(residual: Floats) -> tuple[float, float]:
    spread = 1000.0 * SIGMA_PER_MAD * np.median(np.abs(residual - np.median(residual, axis=0)), axis=0)
    return float(spread[0]), float(spread[1])


def _fluxes(exposures: Sequence[Exposure], state: _Joint, ties: _Ties) -> FluxSolution:
    """Zero points on one scale, from clean stars that several exposures see."""
    sources = [unit.field.sources for unit in state.model.units]
    flux = np.concatenate([s.star_flux_adu for s in sources])
    error = np.concatenate([s.star_flux_error_adu for s in sources])
    clean = np.concatenate([s.clean & s.starlike for s in sources])
    seconds = np.array([exposure.exposure_time_s for exposure in exposures])
    good = clean & ties.groups.kept & (flux > _PHOTOMETRIC_SNR * error) & (error > 0)
    good &= np.bincount(ties.group[good], minlength=len(ties.groups.count))[ties.group] >= 2
    return solve_fluxes(
        mag=-2.5 * np.log10(flux[good] / seconds[state.exposure[good]]),
        error=1.0857 * error[good] / flux[good],
        exposure=state.exposure[good],
        group=ties.group[good],
        zero=np.array([np.nan if e.zeropoint_mag is None else e.zeropoint_mag for e in exposures]),
        zero_error=np.array(
            [np.nan if e.zeropoint_error_mag is None else e.zeropoint_error_mag for e in exposures]
        ),
    )
