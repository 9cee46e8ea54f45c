"""Which earlier images of a run help a new one: those of its context whose CCDs it overlaps, and whose files can be had."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spica_imaging.profiles import Profile
from spica_runtime.errors import SpicaError
from spica_runtime.locating import Files
from spica_runtime.pg import Pool

from spica_calib import store
from spica_calib.cones import cone_from_pointing
from spica_calib.records import Place, SolvedImage, SolvedRecord
from spica_calib.reference.area import ReferenceArea

_LOOKED_AT = 8
"""So many times as many as are wanted are looked at: some only come near."""
_MAS_PER_DEG = 3.6e6


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Images that take part, held as they were solved."""

    images: tuple[SolvedImage, ...] = ()
    paths: tuple[str, ...] = ()
    """Their catalogues and `.head` files in the data folder."""
    notes: tuple[str, ...] = ()
    """Which were left out, and why."""

    @property
    def solution_ids(self) -> tuple[str, ...]:
        """Their solutions, the nearest first."""
        return tuple(image.solution_id for image in self.images)


async def neighbours(
    pool: Pool,
    files: Files,
    image: store.ImageRecord,
    profile: Profile,
    context: str,
    reference: ReferenceArea,
    most: int,
    only: Sequence[str] | None = None,
) -> Neighbours:
    """Find at most `most` solved images that overlap, the nearest first; with `only`, among these solutions."""
    if most == 0 or (only is not None and not only):
        return Neighbours()
    place = image.place or rough_place(image, profile)
    found = await store.neighbours(
        pool, context, image.facts.image_id, place, reference, only, _LOOKED_AT * most
    )
    near = await asyncio.to_thread(overlapping, image.corners_mas, place, found) if found else []
    taken: list[SolvedImage] = []
    paths: list[str] = []
    notes: list[str] = []
    for record in near:
        if len(taken) == most:
            break
        try:
            located = await files.locate(record.paths)
        except SpicaError as error:
            notes.append(f"{record.facts.name} is left out of the context: {error.message}")
            continue
        missing = await asyncio.to_thread(_missing, located)
        if missing:
            notes.append(
                f"{record.facts.name} is left out of the context: {missing[0]} is not there any more."
            )
            continue
        taken.append(record.found_at(located))
        paths += record.paths
    return Neighbours(tuple(taken), tuple(paths), tuple(notes))


def _missing(located: Mapping[str, Path]) -> list[str]:
    return [path for path, file in located.items() if not file.is_file()]


def rough_place(image: store.ImageRecord, profile: Profile) -> Place:
    """Where an image may reach of which only the pointing is known."""
    from spica_imaging.skycells import unit_vectors

    x, y, z = (float(part) for part in unit_vectors(*image.facts.pointing))
    return Place((x, y, z), math.radians(cone_from_pointing(image, profile)[2]))


def overlapping(
    corners_mas: bytes | None, place: Place, records: Sequence[SolvedRecord]
) -> list[SolvedRecord]:
    """Those of which some CCD has a point in common with a CCD of the image (or with its place), in their order."""
    import numpy as np
    from spica_imaging.skycells import unit_vectors
    from spica_imaging.skyshapes import Cone, Polygon, Shape

    known = [record for record in records if record.corners]
    if not known:
        return []
    corners = [np.asarray(record.corners, dtype=np.float64).reshape(-1, 4, 2) for record in known]
    every = np.concatenate(corners)
    quads = unit_vectors(every[..., 0], every[..., 1])
    owner = np.repeat(np.arange(len(known)), [len(quad) for quad in corners])
    shapes: list[Shape]
    if corners_mas:
        ccds = np.frombuffer(corners_mas, dtype="<i4").reshape(-1, 4, 2) / _MAS_PER_DEG
        shapes = [Polygon(tuple((float(ra), float(dec)) for ra, dec in ccd)) for ccd in ccds]
    else:
        x, y, z = place.centre
        ra, dec = math.degrees(math.atan2(y, x)) % 360.0, math.degrees(math.asin(max(-1.0, min(1.0, z))))
        shapes = [Cone(ra, dec, min(180.0, math.degrees(place.radius_rad)))]
    touched: set[int] = set()
    for shape in shapes:
        touched.update(np.unique(owner[shape.touches_quads(quads)]).tolist())
    return [record for index, record in enumerate(known) if index in touched]
