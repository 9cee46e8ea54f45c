"""The depth figures of one CCD, from its sky, its detection and its point spread function."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from spica_imaging.sections import Section

from spica_quality.science.background.sky import Sky
from spica_quality.science.detection.segmentation import detect
from spica_quality.science.detection.segments import Segments, Sources
from spica_quality.science.flags import Flags
from spica_quality.science.metrics.completeness import DetectIn, Found, completeness
from spica_quality.science.metrics.depth import PsfAt, limiting_flux, magnitude, star_noise
from spica_quality.science.metrics.figures import Figures, plain

Pixels = NDArray[np.float32]


def depth_figures(
    data: Pixels,
    flags: Flags,
    sky: Sky,
    sources: Sources,
    segments: Segments,
    psf: PsfAt,
    *,
    fwhm_px: float,
    gain_e_per_adu: float,
    threshold_sigma: float,
    min_area: int,
    zeropoint_mag: float = float("nan"),
    random: np.random.Generator | None = None,
    n_injected: int = 500,
) -> Figures:
    """Limiting flux and magnitude at 5 sigma, noise correlation, and completeness.

    Args:
        data: pixels above the sky, adu, shape (ny, nx); not changed.
        flags: flag map, same shape.
        sky: level and noise.
        sources: what was detected.
        segments: the sources' pixels.
        psf: how a star looks at a place, as `PsfModel.at`, or `moffat_stamp` where there is no model.
        fwhm_px: width of stars, the pixel in it.
        gain_e_per_adu: 0: unknown.
        threshold_sigma: of the detection, as is
        min_area: this.
        zeropoint_mag: AB magnitude of 1 adu; NaN: unknown.
        random: for the injected stars, see `completeness.generator_for`; None leaves them out.
        n_injected: so many of them.

    """
    ny, nx = data.shape
    stamp = psf(0.5 * nx, 0.5 * ny)
    noise = star_noise(data, flags, segments, stamp, sky.rms_rows, fwhm_px)
    limit = limiting_flux(stamp, sky.median_rms * noise.per_pixel, gain_e_per_adu)
    figures: Figures = {
        "noise_correlation": plain(noise.correlation),
        "limiting_flux_adu": plain(limit),
        "limiting_mag": plain(magnitude(limit, zeropoint_mag)),
    }
    if random is None:
        return figures
    found = completeness(
        data,
        flags,
        psf,
        _detection(flags, sky, fwhm_px, threshold_sigma, min_area),
        (sources.x, sources.y, sources.flux),
        fwhm_px=fwhm_px,
        start_flux_adu=1.3 * limit,
        gain_e_per_adu=gain_e_per_adu,
        random=random,
        n_stars=n_injected,
    )
    return figures | {
        "completeness50_flux_adu": plain(found.flux50_adu),
        "completeness50_mag": plain(magnitude(found.flux50_adu, zeropoint_mag)),
        "completeness50_error_mag": plain(found.error_mag),
        "n_injected": found.n,
    }


def _detection(flags: Flags, sky: Sky, fwhm_px: float, threshold_sigma: float, min_area: int) -> DetectIn:
    """The frame's own detection, for a window of it."""

    def find(window: Pixels, section: Section) -> Found:
        sources, _ = detect(
            window,
            np.ascontiguousarray(flags[section.slices]),
            _sky_of(sky, section),
            fwhm_px=fwhm_px,
            threshold_sigma=threshold_sigma,
            min_area=min_area,
        )
        return sources.x, sources.y, sources.flux

    return find


def _sky_of(sky: Sky, section: Section) -> Sky:
    """The sky of a window: its noise is taken as even, unless weights tell it pixel by pixel."""
    shape = (section.y1 - section.y0, section.x1 - section.x0)
    y, x = np.mgrid[section.y0 : section.y1 : 32, section.x0 : section.x1 : 32]
    rms = float(np.median(sky.rms_at(x, y)))
    weight = np.ascontiguousarray(sky.weight[section.slices]) if sky.weight.size else sky.weight
    return replace(
        sky,
        level_mesh=np.zeros((1, 1), np.float32),
        rms_mesh=np.full((1, 1), rms, np.float32),
        box_px=max(shape),
        shape=shape,
        median_rms=rms,
        level_bend=np.zeros((1, 1)),
        rms_bend=np.zeros((1, 1)),
        weight=weight,
    )
