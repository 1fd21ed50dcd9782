"""What the database knows of collections, read through a connection of SQLAlchemy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from ruvector import db
from ruvector.sqlalchemy.collection import Collection


@dataclass(frozen=True, slots=True)
class Registered:
    """One attached column; schema is None for the default one, as in metadata."""

    name: str
    schema: str | None
    table: str
    column: str
    key_columns: tuple[str, ...]
    dims: int
    metric: str
    m: int
    ef_construction: int
    ef_search: int
    filter_columns: tuple[str, ...]

    def difference(self, declared: Collection) -> str | None:
        """Name what a declared collection says otherwise, if that could change an answer."""
        pairs = {
            "schema": (self.schema, declared.table.schema),
            "table": (self.table, declared.table.name),
            "column": (self.column, declared.column.name),
            "key": (self.key_columns, tuple(key.name for key in declared.key_columns)),
            "metric": (self.metric, declared.metric),
            "number of dimensions": (self.dims, declared.dims_declared or self.dims),
        }
        for word, (registered_value, declared_value) in pairs.items():
            if registered_value != declared_value:
                return word
        return "list of filter columns" if set(declared.filter_columns) - set(self.filter_columns) else None


def rows_of(connection: Connection, group: str, name: str) -> Sequence[Any]:
    """Return the rows of a named query without parameters."""
    return connection.execute(text(db.query(group, name).replace("::", "\\:\\:"))).all()


def is_installed(connection: Connection) -> bool:
    """Tell whether schema ruvector exists and this role may read its collections."""
    return bool(rows_of(connection, "sqlalchemy", "has_schema")[0][0])


def registered(connection: Connection, *, default_schema: str | None) -> list[Registered]:
    """Return every attached column that this role may see, oldest first."""
    if not is_installed(connection):
        return []
    return [
        Registered(
            name=row.name,
            schema=None if row.table_schema == default_schema else row.table_schema,
            table=row.table_name,
            column=row.column_name,
            key_columns=tuple(row.key_columns),
            dims=row.dims,
            metric=row.metric,
            m=row.m,
            ef_construction=row.ef_construction,
            ef_search=row.ef_search,
            filter_columns=tuple(row.filter_columns),
        )
        for row in rows_of(connection, "sqlalchemy", "collections")
    ]
