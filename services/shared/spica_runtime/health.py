"""Health and metrics of one service over HTTP: /healthz (alive), /readyz (can work), /metrics."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from spica_runtime.bus import Bus
from spica_runtime.database import CONNECTION_ERRORS
from spica_runtime.errors import SpicaError
from spica_runtime.metrics import Metrics
from spica_runtime.pg import Pool
from spica_runtime.provenance import CODE_VERSION


class QuietServer(uvicorn.Server):
    """A uvicorn that leaves signals to the service it lives in."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do not touch signal handlers."""
        yield


@asynccontextmanager
async def serve_http(app: Starlette, host: str, port: int) -> AsyncIterator[str]:
    """Serve an application for the length of a block; yields its URL. Port 0 picks a free one."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SpicaError(
            "port_busy",
            f"Port {port} on {host} cannot be used: {error.strerror}. Choose another one in the settings (0: any).",
            {"port": port},
        ) from error
    server = QuietServer(
        uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=2)
    )
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://{host}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


def health_app(service: str, pool: Pool, bus: Bus, metrics: Metrics, more: Sequence[Route] = ()) -> Starlette:
    """The three endpoints of one service, and what else it serves."""

    async def alive(_request: Request) -> Response:
        return JSONResponse({"service": service, "version": CODE_VERSION, "status": "alive"})

    async def ready(_request: Request) -> Response:
        parts = {"bus": bus.nc.is_connected, "store": await _store_answers(pool)}
        good = all(parts.values())
        return JSONResponse({"service": service, "ready": good, **parts}, status_code=200 if good else 503)

    async def numbers(_request: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/healthz", alive), Route("/readyz", ready), Route("/metrics", numbers), *more]
    )


async def _store_answers(pool: Pool) -> bool:
    try:
        return await asyncio.wait_for(pool.fetchval("SELECT true"), timeout=2) is True
    except CONNECTION_ERRORS:
        return False
