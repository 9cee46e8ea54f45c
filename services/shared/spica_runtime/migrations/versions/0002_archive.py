"""Standing watches, what archives have, and versions of their files."""

from alembic import op
from spica_runtime.sqlscript import statements

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for statement in statements("0002_archive"):
        op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("Migrations only add: restore a backup instead.")
