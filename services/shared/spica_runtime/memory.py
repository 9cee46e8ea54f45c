"""Giving memory back to the system that the allocator keeps for later."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


@cache
def _trim() -> Any:
    """The C library's `malloc_trim`; None where it has none (macOS, musl)."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None


def give_back() -> None:
    """Return freed memory to the system, where the C library can: glibc keeps what large arrays left behind.

    Once it has seen a large array freed, glibc takes new ones of up to 32 MB from heaps that shrink at their end only: a
    process that works on one CCD after the other would hold the leavings of several. Takes some ms.
    """
    trim = _trim()
    if trim is not None:
        trim(0)
