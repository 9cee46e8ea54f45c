"""The catalogue of one CCD: every source measured, in source-extractor's columns and conventions.

Positions are FITS pixels (the first one's centre is 1), angles degrees from +x towards +y, fluxes in the unit of
the pixels. What could not be measured is NaN; a magnitude of what has no positive flux is 99, as source-extractor
writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, nan
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from spica_imaging.stats import FWHM_PER_SIGMA
from spica_imaging.wcs import TpvWcs

from spica_quality.science.background.sky import Sky
from spica_quality.science.detection.segments import Segments, Sources
from spica_quality.science.flags import Flags
from spica_quality.science.photometry.isophotes import ISOPHOTES, isophotes
from spica_quality.science.photometry.likeness import class_star
from spica_quality.science.photometry.measuring import MEASURED, NO_VALUE, Start, Terms, measure_all
from spica_quality.science.photometry.psfphot import PSF_FIT, PsfArrays, psf_arrays
from spica_quality.science.photometry.shapes import AdaptiveMoments, adaptive_moments, ellipse
from spica_quality.science.photometry.stamps import field_of
from spica_quality.science.psf.model import PsfModel

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Columns = dict[str, NDArray[Any]]

CROWDED: Final = 1
"""FLAGS: more than a tenth of the AUTO ellipse belongs to neighbours or is unusable."""
BLENDED: Final = 2
"""FLAGS: was divided from another source."""
SATURATED: Final = 4
TRUNCATED: Final = 8
"""FLAGS: touches the frame's edge."""
APERTURE: Final = 16
"""FLAGS: the AUTO ellipse goes beyond the frame, or pixels in it have no value."""

APERTURES_PER_FWHM: Final = (4.0, 1.0, 2.0, 3.0, 6.0)
"""Diameters of FLUX_APER, in FWHM of the stars. The first holds nearly all light of a star."""
_CROWDED_SHARE: Final = 0.1
_MISSING_SHARE: Final = 0.01
_LEAST_VARIANCE_PX2: Final = 1.0 / 12.0
"""Of a point that is known to lie in one pixel."""
_MAG_PER_LOG: Final = 2.5 / np.log(10.0)
_NO_MAG: Final = 99.0


def measure_catalogue(
    data: Pixels,
    flags: Flags,
    sky: Sky,
    sources: Sources,
    segments: Segments,
    *,
    gain: float,
    fwhm_px: float,
    psf: PsfModel | None = None,
    zeropoint: float = nan,
    pixel_scale_arcsec: float = nan,
    fwhm_per_sigma: float = nan,
    aperture_diameters_px: Sequence[float] | None = None,
    shapes: AdaptiveMoments | None = None,
    noise_correlation: float = 1.0,
    vignet_px: int = 0,
) -> Columns:
    """Measure the sources of one CCD.

    Args:
        data: pixels above the background, shape (ny, nx).
        flags: the flag map, same shape. What stands in `flags.UNUSABLE` pixels does not matter, NaN included.
        sky: level and noise of the background. Where it has weights the noise at a source is the mean over its pixels.
        sources: what detection found, n of them.
        segments: which pixels belong to which source; source k has label k + 1.
        gain: electrons per unit of the pixels; 0: unknown, and errors lack the sources' photon noise.
        fwhm_px: size of the stars; NaN is taken for 2.5 px.
        psf: the stars' profile; None: columns of the PSF fit are NaN.
        zeropoint: magnitude of one unit of flux; NaN: unknown, and so are all magnitudes.
        pixel_scale_arcsec: for MU_MAX; NaN: unknown.
        fwhm_per_sigma: from the size of adaptive moments to FWHM, for the stars' profile; NaN: that of `psf`, or of
            a Gaussian.
        aperture_diameters_px: of FLUX_APER; by default `APERTURES_PER_FWHM` times `fwhm_px`.
        shapes: adaptive moments of the same sources, where they are known already.
        noise_correlation: how much noisier sums over pixels are than if pixels were independent, in resampled images.
        vignet_px: side of the column VIGNET, which PSFEx needs; odd; 0: no such column.

    Returns:
        Arrays by column name, in the order of `sources`; of shape (n,), FLUX_APER and its like (n, n_apertures),
        VIGNET (n, side, side).

    Raises:
        ValueError: where arrays do not fit together or the VIGNET's side is even.

    """
    if vignet_px < 0 or (vignet_px and vignet_px % 2 == 0):
        raise ValueError(f"the side of VIGNET must be odd (or 0 for none), not {vignet_px}")
    width = float(fwhm_px) if isfinite(fwhm_px) and fwhm_px > 0 else 2.5
    diameters = aperture_diameters_px or [factor * width for factor in APERTURES_PER_FWHM]
    inverse_gain = 1.0 / gain if gain > 0 else 0.0
    n = len(sources)
    x, y = np.asarray(sources.x, np.float64), np.asarray(sources.y, np.float64)
    field = field_of(data, flags, segments)
    own = np.zeros(n, ISOPHOTES)
    isophotes(field, x, y, sky.weight, own)
    rms = sky.weight_scale * np.sqrt(own["inverse_weight"]) if sky.weight.size else sky.rms_at(x, y)
    rms = rms * noise_correlation
    if shapes is None:
        shapes = adaptive_moments(data, flags, sources, segments, rms, width / FWHM_PER_SIGMA)
    sigma = np.where(np.isfinite(shapes.sigma), shapes.sigma, np.inf)
    xx, yy, xy = _sound_moments(sources)
    determinant = xx * yy - xy * xy
    start = Start(x, y, yy / determinant, xx / determinant, -2.0 * xy / determinant, rms**2, sigma)
    radii = 0.5 * np.asarray(diameters, np.float64)
    terms = Terms(radii, inverse_gain, width, psf is not None)
    measured, fits = np.zeros(n, MEASURED), _no_fits(n)
    aperture = np.zeros((n, len(radii), 2))
    vignet = np.empty((n, vignet_px, vignet_px), np.float32)
    measure_all(
        field, start, terms, _no_psf() if psf is None else psf_arrays(psf), measured, aperture, fits, vignet
    )
    magnitudes = _Magnitudes(zeropoint)
    columns: Columns = {"NUMBER": np.arange(1, n + 1, dtype=np.int32)}
    columns |= _positions(sources, measured, own, rms, inverse_gain)
    columns |= _isophotal(sources, own, (xx, yy, xy), rms, inverse_gain, magnitudes, pixel_scale_arcsec)
    columns |= _fluxes(measured, aperture, rms, inverse_gain, magnitudes)
    ratio = fwhm_per_sigma if isfinite(fwhm_per_sigma) else fwhm_of_adaptive_size(psf)
    columns |= _sizes(measured, shapes, (xx, yy, xy), ratio)
    columns |= _psf_columns(fits, magnitudes)
    columns["CLASS_STAR"] = _class_star(columns, shapes, width)
    columns["BACKGROUND"] = np.asarray(sky.level_at(x, y))
    columns["THRESHOLD"] = np.asarray(sources.threshold)
    columns["FLAGS"] = _flags(sources, measured, own)
    columns["IMAFLAGS_ISO"] = own["reasons"]
    columns["NIMAFLAGS_ISO"] = own["n_lost"]
    if vignet_px:
        columns["VIGNET"] = vignet
    return {name: _stored(name, values) for name, values in columns.items()}


def add_sky_positions(columns: Columns, wcs: TpvWcs) -> None:
    """Add ALPHA_J2000, DELTA_J2000 and ALPHAWIN_J2000, DELTAWIN_J2000 (degrees), from the pixel positions."""
    for part in ("", "WIN"):
        alpha, delta = wcs.pixel_to_sky(columns[f"X{part}_IMAGE"], columns[f"Y{part}_IMAGE"])
        columns[f"ALPHA{part}_J2000"], columns[f"DELTA{part}_J2000"] = alpha, delta


def fwhm_of_adaptive_size(psf: PsfModel | None) -> float:
    """FWHM of the model over its size by adaptive moments; that of a Gaussian, 2.35, without a model."""
    if psf is None:
        return FWHM_PER_SIGMA
    stamp = np.ascontiguousarray(psf.at(*np.floor(psf.zero)), np.float32)
    ny, nx = stamp.shape
    none, zero, flag = np.zeros(1), np.zeros(1, np.int32), np.zeros(1, np.int16)
    x, y, second = none + nx // 2, none + ny // 2, none + (psf.fwhm_px / FWHM_PER_SIGMA) ** 2
    one = Sources(
        x, y, second, second, none, none, none, zero, zero, zero, zero, zero, zero, zero, none, flag
    )  # fmt: skip
    empty = np.empty(0, np.int32)
    alone = Segments((ny, nx), np.zeros(ny + 1, np.int32), empty, empty, empty)
    sigma = float(adaptive_moments(stamp, np.zeros((ny, nx), np.uint16), one, alone, np.ones(1)).sigma[0])
    return psf.fwhm_px / sigma if isfinite(sigma) else FWHM_PER_SIGMA


def _sound_moments(sources: Sources) -> tuple[Floats, Floats, Floats]:
    """Isophotal moments of which no ellipse is thinner than a pixel."""
    xx, yy, xy = (np.asarray(values, np.float64).copy() for values in (sources.xx, sources.yy, sources.xy))
    poor = ~(xx * yy - xy**2 > _LEAST_VARIANCE_PX2**2) | ~(xx > 0) | ~(yy > 0)
    xx[poor] = np.fmax(np.nan_to_num(xx[poor]), 0.0) + _LEAST_VARIANCE_PX2
    yy[poor] = np.fmax(np.nan_to_num(yy[poor]), 0.0) + _LEAST_VARIANCE_PX2
    limit = 0.999 * np.sqrt(xx * yy)
    return xx, yy, np.clip(np.nan_to_num(xy), -limit, limit)


def _no_psf() -> PsfArrays:
    none = np.zeros((1, 1, 1), np.float32)
    return PsfArrays(none, none, 0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0)


def _no_fits(n: int) -> NDArray[np.void]:
    fits = np.zeros(n, PSF_FIT)
    for name in PSF_FIT.names or ():
        if name != "steps":
            fits[name] = np.nan
    return fits


class _Magnitudes:
    """From fluxes to magnitudes: NaN without a zero point, 99 without flux."""

    def __init__(self, zeropoint: float) -> None:
        self.zeropoint = zeropoint

    def of(self, name: str, flux: NDArray[Any], error: NDArray[Any]) -> Columns:
        """Columns FLUX_, FLUXERR_, MAG_ and MAGERR_ of this name."""
        with np.errstate(invalid="ignore", divide="ignore"):
            lit = flux > 0
            magnitude = np.where(lit, self.zeropoint - 2.5 * np.log10(np.where(lit, flux, 1.0)), _NO_MAG)
            magnitude_error = np.where(lit, _MAG_PER_LOG * error / flux, _NO_MAG)
        unknown = ~np.isfinite(flux)
        magnitude[unknown], magnitude_error[unknown] = np.nan, np.nan
        if not isfinite(self.zeropoint):
            magnitude[:] = np.nan
        return {
            f"FLUX_{name}": flux,
            f"FLUXERR_{name}": error,
            f"MAG_{name}": magnitude,
            f"MAGERR_{name}": magnitude_error,
        }


def _positions(
    sources: Sources, measured: NDArray[np.void], own: NDArray[np.void], rms: Floats, inverse_gain: float
) -> Columns:
    with np.errstate(invalid="ignore", divide="ignore"):
        flux2 = own["flux"] ** 2
        err_a, err_b, err_theta = ellipse(
            *(
                (rms**2 * own[f"plain_{axes}"] + inverse_gain * own[f"light_{axes}"]) / flux2
                for axes in ("xx", "yy", "xy")
            )
        )
        win = [measured[f"err_{axes}_win"].copy() for axes in ("xx", "yy", "xy")]
        # Where no windowed position was found the error is at least the window's width over the signal-to-noise.
        lost = ~measured["win_found"] | ~np.isfinite(win[0])
        floor = (measured["sigma_win"] / np.maximum(measured["snr_win"], 1.0)) ** 2
        for variance in win[:2]:
            variance[lost] = np.fmax(np.nan_to_num(variance[lost]), floor[lost])
        win[2][lost] = 0.0
    win_a, win_b, win_theta = ellipse(*win)
    return {
        "X_IMAGE": sources.x + 1.0,
        "Y_IMAGE": sources.y + 1.0,
        "XPEAK_IMAGE": sources.x_peak + 1,
        "YPEAK_IMAGE": sources.y_peak + 1,
        "XMIN_IMAGE": sources.x_min + 1,
        "XMAX_IMAGE": sources.x_max + 1,
        "YMIN_IMAGE": sources.y_min + 1,
        "YMAX_IMAGE": sources.y_max + 1,
        "ERRA_IMAGE": err_a,
        "ERRB_IMAGE": err_b,
        "ERRTHETA_IMAGE": np.degrees(err_theta),
        "XWIN_IMAGE": measured["x_win"] + 1.0,
        "YWIN_IMAGE": measured["y_win"] + 1.0,
        "ERRAWIN_IMAGE": win_a,
        "ERRBWIN_IMAGE": win_b,
        "ERRTHETAWIN_IMAGE": np.degrees(win_theta),
    }


def _isophotal(
    sources: Sources,
    own: NDArray[np.void],
    second: tuple[Floats, Floats, Floats],
    rms: Floats,
    inverse_gain: float,
    magnitudes: _Magnitudes,
    pixel_scale_arcsec: float,
) -> Columns:
    a, b, theta = ellipse(*second)
    flux = own["flux"]
    error = np.sqrt(rms**2 * (own["n"] - own["n_lost"]) + inverse_gain * np.maximum(flux, 0.0))
    columns = magnitudes.of("ISO", flux, error)
    peak = np.asarray(sources.peak, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        surface = magnitudes.zeropoint - 2.5 * np.log10(peak / pixel_scale_arcsec**2)
    return columns | {
        "ISOAREA_IMAGE": np.asarray(sources.n_pixels, np.int32),
        "FLUX_MAX": peak,
        "MU_MAX": np.where(peak > 0, surface, _NO_MAG if isfinite(magnitudes.zeropoint) else np.nan),
        "A_IMAGE": a,
        "B_IMAGE": b,
        "THETA_IMAGE": np.degrees(theta),
        "ELONGATION": a / b,
        "ELLIPTICITY": 1.0 - b / a,
    }


def _fluxes(
    measured: NDArray[np.void], aperture: Floats, rms: Floats, inverse_gain: float, magnitudes: _Magnitudes
) -> Columns:
    auto = measured["flux_auto"]
    error = np.sqrt(rms**2 * measured["area_auto"] + inverse_gain * np.maximum(auto, 0.0))
    columns = magnitudes.of("AUTO", auto, error)
    columns["KRON_RADIUS"] = measured["kron"]
    flux, area = aperture[..., 0], aperture[..., 1]
    error = np.sqrt(rms[:, None] ** 2 * area + inverse_gain * np.maximum(flux, 0.0))
    columns |= magnitudes.of("APER", flux, error)
    columns["FLUX_RADIUS"] = np.nan_to_num(measured["half_light"])
    columns["SNR_WIN"] = measured["snr_win"]
    return columns


def _sizes(
    measured: NDArray[np.void],
    shapes: AdaptiveMoments,
    second: tuple[Floats, Floats, Floats],
    fwhm_per_sigma: float,
) -> Columns:
    """Windowed and adaptive shapes.

    Errors of the adaptive ones are those of a matched Gaussian: ln sigma is uncertain by 1 / (sqrt(2) snr), each
    component of the ellipticity by sqrt(2) / snr (Bernstein & Jarvis 2002, eq. 5-6, for round sources).
    """
    a, b, theta = ellipse(measured["xx_win"], measured["yy_win"], measured["xy_win"])
    isophotal = FWHM_PER_SIGMA * np.sqrt(np.sqrt(np.maximum(second[0] * second[1] - second[2] ** 2, 0.0)))
    sigma = shapes.sigma
    with np.errstate(invalid="ignore", divide="ignore"):
        e1, e2 = shapes.ellipticity
        inverse_snr = np.where(shapes.snr > 0, 1.0 / shapes.snr, np.nan)
    return {
        "AWIN_IMAGE": a,
        "BWIN_IMAGE": b,
        "THETAWIN_IMAGE": np.degrees(theta),
        "FWHM_IMAGE": np.where(np.isfinite(sigma), fwhm_per_sigma * sigma, isophotal),
        "SIGMA_ADAPT": sigma,
        "SIGMAERR_ADAPT": sigma * inverse_snr / np.sqrt(2.0),
        "E1_ADAPT": e1,
        "E2_ADAPT": e2,
        "EERR_ADAPT": np.where(np.isfinite(e1), np.sqrt(2.0) * inverse_snr, np.nan),
    }


def _psf_columns(fits: NDArray[np.void], magnitudes: _Magnitudes) -> Columns:
    with np.errstate(invalid="ignore"):
        a, b, theta = ellipse(fits["xx"], fits["yy"], fits["xy"])
        columns = magnitudes.of("PSF", fits["flux"], np.sqrt(fits["flux_variance"]))
    return columns | {
        "CHI2_PSF": fits["chi2"],
        "XPSF_IMAGE": fits["x"] + 1.0,
        "YPSF_IMAGE": fits["y"] + 1.0,
        "ERRAPSF_IMAGE": a,
        "ERRBPSF_IMAGE": b,
        "ERRTHETAPSF_IMAGE": np.degrees(theta),
        "NITER_PSF": fits["steps"].astype(np.int16),
        "SPREAD_MODEL": fits["spread"],
        "SPREADERR_MODEL": np.sqrt(fits["spread_variance"]),
    }


def _class_star(columns: Columns, shapes: AdaptiveMoments, fwhm_px: float) -> NDArray[np.float32]:
    with np.errstate(invalid="ignore", divide="ignore"):
        log_size = np.log(columns["FWHM_IMAGE"] / fwhm_px)
        error = 1.0 / (np.sqrt(2.0) * np.maximum(shapes.snr, 1.0))
    return class_star(columns["SPREAD_MODEL"], columns["SPREADERR_MODEL"], log_size, error)


def _flags(sources: Sources, measured: NDArray[np.void], own: NDArray[np.void]) -> NDArray[np.int16]:
    flags = np.asarray(sources.flags, np.int16).copy()
    flags[measured["foreign"] > _CROWDED_SHARE] |= CROWDED
    flags[own["n_saturated"] > 0] |= SATURATED
    flags[measured["missing"] > _MISSING_SHARE] |= APERTURE
    return flags


_DOUBLE: Final = {f"{axis}{part}_IMAGE" for axis in "XY" for part in ("", "WIN", "PSF")}


def _stored(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """The type a column is kept in: positions float64, counts int32, FLAGS and steps int16, the rest float32."""
    if values.dtype == np.int16 or name == "VIGNET":
        return values
    if np.issubdtype(values.dtype, np.integer):
        return np.ascontiguousarray(values, dtype=np.int32)
    return np.ascontiguousarray(values, dtype=np.float64 if name in _DOUBLE else np.float32)


__all__ = ["APERTURES_PER_FWHM", "NO_VALUE", "Columns", "add_sky_positions", "measure_catalogue"]
