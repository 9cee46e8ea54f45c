"""Stand-ins for the five stages, for tests of what is around them: quick, real events, real rows, no science.

A file called `bad…` is rejected, `blurred…` gets a D and is not calibrated, `broken…` makes quality fail.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from spica_proto import examples
from spica_proto.base import Product, Reason
from spica_proto.images import (
    ImageArrived,
    ImageCalibrated,
    ImageGraded,
    ImageRejected,
    ImageVerified,
)
from spica_proto.stacks import (
    Receipt,
    StackCalibrated,
    StackCoadded,
    StackDone,
    StackExported,
    StackPlanned,
    StackRequested,
)
from spica_runtime.errors import NotRetriable
from spica_runtime.handling import Delivery, Outcome, Transaction
from spica_runtime.service import Platform, Service
from spica_runtime.settings import ServiceSettings
from spica_runtime.storage import DataFolder, sha256_of, whole_file

from tests.support.rig import Rig

QUICK = ServiceSettings(retry_delays_s=(0.05,), max_attempts=2, shutdown_grace_s=5)


def png(width: int = 96, height: int = 72) -> bytes:
    """A picture of a few stars on a dark ground."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def value(x: int, y: int) -> int:
        near = min((x - u) ** 2 + (y - v) ** 2 for u, v in ((20, 20), (70, 15), (48, 50), (80, 60), (15, 58)))
        return min(255, 18 + 900 // (4 + near))

    rows = b"".join(b"\x00" + bytes(value(x, y) for x in range(width)) for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@dataclass
class Stages:
    """Handlers of all stages over one data folder."""

    data: DataFolder

    def write(self, relative: str, content: bytes, kind: str) -> Product:
        """Write a small product."""
        path = self.data.path(relative)
        with whole_file(path) as part:
            part.write_bytes(content)
        return self.data.product(path, kind)

    async def ingest(self, message: ImageArrived, _delivery: Delivery) -> Outcome:
        path = Path(unquote(urlsplit(message.uri).path))
        name, sha256 = path.name.split(".")[0], sha256_of(path)
        image_id = f"{name}.{sha256[:12]}"
        if name.startswith("bad"):
            reason = Reason(
                code="checksum_mismatch", message="The data were changed.", found=sha256, expected="0" * 64
            )
            rejected = ImageRejected(
                name=name, uri=message.uri, sha256=sha256, reasons=(reason,), batch=message.batch
            )

            async def reject(transaction: Transaction) -> None:
                await transaction.connection.execute(
                    "INSERT INTO rejections (rejection_id, name, uri, sha256, reasons, batch) "
                    "VALUES ($1, $2, $3, $4, $5, $6)",
                    _delivery.event_id,
                    name,
                    message.uri,
                    sha256,
                    [reason.model_dump()],
                    message.batch,
                )

            return Outcome(events=(rejected,), save=reject, summary="rejected")
        product = self.write(f"images/19AQ02/r/{path.name}", path.read_bytes(), "image")  # noqa: ASYNC240
        verified = examples.VERIFIED.model_copy(
            update={
                "image_id": image_id,
                "name": name,
                "file": product,
                "batch": message.batch,
                "repairs": (),
            }
        )

        async def save(transaction: Transaction) -> None:
            added = await transaction.connection.fetchval(
                "INSERT INTO images (image_id, name, sha256, size_bytes, path, profile, instrument, run, filter,"
                " object, exposure_time_s, mjd_obs, airmass, ra_deg, dec_deg, wcs, n_ccds, batch, header)"
                " VALUES ($1, $2, $3, $4, $5, 'megacam', 'MegaPrime', '19AQ02', 'r', 'D1', 360.2, 58549.2, 1.18,"
                " 36.5, -4.5, 'full', 36, $6, $7) ON CONFLICT DO NOTHING RETURNING true",
                image_id,
                name,
                sha256,
                product.size_bytes,
                product.path,
                message.batch,
                {"OBJECT": "D1"},
            )
            # As ingest does: bytes that are known already are no news.
            if added:
                transaction.emit(verified)

        return Outcome(save=save, about=image_id, made=(product,), summary="verified")

    async def grade(self, message: ImageVerified, delivery: Delivery) -> Outcome:
        if message.name.startswith("broken"):
            raise NotRetriable("no_sources", "No source was found in the image.", {"n_sources": 0})
        folder = f"quality/{message.image_id}/{message.name}"
        catalogue = self.write(f"{folder}.ldac", b"catalogue", "catalogue")
        weight = self.write(f"{folder}.weight.fits.fz", b"weight", "weight")
        preview = self.write(f"{folder}.png", png(), "preview")
        grade = "D" if message.name.startswith("blurred") else "B"
        graded = examples.GRADED.model_copy(
            update={
                "image_id": message.image_id,
                "name": message.name,
                "grade": grade,
                "batch": message.batch,
                "measurement_id": f"m-{message.image_id}",
                "catalogue": catalogue,
                "weight": weight,
                "preview": preview,
            }
        )

        async def save(transaction: Transaction) -> None:
            await _measure(transaction, "image", message.image_id, graded, catalogue, weight, preview)
            await _grade(transaction, "image", message.image_id, graded, delivery.event_id)

        return Outcome(
            events=(graded,),
            save=save,
            about=message.image_id,
            used=(message.file,),
            made=(catalogue, weight, preview),
            summary=f"grade {grade}",
        )

    async def calibrate(self, message: ImageGraded, _delivery: Delivery) -> Outcome:
        if message.grade == "D":
            return Outcome(about=message.image_id, summary="grade D: not calibrated")
        solution_id = f"s-{message.image_id}-{message.graded_by}"
        head = self.write(f"calib/{solution_id}/{message.name}.head", b"END\n", "header")
        calibrated = examples.CALIBRATED.model_copy(
            update={
                "image_id": message.image_id,
                "name": message.name,
                "solution_id": solution_id,
                "header": head,
                "batch": message.batch,
            }
        )

        async def save(transaction: Transaction) -> None:
            await _solve(transaction, solution_id, message.image_id, None, calibrated)

        return Outcome(
            events=(calibrated,), save=save, about=message.image_id, used=(message.catalogue,), made=(head,)
        )

    async def plan(self, message: StackRequested, delivery: Delivery) -> Outcome:
        request_id = message.request_id or delivery.event_id
        stack_id = f"stack-{request_id}"

        async def save(transaction: Transaction) -> None:
            rows = await transaction.connection.fetch(
                "SELECT DISTINCT ON (i.image_id) i.image_id, g.grade FROM images AS i JOIN grades AS g ON"
                " g.subject_id = i.image_id ORDER BY i.image_id, g.created_at DESC"
            )
            taken = [row["image_id"] for row in rows if row["grade"] in message.selection.grades]
            if len(taken) < message.min_exposures:
                raise NotRetriable(
                    "too_few_exposures", f"Only {len(taken)} exposures.", {"n_selected": len(taken)}
                )
            added = await transaction.connection.fetchval(
                "INSERT INTO stacks (stack_id, request_id, name, filter, state, request, requested_at, grid, combine)"
                " VALUES ($1, $2, $3, 'r', 'planned', $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING true",
                stack_id,
                request_id,
                message.name or "stack",
                message.model_dump(mode="json"),
                delivery.time,
                examples.PLANNED.grid.model_dump(),
                message.combine,
            )
            if not added:
                return
            for number, row in enumerate(rows):
                await transaction.connection.execute(
                    "INSERT INTO stack_members (stack_id, image_id, ordinal, selected, rule, found)"
                    " VALUES ($1, $2, $3, $4, 'grades', $5)",
                    stack_id,
                    row["image_id"],
                    number,
                    row["image_id"] in taken,
                    row["grade"],
                )
            transaction.emit(
                examples.PLANNED.model_copy(
                    update={
                        "stack_id": stack_id,
                        "request_id": request_id,
                        "name": message.name or "stack",
                        "image_ids": tuple(taken),
                        "n_left_out": len(rows) - len(taken),
                    }
                )
            )

        return Outcome(save=save, about=stack_id)

    async def calibrate_stack(self, message: StackPlanned, _delivery: Delivery) -> Outcome:
        said = examples.JOINTLY_CALIBRATED.model_copy(
            update={"stack_id": message.stack_id, "name": message.name, "n_members": len(message.image_ids)}
        )
        return Outcome(events=(said,), about=message.stack_id)

    async def coadd(self, message: StackCalibrated, _delivery: Delivery) -> Outcome:
        folder = f"stacks/{message.stack_id}/{message.name}"
        image = self.write(f"{folder}.fits", b"image", "image")
        weight = self.write(f"{folder}.weight.fits", b"weight", "weight")
        heads = sorted(self.data.root.glob("calib/*/*.head"))
        frames = sorted(self.data.root.glob("images/*/*/*"))
        said = examples.COADDED.model_copy(
            update={
                "stack_id": message.stack_id,
                "name": message.name,
                "image": image,
                "weight": weight,
                "n_exposures": message.n_members,
            }
        )
        used = [self.data.product(path, "header") for path in heads]
        used += [self.data.product(path, "image") for path in frames]
        return Outcome(events=(said,), about=message.stack_id, used=tuple(used), made=(image, weight))

    async def finish(self, message: StackCoadded, delivery: Delivery) -> Outcome:
        folder = f"stacks/{message.stack_id}/{message.name}"
        catalogue = self.write(f"{folder}.ldac", b"catalogue of a stack", "catalogue")
        preview = self.write(f"{folder}.png", png(160, 120), "preview")
        row = {"stack_id": message.stack_id, "request_id": message.stack_id.removeprefix("stack-")}
        done = examples.DONE.model_copy(
            update={
                **row,
                "name": message.name,
                "image": message.image,
                "weight": message.weight,
                "catalogue": catalogue,
                "preview": preview,
                "n_exposures": message.n_exposures,
            }
        )

        async def save(transaction: Transaction) -> None:
            await _measure(transaction, "stack", message.stack_id, done, catalogue, message.weight, preview)
            await _grade(transaction, "stack", message.stack_id, done, delivery.event_id)
            await transaction.connection.execute(
                "UPDATE stacks SET state = 'done' WHERE stack_id = $1", message.stack_id
            )

        return Outcome(
            events=(done,),
            save=save,
            about=message.stack_id,
            used=(message.image,),
            made=(catalogue, preview),
        )

    async def export(self, message: StackDone, _delivery: Delivery) -> Outcome:
        receipts = tuple(
            Receipt(
                name=Path(product.path).name,
                path=str(self.data.root / product.path),
                sha256=product.sha256,
                size_bytes=product.size_bytes,
                kind=product.kind,
            )
            for product in (message.image, message.weight, message.catalogue, message.preview)
        )
        exported = StackExported(
            stack_id=message.stack_id,
            request_id=message.request_id,
            name=message.name,
            destination=str(self.data.root / "delivered"),
            files=receipts,
        )

        async def save(transaction: Transaction) -> None:
            await transaction.connection.execute(
                "UPDATE stacks SET state = 'exported' WHERE stack_id = $1", message.stack_id
            )

        return Outcome(events=(exported,), save=save, about=message.stack_id, used=(message.image,))


async def _measure(
    transaction: Transaction,
    kind: str,
    subject_id: str,
    said: Any,
    catalogue: Product,
    weight: Product,
    preview: Product,
) -> None:
    await transaction.connection.execute(
        "INSERT INTO measurements (measurement_id, subject_kind, subject_id, metrics, catalogue_path, weight_path,"
        " preview_path) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        f"m-{subject_id}",
        kind,
        subject_id,
        said.metrics.model_dump(mode="json"),
        catalogue.path,
        weight.path,
        preview.path,
    )


async def _grade(transaction: Transaction, kind: str, subject_id: str, said: Any, event_id: str) -> None:
    await transaction.connection.execute(
        "INSERT INTO grades (grade_id, subject_kind, subject_id, grade, graded_by, reasons, measurement_id)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        event_id,
        kind,
        subject_id,
        said.grade,
        said.graded_by,
        [reason.model_dump(mode="json") for reason in said.reasons],
        f"m-{subject_id}",
    )


async def _solve(
    transaction: Transaction, solution_id: str, image_id: str, stack_id: str | None, said: ImageCalibrated
) -> None:
    await transaction.connection.execute(
        "INSERT INTO solutions (solution_id, image_id, stack_id, header_path, reference_name, reference_sha256,"
        " zeropoint_mag, flux_scale, limiting_mag, quality) VALUES ($1, $2, $3, $4, $5, $6, $7, 1.0, $8, $9)"
        " ON CONFLICT DO NOTHING",
        solution_id,
        image_id,
        stack_id,
        said.header.path,
        said.reference.name,
        said.reference.sha256,
        said.zeropoint_mag,
        said.limiting_mag,
        {"rms_mas": [said.rms_ra_mas, said.rms_dec_mas], "n_matched": said.n_matched},
    )


async def start_stages(rig: Rig) -> None:
    """Run all five in this process until the test ends."""
    stages = Stages(rig.data)
    routes: dict[str, dict[str, Any]] = {
        "ingest": {"image.arrived": stages.ingest},
        "quality": {"image.verified": stages.grade, "stack.coadded": stages.finish},
        "calib": {"image.graded": stages.calibrate, "stack.planned": stages.calibrate_stack},
        "stack": {"stack.requested": stages.plan, "stack.calibrated": stages.coadd},
        "export": {"stack.done": stages.export},
    }

    def composed(table: dict[str, Any]) -> Any:
        def compose(_platform: Platform[ServiceSettings]) -> Service:
            return Service(routes=table)

        return compose

    for name, table in routes.items():
        await rig.start(name, QUICK, composed(table))


def frames(folder: Path, *names: str) -> list[Path]:
    """Files that the stand-ins take for images; each differs from the others."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [folder / f"{name}.fits" for name in names]
    for path in made:
        path.write_bytes(path.name.encode() * 100)
    return made
