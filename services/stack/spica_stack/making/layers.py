"""The resampled layers of a part of the stack: one per exposure that touches it.

Every task of the pool makes some rows of one layer: reads what it needs of the CCDs, prepares and resamples it. No
sample depends on how the rows were shared out.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

import numpy as np
from spica_imaging.profiles import load_profiles

from spica_stack.errors import input_unreadable, unknown_profile
from spica_stack.making.members import CcdSource, open_member
from spica_stack.making.order import CoaddOrder
from spica_stack.making.preparing import PreparedCcd, PreparedMember, Room
from spica_stack.making.tiling import layer_bytes
from spica_stack.science.pixels import Box, Image
from spica_stack.science.resampling import Mesh, make_mesh, resample_into

T = TypeVar("T")

BAND_ROWS = 256
"""Rows of a layer that one task makes."""

MESH_SHARE = 0.1
"""Of the memory, for the meshes of CCDs that are likely to be needed again."""

SMALL_PX, MOST_PX, NARROW_PX = 40_000, 1_500_000, 16
WORTH_A_CUT = 0.75
"""A box is cut where its halves need less than this share of what it needs whole, or that is more than `MOST_PX`."""

MOST_OPEN = 500
"""Members of which headers are kept at hand."""

THREAD_BYTES, THREADS_SHARE = 60_000_000, 0.3
"""What one thread has in hand, patches of inputs and what is made of them; and the share of the memory for that."""


def touches(a: Box, b: Box) -> bool:
    """Whether two boxes have a pixel in common."""
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]


def common(a: Box, b: Box) -> Box:
    """The pixels of both."""
    return max(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), min(a[3], b[3])


def threads_of(order: CoaddOrder) -> int:
    """How many threads work on this order here: as many as are asked for, or as cores and memory allow."""
    return order.threads or max(
        1, min(len(os.sched_getaffinity(0)), int(THREADS_SHARE * order.memory_bytes / THREAD_BYTES))
    )


@dataclass(frozen=True, slots=True)
class Layers:
    """Samples of the exposures that touch a part of the stack."""

    box: Box
    """Output pixels; may reach beyond the grid, where no sample has weight."""
    numbers: tuple[int, ...]
    """Member of each layer."""
    value: Image
    """Shape (layers, height, width). Where the weight is 0, anything may stand."""
    weight: Image
    """1 / variance; 0: no sample."""


class _Hand(threading.local):
    """What each thread has of its own."""

    def __init__(self) -> None:
        self.room = Room()


class Desk:
    """Context manager: what a worker has at hand while it works on tiles of one order."""

    def __init__(self, order: CoaddOrder, prepared: Sequence[PreparedMember]) -> None:
        self.order = order
        self.members = {member.number: member for member in prepared if member.ccds}
        windows = [(number, *ccd.window) for number, member in self.members.items() for ccd in member.ccds]
        table = np.array(windows, np.int64).reshape(-1, 5)
        self._owners, self._windows = table[:, 0], table[:, 1:]
        self.threads = threads_of(order)
        self._pool: ThreadPoolExecutor | None = None
        self._profiles = load_profiles(order.profiles)
        self._sources: OrderedDict[int, dict[str, CcdSource]] = OrderedDict()
        self._hand = _Hand()
        self._opening: dict[int, threading.Lock] = {number: threading.Lock() for number in self.members}
        self._meshes: OrderedDict[tuple[int, str], Mesh] = OrderedDict()
        self._mesh_bytes = 0
        self._lock = threading.Lock()
        self._samples = np.empty(0, np.float32)

    def __enter__(self) -> Desk:
        if self.threads > 1:
            self._pool = ThreadPoolExecutor(self.threads, "stack")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def run(self, tasks: Iterable[Callable[[], T]]) -> list[T]:
        """Do all of it, on as many threads as there are; results in the order of the tasks.

        The first that fails ends it: what was not begun is not done.
        """
        if self._pool is None:
            return [task() for task in tasks]
        futures: list[Future[T]] = [self._pool.submit(task) for task in tasks]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            for future in futures:
                future.cancel()
            wait(futures)
        for future in futures:
            if not future.cancelled() and (error := future.exception()) is not None:
                raise error
        return [future.result() for future in futures]

    def touching(self, box: Box) -> list[int]:
        """Members that may have samples there, in their order."""
        x0, x1, y0, y1 = self._windows.T
        there = (x0 < box[1]) & (box[0] < x1) & (y0 < box[3]) & (box[2] < y1)
        return [int(number) for number in np.unique(self._owners[there])]

    def layers(self, box: Box, numbers: Sequence[int]) -> Layers:
        """Resample these members. The arrays are used again by the next call."""
        height, width = box[3] - box[2], box[1] - box[0]
        shape = (len(numbers), height, width)
        size = len(numbers) * height * width
        if len(self._samples) < 2 * size:
            self._samples = np.empty(0, np.float32)
            self._samples = np.empty(max(2 * size, layer_bytes(self.order) // 4), np.float32)
        value = self._samples[:size].reshape(shape)
        weight = self._samples[size : 2 * size].reshape(shape)
        tasks = []
        for first in range(0, height, BAND_ROWS):
            rows = slice(first, min(first + BAND_ROWS, height))
            band = (box[0], box[1], box[2] + rows.start, box[2] + rows.stop)
            for layer, number in enumerate(numbers):
                tasks.append(self._filling(number, band, value[layer, rows], weight[layer, rows]))
        self.run(tasks)
        return Layers(box, tuple(numbers), value, weight)

    def _filling(self, number: int, box: Box, value: Image, weight: Image) -> Callable[[], None]:
        def fill() -> None:
            member = self.members[number]
            weight[:] = 0
            for ccd in member.ccds:
                if touches(ccd.window, box):
                    self._add(number, ccd, common(ccd.window, box), box, value, weight)

        return fill

    def _add(self, number: int, ccd: PreparedCcd, part: Box, box: Box, value: Image, weight: Image) -> None:
        """Resample one CCD into some rows of its exposure's layer."""
        source = self._source(number, ccd.name)
        mesh = self._mesh(number, ccd, source)
        for piece, needed in pieces(mesh, part):
            patch = ccd.patch(source, needed, self._hand.room)
            rows = slice(piece[2] - box[2], piece[3] - box[2])
            columns = slice(piece[0] - box[0], piece[1] - box[0])
            resample_into(patch, mesh, (piece[0], piece[2]), value[rows, columns], weight[rows, columns])

    def _source(self, number: int, name: str) -> CcdSource:
        """A CCD, its member opened when it is needed first, or was not for long."""
        files = self.order.members[number]
        with self._opening[number]:
            sources = self._sources.get(number)
            if sources is None:
                if files.profile not in self._profiles:
                    raise unknown_profile(files.profile, self._profiles)
                opened = open_member(files, self._profiles[files.profile])
                sources = {source.name: source for source in opened if isinstance(source, CcdSource)}
        with self._lock:
            self._sources[number] = sources
            self._sources.move_to_end(number)
            while len(self._sources) > MOST_OPEN:
                self._sources.popitem(last=False)
        if name not in sources:
            raise input_unreadable(files.image, ValueError(f"CCD {name}, which it had, is gone"))
        return sources[name]

    def _mesh(self, number: int, ccd: PreparedCcd, source: CcdSource) -> Mesh:
        """Where output pixels fall on this CCD; computed anew when it was not needed for long."""
        key = (number, ccd.name)
        with self._lock:
            if (mesh := self._meshes.get(key)) is not None:
                self._meshes.move_to_end(key)
                return mesh
        parameters = self.order.parameters
        mesh = make_mesh(
            self.order.grid,
            source.wcs,
            source.shape,
            ccd.flux_scale,
            source.origin,
            parameters.resampling,
            parameters.oversampling,
        )
        if mesh is None:
            raise AssertionError(f"{ccd.name} was prepared for a grid that it does not touch")
        with self._lock:
            if key not in self._meshes:
                self._meshes[key] = mesh
                self._mesh_bytes += mesh.nodes.nbytes
            while self._mesh_bytes > MESH_SHARE * self.order.memory_bytes and len(self._meshes) > 1:
                self._mesh_bytes -= self._meshes.popitem(last=False)[1].nodes.nbytes
        return mesh


def pieces(mesh: Mesh, box: Box) -> Iterable[tuple[Box, Box]]:
    """Cut an output box into pieces with what each needs of the CCD, where that spares reading.

    A wide and low box lies aslant on a CCD that is turned: its pieces need much less, taken together.
    """
    needed = mesh.needs(box)
    if needed is None:
        return
    x0, x1, y0, y1 = box
    if area(needed) > SMALL_PX and max(x1 - x0, y1 - y0) >= NARROW_PX:
        halves: tuple[Box, Box]
        if x1 - x0 >= y1 - y0:
            middle = (x0 + x1) // 2
            halves = (x0, middle, y0, y1), (middle, x1, y0, y1)
        else:
            middle = (y0 + y1) // 2
            halves = (x0, x1, y0, middle), (x0, x1, middle, y1)
        parts = [mesh.needs(half) for half in halves]
        together = sum(area(part) for part in parts if part is not None)
        if together < WORTH_A_CUT * area(needed) or area(needed) > MOST_PX:
            for half in halves:
                yield from pieces(mesh, half)
            return
    yield box, needed


def area(box: Box) -> int:
    """Pixels of a box."""
    return (box[1] - box[0]) * (box[3] - box[2])
