"""What the migration scripts share: where their version table lives and how they run a .sql file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

if TYPE_CHECKING:
    from alembic.operations import Operations
    from sqlalchemy import Select, TextClause

VERSION_TABLE_ARGUMENTS: dict[str, Any] = {"version_table": "alembic_version", "version_table_schema": "ruvector"}


def run_script(operations: Operations, script: str, name: str) -> None:
    """Run the .sql file of this name that stands beside the migration script."""
    execute_text(operations, Path(script).with_name(name).read_text(encoding="utf-8"))


def execute_text(operations: Operations, statements: str) -> None:
    """Run SQL as it stands."""
    # A colon would start a bind parameter of SQLAlchemy; ours have none.
    execute(operations, text(statements.replace(":", "\\:")))


def execute(operations: Operations, statement: TextClause | Select[Any]) -> None:
    """Run a statement, or print it in offline mode."""
    context = operations.get_context()
    if not context.as_sql:
        operations.execute(statement)
        return
    # Alembic would print every % twice, as the driver wants them; nobody takes them apart again in a script.
    compiled = statement.compile(dialect=context.dialect, compile_kwargs={"literal_binds": True})
    context.impl.static_output(str(compiled).replace("%%", "%") + ";")
