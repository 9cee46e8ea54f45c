"""Message in, outcome out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from spica_proto.base import Product
from spica_proto.envelope import derived_id
from spica_proto.images import ImageCalibrationRequested, ImageGraded
from spica_proto.stacks import StackPlanned
from spica_runtime.handling import Delivery, Outcome, Transaction
from spica_runtime.service import Platform

from spica_calib import context, memory, ownwork, store, telling
from spica_calib.cones import cone_of_stack, cones_of_image
from spica_calib.heads import solution_path
from spica_calib.jobs import Engine, ImageJob, JointJob, Limits, MemberJob, calibrate_image, calibrate_stack
from spica_calib.records import Measured, SolvedRecord, context_of, place_of_corners
from spica_calib.settings import CalibSettings
from spica_calib.sky import Sky, SkyArea
from spica_calib.work import Work, profile_named, solution_id_of


class Handlers:
    """The calib service's three answers."""

    def __init__(self, platform: Platform[CalibSettings]) -> None:
        self._pool = platform.pool
        self._data = platform.data
        self._files = platform.files
        self._compute = platform.compute
        self._settings = platform.settings
        self._profiles = platform.platform_settings.profiles
        self._sky = Sky(platform.settings, platform.data.root)
        self._limits = Limits(
            platform.settings.false_match_log10_limit,
            platform.settings.reference_faint_mag,
            platform.settings.max_reference_stars,
        )

    # ---- image.graded, image.calibration_requested ----

    async def image_graded(self, message: ImageGraded, delivery: Delivery) -> Outcome:
        """Calibrate an image that is fit for use, once per measurement, reference catalogue and engine."""
        if message.grade == "D":
            return Outcome(about=message.image_id, summary="grade D: not calibrated")
        image = await store.image(self._pool, message.image_id)
        sky = await self._sky_of(image)
        known = await store.solved(
            self._pool, message.image_id, message.measurement_id, sky.reference.sha256, self._settings.engine
        )
        # Its file may have gone with a node that died.
        if known is not None and await asyncio.to_thread(self._data.path(known.header_path).is_file):
            return Outcome(
                about=message.image_id,
                summary=f"measurement already calibrated: solution {known.solution_id}",
            )
        if known is None and await store.overtaken(self._pool, message.image_id, message.measurement_id):
            return Outcome(about=message.image_id, summary="measured anew since: that one counts")
        measured = await store.measurement(self._pool, message.image_id, message.measurement_id)
        measured = replace(measured, catalogue_path=message.catalogue.path)
        work = await self._work(image, measured, sky, known)
        return await self._calibrate(
            replace(work, batch=message.batch or work.batch), sky, (message.catalogue,), None
        )

    async def calibration_requested(self, message: ImageCalibrationRequested, delivery: Delivery) -> Outcome:
        """Calibrate an image again, with what its run has taught since."""
        image = await store.image(self._pool, message.image_id)
        measured = await store.measurement(self._pool, message.image_id)
        sky = await self._sky_of(image)
        work = await self._work(image, measured, sky, None)
        if await store.solution_exists(self._pool, work.solution_id):
            return Outcome(about=message.image_id, summary=f"nothing new: solution {work.solution_id}")
        catalogue = await store.products_at(self._pool, [measured.catalogue_path])
        return await self._calibrate(work, sky, catalogue, message.reason)

    async def _work(
        self,
        image: store.ImageRecord,
        measured: Measured,
        sky: SkyArea,
        again: store.KnownSolution | None,
    ) -> Work:
        """What an image is solved from: the run's memory and its neighbours as they are now, or as they were (`again`)."""
        facts = image.facts
        profile = profile_named(facts.profile, self._profiles)
        key = context_of(profile, facts.header)
        model = await self._model(key, again)
        near = await context.neighbours(
            self._pool,
            self._files,
            image,
            profile,
            key,
            sky.reference,
            self._settings.context_images,
            again.context_solutions if again else None,
        )
        version, engine = (model.version if model else 0), self._settings.engine
        solution_id = solution_id_of(
            image_id=facts.image_id,
            measurement_id=measured.measurement_id,
            references=sky.hashes,
            engine=engine,
            context=key,
            model_version=version,
            context_solutions=near.solution_ids,
            profile=profile,
            limits=self._limits,
        )
        solution_id = await store.id_to_count(self._pool, solution_id)
        job = ImageJob(
            facts=facts,
            profiles_folder=self._profiles,
            has_wcs=image.has_wcs,
            ccd_names=image.ccd_names,
            psf_beta=measured.psf_beta,
            catalogue=self._data.path(measured.catalogue_path),
            limiting_flux_adu=measured.limiting_flux_adu,
            reference=sky.reference,
            photometric_reference=sky.magnitudes,
            limits=self._limits,
            context=key,
            model=model.json if model else None,
            illumination=model.illumination if model else None,
            neighbours=near.images,
            model_version=version,
            engine=engine,
            head=solution_path(self._data, solution_id, facts.name, ".head"),
            page=solution_path(self._data, solution_id, facts.name, ".html"),
        )
        return Work(job, solution_id, measured.measurement_id, version, near, image.batch)

    async def _model(self, key: str, again: store.KnownSolution | None) -> store.Model | None:
        if not self._settings.memory or self._settings.engine != "spica":
            return None
        if again is not None and again.model_version is not None:
            return await store.model(self._pool, key, again.model_version)
        return await store.newest_model(self._pool, key)

    async def _calibrate(
        self, work: Work, sky: SkyArea, catalogue: tuple[Product, ...], why: str | None
    ) -> Outcome:
        job, result = await self._sky.run(self._compute, calibrate_image, work.job, sky.cones)
        header, page = self._data.product(job.head, "header"), self._data.product(job.page, "report")
        picture = self._data.product(job.page.with_suffix(".png"), "plot")
        helpers = await store.products_at(self._pool, work.near.paths)
        new = store.NewSolution(
            solution_id=work.solution_id,
            image_id=job.facts.image_id,
            stack_id=None,
            header=header,
            reference=sky.reference,
            zeropoint_mag=result.zeropoint_mag,
            flux_scale=result.flux_scale,
            limiting_mag=result.limiting_mag,
            quality={**result.quality, "measurement_id": work.measurement_id},
            engine=job.engine,
            place=place_of_corners(result.corners),
            measurement_id=work.measurement_id,
            context=job.context,
            model_version=work.model_version,
            context_solutions=work.near.solution_ids,
        )

        async def save(transaction: Transaction) -> None:
            connection = transaction.connection
            await store.turn(connection, "image", new.image_id)
            if why is None and await self._solved_meanwhile(transaction, new):
                return
            if await store.overtaken(connection, new.image_id, work.measurement_id):
                transaction.note("measured anew meanwhile: that one counts")
                return
            version = await store.add_version(connection, new, why)
            if version is None:
                return
            # What is not fit for use may be solved for who asks, but teaches nothing.
            teaches = self._settings.memory and not await store.is_unfit(connection, new.image_id)
            if result.model is not None and teaches:
                lesson = memory.Lesson(result.model, result.illumination)
                await memory.keep(transaction, lesson, work.model_version, new.solution_id, new.image_id)
            transaction.emit(telling.image_calibrated(work, result, new, version, page))

        return Outcome(
            save=save,
            about=job.facts.image_id,
            used=(*catalogue, *helpers, *telling.references_of(job)),
            made=(header, page, picture),
            configuration=telling.configuration(work),
            summary=f"calibrated: {result.n_matched} stars, rms {result.rms_mas[0]:.0f} and {result.rms_mas[1]:.0f} mas",
            log=(*work.near.notes, *result.notes),
        )

    async def _solved_meanwhile(self, transaction: Transaction, new: store.NewSolution) -> bool:
        """Whether another message about the same measurement was quicker."""
        known = await store.solved(
            transaction.connection,
            new.image_id,
            new.measurement_id or "",
            new.reference.sha256,
            new.engine,
        )
        if known is None or not await asyncio.to_thread(self._data.path(known.header_path).is_file):
            return False
        if known.solution_id != new.solution_id:
            transaction.note(f"calibrated meanwhile: solution {known.solution_id} counts")
        return True

    # ---- stack.planned ----

    async def stack_planned(self, message: StackPlanned, delivery: Delivery) -> Outcome:
        """Solve a stack's members together, so that they share one sky and one flux scale."""
        state, wanted = await store.stack_state(self._pool, message.stack_id)
        if state not in ("planned", "failed"):  # failed here, and sent again
            return Outcome(about=message.stack_id, summary=f"stack is {state} already")
        if message.solutions == "own":
            return await self._own(message)
        engine = cast(Engine, wanted or self._settings.engine)
        members = await store.members(self._pool, message.stack_id)
        sky = await self._sky_of_stack(members)
        paths = [path for member in members for path in member.paths]
        found = await self._files.locate(paths)
        models = await self._models(members, message.stack_id, engine)
        job = JointJob(
            stack_id=message.stack_id,
            name=message.name,
            members=tuple(self._member_job(member, message.stack_id, found) for member in members),
            profiles_folder=self._profiles,
            reference=sky.reference,
            photometric_reference=sky.magnitudes,
            limits=self._limits,
            models={key: model.json for key, model in models.items()},
            illuminations={key: model.illumination for key, model in models.items() if model.illumination},
            engine=engine,
            page=solution_path(self._data, derived_id("joint", message.stack_id), message.name, ".html"),
        )
        job, result = await self._sky.run(self._compute, calibrate_stack, job, sky.cones)
        headers = [self._data.product(member.head, "header") for member in job.members]
        page = self._data.product(job.page, "report")
        picture = self._data.product(job.page.with_suffix(".png"), "plot")
        inputs = await store.products_at(self._pool, paths)
        new = [
            store.NewSolution(
                solution_id=member.solution_id,
                image_id=member.image.facts.image_id,
                stack_id=message.stack_id,
                header=header,
                reference=sky.reference,
                zeropoint_mag=zero,
                flux_scale=scale,
                limiting_mag=faint,
                quality=quality,
                engine=engine,
                place=place_of_corners(corners),
                measurement_id=record.measured.measurement_id,
                context=key,
                model_version=models[key].version if key in models else 0,
            )
            for record, member, header, zero, scale, faint, quality, corners, key in zip(
                members,
                job.members,
                headers,
                result.zeropoints_mag,
                result.flux_scales,
                result.limiting_mags,
                result.quality,
                result.corners,
                result.contexts,
                strict=True,
            )
        ]

        async def save(transaction: Transaction) -> None:
            if not await store.mark_calibrated(transaction.connection, message.stack_id):
                return
            for solution in new:
                await store.add_joint(transaction.connection, solution)
            transaction.emit(telling.stack_calibrated(message, job, result, page))

        return Outcome(
            save=save,
            about=message.stack_id,
            used=(*inputs, *telling.references_of(job)),
            made=(*headers, page, picture),
            configuration={
                "reference": sky.reference.name,
                "reference_sha256": sky.reference.sha256,
                "engine": engine,
                "models": {key: model.version for key, model in sorted(models.items())},
            },
            summary=f"{len(job.members)} members solved together by {result.n_internal_matches} common sources",
            log=result.notes,
        )

    async def _own(self, message: StackPlanned) -> Outcome:
        """Take the members with the solutions that they have."""
        stack_id = message.stack_id
        members = await store.own_members(self._pool, stack_id)
        ownwork.check(stack_id, members)
        entries, event = ownwork.entries(stack_id, members), ownwork.calibrated(message, members)
        headers = await store.products_at(self._pool, [member.header_path or "" for member in members])

        async def save(transaction: Transaction) -> None:
            if await store.mark_calibrated(transaction.connection, stack_id):
                await store.enter_own(transaction.connection, stack_id, entries)
                transaction.emit(event)

        return Outcome(
            save=save,
            about=stack_id,
            used=headers,
            configuration={"solutions": "own"},
            summary=f"{len(members)} members with the solutions that they have",
        )

    async def _models(
        self, members: list[SolvedRecord], stack_id: str, engine: str
    ) -> dict[str, store.Model]:
        if not self._settings.memory or engine != "spica":
            return {}
        keys = {
            context_of(profile_named(record.facts.profile, self._profiles), record.facts.header)
            for record in members
        }
        return await store.models_at_planning(self._pool, sorted(keys), stack_id)

    def _member_job(self, member: SolvedRecord, stack_id: str, found: Mapping[str, Path]) -> MemberJob:
        solution_id = derived_id("joint", stack_id, member.facts.image_id)
        return MemberJob(
            member.found_at(found),
            solution_id,
            solution_path(self._data, solution_id, member.facts.name, ".head"),
        )

    # ---- reference stars ----

    async def _sky_of(self, image: store.ImageRecord) -> SkyArea:
        profile = profile_named(image.facts.profile, self._profiles)
        return await self._sky.area_of(cones_of_image(image, profile))

    async def _sky_of_stack(self, members: Sequence[SolvedRecord]) -> SkyArea:
        places = [place_of_corners(member.corners) for member in members if member.corners]
        cones = [cone_of_stack(places)] if places else []
        for member in members:
            if not member.corners:  # solved before corners were kept
                image = await store.image(self._pool, member.facts.image_id)
                cones += cones_of_image(image, profile_named(image.facts.profile, self._profiles))
        return await self._sky.area_of(cones)

    async def close(self) -> None:
        """Close connections to services of reference catalogues."""
        await self._sky.close()
