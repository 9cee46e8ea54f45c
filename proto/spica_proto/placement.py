"""Events of placement: which node holds an image, where a data centre keeps pixels on several."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from spica_proto.base import Message
from spica_proto.units import Bytes, Count


class PlacementWanted(Message):
    """An image is to be brought to the node on which its run and filter are placed."""

    image_id: str
    name: str
    run: str
    filter: str
    why: Literal["arrived", "placed", "node_dead", "node_back"] = Field(
        description="It arrived elsewhere; someone placed its run and filter; the node that holds it is dead, "
        "or back."
    )


class PlacementMoved(Message):
    """An image, with all that was made of it, now lies on another node: copied, verified, and then switched."""

    image_id: str
    name: str
    run: str
    filter: str
    from_node: str
    to_node: str
    files: Count
    size_bytes: Bytes
    batch: str | None = None


class PlacementLost(Message):
    """The only node that has an image is dead: it comes back with the node, or from its archive."""

    image_id: str
    name: str
    run: str
    filter: str
    node: str
    uri: str | None = Field(None, description="Where it is being fetched from again, if an archive has it.")
