"""Which sources are stars, and what they tell of the point spread function."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from spica_imaging.stats import FWHM_PER_SIGMA, median, median_sigma, mode

from spica_quality.science.figures import NO_PSF, Psf
from spica_quality.science.moments import AdaptiveMoments

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]

MIN_STAR_SIGMA_PX = 0.50
"""No optics with pixels that sample it at all makes stars narrower (FWHM 1.2 px); hot pixels are."""

_LOCUS_SIGMA = 3.0
_MOST_PROFILE_PIXELS = 6000
_LEAST_SCATTER = 0.02
"""Of ln sigma: differences over the field, which are not noise."""


def select_stars(moments: AdaptiveMoments, usable: Mask, *, least_snr: float = 20.0) -> Mask:
    """The sources on the stellar locus: all of one size and one shape, whatever their flux.

    Among `usable` sources of sufficient signal the most frequent size is that of stars, as galaxies
    differ from each other. Size and shape are then clipped about their medians. No limit on the
    ellipticity itself: in a trailed exposure the stars are the elongated ones.

    Args:
        moments: adaptive moments of all sources, arrays of shape (n,).
        usable: sources that are whole: not saturated, not cut by the edge, not blended.
        least_snr: signal-to-noise ratio from which a source may count.

    Returns:
        Mask of shape (n,).

    """
    sigma = moments.sigma
    with np.errstate(invalid="ignore"):
        candidate = usable & (moments.snr >= least_snr) & (sigma > MIN_STAR_SIGMA_PX)
    candidate &= np.isfinite(sigma)
    if np.count_nonzero(candidate) < 3:
        return np.asarray(candidate)
    size = np.full(sigma.shape, np.nan)
    size[candidate] = np.log(sigma[candidate])
    chosen = candidate & (np.abs(size - mode(size[candidate])) < 0.15)
    shapes = _shapes(moments)
    for _ in range(10):
        centre, scatter = median_sigma(size[chosen])
        limit = _LOCUS_SIGMA * max(scatter, _LEAST_SCATTER)
        kept = candidate & (np.abs(size - centre) < limit)
        for component in shapes:
            typical, spread = median_sigma(component[chosen])
            with np.errstate(invalid="ignore"):
                kept &= np.abs(component - typical) < 4.0 * max(spread, _LEAST_SCATTER)
        if np.array_equal(kept, chosen) or not kept.any():
            break
        chosen = kept
    return np.asarray(chosen)


def _shapes(moments: AdaptiveMoments) -> tuple[Floats, Floats]:
    total = moments.xx + moments.yy
    with np.errstate(invalid="ignore", divide="ignore"):
        return (moments.xx - moments.yy) / total, 2.0 * moments.xy / total


def measure_psf(data: Pixels, bad: Mask, moments: AdaptiveMoments, stars: Mask) -> Psf:
    """Summarise the stars.

    The ellipticity is that of the median of the normalised moments. Noise scatters a round star's
    moments about zero, so that the median of many stars tends to zero, whereas the median of
    1 - b/a, positive for each star, does not.

    The FWHM is read off a Moffat profile fitted to the pixels of all stars together, as a function
    of elliptical radius: many stars at many positions within a pixel sample the profile finely even
    where the pixels are coarse.
    """
    n = int(np.count_nonzero(stars))
    if n == 0:
        return NO_PSF
    sigma = median(moments.sigma[stars])
    e1, e2 = (median(component[stars]) for component in _shapes(moments))
    e = min(float(np.hypot(e1, e2)), 0.999)
    ellipticity = 1.0 - float(np.sqrt((1.0 - e) / (1.0 + e)))
    angle = 0.5 * float(np.degrees(np.arctan2(e2, e1)))
    beta, fwhm = float("inf"), FWHM_PER_SIGMA * sigma
    radius, profile = star_profile(data, bad, moments, stars, sigma)
    if n >= 3 and radius.size >= 40:
        beta, fwhm = fit_moffat(radius, profile, fwhm)
    return Psf(n, sigma, fwhm, ellipticity, angle, beta, noise_area(fwhm, beta))


def star_profile(
    data: Pixels, bad: Mask, moments: AdaptiveMoments, stars: Mask, sigma: float, most: int = 200
) -> tuple[Floats, Floats]:
    """Pixels of the brightest stars as (elliptical radius in px of a round star, relative intensity).

    Each star is scaled to the median size and to its own Gaussian-weighted flux.
    """
    indices = np.flatnonzero(stars)
    indices = indices[np.argsort(-moments.snr[indices], kind="stable")][:most]
    reach = int(np.ceil(3.2 * sigma)) + 1
    ny, nx = data.shape
    radii: list[Floats] = []
    values: list[Floats] = []
    for k in indices:
        x, y = moments.x[k], moments.y[k]
        j0, i0 = round(float(y)), round(float(x))
        if not (reach <= j0 < ny - reach and reach <= i0 < nx - reach):
            continue
        window = np.s_[j0 - reach : j0 + reach + 1, i0 - reach : i0 + reach + 1]
        dy, dx = np.mgrid[j0 - reach : j0 + reach + 1, i0 - reach : i0 + reach + 1].astype(np.float64)
        dy -= y
        dx -= x
        xx, yy, xy = moments.xx[k], moments.yy[k], moments.xy[k]
        determinant = xx * yy - xy * xy
        rho2 = (yy * dx * dx + xx * dy * dy - 2.0 * xy * dx * dy) / determinant
        weight = np.exp(-0.5 * rho2)
        stamp = data[window].astype(np.float64)
        good = ~bad[window]
        flux = float(np.sum((weight * stamp)[good]) / np.sum((weight * weight)[good]))
        near = good & (rho2 < 9.0)
        if flux > 0:
            radii.append(np.sqrt(rho2[near]) * sigma)
            values.append(stamp[near] / flux)
    if not radii:
        return np.empty(0), np.empty(0)
    # Of large stars every n-th pixel is plenty: the fit's time goes with their number.
    step = max(1, sum(part.size for part in radii) // _MOST_PROFILE_PIXELS)
    return np.concatenate(radii)[::step], np.concatenate(values)[::step]


def fit_moffat(radius: Floats, profile: Floats, fwhm_start: float) -> tuple[float, float]:
    """Fit A (1 + (r/a)²)^-b; returns b and the FWHM, 2 a sqrt(2^(1/b) - 1).

    Robust against neighbours in the wings (soft L1). 1/b is fitted rather than b: a Gaussian is
    then an ordinary point, 1/b = 0, and not one at infinity.
    """

    def residuals(parameters: Floats) -> Floats:
        amplitude, half_width, inverse_beta = parameters
        inverse_beta = max(inverse_beta, 1e-3)
        scale = (2.0**inverse_beta - 1.0) / half_width**2
        values: Floats = amplitude * (1.0 + scale * radius**2) ** (-1.0 / inverse_beta)
        return values - profile

    fit = optimize.least_squares(
        residuals,
        x0=[1.0, 0.5 * fwhm_start, 0.2],
        bounds=([0.1, 0.2 * fwhm_start, 0.0], [10.0, 1.5 * fwhm_start, 0.66]),
        loss="soft_l1",
        f_scale=0.05,
        x_scale=[1.0, fwhm_start, 0.2],
        max_nfev=60,
    )
    inverse_beta = float(fit.x[2])
    return (1.0 / inverse_beta if inverse_beta > 1e-2 else float("inf")), 2.0 * float(fit.x[1])


def noise_area(fwhm_px: float, beta: float) -> float:
    """1 / sum of psf² in px² for a Moffat profile; 4 pi sigma² for a Gaussian (beta infinite).

    For psf = (b - 1) / (pi a²) (1 + r²/a²)^-b the integral of its square is
    (b - 1)² / (pi a² (2 b - 1)).
    """
    if not np.isfinite(beta):
        return 4.0 * np.pi * (fwhm_px / FWHM_PER_SIGMA) ** 2
    alpha2 = (0.5 * fwhm_px) ** 2 / (2.0 ** (1.0 / beta) - 1.0)
    return float(np.pi * alpha2 * (2.0 * beta - 1.0) / (beta - 1.0) ** 2)


def central_dip(data: Pixels, bad: Mask, x: Floats, y: Floats, sigma: Floats) -> float:
    """How much darker sources are at the centre than in a ring about it; median over the sources.

    0 for stars in focus, towards 1 for the ring of light that an obstructed telescope makes out of
    focus. Means over ellipses are not needed: it is the hole that counts. The centre is the disc
    within 0.35 sigma (at least one pixel), the rings are 0.35 sigma wide out to 2 sigma. The lower
    quartile of a ring's pixels stands for it: a double star is bright at two places only.
    """
    dips: list[float] = []
    ny, nx = data.shape
    for x0, y0, s in zip(x, y, sigma, strict=True):
        reach = int(np.ceil(2.0 * s)) + 1
        j0, i0 = round(float(y0)), round(float(x0))
        if s < 2.0 or not (reach <= j0 < ny - reach and reach <= i0 < nx - reach):
            continue
        dy, dx = np.mgrid[j0 - reach : j0 + reach + 1, i0 - reach : i0 + reach + 1]
        r = np.hypot(dx - x0, dy - y0)
        window = np.s_[j0 - reach : j0 + reach + 1, i0 - reach : i0 + reach + 1]
        good = ~bad[window]
        rings = (r / max(0.35 * s, 0.75)).astype(np.int64)
        own, values = rings[good], data[window][good]
        levels = [float(np.percentile(values[own == ring], 25)) for ring in np.unique(own)]
        if len(levels) > 2 and max(levels) > 0:
            dips.append(1.0 - levels[0] / max(levels))
    return median(dips) if dips else 0.0
