"""Keep who answers the searches of each collection."""

from alembic import op

from ruvector.alembic.script import run_script

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script(op, __file__, "0003_pre_cutover.sql")


def downgrade() -> None:
    raise NotImplementedError("remove schema ruvector with: ruvector uninstall")
