"""Message in, outcome out: measuring and grading images and stacks."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from typing import cast

from spica_proto.base import Grade, Message
from spica_proto.envelope import derived_id
from spica_proto.images import ImageGraded, ImageVerified
from spica_proto.stacks import StackCoadded, StackDone
from spica_proto.subjects import BY_MODEL
from spica_runtime.handling import Delivery, Outcome, Transaction
from spica_runtime.provenance import CODE_VERSION
from spica_runtime.service import Platform

from spica_quality import jobs
from spica_quality.awaiting import Settled, settle
from spica_quality.errors import unknown_stack
from spica_quality.reference import identify, reference_path, why_none
from spica_quality.science.policy.policies import Policies
from spica_quality.settings import QualitySettings
from spica_quality.store import (
    Kind,
    MeasurementRow,
    Store,
    insert_grade,
    insert_measurement,
    insert_verdicts,
    replace_sources,
    set_done,
)


class Handlers:
    """What the quality service answers."""

    def __init__(self, platform: Platform[QualitySettings], store: Store, policies: Policies) -> None:
        self._platform, self._store, self._policies = platform, store, policies
        settings = platform.settings
        self._tuning = jobs.Tuning.of(settings)
        self._reference = reference_path(settings)
        # Each worker process takes its share of the cores.
        self._threads = max(1, (os.cpu_count() or 1) // settings.workers)

    # ---- image.verified ----

    async def verified(self, message: ImageVerified, delivery: Delivery) -> Outcome:
        """Measure and grade an image."""
        # Before the work, and with it: what was compared stands in the provenance.
        run = await self._store.run_statistics(
            message.image_id,
            run=message.run,
            filter=message.filter,
            profile=message.profile,
            exposure_time_s=message.exposure_time_s,
            figures=self._policies.run_figures(),
        )
        settled = await self._auxiliaries(message.image_id)
        reference = await asyncio.to_thread(identify, self._reference)
        order = jobs.order_of(
            message,
            data=self._platform.data,
            profiles=self._platform.platform_settings.profiles,
            policies=self._policies,
            tuning=self._tuning,
            reference=reference,
            why_no_reference=why_none(self._reference),
            threads=self._threads,
            run=run,
            auxiliaries=settled.files,
        )
        found = await self._platform.compute.run(jobs.measure_image, order)
        weight = found.weight
        assert weight is not None
        measurement_id = self._measurement_id(message.image_id, found)
        graded = ImageGraded(
            image_id=message.image_id,
            name=message.name,
            grade=cast(Grade, found.grade),
            graded_by=self._policies.default.label,
            reasons=found.reasons,
            measurement_id=measurement_id,
            metrics=found.metrics,
            catalogue=found.catalogue,
            weight=weight,
            preview=found.preview,
            flag_map=found.flag_map,
            psf_model=found.psf_model,
            report=found.report,
            products=found.products,
            verdicts=found.verdicts,
            batch=message.batch,
        )

        async def save(transaction: Transaction) -> None:
            await self._save(transaction, delivery, graded, "image", message.image_id, found, weight.path)

        return Outcome(
            events=(graded,),
            save=save,
            about=message.image_id,
            used=(message.file, *found.used),
            made=found.made,
            configuration=self._configuration() | {"run": run.plain()},
            summary=_summary(found),
            log=(*(reason.message for reason in found.reasons), *settled.notes, *found.notes),
        )

    async def _auxiliaries(self, image_id: str) -> Settled:
        """The master flat and mask of an image; raises `Unavailable` while ingest is fetching one."""
        named = await self._store.auxiliaries(image_id)
        wait_s = self._platform.settings.auxiliary_wait_s
        return await asyncio.to_thread(settle, named, self._platform.data, datetime.now(UTC), wait_s)

    # ---- stack.coadded ----

    async def coadded(self, message: StackCoadded, delivery: Delivery) -> Outcome:
        """Measure and grade a stack: then it is done."""
        stack = await self._store.stack(message.stack_id)
        if stack is None:
            raise unknown_stack(message.stack_id)
        order = jobs.StackOrder(
            data=self._platform.data,
            stack_id=message.stack_id,
            name=message.name,
            image=message.image.path,
            weight=message.weight.path,
            profile=stack.profile,
            zeropoint_mag=message.zeropoint_mag,
            label=(
                f"stack of {message.n_exposures} exposures",
                f"filter {message.filter}",
                f"{message.exposure_time_s:g} s",
            ),
            policies=self._policies,
            tuning=self._tuning,
            tile_px=self._platform.settings.stack_tile_px,
            filter=message.filter,
            reference=await asyncio.to_thread(identify, self._reference),
            why_no_reference=why_none(self._reference),
        )
        found = await self._platform.compute.run(jobs.measure_stack, order)
        done = StackDone(
            stack_id=message.stack_id,
            request_id=stack.request_id,
            name=message.name,
            filter=message.filter,
            image=message.image,
            weight=message.weight,
            catalogue=found.catalogue,
            preview=found.preview,
            n_exposures=message.n_exposures,
            exposure_time_s=message.exposure_time_s,
            zeropoint_mag=message.zeropoint_mag,
            grade=cast(Grade, found.grade),
            graded_by=self._policies.default.label,
            reasons=found.reasons,
            metrics=found.metrics,
            psf_model=found.psf_model,
            report=found.report,
            products=found.products,
            verdicts=found.verdicts,
        )

        async def save(transaction: Transaction) -> None:
            await self._save(
                transaction, delivery, done, "stack", message.stack_id, found, message.weight.path
            )
            await replace_sources(transaction.connection, message.stack_id, found.sources)
            result = done.model_dump(mode="json", exclude={"stack_id", "request_id", "name", "filter"})
            await set_done(transaction.connection, message.stack_id, {"done": result})

        return Outcome(
            events=(done,),
            save=save,
            about=message.stack_id,
            used=(message.image, message.weight, *found.used),
            made=found.made,
            configuration=self._configuration(),
            summary=_summary(found),
            log=(*(reason.message for reason in found.reasons), *found.notes),
        )

    # ---- both ----

    def _measurement_id(self, subject_id: str, found: jobs.Assessment) -> str:
        """The same pixels measured by the same code are one measurement.

        So that its rows and its files are of one making, what they depend on is part of it: the settings; the default
        policy, since CCDs that it leaves out have weight 0 in the weight map; and the master flat and mask and the
        reference catalogue that were used.
        """
        settings = (repr(self._tuning), str(self._platform.settings.stack_tile_px))
        used = (product.sha256 for product in found.used)
        default = self._policies.default.label
        return derived_id("measurement", subject_id, CODE_VERSION, default, *settings, *used)

    def _configuration(self) -> dict[str, object]:
        return {"policies": [policy.model_dump(mode="json", exclude_none=True) for policy in self._policies]}

    async def _save(
        self,
        transaction: Transaction,
        delivery: Delivery,
        event: Message,
        kind: Kind,
        subject_id: str,
        found: jobs.Assessment,
        weight_path: str,
    ) -> None:
        measurement_id = self._measurement_id(subject_id, found)
        row = MeasurementRow(
            measurement_id=measurement_id,
            kind=kind,
            subject_id=subject_id,
            metrics=found.metrics,
            figures=found.figures,
            per_ccd=found.per_ccd,
            catalogue_path=found.catalogue.path,
            weight_path=weight_path,
            preview_path=found.preview.path,
            products={product.kind: product.path for product in found.made},
        )
        await insert_measurement(transaction.connection, row)
        await insert_verdicts(transaction.connection, delivery.event_id, measurement_id, found.verdicts)
        # The grade bears the id of the event that carries it, as the dispatcher derives it.
        subject = BY_MODEL[type(event)].name
        await insert_grade(
            transaction.connection,
            grade_id=derived_id(self._platform.name, delivery.event_id, subject, 0),
            kind=kind,
            subject_id=subject_id,
            grade=found.grade,
            graded_by=self._policies.default.label,
            reasons=found.reasons,
            measurement_id=measurement_id,
        )


def _summary(found: jobs.Assessment) -> str:
    metrics = found.metrics
    size = f"FWHM {metrics.fwhm_arcsec:.2f}″" if metrics.fwhm_arcsec is not None else "no FWHM"
    return f"grade {found.grade}: {size}, {metrics.n_stars} stars, {metrics.n_sources} sources"
