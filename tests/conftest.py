"""Fixtures for all tests: real servers from wheels, on free ports of 127.0.0.1."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from spica_runtime.bus import connect_bus
from spica_runtime.database import migrate, open_pool
from spica_runtime.embedded.nats import EmbeddedNats
from spica_runtime.embedded.postgres import EmbeddedPostgres
from spica_runtime.settings import PlatformSettings
from spica_runtime.storage import DataFolder

from tests.support.rig import Rig

_numbers = itertools.count()


def _with_database(url: str, database: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


@pytest.fixture
def home() -> Iterator[Path]:
    """A fresh home for embedded servers.

    Not under pytest's own temporary folder: run as root, PostgreSQL lives under another user, and the next
    pytest that starts on the machine closes that folder to others.
    """
    with tempfile.TemporaryDirectory(prefix="spica-test-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """One PostgreSQL server for the whole run, its database `spica` migrated."""
    with tempfile.TemporaryDirectory(prefix="spica-test-", ignore_cleanup_errors=True) as folder:
        server = EmbeddedPostgres(Path(folder), sync=False)
        asyncio.run(server.start())
        try:
            migrate(server.url)
            yield server.url
        finally:
            asyncio.run(server.stop())


@pytest.fixture
async def database_url(postgres_url: str) -> AsyncIterator[str]:
    """A fresh, migrated database for one test."""
    name = f"test_{next(_numbers)}"
    admin = await asyncpg.connect(_with_database(postgres_url, "postgres"))
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE spica")
    yield _with_database(postgres_url, name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[EmbeddedNats]:
    """A fresh nats-server for one test."""
    server = EmbeddedNats(tmp_path / "bus")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def platform_settings(nats_server: EmbeddedNats, database_url: str, tmp_path: Path) -> PlatformSettings:
    """Settings that point at this test's servers and folder."""
    return PlatformSettings(nats_url=nats_server.url, database_url=database_url, data=tmp_path / "data")


@pytest.fixture
async def rig(platform_settings: PlatformSettings) -> AsyncIterator[Rig]:
    """A bench for services."""
    platform_settings.data.mkdir(parents=True, exist_ok=True)
    async with (
        open_pool(platform_settings) as pool,
        connect_bus(platform_settings, name="test") as bus,
        AsyncExitStack() as stack,
    ):
        yield Rig(platform_settings, pool, bus, DataFolder(platform_settings.data), stack)
