"""Detection, deblending and the catalogue's columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import sep
from numpy.typing import NDArray
from spica_imaging.stats import FWHM_PER_SIGMA

from spica_quality.science import moments as mom
from spica_quality.science.masks import Bit, Flags

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]
Columns = dict[str, NDArray[Any]]

KRON_FACTOR = 2.5
LEAST_RADIUS_PX = 3.5
"""Of AUTO apertures: source-extractor's PHOT_AUTOPARAMS 2.5, 3.5."""

# Bits of FLAGS, with source-extractor's meaning.
CROWDED, BLENDED, SATURATED, TRUNCATED, APERTURE = 1, 2, 4, 8, 16


@dataclass(frozen=True, slots=True)
class Detections:
    """What was found, before it is measured."""

    objects: NDArray[Any]
    """sep's table, shape (n,)."""
    labels: Labels
    """Segmentation map, shape (ny, nx): source k has label k + 1."""

    def __len__(self) -> int:
        return len(self.objects)


def gaussian_kernel(fwhm_px: float) -> Pixels:
    """Detection filter matched to the stars, odd-sized, 3 to 11 px."""
    sigma = float(np.clip(fwhm_px, 1.2, 6.0)) / FWHM_PER_SIGMA
    half = int(np.clip(np.ceil(2.0 * sigma), 1, 5))
    axis = np.arange(-half, half + 1)
    kernel = np.exp(-0.5 * (axis[:, None] ** 2 + axis[None, :] ** 2) / sigma**2)
    return (kernel / kernel.sum()).astype(np.float32)


def find_sources(
    subtracted: Pixels, rms: Pixels, bad: Mask, fwhm_px: float, threshold: float, *, deblend: bool = True
) -> Detections:
    """Find connected groups of pixels above the noise of the filtered image, and divide them.

    Args:
        subtracted: pixels above the background, shape (ny, nx).
        rms: noise per pixel, same shape.
        bad: pixels not to be looked at.
        fwhm_px: size of stars, for the filter.
        threshold: in the filtered image, in units of the noise of unfiltered pixels (as
            source-extractor's DETECT_THRESH).
        deblend: divide groups with more than one peak (32 levels, contrast 0.005).

    """
    sep.set_extract_pixstack(max(300_000, subtracted.size // 8))
    sep.set_sub_object_limit(4096)
    objects, labels = sep.extract(
        subtracted,
        threshold,
        err=rms,
        mask=bad,
        minarea=3 if fwhm_px < 3 else 5,
        filter_kernel=gaussian_kernel(fwhm_px),
        filter_type="conv",
        deblend_nthresh=32,
        deblend_cont=0.005 if deblend else 1.0,
        clean=True,
        segmentation_map=True,
    )
    return Detections(objects, labels)


def measure_sources(
    found: Detections,
    subtracted: Pixels,
    level: Pixels,
    rms: Pixels,
    flags: Flags,
    bad: Mask,
    shapes: mom.AdaptiveMoments,
    *,
    gain: float,
    fwhm_px: float,
    fwhm_per_sigma: float,
) -> Columns:
    """All columns of the catalogue except CLASS_STAR; positions one-based, angles in degrees.

    Args:
        found: detections, n of them.
        subtracted: pixels above the background, shape (ny, nx).
        level: the background, same shape.
        rms: its noise, same shape.
        flags: the flag map.
        bad: pixels that must not be used.
        shapes: adaptive moments of the same n sources.
        gain: electrons per unit of the pixels; 0: unknown.
        fwhm_px: size of stars; the fixed aperture is four times as wide.
        fwhm_per_sigma: from adaptive sigma to FWHM, from the stars' profile.

    """
    objects = found.objects
    n = len(objects)
    x, y = objects["x"].astype(np.float64), objects["y"].astype(np.float64)
    column, row = objects["xpeak"], objects["ypeak"]
    local_rms = rms[row, column].astype(np.float64)
    ids = np.arange(1, n + 1, dtype=np.int32)
    a, b = np.maximum(objects["a"], 0.3), np.maximum(objects["b"], 0.3)
    theta = np.clip(objects["theta"], -np.pi / 2, np.pi / 2)
    auto, auto_error, kron, aperture_flags = _auto_flux(
        found, subtracted, rms, bad, (x, y, a, b, theta), ids, gain
    )
    aperture = 2.0 * (fwhm_px if np.isfinite(fwhm_px) else 2.5)
    aper, aper_error, _ = sep.sum_circle(
        subtracted, x, y, aperture, err=rms, mask=bad, gain=gain if gain > 0 else None, subpix=5
    )
    half_light = mom.flux_radius(subtracted, bad, x, y, 6.0 * np.maximum(a, 1.0), auto)
    star_half_light = 0.5 * (fwhm_px if np.isfinite(fwhm_px) else 2.5)
    window = np.where(np.isfinite(half_light), half_light, star_half_light) * 2.0 / FWHM_PER_SIGMA
    window = np.clip(window, 0.5 * 2.0 / FWHM_PER_SIGMA, 20.0)
    windowed = mom.windowed_positions(subtracted, bad, x, y, window, local_rms, gain)
    err_a, err_b, err_theta = mom.ellipse(windowed.error_xx, windowed.error_yy, windowed.error_xy)
    isophotal = FWHM_PER_SIGMA * np.sqrt(a * b)
    fwhm = np.where(np.isfinite(shapes.sigma), fwhm_per_sigma * shapes.sigma, isophotal)
    columns: Columns = {
        "NUMBER": ids,
        "X_IMAGE": x + 1.0,
        "Y_IMAGE": y + 1.0,
        "XWIN_IMAGE": windowed.x + 1.0,
        "YWIN_IMAGE": windowed.y + 1.0,
        "ERRAWIN_IMAGE": err_a,
        "ERRBWIN_IMAGE": err_b,
        "ERRTHETAWIN_IMAGE": np.degrees(err_theta),
        "FLUX_AUTO": auto,
        "FLUXERR_AUTO": auto_error,
        "FLUX_APER": aper,
        "FLUXERR_APER": aper_error,
        "FLUX_MAX": objects["peak"],
        "FLUX_RADIUS": np.where(np.isfinite(half_light), half_light, 0.0),
        "KRON_RADIUS": kron,
        "FWHM_IMAGE": fwhm,
        "A_IMAGE": a,
        "B_IMAGE": b,
        "THETA_IMAGE": np.degrees(theta),
        "ELLIPTICITY": 1.0 - b / a,
        "ELONGATION": a / b,
        "SNR_WIN": windowed.snr,
        "BACKGROUND": level[row, column],
        "THRESHOLD": objects["thresh"],
        "FLAGS": _source_flags(found, flags, aperture_flags, a),
    }
    return {name: _stored(name, values) for name, values in columns.items()}


_DOUBLE = {"X_IMAGE", "Y_IMAGE", "XWIN_IMAGE", "YWIN_IMAGE"}


def _stored(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """The type a column is kept in: positions float64, counts int32, flags int16, the rest float32."""
    if name == "FLAGS":
        return values.astype(np.int16)
    if np.issubdtype(values.dtype, np.integer):
        return values.astype(np.int32)
    return values.astype(np.float64 if name in _DOUBLE else np.float32)


def _auto_flux(
    found: Detections,
    subtracted: Pixels,
    rms: Pixels,
    bad: Mask,
    ellipses: tuple[Floats, ...],
    ids: Labels,
    gain: float,
) -> tuple[Floats, Floats, Floats, NDArray[Any]]:
    """Flux in Kron-like ellipses (Kron 1980, ApJS 43, 305), neighbours' pixels left out.

    Sources whose ellipse would be smaller than a circle of 3.5 px get that circle.
    Returns flux, its error, the Kron radius in units of A_IMAGE, and sep's flags.
    """
    x, y, a, b, theta = ellipses
    shared = {"mask": bad, "seg_id": ids, "segmap": found.labels}
    kron, kron_flags = sep.kron_radius(subtracted, x, y, a, b, theta, 6.0, **shared)
    kron = np.where(np.isfinite(kron) & (kron > 0), kron, 0.0)
    small = KRON_FACTOR * kron * np.sqrt(a * b) < LEAST_RADIUS_PX
    major = np.where(small, LEAST_RADIUS_PX, KRON_FACTOR * kron * a)
    minor = np.where(small, LEAST_RADIUS_PX, KRON_FACTOR * kron * b)
    flux, error, flags = sep.sum_ellipse(
        subtracted,
        x,
        y,
        major,
        minor,
        np.where(small, 0.0, theta),
        1.0,
        err=rms,
        gain=gain if gain > 0 else None,
        subpix=5,
        **shared,
    )
    return flux, error, np.where(small, LEAST_RADIUS_PX / a, KRON_FACTOR * kron), flags | kron_flags


def _source_flags(found: Detections, flags: Flags, aperture_flags: NDArray[Any], a: Floats) -> NDArray[Any]:
    objects = found.objects
    result = np.zeros(len(objects), dtype=np.int16)
    result[(objects["flag"] & sep.OBJ_MERGED) != 0] |= BLENDED
    result[(objects["flag"] & sep.OBJ_TRUNC) != 0] |= TRUNCATED
    result[(aperture_flags & sep.APER_HASMASKED) != 0] |= CROWDED
    result[(aperture_flags & sep.APER_TRUNC) != 0] |= APERTURE
    piled = found.labels[(flags & Bit.SATURATED) != 0]
    result[np.unique(piled[piled > 0]) - 1] |= SATURATED
    return result
