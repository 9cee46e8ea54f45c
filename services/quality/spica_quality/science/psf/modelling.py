"""From stars to the model of the point spread function: what is expected, fitted, doubted, and fitted again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from spica_imaging.stats import median, median_sigma

from spica_quality.science.psf.basis import coefficients, vandermonde
from spica_quality.science.psf.fit import Problem, make_taps, solve
from spica_quality.science.psf.flux import NoiseModel, StarFits, begin, refit
from spica_quality.science.psf.model import Pair, PsfModel
from spica_quality.science.psf.moffat import Moffat, moffat_samples
from spica_quality.science.psf.stamps import Stamps
from spica_quality.science.psf.start import common_moffat

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Bools = NDArray[np.bool_]

_STEP_FWHM = 0.25
"""Distance of the grid's points: a spline then follows a star to 3e-4 of the peak."""
_LEAST_STEP_PX = 0.5
_REACH_FWHM = 3.0
_ODD_REACH_FWHM = 1.5
_MOST_SAMPLES = 51
_LEAST_SAMPLES = 25
_CORE_FWHM = 1.5
_FIRST_STARS = 100
_CLIP_SIGMA = 5.0
_OUTLIER_SIGMA = 5.0
_ROUNDS = 4
_ODD_PROFILE = 0.15
_ODD_CHI2 = 2.0
_BINS = 8
_SPREAD, _LEAST_SPREAD = 0.3, 1e-4
"""By what share of itself the profile may differ from the expected one."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """The grid of a model."""

    n_samples: int
    """Per side, odd."""
    step_px: float

    @property
    def stamp_px(self) -> int:
        """Side of the stamps that the samples cover."""
        return 2 * int(np.ceil((self.n_samples // 2) * self.step_px)) + 1


def choose_sampling(minor_fwhm_px: float, major_fwhm_px: float, *, odd: bool = False) -> Sampling:
    """Fine enough for the narrow side of the stars, and as far as the long one goes (at most 51 samples).

    `odd` stars, rings above all, are finer than they are wide, and end where they end.
    """
    wide = max(_REACH_FWHM * np.sqrt(minor_fwhm_px * major_fwhm_px), 2.0 * major_fwhm_px)
    reach = float(_ODD_REACH_FWHM * major_fwhm_px if odd else wide)
    step = _STEP_FWHM * minor_fwhm_px
    step = max(min(step, reach / (_MOST_SAMPLES // 2)) if odd else step, _LEAST_STEP_PX)
    half = int(np.clip(np.ceil(reach / step - 1e-6), _LEAST_SAMPLES // 2, _MOST_SAMPLES // 2))
    # Where the samples do not suffice, it is better to see all of the star than to see it sharp.
    return Sampling(2 * half + 1, float(max(step, min(reach / half, 4.0 * step))))


def degree_for(n_stars: int) -> int:
    """Degree of the polynomials that so many stars can carry."""
    return sum(n_stars >= least for least in (6, 25, 300))


@dataclass(frozen=True, slots=True)
class PsfFit:
    """The model, and what became of the stars."""

    model: PsfModel
    accepted: Bools
    """Shape (n,)."""
    stars: StarFits
    profile: Moffat
    """Through the brightest stars."""
    odd: bool
    """The stars' mean is not like a Moffat profile: rings out of focus, doubled or trailed stars."""


@dataclass(slots=True)
class _Basis:
    """Polynomials that are orthogonal over the stars, and the way back to plain powers."""

    terms: Pixels
    """Shape (n, n_coef)."""
    back: Floats
    """Plain cube = back @ cube; shape (n_coef, n_coef)."""
    degree: int
    zero: Pair
    scale: Pair


def _basis(stamps: Stamps, shape: tuple[int, int], flux: Floats, degree: int) -> _Basis:
    ny, nx = shape
    zero, scale = (0.5 * (nx - 1), 0.5 * (ny - 1)), (0.5 * nx, 0.5 * ny)
    weight = np.sqrt(np.clip(flux, 0.0, np.percentile(flux, 90)) + 1e-9 * np.max(np.abs(flux)) + 1e-30)
    while True:
        plain = vandermonde(degree, (stamps.x - zero[0]) / scale[0], (stamps.y - zero[1]) / scale[1])
        _, triangle = np.linalg.qr(plain * weight[:, None])
        diagonal = np.abs(np.diag(triangle))
        # Stars in a row, or fewer than terms, cannot carry this degree.
        if degree == 0 or (diagonal.size == plain.shape[1] and diagonal.min() > 0.02 * diagonal.max()):
            break
        degree -= 1
    back = np.linalg.inv(triangle) * np.sqrt(np.sum(weight**2))
    back *= np.sign(back[0, 0])
    return _Basis((plain @ back).astype(np.float32), back, degree, zero, scale)


def _mean_profile(
    stamps: Stamps, fits: StarFits, sampling: Sampling, expected: Pixels, core_px: float, noise: NoiseModel
) -> Pixels:
    """Samples of the brightest stars' mean, shape (m, m), twice over: with the positions that fit it better."""
    m, step = sampling.n_samples, sampling.step_px
    one = np.ones((len(stamps), 1), np.float32)
    bright = np.zeros(len(stamps), np.bool_)
    bright[np.argsort(-fits.flux / stamps.rms, kind="stable")[:_FIRST_STARS]] = True
    bright &= fits.flux > 0
    prior = expected[None]
    tau = 0.5 * prior + np.float32(0.1) * prior.max()
    mean = prior
    for _ in range(2):
        problem = Problem(
            stamps.data, fits.weight, fits.flux.astype(np.float32), one,
            make_taps(fits.dx, fits.dy, stamps.size, m, step), bright, step,
        )  # fmt: skip
        mean, _ = solve(problem, prior, tau, mean)
        mean /= mean.sum()
        refit(fits, stamps, coefficients(mean), one, step, noise, core_px)
    return mean[0]


def _is_odd(fits: StarFits) -> bool:
    """Whether the stars' cores are not like the Moffat profile that they were fitted with."""
    seen = fits.flux > 0
    return median(fits.residual[seen]) > _ODD_PROFILE and median(fits.reduced[seen]) > _ODD_CHI2


def _renew_spread(tau: Pixels, cube: Pixels, prior: Pixels, known: Pixels, size: Pixels, most: float) -> None:
    """How far the model strays from what was expected, by term and distance from the centre: the next tau.

    MacKay's rule (1992, Neural Comp. 4, 415): sum of squares over the number of values that the data decide. Terms
    that the field does not show shrink away, and rings out of focus are let free.
    """
    m = cube.shape[1]
    axis = np.arange(m) - m // 2
    ring = np.minimum(np.hypot(axis[:, None], axis[None, :]) * (_BINS / (m // 2)), _BINS).astype(np.intp)
    strayed = (cube - prior) ** 2
    decided = tau * tau * known / (1.0 + tau * tau * known)
    for c in range(cube.shape[0]):
        total = np.bincount(ring.ravel(), strayed[c].ravel(), _BINS + 1)
        count = np.bincount(ring.ravel(), decided[c].ravel(), _BINS + 1)
        pixels = np.bincount(ring.ravel(), minlength=_BINS + 1)
        spread = np.sqrt(total / np.maximum(count, 1e-3 * pixels))[ring]
        tau[c] = np.clip(spread, _LEAST_SPREAD * size, most * size)


def _outliers(fits: StarFits, had: Bools) -> Bools:
    """Stars that fit well enough: not double, no galaxies, not hit."""
    reduced = fits.reduced
    good = (fits.flux > 0) & np.isfinite(reduced)
    if np.count_nonzero(good & had) < 5:
        return np.asarray(good)
    typical, scatter = median_sigma(reduced[good & had])
    scatter = max(scatter, float(np.sqrt(2.0 / np.median(fits.dof[good]))), 0.1 * typical)
    return np.asarray(good & (reduced < typical + _OUTLIER_SIGMA * scatter))


def fit_psf(
    stamps: Stamps,
    shape: tuple[int, int],
    fwhm_px: float,
    noise: NoiseModel,
    sampling: Sampling,
    degree: int | None = None,
) -> PsfFit | None:
    """Fit the model to all stars at once; None where no star has any flux.

    First a Moffat profile through the brightest stars, which is what is expected everywhere (or their plain mean,
    where they are not like that); then, four times, the stars' own fluxes and positions, the stars that do not
    fit, and the cube.

    Args:
        stamps: the stars, `sampling.stamp_px` wide.
        shape: (ny, nx) of the frame.
        fwhm_px: rough width of the stars.
        noise: how pixels scatter.
        sampling: grid of the model.
        degree: of the polynomials; None: by the number of stars.

    """
    fits, core = begin(stamps), _CORE_FWHM * fwhm_px
    m, step = sampling.n_samples, sampling.step_px
    profile = common_moffat(stamps, fwhm_px, noise)
    smooth = moffat_samples(profile.parameters, m, step)
    expected: Pixels = (smooth / smooth.sum()).astype(np.float32)
    one = np.ones((len(stamps), 1), np.float32)
    refit(fits, stamps, coefficients(expected)[None], one, step, noise, core)
    if not np.any(fits.flux > 0):
        return None
    odd = _is_odd(fits)
    if odd:
        expected = _mean_profile(stamps, fits, sampling, expected, core, noise)
    basis = _basis(stamps, shape, fits.flux, degree_for(len(stamps)) if degree is None else degree)
    prior = np.zeros((basis.terms.shape[1], m, m), np.float32)
    prior[0] = expected / basis.terms[0, 0]
    size = np.abs(prior[0]) + np.float32(0.003) * prior[0].max()
    tau = np.stack([(_SPREAD if c == 0 else _SPREAD / 3.0) * size for c in range(len(prior))]).astype(
        np.float32
    )
    cube = prior.copy()
    accepted = np.asarray(fits.flux > 0)
    for turn in range(_ROUNDS + 1):
        clip = _CLIP_SIGMA if turn else np.inf
        refit(
            fits,
            stamps,
            coefficients(cube),
            basis.terms,
            step,
            noise,
            core,
            clip_sigma=clip,
            recentre=turn < _ROUNDS,
        )
        if turn:
            accepted = _outliers(fits, accepted)
        if turn == _ROUNDS or not accepted.any():
            break
        problem = Problem(
            stamps.data, fits.weight, fits.flux.astype(np.float32), basis.terms,
            make_taps(fits.dx, fits.dy, stamps.size, m, step), accepted, step,
        )  # fmt: skip
        cube, known = solve(problem, prior, tau, cube)
        if turn < _ROUNDS - 1:
            _renew_spread(tau, cube, prior, known, size, 1.0 if odd else _SPREAD)
    if not (accepted.any() and np.isfinite(cube).all()):
        return None
    chi2 = float(fits.chi2[accepted].sum() / max(fits.dof[accepted].sum(), 1.0))
    model = _model(cube, basis, step, profile, len(stamps), int(np.count_nonzero(accepted)), chi2)
    return PsfFit(model, accepted, fits, profile, odd)


def _model(
    cube: Pixels, basis: _Basis, step: float, profile: Moffat, candidates: int, stars: int, chi2: float
) -> PsfModel:
    """In plain powers; the flux of 1 is in the first term, the others only move it about."""
    plain = np.tensordot(basis.back, coefficients(cube).astype(np.float64), 1)
    total = plain.sum(axis=(1, 2))
    plain[1:] -= (total[1:] / total[0])[:, None, None] * plain[0]
    plain /= total[0]
    width = float(np.hypot(profile.fwhm_px, 0.9))
    return PsfModel(
        np.ascontiguousarray(plain, np.float32), basis.degree, basis.zero, basis.scale, step, width, candidates,
        stars, chi2,
    )  # fmt: skip
