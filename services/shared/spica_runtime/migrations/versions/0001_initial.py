"""The first tables."""

from alembic import op
from spica_runtime.sqlscript import statements

revision = "0001"
down_revision = None


def upgrade() -> None:
    for statement in statements("0001_initial"):
        op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("The first migration is not taken back: restore a backup instead.")
