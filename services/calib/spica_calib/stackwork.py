"""Calibrating the members of a stack together, in a worker process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from spica_imaging.profiles import Profile

from spica_calib.errors import CalibrationFailed
from spica_calib.fields import fields_of, read_catalogue
from spica_calib.heads import read_head_names, read_wcs, write_head
from spica_calib.imagework import profile_named, stars_for
from spica_calib.jobs import JointJob, JointResult, MemberJob
from spica_calib.science.astrometry.ccd import ResidualStatistics
from spica_calib.science.astrometry.joint import JointSolution, solve_joint
from spica_calib.science.astrometry.joint_model import Exposure
from spica_calib.science.photometry.zeropoint import flux_scale, limiting_mag
from spica_calib.science.stars import julian_year


def _context(profile: Profile, header: Mapping[str, Any]) -> str:
    """What exposures must have in common to share a distortion."""
    return "|".join([profile.name, *(str(header.get(keyword, "")) for keyword in profile.astrometry.context)])


def _exposure(member: MemberJob, profile: Profile) -> tuple[Exposure, list[str]]:
    names = read_head_names(member.own_head)
    fields = fields_of(
        read_catalogue(member.catalogue), profile, names, member.psf_beta, read_wcs(member.own_head), None
    )
    return (
        Exposure(
            _context(profile, member.header),
            member.exposure_time_s,
            tuple(fields),
            member.own_zeropoint_mag,
            member.own_zeropoint_sigma_mag,
        ),
        names,
    )


def solve(job: JointJob) -> JointResult:
    """Solve the members together and write their `.head` files.

    Raises `CalibrationFailed` (`bad_catalogue`, `bad_header`) and `ReferenceUnavailable`.
    """
    profiles = [profile_named(member.profile, job.profiles_folder) for member in job.members]
    read = [_exposure(member, profile) for member, profile in zip(job.members, profiles, strict=True)]
    exposures = [exposure for exposure, _ in read]
    if any(exposure.exposure_time_s <= 0 for exposure in exposures):
        raise CalibrationFailed(
            "bad_exposure_time", f"A member of stack {job.stack_id} has no exposure time."
        )
    epochs = [julian_year(member.mjd_obs) for member in job.members if member.mjd_obs is not None]
    fields = [one for exposure in exposures for one in exposure.fields]
    band = profiles[0].photometry.band_for(job.members[0].filter)
    epoch = float(np.mean(epochs)) if epochs else None
    stars = stars_for(job.reference, fields, 0.01, epoch, job.limits, band)
    solution = solve_joint(exposures, stars, max(p.astrometry.distortion_degree for p in profiles))
    for number, (member, (_, names)) in enumerate(zip(job.members, read, strict=True)):
        write_head(
            member.head,
            names,
            solution.wcs[number],
            _statistics(solution),
            float(solution.fluxes.zeropoint_mag[number]),
            solution.fluxes.scatter_mag,
            member.exposure_time_s,
        )
    if epoch is None:
        epoch = float(np.median(stars.epoch_year)) if len(stars) else 2000.0
    return _result(job, solution, epoch)


def _statistics(solution: JointSolution) -> ResidualStatistics:
    rms = solution.internal_rms_mas
    if rms is None:
        return ResidualStatistics(0, np.nan, np.nan, np.nan, np.nan)
    return ResidualStatistics(solution.n_internal, np.nan, np.nan, *rms)


def _result(job: JointJob, solution: JointSolution, epoch: float) -> JointResult:
    zeros = tuple(float(zero) for zero in solution.fluxes.zeropoint_mag)
    rms = solution.internal_rms_mas
    return JointResult(
        epoch_year=epoch,
        n_internal_matches=solution.n_internal,
        internal_rms_mas=rms if rms is not None else (None, None),
        flux_scatter_mag=solution.fluxes.scatter_mag,
        zeropoints_mag=zeros,
        flux_scales=tuple(
            flux_scale(zero, member.exposure_time_s) for zero, member in zip(zeros, job.members, strict=True)
        ),
        limiting_mags=tuple(
            limiting_mag(zero, member.limiting_flux_adu, member.exposure_time_s)
            if member.limiting_flux_adu
            else None
            for zero, member in zip(zeros, job.members, strict=True)
        ),
        quality={
            "joint": True,
            "n_members": len(job.members),
            "n_internal_matches": solution.n_internal,
            "internal_rms_mas": list(rms) if rms is not None else None,
            "n_reference": solution.n_reference,
            "reference_rms_mas": list(solution.reference_rms_mas) if solution.reference_rms_mas else None,
            "distortion_degree": solution.distortion_degree,
            "flux_scatter_mag": solution.fluxes.scatter_mag,
            "flux_scale": "absolute" if solution.fluxes.anchored else "relative: nominal zero point 25",
            "epoch_year": epoch,
        },
    )
