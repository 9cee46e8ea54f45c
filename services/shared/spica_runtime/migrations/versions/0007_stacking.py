"""Stacks made in parts, standing surveys, what people tag."""

from alembic import op
from spica_runtime.sqlscript import statements

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    for statement in statements("0007_stacking"):
        op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("Migrations only add: restore a backup instead.")
