"""How faint a star may be: the flux of a point source at 5 sigma, from the noise as it is in star-sized measurements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, optimize
from spica_imaging.stats import FWHM_PER_SIGMA

from spica_quality.science.detection.segments import Segments
from spica_quality.science.flags import Flags

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]

PsfAt: TypeAlias = Callable[[float, float], Pixels]
"""Stamp of a star at zero-based (x, y): shape (k, k), k odd, sum 1; the middle pixel is that nearest to (x, y)."""

_NOISE_LAG_PX = 4.5
"""Resampling spreads a pixel's noise no further: kernels are up to six pixels wide, and fall off fast."""

_FAINT_WIDTHS = (0.0, 0.3, 0.6)
"""Sources too faint to be found: stars, and galaxies of so many FWHM (standard deviation)."""

_SHARED_NOISE = 0.03
"""Covariance of neighbours, relative to the variance, from which pixels count as resampled; 0.1 to 0.6 in stacks."""

_STRIPS, _STRIP_ROWS = 8, 64
_LEAST_PIXELS = 20_000
_CLIP_SIGMA = 4.0


def moffat_stamp(
    fwhm_px: float,
    beta: float,
    x: float = 0.0,
    y: float = 0.0,
    ellipticity: float = 0.0,
    angle_deg: float = 0.0,
    reach_fwhm: float = 4.0,
) -> Pixels:
    """A star where no better model is at hand: a Moffat profile at the pixels' centres, normalised to 1.

    Args:
        fwhm_px: geometric mean of the axes' full widths at half maximum, with the pixel's own width in it.
        beta: exponent; infinite for a Gaussian.
        x: zero-based position; only its fraction counts.
        y: the same along y.
        ellipticity: 1 - b/a.
        angle_deg: of the major axis, from +x towards +y.
        reach_fwhm: half of the stamp's side, in FWHM.

    Returns:
        Shape (k, k), k odd.

    """
    half = int(np.ceil(reach_fwhm * fwhm_px)) + 1
    j, i = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    dx, dy = i - (x - np.rint(x)), j - (y - np.rint(y))
    ratio = 1.0 - min(ellipticity, 0.95)
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    r2 = ratio * (c * dx + s * dy) ** 2 + (c * dy - s * dx) ** 2 / ratio
    if np.isfinite(beta) and beta < 50.0:
        scale = (2.0 ** (1.0 / beta) - 1.0) / (0.5 * fwhm_px) ** 2
        stamp = (1.0 + scale * r2) ** -beta
    else:
        stamp = np.exp(-0.5 * r2 * (FWHM_PER_SIGMA / fwhm_px) ** 2)
    return (stamp / stamp.sum()).astype(np.float32)


def limiting_flux(stamp: Pixels, noise_adu: float, gain_e_per_adu: float, snr: float = 5.0) -> float:
    """Flux at which an optimal fit of the stamp has this signal-to-noise ratio.

    An optimal fit weights each pixel by its own variance, the source's photons included:
    (f/σ)² = f² Σ ψ² / (n² + f ψ / gain). It rises steadily with f, so that bisection finds the flux.

    Args:
        stamp: profile ψ of a star, sum 1.
        noise_adu: standard deviation n of a pixel of sky; where neighbours share noise, times the correlation.
        gain_e_per_adu: 0 leaves the source's photons out.
        snr: signal-to-noise ratio.

    Returns:
        adu; NaN for a noise that is not above zero.

    """
    if not (noise_adu > 0.0 and np.isfinite(noise_adu)):
        return float("nan")
    psi = stamp[stamp > 0].astype(np.float64)
    photons = psi / gain_e_per_adu if gain_e_per_adu > 0 else np.zeros_like(psi)
    low = snr * noise_adu / float(np.sqrt(np.sum(psi * psi)))
    high = low + snr**2 * float(photons.max() / psi.max())  # photons alone: f = snr² / gain

    def reached(flux: float) -> bool:
        signal2 = flux * flux * float(np.sum(psi * psi / (noise_adu**2 + flux * photons)))
        return signal2 >= snr * snr

    for _ in range(40):
        if reached(high):
            break
        high *= 2.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


@dataclass(frozen=True, slots=True)
class StarNoise:
    """Noise of star-sized measurements of blank sky."""

    per_pixel: float
    """Noise of independent pixels that would give the same, in units of the local noise of a pixel."""
    correlation: float
    """How much more that is than single pixels show: 1 where their noise is independent."""


UNKNOWN_NOISE = StarNoise(1.0, float("nan"))


def star_noise(
    data: Pixels,
    flags: Flags,
    segments: Segments,
    stamp: Pixels,
    rms_rows: Callable[[int, int], Pixels],
    fwhm_px: float,
) -> StarNoise:
    """Noise of fluxes that are measured with the weight of an optimal fit, Σ ψ d / Σ ψ², on blank sky.

    From the autocovariance C of blank pixels, each in units of the noise around it: the variance of
    such a flux is Σ C(lag) R(lag) / R(0)², R being the autocorrelation of ψ. In resampled images
    neighbours share noise, which shows at lags of a few pixels. Sources too faint to be found show
    too, with the shape of R, out to where resampling does not reach: there their share is fitted
    (with a constant, for an uneven sky) and taken off everywhere. They are sky that a fit would
    measure, not noise.

    Args:
        data: pixels above the background, shape (ny, nx).
        flags: pixels with any bit are left out.
        segments: the sources' own pixels; they and what is within a FWHM of them are left out.
        stamp: profile ψ of a star, sum 1.
        rms_rows: noise of the pixels of rows y0 to y1, shape (y1 - y0, nx).
        fwhm_px: width of stars.

    Returns:
        `UNKNOWN_NOISE` where too little of the sky is blank.

    """
    reach = int(np.ceil(max(_NOISE_LAG_PX + 4.0, 2.0 * fwhm_px)))
    covariance = _autocovariance(data, flags, segments, rms_rows, reach, int(np.ceil(fwhm_px)))
    if covariance is None:
        return UNKNOWN_NOISE
    response = _response(stamp, reach)
    axis = np.arange(-reach, reach + 1)
    lag = np.hypot(axis[:, None], axis[None, :])
    near, far = lag <= _NOISE_LAG_PX, (lag > _NOISE_LAG_PX) & (lag <= reach)
    templates = [
        _response(ndimage.gaussian_filter(np.pad(stamp, reach), width * fwhm_px, mode="constant"), reach)
        for width in _FAINT_WIDTHS
    ]
    templates += [np.ones_like(response), -np.ones_like(response)]
    design = np.stack([template[far] / template.max() for template in templates], axis=1)
    shares, _ = optimize.nnls(design, covariance[far])
    faint = sum(share * template / template.max() for share, template in zip(shares, templates, strict=True))
    noise = np.where(near, covariance - faint, 0.0)
    single = float(noise[reach, reach])
    if not single > 0.0:
        return UNKNOWN_NOISE
    beside = noise[[reach, reach, reach - 1, reach + 1], [reach - 1, reach + 1, reach, reach]]
    if float(beside.mean()) < _SHARED_NOISE * single:
        return StarNoise(float(np.sqrt(single)), 1.0)
    total = max(float(np.sum(noise * response) / response[reach, reach]), single)
    return StarNoise(float(np.sqrt(total)), min(float(np.sqrt(total / single)), 10.0))


def _response(stamp: Pixels, reach: int) -> Floats:
    """Autocorrelation of the stamp for lags up to `reach` both ways."""
    side = stamp.shape[0] + reach
    return _autocorrelation(stamp.astype(np.float64), (side, side), reach)


def _autocorrelation(image: NDArray[np.floating[Any]], shape: tuple[int, ...], reach: int) -> Floats:
    """Sum of products by lag up to `reach` both ways; `shape` is at least as large as image and reach together."""
    circular = fft.irfft2(np.abs(fft.rfft2(image, shape)) ** 2, shape)
    index = np.arange(-reach, reach + 1)
    return np.asarray(circular[np.ix_(index, index)], np.float64)


def _autocovariance(
    data: Pixels,
    flags: Flags,
    segments: Segments,
    rms_rows: Callable[[int, int], Pixels],
    reach: int,
    grow: int,
) -> Floats | None:
    """Mean product of blank pixels by lag, shape (2 reach + 1,) * 2; from some strips of the frame."""
    ny, nx = data.shape
    height = min(ny, max(_STRIP_ROWS, 4 * reach))
    count = max(1, min(_STRIPS, ny // height))
    shape = tuple(int(fft.next_fast_len(size + reach, real=True)) for size in (height, nx))
    products, pairs = np.zeros((2 * reach + 1,) * 2), np.zeros((2 * reach + 1,) * 2)
    for y0 in np.linspace(0, ny - height, count).astype(int):
        rows = slice(int(y0), int(y0) + height)
        taken = (segments.paint(rows.start, rows.stop) > 0) | (flags[rows] != 0)
        blank = ~ndimage.maximum_filter(taken, size=2 * grow + 1)
        value = np.where(blank, data[rows] / rms_rows(rows.start, rows.stop), np.float32(0.0))
        # Peaks of what was not detected, and remnants of cosmic rays.
        blank &= np.abs(value) < _CLIP_SIGMA
        value[~blank] = 0.0
        products += _autocorrelation(value, shape, reach)
        pairs += _autocorrelation(blank.astype(np.float32), shape, reach)
    if pairs[reach, reach] < _LEAST_PIXELS or pairs.min() < 0.1 * _LEAST_PIXELS:
        return None
    return products / pairs


def magnitude(flux_adu: float, zeropoint_mag: float) -> float:
    """Magnitude of a flux; NaN where either is not known."""
    return zeropoint_mag - 2.5 * float(np.log10(flux_adu)) if flux_adu > 0 else float("nan")
