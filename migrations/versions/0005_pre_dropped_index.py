"""Keep what is needed to build the indexes again that a cutover dropped."""

from alembic import op

from ruvector.alembic.script import run_script

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script(op, __file__, "0005_pre_dropped_index.sql")


def downgrade() -> None:
    raise NotImplementedError("remove schema ruvector with: ruvector uninstall")
