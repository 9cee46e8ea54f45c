"""What policies say of measurements, and all files that a measurement made."""

from alembic import op
from spica_runtime.sqlscript import statements

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    for statement in statements("0005_quality"):
        op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("Migrations only add: restore a backup instead.")
