"""What the migration scripts share: where their version table lives and how they run a .sql file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

if TYPE_CHECKING:
    from alembic.operations import Operations

VERSION_TABLE_ARGUMENTS: dict[str, Any] = {"version_table": "alembic_version", "version_table_schema": "ruvector"}


def run_script(operations: Operations, script: str, name: str) -> None:
    """Run the .sql file of this name that stands beside the migration script."""
    statements = Path(script).with_name(name).read_text(encoding="utf-8")
    # A colon would start a bind parameter of SQLAlchemy; the file has none.
    operations.execute(text(statements.replace(":", "\\:")))
