"""Live events for the page and any other listener: server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from spica_runtime.tasks import end
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from spica_console import tailing
from spica_console.output import as_json
from spica_console.telling import gist
from spica_console.web.app import Site, site_of

# A comment now and then keeps proxies from closing a quiet line.
_PING_S = 15.0


async def events(request: Request) -> Response:
    """GET /api/events?subject=image.>&since=10m: events as they happen, from now on or from earlier.

    The event's sequence is its `id`, so that a browser that lost the line goes on where it was.
    """
    subjects = tuple(request.query_params.getlist("subject"))
    last = request.headers.get("last-event-id", "")
    if last.isdigit():
        start = tailing.Start(sequence=int(last) + 1)
    else:
        start = tailing.parse_since(request.query_params.get("since"), datetime.now(UTC))
    return StreamingResponse(
        stream(site_of(request), subjects, start),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def stream(site: Site, subjects: tuple[str, ...], start: tailing.Start) -> AsyncIterator[str]:
    """Text of the stream; ends when the service stops."""
    queue: asyncio.Queue[tailing.Event] = asyncio.Queue(maxsize=1000)

    async def listen() -> None:
        async for event in tailing.events(site.bus, subjects, start):
            await queue.put(event)

    listener = asyncio.create_task(listen())
    stopped = asyncio.create_task(site.stop.wait())
    try:
        yield "retry: 1000\n\n"
        while True:
            coming = asyncio.create_task(queue.get())
            done, _ = await asyncio.wait(
                {coming, listener, stopped}, timeout=_PING_S, return_when=asyncio.FIRST_COMPLETED
            )
            if coming in done:
                event = coming.result()
                body = {**event.as_dict(), "gist": gist(event.subject, event.data)}
                yield f"id: {event.sequence}\nevent: spica\ndata: {as_json(body)}\n\n"
                continue
            coming.cancel()
            if done:
                return
            yield ": still here\n\n"
    finally:
        await end(listener, stopped)
