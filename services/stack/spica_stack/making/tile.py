"""One tile of the stack: layers filled and combined by all threads, in as many blocks as the memory asks for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spica_stack.making.assembling import roles_of
from spica_stack.making.gains import added_depth, lattice, lattice_step, wanted
from spica_stack.making.layers import Desk, Layers
from spica_stack.making.order import CoaddOrder
from spica_stack.making.partfile import REJECTED, PartWriter, disk_full_waits
from spica_stack.making.preparing import PreparedMember
from spica_stack.making.roster import roster_of
from spica_stack.making.sums import COUNT, PLANES, SumsFile
from spica_stack.making.tiling import (
    BYTES_PER_SAMPLE,
    layer_bytes,
    new_members,
    order_key,
    tile_path,
    tiles_of,
)
from spica_stack.science.combining import Combined, Rejected, Sums, accumulate, combine, finish, halo_px
from spica_stack.science.pixels import Box

STRIP_ROWS = 64
"""Rows that one task combines."""

NARROW_PX = 64
"""A block is cut in rows as long as these are more, then in columns."""


@dataclass(frozen=True, slots=True)
class TileNumbers:
    """What came of a tile."""

    number: int
    box: Box
    n_layers: int
    """Exposures that touch it."""
    n_rejected: int
    elapsed_s: float


class Bench:
    """What is needed for the tiles of one order: the desk, the exposures' weights, the sums it goes on from."""

    def __init__(self, order: CoaddOrder, prepared: Sequence[PreparedMember]) -> None:
        self.order, self.key, self.tiles = order, order_key(order), tiles_of(order)
        roster = {entry.number: entry for entry in roster_of(order, prepared)}
        self.shares = {number: entry.share for number, entry in roster.items()}
        self.priorities = {number: entry.priority for number, entry in roster.items()}
        self.base = None if order.base is None else SumsFile(order.base.sums)
        self.desk = Desk(order, [member for member in prepared if member.number in roster])

    def __enter__(self) -> Bench:
        self.desk.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.desk.__exit__(*error)


def make_tile(
    order: CoaddOrder,
    prepared: Sequence[PreparedMember],
    number: int,
    *,
    bench: Bench | None = None,
    sync: bool = True,
) -> TileNumbers:
    """Make one tile and write its file, whole.

    prepared: all members that are not the base's. bench: what an earlier tile of this order was made with.
    sync: wait for the disk. Raises `NotRetriable` with the name of the member that cannot be read.
    """
    if bench is None:
        with Bench(order, prepared) as own:
            return _make(own, number, sync)
    return _make(bench, number, sync)


def _make(bench: Bench, number: int, sync: bool) -> TileNumbers:
    begun = time.monotonic()
    order, box = bench.order, bench.tiles[number]
    path = tile_path(order, number)
    members = bench.desk.touching(_grown(box, _halo(order)))
    with (
        disk_full_waits(path),
        PartWriter(path, bench.key, box, order.grid.width, _planes(order), sync=sync) as writer,
    ):
        gains = _Gains(order) if wanted(order) else None
        for block in blocks(order, bench.desk, box):
            _block(bench, block, writer, gains)
        if gains is not None:
            writer.put_gains(gains.all())
    return TileNumbers(number, box, len(members), writer.n_rejected, round(time.monotonic() - begun, 3))


def _planes(order: CoaddOrder) -> Mapping[str, np.dtype[Any]]:
    planes: dict[str, np.dtype[Any]] = {
        "image": np.dtype(np.float32),
        "weight": np.dtype(np.float32),
        "exposures": np.dtype(np.int16),
    }
    return {**planes, **PLANES} if order.parameters.keep_sums else planes


def _halo(order: CoaddOrder) -> int:
    return halo_px(order.parameters.combine, order.parameters.clipping)


def _grown(box: Box, halo: int) -> Box:
    return box[0] - halo, box[1] + halo, box[2] - halo, box[3] + halo


def blocks(order: CoaddOrder, desk: Desk, box: Box) -> Iterator[Box]:
    """Cut a tile into what can be held at a time, with the exposures that are really there."""
    halo = _halo(order)
    layers = max(len(desk.touching(_grown(box, halo))), 1)
    x0, x1, y0, y1 = box
    held_px = layer_bytes(order) // (BYTES_PER_SAMPLE * layers)
    rows = held_px // (x1 - x0 + 2 * halo) - 2 * halo
    if rows >= y1 - y0 or (x1 - x0 <= NARROW_PX and y1 - y0 <= NARROW_PX):
        yield box
    elif rows >= NARROW_PX or x1 - x0 <= NARROW_PX:
        count = -(-(y1 - y0) // max(rows, NARROW_PX))
        edges = np.round(np.linspace(y0, y1, count + 1)).astype(int).tolist()
        for first, last in pairwise(edges):
            yield x0, x1, first, last
    else:
        middle = (x0 + x1) // 2
        yield from blocks(order, desk, (x0, middle, y0, y1))
        yield from blocks(order, desk, (middle, x1, y0, y1))


def _block(bench: Bench, box: Box, writer: PartWriter, gains: _Gains | None) -> None:
    halo = _halo(bench.order)
    outer = _grown(box, halo)
    layers = bench.desk.layers(outer, bench.desk.touching(outer))
    if gains is not None:
        gains.add(bench, layers)
    make = _adding if wanted(bench.order) else _combining
    strips = range(box[2], box[3], STRIP_ROWS)
    tasks: list[Callable[[], None]] = [
        partial(make, bench, layers, (box[0], box[1], first, min(first + STRIP_ROWS, box[3])), writer)
        for first in strips
    ]
    bench.desk.run(tasks)


def _weights(bench: Bench, layers: Layers) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    share = np.array([bench.shares[number] for number in layers.numbers], np.float32)
    priority = np.array([bench.priorities[number] for number in layers.numbers], np.float32)
    return share, priority


def _combining(bench: Bench, layers: Layers, strip: Box, writer: PartWriter) -> None:
    """Combine some rows and write them."""
    parameters, halo = bench.order.parameters, _halo(bench.order)
    first = strip[2] - halo - layers.box[2]
    rows = slice(first, first + strip[3] - strip[2] + 2 * halo)
    share, priority = _weights(bench, layers)
    combined = combine(
        layers.value[:, rows],
        layers.weight[:, rows],
        parameters.combine,
        halo=halo,
        share=share,
        priority=priority,
        clipping=parameters.clipping,
        want_rejected="rejected" in roles_of(bench.order),
    )
    _put(combined, strip, writer)
    if combined.rejected is not None:
        writer.put_rejected(strip[0], strip[2], _records(combined.rejected, layers, strip))
    writer.count_rejected(combined.n_rejected)


def _put(combined: Combined, strip: Box, writer: PartWriter) -> None:
    x, y = strip[0], strip[2]
    writer.put("image", x, y, combined.value)
    writer.put("weight", x, y, combined.weight)
    writer.put("exposures", x, y, combined.exposures)


def _records(rejected: Rejected, layers: Layers, strip: Box) -> NDArray[Any]:
    records = np.empty(len(rejected.x), REJECTED)
    records["x"] = rejected.x + (strip[0] + 1)
    records["y"] = rejected.y + (strip[2] + 1)
    records["exposure"] = np.array(layers.numbers, np.int32)[rejected.layer] + 1
    records["n_sigma"] = rejected.n_sigma
    return records


def _adding(bench: Bench, layers: Layers, strip: Box, writer: PartWriter) -> None:
    """Add some rows of the layers to what there was before, and write mean and sums."""
    rows = slice(strip[2] - layers.box[2], strip[3] - layers.box[2])
    shape = (strip[3] - strip[2], strip[1] - strip[0])
    sums = Sums.empty(shape) if bench.base is None else _sums_before(bench.base, strip)
    _, priority = _weights(bench, layers)
    accumulate(sums, layers.value[:, rows], layers.weight[:, rows], priority)
    _put(finish(sums), strip, writer)
    if bench.order.parameters.keep_sums:
        for plane in PLANES:
            writer.put(plane, strip[0], strip[2], getattr(sums, plane))


def _sums_before(base: SumsFile, strip: Box) -> Sums:
    total, share, square = (base.rows(plane, strip) for plane in PLANES)
    return Sums(total, share, square, base.rows(COUNT, strip).astype(np.int32))


class _Gains:
    """What each exposure adds within a tile, at the pixels of the lattice."""

    def __init__(self, order: CoaddOrder) -> None:
        self._step, self._members = lattice_step(order), new_members(order)
        self._found = [np.zeros((len(self._members), 0), np.float32)]

    def add(self, bench: Bench, layers: Layers) -> None:
        """Those of one block."""
        rows, columns = lattice(layers.box, self._step)
        before = None
        if (base := bench.base) is not None:
            x0, x1, y0, y1 = layers.box
            share, square = (
                np.concatenate(
                    [base.rows(plane, (x0, x1, y, y + 1))[0, columns] for y in range(y0, y1)[rows]]
                    or [np.empty(0)]
                ).astype(np.float64)
                for plane in ("share", "square")
            )
            before = share, square
        samples = layers.weight[:, rows, columns]
        weight = samples.reshape(len(samples), samples.shape[1] * samples.shape[2])  # of no layer, too
        depth = added_depth(weight, [bench.priorities[number] for number in layers.numbers], before)
        found = np.full((len(self._members), weight.shape[1]), np.nan, np.float32)
        found[[number - self._members.start for number in layers.numbers]] = depth
        self._found.append(found)

    def all(self) -> NDArray[np.float32]:
        """Shape (new members, pixels of the lattice in the tile)."""
        return np.concatenate(self._found, axis=1)
