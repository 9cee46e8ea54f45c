"""A first look at the stars, before cosmic rays are masked and sources divided, for their sharpness.

The mask of cosmic rays needs to know it, and detection how wide its filter should be. Both are found from
the bright sources only, undivided, so that the rings of an image out of focus are seen whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from spica_imaging.stats import FWHM_PER_SIGMA, median, mode

from spica_quality.science.background.sky import Sky, measure_sky
from spica_quality.science.binning import bin_frame
from spica_quality.science.detection.segmentation import detect
from spica_quality.science.detection.segments import Sources
from spica_quality.science.flags import UNUSABLE, Flags
from spica_quality.science.photometry.shapes import adaptive_moments

Pixels = NDArray[np.float32]
Floats = NDArray[np.float64]

LEAST_STAR_SIGMA_PX = 0.50
"""No optics with pixels that sample it at all makes stars narrower (FWHM 1.2 px); hot pixels are."""

_THRESHOLD_SIGMA = 8.0
_FILTER_FWHM_PX = 1.5
_MOST_SOURCES = 400
_ENOUGH_SOURCES = 8
_COARSE = 4
_ROUND = 0.75
_SHARP_SIGMA_PX = 0.85
"""What is left of cosmic rays after the first mask is narrower, round or not; stars that are cannot be told from it."""
_STRAYS = 0.02
"""Share of the round sources that may be something else."""


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What the bright sources say."""

    n: int
    """How many of them are of the most frequent size."""
    fwhm_px: float
    """Gaussian FWHM of these; NaN where there is none."""
    minor_sigma_px: float
    """Lower quartile of their sigma along the minor axis; NaN where there is none."""
    least_sigma_px: float = float("nan")
    """Least sigma along the minor axis of any bright source, of whatever size."""
    roundest_sigma_px: float = float("nan")
    """Sigma of the narrowest of the round ones: stars are these, however few among galaxies. NaN where there is none."""


NOTHING = FirstLook(0, float("nan"), float("nan"))


def first_look(data: Pixels, flags: Flags, sky: Sky, ceiling_adu: float) -> FirstLook:
    """Look at the bright sources; where there are too few, once more on means of 4×4 pixels.

    Args:
        data: pixels above the sky, shape (ny, nx), 0 where there is no value.
        flags: flag map, same shape.
        sky: its noise.
        ceiling_adu: sources with a peak above are left out (saturation less background).

    """
    first = _look(data, flags, sky, ceiling_adu)
    if first.n >= _ENOUGH_SOURCES or min(data.shape) < 16 * _COARSE:
        return first
    coarse = _coarse_look(data, flags, ceiling_adu)
    # In focus, stars are no wider than a few pixels, and 4×4 means only blur them.
    if coarse.n > max(first.n, 2) and coarse.fwhm_px > 2.0:
        return FirstLook(
            coarse.n,
            _COARSE * coarse.fwhm_px,
            _COARSE * coarse.minor_sigma_px,
            _COARSE * coarse.least_sigma_px,
            first.roundest_sigma_px,
        )
    return first


def _coarse_look(data: Pixels, flags: Flags, ceiling_adu: float) -> FirstLook:
    binned = bin_frame(data, flags, _COARSE)
    mean = np.ascontiguousarray(binned.mean, np.float32)
    poor = ~np.isfinite(mean)
    mean[poor] = 0.0
    reasons = np.where(poor, UNUSABLE, np.uint16(0)).astype(np.uint16)
    return _look(mean, reasons, measure_sky(mean, reasons, 64), ceiling_adu)


def _look(data: Pixels, flags: Flags, sky: Sky, ceiling_adu: float) -> FirstLook:
    if not sky.median_rms > 0:
        return NOTHING
    sources, segments = detect(
        data,
        flags,
        sky,
        fwhm_px=_FILTER_FWHM_PX,
        threshold_sigma=_THRESHOLD_SIGMA,
        min_area=4,
        deblend=False,
    )
    if not len(sources):
        return NOTHING
    rms = sky.rms_at(sources.x, sources.y)
    shapes = adaptive_moments(data, flags, sources, segments, rms, 3.0 / FWHM_PER_SIGMA)
    chosen = _chosen(sources, ceiling_adu)
    sigma, (major, minor, _) = shapes.sigma[chosen], shapes.axes
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(sigma) & (sigma > LEAST_STAR_SIGMA_PX)
    if not usable.any():
        return NOTHING
    size = np.log(sigma[usable])
    same = np.flatnonzero(usable)[np.abs(size - mode(size)) < 0.2]
    if not same.size:
        return NOTHING  # a few sources, no two alike
    narrow, wide = minor[chosen], major[chosen]
    return FirstLook(
        int(same.size),
        FWHM_PER_SIGMA * median(sigma[same]),
        float(np.percentile(narrow[same], 25)),
        float(np.nanmin(narrow[usable])),
        _roundest(narrow[usable], wide[usable]),
    )


def _roundest(minor: Floats, major: Floats) -> float:
    with np.errstate(invalid="ignore"):
        round_ones = np.sort(minor[(minor > _SHARP_SIGMA_PX) & (minor > _ROUND * major)])
    return float(round_ones[int(_STRAYS * round_ones.size)]) if round_ones.size else float("nan")


def _chosen(sources: Sources, ceiling_adu: float) -> NDArray[np.intp]:
    """The brightest that are neither saturated nor cut by the edge."""
    fine = np.flatnonzero((sources.peak < ceiling_adu) & ((sources.flags & 8) == 0))
    return fine[np.argsort(-sources.flux[fine], kind="stable")][:_MOST_SOURCES]
