"""The embedded platform as one thing: servers and services started in order, kept alive, stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx

from spica_runtime.database import migrate
from spica_runtime.embedded.nats import EmbeddedNats
from spica_runtime.embedded.postgres import EmbeddedPostgres
from spica_runtime.embedded.process import CannotStart, Child, claim_port, free_port, require_space
from spica_runtime.endpoints import Endpoints, remove_endpoints, write_endpoints
from spica_runtime.home import HomeSettings
from spica_runtime.settings import PlatformSettings
from spica_runtime.tasks import end

SERVICES = ("ingest", "quality", "calib", "stack", "export", "console")

_RESTART_DELAYS_S = (0.5, 1.0, 2.0, 5.0, 10.0)
_STEADY_S = 60.0
_READY_TIMEOUT_S = 60.0
_GIVE_UP_RESTARTS = 3  # at the first start: what dies three times in a row will not come up


@dataclass(slots=True)
class Part:
    """One server or service, as it stands now."""

    name: str
    state: str = "waiting"
    """waiting, starting, ready, restarting, stopping, stopped, outside."""
    detail: str = ""
    pid: int | None = None
    restarts: int = 0


Watcher = Callable[[Part], None]


class Supervisor:
    """Starts what is not there already, starts again what dies, and stops all of it.

    A NATS or PostgreSQL named by SPICA_NATS_URL or SPICA_DATABASE_URL is used as it is.
    """

    def __init__(
        self,
        home: HomeSettings,
        platform: PlatformSettings,
        *,
        services: tuple[str, ...] = SERVICES,
        environment: Mapping[str, str] | None = None,
        on_change: Watcher = lambda _: None,
    ) -> None:
        self._settings = home
        self._platform = platform
        self.home = home.home.absolute()
        self._environment = dict(environment or {})
        self._on_change = on_change
        self._services = services
        self._children: dict[str, Child] = {}
        self._ports: dict[str, int] = {}
        self._started_at: dict[str, float] = {}
        self._lock: IO[str] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._reviving: set[asyncio.Task[None]] = set()
        outside_nats = "nats_url" in platform.model_fields_set
        outside_store = "database_url" in platform.model_fields_set
        self.nats = None if outside_nats else EmbeddedNats(self.home, home.nats_port)
        self.postgres = None if outside_store else EmbeddedPostgres(self.home, home.postgres_port)
        self.parts = {name: Part(name) for name in ("nats", "postgres", *services)}
        for name, outside in (("nats", outside_nats), ("postgres", outside_store)):
            if outside:
                self.parts[name].state = "outside"
        self.console_url = ""

    @property
    def settings(self) -> PlatformSettings:
        """Settings with the addresses of what was started."""
        update: dict[str, object] = {"data": self._data}
        if self.nats:
            update["nats_url"] = self.nats.url
        if self.postgres:
            update["database_url"] = self.postgres.url
        return self._platform.model_copy(update=update)

    @property
    def _data(self) -> Path:
        given = "data" in self._platform.model_fields_set
        return (self._platform.data if given else self.home / "data").absolute()

    def child(self, name: str) -> Child | None:
        """The process of a part, if it is a child of ours."""
        if name == "nats":
            return self.nats.child if self.nats else None
        if name == "postgres":
            return self.postgres.child if self.postgres else None
        return self._children.get(name)

    async def start(self) -> None:
        """Start everything in order; returns when all is ready. On failure, stops what it started."""
        self._take_lock()
        try:
            require_space(self.home, self._settings.min_free_mb * 1_000_000)
            await asyncio.gather(self._start_server("nats"), self._start_server("postgres"))
            await asyncio.to_thread(migrate, self.settings.database_url)
            console_port = claim_port(self._settings.console_port, "the console", "SPICA_CONSOLE_PORT")
            self.console_url = f"http://127.0.0.1:{console_port}"
            self._environment["SPICA_CONSOLE_PORT"] = str(console_port)
            self._write_endpoints()
            for name in self._services:
                self._start_service(name)
            self._watching = asyncio.create_task(self._watch())
            await asyncio.gather(*(self._until_ready(name, give_up=True) for name in self._services))
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Services first (their work in flight still needs the servers), then NATS, then PostgreSQL."""
        if self._watching is not None:
            await end(self._watching)
        await end(*self._reviving)
        for name in self._children:
            self._set(name, "stopping")
        await asyncio.gather(*(child.stop(grace_s=30) for child in self._children.values()))
        for name in self._children:
            self._set(name, "stopped", pid=None)
        for name, server in (("nats", self.nats), ("postgres", self.postgres)):
            if server is not None:
                await server.stop()
                self._set(name, "stopped", pid=None)
        remove_endpoints(self.home)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take_lock(self) -> None:
        """One supervisor per home. The kernel lets go of the lock when its holder ends, however it ends."""
        try:
            (self.home / "run").mkdir(parents=True, exist_ok=True)
            self._lock = (self.home / "run" / "spica.lock").open("a+")
        except OSError as error:
            raise CannotStart(
                "home_not_writable",
                f"The folder {self.home} cannot be written: {error.strerror}. Choose another one with SPICA_HOME.",
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "unknown"
            self._lock.close()
            self._lock = None
            raise CannotStart(
                "already_running",
                f"Spica is running already in {self.home} (process {holder}). "
                "Stop it first, or choose another folder with SPICA_HOME.",
            ) from error
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    def _write_endpoints(self) -> None:
        settings = self.settings
        write_endpoints(
            self.home,
            Endpoints(
                nats_url=settings.nats_url,
                database_url=settings.database_url,
                data=str(settings.data),
                pid=os.getpid(),
                console_url=self.console_url,
                nats_monitor_url=self.nats.monitor_url if self.nats else None,
            ),
        )

    def _set(self, name: str, state: str, detail: str = "", *, pid: int | None = None) -> None:
        part = self.parts[name]
        part.state, part.detail, part.pid = state, detail, pid
        self._on_change(part)

    async def _start_server(self, name: str) -> None:
        server = self.nats if name == "nats" else self.postgres
        if server is None:
            self._on_change(self.parts[name])
            return
        self._set(name, "starting")
        await server.start()
        child = server.child
        self._set(name, "ready", f"127.0.0.1:{server.port}", pid=child.pid if child else None)

    def _start_service(self, name: str) -> None:
        settings = self.settings
        self._ports.setdefault(name, free_port())
        environment = {
            # Worker processes are the parallelism: linear algebra threads on top only get in their way.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            **os.environ,
            **self._environment,
            "SPICA_NATS_URL": settings.nats_url,
            "SPICA_DATABASE_URL": settings.database_url,
            "SPICA_DATA": str(settings.data),
            "SPICA_LOG_FORMAT": "json",
            f"SPICA_{name.upper()}_HEALTH_PORT": str(self._ports[name]),
        }
        self._children[name] = Child(
            name,
            [sys.executable, "-m", f"spica_{name}"],
            self.home / "logs" / f"{name}.log",
            environment=environment,
        )
        self._started_at[name] = time.monotonic()
        self._set(name, "starting", pid=self._children[name].pid)

    async def _until_ready(self, name: str, *, give_up: bool = False) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        url = f"http://127.0.0.1:{self._ports[name]}/readyz"
        async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
            while time.monotonic() < deadline:
                if give_up and self.parts[name].restarts >= _GIVE_UP_RESTARTS:
                    break
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(url)).status_code == httpx.codes.OK:
                        child = self._children[name]
                        self._set(name, "ready", url.removesuffix("/readyz"), pid=child.pid)
                        return
                await asyncio.sleep(0.1)
        child = self._children[name]
        raise CannotStart(
            "service_not_ready",
            f"{name} does not become ready (log: {child.log}). It said:\n{child.last_lines()}",
        )

    async def _watch(self) -> None:
        """Start again what died, with growing patience."""
        while True:
            await asyncio.sleep(0.2)
            for name in self.parts:
                child = self.child(name)
                if child is None or child.exit_code() is None:
                    continue
                try:
                    await (
                        self._revive_service(name, child) if name in self._children else self._revive(name)
                    )
                except Exception as error:
                    # Whatever it is (a full disk, say): the other parts are still looked after, and this
                    # one is tried again.
                    self._set(name, "restarting", str(error).splitlines()[0] if str(error) else repr(error))
                    await asyncio.sleep(1)

    async def _revive(self, name: str) -> None:
        self.parts[name].restarts += 1
        self._set(name, "restarting")
        await self._start_server(name)

    async def _revive_service(self, name: str, child: Child) -> None:
        part = self.parts[name]
        lived_s = time.monotonic() - self._started_at[name]
        if part.state != "restarting":
            part.restarts = 0 if lived_s > _STEADY_S else part.restarts + 1
            self._set(name, "restarting", f"ended with {child.exit_code()}; log: {child.log}")
            self._started_at[name] = time.monotonic()
            return
        delay = _RESTART_DELAYS_S[min(max(part.restarts - 1, 0), len(_RESTART_DELAYS_S) - 1)]
        if lived_s >= delay:
            self._start_service(name)
            task = asyncio.create_task(self._until_ready_again(name))
            self._reviving.add(task)
            task.add_done_callback(self._reviving.discard)

    async def _until_ready_again(self, name: str) -> None:
        with contextlib.suppress(CannotStart):
            await self._until_ready(name)
