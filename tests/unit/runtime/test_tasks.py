"""Tasks are ended for certain."""

from __future__ import annotations

import asyncio
import gc

import pytest
from spica_runtime.tasks import end


async def test_a_task_that_loses_a_cancellation_is_cancelled_again() -> None:
    heard = 0

    async def stubborn() -> None:
        nonlocal heard
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                heard += 1
                if heard == 3:
                    raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await end(task)
    assert task.cancelled()
    assert heard == 3


async def test_a_cancellation_that_meets_the_result_is_lost_by_wait_for_and_still_the_task_ends() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()
    taken = []

    async def read() -> None:
        while True:
            taken.append(await asyncio.wait_for(queue.get(), timeout=60))

    task = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    queue.put_nowait(1)
    await asyncio.sleep(0)  # the result is there, the task has not been woken yet
    async with asyncio.timeout(5):
        await end(task)
    assert task.done()


async def test_what_tasks_end_with_is_their_own_affair(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("mine")

    async def work() -> int:
        return 7

    tasks = [asyncio.create_task(fail()), asyncio.create_task(work())]
    await asyncio.wait(tasks)
    await end(*tasks)
    assert tasks[1].result() == 7
    tasks.clear()
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_nothing_to_end_is_fine() -> None:
    await end()
