"""The model to begin with: planes and maps through the WCS that the exposures come with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from spica_imaging.polynomial import design, terms

from spica_calib.science.astrometry.kernels import Flags, Index, Singles, place
from spica_calib.science.astrometry.layout import Layout
from spica_calib.science.astrometry.problem import InstrumentModel, Options
from spica_calib.science.astrometry.refraction import AIR_DEGREE, Complex, air_polynomial
from spica_calib.science.astrometry.sky import axes, coordinates_deg, project, unit_vectors
from spica_calib.science.stars import Bools, Floats

Rows = NDArray[np.intp]

_MOST_EXPOSURES = 20
"""Of one context, that a new plane is the median of."""
_AIR_TERMS = len(terms(AIR_DEGREE))


@dataclass(slots=True)
class State:
    """The model, and where it puts everything. Exposures in canonical order."""

    planes: Floats
    """Shape (planes, 2, terms), arcsec."""
    maps: Floats
    """Shape (exposures, 6): shift (arcsec), turn and scale, shear; real and imaginary parts."""
    frames: Floats
    """Shape (exposures, 3, 3), as `sky.axes` gives them."""
    pointing: Floats
    """Shape (exposures, 2): RA and Dec, degrees."""
    air: Floats
    """Shape (exposures, 2, terms of degree 4), arcsec."""
    air_on: Flags
    air_unit: float
    """Radius of the field, arcsec: unit of the air's polynomials."""
    places: Floats
    """Shape (n, 2): detections in the tangent planes, arcsec."""
    focal: Singles
    """Shape (n, 2): in the focal planes, arcsec."""

    def resized(self, n: int) -> State:
        """The same model for other detections, whose places are not known yet."""
        return replace(self, places=np.zeros((n, 2)), focal=np.zeros((n, 2), np.float32))

    def copy(self) -> State:
        """The same, to go on with."""
        return State(
            self.planes.copy(), self.maps.copy(), self.frames.copy(), self.pointing.copy(), self.air.copy(),
            self.air_on, self.air_unit, self.places.copy(), self.focal.copy(),
        )  # fmt: skip

    def update_places(self, layout: Layout) -> None:
        """Put all detections where the model says."""
        place(
            layout.starts, layout.unit_plane, layout.unit_exposure, layout.u, layout.v, self.planes, layout.degree,
            self.maps, self.air, self.air_on, AIR_DEGREE, self.air_unit, self.focal, self.places,
        )  # fmt: skip

    def point(self, exposure: int, vector: Floats) -> None:
        """Choose the tangent point of an exposure."""
        ra, dec = coordinates_deg(vector)
        self.pointing[exposure] = ra, dec
        self.frames[exposure] = axes(float(ra), float(dec))


@dataclass(frozen=True, slots=True)
class _Samples:
    """What the start WCS say: directions of a grid over every unit that is not held."""

    u: Floats
    v: Floats
    sky: Floats
    """Shape (units, points, 3)."""
    basis: Floats
    """Shape (points, terms)."""
    pseudo: Floats
    """Shape (terms, points): from values to coefficients."""


def _sampled(layout: Layout) -> _Samples:
    side = np.cos(np.pi * (np.arange(layout.degree + 3) + 0.5) / (layout.degree + 3))
    u, v = (grid.ravel() for grid in np.meshgrid(side, side))
    sky = np.empty((len(layout.unit_plane), len(u), 3))
    for k, number in enumerate(layout.unit_plane):
        if number >= 0:
            plane = layout.planes[number]
            wcs = layout.ccd(k).wcs
            sky[k] = unit_vectors(
                *wcs.pixel_to_sky(plane.centre[0] + plane.half * u, plane.centre[1] + plane.half * v)
            )
    basis = design(u, v, layout.degree)
    return _Samples(u, v, sky, basis, np.linalg.pinv(basis).astype(np.float64))


def begin(
    layout: Layout, options: Options, known: Mapping[str, InstrumentModel]
) -> tuple[State, Floats, Floats]:
    """Build planes and maps from the start WCS and from what is known.

    Returns the state, and of the known planes their coefficients, shape (planes, 2, terms), and information
    (inverse covariance), shape (planes, terms, terms); zeros where nothing is known.
    """
    n, n_exposures = len(layout.u), len(layout.exposures)
    samples = _sampled(layout)
    state = State(
        planes=np.zeros((len(layout.planes), 2, layout.n_terms)),
        maps=np.tile(np.array([0.0, 0.0, 1.0, 0.0, 0.0, 0.0]), (n_exposures, 1)),
        frames=np.tile(np.eye(3), (n_exposures, 1, 1)),
        pointing=np.zeros((n_exposures, 2)),
        air=np.zeros((n_exposures, 2, _AIR_TERMS)),
        air_on=np.zeros(n_exposures, np.uint8),
        air_unit=1.0,
        places=np.zeros((n, 2)),
        focal=np.zeros((n, 2), np.float32),
    )
    units = [np.flatnonzero(layout.unit_exposure == e) for e in range(n_exposures)]
    _point_all(layout, state, samples, units)
    _fill_air(layout, state, options)
    goal, information = _known_planes(layout, known)
    have: Bools = np.asarray(information.any(axis=(1, 2)), dtype=bool)
    state.planes[have] = goal[have]
    for context in range(len(layout.contexts)):
        mine = np.flatnonzero((layout.exposure_context == context) & (layout.free >= 0))
        # Those with most CCDs first; equal ones in their order.
        mine = mine[np.argsort([-len(units[e]) for e in mine], kind="stable")]
        _chain(layout, state, samples, [(int(e), units[e]) for e in mine], have.copy(), have)
    put_everything(layout, state)
    return state, goal, information


def _point_all(layout: Layout, state: State, samples: _Samples, units: list[Rows]) -> None:
    """Tangent points at the middle of all CCDs; the field's radius."""
    radius = 1.0
    for e in range(len(layout.exposures)):
        if layout.free[e] < 0:
            centres = [unit_vectors(*ccd.wcs.pixel_to_sky(*ccd.centre)) for ccd in layout.exposures[e].ccds]
            middle = np.mean(centres, axis=0) if centres else np.array([1.0, 0.0, 0.0])
        else:
            middle = samples.sky[units[e]].reshape(-1, 3).mean(axis=0)
        state.point(e, middle)
        if layout.free[e] >= 0:
            spread = project(samples.sky[units[e]].reshape(-1, 3), state.frames[e])
            radius = max(radius, float(np.nanmax(np.hypot(*spread.T))))
    state.air_unit = 1.05 * radius


def _fill_air(layout: Layout, state: State, options: Options) -> None:
    for e, exposure in enumerate(layout.exposures):
        if layout.free[e] < 0:
            continue
        if options.atmosphere == "refraction" and exposure.zenith is not None:
            air = air_polynomial(exposure.zenith, state.air_unit)
            state.air[e, 0], state.air[e, 1] = air.real, air.imag
            state.air_on[e] = 1
        elif options.atmosphere == "polynomial":
            state.air_on[e] = 1


def _known_planes(layout: Layout, known: Mapping[str, InstrumentModel]) -> tuple[Floats, Floats]:
    goal = np.zeros((len(layout.planes), 2, layout.n_terms))
    information = np.zeros((len(layout.planes), layout.n_terms, layout.n_terms))
    for number, plane in enumerate(layout.planes):
        told = known[plane.context].ccds.get(plane.name) if plane.context in known else None
        if told is not None:
            count = len(told.coefficients)
            goal[number, :, :count] = told.coefficients.T
            # A coefficient known without any error still lets itself be inverted.
            covariance = told.covariance + np.diag(1e-18 + 1e-10 * np.diag(told.covariance))
            information[number, :count, :count] = np.linalg.inv(covariance)
    return goal, information


def _before_air(state: State, e: int, place: Complex) -> Complex:
    """Places in the tangent plane before the air bends them."""
    if not state.air[e].any():
        return place
    air = state.air[e, 0] + 1j * state.air[e, 1]
    bare = place
    for _ in range(3):
        bare = place - design(bare.real / state.air_unit, bare.imag / state.air_unit, AIR_DEGREE) @ air
    return bare


def _chain(
    layout: Layout,
    state: State,
    samples: _Samples,
    members: list[tuple[int, Rows]],
    have: Bools,
    known: Bools,
) -> None:
    """Exposure after exposure: its map from the planes already there, then planes for its other CCDs."""
    told: dict[int, list[Complex]] = {}
    for e, units in members:
        planes = layout.unit_plane[units]
        common = have[planes]
        if common.any():
            _fit_map(state, samples, e, units[common], planes[common])
        turn = complex(*state.maps[e, 2:4]), complex(*state.maps[e, 4:6])
        for k, number in zip(units, planes, strict=True):
            if known[number] or len(told.get(number, ())) >= _MOST_EXPOSURES:
                continue
            flat = project(samples.sky[k], state.frames[e])
            bare = _before_air(state, e, flat[:, 0] + 1j * flat[:, 1]) - complex(*state.maps[e, :2])
            back = (np.conj(turn[0]) * bare - turn[1] * np.conj(bare)) / (
                abs(turn[0]) ** 2 - abs(turn[1]) ** 2
            )
            told.setdefault(int(number), []).append(samples.pseudo @ back)
            if not have[number]:
                state.planes[number] = told[int(number)][0].real, told[int(number)][0].imag
        have[planes] = True
    for number, several in told.items():
        middle = np.median(np.real(several), axis=0), np.median(np.imag(several), axis=0)
        state.planes[number] = middle


def _least(basis: Complex, goal: Complex) -> Complex:
    return np.linalg.lstsq(basis, goal, rcond=None)[0].astype(np.complex128)


def _fit_map(state: State, samples: _Samples, e: int, units: Rows, planes: Index) -> None:
    """Map from the focal plane to an exposure's tangent plane through its WCS; the tangent point goes to its origin."""
    coefficients = state.planes[planes, 0] + 1j * state.planes[planes, 1]
    focal = (coefficients @ samples.basis.T).ravel()
    basis = np.column_stack((np.ones_like(focal), focal, np.conj(focal)))
    solution = np.array([0.0, 1.0, 0.0], dtype=np.complex128)
    for _ in range(2):
        flat = project(samples.sky[units].reshape(-1, 3), state.frames[e])
        goal = _before_air(state, e, flat[:, 0] + 1j * flat[:, 1])
        kept = np.ones(len(goal), dtype=bool)
        for _ in range(2):
            solution = _least(basis[kept], goal[kept])
            off = np.abs(goal - basis @ solution)
            kept = off <= 5.0 * np.median(off) + 1e-6
        state.maps[e] = 0.0, 0.0, solution[1].real, solution[1].imag, solution[2].real, solution[2].imag
        shift = solution[0]
        frame = state.frames[e]
        at = np.array([1.0, np.radians(shift.real / 3600.0), np.radians(shift.imag / 3600.0)])
        state.point(e, at @ frame)
    flat = project(samples.sky[units].reshape(-1, 3), state.frames[e])
    goal = _before_air(state, e, flat[:, 0] + 1j * flat[:, 1])
    solution = _least(basis[kept], goal[kept])
    state.maps[e] = solution.view(np.float64)


def put_everything(layout: Layout, state: State) -> None:
    """Put all detections where the model says, and those of held exposures where their own WCS say."""
    for k in np.flatnonzero(layout.unit_plane < 0):
        e, mine = int(layout.unit_exposure[k]), slice(int(layout.starts[k]), int(layout.starts[k + 1]))
        ccd, rows = layout.ccd(int(k)), layout.row[mine]
        at = unit_vectors(*ccd.wcs.pixel_to_sky(ccd.sources.x[rows], ccd.sources.y[rows]))
        state.places[mine] = project(at, state.frames[e])
    state.update_places(layout)
