"""`spica migrate`: bring the store's tables to the newest version."""

from __future__ import annotations

from spica_console import exits
from spica_console.output import JsonOption, print_json


def migrate(json: JsonOption = False) -> None:
    """Bring the tables in PostgreSQL to the version that this Spica needs. Safe to repeat."""
    found, reached = exits.run(_migrate)
    if json:
        print_json({"before": found, "after": reached})
    elif found == reached:
        print(f"The store is at the newest version already ({reached}).")
    else:
        print(f"The store went from {found or 'empty'} to {reached}.")


async def _migrate() -> tuple[str | None, str | None]:
    import asyncio

    from spica_runtime import database
    from spica_runtime.endpoints import connected_settings

    settings = connected_settings()
    async with database.open_pool(settings) as pool:
        before = await database.current_migration(pool)
        await asyncio.to_thread(database.migrate, settings.database_url)
        return before, await database.current_migration(pool)
