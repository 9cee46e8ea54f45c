"""Work in processes of its own: what it may cost, and what becomes of those who ask."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from spica_ingest.jobs import Arrival, take_in
from spica_ingest.verification.isolation import Bounds, Exceeded, Isolation
from spica_ingest.verification.verifying import isolated, verify
from spica_runtime.errors import Retriable
from spica_runtime.storage import DataFolder

from tests.unit.ingest.frames import LIMITS, frame, write

BOUNDS = Bounds(time_s=20.0, memory_bytes=600_000_000)


@pytest.fixture(scope="module")
def helper() -> Iterator[Isolation]:
    with Isolation() as made:
        yield made


def helpers_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


@pytest.mark.parametrize("value", [1, "text", {"a": (1, 2)}])
def test_results_come_back(helper: Isolation, value: Any) -> None:
    assert helper.run(BOUNDS, dict, [("value", value)]) == {"value": value}


def test_each_piece_of_work_is_done_in_a_process_of_its_own(helper: Isolation) -> None:
    pids = {helper.run(BOUNDS, os.getpid) for _ in range(3)}
    assert len(pids) == 3 and os.getpid() not in pids
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_what_takes_too_long_is_ended(helper: Isolation) -> None:
    begun = time.monotonic()
    with pytest.raises(Exceeded) as caught:
        helper.run(Bounds(0.3, 10**9), time.sleep, 60)
    assert caught.value.code == "verification_timeout"
    assert time.monotonic() - begun < 10
    assert helper.run(BOUNDS, abs, -1) == 1


def test_what_wants_too_much_memory_does_not_get_it(helper: Isolation) -> None:
    with pytest.raises(Exceeded) as caught:
        helper.run(BOUNDS, bytearray, 2 * 10**9)
    assert caught.value.code == "verification_memory"
    with pytest.raises(Exceeded) as caught:
        helper.run(BOUNDS, np.ones, 10**9)
    assert caught.value.code == "verification_memory"
    assert len(helper.run(BOUNDS, bytearray, 10**6)) == 10**6


@pytest.mark.parametrize("crash", [lambda: (ctypes.string_at, 0), lambda: (os.abort,)])
def test_a_crash_is_tried_twice_and_told(helper: Isolation, crash: Callable[[], tuple[Any, ...]]) -> None:
    function, *arguments = crash()
    with pytest.raises(Exceeded) as caught:
        helper.run(BOUNDS, function, *arguments)
    assert caught.value.code == "verifier_crashed"
    assert caught.value.found in ("SIGSEGV", "SIGABRT")
    assert helper.run(BOUNDS, abs, -1) == 1


def test_nothing_can_be_written(helper: Isolation, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File too large"):
        helper.run(BOUNDS, (tmp_path / "x").write_bytes, b"content")
    assert (tmp_path / "x").read_bytes() == b""


def test_errors_come_back_as_what_they_are(helper: Isolation, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        helper.run(BOUNDS, (tmp_path / "gone").read_bytes)
    assert caught.value.filename == str(tmp_path / "gone")
    with pytest.raises(RuntimeError, match=r"(?s)ValueError: invalid literal.*Traceback"):
        helper.run(BOUNDS, int, "seven")


def test_a_child_ended_from_outside_is_no_verdict(helper: Isolation) -> None:
    with pytest.raises(Retriable) as caught:
        helper.run(BOUNDS, signal.raise_signal, signal.SIGTERM)
    assert caught.value.code == "verifier_lost"


def test_a_lost_helper_is_replaced() -> None:
    with Isolation() as helper:
        first = helper.run(BOUNDS, os.getppid)
        os.kill(first, signal.SIGKILL)
        second = helper.run(BOUNDS, os.getppid)
        assert second != first
    assert not psutil.pid_exists(second)


def test_with_the_helper_goes_what_it_works_at() -> None:
    before = set(helpers_of(os.getpid()))
    helper = Isolation()
    lost: list[BaseException] = []

    def wait() -> None:
        try:
            helper.run(BOUNDS, time.sleep, 60)
        except Retriable as error:
            lost.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    deadline = time.monotonic() + 20
    while len(set(helpers_of(os.getpid())) - before) < 2:  # the helper, and its child
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started = set(helpers_of(os.getpid())) - before
    helper.abort()
    waiting.join(timeout=20)
    assert not waiting.is_alive()
    assert len(lost) == 1
    helper.close()
    _, alive = psutil.wait_procs(started, timeout=10)
    assert alive == []


def test_what_exceeds_its_limits_is_a_finding() -> None:
    def exceed(_: Bounds) -> str:
        raise Exceeded("verification_timeout", "m", "f", "e")

    assert isolated(exceed, LIMITS, lambda finding: finding.code) == "verification_timeout"


def test_a_bomb_is_refused_within_the_limits(helper: Isolation, tmp_path: Path) -> None:
    """A compressed image whose only tile says that it holds a gigabyte."""
    import gzip
    import io

    from astropy.io import fits

    content = io.BytesIO()
    hdu = fits.CompImageHDU(np.zeros((64, 64), np.int16), compression_type="GZIP_1", tile_shape=(64, 64))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(content)
    content.seek(0)
    with fits.open(content, disable_image_compression=True) as hdus:
        table = hdus[1]
        header = table.header.copy()
    bomb = gzip.compress(bytes(2 * 30000 * 20000), compresslevel=9)
    header["ZNAXIS1"], header["ZNAXIS2"], header["ZTILE1"], header["ZTILE2"] = 30000, 20000, 30000, 20000
    header["PCOUNT"] = len(bomb)
    data = len(bomb).to_bytes(4, "big") + bytes(4) + bomb
    whole = fits.PrimaryHDU().header.tostring().encode() + header.tostring().encode() + data
    path = write(tmp_path / "bomb.fits.fz", whole + bytes(-len(whole) % 2880))
    limits = type(LIMITS)(10**10, 10**9, time_s=20, memory_bytes=600_000_000)
    verified = verify(path, limits, None, helper=helper)
    assert [reason.code for reason in verified.verdict.reasons] == ["verification_memory"]
    assert verified.digests is not None and verified.digests.size_bytes == path.stat().st_size


def test_a_fetched_file_is_linked_where_it_belongs_and_left_where_it_was(tmp_path: Path) -> None:
    data = DataFolder(tmp_path / "data")
    path = write(data.root / ".staging" / "fetch-1" / "900001p.fits.fz", frame(compressed=True))
    for _ in range(2):  # told twice: the same again
        taken = take_in(Arrival(path, fetched=True), data, LIMITS, None)
        assert taken.exposure is not None, taken.reasons
        assert data.path(taken.product.path).samefile(path)
    outside = write(tmp_path / "elsewhere.fits", frame())
    with pytest.raises(ValueError, match="outside of the staging area"):
        take_in(Arrival(outside, fetched=True), data, LIMITS, None)
