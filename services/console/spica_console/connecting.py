"""How commands reach the platform: settings first, else the running `spica up` of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import asyncpg
import nats.errors
import nats.js.errors
from spica_runtime.bus import Bus, connect_bus
from spica_runtime.database import open_pool
from spica_runtime.endpoints import connected_settings
from spica_runtime.errors import Unavailable
from spica_runtime.pg import Pool
from spica_runtime.settings import PlatformSettings
from spica_runtime.storage import DataFolder
from spica_runtime.urls import without_password


@dataclass(frozen=True, slots=True)
class Reached:
    """Bus, store and data folder of a platform that answers."""

    settings: PlatformSettings
    bus: Bus
    pool: Pool
    data: DataFolder


@asynccontextmanager
async def reach(settings: PlatformSettings | None = None) -> AsyncIterator[Reached]:
    """Connect to bus and store for the length of a block.

    Raises
    ------
    Unavailable
        A server is away, or stands but was never set up.

    """
    settings = settings or connected_settings()
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connect_bus(settings, name="spica-command"))
        pool = await stack.enter_async_context(open_pool(settings, max_size=4))
        await stack.enter_async_context(clear_errors(settings))
        yield Reached(settings, bus, pool, DataFolder(settings.data))


@asynccontextmanager
async def reach_store(settings: PlatformSettings | None = None) -> AsyncIterator[tuple[Pool, DataFolder]]:
    """Connect to the store alone."""
    settings = settings or connected_settings()
    async with open_pool(settings, max_size=2) as pool, clear_errors(settings):
        yield pool, DataFolder(settings.data)


@asynccontextmanager
async def clear_errors(settings: PlatformSettings) -> AsyncIterator[None]:
    """Say what to do where servers answer but Spica was never set up on them."""
    try:
        yield
    except nats.js.errors.NotFoundError as error:
        raise Unavailable(
            "stream_missing",
            f"NATS at {without_password(settings.nats_url)} has no stream of Spica yet: start the services (`spica up`).",
        ) from error
    except nats.js.errors.ServiceUnavailableError as error:
        raise Unavailable(
            "jetstream_off",
            f"NATS at {without_password(settings.nats_url)} runs without JetStream: start it with -js.",
        ) from error
    except (nats.errors.Error, nats.js.errors.NoStreamResponseError) as error:
        raise Unavailable(
            "bus_lost",
            f"NATS at {without_password(settings.nats_url)} stopped answering: {error or type(error).__name__}.",
        ) from error
    except asyncpg.UndefinedTableError as error:
        raise Unavailable(
            "store_not_migrated", "The store has no tables of Spica yet: run `spica migrate` or `spica up`."
        ) from error
    except (asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError) as error:
        raise Unavailable("store_lost", f"PostgreSQL stopped answering: {error}.") from error
