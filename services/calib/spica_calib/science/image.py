"""One image, calibrated: astrometry, then photometry on the same matches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spica_calib.science.astrometry.ccd import ResidualStatistics, residual_statistics
from spica_calib.science.matching.frame import FrameSolution, solve_frame
from spica_calib.science.matching.search import Prior
from spica_calib.science.photometry.zeropoint import ZeroPoint, choose_band, zero_point
from spica_calib.science.stars import CcdField, Stars


@dataclass(frozen=True, slots=True)
class ImageSolution:
    """Astrometric and photometric solution of one image."""

    frame: FrameSolution
    residuals: ResidualStatistics
    zero_point: ZeroPoint | None
    distortion_degree: int
    pixel_scale_arcsec: float
    rotation_deg: float


def solve_image(
    fields: Sequence[CcdField],
    stars: Stars,
    *,
    prior: Prior,
    rigid: bool,
    max_degree: int,
    limit_log10: float,
    wanted_band: str | None,
    exposure_time_s: float,
) -> ImageSolution:
    """Calibrate one image; arguments as for `solve_frame`. Raises `NoMatch`."""
    band = choose_band(wanted_band, stars.mags)
    frame = solve_frame(
        fields, stars, band, prior, rigid=rigid, max_degree=max_degree, limit_log10=limit_log10
    )
    middle = frame.ccds[len(frame.ccds) // 2].wcs
    return ImageSolution(
        frame=frame,
        residuals=residual_statistics(frame.ccds),
        zero_point=matched_zero_point(fields, frame, stars, band, exposure_time_s) if band else None,
        distortion_degree=max([1, *(ccd.degree for ccd in frame.ccds)]),
        pixel_scale_arcsec=float(np.median([c.wcs.pixel_scale_arcsec for c in frame.ccds])),
        rotation_deg=middle.rotation_deg,
    )


def matched_zero_point(
    fields: Sequence[CcdField], frame: FrameSolution, stars: Stars, band: str, exposure_time_s: float
) -> ZeroPoint | None:
    """Zero point from all matches that the astrometry kept."""
    mags, fluxes, errors, clean = [], [], [], []
    for field, ccd in zip(fields, frame.ccds, strict=True):
        kept = ccd.weight > 0
        source, star = ccd.source[kept], ccd.star[kept]
        mags.append(stars.mags[band][star])
        fluxes.append(field.sources.star_flux_adu[source])
        errors.append(field.sources.star_flux_error_adu[source])
        clean.append(field.sources.clean[source])
    return zero_point(
        band,
        np.concatenate(mags),
        np.concatenate(fluxes),
        np.concatenate(errors),
        exposure_time_s,
        np.concatenate(clean),
    )
