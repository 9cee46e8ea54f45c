"""Calibrating one image, in a worker process: read files, call science, write products."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from spica_imaging.profiles import Profile

from spica_calib.errors import CalibrationFailed
from spica_calib.exposures import Taken, epoch_of, new_image, options_of, solved_image
from spica_calib.fields import corners_of, degree_of, fields_of, read_catalogue
from spica_calib.heads import HeadPhotometry, write_heads
from spica_calib.jobs import Engine, ImageJob, ImageResult, Limits
from spica_calib.pages import anchor_figures, calibration_of, figures, write_page
from spica_calib.photometrywork import Calibrated, calibrate_one
from spica_calib.records import known
from spica_calib.reference.area import ReferenceArea
from spica_calib.reference.stars import stars_in_cone
from spica_calib.science.astrometry.problem import AstrometricSolution, InstrumentModel, Options
from spica_calib.science.astrometry.solve import solve as solve_astrometry
from spica_calib.science.diagnostics.inputs import Calibration
from spica_calib.science.magnitudes import with_magnitudes
from spica_calib.science.matching.geometry import NoMatch, field_centre, field_radius
from spica_calib.science.matching.locate import locate
from spica_calib.science.matching.located import Located
from spica_calib.science.matching.search import Prior
from spica_calib.science.photometry.problem import Illumination
from spica_calib.science.photometry.zeropoint import flux_scale, limiting_mag
from spica_calib.science.stars import CcdField, Stars
from spica_calib.work import profile_named

_MIN_MATCHED = 5
_MIN_SEEN, _ASTRAY_PX = 10, 20.0
_REST_PRIOR_DEG = 10.0
"""A frame that knows how its CCDs lie to each other is not turned by more."""


@dataclass(frozen=True, slots=True)
class _Placed:
    """An image that was located: what it was found with."""

    fields: list[CcdField]
    located: Located
    stars: Stars
    """At the image's epoch."""
    epoch_year: float
    start: Literal["wcs", "pointing"]


@dataclass(frozen=True, slots=True)
class _Solved:
    """One image, and those of its context, solved."""

    placed: _Placed
    images: list[Taken]
    """The image itself first."""
    astrometry: AstrometricSolution
    photometry: Calibrated
    calibration: Calibration
    notes: tuple[str, ...]


def prior_of(profile: Profile, fields: Sequence[CcdField], *, rigid: bool) -> Prior:
    """How far the assumed WCS can be off, as the profile says.

    Without a WCS a mosaic's CCDs lie anywhere in the mosaic: its extent, if it is about as wide as high, is added.
    """
    pointing = profile.pointing
    spread = 0.0
    if not rigid and len(fields) > 1:
        ccd = fields[0]
        spread = 0.5 * np.hypot(ccd.nx, ccd.ny) * ccd.wcs.pixel_scale_arcsec * np.sqrt(len(fields))
    flips = (False, True) if pointing.flip == "either" and not rigid else (False,)
    widest = _REST_PRIOR_DEG if rigid else 180.0
    return Prior(
        shift_arcsec=60.0 * pointing.radius_arcmin + float(spread),
        rotation_deg=min(pointing.rotation_tolerance_deg, widest),
        scale=pointing.scale_tolerance,
        mirrored=flips,
    )


def stars_for(
    area: ReferenceArea,
    magnitudes: ReferenceArea | None,
    fields: Sequence[CcdField],
    margin_deg: float,
    epoch_year: float | None,
    limits: Limits,
    band: str | None,
) -> Stars:
    """Reference stars of the fields and a margin around, moved to the epoch, the brightest of them.

    `magnitudes`: the catalogue that these come from, where it is another one.
    """
    centre = field_centre(fields)
    radius = 1.02 * (field_radius(fields, *centre) + margin_deg)
    stars = stars_in_cone(area, *centre, radius)
    stars = stars if epoch_year is None else stars.at_epoch(epoch_year)
    if magnitudes is not None:
        others = stars_in_cone(magnitudes, *centre, radius)
        stars = with_magnitudes(stars, others if epoch_year is None else others.at_epoch(epoch_year))
    mag = stars.brightness(band)
    if limits.faint_mag is not None:
        bright = ~(mag > limits.faint_mag)
        stars, mag = stars.take(bright), mag[bright]
    if len(stars) > limits.max_stars:
        stars = stars.take(np.sort(np.argsort(mag, kind="stable")[: limits.max_stars]))
    return stars


def solve_by(
    engine: Engine,
    images: Sequence[Taken],
    stars: Stars,
    options: Options,
    models: Mapping[str, InstrumentModel],
    band: str | None,
) -> AstrometricSolution:
    """Astrometry of images by one engine or the other. Raises as `solve_with_scamp` does."""
    exposures = [image.astrometric for image in images]
    if engine == "spica":
        return solve_astrometry(exposures, stars, options, models)
    from spica_calib.scampwork import solve_with_scamp

    with tempfile.TemporaryDirectory(prefix="spica-scamp-") as scratch:
        return solve_with_scamp(
            exposures,
            [image.catalogue for image in images],
            stars,
            options,
            None,
            Path(scratch),
            band=band,
            photometry=[image.photometric for image in images],
            known=models,
        )


def solve(job: ImageJob) -> ImageResult:
    """Solve one image and write its `.head` file and its page.

    Raises `CalibrationFailed` (`no_match`, `too_few_matches`, `bad_catalogue`, `bad_wcs`), `ReferenceUnavailable`, and
    what the engine raises.
    """
    profile = profile_named(job.facts.profile, job.profiles_folder)
    placed = _placed(job, profile)
    own = new_image(
        job.facts, job.context, placed.fields, placed.located.wcs, placed.epoch_year, job.catalogue
    )
    near, notes = _neighbours(job, placed.epoch_year)
    images, options = [own, *near], options_of([profile])
    models = {job.context: InstrumentModel.from_json(job.model)} if job.model else {}
    astrometry = solve_by(
        job.engine, images, placed.stars, options, models, profile.photometry.band_for(job.facts.filter)
    )
    n_matched = astrometry.exposures[0].n_external
    if n_matched < _MIN_MATCHED:
        raise CalibrationFailed(
            "too_few_matches",
            f"Only {n_matched} sources could be told to be reference stars; at least {_MIN_MATCHED} are needed. Take a "
            "deeper reference catalogue, or look at the image.",
            {
                "n_matched": n_matched,
                "n_needed": _MIN_MATCHED,
                "n_reference": len(placed.stars),
                "n_sources": sum(len(ccd.sources) for ccd in placed.fields),
            },
        )
    lights = {job.context: Illumination.from_json(job.illumination)} if job.illumination else None
    photometry = calibrate_one(
        0,
        [image.photometric for image in images],
        [image.fields for image in images],
        astrometry,
        placed.stars,
        profile,
        lights,
    )
    calibration = calibration_of(
        images,
        astrometry,
        photometry,
        [own.photometric],
        placed.stars,
        profile,
        options,
        {job.facts.image_id: placed.located},
        models,
    )
    notes = (*notes, *astrometry.notes, *photometry.solution.notes)
    solved = _Solved(placed, images, astrometry, photometry, calibration, notes)
    head = head_photometry(photometry, 0, job.facts.exposure_time_s)
    write_heads(job.head, job.ccd_names, astrometry.exposures[0], head)
    write_page(
        job.page,
        job.facts.name,
        calibration,
        job.reference,
        placed.epoch_year,
        job.engine,
        job.model_version,
        job.facts.header,
        [("context", job.context), *(("with", image.title) for image in near)],
        stack=False,
    )
    return _result(job, solved)


def _placed(job: ImageJob, profile: Profile) -> _Placed:
    """Locate an image, from its header's WCS, else from the pointing alone, over the wider range of its profile.

    A header's WCS may be plausible and wrong all the same.
    """
    tables = read_catalogue(job.catalogue)
    band = profile.photometry.band_for(job.facts.filter)
    epoch = epoch_of(job.facts)
    for rigid in (True, False) if job.has_wcs else (False,):
        pointing = None if rigid else job.facts.pointing
        fields = fields_of(tables, profile, job.ccd_names, job.psf_beta, None, pointing)
        prior = prior_of(profile, fields, rigid=rigid)
        stars = stars_for(
            job.reference,
            job.photometric_reference,
            fields,
            prior.shift_arcsec / 3600.0,
            epoch,
            job.limits,
            band,
        )
        try:
            located = locate(
                fields, stars, band, prior, rigid=rigid, limit_log10=job.limits.false_match_log10
            )
        except NoMatch as error:
            if rigid:
                continue
            raise CalibrationFailed("no_match", error.message, error.numbers) from error
        _check_unfound(fields, located)
        if epoch is None:
            epoch = float(np.median(stars.epoch_year))
        return _Placed(fields, located, stars, epoch, "wcs" if rigid else "pointing")
    raise AssertionError("the last of them raises")


def _check_unfound(fields: Sequence[CcdField], located: Located) -> None:
    """Refuse an exposure with a CCD full of sources that lies nobody knows where: its pixels would go into stacks.

    One without sources has no weight there, and one that its neighbours place well enough is no harm.
    """
    astray = [
        field
        for field, found, radius in zip(fields, located.found, located.radius_arcsec, strict=True)
        if not found
        and radius > _ASTRAY_PX * field.wcs.pixel_scale_arcsec
        and len(field.sources) >= _MIN_SEEN
    ]
    if astray:
        raise CalibrationFailed(
            "no_match",
            f"{len(astray)} of {len(fields)} CCDs do not match the reference stars, and nothing else tells where they lie: "
            f"{', '.join(field.name for field in astray)}. Give the image a WCS, or look at these CCDs.",
            {"n_ccds": len(fields), "n_unfound": len(astray)},
        )


def _neighbours(job: ImageJob, epoch_year: float) -> tuple[list[Taken], tuple[str, ...]]:
    """Images of the context, held; those whose files cannot be used are left out, and told."""
    taken, notes = [], []
    for image in job.neighbours:
        try:
            profile = profile_named(image.facts.profile, job.profiles_folder)
            taken.append(solved_image(image, profile, job.context, epoch_year, held=True))
        except CalibrationFailed as error:
            notes.append(f"{image.facts.name} is left out of the context: {error.message}")
    return taken, tuple(notes)


def head_photometry(photometry: Calibrated, number: int, exposure_time_s: float) -> HeadPhotometry | None:
    """Cards of one exposure's photometry; None where its zero point stands on nothing."""
    if not photometry.is_absolute[number]:
        return None
    return HeadPhotometry(
        photometry.zeropoint_mag[number],
        exposure_time_s,
        photometry.offset_mag[number],
        photometry.solution.internal_mag,
        photometry.solution.exposures[number].is_linked,
    )


def _result(job: ImageJob, solved: _Solved) -> ImageResult:
    placed, astrometry = solved.placed, solved.astrometry
    one, zero = astrometry.exposures[0], solved.photometry.solution.exposures[0]
    found = astrometry.detections
    mine = found.kept & (found.exposure == 0) & (found.star >= 0)
    median = np.median(np.abs(found.external_mas[mine]), axis=0)
    model = astrometry.models.get(job.context) if job.engine == "spica" else None
    light = solved.photometry.solution.illumination.get(job.context)
    mag = zero.mag
    return ImageResult(
        start=placed.start,
        epoch_year=placed.epoch_year,
        n_matched=one.n_external,
        residual_mas=(float(median[0]), float(median[1])),
        rms_mas=one.external_mas,
        distortion_degree=degree_of(placed.fields, one.wcs),
        pixel_scale_arcsec=float(np.median([wcs.pixel_scale_arcsec for wcs in one.wcs])),
        rotation_deg=one.wcs[len(one.wcs) // 2].rotation_deg,
        offset_arcsec=placed.located.offset_arcsec,
        zeropoint_mag=mag,
        zeropoint_sigma_mag=known(zero.sigma_mag),
        n_photometric=zero.n_reference,
        flux_scale=flux_scale(mag, job.facts.exposure_time_s) if mag is not None else None,
        limiting_mag=(
            limiting_mag(mag, job.limiting_flux_adu, job.facts.exposure_time_s)
            if mag is not None and job.limiting_flux_adu
            else None
        ),
        corners=corners_of(placed.fields, one.wcs),
        model=model.to_json() if model is not None else None,
        illumination=light.to_json() if light is not None else None,
        n_context=len(solved.images) - 1,
        n_internal=one.n_internal,
        internal_rms_mas=one.internal_mas if one.n_internal else None,
        chi2_external=known(one.chi2_external),
        chi2_internal=known(one.chi2_internal),
        anchor=zero.anchor,
        notes=solved.notes,
        quality=_quality(solved, (float(median[0]), float(median[1]))),
    )


def _quality(solved: _Solved, residual_mas: tuple[float, float]) -> dict[str, Any]:
    """Numbers for the store."""
    placed, one = solved.placed, solved.astrometry.exposures[0]
    told = figures(solved.calibration, 0)
    return {
        "n_matched": one.n_external,
        "n_reference": len(placed.stars),
        "residual_mas": list(residual_mas),
        "rms_mas": list(one.external_mas),
        "n_internal": one.n_internal,
        "internal_rms_mas": list(one.internal_mas) if one.n_internal else None,
        "chi2_external": known(one.chi2_external),
        "chi2_internal": known(one.chi2_internal),
        "model_error_mas": known(one.model_error_mas),
        "distortion_degree": degree_of(placed.fields, one.wcs),
        "offset_arcsec": placed.located.offset_arcsec,
        "start": placed.start,
        "log10_false_match": placed.located.log10_false,
        "expected_by_chance": placed.located.expected_by_chance,
        "epoch_year": placed.epoch_year,
        "band": solved.photometry.solution.band,
        **anchor_figures(solved.photometry.solution.exposures[0]),
        "n_context": len(solved.images) - 1,
        "notes": list(solved.notes),
        "ccds": told.pop("ccds"),
        "figures": told,
    }
