"""Real frames, where they are at hand."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


def real_data(relative: str) -> Path:
    """Path of real data beside the project, or skip. In CI its absence is a failure."""
    path = _ROOT.parent / "shared" / "data" / relative
    if not path.exists():
        _absent(f"real data {relative!r} is not at {path}")
    return path


def peer_program(*names: str) -> str:
    """Path of a peer program, the first of these names that is installed, or skip; in CI it must be there."""
    for name in names:
        if found := shutil.which(name):
            return found
    _absent(f"none of {', '.join(names)} is installed (Debian packages of the same or similar name)")
    raise AssertionError("unreachable")


def _absent(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"in CI this must be there: {what}")
    pytest.skip(what)
