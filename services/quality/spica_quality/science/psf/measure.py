"""The point spread function of a CCD from its pixels and sources: choose stars, fit, describe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from spica_imaging.stats import median

from spica_quality.science.detection.segments import Segments
from spica_quality.science.flags import Flags
from spica_quality.science.photometry.shapes import AdaptiveMoments
from spica_quality.science.psf import stars as psfstars
from spica_quality.science.psf.figures import NO_FIGURES, PsfFigures, describe
from spica_quality.science.psf.flux import NoiseModel
from spica_quality.science.psf.model import PsfModel
from spica_quality.science.psf.modelling import PsfFit, choose_sampling, fit_psf
from spica_quality.science.psf.stamps import Stamps, cut_stamps

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]

_PEAK_PX = 2.0
_FWHM_PER_SIGMA = 2.2
"""Of the matching Gaussian, for profiles with wings."""
_MOST_STARS = 500
_MOST_STAMP_PIXELS = 1_200_000
"""Over all stars: stamps and their weights then take 10 MB."""


@dataclass(frozen=True, slots=True)
class PsfResult:
    """What came of it; masks have the length of the table of sources."""

    model: PsfModel | None
    """None with fewer than three stars."""
    figures: PsfFigures
    locus: Mask
    """Sources of the stars' size and shape, whether or not they served."""
    candidates: Mask
    """Those that were tried."""
    accepted: Mask
    """Those that the model rests on."""


def measure_psf(
    data: Pixels,
    flags: Flags,
    moments: AdaptiveMoments,
    rms: Floats,
    *,
    gain_e_per_adu: float,
    flux: Floats | None = None,
    usable: Mask | None = None,
    segments: Segments | None = None,
    least_snr: float = 20.0,
    degree: int | None = None,
) -> PsfResult:
    """Choose stars, fit the model, describe it. Never fails on its pixels.

    Args:
        data: pixels above the background, shape (ny, nx), float32.
        flags: bits of `flags.Bit`, same shape; any of them, saturation included, makes a pixel unusable here.
        moments: adaptive moments of all n sources, zero-based positions.
        rms: noise per pixel at each source, shape (n,).
        gain_e_per_adu: 0 leaves photon noise out.
        flux: of each source, to judge neighbours; None: from the moments.
        usable: sources that may be stars at all; None: all.
        segments: which pixels belong to which source, source s having label s + 1; None: not known.
        least_snr: signal-to-noise ratio from which a source may be a star.
        degree: of the polynomials; None: by the number of stars.

    """
    none = np.zeros(len(moments.x), np.bool_)
    bright = moments.snr >= least_snr
    asked = none | bright if usable is None else usable & bright
    whole = psfstars.core_clean(flags, moments.x, moments.y, _PEAK_PX, asked)
    locus = psfstars.on_locus(moments, whole, (data.shape[0], data.shape[1]), least_snr)
    found = None
    if np.count_nonzero(locus) >= psfstars.LEAST_STARS:
        found = _fit(
            _Ccd(data, flags, moments, rms, segments), locus, flux, NoiseModel(gain_e_per_adu), degree
        )
    if found is None:
        return PsfResult(None, NO_FIGURES, locus, none, none)
    indices, fit = found
    candidates, accepted = none.copy(), none.copy()
    candidates[indices] = True
    accepted[indices[fit.accepted]] = True
    figures = describe(fit.model, fit.profile, (data.shape[0], data.shape[1]), _residual(fit))
    return PsfResult(fit.model, figures, locus, candidates, accepted)


@dataclass(frozen=True, slots=True)
class _Ccd:
    """What is measured."""

    data: Pixels
    flags: Flags
    moments: AdaptiveMoments
    rms: Floats
    segments: Segments | None

    @property
    def shape(self) -> tuple[int, int]:
        return self.data.shape[0], self.data.shape[1]

    def stamps(self, indices: NDArray[np.intp], size: int) -> Stamps:
        x, y = self.moments.x[indices], self.moments.y[indices]
        labels = None if self.segments is None else (indices + 1).astype(np.int32)
        return cut_stamps(self.data, self.flags, x, y, self.rms[indices], size, self.segments, labels)


def _fit(
    ccd: _Ccd, locus: Mask, flux: Floats | None, noise: NoiseModel, degree: int | None
) -> tuple[NDArray[np.intp], PsfFit] | None:
    """Indices of the candidates, and the fit to them; None where too few are fit for it."""
    moments = ccd.moments
    major, minor, _ = moments.axes
    minor_fwhm, major_fwhm = (_FWHM_PER_SIGMA * median(axis[locus]) for axis in (minor, major))
    fwhm = float(np.sqrt(minor_fwhm * major_fwhm))
    if flux is None:
        sigma = np.where(np.isfinite(moments.sigma), moments.sigma, fwhm / _FWHM_PER_SIGMA)
        flux = moments.snr * ccd.rms * sigma * 2.0 * np.sqrt(np.pi)
    chosen = psfstars.isolated(moments.x, moments.y, flux, locus, fwhm)
    chosen = psfstars.telling(moments.snr, chosen)
    result = None
    # Once more with finer samples where the stars turn out to have structure of their own.
    for odd in (False, True):
        sampling = choose_sampling(minor_fwhm, major_fwhm, odd=odd)
        most = min(_MOST_STARS, _MOST_STAMP_PIXELS // sampling.stamp_px**2)
        indices = np.flatnonzero(
            psfstars.strongest(moments.x, moments.y, moments.snr, chosen, most, ccd.shape)
        )
        stamps = ccd.stamps(indices, sampling.stamp_px)
        fine = psfstars.whole(stamps, fwhm)
        if np.count_nonzero(fine) < psfstars.LEAST_STARS:
            break
        fit = fit_psf(stamps.select(fine), ccd.shape, fwhm, noise, sampling, degree)
        if fit is None:
            break
        result = indices[fine], fit
        if not fit.odd:
            break
    return result


def _residual(fit: PsfFit) -> float:
    own = fit.stars.flux * fit.accepted
    brighter = fit.accepted & (own >= np.median(own[fit.accepted]))
    return max(median(fit.stars.residual[brighter]), 0.0)
