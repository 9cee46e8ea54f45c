"""Writing a verified image into the store: once, with its versions settled and its calibration frames asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from spica_proto.images import AuxiliaryWanted, ImageVerified
from spica_runtime.handling import Transaction

from spica_ingest import store, versions
from spica_ingest.placement.placing import Placing
from spica_ingest.science.columns import Named
from spica_ingest.science.verify import Exposure


@dataclass(frozen=True, slots=True)
class Asking:
    """When calibration frames that headers name are asked for."""

    archive: bool = True
    """For images that came from an archive: there."""
    folder: bool = False
    """For all images: in a local folder."""
    again_after: timedelta = timedelta(days=7)
    """What was not to be had is asked for again by an image that comes after so long."""


async def record_image(
    transaction: Transaction,
    image: ImageVerified,
    exposure: Exposure,
    modified_at: datetime | None,
    asking: Asking,
    placing: Placing | None = None,
) -> None:
    """Write a verified image, and say so unless it was said before or a later version of its file is here already.

    With `placing`, images lie on nodes: it is said once the image is where it belongs.
    """
    connection = transaction.connection
    if image.uri is not None:
        await versions.lock(connection, image.uri)
    new = await store.insert_image(connection, image, exposure, modified_at)
    came_back = placing is not None and await placing.receive(connection, image, new=new)
    standing = versions.Standing(image.image_id, ())
    if image.uri is not None:
        standing = await versions.settle(connection, image.image_id, image.uri, modified_at)
    counts = standing.newest == image.image_id
    if not counts:
        transaction.note(
            f"superseded: {standing.newest} is a later version of {image.uri}. This one is kept, and not processed."
        )
    if counts and standing.others:
        transaction.note(f"supersedes {', '.join(standing.others)}, earlier versions of {image.uri}.")
    if not new:
        transaction.note("This very image was here already.")
    if counts and (await store.first_announcement(connection, image.image_id) or came_back):
        verified = image.model_copy(update={"supersedes": standing.others})
        if placing is None:
            transaction.emit(verified)
        else:
            await placing.announce(transaction, verified)
        wanted = asking.folder or (asking.archive and image.uri is not None)
        await _name_auxiliaries(transaction, image.image_id, exposure.auxiliaries, asking, wanted=wanted)
    elif new:
        await _name_auxiliaries(transaction, image.image_id, exposure.auxiliaries, asking, wanted=False)


async def _name_auxiliaries(
    transaction: Transaction, image_id: str, named: Sequence[Named], asking: Asking, *, wanted: bool
) -> None:
    """Remember which calibration frames an image names; ask for those that nobody has asked for."""
    for frame in named:
        if await store.name_auxiliary(
            transaction.connection, image_id, frame, wanted=wanted, again_after=asking.again_after
        ):
            transaction.emit(
                AuxiliaryWanted.model_validate(
                    {
                        "name": frame.name,
                        "kind": frame.kind,
                        "keyword": frame.keyword,
                        "image_id": image_id,
                        "uris": frame.uris,
                    }
                )
            )
