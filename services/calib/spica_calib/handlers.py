"""Message in, outcome out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from spica_proto.base import Product
from spica_proto.envelope import derived_id
from spica_proto.images import ImageCalibrated, ImageGraded, Reference
from spica_proto.stacks import StackCalibrated, StackPlanned
from spica_runtime.handling import Delivery, Outcome, Transaction
from spica_runtime.service import Platform

from spica_calib import store
from spica_calib.heads import solution_path
from spica_calib.jobs import (
    ImageJob,
    ImageResult,
    JointJob,
    Limits,
    MemberJob,
    calibrate_image,
    calibrate_stack,
)
from spica_calib.reference_file import ReferenceFile, identify
from spica_calib.settings import CalibSettings


class Handlers:
    """The calib service's two answers."""

    def __init__(self, platform: Platform[CalibSettings]) -> None:
        self._pool = platform.pool
        self._data = platform.data
        self._files = platform.files
        self._compute = platform.compute
        self._settings = platform.settings
        self._profiles = platform.platform_settings.profiles
        self._limits = Limits(
            platform.settings.false_match_log10_limit,
            platform.settings.reference_faint_mag,
            platform.settings.max_reference_stars,
        )

    async def image_graded(self, message: ImageGraded, delivery: Delivery) -> Outcome:
        """Calibrate an image that is fit for use, once per measurement and reference catalogue."""
        if message.grade == "D":
            return Outcome(about=message.image_id, summary="grade D: not calibrated")
        reference = await self._reference()
        solution_id = derived_id("solution", message.image_id, message.measurement_id, reference.sha256)
        head = solution_path(self._data, solution_id, message.name, ".head")
        # Its file may have gone with a node that died.
        if await store.solution_exists(self._pool, solution_id) and await asyncio.to_thread(head.is_file):
            return Outcome(
                about=message.image_id, summary=f"measurement already calibrated: solution {solution_id}"
            )
        job = await self._image_job(message, reference, solution_id)
        result = await self._compute.run(calibrate_image, job)
        header, plot = self._data.product(job.head, "header"), self._data.product(job.plot, "plot")
        event = _image_calibrated(message, job, result, solution_id, header, reference)

        async def save(transaction: Transaction) -> None:
            added = await store.add_solution(
                transaction.connection,
                solution_id=solution_id,
                image_id=message.image_id,
                stack_id=None,
                header=header,
                reference=reference,
                zeropoint_mag=result.zeropoint_mag,
                flux_scale=result.flux_scale,
                limiting_mag=result.limiting_mag,
                quality={**result.quality, "measurement_id": message.measurement_id},
            )
            if added:
                transaction.emit(event)

        return Outcome(
            save=save,
            about=message.image_id,
            used=(message.catalogue, _as_product(reference)),
            made=(header, plot),
            configuration={"reference": reference.name, "reference_sha256": reference.sha256},
            summary=f"calibrated: {result.n_matched} stars, rms {result.rms_mas[0]:.0f} and {result.rms_mas[1]:.0f} mas",
        )

    async def stack_planned(self, message: StackPlanned, delivery: Delivery) -> Outcome:
        """Solve a stack's members together, so that they share one sky and one flux scale."""
        state = await store.stack_state(self._pool, message.stack_id)
        if state not in ("planned", "failed"):  # failed here, and sent again
            return Outcome(about=message.stack_id, summary=f"stack is {state} already")
        reference = await self._reference()
        members = await store.members(self._pool, message.stack_id)
        paths = [path for member in members for path in (member.catalogue_path, member.header_path)]
        found = await self._files.locate(paths)
        job = JointJob(
            stack_id=message.stack_id,
            members=tuple(self._member_job(member, message.stack_id, found) for member in members),
            profiles_folder=self._profiles,
            reference=reference,
            limits=self._limits,
        )
        result = await self._compute.run(calibrate_stack, job)
        headers = [self._data.product(member.head, "header") for member in job.members]
        inputs = await store.products_at(self._pool, paths)

        async def save(transaction: Transaction) -> None:
            if not await store.mark_calibrated(transaction.connection, message.stack_id):
                return
            for member, header, zero, scale, faint in zip(
                job.members,
                headers,
                result.zeropoints_mag,
                result.flux_scales,
                result.limiting_mags,
                strict=True,
            ):
                await store.add_solution(
                    transaction.connection,
                    solution_id=member.solution_id,
                    image_id=member.image_id,
                    stack_id=message.stack_id,
                    header=header,
                    reference=reference,
                    zeropoint_mag=zero,
                    flux_scale=scale,
                    limiting_mag=faint,
                    quality=result.quality,
                )
            transaction.emit(
                StackCalibrated(
                    stack_id=message.stack_id,
                    name=message.name,
                    reference=_reference(reference, result.epoch_year),
                    n_members=len(job.members),
                    n_internal_matches=result.n_internal_matches,
                    internal_rms_ra_mas=result.internal_rms_mas[0],
                    internal_rms_dec_mas=result.internal_rms_mas[1],
                    flux_scatter_mag=result.flux_scatter_mag,
                )
            )

        return Outcome(
            save=save,
            about=message.stack_id,
            used=(*inputs, _as_product(reference)),
            made=tuple(headers),
            configuration={"reference": reference.name, "reference_sha256": reference.sha256},
            summary=f"{len(job.members)} members solved together by {result.n_internal_matches} common sources",
        )

    async def _reference(self) -> ReferenceFile:
        # Hashing a large catalogue the first time takes seconds: not on the event loop.
        return await asyncio.to_thread(identify, self._settings.reference)

    async def _image_job(self, message: ImageGraded, reference: ReferenceFile, solution_id: str) -> ImageJob:
        image = await store.image(self._pool, message.image_id)
        return ImageJob(
            name=image.name,
            profile=image.profile,
            profiles_folder=self._profiles,
            filter=image.filter,
            exposure_time_s=image.exposure_time_s,
            mjd_obs=image.mjd_obs,
            pointing=image.pointing,
            has_wcs=image.wcs == "full",
            ccd_names=image.ccd_names,
            psf_beta=await store.psf_betas(self._pool, message.measurement_id),
            catalogue=self._data.path(message.catalogue.path),
            limiting_flux_adu=message.metrics.limiting_flux_adu,
            reference=reference,
            limits=self._limits,
            head=solution_path(self._data, solution_id, image.name, ".head"),
            plot=solution_path(self._data, solution_id, image.name, ".png"),
        )

    def _member_job(self, member: store.MemberRecord, stack_id: str, found: Mapping[str, Path]) -> MemberJob:
        solution_id = derived_id("joint", stack_id, member.image_id)
        return MemberJob(
            image_id=member.image_id,
            name=member.name,
            profile=member.profile,
            filter=member.filter,
            exposure_time_s=member.exposure_time_s,
            mjd_obs=member.mjd_obs,
            header=dict(member.header),
            psf_beta=member.psf_beta,
            catalogue=found[member.catalogue_path],
            own_head=found[member.header_path],
            own_zeropoint_mag=member.zeropoint_mag,
            own_zeropoint_sigma_mag=member.quality.get("zeropoint_sigma_mag"),
            limiting_flux_adu=member.limiting_flux_adu,
            solution_id=solution_id,
            head=solution_path(self._data, solution_id, member.name, ".head"),
        )


def _reference(reference: ReferenceFile, epoch_year: float) -> Reference:
    return Reference(name=reference.name, sha256=reference.sha256, epoch_year=epoch_year)


def _as_product(reference: ReferenceFile) -> Product:
    """The reference catalogue for provenance; it lies outside of the data folder, so by its full path."""
    return Product(
        path=reference.path.absolute().as_posix(),
        sha256=reference.sha256,
        size_bytes=reference.size_bytes,
        kind="reference",
    )


def _image_calibrated(
    message: ImageGraded,
    job: ImageJob,
    result: ImageResult,
    solution_id: str,
    header: Product,
    reference: ReferenceFile,
) -> ImageCalibrated:
    return ImageCalibrated(
        image_id=message.image_id,
        name=message.name,
        filter=job.filter,
        solution_id=solution_id,
        header=header,
        reference=_reference(reference, result.epoch_year),
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
        batch=message.batch,
    )
