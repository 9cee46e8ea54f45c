"""Calibrating one image, in a worker process: read files, call science, write products."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from spica_imaging.profiles import Profile, load_profiles
from spica_imaging.wcs import tan_project

from spica_calib.errors import CalibrationFailed
from spica_calib.fields import fields_of, read_catalogue
from spica_calib.heads import write_head
from spica_calib.jobs import ImageJob, ImageResult, Limits
from spica_calib.plots import plot_residuals
from spica_calib.reference_file import ReferenceFile
from spica_calib.references import stars_in_cone
from spica_calib.science.image import ImageSolution, solve_image
from spica_calib.science.matching.frame import NoMatch, field_centre, field_radius
from spica_calib.science.matching.search import Prior
from spica_calib.science.photometry.zeropoint import flux_scale, limiting_mag
from spica_calib.science.stars import CcdField, Stars, julian_year

_MIN_MATCHED = 5


def profile_named(name: str, folder: Path | None) -> Profile:
    """Instrument profile. Raises `CalibrationFailed` (`unknown_profile`)."""
    try:
        return load_profiles(folder)[name]
    except KeyError as error:
        raise CalibrationFailed("unknown_profile", f"There is no instrument profile {name!r}.") from error


def prior_of(profile: Profile, fields: list[CcdField], *, rigid: bool) -> Prior:
    """How far the assumed WCS can be off, as the profile says.

    Without a WCS a mosaic's CCDs lie anywhere in the mosaic: its extent, if it is about as wide as high, is added.
    """
    pointing = profile.pointing
    spread = 0.0
    if not rigid and len(fields) > 1:
        ccd = fields[0]
        spread = 0.5 * np.hypot(ccd.nx, ccd.ny) * ccd.wcs.pixel_scale_arcsec * np.sqrt(len(fields))
    flips = (False, True) if pointing.flip == "either" and not rigid else (False,)
    return Prior(
        shift_arcsec=60.0 * pointing.radius_arcmin + float(spread),
        rotation_deg=min(pointing.rotation_tolerance_deg, 180.0)
        if not rigid
        else min(pointing.rotation_tolerance_deg, 10.0),
        scale=pointing.scale_tolerance,
        mirrored=flips,
    )


def stars_for(
    reference: ReferenceFile,
    fields: list[CcdField],
    margin_deg: float,
    epoch_year: float | None,
    limits: Limits,
    band: str | None,
) -> Stars:
    """Reference stars of the fields and a margin around, moved to the epoch, the brightest of them."""
    centre = field_centre(fields)
    stars = stars_in_cone(reference, *centre, 1.02 * (field_radius(fields, *centre) + margin_deg))
    mag = stars.brightness(band)
    if limits.faint_mag is not None:
        stars, mag = stars.take(~(mag > limits.faint_mag)), mag[~(mag > limits.faint_mag)]
    if len(stars) > limits.max_stars:
        stars = stars.take(np.sort(np.argsort(mag, kind="stable")[: limits.max_stars]))
    return stars if epoch_year is None else stars.at_epoch(epoch_year)


def solve(job: ImageJob) -> ImageResult:
    """Solve one image and write its `.head` file and its picture.

    A header's WCS may be plausible and wrong all the same: where nothing matches from it, the search
    begins again from the pointing alone, over the wider range of the instrument's profile.

    Raises `CalibrationFailed` (`no_match`, `too_few_matches`, `bad_catalogue`, `bad_wcs`) and `ReferenceUnavailable`.
    """
    try:
        return _solve(job)
    except CalibrationFailed as error:
        if error.code != "no_match" or not job.has_wcs:
            raise
    return _solve(replace(job, has_wcs=False))


def _solve(job: ImageJob) -> ImageResult:
    profile = profile_named(job.profile, job.profiles_folder)
    fields = fields_of(
        read_catalogue(job.catalogue),
        profile,
        job.ccd_names,
        job.psf_beta,
        None,
        None if job.has_wcs else job.pointing,
    )
    prior = prior_of(profile, fields, rigid=job.has_wcs)
    epoch = julian_year(job.mjd_obs) if job.mjd_obs is not None else None
    band = profile.photometry.band_for(job.filter)
    stars = stars_for(job.reference, fields, prior.shift_arcsec / 3600.0, epoch, job.limits, band)
    try:
        solution = solve_image(
            fields,
            stars,
            prior=prior,
            rigid=job.has_wcs,
            max_degree=profile.astrometry.distortion_degree,
            limit_log10=job.limits.false_match_log10,
            wanted_band=band,
            exposure_time_s=job.exposure_time_s,
        )
    except NoMatch as error:
        raise CalibrationFailed("no_match", error.message, error.numbers) from error
    zero, stats = solution.zero_point, solution.residuals
    if stats.n < _MIN_MATCHED:
        raise CalibrationFailed(
            "too_few_matches",
            f"Only {stats.n} sources could be told to be reference stars; at least {_MIN_MATCHED} are needed.",
            {
                "n_matched": stats.n,
                "n_reference": len(stars),
                "n_sources": sum(len(f.sources) for f in fields),
            },
        )
    write_head(
        job.head,
        job.ccd_names,
        [ccd.wcs for ccd in solution.frame.ccds],
        stats,
        zero.mag if zero else None,
        zero.scatter_mag if zero else None,
        job.exposure_time_s,
    )
    _plot(job, fields, solution)
    if epoch is None:
        epoch = float(np.median(stars.epoch_year))
    return _result(job, solution, epoch, len(stars))


def _plot(job: ImageJob, fields: list[CcdField], solution: ImageSolution) -> None:
    centre = field_centre(fields)
    xs, ys, residuals = [], [], []
    for ccd_field, ccd in zip(fields, solution.frame.ccds, strict=True):
        kept = ccd.weight > 0
        index = ccd.source[kept]
        sky = ccd.wcs.pixel_to_sky(ccd_field.sources.x[index], ccd_field.sources.y[index])
        xi, eta = tan_project(*sky, *centre)
        xs.append(3600.0 * xi)
        ys.append(3600.0 * eta)
        residuals.append(1000.0 * ccd.residual_arcsec[kept])
    plot_residuals(job.plot, job.name, xs, ys, np.concatenate(residuals), solution.residuals)


def _result(job: ImageJob, solution: ImageSolution, epoch: float, n_stars: int) -> ImageResult:
    stats, zero, frame = solution.residuals, solution.zero_point, solution.frame
    return ImageResult(
        start="wcs" if job.has_wcs else "pointing",
        epoch_year=epoch,
        n_matched=stats.n,
        residual_mas=(stats.median_ra, stats.median_dec),
        rms_mas=(stats.rms_ra, stats.rms_dec),
        distortion_degree=solution.distortion_degree,
        pixel_scale_arcsec=solution.pixel_scale_arcsec,
        rotation_deg=solution.rotation_deg,
        offset_arcsec=frame.offset_arcsec,
        zeropoint_mag=zero.mag if zero else None,
        zeropoint_sigma_mag=zero.error_mag if zero else None,
        n_photometric=zero.n if zero else 0,
        flux_scale=flux_scale(zero.mag, job.exposure_time_s) if zero else None,
        limiting_mag=(
            limiting_mag(zero.mag, job.limiting_flux_adu, job.exposure_time_s)
            if zero and job.limiting_flux_adu
            else None
        ),
        quality={
            "n_matched": stats.n,
            "n_reference": n_stars,
            "residual_mas": [stats.median_ra, stats.median_dec],
            "rms_mas": [stats.rms_ra, stats.rms_dec],
            "distortion_degree": solution.distortion_degree,
            "pixel_scale_arcsec": solution.pixel_scale_arcsec,
            "rotation_deg": solution.rotation_deg,
            "offset_arcsec": frame.offset_arcsec,
            "start": "wcs" if job.has_wcs else "pointing",
            "log10_false_match": frame.log10_false,
            "expected_by_chance": frame.expected_by_chance,
            "epoch_year": epoch,
            "n_photometric": zero.n if zero else 0,
            "zeropoint_sigma_mag": zero.error_mag if zero else None,
            "zeropoint_scatter_mag": zero.scatter_mag if zero else None,
            "band": zero.band if zero else None,
            "ccds": [
                {
                    "name": name,
                    "n_matched": int(np.count_nonzero(ccd.weight > 0)),
                    "degree": ccd.degree,
                    "scatter_arcsec": ccd.scatter_arcsec if np.isfinite(ccd.scatter_arcsec) else None,
                }
                for name, ccd in zip(job.ccd_names, frame.ccds, strict=True)
            ],
        },
    )
