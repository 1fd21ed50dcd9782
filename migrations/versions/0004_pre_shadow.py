"""Keep shadow traffic: what the index would have answered beside what pgvector answered."""

from alembic import op

from ruvector.alembic.script import run_script

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_script(op, __file__, "0004_pre_shadow.sql")


def downgrade() -> None:
    raise NotImplementedError("remove schema ruvector with: ruvector uninstall")
