"""Which master flat and mask an image is measured with, and when to wait for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from spica_proto.base import Product
from spica_runtime.errors import Unavailable
from spica_runtime.storage import DataFolder

from spica_quality.store import NamedAuxiliary

_ASK_AGAIN_S = 20.0
_LOOKS = 30


@dataclass(frozen=True, slots=True)
class Settled:
    """What there is, and what there is not."""

    files: dict[str, Product]
    """By kind."""
    notes: tuple[str, ...]
    """What the image does without, and why."""


def settle(named: Sequence[NamedAuxiliary], data: DataFolder, now: datetime, wait_s: float) -> Settled:
    """Take what is here, do without what nobody has. Raises `Unavailable` while one is on its way.

    One is on its way if ingest was asked for it less than `wait_s` ago and has not answered.
    """
    for auxiliary in named:
        if auxiliary.state != "wanted" or auxiliary.asked_at is None:
            continue
        left_s = wait_s - (now - auxiliary.asked_at).total_seconds()
        if left_s > 0:
            raise Unavailable(
                "auxiliary_on_its_way",
                f"The {auxiliary.kind} {auxiliary.name} is being fetched: the image waits for it, for at most "
                f"{left_s:.0f} s more.",
                {"name": auxiliary.name, "left_s": round(left_s, 1)},
                after_s=min(_ASK_AGAIN_S, wait_s / _LOOKS + 0.1, left_s + 0.1),
            )
    files: dict[str, Product] = {}
    notes: list[str] = []
    for auxiliary in named:
        if auxiliary.file is not None and data.path(auxiliary.file.path).is_file():
            files[auxiliary.kind] = auxiliary.file
            continue
        why = {
            "here": "its file is not in this data folder",
            "wanted": f"it was not here within {wait_s:g} s",
            "named": "nobody was asked for it",
            "rejected": "what came was damaged",
        }.get(auxiliary.state, "nobody has it")
        notes.append(f"measured without the {auxiliary.kind} {auxiliary.name}: {why}")
    return Settled(files, tuple(notes))
