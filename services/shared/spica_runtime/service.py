"""How a service is put together, run and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import nats.micro
import structlog
from pydantic import ValidationError
from starlette.routing import Route

from spica_runtime.bus import Bus, connect_bus
from spica_runtime.compute import Compute
from spica_runtime.database import CONNECTION_ERRORS, connect_pool, current_migration, newest_migration
from spica_runtime.dispatch import Dispatcher
from spica_runtime.errors import SpicaError, Unavailable
from spica_runtime.handling import Routes
from spica_runtime.health import health_app, serve_http
from spica_runtime.locating import Files
from spica_runtime.logs import configure_logs
from spica_runtime.metrics import Metrics
from spica_runtime.nodes import Node, Registration, open_node
from spica_runtime.outbox import Relay, ensure_stream
from spica_runtime.pg import Pool
from spica_runtime.provenance import CODE_VERSION
from spica_runtime.receiving import BUS_ERRORS
from spica_runtime.settings import PlatformSettings, ServiceSettings
from spica_runtime.sorting import Sorter
from spica_runtime.storage import DataFolder
from spica_runtime.tasks import end
from spica_runtime.transfer import data_route

log = structlog.get_logger(__name__)

S = TypeVar("S", bound=ServiceSettings)
Background = Callable[[asyncio.Event], Coroutine[Any, Any, None]]

_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Platform(Generic[S]):
    """What the composition root of a service is given."""

    name: str
    platform_settings: PlatformSettings
    settings: S
    pool: Pool
    data: DataFolder
    compute: Compute
    bus: Bus
    node: Node
    files: Files
    """Where the files named in the store are, on whichever node."""


@dataclass(frozen=True, slots=True)
class Service:
    """What it gives back: who answers which message, and what runs beside (until the event is set)."""

    routes: Routes
    background: tuple[Background, ...] = ()
    close: tuple[Callable[[], Awaitable[None]], ...] = ()
    """Called at the end, after all work."""


Compose = Callable[[Platform[S]], Service]


async def serve(
    name: str,
    settings: S,
    compose: Compose[S],
    *,
    platform_settings: PlatformSettings,
    stop: asyncio.Event,
    ready: asyncio.Event | None = None,
) -> None:
    """Run a service until `stop` is set. Opened in order, closed in the opposite order, the bus last."""
    metrics = Metrics(name)
    async with AsyncExitStack() as stack:
        bus = await _open_bus(stack, platform_settings, name, stop)
        if bus is None:
            return
        pool = await _open_store(platform_settings, stop)
        if pool is None:
            return
        stack.push_async_callback(_close_pool, pool)
        compute = Compute(settings.workers)
        stack.callback(compute.close)
        data = DataFolder(platform_settings.data)
        data.root.mkdir(parents=True, exist_ok=True)
        await _ensure_stream(bus, pool, stop)
        relay = Relay(pool, bus)
        node = await open_node(platform_settings, data.root)
        files = Files(data, pool, node, platform_settings)
        service = compose(Platform(name, platform_settings, settings, pool, data, compute, bus, node, files))
        for close in service.close:
            stack.push_async_callback(close)
        app = health_app(name, pool, bus, metrics, _for_nodes(node, data, platform_settings))
        url = await stack.enter_async_context(
            serve_http(app, _host(settings, platform_settings), settings.health_port)
        )
        registration = Registration(
            pool, node, name, _seen_from_nodes(url, platform_settings), platform_settings.node_heartbeat_s
        )
        await registration.enter(stop)
        stack.push_async_callback(registration.leave)
        sorter = Sorter(name, node.node_id, pool, bus, platform_settings) if node.placed else None
        dispatcher = Dispatcher(
            name,
            service.routes,
            pool=pool,
            bus=bus,
            relay=relay,
            settings=settings,
            metrics=metrics,
            sorter=sorter,
        )
        with contextlib.suppress(*BUS_ERRORS):
            await _introduce(bus, name, url)
        log.info("service ready", subjects=sorted(service.routes), health=url, pid=os.getpid())
        if ready is not None:
            ready.set()
        relay_stop = asyncio.Event()
        relaying = asyncio.create_task(relay.run(relay_stop), name="relay")
        working = [
            asyncio.create_task(dispatcher.run(stop), name="dispatch"),
            asyncio.create_task(registration.run(stop), name="heartbeat"),
            *(asyncio.create_task(task(stop), name="background") for task in service.background),
        ]
        try:
            await _until_stopped([relaying, *working], working, stop, settings.shutdown_grace_s)
        finally:
            # Work in flight may still have put events into the outbox: the relay goes after it.
            relay_stop.set()
            await relaying
    log.info("service stopped")


def _for_nodes(node: Node, data: DataFolder, settings: PlatformSettings) -> tuple[Route, ...]:
    """Where images are placed on nodes and these share a secret: this node's files."""
    if not node.placed or settings.node_token is None:
        return ()
    return (data_route(data, settings.node_token.get_secret_value()),)


def _host(settings: ServiceSettings, platform_settings: PlatformSettings) -> str:
    """Where to answer: as this service's settings say, else where other nodes look for this one."""
    address = platform_settings.node_address
    if address is None or "health_host" in settings.model_fields_set:
        return settings.health_host
    return address


def _seen_from_nodes(url: str, settings: PlatformSettings) -> str:
    """The address of a service for other nodes: it may well answer on 0.0.0.0."""
    if settings.node_address is None:
        return url
    address = settings.node_address
    return f"http://{f'[{address}]' if ':' in address else address}:{url.rsplit(':', 1)[1]}"


async def _until_stopped(
    watched: list[asyncio.Task[None]], working: list[asyncio.Task[None]], stop: asyncio.Event, grace_s: float
) -> None:
    """Wait for the stop; a task that ends with an error before that stops the service."""
    stopping: asyncio.Task[Any] = asyncio.create_task(stop.wait())
    try:
        pending = {stopping, *watched}
        while stopping in pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if any(task.exception() for task in done):
                break
        stop.set()
        _, late = await asyncio.wait(working, timeout=grace_s + 5)
        await end(*late)
        for result in await asyncio.gather(*working, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
    finally:
        stopping.cancel()


async def _open_bus(
    stack: AsyncExitStack, settings: PlatformSettings, name: str, stop: asyncio.Event
) -> Bus | None:
    """Wait for NATS, or for the stop; None in the latter case."""
    connecting = asyncio.create_task(
        stack.enter_async_context(connect_bus(settings, name=f"spica-{name}", wait=True))
    )
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({connecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if connecting.done():
        return connecting.result()
    await end(connecting)
    return None


async def _open_store(settings: PlatformSettings, stop: asyncio.Event) -> Pool | None:
    """Wait for PostgreSQL, and for its tables to be at this code's version."""
    while not stop.is_set():
        try:
            pool = await connect_pool(settings.database_url)
        except Unavailable as error:
            log.warning("waiting for the store", error=error.message)
            await asyncio.sleep(_RETRY_S)
            continue
        try:
            found, expected = await current_migration(pool), newest_migration()
        except CONNECTION_ERRORS:
            pool.terminate()
            continue
        if found == expected:
            return pool
        log.warning("waiting for `spica migrate`", found=found, expected=expected)
        pool.terminate()
        await asyncio.sleep(_RETRY_S)
    return None


async def _close_pool(pool: Pool) -> None:
    try:
        await asyncio.wait_for(pool.close(), timeout=5)
    except (*CONNECTION_ERRORS, asyncio.CancelledError):
        pool.terminate()


async def _ensure_stream(bus: Bus, pool: Pool, stop: asyncio.Event) -> None:
    """Make sure of the stream as soon as both servers let us."""
    while not stop.is_set():
        try:
            await ensure_stream(bus, pool)
            return
        except (*BUS_ERRORS, *CONNECTION_ERRORS) as error:
            log.warning("waiting for the bus", error=str(error) or type(error).__name__)
            await asyncio.sleep(_RETRY_S)


async def _introduce(bus: Bus, name: str, health_url: str) -> None:
    """Answer NATS' service discovery ($SRV.PING, $SRV.INFO), so that any tool sees who is there."""
    await nats.micro.add_service(
        bus.nc,
        name=f"spica-{name}",
        version=CODE_VERSION,
        description=f"Spica's {name} service",
        metadata={"host": socket.gethostname(), "pid": str(os.getpid()), "health_url": health_url},
    )


def run(name: str, settings_type: type[S], compose: Compose[S]) -> None:
    """Entry of a service's process: settings, logs, signals, exit code."""
    try:
        platform_settings = PlatformSettings()
    except (SpicaError, ValidationError) as error:
        sys.exit(f"spica_{name}: {error}")
    configure_logs(platform_settings, name)
    try:
        asyncio.run(_run_until_signal(name, settings_type(), compose, platform_settings))
    except SpicaError as error:
        log.error("service cannot run", code=error.code, error=error.message)
        sys.exit(1)
    except ValidationError as error:
        log.error("settings do not fit", error=str(error))
        sys.exit(1)


async def _run_until_signal(
    name: str, settings: S, compose: Compose[S], platform_settings: PlatformSettings
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(name, settings, compose, platform_settings=platform_settings, stop=stop)
