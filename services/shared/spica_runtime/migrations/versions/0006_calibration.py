"""Versions of solutions, and what runs teach of their instruments."""

from alembic import op
from spica_runtime.sqlscript import statements

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    for statement in statements("0006_calibration"):
        op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("Migrations only add: restore a backup instead.")
