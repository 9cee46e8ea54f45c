from __future__ import annotations

import os

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
