"""`spica migrate`: bring the store's tables to the newest version."""

from __future__ import annotations

from spica_console import exits
from spica_console.output import JsonOption, print_json


def migrate(json: JsonOption = False) -> None:
    """Bring the tables in PostgreSQL to the version that this Spica needs. Safe to repeat.

    Columns that are new are filled from the headers in the store (a running ingest service does that as well).
    """
    found, reached, filled = exits.run(lambda: _migrate(json))
    if json:
        print_json({"before": found, "after": reached, "images_filled": filled})
        return
    if filled:
        print(f"The columns of {filled} image(s) were filled from their stored headers.")
    if found == reached:
        print(f"The store is at the newest version already ({reached}).")
    else:
        print(f"The store went from {found or 'empty'} to {reached}.")


async def _migrate(quiet: bool) -> tuple[str | None, str | None, int]:
    import asyncio
    import sys

    from spica_imaging.profiles import load_profiles
    from spica_ingest.columns_again import fill_columns
    from spica_runtime import database
    from spica_runtime.endpoints import connected_settings

    settings = connected_settings()
    async with database.open_pool(settings) as pool:
        before = await database.current_migration(pool)
        await asyncio.to_thread(database.migrate, settings.database_url)
        after = await database.current_migration(pool)

        def tell(done: int) -> None:
            if not quiet and done % 1000 == 0:
                print(f"columns of {done} images filled", file=sys.stderr)

        filled = await fill_columns(pool, load_profiles(settings.profiles), tell=tell)
        return before, after, filled
