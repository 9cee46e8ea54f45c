"""What the service says of its solutions: events, provenance."""

from __future__ import annotations

from typing import Any

from spica_proto.base import Product
from spica_proto.images import ImageCalibrated, Reference
from spica_proto.stacks import StackCalibrated, StackPlanned

from spica_calib.jobs import ImageJob, ImageResult, JointJob, JointResult
from spica_calib.records import known
from spica_calib.reference.area import ReferenceArea
from spica_calib.store import NewSolution, Version
from spica_calib.work import Work


def references_of(job: ImageJob | JointJob) -> tuple[Product, ...]:
    """Files of the reference catalogues for provenance; a file that both of them have is one."""
    areas = [job.reference, *([job.photometric_reference] if job.photometric_reference else [])]
    return tuple({product.path: product for area in areas for product in area.products()}.values())


def configuration(work: Work) -> dict[str, Any]:
    """Of one image's solution, besides the settings."""
    job = work.job
    return {
        "reference": job.reference.name,
        "reference_sha256": job.reference.sha256,
        "photometric_reference": job.photometric_reference.name if job.photometric_reference else None,
        "engine": job.engine,
        "context": job.context,
        "model_version": work.model_version,
        "context_solutions": list(work.near.solution_ids),
    }


def image_calibrated(
    work: Work, result: ImageResult, new: NewSolution, version: Version, page: Product
) -> ImageCalibrated:
    """The event that one image is calibrated."""
    job = work.job
    internal = result.internal_rms_mas or (None, None)
    return ImageCalibrated(
        image_id=job.facts.image_id,
        name=job.facts.name,
        filter=job.facts.filter,
        solution_id=new.solution_id,
        header=new.header,
        reference=_reference(job.reference, result.epoch_year),
        n_matched=result.n_matched,
        residual_ra_mas=result.residual_mas[0],
        residual_dec_mas=result.residual_mas[1],
        rms_ra_mas=result.rms_mas[0],
        rms_dec_mas=result.rms_mas[1],
        distortion_degree=result.distortion_degree,
        pixel_scale_arcsec=result.pixel_scale_arcsec,
        rotation_deg=result.rotation_deg,
        start=result.start,
        offset_arcsec=result.offset_arcsec,
        zeropoint_mag=result.zeropoint_mag,
        zeropoint_sigma_mag=result.zeropoint_sigma_mag,
        n_photometric=result.n_photometric,
        limiting_mag=result.limiting_mag,
        batch=work.batch,
        version=version.number,
        supersedes=version.supersedes,
        reason=version.why,
        engine=job.engine,
        context=job.context,
        model_version=work.model_version,
        n_context=result.n_context,
        n_internal=result.n_internal,
        internal_rms_ra_mas=known(internal[0]),
        internal_rms_dec_mas=known(internal[1]),
        chi2_external=known(result.chi2_external),
        chi2_internal=known(result.chi2_internal),
        anchor=result.anchor,
        report=page,
    )


def stack_calibrated(
    message: StackPlanned, job: JointJob, result: JointResult, page: Product
) -> StackCalibrated:
    """The event that a stack's members are solved together."""
    return StackCalibrated(
        stack_id=message.stack_id,
        name=message.name,
        reference=_reference(job.reference, result.epoch_year),
        n_members=len(job.members),
        n_internal_matches=result.n_internal_matches,
        internal_rms_ra_mas=known(result.internal_rms_mas[0]),
        internal_rms_dec_mas=known(result.internal_rms_mas[1]),
        flux_scatter_mag=known(result.flux_scatter_mag),
        engine=job.engine,
        n_reference=result.n_reference,
        external_rms_ra_mas=known(result.external_rms_mas[0]),
        external_rms_dec_mas=known(result.external_rms_mas[1]),
        chi2_internal=known(result.chi2_internal),
        chi2_external=known(result.chi2_external),
        contexts=tuple(sorted(set(result.contexts))),
        anchors=result.anchors,
        report=page,
    )


def _reference(reference: ReferenceArea, epoch_year: float) -> Reference:
    return Reference(name=reference.name, sha256=reference.sha256, epoch_year=epoch_year)
