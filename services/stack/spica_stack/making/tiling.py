"""How a stack is cut into tiles, and what the files of its unfinished parts are called.

All of it follows from the order alone, so that every worker on every host finds the same. A tile is a unit of work:
some seconds, written whole. How much of it is held in memory at a time is another matter (see `tile.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from spica_runtime.storage import segment

from spica_stack.making.order import CoaddOrder, MemberFiles
from spica_stack.science.pixels import Box

LAYERS_SHARE = 0.5
"""Of the memory, for the resampled layers; the rest is for patches of inputs, meshes and what is being combined."""

BYTES_PER_SAMPLE = 8
"""Value and weight, float32."""

ASPECT = 48.0
"""Width of what is held at a time, over its height. Rows of compressed inputs are decoded whole: a part as wide as
several CCDs decodes few of them for nothing; but each part needs some rows around its own (the kernel's, and for the
slant of the CCD), of which low parts have many. The least of both is near CCD width / margin = 2048 / 40."""

MIN_WIDTH_PX, MIN_HEIGHT_PX = 512, 64

FORMAT = 1
"""Of the files of parts: what others wrote is not taken for ours."""


@dataclass(frozen=True, slots=True)
class _Cut:
    edges_x: tuple[int, ...]
    edges_y: tuple[int, ...]


def _edges(length: int, step: float) -> tuple[int, ...]:
    """Parts of about equal length, none longer than `step` (rounded up)."""
    parts = max(1, int(np.ceil(length / max(step, 1.0))))
    return tuple(int(edge) for edge in np.round(np.linspace(0, length, parts + 1)))


def new_members(order: CoaddOrder) -> range:
    """Numbers of the members to be worked on: all, or those that the base does not have."""
    return range(0 if order.base is None else len(order.base.image_ids), len(order.members))


def layer_bytes(order: CoaddOrder) -> int:
    """Memory for the layers that are held at a time."""
    return int(LAYERS_SHARE * order.memory_bytes)


def _cut(order: CoaddOrder) -> _Cut:
    layers = max(len(new_members(order)), 1)
    held_px = layer_bytes(order) / (BYTES_PER_SAMPLE * layers)
    edges_x = _edges(order.grid.width, max(MIN_WIDTH_PX, np.sqrt(ASPECT * held_px)))
    width = max(b - a for a, b in pairwise(edges_x))
    return _Cut(edges_x, _edges(order.grid.height, max(MIN_HEIGHT_PX, order.tile_samples / layers / width)))


def tiles_of(order: CoaddOrder) -> tuple[Box, ...]:
    """The tiles of the output grid: without gap or overlap, column after column, each from below."""
    cut = _cut(order)
    return tuple((x0, x1, y0, y1) for x0, x1 in pairwise(cut.edges_x) for y0, y1 in pairwise(cut.edges_y))


def order_key(order: CoaddOrder) -> str:
    """What tells this order from any other that would give other pixels: SHA-256, in hexadecimal.

    Neither folders nor memory nor threads: another host may have these otherwise.
    """
    content = {
        **_common(order),
        "members": [_member(member) for member in order.members],
        "base": None if order.base is None else [order.base.stack_id, *order.base.image_ids],
    }
    return _digest(content)


def _common(order: CoaddOrder) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "stack_id": order.stack_id,
        "software": order.label.software,
        "grid": {"kind": type(order.grid).__name__, **asdict(order.grid)},
        "parameters": asdict(order.parameters),
    }


def _member(files: MemberFiles) -> dict[str, Any]:
    return {key: value.name if isinstance(value, Path) else value for key, value in asdict(files).items()}


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def prepared_path(order: CoaddOrder, number: int) -> Path:
    """Where the prepared member of this number is kept: another order's is not found there."""
    digest = _digest({**_common(order), "member": _member(order.members[number])})
    return order.data.path(f"{order.parts}/prepared-{number:05d}-{digest[:16]}.npz")


def tile_path(order: CoaddOrder, number: int) -> Path:
    """Where the tile of this number is kept."""
    return order.data.path(f"{order.parts}/tile-{number:05d}.part")


SUFFIXES = {
    "image": ".fits",
    "weight": ".weight.fits",
    "exposures": ".nexp.fits",
    "rejected": ".rejected.fits",
    "sums": ".sums.fits",
}


def product_path(order: CoaddOrder, role: str) -> Path:
    """Where a file of the stack will stand. Raises `NotRetriable` (`unsafe_name`)."""
    return order.data.path(f"{order.folder}/{segment('stack name', order.name)}{SUFFIXES[role]}")
