"""What rules select on, as columns, and the sky index."""

from alembic import op
from spica_runtime.sqlscript import statements

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for statement in statements("0003_headers"):
        op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("Migrations only add: restore a backup instead.")
