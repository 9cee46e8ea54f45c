"""Rounds of the solution: which detections belong together, how well each is known, and the linear step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from spica_imaging.polynomial import terms

from spica_calib.science.astrometry.crossid import Groups, StarField, associate
from spica_calib.science.astrometry.kernels import Flags, Index, Singles, directions, predict
from spica_calib.science.astrometry.layout import Layout
from spica_calib.science.astrometry.means import Means, settle
from spica_calib.science.astrometry.normal import Inverse, Linear, conjugate_gradients, inverse_of
from spica_calib.science.astrometry.normal_kernels import AIR_FIRST, AIR_TERMS, Complex
from spica_calib.science.astrometry.problem import Options
from spica_calib.science.astrometry.scatter import star_scatter, unit_scatter
from spica_calib.science.astrometry.start import State, put_everything
from spica_calib.science.stars import Bools, Floats

_FROZEN_ARCSEC = 1e-6
_NOTHING_ARCSEC = 1e-3
"""Terms of the start WCS that are smaller are what one tangent plane leaves in another."""
_BEND = 0.25
"""How far terms of the bend may be from those of the start, over the radius of cross-identification, before it is known;"""
_FEW_EXPOSURES = 100
_LEARNING = 3
"""Steps that the scatter of bends is learnt in, when groups stay as they are."""
_OPINION = 3.0
"""Bends are not taken to be nearer than this many errors of one detection: a start that the same stars have made is no
second opinion."""
_WEAK = 3.0
"""Damping of maps, over the radius of cross-identification: far weaker than one star."""
_AIR_ARCSEC = 0.3
"""Free polynomials of the air are no larger than about this at the field's edge."""
_REACH = 8.5
"""Radius of cross-identification over the error of one detection: 6 sigma of a difference."""
_SHEAR = 5e-4
"""What exposures' maps may differ by in shear: differential aberration and refraction that nobody told of."""
_SETTLED_ARCSEC = 2e-5
_SAME_SCATTER = 0.02
"""Scatter that changes by less of an error changes no weight to speak of."""


@dataclass(slots=True)
class Ties:
    """What holds the model together in one round, in the order of groups."""

    groups: Groups
    u: Singles
    v: Singles
    plane: Index
    exposure: Index
    """Free number; -1: held."""
    unit: Index


class Rounds:
    """The state of a solution on its way."""

    def __init__(
        self,
        layout: Layout,
        state: State,
        options: Options,
        goal: Floats,
        information: Floats,
        stars: StarField,
    ) -> None:
        self.layout, self.state, self.options, self.stars = layout, state, options, stars
        self.goal, self.information = goal, information
        self.bend_goal = np.where(np.abs(state.planes) < _NOTHING_ARCSEC, 0.0, state.planes)
        """Planes as they came: what few matches say of their bend is held to this."""
        self.total = np.array([i + j for i, j in terms(layout.degree)])
        """Degree of each term."""
        self.degrees = np.maximum(self.known_degrees(), options.degree).astype(np.int32)
        """Per context."""
        self.scale = self._pixel_scales()
        """Arcsec per pixel of each unit."""
        self.error = (layout.error_px * self.scale[layout.unit]).astype(np.float32)
        self.extra = np.full(len(layout.exposures), options.crossid_arcsec / 4.0)
        """Scatter per axis beyond the errors, of each exposure, arcsec."""
        self.star_extra = options.crossid_arcsec / 4.0
        self.coarse = True
        """Whether outliers are not yet known well enough to leave them out of the scatter."""
        self.radius = self.star_radius = options.crossid_arcsec
        self.n_own = AIR_FIRST + (AIR_TERMS if options.atmosphere == "polynomial" else 0)
        self.bend = np.full((len(layout.contexts), layout.degree + 1), _BEND * options.crossid_arcsec)
        """Scatter (arcsec, per axis) of planes' terms of each degree about `bend_goal`, per context."""
        self.caps = np.ones(len(layout.planes), dtype=np.int32)
        """Highest degree that each plane's own detections bear."""
        self.few = len(layout.exposures) <= _FEW_EXPOSURES
        """Whether covariances are cheap enough to be told anew in every step."""
        self.rounds = 0
        self.inverse: Inverse | None = None

    def known_degrees(self) -> Index:
        """Degree of each context's planes that were known before; 0: none were."""
        told = self._told()
        found = np.zeros(len(self.layout.contexts), dtype=np.int32)
        np.maximum.at(found, self.layout.plane_context, (told * self.total).max(axis=1).astype(np.int32))
        return found

    def take(self, layout: Layout) -> None:
        """Go on with other detections of the same exposures."""
        self.layout, self.coarse = layout, False
        self.state = self.state.resized(len(layout.u))
        put_everything(layout, self.state)
        self.error = (layout.error_px * self.scale[layout.unit]).astype(np.float32)
        self.inverse = None

    def _pixel_scales(self) -> Floats:
        planes = self.state.planes
        size = np.array([plane.half for plane in self.layout.planes])
        area = planes[:, 0, 1] * planes[:, 1, 2] - planes[:, 0, 2] * planes[:, 1, 1]
        scales = np.sqrt(np.abs(area)) / np.maximum(size, 1e-9)
        found = np.empty(len(self.layout.unit_plane))
        for unit, plane in enumerate(self.layout.unit_plane):
            ccd = self.layout.ccd(unit)
            found[unit] = scales[plane] if plane >= 0 else ccd.wcs.scale_at(*ccd.centre)
        return found

    # ---- what belongs together ----

    def associate(self) -> Ties:
        """Group detections by where the model puts them now."""
        layout = self.layout
        sky = np.empty((len(layout.u), 3))
        directions(layout.exposure, self.state.frames, self.state.places, sky)
        groups = associate(
            sky, (1.0 / self.variance).astype(np.float32), layout.spans, layout.years, self.stars,
            self.radius, self.star_radius,
        )  # fmt: skip
        return self.tie(groups)

    def tie(self, groups: Groups) -> Ties:
        """Gather what the linear problem needs of the members."""
        layout, members = self.layout, groups.members
        unit = layout.unit[members]
        return Ties(
            groups,
            layout.u[members].astype(np.float32),
            layout.v[members].astype(np.float32),
            layout.unit_plane[unit],
            layout.free[layout.exposure[members]],
            unit,
        )

    @property
    def variance(self) -> Singles:
        """Per axis of each detection, arcsec²."""
        extra = self.extra.astype(np.float32)
        return self.error**2 + (extra**2)[self.layout.exposure]

    @property
    def star_variance(self) -> Floats:
        """Per axis of each reference star, arcsec²."""
        return self.stars.error_arcsec**2 + self.star_extra**2

    def settle(self, ties: Ties, left_out: Flags | None = None) -> Means:
        """Means of all groups as the model stands."""
        return settle(
            ties.groups, self.stars, self.state.places, self.layout.exposure, self.state.frames, self.layout.years,
            self.variance, self.star_variance, self.options.clip_sigma, left_out,
        )  # fmt: skip

    def weigh(self, ties: Ties) -> Means:
        """Means with errors as the scatter demands."""
        means = self.settle(ties)
        before = self.extra, self.star_extra
        members = ties.groups.members
        exposure = self.layout.exposure[members]
        self.extra = unit_scatter(
            ties.groups, means, self.error[members], exposure, self.star_variance, self.extra, self.coarse
        )
        self.star_extra = star_scatter(ties.groups, means, self.stars.error_arcsec, self.coarse)
        typical = float(np.median(self.error)) if len(self.error) else 0.0
        changed = float(np.abs(self.extra - before[0]).max(initial=0.0))
        if max(changed, abs(self.star_extra - before[1])) < _SAME_SCATTER * typical:
            self.extra, self.star_extra = before
            return means
        del means
        return self.settle(ties)

    def _typical(self) -> float:
        """Error of one detection, but for the worst."""
        return float(np.sqrt(np.quantile(self.error, 0.95) ** 2 + np.max(self.extra) ** 2))

    def narrow(self) -> bool:
        """Let the radii follow the errors; whether that changed them much."""
        if not len(self.error):
            return False
        before = self.radius, self.star_radius
        largest = self.options.crossid_arcsec
        smallest = min(float(np.median(self.scale)), largest)
        typical = self._typical()
        self.radius = float(np.clip(_REACH * typical, smallest, largest))
        star = float(np.sqrt(np.quantile(self.star_variance, 0.95))) if len(self.stars) else 0.0
        self.star_radius = float(np.clip(_REACH * np.hypot(typical, star) / np.sqrt(1.5), smallest, largest))
        return max(before[0] / self.radius, before[1] / self.star_radius) > 1.3

    # ---- the linear step ----

    def linear(self, ties: Ties, means: Means) -> Linear:
        """The linear problem about the model as it stands."""
        layout, free = self.layout, self.layout.free >= 0
        whole = means.star_weight + _sums(means.weight, ties.groups)
        u, v = ties.u.copy(), ties.v.copy()
        focal = self.state.focal[ties.groups.members] / np.float32(self.state.air_unit)
        maps = np.ascontiguousarray(self.state.maps[free, 2:4])
        pixels = np.ascontiguousarray(np.linalg.inv(self.state.planes[:, :, 1:3]))
        pull = means.pull * (means.weight > 0)[:, None].astype(np.float32)
        predict(pull, means.turn, ties.plane, ties.exposure, pixels, maps, self.state.air_unit, u, v, focal)
        return Linear(
            offsets=ties.groups.offsets, turn=means.turn, weight=means.weight, u=u, v=v,
            focal=focal,
            plane=ties.plane, exposure=ties.exposure, unit=ties.unit, whole=whole,
            maps=maps,
            context=layout.plane_context, context_of_exposure=layout.exposure_context[free],
            degree=layout.degree, n_terms=layout.n_terms, n_planes=len(layout.planes), n_own=self.n_own,
            prior=self.information, damping=self._damping(),
        )  # fmt: skip

    def _told(self) -> Bools:
        """Terms of planes that were known before, shape (planes, terms)."""
        return np.asarray(np.diagonal(self.information, axis1=1, axis2=2) > 0, dtype=bool)

    def plane_degrees(self) -> Index:
        """Degree to which each plane is free."""
        return self.degrees[self.layout.plane_context]

    def _free(self) -> Bools:
        """Terms up to the degree of each plane, shape (planes, terms)."""
        return np.asarray(self.total[None, :] <= np.maximum(self.plane_degrees(), 1)[:, None], dtype=bool)

    def bend_terms(self) -> Bools:
        """Terms that are free, but for what `bend` says of them; shape (planes, terms)."""
        return self._free() & (self.total >= 2) & ~self._told()

    def _bend_prior(self) -> Floats:
        """Information on each term of each plane from how it came, shape (planes, terms)."""
        sigma = self.bend[self.layout.plane_context][:, self.total]
        return np.where(self.bend_terms(), 1.0 / sigma**2, 0.0)

    def learn_bend(self) -> None:
        """How far planes' bends are from how they came: a step of expectation and maximisation (Dempster et al. 1977)."""
        if self.inverse is None or not len(self.error):
            return
        least = _OPINION * float(np.hypot(np.median(self.error), np.median(self.extra)))
        mine = self.bend_terms()
        square = ((self.state.planes - self.bend_goal) ** 2).mean(axis=1)
        for number in np.flatnonzero(mine.any(axis=1)):
            square[number] += np.diagonal(self.inverse.plane(int(number))).real
        context = self.layout.plane_context
        for number, degree in np.ndindex(*self.bend.shape):
            these = square[(context == number)[:, None] & mine & (self.total == degree)[None, :]]
            if len(these):
                self.bend[number, degree] = max(float(np.sqrt(these.mean())), least)

    def _damping(self) -> Floats:
        free, told = self._free(), self._told()
        weak = np.where(told | self.bend_terms(), 0.0, 1.0 / self.options.crossid_arcsec**2)
        planes = np.where(free | told, weak, 1.0 / _FROZEN_ARCSEC**2) + self._bend_prior()
        own = np.full(self.n_own, 1.0 / (_WEAK * self.options.crossid_arcsec) ** 2)
        own[AIR_FIRST:] = 1.0 / _AIR_ARCSEC**2
        all_own = np.tile(own, (int(np.count_nonzero(self.layout.free >= 0)), 1))
        all_own[:, 2] += self._shear_prior()
        return np.concatenate((planes.ravel(), all_own.ravel()))

    def _shear_prior(self) -> Floats:
        """Information on the shear of each free exposure: where planes are known, it is known to be small."""
        told = np.zeros(len(self.layout.contexts), dtype=bool)
        told[self.layout.plane_context[self.information.any(axis=(1, 2))]] = True
        context = self.layout.exposure_context[self.layout.free >= 0]
        return np.where(told[context], 1.0 / (_SHEAR * self.state.air_unit) ** 2, 0.0)

    def step(self, ties: Ties, means: Means, tolerance: float, fresh: bool) -> float:
        """One linear solution; returns by how much detections that count moved at most, arcsec."""
        linear = self.linear(ties, means)
        if fresh or self.inverse is None:
            self.inverse = inverse_of(linear)
        right = linear.gradient(means.pull)
        difference = (self.goal[:, 0] + 1j * self.goal[:, 1]) - (
            self.state.planes[:, 0] + 1j * self.state.planes[:, 1]
        )
        right[: linear.first_own] += (self.information @ difference[:, :, None]).ravel()
        back = self._bend_prior() * ((self.bend_goal - self.state.planes) * np.array([1.0, 1j])[:, None]).sum(
            axis=1
        )
        right[: linear.first_own] += back.ravel()
        shear = linear.first_own + 2 + self.n_own * np.arange(linear.n_exposures)
        now = self.state.maps[self.layout.free >= 0, 4:6] @ np.array([1.0, 1j]) * self.state.air_unit
        right[shear] -= self._shear_prior() * now
        change, _ = conjugate_gradients(linear.times, right, self.inverse, tolerance)
        before = self.state.places.copy()
        self._apply(change, linear)
        self.state.update_places(self.layout)
        self.rounds += 1
        used = ties.groups.members[means.weight > 0]
        moved = float(np.abs(self.state.places[used] - before[used]).max(initial=0.0))
        self._point_anew()
        return moved

    def _apply(self, change: Complex, linear: Linear) -> None:
        planes = change[: linear.first_own].reshape(linear.n_planes, linear.n_terms)
        planes = np.where(self._free() | self._told(), planes, 0.0)
        self.state.planes[:, 0] += planes.real
        self.state.planes[:, 1] += planes.imag
        own = change[linear.first_own :].reshape(-1, self.n_own)
        free, unit = np.flatnonzero(self.layout.free >= 0), self.state.air_unit
        for k, size in enumerate((1.0, unit, unit)):
            self.state.maps[free, 2 * k] += own[:, k].real / size
            self.state.maps[free, 2 * k + 1] += own[:, k].imag / size
        if self.n_own > AIR_FIRST:
            self.state.air[free, 0, 3 : 3 + AIR_TERMS] += own[:, AIR_FIRST:].real
            self.state.air[free, 1, 3 : 3 + AIR_TERMS] += own[:, AIR_FIRST:].imag

    def _point_anew(self) -> None:
        """Where a shift has grown, the tangent point takes it: projection belongs to the true pointing."""
        moved = False
        for e in np.flatnonzero(self.layout.free >= 0):
            shift = complex(*self.state.maps[e, :2])
            if abs(shift) < 0.05:
                continue
            moved = True
            old = self.state.frames[e].copy()
            at = np.array([1.0, np.radians(shift.real / 3600.0), np.radians(shift.imag / 3600.0)])
            self.state.point(int(e), at @ old)
            new = self.state.frames[e]
            turn = complex(old[1] @ new[1] + old[2] @ new[2], old[1] @ new[2] - old[2] @ new[1])
            turn /= abs(turn)
            for k in (2, 4):
                turned = complex(*self.state.maps[e, k : k + 2]) * turn
                self.state.maps[e, k : k + 2] = turned.real, turned.imag
            self.state.maps[e, :2] = 0.0
        if moved:
            self.state.update_places(self.layout)

    # ---- all of it ----

    def count(self, ties: Ties, means: Means) -> None:
        """How far each plane's own detections bear a polynomial: two per term, and two more."""
        used = (means.weight > 0) & (ties.plane >= 0)
        found = np.bincount(ties.plane[used], minlength=len(self.layout.planes))
        self.caps[:] = 1
        for degree in range(2, self.layout.degree + 1):
            self.caps[found >= 2 * len(terms(degree)) + 2] = degree

    def settled(self, ties: Ties, means: Means, limit: int) -> tuple[Ties, Means]:
        """Step until nothing moves, at most `limit` times, with the groups as they are."""
        for k in range(limit):
            anew = k == 0 or (self.few and k <= _LEARNING)
            moved = self.step(ties, means, 1e-1 if k == 0 else 1e-2, fresh=anew)
            means = self.weigh(ties) if k == 0 else self.settle(ties)
            if anew and k < _LEARNING:
                self.learn_bend()
            if moved < _SETTLED_ARCSEC:
                break
        return ties, means


def _sums(weight: Singles, groups: Groups) -> Floats:
    if not len(groups):
        return np.zeros(0)
    return np.add.reduceat(weight.astype(np.float64), groups.offsets[:-1])
