"""The first tables."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    script = (Path(__file__).parents[1] / "0001_initial.sql").read_text()
    for statement in _statements(script):
        op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("The first migration is not taken back: restore a backup instead.")


def _statements(script: str) -> list[str]:
    lines = [line.split("--", 1)[0].rstrip() for line in script.splitlines()]
    return [part.strip() for part in "\n".join(lines).split(";") if part.strip()]
