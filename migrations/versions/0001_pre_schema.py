"""Create schema ruvector."""

from alembic import op

from ruvector.alembic.script import run_script

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script(op, __file__, "0001_pre_schema.sql")


def downgrade() -> None:
    raise NotImplementedError("remove schema ruvector with: ruvector uninstall")
