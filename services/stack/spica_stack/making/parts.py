"""What a worker process does for one part of a stack. Which part it is, and what follows, is decided elsewhere."""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spica_proto.stacks import StackEngine
from spica_runtime.storage import sha256_of

from spica_stack.making.assembling import assemble
from spica_stack.making.layers import Desk
from spica_stack.making.order import CoaddOrder, CoaddResult, MemberFiles, Tell
from spica_stack.making.partfile import standing
from spica_stack.making.preparing import PreparedMember, prepare_member
from spica_stack.making.steps import Step
from spica_stack.making.tile import Bench, make_tile
from spica_stack.making.tiling import new_members, order_key, prepared_path, tile_path, tiles_of
from spica_stack.making.whole import coadd_stack

TOLD_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Task:
    """One part of a stack."""

    order: CoaddOrder
    step: Step
    number: int
    token: str
    """Of the making that it belongs to."""
    whole: bool
    """The last step does all of it."""
    engine: StackEngine


@dataclass(frozen=True, slots=True)
class Made:
    """What came of it."""

    elapsed_s: float
    path: str | None = None
    """Of its file, in the data folder; None: the part is the stack."""
    sha256: str | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)
    result: CoaddResult | None = None
    log: tuple[str, ...] = ()


class PartsMissingError(Exception):
    """Parts that were done have no file (any more)."""

    def __init__(self, step: Step, numbers: tuple[int, ...]) -> None:
        super().__init__(step, numbers)
        self.step, self.numbers = step, numbers


def parts_of(order: CoaddOrder) -> tuple[range, int]:
    """Into what parts a stack falls: numbers of the members to prepare, how many tiles to make."""
    return new_members(order), len(tiles_of(order))


def make_part(task: Task) -> Made:
    """Do one part.

    Raises
    ------
    PartsMissingError
        An earlier step is to be done once more.
    NotRetriable
        As the engine says, with the name of the member that cannot be used.

    """
    begun = time.monotonic()
    if task.step != "tile":
        _kept.put_away()
    made = _MAKERS[task.step](task)
    return Made(
        round(time.monotonic() - begun, 3), made.path, made.sha256, made.numbers, made.result, made.log
    )


def _prepare(task: Task) -> Made:
    with Desk(task.order, ()) as desk:
        prepared = prepare_member(task.order, task.number, desk.run)
    path = prepared_path(task.order, task.number)
    path.parent.mkdir(parents=True, exist_ok=True)
    prepared.save(path)
    return _file(task.order, path)


def _tile(task: Task) -> Made:
    bench = _kept.bench_for(task)
    numbers = make_tile(task.order, bench.prepared, task.number, bench=bench.bench)
    return _file(task.order, tile_path(task.order, task.number), {"n_layers": numbers.n_layers})


def _assemble(task: Task) -> Made:
    with _told(task.order) as tell:
        if task.engine == "swarp":
            from spica_stack.making.swarpwork import coadd_with_swarp

            result = coadd_with_swarp(task.order, tell)
        elif task.whole:
            result = coadd_stack(task.order, tell)
        else:
            key, tiles = order_key(task.order), tiles_of(task.order)
            stand = [standing(tile_path(task.order, k), key, box) is not None for k, box in enumerate(tiles)]
            _require("tile", dict(enumerate(stand)))
            result = assemble(task.order, _prepared(task))
    return Made(0.0, result=result, log=result.log)


_MAKERS = {"prepare": _prepare, "tile": _tile, "assemble": _assemble}


def _require(step: Step, stand: Mapping[int, bool]) -> None:
    if missing := tuple(number for number, stands in stand.items() if not stands):
        raise PartsMissingError(step, missing)


def _prepared(task: Task) -> tuple[PreparedMember, ...]:
    found = {number: _read(prepared_path(task.order, number)) for number in new_members(task.order)}
    _require("prepare", {number: prepared is not None for number, prepared in found.items()})
    return tuple(prepared for prepared in found.values() if prepared is not None)


def _read(path: Path) -> PreparedMember | None:
    """A prepared member; None where its file is gone, or is not whole (a power cut)."""
    try:
        return PreparedMember.load(path)
    except (OSError, ValueError, KeyError, TypeError):
        return None


@dataclass(slots=True)
class _Set:
    """What a worker has at hand for the tiles of one making."""

    token: str
    members: tuple[MemberFiles, ...]
    prepared: tuple[PreparedMember, ...]
    bench: Bench


class _Kept:
    """The latest one: a worker process does one part at a time, and mostly parts of one stack after another."""

    def __init__(self) -> None:
        self._set: _Set | None = None

    def bench_for(self, task: Task) -> _Set:
        """For this task's tile."""
        kept = self._set
        if kept is None or (kept.token, kept.members) != (task.token, task.order.members):
            self.put_away()
            prepared = _prepared(task)
            kept = self._set = _Set(
                task.token, task.order.members, prepared, Bench(task.order, prepared).__enter__()
            )
        return kept

    def put_away(self) -> None:
        """Close its files, and give its memory back."""
        if self._set is not None:
            self._set.bench.__exit__(None, None, None)
            self._set = None


_kept = _Kept()


def _file(order: CoaddOrder, path: Path, numbers: Mapping[str, Any] | None = None) -> Made:
    return Made(0.0, path.relative_to(order.data.root).as_posix(), sha256_of(path), numbers or {})


# ---- how far a long part is ----


def told_path(order: CoaddOrder) -> Path:
    """Where a worker writes how far the part is that makes the stack's files."""
    return order.data.path(f"{order.parts}/told.json")


@contextlib.contextmanager
def _told(order: CoaddOrder) -> Iterator[Tell]:
    """Write now and then what is told, from whichever thread; the file goes with the parts."""
    path, latest, lock = told_path(order), -math.inf, threading.Lock()
    path.parent.mkdir(parents=True, exist_ok=True)

    def tell(step: str, done: int, total: int) -> None:
        nonlocal latest
        with lock:
            now = time.monotonic()
            if now - latest < TOLD_EVERY_S and done != 0:
                return
            latest = now
            part = path.with_suffix(f".{os.getpid()}")
            with contextlib.suppress(OSError):  # a disk that is full stops what is made, not what is told
                part.write_text(json.dumps({"step": step, "done": done, "total": total}))
                part.replace(path)

    yield tell


def read_told(path: Path) -> tuple[str, int, int] | None:
    """What a worker wrote last; None where there is nothing."""
    try:
        told = json.loads(path.read_text())
        return str(told["step"]), int(told["done"]), int(told["total"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
