"""image.arrived in, image.verified or image.rejected out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal, cast

from spica_proto.base import Pointing, Reason
from spica_proto.images import ImageArrived, ImageRejected, ImageVerified
from spica_runtime.compute import Compute
from spica_runtime.handling import Delivery, Outcome, Transaction
from spica_runtime.storage import DataFolder

from spica_ingest import store
from spica_ingest.jobs import Arrival, Taken, take_in
from spica_ingest.locating import source_path
from spica_ingest.reading import Limits
from spica_ingest.science import naming
from spica_ingest.science.facts import Finding
from spica_ingest.science.values import kept
from spica_ingest.science.verify import Exposure

MAX_REASONS = 200
"""In one event. A file with hundreds of broken CCDs must not make one that the bus refuses (1 MB)."""
_MAX_TEXT = 300


class Handlers:
    """Handlers of the ingest service."""

    def __init__(self, compute: Compute, data: DataFolder, limits: Limits, profiles: Path | None) -> None:
        self._compute = compute
        self._data = data
        self._limits = limits
        self._profiles = profiles

    async def image_arrived(self, message: ImageArrived, delivery: Delivery) -> Outcome:
        """Take a file in; whatever it is, there is an answer."""
        path = source_path(message.uri)
        # PostgreSQL keeps any text but NUL.
        labels = {"source": message.source, "batch": message.batch}
        message = message.model_copy(
            update={key: text and text.replace("\0", "?") for key, text in labels.items()}
        )
        arrival = Arrival(path, message.size_bytes, message.sha256, message.md5)
        taken = await self._compute.run(take_in, arrival, self._data, self._limits, self._profiles)
        name = naming.safe(message.name) if message.name else naming.image_name(path.name)
        if taken.exposure is None:
            return rejection(name, message, taken, delivery)
        return verification(name, message, taken, taken.exposure)


def verification(name: str, message: ImageArrived, taken: Taken, exposure: Exposure) -> Outcome:
    """Outcome for a usable file: stored and announced, unless this very image is here already."""
    event = ImageVerified(
        image_id=naming.image_id(name, taken.product.sha256),
        name=name,
        file=taken.product,
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
        batch=message.batch,
        repairs=as_reasons(taken.repairs),
    )

    async def save(transaction: Transaction) -> None:
        if await store.insert_image(transaction.connection, event, exposure.header, exposure.ccds):
            transaction.emit(event)

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
