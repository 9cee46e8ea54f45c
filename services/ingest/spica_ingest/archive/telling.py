"""How far a transfer is, told to whoever listens: at most once a second, and once at its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from spica_proto.images import ImageProgress
from spica_runtime.tasks import end

from spica_ingest.archive.transfer import Tell, Transfer

Publish = Callable[[ImageProgress], Awaitable[None]]

EVERY_S = 1.0


@asynccontextmanager
async def told(
    publish: Publish, name: str, uri: str, *, total: int | None = None, every_s: float = EVERY_S
) -> AsyncIterator[Tell]:
    """Yield a function that hears of progress; what it heard last is published from time to time."""
    last = Transfer(0, total, None)
    news = asyncio.Event()

    def tell(transfer: Transfer) -> None:
        nonlocal last
        last = transfer
        news.set()

    def message(*, ended: bool) -> ImageProgress:
        return ImageProgress(
            name=name,
            stage="fetch",
            uri=uri,
            done=last.done,
            total=last.total,
            per_second=last.per_second,
            ended=ended,
        )

    async def keep_telling() -> None:
        while True:
            await news.wait()
            news.clear()
            await publish(message(ended=False))
            await asyncio.sleep(every_s)

    telling = asyncio.create_task(keep_telling())
    try:
        yield tell
    finally:
        await end(telling)
        await publish(message(ended=True))
