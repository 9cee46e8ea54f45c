"""Which catalogue rows are stars worth matching, and how well their positions are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spica_calib.science.stars import Floats, Sources

_BLENDED, _SATURATED, _CUT_OFF = 2, 4, 8
"""Bits of source-extractor's FLAGS."""
_MIN_SNR = 5.0
USED_COLUMNS = frozenset(
    ("X_IMAGE", "Y_IMAGE", "XWIN_IMAGE", "YWIN_IMAGE", "ERRAWIN_IMAGE", "ERRBWIN_IMAGE", "FLUX_AUTO", "FLUXERR_AUTO",
     "FLUX_APER", "FLUXERR_APER", "FLUX_RADIUS", "FWHM_IMAGE", "ELLIPTICITY", "CLASS_STAR", "FLAGS")
)  # fmt: skip
"""All that `sources_from_columns` asks for."""
_FLOOR_PX = 0.02
"""Positions are never better than this: undersampling, charge transfer, the atmosphere."""


def _column(columns: Mapping[str, NDArray[Any]], *names: str) -> Floats | None:
    for name in names:
        if name in columns:
            values = np.asarray(columns[name], dtype=np.float64)
            return values[:, 0] if values.ndim > 1 else values
    return None


def _first(*candidates: Floats | None) -> Floats:
    found = [candidate for candidate in candidates if candidate is not None]
    if not found:
        raise KeyError("neither windowed nor isophotal positions")
    values = found[0]
    for other in found[1:]:
        values = np.where(np.isfinite(values), values, other)
    return values


def sharpest_star(size: Floats, snr: Floats) -> float:
    """Smallest size that a star can have: below it, hot pixels and cosmics. 0 where it cannot be told.

    Stars of one image have one size, the smallest that many bright sources share; hot pixels are fewer
    and lie at about half of it or less. The limit is 0.6 of the bright sources' lower quartile.
    """
    bright = size[np.isfinite(size) & (size > 0) & (snr > 20)]
    return 0.6 * float(np.percentile(bright, 25)) if len(bright) >= 10 else 0.0


def flux_outside(radius_px: float, fwhm_px: float, beta: float) -> float:
    """Share of a star's flux beyond a radius, for a Moffat profile (Moffat 1969, A&A 3, 455); 0 for a Gaussian.

    Profiles with very shallow wings (beta below 2) are taken for beta = 2: their total flux is a guess.
    """
    if not np.isfinite(beta) or beta <= 0 or fwhm_px <= 0:
        return 0.0
    beta = max(beta, 2.0)
    scale2 = (0.5 * fwhm_px) ** 2 / (2.0 ** (1.0 / beta) - 1.0)
    return float((1.0 + radius_px**2 / scale2) ** (1.0 - beta))


def sources_from_columns(columns: Mapping[str, NDArray[Any]], aperture_loss: float = 0.0) -> Sources:
    """Sources from columns named as source-extractor names them (1-based pixels).

    Needs X_IMAGE and Y_IMAGE (or XWIN_IMAGE, YWIN_IMAGE), FLUX_AUTO, FLUXERR_AUTO; uses FLAGS, ERRAWIN_IMAGE,
    ERRBWIN_IMAGE, FWHM_IMAGE or FLUX_RADIUS, ELLIPTICITY, CLASS_STAR where they are. Fluxes of stars are
    those of FLUX_APER, `aperture_loss` (the share outside of the aperture) added; else FLUX_AUTO.
    Raises KeyError without positions or flux.
    """
    x = _first(_column(columns, "XWIN_IMAGE"), _column(columns, "X_IMAGE"))
    y = _first(_column(columns, "YWIN_IMAGE"), _column(columns, "Y_IMAGE"))
    flux, flux_error = _column(columns, "FLUX_AUTO"), _column(columns, "FLUXERR_AUTO")
    if flux is None or flux_error is None:
        raise KeyError("FLUX_AUTO and FLUXERR_AUTO")
    flags = np.asarray(columns.get("FLAGS", np.zeros(len(x))), dtype=np.int64)
    snr = flux / np.where(flux_error > 0, flux_error, np.inf)
    size = _column(columns, "FWHM_IMAGE", "FLUX_RADIUS")
    radius = _column(columns, "FLUX_RADIUS", "FWHM_IMAGE")
    wide = np.full(len(x), 2.0) if size is None else np.where(np.isfinite(size) & (size > 0), size, 2.0)
    sharp = np.zeros(len(x), dtype=bool) if radius is None else ~(radius >= sharpest_star(radius, snr))
    major, minor = _column(columns, "ERRAWIN_IMAGE"), _column(columns, "ERRBWIN_IMAGE")
    # Without measured errors: sigma / SNR of a Gaussian profile (King 1983, PASP 95, 163), FWHM = 2.35 sigma.
    error = wide / 2.35 / np.maximum(snr, 1.0)
    if major is not None and minor is not None:
        measured = np.sqrt((major**2 + minor**2) / 2.0)
        error = np.where(np.isfinite(measured) & (measured > 0), measured, error)
    sound = np.isfinite(x) & np.isfinite(y) & (flux > 0) & (snr >= _MIN_SNR) & ((flags & _CUT_OFF) == 0)
    star_flux, star_error = _column(columns, "FLUX_APER"), _column(columns, "FLUXERR_APER")
    if star_flux is None or star_error is None:
        star_flux, star_error, aperture_loss = flux, flux_error, 0.0
    likeness = _column(columns, "CLASS_STAR")
    ellipticity = _column(columns, "ELLIPTICITY")
    trail = np.zeros(len(x), dtype=bool) if ellipticity is None else ellipticity > 0.7
    usable = sound & ~sharp & ~trail
    return Sources(
        x=x,
        y=y,
        error_px=np.hypot(error, _FLOOR_PX),
        flux_adu=flux,
        star_flux_adu=star_flux / (1.0 - aperture_loss),
        star_flux_error_adu=star_error / (1.0 - aperture_loss),
        starlike=np.ones(len(x), dtype=bool) if likeness is None else likeness > 0.5,
        clean=usable & ((flags & (_BLENDED | _SATURATED)) == 0),
        usable=usable,
    )
