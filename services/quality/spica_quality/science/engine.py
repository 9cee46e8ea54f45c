"""Everything that is measured on one CCD, in order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import sep
from numpy.typing import NDArray
from spica_imaging.frame import Section
from spica_imaging.stats import FWHM_PER_SIGMA, robust_sigma

from spica_quality.science import masks
from spica_quality.science import moments as mom
from spica_quality.science.background import Background, estimate_background
from spica_quality.science.cosmics import cosmic_mask
from spica_quality.science.detect import Columns, Detections, find_sources, measure_sources
from spica_quality.science.figures import FrameFigures, Psf
from spica_quality.science.masks import Bit, Flags
from spica_quality.science.scout import Scout, scout
from spica_quality.science.stars import measure_psf, select_stars

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]

DIP_LIMIT = 0.2
"""Stars this much darker at the centre than around it are rings: out of focus."""


_LEAST_NOISE_E = 0.5
"""No detector is quieter: less means that the pixels are not in adu, and that the gain is not theirs."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Pixels to be measured: one CCD, or a piece of a stack."""

    data: Pixels
    """Shape (ny, nx), adu; NaN where there is no value."""
    section: Section
    gain_e_per_adu: float
    """0 where it is not known: photon noise of the sources is then left out."""
    saturation_adu: float
    weight: Pixels | None = None
    """Relative weight, for stacks: noise goes as 1/sqrt(weight), 0 is unusable. None: single exposure."""


@dataclass(frozen=True, slots=True)
class Options:
    """What may be chosen in measuring."""

    threshold_sigma: float = 1.5
    """In the filtered image, in units of the noise of unfiltered pixels (DETECT_THRESH)."""
    star_snr: float = 20.0
    background_box_px: int = 128
    cosmic_sigma: float = 5.0


@dataclass(frozen=True, slots=True)
class Measurement:
    """All that came of one CCD."""

    figures: FrameFigures
    columns: Columns
    weight: Pixels
    """1/adu² where usable, else 0; shape (ny, nx)."""
    subtracted: Pixels
    """Pixels above the background, 0 where unusable; for previews."""


def measure(frame: Frame, options: Options = Options()) -> Measurement:
    """Background, masks, stars, catalogue, depth and weight of one CCD. Never fails on its pixels."""
    flags = masks.initial_flags(
        frame.data, frame.section, None if frame.weight is None else ~(frame.weight > 0)
    )
    saturation = masks.saturation_level(frame.data, frame.saturation_adu)
    bright, n_saturated = masks.saturated(frame.data, saturation, frame.section)
    flags[bright & (flags == 0)] |= Bit.SATURATED
    n_pixels = int(np.count_nonzero((flags & Bit.OUTSIDE) == 0))
    empty = FrameFigures(n_pixels, n_saturated, saturation)
    if np.count_nonzero(flags == 0) < max(64, 0.01 * n_pixels):
        return _nothing(frame, empty)
    clean = np.where(flags & masks.UNUSABLE, np.float32(0.0), frame.data)
    background = estimate_background(clean, flags != 0, options.background_box_px)
    background = _with_weight(background, frame.weight)
    if not background.median_rms > 0.0:
        return _nothing(frame, replace(empty, background_adu=background.median_level))
    if background.median_rms * frame.gain_e_per_adu < _LEAST_NOISE_E:
        frame = replace(frame, gain_e_per_adu=0.0)
    clean -= background.level
    clean[(flags & masks.UNUSABLE) != 0] = 0.0
    first = _mask_defects(clean, background, flags, frame, saturation, options)
    return _catalogue(
        clean,
        background,
        flags,
        frame,
        first,
        replace(empty, dip=first.dip, blank=False),
        options,
    )


def _nothing(frame: Frame, figures: FrameFigures) -> Measurement:
    zero = np.zeros(frame.data.shape, dtype=np.float32)
    return Measurement(figures, {}, zero, zero)


def _with_weight(background: Background, weight: Pixels | None) -> Background:
    """Let the weight tell where the noise is higher, and the pixels how high it is."""
    if weight is None:
        return background
    known = weight > 0
    root = np.sqrt(np.where(known, weight, np.float32(1.0)))
    scale = float(np.median((background.rms * root)[known])) if known.any() else 0.0
    rms = np.where(known, np.float32(scale) / root, np.float32(scale)).astype(np.float32)
    return replace(background, rms=rms, median_rms=float(np.median(rms[known])) if known.any() else 0.0)


def _mask_defects(
    clean: Pixels,
    background: Background,
    flags: Flags,
    frame: Frame,
    saturation: float,
    options: Options,
) -> Scout:
    """Add DEAD, COLUMN and COSMIC to the flags and set such pixels to zero; returns the first look."""
    if frame.weight is None:
        flags[masks.dead(clean, background.rms)] |= Bit.DEAD
        flags[masks.bad_columns(clean, flags, background.median_rms)] |= Bit.COLUMN
        clean[(flags & masks.UNUSABLE) != 0] = 0.0
    unusable = (flags & masks.UNUSABLE) != 0
    ceiling = 0.9 * (saturation - background.median_level)
    first = scout(clean, background.rms, unusable | ((flags & Bit.SATURATED) != 0), ceiling)
    if frame.weight is None and first.n >= 3:
        hit = cosmic_mask(
            clean,
            unusable,
            background.rms,
            first.minor_sigma_px,
            frame.gain_e_per_adu,
            limit=options.cosmic_sigma,
        )
        flags[hit & (flags == 0)] |= Bit.COSMIC
        clean[hit] = np.where((flags[hit] & Bit.COSMIC) != 0, np.float32(0.0), clean[hit])
    return first


def _catalogue(
    clean: Pixels,
    background: Background,
    flags: Flags,
    frame: Frame,
    first: Scout,
    figures: FrameFigures,
    options: Options,
) -> Measurement:
    bad = (flags & masks.UNUSABLE) != 0
    ring = first.dip > DIP_LIMIT
    # The width along the minor axis: double stars are not divided yet, and make the mean too wide.
    fwhm = FWHM_PER_SIGMA * first.minor_sigma_px if first.n else 2.5
    found = find_sources(clean, background.rms, bad, fwhm, options.threshold_sigma, deblend=not ring)
    weight = masks.weight_map(background.rms, flags)
    figures = replace(
        figures,
        n_sources=len(found),
        background_adu=background.median_level,
        background_rms_adu=background.median_rms,
        n_usable=int(np.count_nonzero(weight)),
        n_cosmic=int(np.count_nonzero(flags & Bit.COSMIC)),
    )
    if not len(found):
        return Measurement(figures, {}, weight, clean)
    unfit = bad | ((flags & Bit.SATURATED) != 0)
    shapes = _shapes(found, clean, background.rms, unfit, fwhm)
    stars = select_stars(shapes, _whole(found, flags, unfit), least_snr=options.star_snr)
    psf = measure_psf(clean, unfit, shapes, stars)
    columns = measure_sources(
        found,
        clean,
        background.level,
        background.rms,
        flags,
        bad,
        shapes,
        gain=frame.gain_e_per_adu,
        fwhm_px=psf.fwhm_px,
        fwhm_per_sigma=psf.fwhm_per_sigma if psf.n_stars else FWHM_PER_SIGMA,
    )
    columns["CLASS_STAR"] = _class_star(shapes, stars, psf)
    columns["SPICA_STAR"] = stars.astype(np.int16)
    correlation, limit = _depth(clean, background, flags, found, psf, frame.gain_e_per_adu)
    figures = replace(figures, psf=psf, noise_correlation=correlation, limiting_flux_adu=limit)
    return Measurement(figures, columns, weight, clean)


def _shapes(found: Detections, clean: Pixels, rms: Pixels, unfit: Mask, fwhm: float) -> mom.AdaptiveMoments:
    objects = found.objects
    floor = (fwhm / FWHM_PER_SIGMA) ** 2
    start = tuple(np.maximum(objects[name].astype(np.float64), 0.8 * floor) for name in ("x2", "y2"))
    return mom.adaptive_moments(
        clean,
        unfit,
        found.labels,
        np.arange(1, len(found) + 1, dtype=np.int32),
        objects["x"],
        objects["y"],
        (start[0], start[1], objects["xy"].astype(np.float64)),
        rms[objects["ypeak"], objects["xpeak"]].astype(np.float64),
    )


def _whole(found: Detections, flags: Flags, unfit: Mask) -> Mask:
    """Sources that are complete and alone: not merged, not cut, no unusable pixel near the peak."""
    objects = found.objects
    whole = (objects["flag"] & (sep.OBJ_TRUNC | sep.OBJ_MERGED)) == 0
    touched = found.labels[(flags & Bit.SATURATED) != 0]
    whole[np.unique(touched[touched > 0]) - 1] = False
    ny, nx = unfit.shape
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            row = np.clip(objects["ypeak"] + dy, 0, ny - 1)
            column = np.clip(objects["xpeak"] + dx, 0, nx - 1)
            whole &= ~unfit[row, column]
    return np.asarray(whole)


def _class_star(shapes: mom.AdaptiveMoments, stars: Mask, psf: Psf) -> NDArray[np.float32]:
    """How much a source looks like a star, from its size alone: 1 on the stellar locus, 0 far from it.

    The tolerance is the locus's own width and the size's error, 1 / (sqrt(2) snr) in ln sigma.
    """
    if not psf.n_stars:
        return np.zeros(len(stars), dtype=np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        offset = np.log(shapes.sigma / psf.sigma_px)
        scatter = max(robust_sigma(offset[stars]), 0.03)
        tolerance = np.hypot(scatter, 1.0 / (np.sqrt(2.0) * np.maximum(shapes.snr, 1.0)))
        likeness = np.exp(-0.5 * (np.maximum(np.abs(offset) - tolerance, 0.0) / tolerance) ** 2)
    return np.nan_to_num(likeness).astype(np.float32)


def _depth(
    clean: Pixels, background: Background, flags: Flags, found: Detections, psf: Psf, gain: float
) -> tuple[float, float]:
    """Noise correlation, and the flux of a point source at 5 sigma.

    For a measurement weighted with the profile the noise is that of `noise_area_px` pixels. In
    resampled images neighbouring pixels share noise; how much, is read off the sums in blank
    apertures of that area. The source's own photons count too:
    f = 5 sqrt(rms² A + f / gain).
    """
    if not np.isfinite(psf.noise_area_px):
        return float("nan"), float("nan")
    correlation = _correlation(clean, background, flags, found, float(np.sqrt(psf.noise_area_px / np.pi)))
    sky = (background.median_rms * correlation) ** 2 * psf.noise_area_px
    photons = 25.0 / gain if gain > 0 else 0.0
    return correlation, 0.5 * (photons + float(np.sqrt(photons**2 + 100.0 * sky)))


def _correlation(
    clean: Pixels, background: Background, flags: Flags, found: Detections, radius: float
) -> float:
    ny, nx = clean.shape
    step = max(int(np.ceil(2.2 * radius)), int(np.sqrt(clean.size / 20_000)))
    margin = int(np.ceil(radius)) + 1
    y, x = np.mgrid[margin : ny - margin : step, margin : nx - margin : step]
    taken = (found.labels != 0) | (flags != 0)
    share, _, _ = sep.sum_circle(taken.astype(np.float32), x.ravel(), y.ravel(), 1.5 * radius, subpix=1)
    x, y = x.ravel()[share == 0], y.ravel()[share == 0]
    if x.size < 50:
        return 1.0
    sums, errors, _ = sep.sum_circle(clean, x, y, radius, err=background.rms, subpix=5)
    return float(np.clip(robust_sigma(sums / errors), 1.0, 10.0))
