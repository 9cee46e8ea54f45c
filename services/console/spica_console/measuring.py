"""Measuring and judging files here and now: what the quality service does with them, without any server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from spica_imaging.references import ReferenceFileError, stars_in_cone
from spica_ingest.handlers import verified_image
from spica_ingest.science import naming
from spica_proto.base import Product
from spica_proto.images import ImageVerified
from spica_quality.jobs import Assessment, ImageOrder, Tuning, measure_image, order_of
from spica_quality.policyfiles import load_policies
from spica_quality.reference import ReferenceFile, identify, reference_path, why_none
from spica_quality.science.policy.policies import Policies
from spica_quality.settings import QualitySettings
from spica_runtime.compute import Compute
from spica_runtime.errors import SpicaError, UsageError
from spica_runtime.storage import DataFolder, sweep_parts

from spica_console import verifying

_MAPS = (".weight.fits.fz", ".flag.fits.fz")


@dataclass(frozen=True, slots=True)
class Choices:
    """How files are measured and judged."""

    policies: Policies
    tuning: Tuning
    reference: ReferenceFile | None
    why_no_reference: str
    """Why the catalogue that is set cannot be read; empty where it can, or none is set."""
    profiles: Path | None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a sound file could not be measured."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of one file."""

    checked: verifying.Result
    out: Path
    found: Assessment | None = None
    """None where it was rejected, and where measuring failed."""
    failure: Failure | None = None
    seconds: float = 0.0


def choices(policies: Path | None, reference: Path | None, profiles: Path | None) -> Choices:
    """As the settings of the quality service have it, but for what is given here. Raises UsageError."""
    verifying.check_profiles(profiles)
    try:
        settings = QualitySettings()
    except ValidationError as error:
        raise UsageError("bad_settings", f"The settings of quality do not fit: {error}") from error
    path = reference or reference_path(settings)
    known = identify(path)
    if reference is not None:
        _check_reference(reference, known)
    judges = load_policies(policies or settings.policies)
    return Choices(judges, Tuning.of(settings), known, why_none(path), profiles)


def _check_reference(path: Path, known: ReferenceFile | None) -> None:
    """The service goes on without a catalogue that it cannot read; here somebody asked for it."""
    try:
        if known is None:
            raise UsageError(
                "no_reference", f"The reference catalogue {path} cannot be opened: it has to be a file."
            )
        stars_in_cone(known.path, known.sha256, 0.0, 90.0, 0.1)
    except ReferenceFileError as error:
        raise UsageError("bad_reference", f"{path} cannot be used: {error}") from error


def without_products(files: Iterable[Path], out: Path) -> list[Path]:
    """The files but for the weight and flag maps that an earlier run left in `out`. Raises UsageError if none is left."""
    kept = [path for path in files if not _is_product(path, out.resolve())]
    if not kept:
        raise UsageError("no_files", f"There is nothing to measure but products in {out}.")
    return kept


def _is_product(path: Path, out: Path) -> bool:
    folder = path.resolve().parent
    return folder.parent == out and any(
        path.name.endswith(suffix) and f"{folder.name}.".startswith(f"{path.name.removesuffix(suffix)}.")
        for suffix in _MAPS
    )


def prepared(out: Path) -> DataFolder:
    """The folder of the products, made if it is not there. Raises UsageError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError("bad_folder", f"{out} cannot be made: {error.strerror}.") from error
    return DataFolder(out)


async def measure_files(
    checked: Sequence[verifying.Result],
    chosen: Choices,
    out: Path,
    jobs: int | None,
    told: Callable[[Measured], None],
) -> list[Measured]:
    """Measure what was found usable, `jobs` files at a time, each in a process of its own.

    Results come, and are told, in the order of the files. Work that is cancelled leaves no unfinished file.
    """
    data = prepared(out)
    cores = os.cpu_count() or 1
    at_once = max(1, min(sum(result.accepted for result in checked), jobs or cores))
    orders = _orders(checked, chosen, data, max(1, cores // at_once))
    running: set[str] = set()
    slots: asyncio.Queue[Compute] = asyncio.Queue()

    async def one(result: verifying.Result, order: ImageOrder | None) -> Measured:
        if order is None:
            return Measured(result, out)
        compute = await slots.get()
        folder = str(order.folder)
        running.add(folder)
        begun = time.monotonic()
        found, failure = None, None
        try:
            found = await compute.run(measure_image, order)
        except SpicaError as error:
            failure = Failure(error.code, error.message)
        except Exception as error:  # nobody else's file is to suffer from it
            failure = Failure("unexpected_error", f"{type(error).__name__}: {error}")
        finally:
            slots.put_nowait(compute)
        running.discard(folder)
        return Measured(result, out, found, failure, time.monotonic() - begun)

    with ExitStack() as stack:
        stack.callback(lambda: _tidy(data, running))
        for _ in range(at_once):
            # One each: a process that dies takes no other file with it.
            compute = Compute(1)
            stack.callback(compute.close)
            slots.put_nowait(compute)
        done: list[Measured] = []
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(one(result, order)) for result, order in zip(checked, orders, strict=True)
            ]
            for task in tasks:
                done.append(await task)
                told(done[-1])
        return done


def _tidy(data: DataFolder, folders: Iterable[str]) -> None:
    """Remove what was begun and will not be ended."""
    for folder in folders:
        path = data.path(folder)
        sweep_parts(path, older_than_s=-1.0)
        with contextlib.suppress(OSError):  # not there yet, or with whole files in it
            path.rmdir()


def _orders(
    checked: Sequence[verifying.Result], chosen: Choices, data: DataFolder, threads: int
) -> list[ImageOrder | None]:
    """What is to be done with each file; None: it was rejected."""
    messages = [message_of(result) for result in checked]
    names = Counter(message.name for message in messages if message is not None)
    taken: Counter[str] = Counter()
    orders: list[ImageOrder | None] = []
    for result, message in zip(checked, messages, strict=True):
        if message is None:
            orders.append(None)
            continue
        # Files of one name in several folders: by their content.
        folder = message.name if names[message.name] == 1 else message.image_id
        taken[folder] += 1
        orders.append(
            order_of(
                message,
                data=data,
                profiles=chosen.profiles,
                policies=chosen.policies,
                tuning=chosen.tuning,
                reference=chosen.reference,
                why_no_reference=chosen.why_no_reference,
                threads=threads,
                source=result.file.absolute(),
                folder=folder if taken[folder] == 1 else f"{folder}-{taken[folder]}",
            )
        )
    return orders


def message_of(result: verifying.Result) -> ImageVerified | None:
    """What ingest would say of a file; None: nothing good."""
    verdict, digests = result.verified.verdict, result.verified.digests
    if verdict.exposure is None or digests is None:
        return None
    file = Product(
        path=result.file.absolute().as_posix(),
        sha256=digests.sha256,
        size_bytes=digests.size_bytes,
        kind="image",
    )
    return verified_image(naming.image_name(result.file.name), file, verdict.exposure, verdict.repairs)


def as_row(one: Measured) -> dict[str, Any]:
    """A result for programs: that of `spica verify`, what was measured, and why it could not be."""
    found = one.found
    row = verifying.as_row(one.checked) | {
        "failure": one.failure and {"code": one.failure.code, "message": one.failure.message},
        "measurement": None,
    }
    if found is not None:
        row["measurement"] = {
            "seconds": round(one.seconds, 3),
            "grade": found.grade,
            "reasons": [reason.model_dump(exclude_none=True) for reason in found.reasons],
            "verdicts": [verdict.model_dump(exclude_none=True) for verdict in found.verdicts],
            "figures": dict(found.figures),
            "ccds": list(found.per_ccd),
            "products": {
                product.kind: {
                    "path": str(one.out / product.path),
                    "sha256": product.sha256,
                    "size_bytes": product.size_bytes,
                }
                for product in found.made
            },
            "notes": list(found.notes),
        }
    return row
