"""A whole stack in one process: what stands already is not made again."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from spica_stack.making.assembling import assemble, the_roster
from spica_stack.making.layers import Desk
from spica_stack.making.order import CoaddOrder, CoaddResult, Tell
from spica_stack.making.partfile import standing
from spica_stack.making.preparing import PreparedMember, Run, prepare_member
from spica_stack.making.tile import Bench, make_tile
from spica_stack.making.tiling import new_members, order_key, prepared_path, product_path, tile_path, tiles_of


def coadd_stack(order: CoaddOrder, tell: Tell | None = None) -> CoaddResult:
    """Make the stack's files: prepare, tile, assemble. The folder of its parts stays: see `remove_parts`.

    Parts that stand are taken if they were made for this very order; those of others are left alone. Members that add
    nothing are left out, and the result's log says why; one that cannot be read fails the stack by its name.
    """
    told = tell or _silent
    product_path(order, "image")  # a name that leads elsewhere is refused before any work
    begun = time.monotonic()
    prepared = _prepared(order, told)
    the_roster(order, prepared)
    tiled_from = time.monotonic()
    _tiles(order, prepared, told)
    assembled_from = time.monotonic()
    told("assemble", 0, 1)
    result = assemble(order, prepared)
    told("assemble", 1, 1)
    elapsed = {
        "prepare": round(tiled_from - begun, 3),
        "tile": round(assembled_from - tiled_from, 3),
        "assemble": round(time.monotonic() - assembled_from, 3),
    }
    return replace(result, elapsed_s=elapsed)


def remove_parts(order: CoaddOrder) -> None:
    """Remove what was needed only until the stack's files stood."""
    shutil.rmtree(order.data.path(order.parts), ignore_errors=True)


def _silent(step: str, done: int, total: int) -> None:
    """Nobody listens."""


def _prepared(order: CoaddOrder, tell: Tell) -> list[PreparedMember]:
    """All members that are not the base's, prepared."""
    numbers = new_members(order)
    tell("prepare", 0, len(numbers))
    prepared = []
    # Two members at a time, so that no thread waits while the next one's headers are read.
    with Desk(order, ()) as desk, ThreadPoolExecutor(2 if desk.threads > 1 else 1, "prepare") as drivers:
        try:
            for member in drivers.map(partial(_one, order, desk.run), numbers):
                prepared.append(member)
                tell("prepare", len(prepared), len(numbers))
        except BaseException:
            drivers.shutdown(cancel_futures=True)
            raise
    return prepared


def _one(order: CoaddOrder, run: Run, number: int) -> PreparedMember:
    if (member := _standing_member(order, number)) is not None:
        return member
    member = prepare_member(order, number, run)
    path = prepared_path(order, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    member.save(path)
    return member


def _standing_member(order: CoaddOrder, number: int) -> PreparedMember | None:
    """What was prepared before, if it can be read."""
    try:
        return PreparedMember.load(prepared_path(order, number))
    except (OSError, ValueError, KeyError, EOFError):
        return None


def _tiles(order: CoaddOrder, prepared: list[PreparedMember], tell: Tell) -> None:
    boxes, key = tiles_of(order), order_key(order)
    # Written without waiting for the disk: after a power cut, what stands is to be doubted.
    wanted = [
        number
        for number, box in enumerate(boxes)
        if standing(tile_path(order, number), key, box, doubted=True) is None
    ]
    done = len(boxes) - len(wanted)
    tell("tile", done, len(boxes))
    if wanted:
        with Bench(order, prepared) as bench:
            for number in wanted:
                make_tile(order, prepared, number, bench=bench, sync=False)
                done += 1
                tell("tile", done, len(boxes))
