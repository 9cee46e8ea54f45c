"""Images in the store as ingest leaves them, at any place and time, without files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from spica_imaging.profiles import load_profiles
from spica_ingest.handlers import verification
from spica_ingest.jobs import Taken
from spica_ingest.recording import Asking
from spica_ingest.science.place import Place, place_of
from spica_ingest.science.verify import Exposure, judge
from spica_ingest.verification.reading import read_facts
from spica_proto.base import Message, Product
from spica_proto.images import ImageArrived
from spica_runtime.handling import Transaction
from spica_runtime.pg import Connection, Pool

from tests.unit.imaging.skies import quad_at
from tests.unit.ingest.frames import LIMITS, frame, write


@cache
def verified() -> Exposure:
    """A small frame, read and judged."""
    with TemporaryDirectory() as folder:
        facts = read_facts(write(Path(folder) / "a.fits", frame()), LIMITS)
    exposure = judge(facts, load_profiles()).exposure
    assert exposure is not None
    return exposure


def footprint(ra: float, dec: float, width: float, height: float) -> tuple[float, ...]:
    """Corners of a CCD around a place: ra, dec, ra, dec … in degrees."""
    quad = quad_at(ra, dec, width, height)
    places = np.stack(
        [
            np.degrees(np.arctan2(quad[:, 1], quad[:, 0])) % 360,
            np.degrees(np.arcsin(np.clip(quad[:, 2], -1, 1))),
        ],
        axis=-1,
    )
    return tuple(float(part) for part in places.ravel())


def exposure_at(
    ra: float,
    dec: float,
    *,
    size: float = 0.4,
    place: Place | None = None,
    columns: Any = None,
    **changes: Any,
) -> Exposure:
    """The frame, of two CCDs side by side around a place (or of `place` alone), otherwise changed as told."""
    half = size / 2 / max(np.cos(np.radians(dec)), 0.01)
    corners = [footprint((ra + side * half / 2) % 360, dec, 0.48 * size, size) for side in (-1, 1)]
    base = verified()
    if place is not None:
        corners = [None, None]  # type: ignore[list-item]
    known = place or place_of([part for part in corners if part])
    return replace(
        base,
        place=known,
        geometry=replace(base.geometry, ra_deg=ra % 360, dec_deg=dec, wcs="pointing" if place else "full"),
        ccds=tuple(replace(ccd, footprint=part) for ccd, part in zip(base.ccds, corners, strict=True)),
        columns=replace(base.columns, **(columns or {})),
        **changes,
    )


async def take_in(
    connection: Connection,
    name: str,
    exposure: Exposure,
    *,
    uri: str | None = None,
    modified_at: datetime | None = None,
    content: str = "",
    asking: Asking | None = None,
) -> tuple[str, list[Message], list[str]]:
    """Do what ingest's transaction does with a verified image. Its id, the events, and what is noted."""
    sha256 = hashlib.sha256(f"{name} {content}".encode()).hexdigest()
    product = Product(path=f"images/r/f/{name}.{sha256[:4]}.fits", sha256=sha256, size_bytes=1, kind="image")
    message = ImageArrived(uri=uri or f"/in/{name}.fits", modified_at=modified_at)
    outcome = verification(name, message, Taken(product, exposure, (), ()), exposure, asking or Asking())
    assert outcome.save is not None and outcome.about is not None
    transaction = Transaction(connection)
    await outcome.save(transaction)
    return outcome.about, transaction.events, transaction.notes


async def fill(pool: Pool, exposures: Sequence[tuple[str, Exposure]]) -> dict[str, str]:
    """Take in all of these. Their ids by name."""
    ids = {}
    async with pool.acquire() as connection, connection.transaction():
        for name, exposure in exposures:
            ids[name], _, _ = await take_in(connection, name, exposure)
    return ids
