"""Scratch files: within a budget, gone afterwards, and never another's that lives."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from spica_stack import spool as module
from spica_stack.spool import Spool, sweep_scratch

ARRAY = np.arange(1000, dtype=np.float32)

_HOLDER = """
import sys
from pathlib import Path
import numpy as np
from spica_stack.spool import Spool
with Spool(Path(sys.argv[1]), 0) as spool:
    spool.keep(np.ones(10, np.float32))
    print("kept", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process with a scratch folder of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None and process.stdout.readline() == "kept\n"
        try:
            yield process
        finally:
            process.kill()


def scratch(folder: Path) -> list[Path]:
    return sorted(folder.glob(".scratch-*"))


def test_the_spool_keeps_within_its_budget_and_cleans_up(tmp_path: Path) -> None:
    stale = tmp_path / ".scratch-killed"
    stale.mkdir()
    array = np.arange(1000, dtype=np.float32)
    with Spool(tmp_path, 4000) as spool:
        assert spool.keep(array) is array
        mapped = spool.keep(array)
        assert isinstance(mapped, np.memmap)
        np.testing.assert_array_equal(mapped, array)
        assert not stale.exists()
    assert not list(tmp_path.iterdir())


def test_a_second_run_leaves_the_living_one_alone(tmp_path: Path) -> None:
    with Spool(tmp_path, 0) as first:
        kept = first.keep(ARRAY)
        (folder,) = scratch(tmp_path)
        with Spool(tmp_path, 0) as second:
            second.keep(ARRAY)
            assert len(scratch(tmp_path)) == 2
        assert scratch(tmp_path) == [folder] and (folder / "000000.npy").exists()
        np.testing.assert_array_equal(first.keep(ARRAY + 1), kept + 1)
    assert scratch(tmp_path) == []


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        with Spool(tmp_path, 0):
            assert len(scratch(tmp_path)) == 1
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
        assert len(scratch(tmp_path)) == 1
        with Spool(tmp_path, 0):
            assert scratch(tmp_path) == []


def test_only_old_leftovers_that_nobody_holds_are_swept(tmp_path: Path) -> None:
    stack = tmp_path / "s1"
    for name in (".scratch-old", ".scratch-new", "kept"):
        (stack / name).mkdir(parents=True)
        (stack / name / "000000.npy").write_bytes(b"x")
    with Spool(tmp_path / "s2", 0) as living:
        living.keep(ARRAY)
        (held,) = scratch(tmp_path / "s2")
        for path in (stack / ".scratch-old", stack / "kept", held):
            os.utime(path, (1e9, 1e9))
        assert sweep_scratch(tmp_path) == 1
        assert held.exists()
    assert sorted(path.name for path in stack.iterdir()) == [".scratch-new", "kept"]
    assert sweep_scratch(tmp_path / "nowhere") == 0


def test_a_folder_that_was_swept_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, swept = module._locked, []

    def slow(folder: Path, *, unless_unlockable: bool = False) -> int | None:
        if not unless_unlockable and not swept:
            swept.append(folder)
            assert module._sweep([folder]) == 1
        return real(folder, unless_unlockable=unless_unlockable)

    monkeypatch.setattr(module, "_locked", slow)
    with Spool(tmp_path, 0) as spool:
        np.testing.assert_array_equal(spool.keep(ARRAY), ARRAY)
        assert len(scratch(tmp_path)) == 1 and scratch(tmp_path) != swept


def test_a_folder_that_is_swept_while_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, swept = module.fcntl.flock, []

    def slow(descriptor: int, operation: int) -> None:
        if not swept:  # a sweeper had the lock just before, and is done
            swept.extend(scratch(tmp_path))
            shutil.rmtree(swept[0])
        real(descriptor, operation)

    monkeypatch.setattr(module.fcntl, "flock", slow)
    with Spool(tmp_path, 0) as spool:
        np.testing.assert_array_equal(spool.keep(ARRAY), ARRAY)
        assert len(scratch(tmp_path)) == 1 and scratch(tmp_path) != swept


def test_without_locks_nothing_is_swept_and_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(module.fcntl, "flock", refuse)
    (tmp_path / ".scratch-someones").mkdir()
    with Spool(tmp_path, 0) as spool:
        np.testing.assert_array_equal(spool.keep(ARRAY), ARRAY)
    assert [path.name for path in scratch(tmp_path)] == [".scratch-someones"]
