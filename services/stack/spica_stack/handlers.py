"""Message in, outcome out: planning a stack, and making it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC
from pathlib import Path
from typing import cast

from spica_proto.images import ImageCalibrated, ImageGraded
from spica_proto.stacks import (
    StackCalibrated,
    StackCoadded,
    StackFailed,
    StackPartWanted,
    StackPlanned,
    StackRequested,
)
from spica_runtime.handling import Delivery, Outcome, Transaction
from spica_runtime.nodes import assign_stack
from spica_runtime.service import Platform

from spica_stack import jobs
from spica_stack.errors import no_joint_solution, unknown_stack
from spica_stack.planning import Choice, choose, lay_out, plan, processing, rules_of, science_grid
from spica_stack.science.combine import Clipping, Method
from spica_stack.science.header import ZEROPOINT_MAG, Label
from spica_stack.settings import StackSettings
from spica_stack.store import MemberRow, Stack, Store, insert_members, insert_stack, set_coadded, set_failed


class Handlers:
    """What the stack service answers."""

    def __init__(self, platform: Platform[StackSettings], store: Store) -> None:
        self._platform, self._store, self._settings = platform, store, platform.settings

    # ---- stack.requested ----

    async def requested(self, message: StackRequested, delivery: Delivery) -> Outcome:
        """Choose the members and fix the output grid. The same request_id twice is one stack."""
        request_id = message.request_id or delivery.event_id
        if known := await self._store.stack_of_request(request_id):
            return Outcome(about=known.stack_id, summary=f"known: {known.name} is {known.state}")
        rules = rules_of(message.selection)
        rows = await self._store.candidates(rules)
        choice = choose(rules, [row.candidate for row in rows], message.min_exposures)
        heads = {row.candidate.image_id: row.header_path for row in rows}
        grid = lay_out(message, await self._footprints(choice, heads), self._settings)
        planned = plan(message, request_id, choice, grid, self._settings)

        async def save(transaction: Transaction) -> None:
            if await insert_stack(transaction.connection, planned, message, delivery.time):
                await insert_members(transaction.connection, planned.stack_id, choice.verdicts)
                await assign_stack(
                    transaction.connection,
                    self._platform.node,
                    self._platform.platform_settings,
                    planned.stack_id,
                )
                transaction.emit(planned)

        used = await self._store.products_at([heads[image_id] or "" for image_id in planned.image_ids])
        return Outcome(
            save=save,
            about=planned.stack_id,
            used=used,
            configuration={"request": message.model_dump(mode="json", exclude_none=True)},
            summary=_planned_summary(planned),
        )

    async def _footprints(self, choice: Choice, heads: dict[str, str | None]) -> list[jobs.Footprint]:
        ids = [member.image_id for member in choice.members]
        sizes = await self._store.ccds_of(ids)
        paths = {image_id: heads[image_id] or "" for image_id in ids}
        found = await self._platform.files.locate(list(paths.values()))
        return await self._platform.compute.run(
            jobs.footprints, [(image_id, found[paths[image_id]], sizes[image_id]) for image_id in ids]
        )

    # ---- stack.calibrated ----

    async def calibrated(self, message: StackCalibrated, delivery: Delivery) -> Outcome:
        """Resample and combine the members."""
        stack = await self._store.stack(message.stack_id)
        if stack is None:
            raise unknown_stack(message.stack_id)
        members = await self._store.members(message.stack_id)
        found = await self._platform.files.locate([path for row in members for path in _paths_of(row)])
        order = self._order(stack, members, message, found)
        result = await self._platform.compute.run(jobs.coadd_stack, order)
        coadded = StackCoadded(
            stack_id=stack.stack_id,
            name=stack.name,
            filter=stack.filter,
            image=result.image,
            weight=result.weight,
            n_exposures=result.n_exposures,
            exposure_time_s=result.exposure_time_s,
            zeropoint_mag=ZEROPOINT_MAG,
            rejected_pixels=result.rejected,
        )

        async def save(transaction: Transaction) -> None:
            await set_coadded(transaction.connection, stack.stack_id, _result(coadded, result))

        paths = [path for row in members for path in (row.weight_path, row.header_path) if path]
        return Outcome(
            events=(coadded,),
            save=save,
            about=stack.stack_id,
            used=(*(row.image for row in members), *await self._store.products_at(paths)),
            made=(result.image, result.weight, result.exposures),
            configuration=processing(self._settings),
            summary=f"{result.n_exposures} exposures, {result.exposure_time_s:g} s",
            log=result.log,
        )

    # ---- stack.failed ----

    async def failed(self, message: StackFailed, delivery: Delivery) -> Outcome:
        """Whichever stage gave up: the stack's state says so."""
        stack_id = message.stack_id
        if stack_id is None:
            return Outcome(summary="no stack was planned")

        async def save(transaction: Transaction) -> None:
            failure = message.model_dump(mode="json", include={"stage", "code", "message", "dead_letter_id"})
            await set_failed(transaction.connection, stack_id, failure)

        return Outcome(save=save, about=stack_id, summary=f"failed in {message.stage}: {message.code}")

    # ---- image.calibrated, image.graded ----

    async def calibrated_image(self, message: ImageCalibrated, delivery: Delivery) -> Outcome:
        """A new solution of an image."""
        return Outcome(about=message.image_id, summary="no standing survey")

    async def graded_image(self, message: ImageGraded, delivery: Delivery) -> Outcome:
        """A new grade of an image."""
        return Outcome(about=message.image_id, summary="no standing survey")

    # ---- stack.part_wanted ----

    async def part(self, message: StackPartWanted, delivery: Delivery) -> Outcome:
        """Do one unit of the work on a stack."""
        raise unknown_stack(message.stack_id)

    def _order(
        self,
        stack: Stack,
        members: Sequence[MemberRow],
        message: StackCalibrated,
        found: Mapping[str, Path],
    ) -> jobs.CoaddOrder:
        usable = tuple(files for row in members if (files := _files(row, found)) is not None)
        if not usable:
            raise no_joint_solution({row.image_id for row in members} or {"none"}, len(members))
        grid, settings = science_grid(stack.grid), self._settings
        fwhm_px = [row.fwhm_arcsec / grid.scale_arcsec for row in members if row.fwhm_arcsec]
        half_disc = round(0.5 * max(fwhm_px, default=4.0))
        return jobs.CoaddOrder(
            data=self._platform.data,
            folder=f"stacks/{stack.stack_id}",
            name=stack.name,
            grid=grid,
            combine=cast(Method, stack.combine),
            clipping=Clipping(
                n_sigma=settings.clip_sigma,
                n_sigma_grown=settings.clip_sigma_grown,
                flux_share=settings.clip_flux_share,
                # At least 2: the flank of an undersampled star falls from its core within two pixels.
                radius_px=min(max(half_disc, 2), 8),
            ),
            members=usable,
            label=_label(stack, members, usable, message),
            profiles=self._platform.platform_settings.profiles,
            background_mesh_px=settings.background_mesh_px,
            memory_bytes=settings.memory_mb * 1_000_000,
            tile_memory_bytes=settings.tile_memory_mb * 1_000_000,
            psf_weight_power=settings.psf_weight_power,
        )


def _paths_of(row: MemberRow) -> tuple[str, ...]:
    """Files of a member, in the data folder of whichever node holds it; none where one is missing."""
    if row.header_path is None or row.weight_path is None:
        return ()
    return row.image.path, row.weight_path, row.header_path


def _files(row: MemberRow, found: Mapping[str, Path]) -> jobs.MemberFiles | None:
    """Where a member's files are; None where it has no joint solution or no weight map."""
    if not (paths := _paths_of(row)):
        return None
    image, weight, head = (found[path] for path in paths)
    return jobs.MemberFiles(
        image_id=row.image_id,
        image=image,
        profile=row.profile,
        weight=weight,
        head=head,
        flux_scale=row.flux_scale,
        exposure_time_s=row.exposure_time_s,
        mjd_obs=row.mjd_obs,
        fwhm_arcsec=row.fwhm_arcsec,
        ellipticity=row.ellipticity,
    )


def _label(
    stack: Stack, members: Sequence[MemberRow], usable: Sequence[jobs.MemberFiles], message: StackCalibrated
) -> Label:
    objects = sorted({row.object for row in members if row.object})
    return Label(
        stack_id=stack.stack_id,
        request_id=stack.request_id,
        name=stack.name,
        filter=stack.filter,
        object=objects[0] if len(objects) == 1 else stack.name,
        instrument="+".join(sorted({row.instrument for row in members})),
        combine=stack.combine,
        date=stack.requested_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        inputs=tuple(files.image.name for files in usable),
        reference=message.reference.name,
        software=jobs.software_version(),
    )


def _planned_summary(planned: StackPlanned) -> str:
    grid = planned.grid
    return (
        f"{planned.name}: {len(planned.image_ids)} exposures, {planned.n_left_out} left out, "
        f"{grid.width_px} x {grid.height_px} px"
    )


def _result(coadded: StackCoadded, result: jobs.CoaddResult) -> dict[str, object]:
    """What stays in the store of making a stack."""
    return {
        "coadd": {
            **coadded.model_dump(mode="json", include={"image", "weight", "n_exposures", "exposure_time_s"}),
            "zeropoint_mag": coadded.zeropoint_mag,
            "exposures": result.exposures.model_dump(mode="json"),
            "rejected_pixels": result.rejected,
            "left_out": list(result.left_out),
        }
    }
