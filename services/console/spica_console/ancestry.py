"""From the provenance tables' edges to a tree: product, the activity that made it, what that used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]
_PRODUCT = ("path", "kind", "sha256", "size_bytes")
_ACTIVITY = (
    "activity_id",
    "service",
    "activity",
    "version",
    "host",
    "started_at",
    "ended_at",
    "outcome",
    "about",
    "event_id",
    "configuration",
    "log",
)


def tree(known: Mapping[int, Row], root: int) -> dict[str, Any]:
    """Build the tree that ends in product `root`.

    A product that many others used is unfolded once; after that it is marked `repeated`.
    """
    return _branch(known, root, set())


def _branch(known: Mapping[int, Row], product_id: int, seen: set[int]) -> dict[str, Any]:
    row = known[product_id]
    product: dict[str, Any] = {name: row[name] for name in _PRODUCT}
    if row["activity_id"] is None:
        return product
    if product_id in seen:
        return product | {"repeated": True}
    seen.add(product_id)
    product["made_by"] = {
        **{name: row[name] for name in _ACTIVITY},
        "seconds": (row["ended_at"] - row["started_at"]).total_seconds(),
        "used": [_branch(known, used, seen) for used in row["used"] if used != product_id],
    }
    return product
