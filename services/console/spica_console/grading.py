"""A person's grade: written and said in one transaction, like everything else."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from spica_proto.base import Product
from spica_proto.images import ImageGraded, Metrics, Verdict
from spica_runtime.errors import UsageError
from spica_runtime.outbox import publish_in
from spica_runtime.pg import Connection, Pool

from spica_console.judging import queries
from spica_console.store import Store, insert_grade, unknown
from spica_console.store import queries as store_queries
from spica_console.submitting import SOURCE

_NAMED = ("flag_map", "psf_model", "report")
"""Products that have a field of their own in the event."""


async def grade_by_person(pool: Pool, image: str, grade: str, *, person: str, why: str) -> ImageGraded:
    """Add a grade to an image and put `image.graded` into the outbox, both or neither.

    Raises
    ------
    UsageError
        The image is unknown, or was never measured: there is nothing to judge it by.

    """
    store = Store(pool)
    image_id = await store.image_id(image)
    if image_id is None:
        raise unknown(image)
    facts = await store.image(image_id)
    if not facts["measurements"]:
        raise UsageError("not_measured", f"{facts['name']} was not measured yet; grade it after that.")
    measurement = facts["measurements"][-1]
    event_id = str(uuid.uuid4())
    async with pool.acquire() as connection, connection.transaction():
        said = [
            row async for row in queries.verdicts_on(connection, measurement_id=measurement["measurement_id"])
        ]
        message = await graded(
            connection,
            facts,
            measurement,
            verdicts=tuple(Verdict.model_validate(dict(row)) for row in said),
            grade=grade,
            graded_by=f"person:{person}",
            comment=why,
        )
        await insert_grade(
            connection,
            grade_id=event_id,
            image_id=image_id,
            grade=grade,
            graded_by=message.graded_by,
            comment=why,
            measurement_id=measurement["measurement_id"],
        )
        await publish_in(connection, message, source=SOURCE, event_id=event_id)
    return message


async def graded(
    connection: Connection, image: Mapping[str, Any], measurement: Mapping[str, Any], **judgement: Any
) -> ImageGraded:
    """One more `image.graded` of a measurement that is there already: with all that it measured and made."""
    made = {kind: await _product(connection, path) for kind, path in measurement["products"].items()}
    return ImageGraded.model_validate(
        {
            "image_id": image["image_id"],
            "name": image["name"],
            "batch": image["batch"],
            "measurement_id": measurement["measurement_id"],
            "metrics": Metrics.model_validate(measurement["metrics"]),
            **{
                kind: await _product(connection, measurement[f"{kind}_path"])
                for kind in ("catalogue", "weight", "preview")
            },
            **{kind: made.get(kind) for kind in _NAMED},
            "products": tuple(
                product
                for kind, product in made.items()
                if kind not in (*_NAMED, "catalogue", "weight", "preview")
            ),
            **judgement,
        }
    )


async def _product(connection: Connection, path: str) -> Product:
    row = await store_queries.product_at(connection, path=path)
    if row is None:
        raise UsageError("unknown_product", f"The store knows no product at {path}.")
    return Product.model_validate(dict(row))
