"""From the figures of single CCDs to those of the image."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, log10, nan

from spica_imaging.stats import median, weighted_median

from spica_quality.science.figures import CcdFigures, ImageFigures


def summarise(ccds: Sequence[CcdFigures], zeropoint_mag: float = nan) -> ImageFigures:
    """Medians over the CCDs; FWHM, ellipticity and dip weighted by their stars.

    Args:
        ccds: figures of all CCDs, blank ones too.
        zeropoint_mag: AB magnitude of 1 adu in this image (not per second); NaN: not known.

    """
    live = [ccd for ccd in ccds if not ccd.figures.blank]
    stars = [ccd.figures.psf.n_stars for ccd in live]
    # CCDs with three stars or less say little of the spread over the field.
    firm = [ccd.figures.psf.fwhm_px for ccd in live if ccd.figures.psf.n_stars > 3]
    middle = median(firm)
    n_pixels = sum(ccd.figures.n_pixels for ccd in ccds)
    limit = median([ccd.figures.limiting_flux_adu for ccd in live])
    return ImageFigures(
        n_ccds=len(ccds),
        n_blank=len(ccds) - len(live),
        n_sources=sum(ccd.figures.n_sources for ccd in live),
        n_stars=sum(stars),
        fwhm_px=weighted_median([ccd.figures.psf.fwhm_px for ccd in live], stars),
        fwhm_arcsec=weighted_median(
            [ccd.figures.psf.fwhm_px * ccd.pixel_scale_arcsec for ccd in live], stars
        ),
        ellipticity=weighted_median([ccd.figures.psf.ellipticity for ccd in live], stars),
        central_dip=weighted_median([ccd.figures.dip for ccd in live], stars),
        fwhm_spread=(max(firm) - min(firm)) / middle if firm else 0.0,
        ccds_without_stars=1.0 - sum(n > 0 for n in stars) / len(ccds) if ccds else 0.0,
        background_adu=median([ccd.figures.background_adu for ccd in live]),
        background_rms_adu=median([ccd.figures.background_rms_adu for ccd in live]),
        limiting_flux_adu=limit,
        limiting_mag=zeropoint_mag - 2.5 * log10(limit) if isfinite(limit) and limit > 0 else nan,
        saturated_fraction=sum(ccd.figures.n_saturated for ccd in ccds) / n_pixels if n_pixels else 0.0,
        usable_fraction=sum(ccd.figures.n_usable for ccd in ccds) / n_pixels if n_pixels else 0.0,
        pixel_scale_arcsec=median([ccd.pixel_scale_arcsec for ccd in ccds]),
    )
