"""What worker processes of the engine's tests do. Their own module: it is loaded by processes that are killed."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from spica_stack.making.order import CoaddOrder
from spica_stack.making.preparing import PreparedMember, prepare_member
from spica_stack.making.tile import make_tile
from spica_stack.making.tiling import prepared_path
from spica_stack.making.whole import coadd_stack


def killed_at(order: CoaddOrder, part: int, after_s: float) -> None:
    """Make the stack; some time after so many parts were done, be killed as by a power cut."""
    told = 0

    def tell(step: str, done: int, total: int) -> None:
        nonlocal told
        told += 1
        if told == part:
            threading.Thread(target=die, daemon=True).start()

    def die() -> None:
        time.sleep(after_s)
        os.kill(os.getpid(), signal.SIGKILL)

    coadd_stack(order, tell)


def prepare(order: CoaddOrder, numbers: Sequence[int]) -> None:
    """Some members."""
    for number in numbers:
        prepare_member(order, number).save(prepared_path(order, number))


def tiles(order: CoaddOrder, numbers: Sequence[int]) -> None:
    """Some tiles."""
    members = load(order)
    for number in numbers:
        make_tile(order, members, number)


def load(order: CoaddOrder) -> list[PreparedMember]:
    """What was prepared."""
    return [PreparedMember.load(prepared_path(order, number)) for number in range(len(order.members))]


def peaks(small: CoaddOrder, large: CoaddOrder, answer: Path) -> None:
    """Peak memory (bytes) after a small stack, by which all is loaded, and after a large one."""
    found = []
    for order in (small, large):
        coadd_stack(order)
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    answer.write_text(" ".join(map(str, found)))
    sys.stdout.flush()
