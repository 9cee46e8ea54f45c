"""Catalogues of a mosaic camera with everything known: sky, instrument, air, errors. Nothing rendered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from spica_calib.science.astrometry.problem import Exposure, Zenith
from spica_calib.science.stars import CcdField, Sources, Stars
from spica_imaging.polynomial import design, tpv_family
from spica_imaging.wcs import TpvWcs, tan_deproject, tan_project

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """CCDs of nx × ny pixels in columns × rows; MegaCam's size as it comes."""

    columns: int = 9
    rows: int = 4
    nx: int = 2048
    ny: int = 4612
    scale_arcsec: float = 0.186
    gap_px: float = 80.0
    bend_arcsec: float = 8.0
    """Cubic radial distortion at the field's corner."""
    wave_arcsec: float = 0.0
    """Besides, a sinusoidal one of two periods over the field, which is no polynomial."""
    seed: int = 0
    rough_px: float = 3.0
    """CCDs stand off their places by so much, and are turned by up to 1 mrad."""

    @property
    def names(self) -> list[str]:
        return [f"ccd{k:02d}" for k in range(self.columns * self.rows)]

    @property
    def radius_arcsec(self) -> float:
        return (
            0.5
            * self.scale_arcsec
            * float(np.hypot(self.columns * (self.nx + self.gap_px), self.rows * (self.ny + self.gap_px)))
        )

    def placed(self) -> list[tuple[complex, complex]]:
        """Centre (arcsec) and orientation of every CCD."""
        rng = np.random.default_rng(self.seed)
        found = []
        for k in range(self.columns * self.rows):
            i, j = k % self.columns, k // self.columns
            centre = complex(
                (i - (self.columns - 1) / 2) * (self.nx + self.gap_px),
                (j - (self.rows - 1) / 2) * (self.ny + self.gap_px),
            )
            centre += self.rough_px * complex(*rng.uniform(-1, 1, 2))
            found.append((self.scale_arcsec * centre, complex(np.exp(1e-3j * rng.uniform(-1, 1)))))
        return found

    def distorted(self, place: Floats) -> Floats:
        """From an ideal focal plane (complex, arcsec) to the real one."""
        r2 = np.abs(place) ** 2 / self.radius_arcsec**2
        out = place * (1.0 + self.bend_arcsec / self.radius_arcsec * r2)
        phase = 2.0 * np.pi / self.radius_arcsec
        return out + self.wave_arcsec * (np.sin(phase * place.imag) + 1j * np.sin(phase * place.real + 1.0))


@dataclass(frozen=True)
class Shot:
    """The truth of one exposure."""

    pointing: tuple[float, float]
    turn: complex = 1.0 + 0j
    shear: complex = 0j
    zenith: Zenith | None = None

    def pixels(self, camera: Camera, ccd: int, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
        """True pixel of sky positions."""
        xi, eta = tan_project(*_lifted(ra, dec, self), *self.pointing)
        plane = 3600.0 * (xi + 1j * eta)
        plane = self.turn * plane + self.shear * np.conj(plane)
        centre, orientation = camera.placed()[ccd]
        at = (camera.distorted(plane) - centre) / orientation / camera.scale_arcsec
        return (camera.nx + 1) / 2 - at.real, (camera.ny + 1) / 2 + at.imag

    def sky(self, camera: Camera, ccd: int, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """True sky position of pixels, by iteration."""
        centre, orientation = camera.placed()[ccd]
        goal = (
            camera.scale_arcsec
            * orientation
            * ((camera.nx + 1) / 2 - np.asarray(x) + 1j * (np.asarray(y) - (camera.ny + 1) / 2))
            + centre
        )
        plane = goal.copy()
        for _ in range(30):
            ra, dec = tan_deproject(plane.real / 3600, plane.imag / 3600, *self.pointing)
            px, py = self.pixels(camera, ccd, ra, dec)
            plane = (
                plane
                - (np.asarray(x) - px) * camera.scale_arcsec
                + 1j * (np.asarray(y) - py) * camera.scale_arcsec
            )
        return tan_deproject(plane.real / 3600, plane.imag / 3600, *self.pointing)


def _lifted(ra: Floats, dec: Floats, shot: Shot) -> tuple[Floats, Floats]:
    """Apparent places, refracted towards the zenith by A tan z + B tan³ z (erfa's constants), the centre where it is."""
    if shot.zenith is None:
        return ra, dec
    import erfa

    a, b = erfa.refco(shot.zenith.pressure_hpa, shot.zenith.temperature_c, 0.0, 0.6)
    q, z = np.radians(shot.zenith.angle_deg), np.radians(shot.zenith.distance_deg)

    def vector(ra: Floats, dec: Floats) -> Floats:
        r, d = np.radians(ra), np.radians(dec)
        return np.stack((np.cos(d) * np.cos(r), np.cos(d) * np.sin(r), np.sin(d)), axis=-1)

    r0, d0 = np.radians(shot.pointing)
    middle = vector(*np.array(shot.pointing))
    east = np.array([-np.sin(r0), np.cos(r0), 0.0])
    north = np.array([-np.sin(d0) * np.cos(r0), -np.sin(d0) * np.sin(r0), np.cos(d0)])
    zenith = np.cos(z) * middle + np.sin(z) * (np.sin(q) * east + np.cos(q) * north)

    def lifted(v: Floats) -> Floats:
        true = np.arccos(v @ zenith)
        seen = true.copy()
        for _ in range(10):
            seen = true - a * np.tan(seen) - b * np.tan(seen) ** 3
        # Slerp towards the zenith.
        return (np.sin(seen)[..., None] * v + np.sin(true - seen)[..., None] * zenith) / np.sin(true)[
            ..., None
        ]

    v = lifted(vector(np.asarray(ra), np.asarray(dec)))
    # The whole sky is turned back so that the centre keeps its place.
    m = lifted(middle[None])[0]
    axis = np.cross(m, middle)
    sine, cosine = np.linalg.norm(axis), m @ middle
    axis = axis / max(sine, 1e-300)
    v = v * cosine + np.cross(axis, v) * sine + np.outer(v @ axis, axis) * (1 - cosine)
    return np.degrees(np.arctan2(v[:, 1], v[:, 0])) % 360.0, np.degrees(np.arcsin(v[:, 2]))


@dataclass(frozen=True)
class Sky:
    """Sources of a field, and the reference stars among them."""

    ra: Floats
    dec: Floats
    mag: Floats
    pm: Floats
    """Shape (n, 2), mas/yr."""
    stars: Stars
    star: NDArray[np.int64]
    """Which source each reference star is."""

    def at(self, year: float) -> tuple[Floats, Floats]:
        """True places at an epoch."""
        years = (year - 2016.0) / 3.6e6
        return self.ra + years * self.pm[:, 0] / np.cos(np.radians(self.dec)), self.dec + years * self.pm[
            :, 1
        ]


def make_sky(
    rng: np.random.Generator, centre: tuple[float, float], half_deg: float, n: int, star_share: float = 0.3
) -> Sky:
    """Sources of magnitude 16 to 24; the brightest are reference stars with errors of 0.1 to 2 mas, at 2016.0."""
    ra, dec = tan_deproject(rng.uniform(-half_deg, half_deg, n), rng.uniform(-half_deg, half_deg, n), *centre)
    mag = 16.0 + 8.0 * np.sqrt(rng.uniform(0, 1, n))
    pm = 5.0 * rng.standard_normal((n, 2))
    bright = np.sort(np.argsort(mag)[: int(star_share * n)])
    error = np.clip(0.1 * 10 ** (0.3 * (mag[bright] - 17.0)), 0.1, 2.0)
    moved = error[:, None] * rng.standard_normal((len(bright), 2)) / 3.6e6
    stars = Stars(
        ra[bright] + moved[:, 0] / np.cos(np.radians(dec[bright])),
        dec[bright] + moved[:, 1],
        error,
        np.full(len(bright), 2016.0),
        pm[bright, 0],
        pm[bright, 1],
        {"r": mag[bright]},
    )
    # What the catalogue has no motion for shall not move here: it would be another matter.
    still = np.ones(n, dtype=bool)
    still[bright] = False
    pm[still] = 0.0
    return Sky(ra, dec, mag, pm, stars, bright)


@dataclass
class Scene:
    """Exposures and what is true of them."""

    camera: Camera
    sky: Sky
    shots: list[Shot]
    exposures: list[Exposure] = field(default_factory=list)

    def deviation_mas(self, exposure: int, wcs: Sequence[TpvWcs], side: int = 7) -> Floats:
        """Solution minus truth over all CCDs, shape (points, 2)."""
        x, y = (
            c.ravel()
            for c in np.meshgrid(np.linspace(1, self.camera.nx, side), np.linspace(1, self.camera.ny, side))
        )
        found = []
        for ccd, one in zip(self.exposures[exposure].ccds, wcs, strict=True):
            ra, dec = self.shots[exposure].sky(self.camera, int(ccd.name[3:]), x, y)
            a, d = one.pixel_to_sky(x, y)
            found.append(np.stack(((a - ra) * np.cos(np.radians(dec)), d - dec), axis=1))
        return 3.6e6 * np.concatenate(found)


def through(camera: Camera, shot: Shot, ccd: int, degree: int, shift_deg: tuple[float, float]) -> TpvWcs:
    """A WCS through the truth, of this degree, and moved."""
    half = camera.ny / 2.0
    side = np.linspace(-1, 1, 7)
    u, v = (c.ravel() for c in np.meshgrid(side * camera.nx / camera.ny, side))
    centre = (camera.nx + 1) / 2, (camera.ny + 1) / 2
    ra, dec = shot.sky(camera, ccd, centre[0] + half * u, centre[1] + half * v)
    plane = np.stack(tan_project(ra, dec, *shot.pointing), axis=1) + np.array(shift_deg)
    fit = np.linalg.lstsq(design(u, v, degree), plane, rcond=None)[0]
    return tpv_family(shot.pointing, np.array([centre]), np.array([half]), fit[None], degree)[0]


def observe(
    rng: np.random.Generator,
    scene: Scene,
    number: int,
    *,
    context: str = "r",
    year: float = 2020.0,
    ccds: Sequence[int] | None = None,
    start_degree: int = 2,
    start_px: float = 1.5,
    floor_px: float = 0.02,
    faint_px: float = 0.15,
    outliers: float = 0.05,
    lost: float = 0.1,
    told_zenith: bool = True,
) -> Exposure:
    """Catalogue of one exposure; its WCS are off by about `start_px` per CCD and the same for all of it."""
    camera, sky, shot = scene.camera, scene.sky, scene.shots[number]
    ra, dec = sky.at(year)
    common = start_px * camera.scale_arcsec / 3600 * rng.standard_normal(2)
    fields = []
    near = np.flatnonzero(np.hypot(*tan_project(ra, dec, *shot.pointing)) * 3600 < 1.1 * camera.radius_arcsec)
    for k in ccds if ccds is not None else range(camera.columns * camera.rows):
        x, y = shot.pixels(camera, k, ra[near], dec[near])
        seen = (x > 1) & (x < camera.nx) & (y > 1) & (y < camera.ny) & (rng.uniform(size=len(x)) > lost)
        index = near[seen]
        n = len(index)
        noise = faint_px * 10 ** (0.2 * (sky.mag[index] - 24.0))
        error = np.hypot(floor_px, noise)
        at = np.stack((x[seen], y[seen])) + error * rng.standard_normal((2, n))
        wrong = rng.uniform(size=n) < outliers
        at[:, wrong] += rng.uniform(-8, 8, (2, np.count_nonzero(wrong)))
        flux = 10 ** (0.4 * (30.0 - sky.mag[index]))
        every = np.ones(n, dtype=bool)
        sources = Sources(at[0], at[1], np.maximum(noise, 1e-3), flux, flux, 0.01 * flux, every, every, every)
        own = common + 0.5 * start_px * camera.scale_arcsec / 3600 * rng.standard_normal(2)
        wcs = through(camera, shot, k, start_degree, (own[0], own[1]))
        fields.append(CcdField(k, camera.names[k], camera.nx, camera.ny, sources, wcs))
    zenith = shot.zenith if told_zenith else None
    return Exposure(f"{1000 + number}", context, tuple(fields), year, zenith)


def make_scene(
    rng: np.random.Generator,
    camera: Camera,
    dithers_arcsec: Sequence[tuple[float, float]],
    *,
    centre: tuple[float, float] = (150.1, 2.2),
    per_ccd: int = 300,
    star_share: float = 0.3,
    zenith: Sequence[Zenith | None] | None = None,
    years: Sequence[float] | None = None,
    **options: object,
) -> Scene:
    """A field, exposed once per dither."""
    half = camera.radius_arcsec / 3600 + 1.2 * max(
        1e-3, max(max(abs(a), abs(b)) for a, b in dithers_arcsec) / 3600
    )
    area = camera.nx * camera.ny * (camera.scale_arcsec / 3600) ** 2
    sky = make_sky(rng, centre, half, int(per_ccd / area * (2 * half) ** 2), star_share)
    shots = []
    for k, (dx, dy) in enumerate(dithers_arcsec):
        ra, dec = tan_deproject(dx / 3600, dy / 3600, *centre)
        turn = np.exp(3e-4j * rng.standard_normal()) * (1 + 1e-4 * rng.standard_normal())
        shear = 3e-5 * complex(*rng.standard_normal(2))
        shots.append(Shot((float(ra), float(dec)), complex(turn), shear, zenith[k] if zenith else None))
    scene = Scene(camera, sky, shots)
    for k in range(len(shots)):
        year = years[k] if years else 2020.0
        scene.exposures.append(observe(rng, scene, k, year=year, **options))  # type: ignore[arg-type]
    return scene


def shuffled(rng: np.random.Generator, stars: Stars) -> Stars:
    """The same numbers, RA and Dec paired anew."""
    return replace(stars, dec_deg=stars.dec_deg[rng.permutation(len(stars))])
