"""The store's door: one pool per process, JSON as Python objects, and migrations."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from spica_runtime.errors import Unavailable
from spica_runtime.pg import Connection, Pool
from spica_runtime.settings import PlatformSettings
from spica_runtime.urls import without_password

_MIGRATIONS = Path(__file__).parent / "migrations"

# What PostgreSQL says while it is starting, stopping or short of something.
STORE_AWAY_ERRORS = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,
)
# Those, and what asyncpg raises when nobody answers. A handler's own faults can be of the latter kinds too.
CONNECTION_ERRORS = (*STORE_AWAY_ERRORS, OSError, TimeoutError, asyncpg.InterfaceError)


async def _prepare(connection: Connection) -> None:
    for kind in ("json", "jsonb"):
        await connection.set_type_codec(
            kind,
            encoder=lambda value: json.dumps(value, allow_nan=False),
            decoder=json.loads,
            schema="pg_catalog",
        )


async def connect_pool(url: str, *, min_size: int = 1, max_size: int = 8) -> Pool:
    """Open a pool. jsonb columns take and give Python objects.

    Raises
    ------
    Unavailable
        The server cannot be reached, or refuses.

    """
    try:
        return await asyncpg.create_pool(
            url, min_size=min_size, max_size=max_size, init=_prepare, timeout=10, command_timeout=120
        )
    except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
        raise Unavailable(
            "store_unreachable",
            f"PostgreSQL at {without_password(url)} cannot be used: {error or type(error).__name__}. "
            "Start it (`spica up` starts one) or set SPICA_DATABASE_URL.",
        ) from error


@asynccontextmanager
async def open_pool(settings: PlatformSettings, *, max_size: int = 8) -> AsyncIterator[Pool]:
    """A pool for the length of a block."""
    pool = await connect_pool(settings.database_url, max_size=max_size)
    try:
        yield pool
    finally:
        try:
            await asyncio.wait_for(pool.close(), timeout=5)
        except (TimeoutError, *CONNECTION_ERRORS):
            pool.terminate()


def migrate(url: str) -> None:
    """Bring the store's tables to the newest version. Runs its own event loop: call from a thread."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["url"] = url
    command.upgrade(config, "head")


def newest_migration() -> str:
    """Revision that this code expects the store to be at."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return ScriptDirectory.from_config(config).get_current_head() or ""


async def current_migration(pool: Pool) -> str | None:
    """Revision the store is at; None: never migrated."""
    try:
        revision: str | None = await pool.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return None
    return revision
