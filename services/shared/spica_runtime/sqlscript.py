"""SQL scripts of the migrations, statement by statement: asyncpg prepares one at a time."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent / "migrations"


def statements(name: str) -> list[str]:
    """Statements of `migrations/<name>.sql`: comments left out, split at semicolons (so none in texts)."""
    script = (_FOLDER / f"{name}.sql").read_text()
    lines = [line.split("--", 1)[0].rstrip() for line in script.splitlines()]
    return [part.strip() for part in "\n".join(lines).split(";") if part.strip()]
