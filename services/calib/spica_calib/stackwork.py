"""Calibrating the members of a stack together, in a worker process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from spica_imaging.profiles import Profile

from spica_calib.errors import CalibrationFailed
from spica_calib.exposures import Taken, epoch_of, options_of, solved_image
from spica_calib.fields import corners_of, degree_of
from spica_calib.heads import HeadPhotometry, write_heads
from spica_calib.imagework import solve_by, stars_for
from spica_calib.jobs import JointJob, JointResult
from spica_calib.pages import anchor_figures, calibration_of, figures, write_page
from spica_calib.photometrywork import Calibrated, calibrate_exposures
from spica_calib.records import context_of, known
from spica_calib.science.astrometry.problem import AstrometricSolution, InstrumentModel
from spica_calib.science.diagnostics.inputs import Calibration
from spica_calib.science.photometry.anchors import NOMINAL_ZEROPOINT_MAG
from spica_calib.science.photometry.problem import Illumination
from spica_calib.science.photometry.zeropoint import flux_scale, limiting_mag
from spica_calib.science.stars import Stars
from spica_calib.work import profile_named

_MARGIN_DEG = 0.01


@dataclass(frozen=True, slots=True)
class _Solved:
    images: list[Taken]
    stars: Stars
    epoch_year: float
    astrometry: AstrometricSolution
    photometry: Calibrated
    calibration: Calibration


def solve(job: JointJob) -> JointResult:
    """Solve the members together and write their `.head` files, and one page.

    Raises `CalibrationFailed` (`bad_catalogue`, `bad_header`, `bad_exposure_time`), `ReferenceUnavailable`, and what the
    engine raises.
    """
    profiles = [profile_named(member.image.facts.profile, job.profiles_folder) for member in job.members]
    epochs = [epoch for member in job.members if (epoch := epoch_of(member.image.facts)) is not None]
    epoch = float(np.mean(epochs)) if epochs else None
    images = [_taken(job, number, profile, epoch) for number, profile in enumerate(profiles)]
    solved = _solved(job, images, profiles, epoch)
    for number, (member, image) in enumerate(zip(job.members, images, strict=True)):
        write_heads(
            member.head,
            [ccd.name for ccd in image.fields],
            solved.astrometry.exposures[number],
            _head_photometry(solved.photometry, number, member.image.facts.exposure_time_s),
        )
    write_page(
        job.page,
        job.name,
        solved.calibration,
        job.reference,
        solved.epoch_year,
        job.engine,
        None,
        None,
        [
            ("stack", job.stack_id),
            *(("context", one) for one in sorted({i.astrometric.context for i in images})),
        ],
        stack=True,
    )
    return _result(job, solved)


def _taken(job: JointJob, number: int, profile: Profile, epoch_year: float | None) -> Taken:
    image = job.members[number].image
    try:
        return solved_image(image, profile, context_of(profile, image.facts.header), epoch_year, held=False)
    except CalibrationFailed as error:
        raise CalibrationFailed(
            error.code, f"Member {image.facts.name} of stack {job.stack_id}: {error.message}", error.numbers
        ) from error


def _solved(job: JointJob, images: list[Taken], profiles: Sequence[Profile], epoch: float | None) -> _Solved:
    profile, filter_name = profiles[0], job.members[0].image.facts.filter
    band = profile.photometry.band_for(filter_name)
    fields = [ccd for image in images for ccd in image.fields]
    stars = stars_for(job.reference, job.photometric_reference, fields, _MARGIN_DEG, epoch, job.limits, band)
    if epoch is None:
        epoch = float(np.median(stars.epoch_year)) if len(stars) else 2000.0
    options = options_of(profiles)
    models = {context: InstrumentModel.from_json(told) for context, told in job.models.items()}
    lights = {context: Illumination.from_json(told) for context, told in job.illuminations.items()}
    astrometry = solve_by(job.engine, images, stars, options, models, band)
    photometric = [image.photometric for image in images]
    photometry = calibrate_exposures(
        photometric, [image.fields for image in images], astrometry, stars, profile, lights or None
    )
    calibration = calibration_of(
        images, astrometry, photometry, photometric, stars, profile, options, {}, models
    )
    return _Solved(images, stars, epoch, astrometry, photometry, calibration)


def _head_photometry(photometry: Calibrated, number: int, exposure_time_s: float) -> HeadPhotometry:
    """Cards of one member: a stack needs one flux scale, be it a relative one."""
    return HeadPhotometry(
        photometry.zeropoint_mag[number],
        exposure_time_s,
        photometry.offset_mag[number],
        photometry.solution.internal_mag,
        photometry.solution.exposures[number].is_linked,
    )


def _result(job: JointJob, solved: _Solved) -> JointResult:
    astrometry, photometry = solved.astrometry, solved.photometry
    facts = [member.image.facts for member in job.members]
    zeros = photometry.zeropoint_mag
    notes = (*astrometry.notes, *photometry.solution.notes)
    internal = astrometry.internal_mas if astrometry.n_internal else (None, None)
    return JointResult(
        epoch_year=solved.epoch_year,
        n_internal_matches=astrometry.n_internal,
        internal_rms_mas=internal,
        flux_scatter_mag=known(photometry.solution.internal_mag),
        zeropoints_mag=zeros,
        flux_scales=tuple(
            flux_scale(zero, one.exposure_time_s) for zero, one in zip(zeros, facts, strict=True)
        ),
        limiting_mags=tuple(
            limiting_mag(zero, member.image.limiting_flux_adu, one.exposure_time_s)
            if member.image.limiting_flux_adu and absolute
            else None
            for zero, one, member, absolute in zip(
                zeros, facts, job.members, photometry.is_absolute, strict=True
            )
        ),
        corners=tuple(
            corners_of(image.fields, one.wcs)
            for image, one in zip(solved.images, astrometry.exposures, strict=True)
        ),
        n_reference=astrometry.n_external,
        external_rms_mas=astrometry.external_mas if astrometry.n_external else (None, None),
        chi2_external=known(astrometry.chi2_external),
        chi2_internal=known(astrometry.chi2_internal),
        contexts=tuple(image.astrometric.context for image in solved.images),
        anchors=tuple(
            one.image_id
            for one, zero in zip(facts, photometry.solution.exposures, strict=True)
            if zero.is_anchor
        ),
        notes=notes,
        quality=tuple(_quality(solved, number, notes) for number in range(len(facts))),
    )


def _quality(solved: _Solved, number: int, notes: tuple[str, ...]) -> dict[str, Any]:
    """Numbers of one member for the store; those of the whole solution stand with each."""
    astrometry, photometry = solved.astrometry, solved.photometry
    one = astrometry.exposures[number]
    told = figures(solved.calibration, number)
    absolute = photometry.is_absolute[number]
    return {
        "joint": True,
        "n_members": len(solved.images),
        "n_internal_matches": astrometry.n_internal,
        "n_matched": one.n_external,
        "rms_mas": list(one.external_mas) if one.n_external else None,
        "n_internal": one.n_internal,
        "internal_rms_mas": list(one.internal_mas) if one.n_internal else None,
        "chi2_external": known(one.chi2_external),
        "chi2_internal": known(one.chi2_internal),
        "n_reference": len(solved.stars),
        "distortion_degree": degree_of(solved.images[number].fields, one.wcs),
        "flux_scatter_mag": known(photometry.solution.internal_mag),
        "flux_scale": "absolute" if absolute else f"relative: nominal zero point {NOMINAL_ZEROPOINT_MAG:g}",
        "epoch_year": solved.epoch_year,
        "band": photometry.solution.band,
        **anchor_figures(photometry.solution.exposures[number]),
        "notes": list(notes),
        "ccds": told.pop("ccds"),
        "figures": told,
    }
