"""auxiliary.wanted in, auxiliary.registered out: calibration frames that headers name, fetched once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spica_proto.base import Reason
from spica_proto.images import AuxiliaryRegistered, AuxiliaryWanted
from spica_runtime.compute import Compute
from spica_runtime.errors import Retriable, SpicaError, Unavailable
from spica_runtime.handling import Delivery, Outcome, Transaction
from spica_runtime.pg import Pool
from spica_runtime.storage import DataFolder, segment

from spica_ingest import store
from spica_ingest.archive import Archive, Wanted
from spica_ingest.archive.staging import staging_for
from spica_ingest.auxiliary.jobs import TakenAuxiliary, take_auxiliary
from spica_ingest.errors import auxiliary_unknown
from spica_ingest.handlers import as_reasons
from spica_ingest.recording import Asking
from spica_ingest.science.naming import FITS_NAME
from spica_ingest.science.values import kept
from spica_ingest.verification.reading import Limits

_TRIES = 3
"""How often a fault of the archive is waited out before the frame counts as missing (and is asked for again later)."""


@dataclass(frozen=True, slots=True)
class _Found:
    taken: TakenAuxiliary | None
    """None: nobody has it."""
    uri: str | None = None
    reasons: tuple[Reason, ...] = ()
    """Why not."""


class AuxiliaryHandlers:
    """Handlers of the ingest service for calibration frames."""

    def __init__(
        self,
        pool: Pool,
        compute: Compute,
        data: DataFolder,
        limits: Limits,
        archive: Archive,
        asking: Asking,
        folder: Path | None,
    ) -> None:
        self._pool = pool
        self._compute = compute
        self._data = data
        self._limits = limits
        self._archive = archive
        self._asking = asking
        self._folder = folder

    async def auxiliary_wanted(self, message: AuxiliaryWanted, delivery: Delivery) -> Outcome:
        """Look for a calibration frame in the local folder, then in the archive; that nobody has it is an answer too."""
        segment("The calibration frame", message.name)
        known = await store.auxiliary(self._pool, message.kind, message.name)
        if known is None:
            raise auxiliary_unknown(message.kind, message.name)
        if known["state"] == "here" and await asyncio.to_thread(self._data.path(known["path"]).is_file):
            return Outcome(about=message.image_id, summary=f"{message.kind} {message.name} is here already")
        found = await self._in_folder(message)
        if found is None and self._asking.archive and known["from_archive"]:
            found = await self._in_archive(message, delivery)
        return _outcome(message, found or _Found(None, reasons=(_nowhere(message, self._folder),)))

    async def _in_folder(self, message: AuxiliaryWanted) -> _Found | None:
        if self._folder is None:
            return None
        path = await asyncio.to_thread(find_frame, self._folder, message.kind, message.name)
        return None if path is None else await self._take(message, path, path.as_uri())

    async def _in_archive(self, message: AuxiliaryWanted, delivery: Delivery) -> _Found:
        reasons: list[Reason] = []
        for uri in message.uris:
            async with AsyncExitStack() as stack:
                try:
                    folder = await stack.enter_async_context(staging_for(uri, self._data))
                    fetched = await self._archive.fetch(Wanted(uri), folder)
                except Unavailable:
                    raise
                except SpicaError as error:
                    passing = isinstance(error, Retriable) and error.code != "archive_no_such_file"
                    if passing and delivery.attempt < _TRIES:
                        raise
                    reasons.append(Reason(code=error.code, message=kept(error.message), found=kept(uri)))
                    continue
                return await self._take(message, fetched.path, uri)
        return _Found(None, reasons=tuple(reasons))

    async def _take(self, message: AuxiliaryWanted, path: Path, uri: str) -> _Found:
        taken = await self._compute.run(
            take_auxiliary, path, message.kind, message.name, self._data, self._limits
        )
        return _Found(taken, uri, as_reasons(taken.reasons))


def find_frame(folder: Path, kind: str, name: str) -> Path | None:
    """A FITS file of this name in a folder, or in its subfolder for the kind, however it is compressed."""
    for place in (folder / kind, folder):
        try:
            names = sorted(
                entry.name
                for entry in place.iterdir()
                if entry.name.startswith(name) and FITS_NAME.fullmatch(entry.name[len(name) :]) is not None
            )
        except OSError:
            continue  # not there, or not ours to look into: others may have it
        if names:
            return place / names[0]
    return None


def _nowhere(message: AuxiliaryWanted, folder: Path | None) -> Reason:
    return Reason(
        code="auxiliary_not_found",
        message="The calibration frame is not in the local folder, and no archive is asked for it.",
        keyword=message.keyword,
        found="no folder is set (SPICA_INGEST_AUXILIARY_FOLDER)"
        if folder is None
        else "nothing of that name",
        expected=f"{message.name}.fits, .fits.fz or .fits.gz",
    )


def _state(found: _Found) -> Literal["here", "missing", "rejected"]:
    if found.taken is None:
        return "missing"
    return "rejected" if found.taken.reasons else "here"


def _outcome(message: AuxiliaryWanted, found: _Found) -> Outcome:
    state, product = _state(found), found.taken.product if found.taken else None
    event = AuxiliaryRegistered(
        name=message.name,
        kind=message.kind,
        state=state,
        file=product if state == "here" else None,
        uri=found.uri,
        reasons=found.reasons,
    )

    async def save(transaction: Transaction) -> None:
        if await store.set_auxiliary(transaction.connection, event):
            transaction.emit(event)

    return Outcome(
        save=save,
        about=message.image_id,
        made=() if product is None else (product,),
        configuration={"uri": found.uri, "kind": message.kind, "name": message.name},
        summary=f"{message.kind} {message.name}: {state}",
        log=_lines(found.reasons),
    )


def _lines(reasons: Sequence[Reason]) -> tuple[str, ...]:
    return tuple(f"{reason.code}: {reason.message}" for reason in reasons)
