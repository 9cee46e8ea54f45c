from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from spica_runtime.compute import Compute
from spica_runtime.errors import NotRetriable, Retriable


def _double(number: int) -> int:
    return 2 * number


def _die() -> None:
    os._exit(3)


def _refuse() -> None:
    raise NotRetriable("refused", "No.", {"n": 1})


async def test_work_is_done_in_another_process_and_survives_a_worker_that_dies() -> None:
    compute = Compute(1)
    try:
        assert await compute.run(_double, 21) == 42
        assert await compute.run(os.getpid) != os.getpid()
        with pytest.raises(NotRetriable) as caught:
            await compute.run(_refuse)
        assert caught.value.numbers == {"n": 1}
        with pytest.raises(Retriable) as died:
            await compute.run(_die)
        assert died.value.code == "worker_died"
        assert await compute.run(_double, 4) == 8
    finally:
        compute.close()


SERVICE = """
import asyncio, os, sys, time
from spica_runtime.compute import Compute

async def main():
    compute = Compute(1)
    print(await compute.run(os.getpid), flush=True)
    await compute.run(time.sleep, 60)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_workers_go_with_a_service_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    service = subprocess.Popen([sys.executable, tmp_path / "service.py"], stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None
    with service.stdout:
        worker = psutil.Process(int(service.stdout.readline()))
    service.kill()
    service.wait()
    for _ in range(100):
        if not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    worker.kill()
    pytest.fail("the worker outlived its service")
