"""Kernels on disk: kept while their sources are the same, compiled anew when a function they call has changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from spica_imaging.kernelcache import kept, stamp_of

_CALLEE = """
from ours.compiled import jit

@jit
def step(x):
    return x + {step}
"""
_CALLER = """
from ours.callee import step
from ours.compiled import jit

@jit
def twice(x):
    return step(step(x))
"""
_KEPT = """
from pathlib import Path
import numba
from spica_imaging.kernelcache import kept

def jit(function):
    return kept(numba.njit(function), Path(__file__).parent)
"""
_BY_NUMBA = """
import numba

def jit(function):
    return numba.njit(cache=True)(function)
"""


def package(root: Path, compiled: str) -> Path:
    folder = root / "ours"
    folder.mkdir()
    for name, text in (("__init__", ""), ("compiled", compiled), ("caller", _CALLER)):
        (folder / f"{name}.py").write_text(text)
    edit(folder, 1)
    return folder


def edit(folder: Path, step: int) -> None:
    (folder / "callee.py").write_text(_CALLEE.format(step=step))


def called(root: Path, **environment: str) -> tuple[int, int]:
    """What twice(40) gives in a fresh interpreter, and how often it was found on disk."""
    code = "from ours.caller import twice; print(twice(40), sum(twice.stats.cache_hits.values()))"
    # -B: or an edit within the same second would be hidden by Python's own compiled file.
    told = subprocess.run(
        [sys.executable, "-B", "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(root), **environment},
    )  # fmt: skip
    result, hits = told.stdout.split()
    return int(result), int(hits)


def test_an_edited_callee_is_seen_by_its_caller(tmp_path: Path) -> None:
    folder = package(tmp_path, _KEPT)
    assert called(tmp_path) == (42, 0)
    assert called(tmp_path) == (42, 1)
    edit(folder, 1000)
    assert called(tmp_path) == (2040, 0)
    assert called(tmp_path) == (2040, 1)
    # An edit that moves functions leaves nothing behind either.
    (folder / "caller.py").write_text("\n\n# moved\n" + _CALLER)
    assert called(tmp_path) == (2040, 0)
    assert len(list((folder / "__pycache__").glob("caller.twice*"))) == 2


def test_numba_alone_does_not_see_it(tmp_path: Path) -> None:
    """Why the module under test exists; should this fail, it can go."""
    folder = package(tmp_path, _BY_NUMBA)
    assert called(tmp_path) == (42, 0)
    edit(folder, 1000)
    assert called(tmp_path)[0] == 42


def test_the_folder_that_the_user_names_is_used(tmp_path: Path) -> None:
    folder = package(tmp_path, _KEPT)
    elsewhere = tmp_path / "elsewhere"
    assert called(tmp_path, NUMBA_CACHE_DIR=str(elsewhere)) == (42, 0)
    assert called(tmp_path, NUMBA_CACHE_DIR=str(elsewhere)) == (42, 1)
    assert not list(folder.rglob("*.nbi"))


def test_without_the_compiler_functions_stay_what_they_are() -> None:
    def plain(x: int) -> int:
        return x

    assert kept(plain, Path(__file__).parent) is plain
    assert not isinstance(plain, numba.core.dispatcher.Dispatcher)


def test_the_stamp_tells_names_and_contents(tmp_path: Path) -> None:
    def stamp() -> str:
        stamp_of.cache_clear()
        return stamp_of((tmp_path,))

    (tmp_path / "a.py").write_text("x")
    first = stamp()
    (tmp_path / "a.txt").write_text("y")
    assert stamp() == first
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    renamed = stamp()
    (tmp_path / "b.py").write_text("y")
    assert len({first, renamed, stamp()}) == 3


@pytest.fixture(autouse=True)
def own_stamps() -> object:
    stamp_of.cache_clear()
    yield
    stamp_of.cache_clear()


def test_where_nothing_can_be_written_it_works_all_the_same(tmp_path: Path) -> None:
    folder = package(tmp_path, _KEPT)
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); from ours.caller import twice; print(twice(40))"
    )
    told = subprocess.run(
        [sys.executable, "-B", "-c", code], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert told.stdout.strip() == "42", told.stderr[-2000:]
    # What is half written is not taken for whole.
    assert called(tmp_path)[0] == 42
    assert not list(folder.rglob("*.tmp*"))
