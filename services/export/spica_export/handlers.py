"""Message in, outcome out: delivering a finished stack."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC
from pathlib import Path

from spica_proto.base import Product
from spica_proto.stacks import StackDone, StackExported
from spica_runtime.handling import Delivery, Outcome, Transaction
from spica_runtime.service import Platform
from spica_runtime.storage import DataFolder

from spica_export import jobs
from spica_export.errors import unknown_stack
from spica_export.science.dossier import Dossier
from spica_export.science.naming import NameParts, band, clean, names_of, product_name, radec_token
from spica_export.settings import ExportSettings
from spica_export.store import Stack, Store, set_exported


class Handlers:
    """What the export service answers."""

    def __init__(self, platform: Platform[ExportSettings], store: Store) -> None:
        self._platform, self._store, self._settings = platform, store, platform.settings

    @property
    def _destination(self) -> Path:
        return destination(self._settings, self._platform.data)

    async def done(self, message: StackDone, delivery: Delivery) -> Outcome:
        """Write XML and checksums, deliver all files, and tell it only after reading them back."""
        stack = await self._store.stack(message.stack_id)
        if stack is None:
            raise unknown_stack(message.stack_id)
        dossier = await self._dossier(stack, message)
        products = _products(stack, message)
        result = await self._platform.compute.run(
            jobs.export_stack,
            jobs.ExportOrder(
                data=self._platform.data,
                folder=f"stacks/{stack.stack_id}",
                destination=self._destination,
                stack_id=stack.stack_id,
                names=_names(self._settings.name_template, _name_parts(stack, message, dossier), stack),
                products=products,
                dossier=dossier,
            ),
        )
        exported = StackExported(
            stack_id=stack.stack_id,
            request_id=stack.request_id,
            name=stack.name,
            destination=result.destination,
            files=result.receipts,
        )

        async def save(transaction: Transaction) -> None:
            receipt = exported.model_dump(mode="json", include={"destination", "files"})
            await set_exported(transaction.connection, stack.stack_id, {"export": receipt})

        return Outcome(
            events=(exported,),
            save=save,
            about=stack.stack_id,
            used=products,
            made=result.made,
            configuration={"destination": str(self._destination)},
            summary=f"{len(result.receipts)} files delivered to {result.destination}",
        )

    async def _dossier(self, stack: Stack, message: StackDone) -> Dossier:
        return Dossier(
            stack_id=stack.stack_id,
            request_id=stack.request_id,
            name=stack.name,
            filter=stack.filter,
            combine=stack.combine,
            requested_at=stack.requested_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
            grade=message.grade,
            graded_by=message.graded_by,
            reasons="; ".join(reason.message for reason in message.reasons),
            n_exposures=message.n_exposures,
            exposure_time_s=message.exposure_time_s,
            zeropoint_mag=message.zeropoint_mag,
            request=json.dumps(stack.request, sort_keys=True),
            grid=stack.grid.model_dump(),
            metrics=message.metrics.model_dump(exclude_none=True),
            inputs=await self._store.inputs(stack.stack_id),
            left_out=await self._store.left_out(stack.stack_id),
            steps=await self._store.steps(stack.stack_id),
        )


def _products(stack: Stack, message: StackDone) -> tuple[Product, ...]:
    """The stack's files, under the kinds that name them; the exposure map, where there is one."""
    files = {name: getattr(message, name) for name in ("image", "weight", "catalogue", "preview")}
    if exposures := stack.result.get("coadd", {}).get("exposures"):
        files["exposures"] = Product.model_validate(exposures)
    return tuple(product.model_copy(update={"kind": kind}) for kind, product in files.items())


def destination(settings: ExportSettings, data: DataFolder) -> Path:
    """Where products are delivered to."""
    return (settings.destination or data.root / "delivered").absolute()


def _names(template: str, parts: NameParts, stack: Stack) -> tuple[str, ...]:
    """Names the product may have, the best first. One that an earlier stack would have is none of them."""
    names = names_of(stack.name, stack.stack_id)
    free = names[1:] if clean(stack.name) in map(clean, stack.earlier_names) else names
    return tuple(dict.fromkeys(product_name(template, replace(parts, name=name)) for name in free))


def _name_parts(stack: Stack, message: StackDone, dossier: Dossier) -> NameParts:
    objects = {row.object for row in dossier.inputs if row.object}
    return NameParts(
        name=stack.name,
        stack_id=stack.stack_id,
        filter=clean(stack.filter),
        band=band(stack.filter),
        object=clean(objects.pop()) if len(objects) == 1 else "FIELD",
        radec=radec_token(stack.grid.crval_ra_deg, stack.grid.crval_dec_deg),
        grade=message.grade,
        n_exposures=message.n_exposures,
        date=stack.requested_at.astimezone(UTC).strftime("%Y%m%d"),
    )
