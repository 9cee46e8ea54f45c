"""What a run has taught of its instrument: versions of a model, added and never overwritten.

A new image starts from the newest version of its context's model. What it taught is one version more, written in the
transaction of its solution. Two images may start from the same version at the same time: the one that commits second
takes what the first one taught in, so that neither is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spica_runtime.handling import Transaction

from spica_calib import store


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one solution knows of its instrument: `InstrumentModel` and `Illumination` as JSON."""

    model: Mapping[str, Any]
    illumination: Mapping[str, Any] | None


async def keep(
    transaction: Transaction, taught: Lesson, started_from: int, solution_id: str, image_id: str
) -> None:
    """Add what a solution taught to its context's memory. An image teaches once: solved again, it is in there already."""
    connection, context = transaction.connection, str(taught.model["context"])
    await store.turn(connection, "context", context)
    if await store.has_taught(connection, context, image_id):
        return
    newest = await store.newest_model(connection, context)
    merged_with: int | None = None
    if newest is not None and newest.version != started_from:
        parent = await store.model(connection, context, started_from) if started_from else None
        taught = _merged(newest, taught, parent)
        merged_with = newest.version
        transaction.note(
            f"model {started_from} of {context} had become {newest.version} meanwhile: both lessons are kept"
        )
    await store.add_model(
        connection,
        version=(newest.version if newest else 0) + 1,
        json=taught.model,
        illumination=taught.illumination,
        started_from=started_from,
        merged_with=merged_with,
        solution_id=solution_id,
        image_id=image_id,
    )


def _merged(newest: store.Model, taught: Lesson, parent: store.Model | None) -> Lesson:
    from spica_calib.science.astrometry.problem import InstrumentModel
    from spica_calib.science.lessons import merged

    model = merged(
        InstrumentModel.from_json(newest.json),
        InstrumentModel.from_json(taught.model),
        InstrumentModel.from_json(parent.json) if parent else None,
    )
    # Illuminations are means over stars of the run: the one of more stars knows more.
    lights = [one for one in (newest.illumination, taught.illumination) if one is not None]
    return Lesson(model.to_json(), max(lights, key=lambda one: int(one["n_stars"]), default=None))
