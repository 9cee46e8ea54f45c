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


def sources_from_columns(columns: Mapping[str, NDArray[Any]]) -> Sources:
    """Sources from columns named as source-extractor names them (1-based pixels).

    Needs X_IMAGE and Y_IMAGE (or XWIN_IMAGE, YWIN_IMAGE), FLUX_AUTO, FLUXERR_AUTO; uses FLAGS, ERRAWIN_IMAGE,
    ERRBWIN_IMAGE, FWHM_IMAGE or FLUX_RADIUS, ELLIPTICITY where they are. Raises KeyError without positions or flux.
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
    ellipticity = _column(columns, "ELLIPTICITY")
    trail = np.zeros(len(x), dtype=bool) if ellipticity is None else ellipticity > 0.7
    usable = sound & ~sharp & ~trail
    return Sources(
        x=x,
        y=y,
        error_px=np.hypot(error, _FLOOR_PX),
        flux_adu=flux,
        flux_error_adu=flux_error,
        clean=usable & ((flags & (_BLENDED | _SATURATED)) == 0),
        usable=usable,
    )
