"""Images placed on nodes."""

from alembic import op
from spica_runtime.sqlscript import statements

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for statement in statements("0004_nodes"):
        op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("Migrations only add: restore a backup instead.")
