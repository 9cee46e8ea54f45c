"""Choosing a dead letter by the beginning of its id."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from spica_runtime.errors import UsageError


def the_one(letters: Iterable[dict[str, Any]], beginning: str) -> dict[str, Any]:
    """Find the dead letter whose id begins so.

    Raises
    ------
    UsageError
        There is none, or several.

    """
    found = [letter for letter in letters if letter["dead_letter_id"].startswith(beginning)]
    if len(found) != 1:
        how = "No dead letter has" if not found else f"{len(found)} dead letters have"
        raise UsageError(
            "unknown_dead_letter",
            f"{how} an id that begins with {beginning!r}: see `spica dead-letters list`.",
        )
    return found[0]
