"""A person's grade: written and said in one transaction, like everything else."""

from __future__ import annotations

import uuid
from typing import Any

from spica_proto.base import Product
from spica_proto.images import ImageGraded, Metrics
from spica_runtime.errors import UsageError
from spica_runtime.outbox import publish_in
from spica_runtime.pg import Pool

from spica_console.store import Store, insert_grade, unknown
from spica_console.submitting import SOURCE


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
    message = ImageGraded.model_validate(
        {
            "image_id": image_id,
            "name": facts["name"],
            "grade": grade,
            "graded_by": f"person:{person}",
            "comment": why,
            "measurement_id": measurement["measurement_id"],
            "metrics": Metrics.model_validate(measurement["metrics"]),
            "catalogue": await _product(store, measurement["catalogue_path"]),
            "weight": await _product(store, measurement["weight_path"]),
            "preview": await _product(store, measurement["preview_path"]),
            "batch": facts["batch"],
        }
    )
    async with pool.acquire() as connection, connection.transaction():
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


async def _product(store: Store, path: str) -> Product:
    row: dict[str, Any] | None = await store.product_at(path)
    if row is None:
        raise UsageError("unknown_product", f"The store knows no product at {path}.")
    return Product.model_validate(row)
