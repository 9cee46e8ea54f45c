"""Frames whose stars are known, with their sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from spica_quality.science.background.sky import measure_sky, subtract
from spica_quality.science.detection.segmentation import detect
from spica_quality.science.detection.segments import Segments, Sources
from spica_quality.science.photometry.shapes import AdaptiveMoments, adaptive_moments
from spica_quality.science.psf.measure import PsfResult, measure_psf

from tests.support.ccdsim import Exposure, PsfField, Recipe, simulate, small

Floats = NDArray[np.float64]
Profile = Callable[[Floats, Floats], Floats]


@dataclass(frozen=True)
class Scene:
    """Pixels less the sky, and the sources in them."""

    data: NDArray[np.float32]
    flags: NDArray[np.uint16]
    moments: AdaptiveMoments
    flux: Floats
    rms: Floats
    is_star: NDArray[np.bool_]
    gain: float
    segments: Segments | None = None

    def measure(self, **options: object) -> PsfResult:
        return measure_psf(
            self.data,
            self.flags,
            self.moments,
            self.rms,
            gain_e_per_adu=self.gain,
            flux=self.flux,
            segments=self.segments,
            **options,
        )  # type: ignore[arg-type]


def no_segments(shape: tuple[int, int]) -> Segments:
    none = np.zeros(0, np.int32)
    return Segments(shape, np.zeros(shape[0] + 1, np.int32), none, none, none)


def _moments(
    data: NDArray[np.float32],
    flags: NDArray[np.uint16],
    x: Floats,
    y: Floats,
    flux: Floats,
    rms: Floats,
    sigma: float,
) -> AdaptiveMoments:
    zero = np.zeros(len(x))
    whole = zero.astype(np.int32)
    square = zero + sigma**2
    sources = Sources(
        x, y, square, square, zero, flux, flux, *(whole,) * 7, threshold=zero, flags=whole.astype(np.int16)
    )
    return adaptive_moments(data, flags, sources, no_segments(data.shape), rms, sigma)


def field(psf: PsfField, seed: int = 1, shape: tuple[int, int] = (1024, 1024), **changes: object) -> Scene:
    """A simulated frame with stars and galaxies, and what detection finds in it."""
    return scene_of(simulate(small(Recipe(psf=psf, bleed=False), shape, **changes), seed))


def scene_of(exposure: Exposure) -> Scene:
    """What detection finds in a simulated frame."""
    psf, data = exposure.recipe.psf, exposure.data.copy()
    flags = np.zeros(data.shape, np.uint16)
    flags[ndimage.binary_dilation(exposure.saturated, iterations=2)] = 4
    flags[exposure.cosmic_adu > 3.0 * exposure.noise_adu] = 32
    sky = measure_sky(data, flags, 128)
    subtract(data, flags, sky)
    sources, segments = detect(data, flags, sky, fwhm_px=psf.fwhm_px)
    rms = sky.rms_at(sources.x, sources.y)
    moments = adaptive_moments(data, flags, sources, segments, rms, psf.fwhm_px / 2.355)
    truth = exposure.truth
    stars = cKDTree(np.column_stack([truth.x, truth.y])[truth.is_star])
    distance, _ = stars.query(np.column_stack([sources.x, sources.y]))
    is_star = distance < 0.3 * psf.fwhm_px
    return Scene(data, flags, moments, sources.flux, rms, is_star, exposure.recipe.gain_e_per_adu, segments)


def drawn(
    profile: Profile,
    n: int,
    sigma: float,
    flux: tuple[float, float] = (2e4, 3e5),
    shape: tuple[int, int] = (700, 700),
    noise: float = 10.0,
    seed: int = 0,
) -> Scene:
    """Stars of any profile, 5 × 5 points per pixel, on a jittered grid; no photon noise."""
    random = np.random.default_rng(seed)
    data = random.normal(0.0, noise, shape).astype(np.float32)
    half, per_side = 40, max(int(np.ceil(np.sqrt(n))), 1)
    cell = (np.array(shape[::-1]) - 2 * half) / per_side
    index = np.arange(n)
    x = half + (index % per_side + random.uniform(0.3, 0.7, n)) * cell[0]
    y = half + (index // per_side + random.uniform(0.3, 0.7, n)) * cell[1]
    fluxes = np.exp(random.uniform(*np.log(flux), n))
    for x0, y0, total in zip(x, y, fluxes, strict=True):
        i, j = int(x0 + 0.5), int(y0 + 0.5)
        stamp = in_pixels(profile, 2 * half + 1, x0 - i, y0 - j)
        data[j - half : j + half + 1, i - half : i + half + 1] += (total * stamp).astype(np.float32)
    flags, rms = np.zeros(shape, np.uint16), np.full(n, noise)
    start_x, start_y = x + random.normal(0, 0.1, n), y + random.normal(0, 0.1, n)
    moments = _moments(data, flags, start_x, start_y, fluxes, rms, sigma)
    return Scene(data, flags, moments, fluxes, rms, np.ones(n, np.bool_), 0.0)


def in_pixels(profile: Profile, size: int, dx: float = 0.0, dy: float = 0.0, points: int = 5) -> Floats:
    """What pixels see of a profile of flux 1 whose centre is (dx, dy) px from the middle pixel's."""
    axis = (np.arange(size * points) + 0.5) / points - 0.5 - size // 2
    fine = profile(axis[None, :] - dx, axis[:, None] - dy)
    stamp = fine.reshape(size, points, size, points).sum(axis=(1, 3))
    return np.asarray(stamp / stamp.sum())


def gaussian(sigma: float) -> Profile:
    return lambda x, y: np.exp(-0.5 * (x * x + y * y) / sigma**2)


def moffat(fwhm: float, beta: float) -> Profile:
    a2 = (0.5 * fwhm) ** 2 / (2.0 ** (1.0 / beta) - 1.0)
    return lambda x, y: (1.0 + (x * x + y * y) / a2) ** -beta


def ring(x: Floats, y: Floats) -> Floats:
    """Out of focus: light between 6 and 14 px from the centre."""
    r = np.hypot(x, y)
    return 1.0 / (1.0 + np.exp((r - 14.0) / 0.8)) / (1.0 + np.exp((6.0 - r) / 0.8))


def trail(x: Floats, y: Floats) -> Floats:
    """Drawn out to 20 px along (0.8, 0.6)."""
    return np.sum([gaussian(1.7)(x - 0.8 * t, y - 0.6 * t) for t in np.linspace(-10.0, 10.0, 41)], axis=0)
