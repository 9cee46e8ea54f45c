"""What can go wrong with a delivery, in words that say what to do."""

from __future__ import annotations

import errno
from pathlib import Path

from spica_runtime.errors import NotRetriable, Retriable, Unavailable


def unknown_stack(stack_id: str) -> NotRetriable:
    """An event names a stack that the store does not know."""
    return NotRetriable("unknown_stack", f"The store knows no stack {stack_id}: it was not made here.")


def product_missing(path: Path) -> NotRetriable:
    """A product named by the event is not in the data folder."""
    return NotRetriable("product_missing", f"{path} is not there any more: make the stack again.")


def product_changed(path: Path, found: str, expected: str) -> NotRetriable:
    """A product is not what it was when it was measured."""
    return NotRetriable(
        "product_changed",
        f"{path} has changed since it was made: SHA-256 is {found}, expected {expected}. Make the stack again.",
        {"found": found, "expected": expected},
    )


def delivery_differs(path: Path, found: str, expected: str) -> Retriable:
    """What was read back from the destination is not what was written."""
    return Retriable(
        "delivery_differs",
        f"{path} reads back with SHA-256 {found}, expected {expected}: the copy is made again.",
        {"found": found, "expected": expected},
    )


def destination_taken(folder: Path, stack_id: str) -> NotRetriable:
    """Every folder that the stack could have belongs to others."""
    return NotRetriable(
        "destination_taken",
        f"{folder} and those it could be delivered to instead belong to other stacks than {stack_id}, or hold files that no "
        "stack is named for: nothing is replaced. Move them away and send the message again.",
    )


def destination_fails(destination: Path, error: OSError) -> Unavailable:
    """The destination cannot be written to, for now: delivery waits."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(
            "destination_full", f"No space left at {destination}. Free some; the delivery goes on by itself."
        )
    return Unavailable(
        "destination_unavailable",
        f"Cannot write to {destination}: {error.strerror or error}. Make it a folder that can be written to, or name "
        "another with SPICA_EXPORT_DESTINATION; the delivery goes on by itself.",
    )
