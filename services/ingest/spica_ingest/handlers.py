"""image.arrived in (image.wanted between, where the file is in an archive), image.verified or image.rejected out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal, cast

from spica_proto.base import Pointing, Product, Reason
from spica_proto.images import ImageArrived, ImageRejected, ImageVerified, ImageWanted
from spica_runtime.compute import Compute
from spica_runtime.handling import Delivery, Outcome, Transaction
from spica_runtime.storage import DataFolder

from spica_ingest import store
from spica_ingest.fetching import Fetching, Refused
from spica_ingest.jobs import Arrival, Taken, take_in, too_large
from spica_ingest.locating import source_path
from spica_ingest.placement.placing import Placing
from spica_ingest.recording import Asking, record_image
from spica_ingest.science import naming
from spica_ingest.science.facts import Finding
from spica_ingest.science.values import kept
from spica_ingest.science.verify import Exposure
from spica_ingest.verification.reading import Limits
from spica_ingest.versions import archive_uri

MAX_REASONS = 200
"""In one event. A file with hundreds of broken CCDs must not make one that the bus refuses (1 MB)."""
_MAX_TEXT = 300


class Handlers:
    """Handlers of the ingest service."""

    def __init__(
        self,
        compute: Compute,
        data: DataFolder,
        limits: Limits,
        profiles: Path | None,
        asking: Asking | None = None,
        fetching: Fetching | None = None,
        placing: Placing | None = None,
    ) -> None:
        self._compute = compute
        self._data = data
        self._limits = limits
        self._profiles = profiles
        self._asking = asking or Asking()
        self._fetching = fetching
        self._placing = placing

    async def image_arrived(self, message: ImageArrived, delivery: Delivery) -> Outcome:
        """Take a file in; whatever it is, there is an answer. One that is in an archive is fetched first."""
        if self._fetching is not None and self._fetching.is_for_us(message.uri):
            return to_be_fetched(message)
        path = source_path(message.uri)
        arrival = Arrival(path, message.size_bytes, message.sha256, message.md5)
        return await self._take(arrival, _name(message, path.name), message, delivery)

    async def image_wanted(self, message: ImageWanted, delivery: Delivery) -> Outcome:
        """Fetch a file of an archive, and take it in; or say why its headers speak against it."""
        assert self._fetching is not None
        self._fetching.is_for_us(message.uri)
        name = _name(message, self._fetching.file_name(message.uri))
        try:
            async with self._fetching.file(message, name) as fetched:
                arrival = Arrival(fetched.path, message.size_bytes, message.sha256, message.md5, fetched=True)
                return await self._take(arrival, name, message, delivery)
        except Refused as refused:
            return refusal(name, _storable(message), refused.findings, delivery)

    async def _take(self, arrival: Arrival, name: str, message: ImageArrived, delivery: Delivery) -> Outcome:
        message = _storable(message)
        if unseen := await asyncio.to_thread(too_large, arrival.path, self._limits):
            return refusal(name, message, unseen, delivery)
        arrival = replace(arrival, marked=self._placing is not None)
        taken = await self._compute.run(take_in, arrival, self._data, self._limits, self._profiles)
        if taken.exposure is None:
            return rejection(name, message, taken, delivery)
        return verification(name, message, taken, taken.exposure, self._asking, self._placing)


def _name(message: ImageArrived, file_name: str) -> str:
    return naming.safe(message.name) if message.name else naming.image_name(file_name)


def _storable(message: ImageArrived) -> ImageArrived:
    """PostgreSQL keeps any text but NUL."""
    labels = {"source": message.source, "batch": message.batch}
    return message.model_copy(update={key: text and text.replace("\0", "?") for key, text in labels.items()})


def to_be_fetched(message: ImageArrived) -> Outcome:
    """Outcome for a file that is in an archive: it is put into the queue of those that are fetched."""
    return Outcome(
        events=(ImageWanted(**dict(message)),),
        configuration={"uri": message.uri, "source": kept(message.source)},
        summary="to be fetched",
    )


def verified_image(
    name: str,
    file: Product,
    exposure: Exposure,
    repairs: Sequence[Finding],
    *,
    batch: str | None = None,
    uri: str | None = None,
) -> ImageVerified:
    """What is said of a usable file."""
    return ImageVerified(
        image_id=naming.image_id(name, file.sha256),
        name=name,
        file=file,
        profile=exposure.profile,
        instrument=exposure.instrument,
        run=exposure.run,
        filter=exposure.filter,
        object=exposure.object,
        exposure_time_s=exposure.exposure_time_s,
        mjd_obs=exposure.mjd_obs,
        airmass=exposure.airmass,
        pointing=Pointing(ra_deg=exposure.geometry.ra_deg, dec_deg=exposure.geometry.dec_deg),
        wcs=cast(Literal["full", "pointing"], exposure.geometry.wcs),
        n_ccds=len(exposure.ccds),
        batch=batch,
        repairs=as_reasons(repairs),
        uri=uri,
    )


def verification(
    name: str,
    message: ImageArrived,
    taken: Taken,
    exposure: Exposure,
    asking: Asking,
    placing: Placing | None = None,
) -> Outcome:
    """Outcome for a usable file: stored and announced, unless this very image, or a later version, is here already."""
    event = verified_image(
        name,
        taken.product,
        exposure,
        taken.repairs,
        batch=message.batch,
        uri=archive_uri(message.uri),
    )

    async def save(transaction: Transaction) -> None:
        await record_image(transaction, event, exposure, message.modified_at, asking, placing)

    return Outcome(
        save=save,
        about=event.image_id,
        made=(taken.product,),
        configuration={"profile": exposure.profile, "uri": message.uri, "source": message.source},
        summary=f"verified ({event.wcs} WCS)",
        log=_log(event.repairs),
    )


def rejection(name: str, message: ImageArrived, taken: Taken, delivery: Delivery) -> Outcome:
    """Outcome for a file that cannot be used: every arrival of it is answered with all reasons."""
    event = ImageRejected(
        name=name,
        uri=message.uri,
        sha256=taken.product.sha256,
        set_aside=taken.product.path,
        reasons=as_reasons(taken.reasons),
        batch=message.batch,
    )

    async def save(transaction: Transaction) -> None:
        await store.insert_rejection(transaction.connection, delivery.event_id, event)

    return Outcome(
        events=(event,),
        save=save,
        made=(taken.product,),
        configuration={"uri": message.uri, "source": message.source},
        summary=kept(f"rejected: {', '.join(dict.fromkeys(item.code for item in taken.reasons))}"),
        log=_log(event.reasons),
    )


def refusal(name: str, message: ImageArrived, findings: Sequence[Finding], delivery: Delivery) -> Outcome:
    """Outcome for a file that is not fetched or copied, since what is known of it is enough: nothing is set aside."""
    event = ImageRejected(name=name, uri=message.uri, reasons=as_reasons(findings), batch=message.batch)

    async def save(transaction: Transaction) -> None:
        await store.insert_rejection(transaction.connection, delivery.event_id, event)

    return Outcome(
        events=(event,),
        save=save,
        configuration={"uri": message.uri, "source": message.source},
        summary=kept(f"not taken: {', '.join(dict.fromkeys(item.code for item in findings))}"),
        log=_log(event.reasons),
    )


def as_reasons(findings: Sequence[Finding]) -> tuple[Reason, ...]:
    """Findings of the science as parts of a message: at most `MAX_REASONS`, and how many more there are."""
    reasons = [_reason(finding) for finding in findings[:MAX_REASONS]]
    if more := findings[MAX_REASONS:]:
        codes = ", ".join(dict.fromkeys(finding.code for finding in more))
        reasons.append(
            Reason(
                code="more_reasons",
                message=f"There are {len(more)} more, of these kinds: {codes}.",
                found=str(len(findings)),
                expected=f"{MAX_REASONS} at most are told",
            )
        )
    return tuple(reasons)


def _reason(finding: Finding) -> Reason:
    parts = asdict(finding)
    return Reason(
        **{name: kept(part, _MAX_TEXT) if isinstance(part, str) else part for name, part in parts.items()}
    )


def _log(reasons: Sequence[Reason]) -> tuple[str, ...]:
    return tuple(f"{reason.code}: {reason.message}" for reason in reasons)
