"""A first look at the stars, before cosmic rays are masked and sources divided.

The mask of cosmic rays needs to know how sharp stars are, and detection how wide its filter should
be. Both are found from the bright sources only, undivided, so that the rings of an image out of
focus are seen whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sep
from numpy.typing import NDArray
from spica_imaging.stats import FWHM_PER_SIGMA, median, mode

from spica_quality.science import moments as mom
from spica_quality.science.stars import MIN_STAR_SIGMA_PX, central_dip

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]

_THRESHOLD_SIGMA = 8.0
_MOST_SOURCES = 400
_ENOUGH_SOURCES = 8


@dataclass(frozen=True, slots=True)
class Scout:
    """What the bright sources say."""

    n: int
    """How many of them are of the most frequent size."""
    fwhm_px: float
    """Gaussian FWHM of these; NaN where there is none."""
    minor_sigma_px: float
    """Lower quartile of their sigma along the minor axis; NaN where there is none."""
    dip: float
    """See `central_dip`; 0 where there is none."""


NOTHING = Scout(0, float("nan"), float("nan"), 0.0)


def scout(subtracted: Pixels, rms: Pixels, bad: Mask, ceiling: float, frame_fwhm_px: float = 3.0) -> Scout:
    """Look at the bright sources; where there are too few, once more on 4×4 pixel means.

    Args:
        subtracted: pixels above the background, shape (ny, nx), 0 where there is no value.
        rms: noise per pixel, same shape.
        bad: pixels not to be used.
        ceiling: sources with a peak above are left out (saturation less background).
        frame_fwhm_px: start value for sizes.

    """
    first = _look(subtracted, rms, bad, ceiling, frame_fwhm_px)
    if first.n >= _ENOUGH_SOURCES:
        return first
    ny, nx = (size // 4 * 4 for size in subtracted.shape)
    if min(ny, nx) < 64:
        return first

    def binned(array: Pixels) -> Pixels:
        blocks = array[:ny, :nx].reshape(ny // 4, 4, nx // 4, 4)
        return np.ascontiguousarray(blocks.mean(axis=(1, 3), dtype=np.float32))

    coarse_bad = binned(bad.astype(np.float32)) > 0.5
    coarse = _look(binned(subtracted), binned(rms) / np.float32(4.0), coarse_bad, ceiling, frame_fwhm_px)
    # In focus, stars are no wider than a few pixels, and 4×4 means only blur them.
    if coarse.n > max(first.n, 2) and coarse.fwhm_px > 2.0:
        return Scout(coarse.n, 4.0 * coarse.fwhm_px, 4.0 * coarse.minor_sigma_px, coarse.dip)
    return first


def _look(subtracted: Pixels, rms: Pixels, bad: Mask, ceiling: float, fwhm_px: float) -> Scout:
    sep.set_extract_pixstack(max(300_000, subtracted.size // 8))
    objects, labels = sep.extract(
        subtracted,
        _THRESHOLD_SIGMA,
        err=rms,
        mask=bad,
        minarea=4,
        filter_kernel=None,
        deblend_cont=1.0,
        clean=False,
        segmentation_map=True,
    )
    fine = (objects["peak"] < ceiling) & ((objects["flag"] & sep.OBJ_TRUNC) == 0)
    chosen = np.flatnonzero(fine)
    chosen = chosen[np.argsort(-objects["flux"][chosen], kind="stable")][:_MOST_SOURCES]
    if not chosen.size:
        return NOTHING
    picked = objects[chosen]
    floor = (fwhm_px / FWHM_PER_SIGMA) ** 2
    shapes = mom.adaptive_moments(
        subtracted,
        bad,
        labels,
        (chosen + 1).astype(np.int32),
        picked["x"],
        picked["y"],
        (np.maximum(picked["x2"], floor), np.maximum(picked["y2"], floor), picked["xy"]),
        rms[picked["ypeak"], picked["xpeak"]],
    )
    sigma = shapes.sigma
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(sigma) & (sigma > MIN_STAR_SIGMA_PX)
    if not usable.any():
        return NOTHING
    size = np.log(sigma[usable])
    typical = np.abs(size - mode(size)) < 0.2
    same = np.flatnonzero(usable)[typical]
    if not same.size:
        return NOTHING  # a few sources, no two alike
    _, minor, _ = shapes.axes
    brightest = same[:100]
    dip = central_dip(subtracted, bad, shapes.x[brightest], shapes.y[brightest], sigma[brightest])
    return Scout(
        int(same.size), FWHM_PER_SIGMA * median(sigma[same]), float(np.percentile(minor[same], 25)), dip
    )
