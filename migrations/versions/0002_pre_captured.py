"""Remember since when changes of each filter column are captured."""

from alembic import op

from ruvector.alembic.script import run_script

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script(op, __file__, "0002_pre_captured.sql")


def downgrade() -> None:
    raise NotImplementedError("remove schema ruvector with: ruvector uninstall")
