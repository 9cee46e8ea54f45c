"""Calibrations as the solvers leave them, simulated: cameras, stars, residuals, zero points, and what can go wrong."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from spica_calib.science.astrometry.problem import (
    AstrometricSolution,
    CcdPlane,
    Detections,
    Exposure,
    ExposureSolution,
    InstrumentModel,
    Options,
)
from spica_calib.science.diagnostics.inputs import Calibration, EarlierZeroPoint, Photometry
from spica_calib.science.matching.located import Located
from spica_calib.science.photometry.problem import (
    ExposureZeroPoint,
    Illumination,
    PhotometricDetections,
    PhotometricExposure,
    PhotometricSolution,
)
from spica_calib.science.stars import CcdField, Floats, Sources
from spica_imaging.polynomial import as_matrix, design, tpv_from_polynomials
from spica_imaging.stats import robust_sigma
from spica_imaging.wcs import TpvWcs, tan_deproject

POINTING = (214.87, 52.68)
CONTEXT = "megacam|r.MP9601|12AQ05"
_SIGMA_ONE_MAS = 6.0


@dataclass(frozen=True)
class Camera:
    """CCDs in a grid; those of the upper half are upside down."""

    columns: int
    rows: int
    nx: int
    ny: int
    scale_arcsec: float
    gap_px: float
    bend: float
    """Radial distortion: r (1 + bend r²), r in degrees."""
    names: tuple[str, ...] = ()

    def name(self, index: int) -> str:
        return self.names[index] if self.names else f"ccd{index:02d}"


MEGACAM = Camera(9, 4, 2048, 4612, 0.187, 80.0, -0.02)
SMALL = Camera(1, 1, 530, 510, 5.17, 0.0, 0.0, ("hatp32",))


@dataclass(frozen=True)
class Scene:
    """What to simulate."""

    camera: Camera = MEGACAM
    n_exposures: int = 1
    n_stars: int = 5000
    """Per exposure, about."""
    seed: int = 1
    reference_fraction: float = 0.9
    floor_mas: float = 8.0
    turned: dict[int, float] = field(default_factory=dict)
    """CCD -> by how many arcsec it is turned (east of north) against the model before; a tenth of a percent of it stays."""
    empty: tuple[int, ...] = ()
    clouds_mag: dict[int, float] = field(default_factory=dict)
    """Exposure -> absorption."""
    pattern_mas: float = 0.0
    """Amplitude of a wave over the field that the model does not know."""
    photometry: bool = True
    colour_slope: float = 0.0
    rotation_deg: tuple[float, ...] = ()
    with_previous: bool = False
    held: tuple[int, ...] = ()


def plane_of(camera: Camera, index: int, turn_arcsec: float = 0.0) -> CcdPlane:
    """Focal plane of a CCD, arcsec, as a cubic polynomial."""
    column, row = index % camera.columns, index // camera.columns
    sign = -1.0 if row < camera.rows // 2 else 1.0
    step = np.array([camera.nx + camera.gap_px, camera.ny + camera.gap_px]) * camera.scale_arcsec
    centre = np.array([0.5 * (camera.columns - 1) - column, 0.5 * (camera.rows - 1) - row]) * step
    half = 0.5 * max(camera.nx, camera.ny)
    grid = np.linspace(-1, 1, 7)
    u, v = (part.ravel() for part in np.meshgrid(grid, grid))
    angle = np.radians(turn_arcsec / 3600.0)
    # East of north: north turns towards east, east towards south.
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    local = np.stack([-sign * u, sign * v]) * half * camera.scale_arcsec
    place = centre[:, None] + turn @ local
    radius2 = np.sum((place / 3600.0) ** 2, axis=0)
    bent = place * (1.0 + camera.bend * radius2)
    coefficients = np.linalg.lstsq(design(u, v, 3), bent.T, rcond=None)[0]
    covariance = np.diag(np.full(10, (1.5e-3) ** 2))
    return CcdPlane(
        camera.name(index),
        ((camera.nx + 1) / 2, (camera.ny + 1) / 2),
        half,
        3,
        coefficients,
        covariance,
    )


def wcs_of(plane: CcdPlane, crval: tuple[float, float], rotation_deg: float = 0.0) -> TpvWcs:
    angle = np.radians(rotation_deg)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    coefficients = plane.coefficients @ turn.T / 3600.0
    xi, eta = (as_matrix(coefficients[:, axis], 3) for axis in (0, 1))
    return tpv_from_polynomials(crval, plane.centre_px, xi, eta, plane.half_px)


def simulate(scene: Scene) -> Calibration:
    """The calibration of this scene."""
    random = np.random.default_rng(scene.seed)
    camera = scene.camera
    n_ccds = camera.columns * camera.rows
    before = [plane_of(camera, index) for index in range(n_ccds)]
    now = [plane_of(camera, index, scene.turned.get(index, 0.0)) for index in range(n_ccds)]
    wcs_all = []
    for e in range(scene.n_exposures):
        offset = random.normal(0.0, 12.0, 2) / 3600.0 if e else np.zeros(2)
        crval = tan_deproject(offset[0], offset[1], *POINTING)
        rotation = scene.rotation_deg[e] if scene.rotation_deg else 0.0
        wcs_all.append(tuple(wcs_of(plane, (float(crval[0]), float(crval[1])), rotation) for plane in now))
    stars = _Stars.draw(random, camera, now, scene)
    fields, told = _detect(random, scene, camera, wcs_all, stars)
    exposures = tuple(
        Exposure(f"{744331 + e}p", CONTEXT, ccds, 2012.3, held=e in scene.held)
        for e, ccds in enumerate(fields)
    )
    detections = _residuals(random, scene, camera, wcs_all, fields, told)
    solution = _solution(scene, wcs_all, detections, now)
    located = {
        exposure.name: Located(
            wcs_all[e], (0.5,) * n_ccds, tuple(c not in scene.empty for c in range(n_ccds)), -40.0, 1e-30,
            int(np.count_nonzero((detections.exposure == e) & (detections.star >= 0))), 0.39, 0.012, 1.0002, False,
        )
        for e, exposure in enumerate(exposures)
    }  # fmt: skip
    model = InstrumentModel(CONTEXT, {plane.name: plane for plane in before}, 14, 61_000, 3.4)
    return Calibration(
        exposures,
        solution,
        Options(),
        located,
        _photometry(random, scene, exposures, detections, told, stars) if scene.photometry else None,
        {CONTEXT: model} if scene.with_previous or scene.turned else {},
        _earlier(random) if scene.photometry and scene.n_exposures == 1 and n_ccds > 1 else (),
    )


@dataclass(frozen=True)
class _Stars:
    ra: Floats
    dec: Floats
    mag: Floats
    colour: Floats
    known: np.ndarray

    @classmethod
    def draw(
        cls, random: np.random.Generator, camera: Camera, planes: list[CcdPlane], scene: Scene
    ) -> _Stars:
        reach = np.array([
            camera.columns * (camera.nx + camera.gap_px), camera.rows * (camera.ny + camera.gap_px),
        ]) * camera.scale_arcsec * 0.52 / 3600.0  # fmt: skip
        n = scene.n_stars
        xi, eta = random.uniform(-1, 1, n) * reach[0], random.uniform(-1, 1, n) * reach[1]
        ra, dec = tan_deproject(xi, eta, *POINTING)
        mag = 16.0 + 6.0 * random.uniform(0, 1, n) ** 0.5
        return cls(ra, dec, mag, random.uniform(0.1, 2.4, n), random.random(n) < scene.reference_fraction)


def _detect(random, scene, camera, wcs_all, stars):  # type: ignore[no-untyped-def]
    fields, told = [], []
    for e, all_wcs in enumerate(wcs_all):
        ccds = []
        for c, wcs in enumerate(all_wcs):
            x, y = wcs.sky_to_pixel(stars.ra, stars.dec)
            inside = (x > 3) & (x < camera.nx - 3) & (y > 3) & (y < camera.ny - 3)
            which = np.flatnonzero(inside) if c not in scene.empty else np.empty(0, np.intp)
            absorbed = scene.clouds_mag.get(e, 0.0)
            flux = 300.0 * 10 ** (-0.4 * (stars.mag[which] + absorbed - 26.0))
            sources = _sources(x[which], y[which], flux, camera.scale_arcsec)
            ccds.append(CcdField(c + 1, camera.name(c), camera.nx, camera.ny, sources, wcs))
            told += [(e, c, row, star) for row, star in enumerate(which)]
        fields.append(tuple(ccds))
    return fields, np.array(told, dtype=np.int32).reshape(-1, 4)


def _sources(x: Floats, y: Floats, flux: Floats, scale: float) -> Sources:
    yes = np.ones(len(x), np.bool_)
    error = np.sqrt(flux + 4e4)
    return Sources(x, y, 1.2 * error / flux, flux, flux, error, yes, yes, yes)


def _residuals(random, scene, camera, wcs_all, fields, told) -> Detections:  # type: ignore[no-untyped-def]
    stars = told[:, 3]
    n = len(told)
    reference = random.random(int(stars.max(initial=0)) + 1) < scene.reference_fraction
    offsets = random.normal(0.0, 3.0 * scene.camera.scale_arcsec / 0.187, (len(reference), 2))
    place = np.empty((n, 2))
    sigma = np.empty(n)
    systematic = np.zeros((n, 2))
    floor = scene.floor_mas * camera.scale_arcsec / 0.187
    for e, ccds in enumerate(fields):
        for c, ccd in enumerate(ccds):
            own = (told[:, 0] == e) & (told[:, 1] == c)
            xi, eta = ccd.wcs.pixel_to_plane(ccd.sources.x, ccd.sources.y)
            place[own] = np.column_stack([xi, eta])
            sigma[own] = np.hypot(floor, 1000.0 * camera.scale_arcsec * ccd.sources.error_px)
            if c in scene.turned and own.any():
                about = 3600.0 * (place[own] - place[own].mean(axis=0))
                angle = np.radians(scene.turned[c] / 3600.0)
                systematic[own] = 1000.0 * angle * np.column_stack([about[:, 1], -about[:, 0]])
    systematic += scene.pattern_mas * np.sin(np.pi * place[:, ::-1] / 0.25)
    shift = random.normal(0.0, 1.0, (n, 2)) * sigma[:, None]
    wild = random.random(n) < 0.02
    shift[wild] *= 6.0
    star = np.where(reference[stars], stars, -1)
    external = np.where((star >= 0)[:, None], offsets[stars] - shift + systematic, np.nan)
    total = np.hypot(sigma, 3.0 * scene.camera.scale_arcsec / 0.187)
    # Cut against the robust scatter, as a solver would against its errors.
    off = np.hypot(*np.where(np.isfinite(external), external, shift).T) / total
    kept = off < 5.0
    internal = np.full((n, 2), np.nan)
    detected = shift - systematic
    counts = np.bincount(stars[kept], minlength=len(reference))
    for axis in (0, 1):
        mean = np.bincount(stars[kept], detected[kept, axis], len(reference)) / np.maximum(counts, 1)
        several = counts[stars] > 1
        internal[several, axis] = (mean[stars] - detected[:, axis])[several]
    return Detections(
        told[:, 0], told[:, 1], told[:, 2], stars, star.astype(np.int32), kept, place, external, internal, total,
    )  # fmt: skip


def _spread(residual: Floats) -> tuple[float, float]:
    known = residual[np.isfinite(residual).all(axis=1)]
    if not len(known):
        return (float("nan"), float("nan"))
    return robust_sigma(known[:, 0]), robust_sigma(known[:, 1])


def _chi2(residual: Floats, sigma: Floats) -> float:
    known = np.isfinite(residual).all(axis=1)
    return float(np.mean((residual[known] / sigma[known, None]) ** 2)) if known.any() else float("nan")


def _solution(
    scene: Scene, wcs_all: list[tuple[TpvWcs, ...]], d: Detections, planes: list[CcdPlane]
) -> AstrometricSolution:
    def figures(mask: np.ndarray) -> tuple[int, int, tuple[float, float], tuple[float, float], float, float]:
        outer, inner, sigma = d.external_mas[mask], d.internal_mas[mask], d.sigma_mas[mask]
        n_inner = int(np.count_nonzero(np.isfinite(inner).all(axis=1)))
        n_outer = int(np.count_nonzero(np.isfinite(outer).all(axis=1)))
        return n_outer, n_inner, _spread(outer), _spread(inner), _chi2(outer, sigma), _chi2(inner, sigma)

    per = []
    for e, wcs in enumerate(wcs_all):
        per.append(ExposureSolution(wcs, 3, *figures((d.exposure == e) & d.kept), 1.4))
    whole = figures(d.kept)
    model = InstrumentModel(CONTEXT, {p.name: p for p in planes}, 14 + scene.n_exposures, 66_000, 3.1)
    notes = tuple(
        f"CCD {scene.camera.name(c)} has no stars: it lies where its neighbours put it." for c in scene.empty
    )
    return AstrometricSolution(tuple(per), {CONTEXT: model}, d, *whole, rounds=4, notes=notes)


def _photometry(random, scene, exposures, d, told, stars) -> Photometry:  # type: ignore[no-untyped-def]
    n_ccds = scene.camera.columns * scene.camera.rows
    zeros, headers = [], []
    for e, exposure in enumerate(exposures):
        airmass = 1.05 + 0.09 * e
        absorbed = scene.clouds_mag.get(e, 0.0)
        mag = 26.12 - 0.10 * (airmass - 1.0) - absorbed
        n = int(np.count_nonzero((d.exposure == e) & (d.star >= 0)))
        why = f"{n} reference stars in band r, scatter 0.021 mag"
        if absorbed:
            why = f"{absorbed:.2f} mag below the clear sky at airmass {airmass:.2f}"
            why += ": set by stars in common with its neighbours"
        zeros.append(
            ExposureZeroPoint(
                mag,
                0.002,
                0.021,
                n,
                n,
                "overlap" if absorbed else "reference",
                not absorbed,
                why,
                absorbed if scene.clouds_mag else None,
            )
        )
        headers.append(
            PhotometricExposure(
                exposure.name,
                CONTEXT,
                300.0,
                airmass,
                56_000.31 + 0.004 * e,
                tuple(ccd.name for ccd in exposure.ccds),
                26.10,
                0.01,
                26.11,
                -0.10,
            )
        )
    flat = random.normal(0.0, 0.012, n_ccds)
    flat -= flat.mean()
    flux = np.array([exposures[e].ccds[c].sources.star_flux_adu[row] for e, c, row, _ in told]) / 300.0
    mag = -2.5 * np.log10(flux)
    error = np.hypot(0.004, 1.0857 / np.sqrt(300.0 * flux))
    colour = np.where(d.star >= 0, stars.colour[told[:, 3]], np.nan)
    residual = random.normal(0.0, 1.0, len(told)) * np.hypot(error, 0.018)
    residual += scene.colour_slope * (np.nan_to_num(colour, nan=0.8) - 0.8)
    residual[(d.star < 0) & (len(exposures) == 1)] = np.nan
    given = PhotometricDetections(
        d.exposure, d.ccd, d.group, mag, error,
        np.where(d.star >= 0, stars.mag[told[:, 3]], np.nan), np.full(len(told), 0.01), colour,
    )  # fmt: skip
    names = [ccd.name for ccd in exposures[0].ccds]
    light = Illumination(
        CONTEXT, dict(zip(names, flat, strict=True)) if n_ccds > 1 else {},
        dict.fromkeys(names, 0.002) if n_ccds > 1 else {}, 0.021, 0.003, 0.8, len(told),
    )  # fmt: skip
    inner = 0.006 if len(exposures) > 1 else None
    solution = PhotometricSolution(
        tuple(zeros), {CONTEXT: light}, inner, 0.021, 1.1 if inner else None, 1.2, residual,
        np.abs(residual) < 0.2, "r",
    )  # fmt: skip
    return Photometry(tuple(headers), given, solution)


def _earlier(random: np.random.Generator) -> tuple[EarlierZeroPoint, ...]:
    found = []
    for k in range(14):
        airmass = 1.02 + 0.045 * k
        off = 0.25 if k == 5 else 0.0
        mag = 26.12 - 0.1 * (airmass - 1.0) + float(random.normal(0, 0.004)) - off
        found.append(EarlierZeroPoint(f"{744310 + k}p", mag, 0.003, airmass, 56_000.2 + 0.006 * k))
    return tuple(found)


def without_stars(calibration: Calibration) -> Calibration:
    """The same without any detection: as another engine leaves it, that tells only WCS."""
    none, two, index = np.empty(0), np.empty((0, 2)), np.empty(0, np.int32)
    nothing = Detections(index, index, index, index, index, np.empty(0, np.bool_), two, two, two, none)
    nan = float("nan")
    exposures = tuple(
        replace(one, n_external=0, n_internal=0, external_mas=(nan, nan), internal_mas=(nan, nan),
                chi2_external=nan, chi2_internal=nan)
        for one in calibration.astrometry.exposures
    )  # fmt: skip
    astrometry = replace(
        calibration.astrometry, exposures=exposures, detections=nothing, models={}, n_external=0, n_internal=0,
        external_mas=(nan, nan), internal_mas=(nan, nan), chi2_external=nan, chi2_internal=nan,
    )  # fmt: skip
    return replace(calibration, astrometry=astrometry, photometry=None, located={}, previous={}, earlier=())


SCENES: dict[str, Scene] = {
    "image": Scene(with_previous=True),
    "stack": Scene(n_exposures=5, n_stars=2500),
    "small": Scene(SMALL, n_stars=34, floor_mas=30.0),
    "bad": Scene(n_stars=3000, turned={12: 40.0}, empty=(30,), seed=3),
    "cloudy": Scene(
        n_exposures=5, n_stars=1500, clouds_mag={2: 0.35, 3: 0.12}, colour_slope=0.05, pattern_mas=12.0
    ),
    "no_photometry": Scene(n_stars=900, photometry=False),
}
"""To look at and to test with."""
